"""Draws the matrix of sources never met, the spread over seeds and the data card's histograms; computes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from lib import config, plots

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

DARK = 0.55  # above this share a cell is dark, its text white


def draw_cross_corpus(ax: Axes, table: pd.DataFrame) -> None:
    """Draw recall as a heat map: source by row, class by column, each cell with value, interval and n.

    Parameters
    ----------
    ax : Axes
        About 0.37 inches high for each source, and 1 inch more.
    table : DataFrame
        What `lib.studies.cross_corpus.recalls` returns. A cell without interval (too few groups) is hatched; an empty
        one is a class that the source does not hold.
    """
    sources = list(dict.fromkeys(zip(table["family"], table["source"], strict=True)))
    shares = np.full((len(sources), len(config.CLASS_NAMES)), np.nan)
    for row in table.itertuples():
        place = sources.index((row.family, row.source)), config.CLASS_NAMES.index(row.label)
        shares[place] = row.value
        _cell(ax, place, row)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.figure.colorbar(image, ax=ax, label="Recall, source never met", pad=0.02, fraction=0.04)
    for place, (family, _) in enumerate(sources):
        if place and family != sources[place - 1][0]:  # a line between families
            ax.axhline(place - 0.5, color="0.3", linewidth=0.8)
    names = [source if source == family else f"{source}\n({family})" for family, source in sources]
    ax.set_yticks(range(len(sources)), names, fontsize=7)
    ax.set_xticks(range(len(config.CLASS_NAMES)), config.CLASS_NAMES)
    ax.xaxis.tick_top()
    ax.set_title("n in clips / groups; hatched: too few groups for an interval", fontsize=8)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _cell(ax: Axes, place: tuple[int, int], row: object) -> None:
    is_small = np.isnan(row.low)
    interval = "" if is_small else f" [{row.low:.2f}, {row.high:.2f}]"
    text = f"{row.value:.2f}{interval}\nn = {row.n_clips:,} / {row.n_groups:,}"
    colour = "white" if row.value > DARK else "black"
    look = {"ha": "center", "va": "center", "fontsize": 7, "color": colour}
    if is_small:
        corner = place[1] - 0.5, place[0] - 0.5
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="0.6", linewidth=0))
        look |= {"color": "black", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}}
    ax.text(place[1], place[0], text, **look)


def draw_spread(ax: Axes, table: pd.DataFrame) -> None:
    """Draw macro F1 by model: mean and standard deviation over seeds, above it the first seed's interval over groups.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    table : DataFrame
        What `lib.studies.spread.over_seeds` returns; the rows of macro F1 are drawn.
    """
    rows = table[table["measure"] == "macro F1"].reset_index(drop=True)
    seeds, groups = {"color": plots.SERIES_COLOURS[1], "marker": "s"}, {"color": "black", "marker": "o"}
    for place, row in rows.iterrows():
        ax.errorbar(row["mean"], place + 0.15, xerr=row["sd"], capsize=3, markersize=4, **seeds)
        ax.plot([row["first_low"], row["first_high"]], [place - 0.15] * 2, color="black", linewidth=1.1)
        ax.plot(row["first_value"], place - 0.15, markersize=4, **groups)
    names = [
        f"{row.model}\n{row.n_seeds} seeds, n = {row.n_clips:,} / {row.n_groups:,}"
        for row in rows.itertuples()
    ]  # fmt: skip
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel="Macro F1 (n in clips / groups)")
    ax.grid(visible=False, axis="y")
    handles = [
        Line2D([], [], label="first seed, 95 % over groups", **groups),
        Line2D([], [], label="mean and standard deviation over seeds", **seeds),
    ]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
