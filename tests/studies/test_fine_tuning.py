"""Fine-tuning against frozen: the table, and that nothing of the corpus group held out is trained on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lib import config
from lib.studies import fine_tuning

LABELS = np.array(config.CLASS_NAMES * 40)


def rows_of(labels, **more):
    return pd.DataFrame({"label": labels, "group_id": [f"g{i // 2}" for i in range(len(labels))], "source": "a"} | more)


def test_gains_stand_by_corpus_group_and_over_all(rng):
    rows, right = rows_of(LABELS), np.eye(3)[np.arange(120) % 3]
    wrong = np.where((np.arange(120) % 4 == 0)[:, None], right[:, [1, 2, 0]], right)
    found = {"b": (np.arange(60), right[:60], wrong[:60]), "c": (np.arange(60, 120), right[60:], right[60:])}
    table = fine_tuning.tabulate(rows, found).set_index("held_out")
    assert table.loc["b", "gain"] == pytest.approx(0.25)
    assert table.loc["b", "gain_low"] > 0
    assert table.loc["c", ["gain", "gain_low", "gain_high"]].tolist() == [0, 0, 0]
    assert 0 < table.loc["all", "gain"] < 0.25
    assert table.loc["all", ["n_windows", "n_groups"]].tolist() == [120, 60]


def test_batches_come_from_the_rows_given_and_know_their_classes(rng):
    keras = pytest.importorskip("keras")
    rows = rows_of(LABELS, kind="clip").iloc[7:]
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
    drawn = list(fine_tuning._drawn(network, rows, n_batches=30, size=8, rate=0.1))
    places = np.concatenate([batch for batch, _ in drawn])
    assert len(places) == 240 and places.min() >= 7 and len(np.unique(places)) > 60
    for batch, truth in drawn:
        assert truth.tolist() == [config.CLASS_ID[LABELS[place]] for place in batch]


def test_what_is_held_out_is_not_trained_on(monkeypatch, rng):
    from lib import yamnet, yamnet_backbone

    monkeypatch.setattr(fine_tuning, "N_BATCHES", 1)
    monkeypatch.setattr(fine_tuning, "N_EPOCHS", 3)
    kinds = np.repeat(["clip", "training window", "window"], 40)
    groups = np.where(np.arange(120) % 2, "freesound", "deeply")
    examples = rows_of(LABELS, kind=kinds, split="train", corpus_group=groups)
    examples["background_corpus_group"] = np.where(np.arange(120) % 7 == 0, "freesound", "")
    sounds = [(0.1 * rng.standard_normal(16_000)).astype(np.float32)] * 120
    features, read = [np.full((1, 1024), number, np.float32) for number in range(120)], set()
    train = yamnet.feature_batch
    monkeypatch.setattr(yamnet, "feature_batch", lambda clips: read.update(int(c[0, 0]) for c in clips) or train(clips))
    monkeypatch.setattr(yamnet, "predict_features", lambda head, clips: np.full((len(clips), 3), 1 / 3))
    backbone = yamnet_backbone.build_backbone()
    places, tuned, frozen = fine_tuning._without("freesound", examples, sounds, features, backbone=backbone)
    assert places.tolist() == list(range(81, 120, 2))
    assert tuned.shape == frozen.shape == (20, 3)
    assert read and all(place < 80 and place % 2 == 0 and place % 7 for place in read)
