"""What the chaos suite wrote (`./run_all.sh chaos`), as tables and a figure for the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lib import plots
from lib.studies.appendix import as_text, figure_address

SIZES = {"ci": "every build", "long": "long"}
AMOUNTS = {  # what says how much a test did, the most telling first
    "kills": "{:,.0f} kills",
    "sends": "{:,.0f} sends",
    "audio_hours": "{:,.0f} h of audio",
}
COUNTS = ["chunks", "lost", "duplicated", "out_of_order"]
FACTS = ("outcome", "failed", "times", "held", "replayed", "histories")
RECOVERY = {"recovery_p50_seconds": "recovery p50 (s)", "recovery_p95_seconds": "recovery p95 (s)"}
LIMITS = {  # sentences, by the first figure that each needs
    "largest_history_events": "longest history of one run: {largest_history_events:,.0f} events (Temporal warns at "
    "10,240)",
    "largest_event_bytes": "largest event of a history: {largest_event_bytes:,.0f} bytes (the guard refuses messages "
    "over 16,000)",
    "markers_in_database": "a secret marker or a label in plain text, codec on: {markers_in_database:.0f} times in "
    "the server's database, {markers_in_logs:.0f} in logs, {markers_in_metrics:.0f} in metrics",
    "memory_growth_orchestration": "memory from the second to the last quarter of the soak: orchestration worker "
    "{memory_growth_orchestration:+.1%}, inference worker {memory_growth_inference:+.1%}",
}
MIN_LAG_SECONDS = 0.05  # the lag's axis is logarithmic
KILLED_COLOURS = dict(zip(("inference", "orchestration", "server"), plots.SERIES_COLOURS, strict=False))


def read(path: Path) -> pd.DataFrame:
    """Return the rows of chaos.json (of `python -m tests.chaos`), one a test and size; missing keys are NaN."""
    rows = pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
    return rows.reindex(columns=rows.columns.union([*FACTS, *COUNTS, *RECOVERY, *AMOUNTS], sort=False))


def context(folder: Path) -> dict[str, object] | None:
    """Return what templates/service.html.j2 is given, from a report's folder; None where the suite was not run."""
    if not (folder / "chaos.json").is_file():
        return None
    rows = read(folder / "chaos.json")
    return {
        "runs": as_text(runs(rows)),
        "faults": as_text(faults(rows)),
        "limits": limits(rows),
        "figure": figure_address(folder, "study_chaos_kills"),
    }


def runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a table of kills, repeated sends, soak and marker: what was done, and what was lost of it.

    Columns test, size, done, chunks, lost, duplicated, out_of_order, recovery p50 and p95 (seconds), replayed (how many
    of the run's histories today's code decides in the same way). A run that failed says so under `done`.
    """
    found = rows[rows["outcome"].isna()]
    table = found[["test"]].assign(
        size=found["size"].map(SIZES),
        done=[_done(row) for row in found.to_dict("records")],
        **found[COUNTS].astype("Int64"),
        **found[list(RECOVERY)].rename(columns=RECOVERY),
        replayed=found["replayed"].astype("Int64"),
    )
    return table.sort_values(["size", "test"], ignore_index=True)


def faults(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a table of broken surroundings: how often each was tried, how often it ended as stated, and how."""
    found = rows[rows["times"].notna()]
    held = [f"{row['held']:.0f} of {row['times']:.0f}" for row in found.to_dict("records")]
    table = found[["test"]].assign(size=found["size"].map(SIZES), held=held, outcome=found["outcome"])
    table = table.pivot_table(index=["test", "outcome"], columns="size", values="held", aggfunc="first")
    return table.rename_axis(columns=None).reset_index()[["test", *table.columns, "outcome"]]


def limits(rows: pd.DataFrame) -> list[str]:
    """Return sentences on histories, message size, plain text and memory: the worst over all long runs that tell."""
    long = rows[rows["size"] == "long"]
    worst = long.select_dtypes("number").max().dropna().to_dict()
    sentences = [text.format(**worst) for name, text in LIMITS.items() if name in worst]
    if long["histories"].notna().any():
        n_histories, n_replayed = long["histories"].sum(), long["replayed"].sum()
        sentences.append(
            f"histories that today's code decides in the same way: {n_replayed:,.0f} of {n_histories:,.0f}"
        )
    return sentences


def draw_kills(axes: Sequence[Axes], trace: pd.DataFrame) -> None:
    """Draw chunks against time with every kill marked, and the lag from sending to storing below.

    Parameters
    ----------
    axes : sequence of two Axes
        Upper and lower panel.
    trace : DataFrame
        Columns sequence, sent_seconds, stored_seconds, killed (process or NaN) and killed_seconds; times from the
        first send.
    """
    upper, lower = axes
    upper.plot(trace["sent_seconds"], trace["sequence"], color="0.6", label="sent")
    upper.plot(trace["stored_seconds"], trace["sequence"], color="black", linewidth=0.8, label="stored")
    lag = (trace["stored_seconds"] - trace["sent_seconds"]).clip(lower=MIN_LAG_SECONDS)
    lower.plot(trace["stored_seconds"], lag, ".", markersize=2, color="0.3")
    killed = trace.dropna(subset=["killed"])
    kinds = killed["killed"].str.partition("-")[0]
    for height, kind in enumerate(sorted(kinds.unique())):
        moments = killed.loc[kinds == kind, "killed_seconds"]
        place = {"transform": upper.get_xaxis_transform(), "color": KILLED_COLOURS[kind]}
        upper.plot(
            moments, np.full(len(moments), 0.03 + 0.06 * height), "|", label=f"{kind} killed ({len(moments)})", **place
        )
    upper.set(ylabel="Chunk (sequence)")
    lower.set(xlabel="Time since the first chunk was sent (seconds)", ylabel="Lag (seconds)", yscale="log")
    lower.yaxis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
    upper.legend()


def _done(row: dict[str, object]) -> str:
    if isinstance(row["failed"], str):
        return f"FAILED: {row['failed']}"
    return next((text.format(row[name]) for name, text in AMOUNTS.items() if pd.notna(row[name])), "")
