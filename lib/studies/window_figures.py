"""Windows of unseen corpora as the service classifies them: by ensemble and detector, both without that corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lib.corpora import windows
from lib.detector import Detector
from lib.ensemble import combined_with, mixed, needs_ensemble
from lib.studies import cross_corpus
from lib.studies.inputs import Inputs


def measure(inputs: Inputs, unseen: Mapping[str, Detector]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return product.json's figures by seconds, and a table of both together and of the ensemble alone.

    n_with_ensemble: windows in which the ensemble was needed; n_labels_changed: labels that would be others if its
    prediction counted in all of them.

    Parameters
    ----------
    inputs : Inputs
        A build, whose ensemble is fitted without each corpus group.
    unseen : mapping of corpus group to Detector
        Trained without it.
    """
    rows, predictions = inputs.left_out("window")
    development = "train", "validation"
    sounds = drawn_again(rows, inputs.rows(*development), inputs.waveforms(*development))
    frames = [unseen[group].detect(sound).frames for group, sound in zip(rows["corpus_group"], sounds, strict=True)]
    alone = predictions["ensemble"]
    both = np.stack([combined_with(*pair) for pair in zip(frames, alone, strict=True)])
    is_asked = np.array([needs_ensemble(each) for each in frames])
    always = np.stack([mixed(*pair) for pair in zip(frames, alone, strict=True)])
    is_changed = always.argmax(axis=1) != both.argmax(axis=1)
    scores = cross_corpus.by_seconds(rows, {"ensemble": alone, "ensemble and detector": both})
    figures = {}
    for seconds, at in rows.groupby("seconds").indices.items():
        of_alone, of_both = map(cross_corpus.with_size, scores[f"{seconds:g}"].values())
        counts = {"n_with_ensemble": int(is_asked[at].sum()), "n_labels_changed": int(is_changed[at].sum())}
        figures[f"{seconds:g}"] = of_both | {"ensemble_macro_f1": of_alone["macro_f1"]} | counts
    return figures, cross_corpus.by_length(scores)


def drawn_again(rows: pd.DataFrame, clips: pd.DataFrame, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the waveforms of windows to be judged on, as `windows.examples` drew them, before `prepare`.

    Parameters
    ----------
    rows : DataFrame
        clip_id and seconds of each window.
    clips, waveforms
        Manifest rows of the train and validation groups and their waveforms (n_samples,).
    """
    by_clip = dict(zip(clips["clip_id"], waveforms, strict=True))
    found: dict[tuple[str, float], np.ndarray] = {}
    for _, part in clips.groupby("split"):
        for seconds, wanted in rows.groupby("seconds"):
            chosen = part["clip_id"].isin(wanted["clip_id"]).astype(int)
            table, drawn = windows.draw(part, by_clip, seconds=seconds, per_clip=chosen, own_corpus=True)
            found |= dict(zip(zip(table["clip_id"], table["seconds"], strict=True), drawn, strict=True))
    return [found[clip_id, seconds] for clip_id, seconds in zip(rows["clip_id"], rows["seconds"], strict=True)]
