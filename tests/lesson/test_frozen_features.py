"""Cached features and the linear head that is fitted to them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib import frozen_features


def lengths(waveforms):
    return np.array([[len(waveform), waveform[0]] for waveform in waveforms], dtype=np.float32)


def test_only_what_is_missing_is_computed_in_blocks_of_like_length(rng, tmp_path):
    clips = [np.full(n, n, np.float32) for n in rng.permutation(np.arange(1, 71))]
    blocks = []

    def compute(waveforms):
        blocks.append([len(waveform) for waveform in waveforms])
        return lengths(waveforms)

    first = frozen_features.cached(compute, clips[:40], folder=tmp_path / "a")
    np.testing.assert_array_equal(first, lengths(clips[:40]))
    assert [len(block) for block in blocks] == [32, 8] and sum(blocks, []) == sorted(sum(blocks, []))
    blocks.clear()
    everything = frozen_features.cached(compute, clips, folder=tmp_path / "a")
    np.testing.assert_array_equal(everything, lengths(clips))
    assert sorted(sum(blocks, [])) == sorted(len(clip) for clip in clips[40:])
    assert not list(tmp_path.rglob("*.part"))


def test_a_clip_that_fails_leaves_the_blocks_before_it(tmp_path):
    clips = [np.zeros(n, np.float32) for n in range(1, 41)]

    def compute(waveforms):
        if len(waveforms[-1]) == 40:
            raise RuntimeError("no memory")
        return lengths(waveforms)

    with pytest.raises(RuntimeError, match="no memory"):
        frozen_features.cached(compute, clips, folder=tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == frozen_features.CLIPS_PER_BLOCK


def test_the_hash_of_weights_knows_names_values_and_no_order():
    weights = {"a": np.ones(3), "b": np.zeros((2, 2))}
    same = frozen_features.weights_sha256(dict(reversed(weights.items())))
    assert frozen_features.weights_sha256(weights) == same
    for other in ({"a": np.ones(3), "c": np.zeros((2, 2))}, {"a": np.ones(3) * 2, "b": np.zeros((2, 2))}):
        assert frozen_features.weights_sha256(other) != same


def test_the_linear_layer_predicts_as_the_pipeline_it_is_made_from(rng):
    features = rng.normal(5.0, [1.0, 100.0, 0.01, 3.0], (60, 4))
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=1000)).fit(features, np.arange(60) % 3)
    kernel, bias = frozen_features.linear(head)
    assert kernel.shape == (3, 4) and bias.shape == (3,)
    np.testing.assert_allclose(softmax(features @ kernel.T + bias, axis=1), head.predict_proba(features), atol=1e-6)
