"""Scores of a classifier with intervals that respect groups: precision, recall, F1, ROC, PR, paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import metrics

from lib import config
from lib.ensemble import checked

N_CLASSES = len(config.CLASS_NAMES)
N_BOOTSTRAP = 1000

MIN_GROUPS = 5  # with fewer, a bootstrap over groups shows nothing of the spread: no interval is given

Interval = dict[str, float | None]


@dataclass(frozen=True)
class Curve:
    """A ROC or PR curve of one class against the others: points, the area under it, and how many rows it rests on."""

    x: np.ndarray
    y: np.ndarray
    area: float
    n_positive: int
    n_negative: int


def confusion(probabilities: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Return counts (3, 3): true class by row, predicted class (largest probability) by column."""
    return confusion_by_group(probabilities, class_ids, np.zeros(len(class_ids), dtype=int))[0].astype(int)


def confusion_by_group(
    probabilities: np.ndarray, class_ids: np.ndarray, groups: Sequence[str] | np.ndarray
) -> np.ndarray:
    """Return the counts of `confusion` for each group: (n_groups, 3, 3), groups in sorted order."""
    probabilities, class_ids = _check(probabilities, class_ids)
    if len(groups) != len(class_ids):
        raise ValueError(f"{len(groups)} groups for {len(class_ids)} clips")
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    counts = np.zeros((len(names), N_CLASSES, N_CLASSES))
    np.add.at(counts, (place, class_ids, probabilities.argmax(axis=1)), 1)
    return counts


