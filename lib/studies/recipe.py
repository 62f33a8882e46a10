"""What the options of notebook 02 and the pretraining of Wav2Vec2 are worth on unseen corpora.

Linear heads as in notebooks 03 and 04 are fitted to frozen features without each corpus group in turn, on development
clips (train and validation groups) alone: the test groups take part in no choice. Pitch normalisation takes two thirds
of a second per clip, so the options are compared on `N_CLIPS` clips.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib import config, manifest, preprocess, splits
from lib.corpora import windows
from lib.networks import frozen_features
from lib.studies.inputs import SEED, Inputs, yamnet_features
from lib.studies.result import Result, compare

N_CLIPS = 600
# Inverse strength of the L2 penalty on each head, as in notebooks 03 and 04.
EMBEDDING_C, SCORES_C, WAV2VEC2_C = 1e-3, 0.1, 0.01
OPTIONS = {
    "as they are": {},
    "noise reduction": {"reduce_noise": True},
    "pitch normalisation": {"normalise_pitch": True},
}
# Three pretraining objectives of equally many steps, as the commits named there measured them; distillation was kept.
TRIED_PATH = Path(__file__).with_name("pretraining_tried.csv")


def run(inputs: Inputs) -> Result:
    """Compare the options, applied to the clips trained on and predicted; and initial weights with pretrained ones.

    Pretraining was given all training groups without labels, those of the corpus group left out among them.

    Returns
    -------
    Result
        Tables options and pretraining (`compare`), and pretraining_tried.
    """
    development = "train", "validation"
    rows, waveforms = inputs.rows(*development), inputs.waveforms(*development)
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(rows))[:N_CLIPS])
    sample, clips = rows.iloc[chosen].reset_index(drop=True), [waveforms[place] for place in chosen]
    options = {name: _by_yamnet(sample, _processed(clips, given)) for name, given in OPTIONS.items()}
    tables = {"options": compare(sample, options, "option")}
    tables["pretraining"] = compare(rows, _by_wav2vec2(rows, waveforms), "pretraining")
    return Result({"n_clips": len(rows)}, tables | {"pretraining_tried": pd.read_csv(TRIED_PATH)})


def predict_left_out(rows: pd.DataFrame, features: np.ndarray, *, c: float) -> np.ndarray:
    """Return probabilities (n_clips, 3), each corpus group's from a logistic regression fitted without it.

    `features` are (n_clips, n_features); `c` is the inverse strength of the L2 penalty.
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


def _processed(clips: list[np.ndarray], given: dict[str, bool]) -> list[np.ndarray]:
    change = partial(preprocess.process_waveform, options=preprocess.Options(**given))
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(change, clips, chunksize=16))


def _by_yamnet(rows: pd.DataFrame, clips: list[np.ndarray]) -> np.ndarray:
    """Return the mean of both heads' probabilities, as notebook 03 combines them."""
    heads = zip(yamnet_features(clips), (EMBEDDING_C, SCORES_C), strict=True)
    return np.mean([predict_left_out(rows, part, c=c) for part, c in heads], axis=0)


def _by_wav2vec2(rows: pd.DataFrame, clips: list[np.ndarray]) -> dict[str, np.ndarray]:
    from transformers import set_seed

    from lib import wav2vec2  # here: PyTorch takes seconds to import
    from lib.studies import compact_wav2vec2

    set_seed(SEED)  # decides the initial weights
    networks = {
        "none (initial weights)": compact_wav2vec2.initial_model(),
        "models/wav2vec2_pretrained": wav2vec2.load_base("pretrained")[0],
    }
    return {
        name: predict_left_out(rows, frozen_features.of_clips(wav2vec2, model.wav2vec2, clips), c=WAV2VEC2_C)
        for name, model in networks.items()
    }
