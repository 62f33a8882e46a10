"""Drawings of the recipes and of the shortcut audit: on a given Axes, from their tables, computing nothing."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lib.plots import SERIES_COLOURS

USUAL_COLOUR, HONEST_COLOUR = SERIES_COLOURS[1], "#000000"
STAGE_HATCHES = ("", "//", "..")  # and by print in grey
CHANCE = 1 / 3  # balanced accuracy of three classes


def draw_recipes(ax: Axes, table: pd.DataFrame) -> None:
    """Draw `lib.studies.recipes.tabulate`: the usual and the honest number of each recipe, and their difference."""
    for place, row in enumerate(table.to_dict("records")):
        ax.plot([row["honest"], row["usual"]], [place, place], color="0.75", linewidth=4, zorder=1)
        for name, shift, marker, colour in (("usual", -0.14, "o", USUAL_COLOUR), ("honest", 0.14, "s", HONEST_COLOUR)):
            ends = [row[f"{name}_low"], row[f"{name}_high"]]
            ax.plot(ends, [place + shift] * 2, color="0.3", linewidth=0.9, zorder=2)
            label = {"usual": "usual recipe", "honest": "honest twin"}[name] if place == 0 else None
            look = {"color": colour, "marker": marker, "markeredgecolor": "black", "markersize": 6}
            ax.plot(row[name], place + shift, linestyle="", label=label, zorder=3, **look)
        ax.text(1.02, place, _change(row), transform=ax.get_yaxis_transform(), va="center", fontsize=7)
    ax.set_yticks(range(len(table)), [textwrap.fill(name, 26) for name in table["recipe"]])
    ax.set_ylim(len(table) - 0.5, -0.5)  # first recipe on top
    ax.set(xlabel="Macro F1 (mark: value, line: 95 % interval; right: difference)")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def _change(row: dict[str, float]) -> str:
    interval = "no interval" if pd.isna(row["difference_low"]) else "{difference_low:+.3f}, {difference_high:+.3f}"
    return ("{difference:+.3f}\n[" + interval + "]").format(**row)


def draw_cues(ax: Axes, table: pd.DataFrame) -> None:
    """Draw one scheme of `lib.studies.shortcuts.audit`: balanced accuracy by cue and stage, and chance."""
    cues, stages = (list(dict.fromkeys(table[name])) for name in ("cue", "stage"))
    height = 0.8 / len(stages)
    for number, stage in enumerate(stages):
        rows = table[table["stage"] == stage]
        places = np.array([cues.index(cue) for cue in rows["cue"]]) + (number - (len(stages) - 1) / 2) * height
        look = {"color": SERIES_COLOURS[number], "hatch": STAGE_HATCHES[number], "edgecolor": "white", "linewidth": 0}
        ax.barh(places, rows["balanced_accuracy"], height=height * 0.9, label=stage, **look)
        for place, (_, row) in zip(places, rows.iterrows(), strict=True):
            ax.plot(row[["balanced_accuracy_low", "balanced_accuracy_high"]], [place, place], color="black", lw=1)
    ax.axvline(CHANCE, color="black", linewidth=1, linestyle="--", label="chance")
    ax.set_yticks(range(len(cues)), cues)
    ax.set_ylim(len(cues) - 0.5, -0.5)
    ax.set(xlim=(0, 1), xlabel="Balanced accuracy (bar: value, line: 95 % interval)")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4)


def draw_destroyed(ax: Axes, table: pd.DataFrame) -> None:
    """Draw `lib.studies.shortcuts.cue_destroyed`: what each network loses or gains in macro F1, by condition."""
    conditions, networks = (list(dict.fromkeys(table[name])) for name in ("condition", "network"))
    height = 0.8 / len(networks)
    for number, network in enumerate(networks):
        rows = table[table["network"] == network]
        places = np.array([conditions.index(name) for name in rows["condition"]])
        places = places + (number - (len(networks) - 1) / 2) * height
        colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
        for place, (_, row) in zip(places, rows.iterrows(), strict=True):
            ax.plot(row[["change_low", "change_high"]], [place, place], color="0.3", linewidth=1, zorder=2)
        marker = "osD^v"[number % 5]
        look = {"color": colour, "marker": marker, "markeredgecolor": "black", "markersize": 6}
        ax.plot(rows["change"], places, linestyle="", label=network, zorder=3, **look)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(conditions)), conditions)
    ax.set_ylim(len(conditions) - 0.5, -0.5)
    ax.set(xlabel="Change of macro F1 (mark: value, line: 95 % interval)")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4)