def score(
    probabilities: np.ndarray,
    class_ids: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> dict:
    """Score a classifier's probabilities (n_clips, 3), with 95 % percentile intervals from a bootstrap over groups.

    Clips of one infant or speaker are alike, so resampling clips would make intervals too narrow; whole groups are
    drawn with replacement instead (Field and Welsh 2007, Bootstrapping clustered data).

    Returns
    -------
    dict
        n_clips, n_groups, accuracy, macro_f1 and per_class (precision, recall, f1 of each label); every figure is
        ``{"value", "low", "high"}``. A class never predicted has precision 0. A class without clips has no recall and
        no F1 (None), in a resample as in the whole, and is left out of macro F1. With fewer than `MIN_GROUPS` groups
        low and high are None.

    Raises
    ------
    ValueError
        If shapes differ, or a row is not finite or does not sum to 1.
    """
    by_group = confusion_by_group(probabilities, class_ids, groups)
    whole, resampled = resample_groups(by_group, n_bootstrap=n_bootstrap, seed=seed)
    value, spread = figures(whole[None]), figures(resampled)
    result: dict[str, Any] = {"n_clips": int(whole.sum()), "n_groups": len(by_group)}
    for name in ("accuracy", "macro_f1"):
        result[name] = interval(value[name][0], spread[name], n_groups=len(by_group))
    n_groups = (by_group.sum(axis=2) > 0).sum(axis=0)  # groups that hold each class
    result["per_class"] = {
        label: {
            name: interval(value[name][0, k], spread[name][:, k], n_groups=n_groups[k])
            for name in ("precision", "recall", "f1")
        }
        for k, label in enumerate(config.CLASS_NAMES)
    }
    return result


def figures(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return accuracy, macro_f1 (n,), precision, recall, f1 (n, 3) of confusion counts (n, 3, 3)."""
    counts = np.asarray(counts, dtype=float)
    hits, true, predicted = np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=1)
    absent = np.where(true > 0, 0.0, np.nan)  # nothing to recall: no value, not 0
    f1 = _ratio(2 * hits, true + predicted) + absent
    return {
        "accuracy": _ratio(hits.sum(axis=1), true.sum(axis=1)),
        "macro_f1": np.nanmean(f1, axis=1),
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, true) + absent,
        "f1": f1,
    }


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Return macro F1 (n,) of confusion counts (n, 3, 3)."""
    return figures(counts)["macro_f1"]


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    class_ids: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Interval:
    """Return macro F1 of `first` less that of `second` on the same clips, with its interval.

    Both are scored on the same resample of groups, so what is hard for both cancels.

    Returns
    -------
    dict
        value, low, high (None with fewer than `MIN_GROUPS` groups), and p_above_zero: the share of resamples in which
        `first` is better.
    """
    both = np.stack([confusion_by_group(values, class_ids, groups) for values in (first, second)], axis=1)
    whole, resampled = resample_groups(both, n_bootstrap=n_bootstrap, seed=seed)
    value = macro_f1(whole[:1])[0] - macro_f1(whole[1:])[0]
    spread = macro_f1(resampled[:, 0]) - macro_f1(resampled[:, 1])
    return {**interval(value, spread, n_groups=len(both)), "p_above_zero": float((spread > 0).mean())}


def resample_groups(by_group: np.ndarray, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Add counts (n_groups, ...) up over all groups, and over groups drawn with replacement: the one bootstrap.

    Returns
    -------
    (ndarray, ndarray)
        The sum over all groups (...), and of each resample (n_bootstrap, ...).
    """
    n = len(by_group)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_bootstrap)  # how often each group
    return by_group.sum(axis=0), np.tensordot(draws, by_group, axes=1)


def bootstrap(
    by_group: np.ndarray,
    figure: Callable[[np.ndarray], np.ndarray],
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Interval:
    """Return a figure of summed counts with its interval over groups.

    Parameters
    ----------
    by_group : ndarray, shape (n_groups, ...)
        Counts, or sums, of each group; no groups give no value.
    figure : callable
        Summed counts (n, ...) to the figure (n,), NaN where there is none.
    n_bootstrap, seed : int
    """
    if not len(by_group):
        return interval(np.nan, np.empty(0), n_groups=0)
    whole, resampled = resample_groups(by_group, n_bootstrap=n_bootstrap, seed=seed)
    return interval(float(figure(whole[None])[0]), figure(resampled), n_groups=len(by_group))


def interval(value: float, spread: np.ndarray, *, n_groups: int) -> Interval:
    """Return a figure with its percentile interval of 95 %: value, low, high.

    `value` is NaN where there is no figure: then all three are None. `spread` (n_bootstrap,) is the figure in each
    resample, NaN in one that has none. With fewer than `MIN_GROUPS` groups low and high are None.
    """
    low, high = (None, None)
    if n_groups >= MIN_GROUPS and not np.isnan(value):
        low, high = (float(edge) for edge in np.nanpercentile(spread, (2.5, 97.5)))
    return {"value": None if np.isnan(value) else float(value), "low": low, "high": high}


def format_interval(figure: Mapping[str, float | None], *, digits: int = 3, sign: bool = False) -> str:
    """Return a figure as text, "0.981 [0.961, 0.995]": the project's one way to write an interval.

    None or NaN in low stands for "too few groups": then the value is written alone. `sign`: write the sign of positive
    numbers too, as for a difference.
    """
    ends = [figure[end] for end in ("value", "low", "high")]
    value, low, high = (np.nan if end is None else end for end in ends)
    form = f"{'+' if sign else ''}.{digits}f"
    if np.isnan(value):
        return "no value"
    return f"{value:{form}}" + ("" if np.isnan(low) else f" [{low:{form}}, {high:{form}}]")


def roc_curves(probabilities: np.ndarray, class_ids: np.ndarray) -> dict[str, Curve]:
    """Return each class's ROC curve (x: false positive rate, y: recall); a class absent or alone has none."""
    curves = {}
    for label, (true, scores) in _one_against_rest(probabilities, class_ids).items():
        x, y, _ = metrics.roc_curve(true, scores)
        curves[label] = Curve(x, y, float(metrics.auc(x, y)), int(true.sum()), int((~true).sum()))
    return curves


def pr_curves(probabilities: np.ndarray, class_ids: np.ndarray) -> dict[str, Curve]:
    """Return each class's precision-recall curve (x: recall, y: precision); the area is the average precision."""
    curves = {}
    for label, (true, scores) in _one_against_rest(probabilities, class_ids).items():
        y, x, _ = metrics.precision_recall_curve(true, scores)
        area = float(metrics.average_precision_score(true, scores))
        curves[label] = Curve(x[::-1], y[::-1], area, int(true.sum()), int((~true).sum()))
    return curves


def _one_against_rest(probabilities: np.ndarray, class_ids: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    probabilities, class_ids = _check(probabilities, class_ids)
    pairs = {label: (class_ids == k, probabilities[:, k]) for k, label in enumerate(config.CLASS_NAMES)}
    return {label: (true, scores) for label, (true, scores) in pairs.items() if 0 < true.sum() < len(true)}


def _check(probabilities: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities, class_ids = checked(probabilities, len(class_ids)), np.asarray(class_ids)
    if not len(class_ids) or not np.isin(class_ids, range(N_CLASSES)).all():
        raise ValueError(f"class ids are {sorted(set(class_ids.tolist()))}, expected 0 to {N_CLASSES - 1}")
    return probabilities, class_ids.astype(int)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator, dtype=float), where=denominator > 0)


def macro_f1_table(scores: Mapping[str, Mapping[str, dict]]) -> list[dict]:
    """Return one row per model and split of metrics.json, ready for a DataFrame: n, macro F1 and each class's F1."""
    return [
        {"model": model, "split": split, "n_clips": result["n_clips"], "n_groups": result["n_groups"]}
        | {"macro_f1" if end == "value" else end: result["macro_f1"][end] for end in ("value", "low", "high")}
        | {"accuracy": result["accuracy"]["value"]}
        | {f"f1_{label}": result["per_class"][label]["f1"]["value"] for label in config.CLASS_NAMES}
        for model, splits in scores.items()
        for split, result in splits.items()
    ]
