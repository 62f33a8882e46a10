"""Shares of clips with 95 % intervals over groups, exact where all or none are hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from lib import evaluation

NO_CLIP, BY_BOOTSTRAP, BY_BOUND, NO_INTERVAL = "no clip", "bootstrap over groups", "exact over groups", "too few groups"


def rate(
    hits: np.ndarray, groups: Sequence[str] | np.ndarray, *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0
) -> dict[str, Any]:
    """Return the share of clips that are hits, with a 95 % interval over groups.

    A bootstrap of nothing but zeros (or ones) gives an interval of no width, which claims too much. There the exact
    bound of Clopper and Pearson (1934) over groups is given: 0 of 20 groups leaves up to 17 %.

    Parameters
    ----------
    hits : ndarray of bool, shape (n_clips,)
    groups : sequence of str, length n_clips
    n_bootstrap, seed : int

    Returns
    -------
    dict
        value, low, high; interval: how they were found (no interval with fewer than `evaluation.MIN_GROUPS` groups);
        n_clips, n_groups.
    """
    hits = np.asarray(hits, dtype=bool)
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    result: dict[str, Any] = {"value": None, "low": None, "high": None, "interval": NO_CLIP, "n_clips": len(hits)}
    result["n_groups"] = len(names)
    if not len(hits):
        return result
    result["value"] = float(hits.mean())
    low, high, result["interval"] = _over_groups(hits, place, len(names), n_bootstrap=n_bootstrap, seed=seed)
    return result | {"low": low, "high": high}


def exact_bound(n_groups: int, *, is_hit: bool) -> tuple[float, float]:
    """Return the 95 % interval of a share that all groups agree on: all hits, or none (Clopper and Pearson 1934)."""
    bound = stats.binomtest(n_groups if is_hit else 0, n_groups).proportion_ci(method="exact")
    return float(bound.low), float(bound.high)


def _over_groups(
    hits: np.ndarray, place: np.ndarray, n_groups: int, *, n_bootstrap: int, seed: int
) -> tuple[float | None, float | None, str]:
    if n_groups < evaluation.MIN_GROUPS:
        return None, None, NO_INTERVAL
    if hits.all() or not hits.any():
        return *exact_bound(n_groups, is_hit=bool(hits.all())), BY_BOUND
    by_group = np.stack([np.bincount(place, hits, n_groups), np.bincount(place, minlength=n_groups)], axis=1)
    figure = evaluation.bootstrap(by_group, lambda sums: sums[:, 0] / sums[:, 1], n_bootstrap=n_bootstrap, seed=seed)
    return figure["low"], figure["high"], BY_BOOTSTRAP
