"""What noise, rooms, codecs, telephones, level and clipping cost: macro F1 by condition of `lib.studies.noise`.

Noise and babble are drawn several times per clip, because one draw decides as much as ten decibels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import config, evaluation, manifest, plots
from lib.studies import drawing
from lib.studies.inputs import SEED, Inputs
from lib.studies.noise import CLEAN, CONDITIONS, Condition, Levels, conditions, degraded
from lib.studies.result import Result, columns, interval_of

LOG = logging.getLogger(__name__)
DRAWN_KINDS = ("noise", "babble")
N_DRAWS = 4  # of each of them, per clip


def predict(
    rows: pd.DataFrame,
    waveforms: Sequence[np.ndarray],
    networks: Callable[[list[np.ndarray]], Mapping[str, np.ndarray]],
    *,
    given: Mapping[str, Levels] = CONDITIONS,
    n_draws: int = N_DRAWS,
) -> dict[Condition, Mapping[str, np.ndarray]]:
    """Return predictions under every condition.

    Parameters
    ----------
    rows, waveforms
        As in `noise.degraded`.
    networks : callable
        Waveforms to probabilities (n_clips, 3) by model.
    given : mapping
        Conditions: all, or some kinds of them.
    n_draws : int
        How often each of `DRAWN_KINDS` is drawn.

    Returns
    -------
    dict of (kind, level) to mapping of model to ndarray (n_draws * n_clips, 3)
        `CLEAN` first. All clips of the first draw, then all of the second.
    """
    found = {CLEAN: networks(degraded(rows, waveforms, lambda waveform, _: waveform, kind=""))}
    for kind, levels in given.items():
        for level, change in levels:
            LOG.info("%s, %s", kind, level)
            draws = range(n_draws if kind in DRAWN_KINDS else 1)
            predicted = [networks(degraded(rows, waveforms, change, kind=kind, draw=n)) for n in draws]
            found[kind, level] = {name: np.concatenate([each[name] for each in predicted]) for name in predicted[0]}
    return found


def curves(
    rows: pd.DataFrame,
    predictions: Mapping[Condition, Mapping[str, np.ndarray]],
    *,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Return macro F1 of every model under every condition, and its change against the same clips unchanged.

    Several draws of a change are scored together; a group is resampled with all of its draws.

    Parameters
    ----------
    rows : DataFrame
        label and group_id.
    predictions : mapping
        As `predict` returns it, `CLEAN` among them.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        kind, level, model, macro_f1 and change (paired: both on the same resample of groups), each with low and high,
        f1_<label>, n_clips, n_groups, n_draws; no interval with fewer than `evaluation.MIN_GROUPS` groups.
    """
    truth, table = (manifest.class_ids(rows), rows["group_id"].to_numpy()), []
    for (kind, level), by_model in predictions.items():
        for model, values in by_model.items():
            row = {"kind": kind, "level": level, "model": model}
            table.append(row | _row(values, predictions[CLEAN][model], truth, n_bootstrap=n_bootstrap, seed=seed))
    return pd.DataFrame(table)


def _row(values: np.ndarray, clean: np.ndarray, truth: tuple[np.ndarray, np.ndarray], **options: int) -> dict[str, Any]:
    n_clips = len(clean)
    n_draws = len(values) // n_clips
    class_ids, groups = (np.tile(part, n_draws) for part in truth)
    result = evaluation.score(values, class_ids, groups, **options)
    change = evaluation.paired_difference(values, np.tile(clean, (n_draws, 1)), class_ids, groups, **options)
    row = columns("macro_f1", result["macro_f1"]) | columns("change", change)
    row |= {f"f1_{label}": result["per_class"][label]["f1"]["value"] for label in config.CLASS_NAMES}
    return row | {"n_clips": n_clips, "n_groups": result["n_groups"], "n_draws": n_draws}


def run(inputs: Inputs) -> Result:
    """Score both networks and the ensemble in noise, babble, rooms, codecs, telephones, at other levels and clipped.

    Returns
    -------
    Result
        Table robustness (`curves`). Figures: see `summary`.
    """
    training, rows = inputs.rows("train"), inputs.rows("test")
    is_speech = training["subtype"].str.startswith("speech").to_numpy()
    speech = [waveform for waveform, wanted in zip(inputs.waveforms("train"), is_speech, strict=True) if wanted]
    predictions = predict(rows, inputs.waveforms("test"), inputs.predict, given=conditions(speech))
    table = curves(rows, predictions, seed=SEED)
    return Result(summary(table), {"robustness": table})


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Return by model macro F1 as recorded, the condition of the lowest, and how many conditions are clearly lower.

    Clearly: the interval of the paired change is below 0.
    """
    by_model = {}
    for model, part in table.groupby("model", sort=False):
        clean, others = part[part["kind"] == CLEAN[0]].iloc[0], part[part["kind"] != CLEAN[0]]
        figures = {"as_recorded": interval_of(clean, "macro_f1"), "n_conditions": len(others)}
        if len(others):
            worst = others.loc[others["macro_f1"].idxmin()]
            at = {"kind": worst["kind"], "level": worst["level"]}
            figures["worst"] = at | {"macro_f1": interval_of(worst, "macro_f1")}
            figures["n_clearly_lower"] = int((others["change_high"].astype(float) < 0).sum())
        by_model[model] = figures
    return {"models": by_model} | {name: int(table[name].iloc[0]) for name in ("n_clips", "n_groups")}


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw macro F1 by level, one panel per kind of change, each beginning with the clips as recorded."""
    table = tables["robustness"].assign(level=lambda found: found["level"].fillna(""))
    kinds = [kind for kind in table["kind"].unique() if kind != CLEAN[0]]
    n_rows = -(-len(kinds) // 4)
    figure, axes = plots.subplots(n_rows, 4, height_inches=2.0 * n_rows, squeeze=False, sharey=True)
    for ax, kind in zip(axes.ravel(), kinds, strict=False):
        draw_levels(ax, table[table["kind"].isin([CLEAN[0], kind])], legend=kind == kinds[0])
        ax.set_title(kind)
    for ax in axes.ravel()[len(kinds) :]:
        ax.set_visible(False)
    return {"robustness": figure}


def draw_levels(ax: Axes, table: pd.DataFrame, *, legend: bool = False) -> None:
    """Draw macro F1 by level for one kind of change, beside the clips as recorded, one line per model.

    Parameters
    ----------
    ax : Axes
        One of several small ones.
    table : DataFrame
        Rows of `curves` for one kind, and those as recorded.
    legend : bool
        Name the models; one of the small Axes is enough.
    """
    levels = list(dict.fromkeys(table["level"]))
    models = table["model"].nunique()
    for index, (look, name, part) in enumerate(drawing.series(table, "model")):
        places = [levels.index(level) + 0.14 * (index - (models - 1) / 2) for level in part["level"]]
        low, high = (part[f"macro_f1_{end}"].astype(float).fillna(part["macro_f1"]) for end in ("low", "high"))
        errors = np.maximum([part["macro_f1"] - low, high - part["macro_f1"]], 0)
        ax.errorbar(places, part["macro_f1"], errors, label=name, elinewidth=0.8, markersize=3.5, linewidth=1.1, **look)
    names = [level or "none" for level in levels]
    ax.set_xticks(range(len(levels)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=7)
    ax.set(ylim=(0, 1.03), ylabel="Macro F1")
    if legend:
        ax.legend(loc="lower left", fontsize=7)
