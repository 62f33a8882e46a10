"""What the two options of notebook 02 are worth on unseen corpora, YAMNet frozen (`lib.studies.frozen_head`)."""

from __future__ import annotations

from functools import partial

from lib import preprocess
from lib.studies.frozen_head import SCORES_C, SPLITS, compare, in_processes, predict_left_out, yamnet_features
from lib.studies.inputs import Inputs
from lib.studies.result import Result

OPTIONS = {
    "as they are": {},
    "noise reduction": {"reduce_noise": True},
    "pitch normalisation": {"normalise_pitch": True},
}


def run(inputs: Inputs) -> Result:
    """Compare the two options of notebook 02, applied to the clips trained on and predicted (table options)."""
    rows, predictions = inputs.rows(*SPLITS), {}
    for name, settings in OPTIONS.items():
        change = partial(preprocess.process_waveform, options=preprocess.Options(**settings))
        embedded, scores = yamnet_features(in_processes(change, [(w,) for w in inputs.waveforms(*SPLITS)]))
        of_embedding = predict_left_out(rows, [embedded], embedded)
        predictions[name] = (of_embedding + predict_left_out(rows, [scores], scores, c=SCORES_C)) / 2
    return Result({"n_clips": len(rows)}, {"options": compare(rows, predictions, "option")})
