"""What each piece of the recipe is worth on unseen corpora, YAMNet frozen (`lib.studies.frozen_head`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pandas as pd

from lib import augment
from lib.studies.frozen_head import SCORES_C, SPLITS, compare, in_processes, predict_left_out, yamnet_features
from lib.studies.inputs import Inputs
from lib.studies.result import Result


def run(inputs: Inputs) -> Result:
    """Compare the recipe with variants that lack one piece of it, YAMNet frozen (table ablation)."""
    rows, waveforms = inputs.rows(*SPLITS), inputs.waveforms(*SPLITS)
    embedded, scores = yamnet_features(waveforms)
    copies = {
        name: yamnet_features(in_processes(partial(_copy, settings=settings), _keyed(rows, waveforms)))[0]
        for name, settings in augment_variants().items()
    }
    whole = [embedded, copies["full recipe"]]
    predictions = {name: predict_left_out(rows, [embedded, copy], embedded) for name, copy in copies.items()}
    predictions["no copies"] = predict_left_out(rows, [embedded], embedded)
    alone = predict_left_out(rows, [scores], scores, c=SCORES_C)
    predictions["AudioSet class scores alone"] = alone
    predictions["with AudioSet class scores"] = (predictions["full recipe"] + alone) / 2
    half = embedded.shape[1] // 2
    for name, part in (("mean pooling alone", slice(0, half)), ("maximum pooling alone", slice(half, None))):
        predictions[name] = predict_left_out(rows, [each[:, part] for each in whole], embedded[:, part])
    return Result({"n_clips": len(rows)}, {"ablation": compare(rows, predictions, "variant")})


def augment_variants() -> dict[str, augment.AugmentConfig]:
    """Return the settings of an augmented copy, whole and without each of its pieces."""
    whole = replace(augment.WITHOUT_BACKGROUND, p_pitch_tempo=0.1, p_shift=0.5)
    pieces = [field.name for field in fields(whole) if field.name.startswith("p_") and getattr(whole, field.name) > 0]
    lacking = {f"without {name[2:].replace('_', ' ')}": replace(whole, **{name: 0.0}) for name in pieces}
    return {"full recipe": whole} | lacking


def _keyed(rows: pd.DataFrame, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, str]]:
    return [(waveform, f"{clip_id} 0") for clip_id, waveform in zip(rows["clip_id"], waveforms, strict=True)]


def _copy(waveform: np.ndarray, key: str, settings: augment.AugmentConfig) -> np.ndarray:
    return augment.augmented_copy(waveform, key=key, settings=settings)
