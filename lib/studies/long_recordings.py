"""Figures of long recordings: recall by false alarms per hour, by loudness and by background, and two minutes."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from lib import plots
from lib.events import EVENT_LABELS
from lib.plots import COLOURS, LINE_STYLES

LOOKS = {
    label: {"color": COLOURS[label], "linestyle": LINE_STYLES[label], "marker": marker}
    for label, marker in zip(EVENT_LABELS, "os", strict=True)
}
FEWEST_PER_HOUR = 0.05  # no false alarm at all is drawn here: a logarithmic axis has no 0


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw recall against false alarms and loudness, recall by background, and one stretch of time."""
    whole, (left, right) = plots.subplots(1, 2, height_inches=3.3)
    draw_false_alarms(left, tables["detector_curve_test"])
    draw_recall_by_snr(right, tables["detector_recall_by_snr_db_test"])
    backgrounds, ax = plots.subplots(height_inches=2.6)
    draw_recall_by_background(ax, tables["detector_recall_by_background_test"])
    example, axis = plots.subplots(height_inches=2.2)
    draw_timeline(axis, tables["detector_timeline"])
    return {"long_recordings": whole, "long_recordings_backgrounds": backgrounds, "long_recordings_example": example}


def draw_false_alarms(ax: Axes, table: pd.DataFrame) -> None:
    """Draw recall over false alarms per hour, one point per threshold, of table "detector_curve_test"."""
    for label in EVENT_LABELS:
        rows = table[table["label"] == label].sort_values("threshold")
        alarms, text = rows["false_alarms_per_hour"].clip(lower=FEWEST_PER_HOUR), f"{rows['n_events'].iloc[0]:,} events"
        ax.plot(alarms, rows["recall"], markersize=3, label=f"{label} (n = {text})", **LOOKS[label])
    hours = table["hours"].iloc[0]
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.set(ylim=(-0.02, 1.03), ylabel="Recall of events")
    ax.set_xlabel(f"False alarms per hour, in {hours:.1f} h ({FEWEST_PER_HOUR:g} stands for none)")
    ax.legend(loc="lower right")


def draw_recall_by_snr(ax: Axes, table: pd.DataFrame) -> None:
    """Draw recall with its 95 % interval over signal-to-noise ratio in dB, of such a table."""
    for label, shift in zip(EVENT_LABELS, (-0.25, 0.25), strict=True):
        rows = table[table["label"] == label].sort_values("snr_db")
        places = rows["snr_db"] + shift  # side by side, so that neither interval hides the other
        text = f"{label} (n = {int(rows['n_events'].sum()):,} events)"
        ax.plot(places, rows["value"], markersize=4, label=text, **LOOKS[label])
        ax.vlines(places, rows["low"], rows["high"], color=COLOURS[label], linewidth=1.1)
    ax.set(ylim=(-0.02, 1.03), xlabel="Signal-to-noise ratio (dB)", ylabel="Recall of events (line: 95 % interval)")
    ax.set_xticks(sorted(table["snr_db"].unique()))
    ax.legend(loc="lower right")


def draw_recall_by_background(ax: Axes, table: pd.DataFrame) -> None:
    """Draw recall with its 95 % interval by background, of such a table."""
    kinds = sorted(table["background"].unique())
    for label, shift in zip(EVENT_LABELS, (-0.2, 0.2), strict=True):
        rows = table[table["label"] == label].set_index("background").reindex(kinds)
        places = [place + shift for place in range(len(kinds))]
        ax.bar(places, rows["value"], width=0.36, color=COLOURS[label], label=label)
        ax.vlines(places, rows["low"], rows["high"], color="black", linewidth=1.1)
    n_events = table.pivot(index="background", columns="label", values="n_events").reindex(columns=EVENT_LABELS)
    counts = [" / ".join(f"{n:.0f}" for n in n_events.loc[kind].fillna(0)) for kind in kinds]
    ax.set_xticks(range(len(kinds)), [f"{kind}\nn = {count}" for kind, count in zip(kinds, counts, strict=True)])
    ax.tick_params(axis="x", length=0)
    ax.set(ylim=(0, 1.03), ylabel="Recall of events (line: 95 % interval)")
    ax.set_xlabel(f"Background (n: events of {' / '.join(EVENT_LABELS)})")
    ax.grid(visible=False, axis="x")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def draw_timeline(ax: Axes, table: pd.DataFrame) -> None:
    """Draw frame probabilities over time in seconds with reference and found events above, of "detector_timeline"."""
    frames = table[table["kind"] == "frame"]
    for label in EVENT_LABELS:
        rows = frames[frames["label"] == label]
        look = LOOKS[label] | {"marker": None, "linewidth": 1.0}
        ax.step(rows["onset_seconds"], rows["probability"], where="post", label=label, **look)
    start, stop = frames["onset_seconds"].min(), frames["offset_seconds"].max()
    for height, kind in ((1.3, "reference"), (1.12, "found")):
        for row in table[table["kind"] == kind].itertuples():
            left, right = max(row.onset_seconds, start), min(row.offset_seconds, stop)
            ax.broken_barh(
                [(left, right - left)], (height, 0.12), facecolor=COLOURS[row.label],
                hatch="////" if row.label == "screaming" else None, edgecolor="white", linewidth=0,
            )  # fmt: skip
    ax.set_yticks([0, 0.5, 1, 1.18, 1.36], ["0", "0.5", "1", "found", "reference"])
    ax.set(xlim=(start, stop), ylim=(-0.03, 1.46), xlabel="Time (seconds)", ylabel="Probability")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
