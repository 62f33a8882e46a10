"""What noise, rooms, codecs, telephones, level and clipping cost: macro F1 by condition of `lib.noise`.

Noise and babble are drawn several times per clip, because one draw decides as much as ten decibels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import config, evaluation, manifest
from lib.noise import CLEAN, CONDITIONS, Condition, Levels, degraded
from lib.studies.findings import Findings

DRAWN_KINDS = ("noise", "babble")
N_DRAWS = 4  # of each of them, per clip


def answers(
    rows: pd.DataFrame,
    waveforms: Sequence[np.ndarray],
    predict: Callable[[list[np.ndarray]], Mapping[str, np.ndarray]],
    *,
    given: Mapping[str, Levels] = CONDITIONS,
    n_draws: int = N_DRAWS,
    equalise: bool = True,
    say: Callable[[str], object] | None = None,
) -> dict[Condition, Mapping[str, np.ndarray]]:
    """Let models answer under every condition.

    Parameters
    ----------
    rows, waveforms, equalise
        As in `noise.degraded`.
    predict : callable
        Waveforms to probabilities (n_clips, 3) by model.
    given : mapping
        Conditions: all, or some kinds of them.
    n_draws : int
        How often each of `DRAWN_KINDS` is drawn.
    say : callable, optional
        Is told each condition before it begins.

    Returns
    -------
    dict of (kind, level) to mapping of model to ndarray (n_draws * n_clips, 3)
        `CLEAN` first. All clips of the first draw, then all of the second.
    """
    found = {CLEAN: predict(degraded(rows, waveforms, lambda waveform, _: waveform, kind="", equalise=equalise))}
    for kind, levels in given.items():
        for level, change in levels:
            if say:
                say(f"{kind}, {level}")
            draws = range(n_draws if kind in DRAWN_KINDS else 1)
            heard = [predict(degraded(rows, waveforms, change, kind=kind, draw=n, equalise=equalise)) for n in draws]
            found[kind, level] = {name: np.concatenate([values[name] for values in heard]) for name in heard[0]}
    return found


@dataclass(frozen=True)
class _Truth:
    class_ids: np.ndarray
    groups: np.ndarray
    options: dict[str, int]


def curves(
    rows: pd.DataFrame,
    found: Mapping[Condition, Mapping[str, np.ndarray]],
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
    found : mapping
        As `answers` returns it, `CLEAN` among them.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        kind, level, model, macro_f1, low, high, change, change_low, change_high (paired: both on the same resample of
        groups), f1_<label>, n_clips, n_groups, n_draws; no interval with fewer than `evaluation.MIN_GROUPS` groups.
    """
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    truth = _Truth(manifest.class_ids(rows), rows["group_id"].to_numpy(), options)
    table = [
        {"kind": kind, "level": level, "model": model} | _row(values, found[CLEAN][model], truth)
        for (kind, level), by_model in found.items()
        for model, values in by_model.items()
    ]
    return pd.DataFrame(table)


def _row(values: np.ndarray, clean: np.ndarray, truth: _Truth) -> dict[str, object]:
    n_draws = len(values) // len(truth.class_ids)
    class_ids, groups = np.tile(truth.class_ids, n_draws), np.tile(truth.groups, n_draws)
    result = evaluation.score(values, class_ids, groups, **truth.options)
    clean = np.tile(clean, (n_draws, 1))
    change = evaluation.paired_difference(values, clean, class_ids, groups, **truth.options)
    macro = result["macro_f1"]
    row = {"macro_f1": macro["value"], "low": macro["low"], "high": macro["high"]}
    row |= {"change": change["value"], "change_low": change["low"], "change_high": change["high"]}
    row |= {f"f1_{label}": result["per_class"][label]["f1"]["value"] for label in config.CLASS_NAMES}
    return row | {"n_clips": len(truth.class_ids), "n_groups": result["n_groups"], "n_draws": n_draws}


def section(
    rows: pd.DataFrame,
    found: Mapping[Condition, Mapping[str, np.ndarray]],
    *,
    equalised: bool = True,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> Findings:
    """Return the curves of macro F1, and for each model what costs most.

    Parameters
    ----------
    rows, found, n_bootstrap, seed
        As in `curves`.
    equalised : bool
        Whether the level was equalised after the change, for the report to say.

    Returns
    -------
    Findings
        Table robustness. Figures: by model macro F1 unchanged, the condition of the lowest macro F1, and how many
        conditions lie clearly (the interval of the paired change is below 0) under it.
    """
    table = curves(rows, found, n_bootstrap=n_bootstrap, seed=seed)
    by_model = {}
    for model, part in table.groupby("model", sort=False):
        clean, others = part[part["kind"] == CLEAN[0]].iloc[0], part[part["kind"] != CLEAN[0]]
        figures = {"as_recorded": _figure(clean), "n_conditions": len(others)}
        if len(others):
            worst = others.loc[others["macro_f1"].idxmin()]
            figures["worst"] = {"kind": worst["kind"], "level": worst["level"], "macro_f1": _figure(worst)}
            figures["n_clearly_lower"] = int((others["change_high"].astype(float) < 0).sum())
        by_model[model] = figures
    size = {name: int(table[name].iloc[0]) for name in ("n_clips", "n_groups")}
    return Findings({"models": by_model, "level_equalised_after_change": equalised, **size}, {"robustness": table})


def _figure(row: pd.Series) -> dict[str, float | None]:
    pairs = {"value": "macro_f1", "low": "low", "high": "high"}
    return {key: None if pd.isna(row[name]) else float(row[name]) for key, name in pairs.items()}
