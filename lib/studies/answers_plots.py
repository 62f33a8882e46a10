"""Drawings of how far answers can be trusted: each on a given Axes, from a table of lib.studies, computing nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from lib import plots

MARKERS, STYLES = ("o", "s", "^", "D"), ("-", "--", "-.", ":")  # series told apart in grey too
COLOURS = ("#000000", *plots.SERIES_COLOURS[:3])


def draw_reliability(ax: Axes, table: pd.DataFrame, *, by: str = "state") -> None:
    """Draw accuracy over confidence, one line a series, each point as large as its bin has clips.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    table : DataFrame
        Rows of calibration_bins for one split, model, `what` and binning.
    by : str
        Column that tells the series apart: "state" (before, after), or "model".
    """
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="perfect")
    for look, name, part in _series(table, by):
        label = f"{name} (n = {int(part['n'].sum()):,})"
        ax.plot(part["confidence"], part["accuracy"], label=label, color=look["color"], linestyle=look["linestyle"])
        sizes = 8 + 70 * np.sqrt(part["n"] / part["n"].sum())
        ax.scatter(part["confidence"], part["accuracy"], s=sizes, color=look["color"], marker=look["marker"])
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xlabel="Confidence (mean of the bin)", ylabel="Share correct")
    ax.set_aspect("equal")
    ax.legend(loc="lower right")


def draw_coverage_risk(ax: Axes, table: pd.DataFrame, *, by: str = "model", unsure: pd.DataFrame | None = None) -> None:
    """Draw the share of errors over the share of clips answered, one line a series.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    table : DataFrame
        Rows of calibration_coverage_risk for one split (`by` "model") or one model (`by` "split").
    by : str
        Column that tells the series apart.
    unsure : DataFrame, optional
        Rows of calibration_unsure for one target risk: each is marked on the line of its series.
    """
    for look, name, part in _series(table, by):
        ax.plot(
            part["coverage"], part["risk"], label=str(name).replace("_", " "), drawstyle="steps-post",
            color=look["color"], linestyle=look["linestyle"],
        )  # fmt: skip
        if unsure is not None:
            row = unsure[unsure[by] == name]
            ax.plot(row["coverage"], row["risk"], color=look["color"], marker=look["marker"], linestyle="none")
    ax.set(xlim=(0, 1.02), xlabel="Coverage (share of clips answered)", ylabel="Risk (errors among answers)")
    ax.set_ylim(bottom=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left")


def draw_alarm_trade(ax: Axes, table: pd.DataFrame, *, by: str = "model", chosen: pd.DataFrame | None = None) -> None:
    """Draw misses over false alarms an hour for every threshold, one line a series.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    table : DataFrame
        Rows of calibration_thresholds for one alarm, and one split or one model.
    by : str
        Column that tells the series apart: "model" or "split".
    chosen : DataFrame, optional
        Rows of calibration_costs of the same alarm: each is marked, with what a miss costs beside it.
    """
    for look, name, part in _series(table, by):
        x, y = part["false_alarms_an_hour"], part["miss_rate"]
        ax.plot(x, y, label=str(name).replace("_", " "), color=look["color"], linestyle=look["linestyle"])
        for row in () if chosen is None else chosen[chosen[by] == name].itertuples():
            place = row.false_alarms_an_hour, row.miss_rate
            ax.plot(*place, marker=look["marker"], color=look["color"], linestyle="none", markersize=4.5)
            ax.annotate(f"{row.miss_costs}", place, xytext=(3, 3), textcoords="offset points", fontsize=7)
    ax.set_xscale("symlog", linthresh=5, linscale=0.6)
    ax.set_xticks([0, 5, 10, 50, 100, 500], ["0", "5", "10", "50", "100", "500"])
    ax.minorticks_off()
    ax.set(
        xlim=(0, 720), ylim=(-0.02, 1.02), xlabel="False alarms an hour", ylabel="Misses (share of cries and screams)"
    )
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper right")


def draw_robustness(ax: Axes, table: pd.DataFrame, *, legend: bool = False) -> None:
    """Draw macro F1 by level for one kind of change, beside the clips as recorded, one line a model.

    Parameters
    ----------
    ax : Axes
        One of several small ones.
    table : DataFrame
        Rows of the table robustness for one kind, and those as recorded.
    legend : bool
        Name the models; one of the small Axes is enough.
    """
    levels = list(dict.fromkeys(table["level"].fillna("")))
    models = table["model"].nunique()
    for index, (look, name, part) in enumerate(_series(table, "model")):
        places = [levels.index(level) + 0.14 * (index - (models - 1) / 2) for level in part["level"].fillna("")]
        low, high = (part[end].astype(float).fillna(part["macro_f1"]) for end in ("low", "high"))
        errors = np.maximum([part["macro_f1"] - low, high - part["macro_f1"]], 0)
        ax.errorbar(places, part["macro_f1"], errors, label=name, elinewidth=0.8, markersize=3.5, linewidth=1.1, **look)
    names = [level or "none" for level in levels]
    ax.set_xticks(range(len(levels)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=7)
    kinds = [kind for kind, level in zip(table["kind"], table["level"].fillna(""), strict=True) if level]
    ax.set(ylim=(0, 1.03), ylabel="Macro F1", title=(kinds or [""])[0])
    if legend:
        ax.legend(loc="lower left", fontsize=7)


def draw_hard_negatives(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the false positive rate of each kind of normal sound with its interval, one model, n beside the kind.

    Parameters
    ----------
    ax : Axes
        As tall as about 0.2 inch a kind.
    table : DataFrame
        Rows of hard_negatives_test or hard_negatives_left_out for one model. A filled dot has an interval over groups,
        a hollow one comes from too few groups for any; a kind without clips is said to have none.
    """
    labels = []
    for place, row in enumerate(table.itertuples()):
        labels.append(f"{row.kind} ({row.n_clips:,} of {row.n_groups:,})")
        if not row.n_clips:
            ax.text(0.005, place, "no clip", va="center", fontsize=7, color="0.45")
            continue
        has_interval = not pd.isna(row.low)
        if has_interval:
            ax.plot([row.low, row.high], [place, place], color="black", linewidth=1.1, marker="|", markersize=5)
        face = "black" if has_interval else "white"
        ax.plot(row.rate, place, marker="o", markersize=4.5, markeredgecolor="black", markerfacecolor=face)
    ax.set_yticks(range(len(labels)), labels, fontsize=7)
    ax.set_ylim(len(labels) - 0.5, -0.5)  # first kind on top
    ax.set(xlim=(-0.02, 1.02), xlabel="False positive rate (hollow: too few groups for an interval)")
    ax.set_ylabel("Kind (n clips of n groups)")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def draw_esc10(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the accuracy of each class of the table esc10 with its interval and n."""
    figures = {row.class_name: {"value": row.accuracy, "low": row.low, "high": row.high} for row in table.itertuples()}
    counts = {row.class_name: int(row.n_clips) for row in table.itertuples()}
    plots.score_bars(ax, {"": figures}, label="Accuracy", n=counts)


def _series(table: pd.DataFrame, by: str) -> Iterator[tuple[dict[str, str], object, pd.DataFrame]]:
    """Yield the look, the name and the rows of each series, in the order of the table."""
    for index, (name, part) in enumerate(table.groupby(by, sort=False)):
        look = {"color": COLOURS[index % 4], "linestyle": STYLES[index % 4], "marker": MARKERS[index % 4]}
        yield look, name, part
