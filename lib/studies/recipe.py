"""What the options of notebook 02 and the pretraining of Wav2Vec2 are worth on unseen corpora (`frozen_head`).

Pitch normalisation takes two thirds of a second per clip, so the options are compared on `N_CLIPS` clips.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lib import preprocess
from lib.networks import frozen_features
from lib.studies.frozen_head import EMBEDDING_C, SCORES_C, SPLITS, WAV2VEC2_C, compare, predict_left_out
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result

N_CLIPS = 600
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
    rows, waveforms = inputs.rows(*SPLITS), inputs.waveforms(*SPLITS)
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(rows))[:N_CLIPS])
    sample, clips = rows.iloc[chosen].reset_index(drop=True), [waveforms[place] for place in chosen]
    options = {name: _by_yamnet(sample, _processed(clips, given)) for name, given in OPTIONS.items()}
    tables = {"options": compare(sample, options, "option")}
    tables["pretraining"] = compare(rows, _by_wav2vec2(rows, waveforms), "pretraining")
    return Result({"n_clips": len(rows)}, tables | {"pretraining_tried": pd.read_csv(TRIED_PATH)})


def _processed(clips: list[np.ndarray], given: dict[str, bool]) -> list[np.ndarray]:
    change = partial(preprocess.process_waveform, options=preprocess.Options(**given))
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(change, clips, chunksize=16))


def _by_yamnet(rows: pd.DataFrame, clips: list[np.ndarray]) -> np.ndarray:
    """Return the mean of both heads' probabilities, as notebook 03 combines them."""
    from lib import yamnet  # here: TensorFlow takes seconds to import

    features = frozen_features.of_clips(yamnet, yamnet.load_base().with_class_scores(), clips)
    heads = zip(yamnet.split_features(features), (EMBEDDING_C, SCORES_C), strict=True)
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
