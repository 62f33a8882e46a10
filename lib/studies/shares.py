"""Shares of clips with 95 % intervals over groups, exact where all or none are hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from lib import evaluation
from lib.studies.inputs import SEED


def rate(hits: np.ndarray, groups: Sequence[str] | np.ndarray, *, seed: int = SEED) -> dict[str, Any]:
    """Return the share of clips that are hits (n_clips,) of bool, with a 95 % interval over groups (n_clips,).

    A bootstrap of nothing but zeros (or ones) gives an interval of no width, which claims too much. There the exact
    bound over groups is given (`exact_edge`): 0 of 20 groups leaves up to 17 %.

    Returns
    -------
    dict
        value, low, high (None without clips; no interval with fewer than `evaluation.MIN_GROUPS` groups), n_clips,
        n_groups.
    """
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    by_group = np.stack([np.bincount(place, hits, len(names)), np.bincount(place, minlength=len(names))], axis=1)
    figure = evaluation.bootstrap(by_group, lambda n: n[:, 0] / n[:, 1], seed=seed)
    return exact_edge(figure, n_groups=len(names)) | {"n_clips": len(place), "n_groups": len(names)}


def exact_edge(interval: evaluation.Interval, *, n_groups: int) -> dict[str, Any]:
    """Replace the interval of a share of 0 or 1 by that of Clopper and Pearson (1934): n of n groups hit, or none."""
    if interval["low"] is None or interval["value"] not in (0.0, 1.0):
        return dict(interval)
    bound = stats.binomtest(n_groups if interval["value"] else 0, n_groups).proportion_ci(method="exact")
    return {**interval, "low": float(bound.low), "high": float(bound.high)}
