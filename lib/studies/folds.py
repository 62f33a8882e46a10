"""Rules and heads scored on clips that they were not fitted on: folds that keep groups whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from lib import config, ensemble, manifest

N_FOLDS = 5


def out_of_fold(
    name: str, probabilities: ensemble.Probabilities, class_ids: np.ndarray, folds: Sequence[str] | np.ndarray
) -> np.ndarray:
    """Return a rule's probabilities (n_clips, 3), those of each fold from parameters fitted to the other folds.

    Folds (n_clips,) are corpus groups, so that no clip is predicted by what knows its corpus.
    """
    folds, result = np.asarray(folds, dtype=str), np.full((len(class_ids), ensemble.N_CLASSES), np.nan)
    for fold in np.unique(folds):
        held_out = folds == fold
        rule = ensemble.fit_rule(name, _rows(probabilities, ~held_out), class_ids[~held_out])
        result[held_out] = ensemble.apply_rule(rule, _rows(probabilities, held_out))
    return result


def group_folds(rows: pd.DataFrame, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (rows to fit on, rows held out) of each fold; no group is in both, and class shares are alike.

    There are as many folds as the class with the fewest groups has groups, `N_FOLDS` at most.

    Raises
    ------
    ValueError
        If a class has but one group.
    """
    n_groups = rows.groupby("label")["group_id"].nunique().reindex(config.CLASS_NAMES, fill_value=0)
    label, fewest = n_groups.idxmin(), n_groups.min()
    if fewest < 2:
        raise ValueError(f"{label} has {fewest} group(s), too few to score what is fitted on others.")
    splitter = StratifiedGroupKFold(min(N_FOLDS, fewest), shuffle=True, random_state=seed)
    return list(splitter.split(rows, manifest.class_ids(rows), rows["group_id"].to_numpy()))


def _rows(probabilities: ensemble.Probabilities, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(values)[rows] for name, values in probabilities.items()}
