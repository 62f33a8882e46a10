"""Linear heads as in notebooks 03 and 04, fitted without each corpus group in turn, and tables that compare variants.

Development clips (train and validation groups) alone; the test groups take part in no choice.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib import config, evaluation, manifest, splits
from lib.corpora import windows
from lib.studies.inputs import SEED
from lib.studies.result import measure_rows

SPLITS = ("train", "validation")
# Inverse strength of the L2 penalty on each head, as in notebooks 03 and 04.
EMBEDDING_C, SCORES_C, WAV2VEC2_C = 1e-3, 0.1, 0.01


def predict_left_out(rows: pd.DataFrame, features: np.ndarray, *, c: float) -> np.ndarray:
    """Return probabilities (n_clips, 3), each corpus group's from a logistic regression fitted without it.

    Parameters
    ----------
    rows : DataFrame
        Manifest rows.
    features : ndarray, (n_clips, n_features)
    c : float
        Inverse strength of the L2 penalty.
    """
    class_ids, corpus_groups = manifest.class_ids(rows), splits.corpus_group(rows["source"]).to_numpy()
    predictions = np.full((len(rows), len(config.CLASS_NAMES)), np.nan)
    for name in np.unique(corpus_groups):
        kept = corpus_groups != name
        head = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000, tol=1e-3))
        weights = windows.weights(rows[kept].assign(kind="clip"))
        head.fit(features[kept], class_ids[kept], logisticregression__sample_weight=weights)
        predictions[~kept] = head.predict_proba(features[~kept])
    return predictions


def compare(rows: pd.DataFrame, predictions: Mapping[str, np.ndarray], column: str) -> pd.DataFrame:
    """Return macro F1 and each class's F1 of every variant, and its paired difference to the first variant.

    Returns
    -------
    DataFrame
        One row per variant and measure: `column`, and what `result.measure_rows` gives, with the measure "change".
    """
    truth = manifest.class_ids(rows), rows["group_id"].to_numpy()
    first, table = next(iter(predictions.values())), []
    for name, values in predictions.items():
        result = evaluation.score(values, *truth, seed=SEED)
        gain = evaluation.paired_difference(values, first, *truth, seed=SEED)
        change = {end: gain[end] for end in ("value", "low", "high")}
        table += [{column: name} | row for row in measure_rows(result, change=change)]
    return pd.DataFrame(table)
