"""What pretraining is worth to the compact Wav2Vec2 on unseen corpora, frozen (`lib.studies.frozen_head`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lib import config
from lib.studies.frozen_head import SPLITS, compare, predict_left_out
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result

CROP_SECONDS = 4.0  # the middle of each clip
# Three objectives of equally many steps, as the commits named there measured them; distillation was kept.
TRIED_PATH = Path(__file__).with_name("pretraining_tried.csv")


def run(inputs: Inputs) -> Result:
    """Compare the compact Wav2Vec2 from initial weights with the pretrained one.

    Pretraining is given all training groups without labels, those of the corpus group left out among them.

    Returns
    -------
    Result
        Tables pretraining and pretraining_tried (objectives that were tried at 600 steps each).
    """
    from transformers import set_seed

    from lib import wav2vec2  # here: PyTorch takes seconds to import
    from lib.studies import compact_wav2vec2

    rows = inputs.rows(*SPLITS)
    middles = [_middle(waveform) for waveform in inputs.waveforms(*SPLITS)]
    set_seed(SEED)  # decides the initial weights
    networks = {
        "none (initial weights)": compact_wav2vec2.initial_model(),
        "models/wav2vec2_pretrained": wav2vec2.load_base("pretrained")[0],
    }
    features = {name: wav2vec2.pooled(model.wav2vec2, middles) for name, model in networks.items()}
    predictions = {name: predict_left_out(rows, [values], values) for name, values in features.items()}
    tables = {"pretraining": compare(rows, predictions, "pretraining"), "pretraining_tried": pd.read_csv(TRIED_PATH)}
    return Result({"n_clips": len(rows)}, tables)


def _middle(waveform: np.ndarray) -> np.ndarray:
    n_samples = round(CROP_SECONDS * config.SAMPLE_RATE_HZ)
    start = max(0, (len(waveform) - n_samples) // 2)
    return waveform[start : start + n_samples]
