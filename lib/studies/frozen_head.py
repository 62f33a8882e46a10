"""A frozen network with a logistic regression as head, fitted without each corpus group in turn.

Development clips (train and validation groups) alone; the test groups take part in no choice.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib import augment, config, evaluation, frozen_features, manifest, splits
from lib.studies.inputs import SEED

SPLITS = ("train", "validation")
# Inverse strength of the head's L2 penalty: on embeddings or frames of Wav2Vec2, on AudioSet class scores.
HEAD_C, SCORES_C = 1e-2, 3.0


def predict_left_out(
    rows: pd.DataFrame, training: Sequence[np.ndarray], tested: np.ndarray, *, c: float = HEAD_C
) -> np.ndarray:
    """Return probabilities (n_clips, 3), each corpus group's from a logistic regression fitted without it.

    Parameters
    ----------
    rows : DataFrame
        Manifest rows.
    training : sequence of ndarray, each (n_clips, n_features)
        Features of every clip and of its augmented copies, to learn from.
    tested : ndarray, (n_clips, n_features)
        Features to predict from.
    c : float
        Inverse strength of the L2 penalty.
    """
    class_ids, corpus_groups = manifest.class_ids(rows), splits.corpus_group(rows["source"]).to_numpy()
    predictions = np.full((len(rows), len(config.CLASS_NAMES)), np.nan)
    for name in np.unique(corpus_groups):
        kept = corpus_groups != name
        weights = augment.balanced_weights(rows[kept], smoothing=0.75, class_smoothing=0.5)
        head = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))
        head.fit(
            np.concatenate([features[kept] for features in training]),
            np.tile(class_ids[kept], len(training)),
            logisticregression__sample_weight=np.tile(weights / weights.mean(), len(training)),
        )
        predictions[~kept] = head.predict_proba(tested[~kept])
    return predictions


def compare(rows: pd.DataFrame, predictions: Mapping[str, np.ndarray], column: str) -> pd.DataFrame:
    """Return macro F1 and each class's F1 of every variant, and its paired difference to the first variant.

    Returns
    -------
    DataFrame
        One row per variant and measure ("macro F1", "F1 <label>", "change"): `column`, measure, value, low, high,
        n_clips, n_groups.
    """
    truth = manifest.class_ids(rows), rows["group_id"].to_numpy()
    first, table = next(iter(predictions.values())), []
    for name, values in predictions.items():
        result = evaluation.score(values, *truth, seed=SEED)
        gain = evaluation.paired_difference(values, first, *truth, seed=SEED)
        figures = {"macro F1": result["macro_f1"]}
        figures |= {f"F1 {label}": result["per_class"][label]["f1"] for label in config.CLASS_NAMES}
        figures["change"] = {end: gain[end] for end in ("value", "low", "high")}
        size = {"n_clips": result["n_clips"], "n_groups": result["n_groups"]}
        table += [{column: name, "measure": measure} | figure | size for measure, figure in figures.items()]
    return pd.DataFrame(table)


def yamnet_features(waveforms: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return pooled embeddings and pooled AudioSet class scores of the published YAMNet, each (n_clips, n_features)."""
    from lib import yamnet, yamnet_backbone

    backbone = yamnet_backbone.from_hub().with_class_scores()
    return yamnet.split_features(frozen_features.of_clips(yamnet, backbone, waveforms))


def in_processes(change: Callable[..., np.ndarray], arguments: Sequence[tuple]) -> list[np.ndarray]:
    """Return `change` of each tuple of arguments, computed on all cores."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(change, *zip(*arguments, strict=True), chunksize=16))
