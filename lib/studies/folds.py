"""Rules and heads scored on clips that they were not fitted on: folds that keep groups whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold

from lib import config, ensemble

FITTED_RULES = ("weighted", "calibrated", "meta")


def out_of_fold(
    name: str,
    probabilities: ensemble.Probabilities,
    class_ids: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    n_folds: int | None = 5,
    seed: int = 0,
) -> np.ndarray:
    """Return a rule's probabilities (n_clips, 3), each row from parameters fitted without that row's group.

    A rule without parameters is simply applied. Folds keep groups whole and class shares alike; with `n_folds` None
    every group is a fold of its own (corpus groups, which are few).

    Raises
    ------
    ValueError
        If a class has but one group.
    """
    if name not in FITTED_RULES:
        return ensemble.apply_rule(ensemble.fit_rule(name, probabilities, class_ids), probabilities)
    class_ids = np.asarray(class_ids)
    result = np.full((len(class_ids), ensemble.N_CLASSES), np.nan)
    for fitted, held_out in group_folds(class_ids, groups, n_folds=n_folds, seed=seed):
        rule = ensemble.fit_rule(name, _rows(probabilities, fitted), class_ids[fitted])
        result[held_out] = ensemble.apply_rule(rule, _rows(probabilities, held_out))
    return result


def group_folds(
    class_ids: np.ndarray, groups: Sequence[str] | np.ndarray, *, n_folds: int | None, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (rows to fit on, rows held out) of each fold; no group is in both.

    There are as many folds as the class with the fewest groups has groups, `n_folds` at most; with None, one a group.

    Raises
    ------
    ValueError
        If a class has but one group.
    """
    class_ids, names = np.asarray(class_ids), np.asarray(groups, dtype=str)
    n_groups = [len(np.unique(names[class_ids == class_id])) for class_id in range(ensemble.N_CLASSES)]
    if min(n_groups) < 2:
        label = config.CLASS_NAMES[int(np.argmin(n_groups))]
        raise ValueError(f"{label} has {min(n_groups)} group(s), too few to score a fitted rule on others.")
    if n_folds is None:
        return list(LeaveOneGroupOut().split(np.zeros(len(class_ids)), class_ids, names))
    splitter = StratifiedGroupKFold(min(n_folds, *n_groups), shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(class_ids)), class_ids, names))


def _rows(probabilities: ensemble.Probabilities, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(values)[rows] for name, values in probabilities.items()}
