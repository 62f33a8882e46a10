"""Cached features and the linear head that is fitted to them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib.networks import frozen_features
from lib.networks.onnx_networks import EXCERPT_SAMPLES

MODEL = {"kernel": np.ones(3)}


def lengths(waveforms):
    return np.array([[len(waveform), waveform[0]] for waveform in waveforms], dtype=np.float32)


@pytest.fixture
def network():
    """A network whose features are length and first sample; `blocks` notes what it was given, 40 samples fail."""
    blocks = []

    def pooled(model, waveforms):
        blocks.append([len(waveform) for waveform in waveforms])
        if 40 in blocks[-1]:
            raise RuntimeError("no memory")
        return lengths(waveforms)

    return SimpleNamespace(__name__="lib.network", POOLINGS="first", weights=dict, pooled=pooled, blocks=blocks)


def test_only_what_is_missing_is_computed_in_blocks_of_like_length(network, rng, tmp_path):
    clips = [np.full(n, n, np.float32) for n in rng.permutation(np.arange(101, 171))]
    first = frozen_features.of_clips(network, MODEL, clips[:40], cache_dir=tmp_path)
    np.testing.assert_array_equal(first, lengths(clips[:40]))
    assert [len(block) for block in network.blocks] == [32, 8]
    assert sum(network.blocks, []) == sorted(len(clip) for clip in clips[:40])
    network.blocks.clear()
    everything = frozen_features.of_clips(network, MODEL, clips, cache_dir=tmp_path)
    np.testing.assert_array_equal(everything, lengths(clips))
    assert sorted(sum(network.blocks, [])) == sorted(len(clip) for clip in clips[40:])
    assert not list(tmp_path.rglob("*.part"))


def test_other_weights_and_another_pooling_are_computed_anew(network, tmp_path):
    clips = [np.ones(7, np.float32)]
    for pooling, model in (("first", MODEL), ("first", {"kernel": np.zeros(3)}), ("last", MODEL), ("last", MODEL)):
        network.POOLINGS = pooling
        frozen_features.of_clips(network, model, clips, cache_dir=tmp_path)
    assert network.blocks == [[7]] * 3  # the fourth was read


def test_a_clip_that_fails_leaves_the_blocks_before_it(network, tmp_path):
    clips = [np.zeros(n, np.float32) for n in range(1, 41)]
    with pytest.raises(RuntimeError, match="no memory"):
        frozen_features.of_clips(network, MODEL, clips, cache_dir=tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == frozen_features.CLIPS_PER_BLOCK


def test_the_place_of_an_excerpt_is_found_once_by_each_network_and_rule(monkeypatch, tmp_path):
    asked = []

    class Yamnet:
        def __init__(self, models_dir):
            assert models_dir == tmp_path

        def excerpt_start(self, waveform):
            asked.append(len(waveform))
            return 7

    (tmp_path / "yamnet").mkdir()
    backbone = tmp_path / "yamnet" / frozen_features.BACKBONE_FILE
    backbone.write_bytes(b"one")
    monkeypatch.setattr(frozen_features, "Yamnet", Yamnet)
    sounds = [np.arange(n, dtype=np.float32) for n in (EXCERPT_SAMPLES, EXCERPT_SAMPLES + 50, 90)]
    for _ in range(2):
        found = frozen_features.excerpts(sounds, models_dir=tmp_path, cache_dir=tmp_path)
        assert [each[0] for each in found] == [0, 7, 0]
        assert [len(each) for each in found] == [EXCERPT_SAMPLES, EXCERPT_SAMPLES, 90]
    assert asked == [EXCERPT_SAMPLES + 50]
    monkeypatch.setattr(frozen_features, "EXCERPT_CLASSES", ("Screaming",))
    frozen_features.excerpts(sounds, models_dir=tmp_path, cache_dir=tmp_path)
    backbone.write_bytes(b"another")
    frozen_features.excerpts(sounds, models_dir=tmp_path, cache_dir=tmp_path)
    assert len(asked) == 3
    assert frozen_features.excerpts(sounds[::2], models_dir=tmp_path / "none", cache_dir=tmp_path)  # short: no network


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
    np.testing.assert_allclose(softmax(features @ kernel.T + bias, axis=1), head.predict_proba(features), atol=1e-6)
