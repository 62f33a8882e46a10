"""YAMNet: parity with the hub module, no padding, batch invariance, pooling by clip, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import expit, softmax

from lib import audio, config, yamnet
from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES
from lib.networks import onnx_networks, yamnet_backbone

WHOLE_HOPS = PATCH_SAMPLES + 5 * PATCH_HOP_SAMPLES  # a length that needs no padding in the hub either


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(3)
    return yamnet_backbone.build_backbone()


@pytest.fixture(scope="module")
def classifier(backbone):
    return yamnet.build_classifier(backbone, plain_head())


@pytest.fixture(scope="module")
def hub_module():
    return yamnet_backbone.load_hub()


@pytest.fixture(scope="module")
def hub_base():
    return yamnet_backbone.from_hub()


def plain_head():
    """A head with random weights on what PoolByClip makes of embeddings without class scores."""
    return keras.Sequential([keras.Input((3072,)), keras.layers.Dense(3, activation="softmax")], name="head")


def noise(rng, n_samples):
    return (0.1 * rng.standard_normal(n_samples)).astype(np.float32)


def test_patches_follow_the_hop_and_end_with_the_waveform(rng):
    waveform = noise(rng, WHOLE_HOPS + 1000)
    patches = onnx_networks.cut_patches(waveform)
    assert patches.shape == (7, PATCH_SAMPLES)
    np.testing.assert_array_equal(patches[1], waveform[PATCH_HOP_SAMPLES:][:PATCH_SAMPLES])
    np.testing.assert_array_equal(patches[-1], waveform[-PATCH_SAMPLES:])


@pytest.mark.parametrize("n_samples", [1, 400, 4_800, PATCH_SAMPLES - 1])
def test_a_short_waveform_is_repeated_not_padded(rng, n_samples):
    waveform = noise(rng, n_samples) + 1.0  # nowhere zero
    patch = onnx_networks.cut_patches(waveform)
    assert patch.shape == (1, PATCH_SAMPLES)
    assert np.all(patch != 0)
    np.testing.assert_array_equal(patch[0], waveform[np.arange(PATCH_SAMPLES) % n_samples])


def test_batch_of_n_equals_n_singles(classifier, rng):
    clips = [noise(rng, n_samples) for n_samples in (4_800, 16_000, 79_999, 160_000)]
    together = yamnet.predict(classifier, clips, batch_size=4)
    alone = np.concatenate([yamnet.predict(classifier, [clip]) for clip in clips])
    assert together.shape == (4, 3)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert yamnet.predict(classifier, []).shape == (0, 3)


def test_pooling_in_the_graph_equals_pooling_outside(backbone, rng):
    clips = [noise(rng, n_samples) for n_samples in (8_000, 50_000)]
    outside = yamnet.pool(yamnet.embeddings(backbone, clips))
    batch = yamnet.clip_batch(clips)
    inside = yamnet.PoolByClip()(backbone(batch["patches"]), batch["clip_index"])
    assert outside.shape == (2, 3 * yamnet_backbone.EMBEDDING_SIZE)
    np.testing.assert_allclose(inside, outside, atol=1e-5)


def test_log_mean_exp_lies_between_mean_and_maximum_and_stands_great_numbers():
    features = np.array([[0.0, 1000.0, -3.0], [np.log(3), -1000.0, -3.0]], np.float32)
    mean, maximum, between = np.split(yamnet.pool([features])[0], 3)
    np.testing.assert_allclose(between, [np.log(2), 1000 - np.log(2), -3], rtol=1e-6)
    assert (mean <= between).all() and (between <= maximum).all()
    np.testing.assert_allclose(yamnet.PoolByClip()(features, np.zeros(2, np.int32))[0, 6:], between, rtol=1e-6)


@pytest.fixture(scope="module")
def base(backbone):
    rng = np.random.default_rng(5)
    kernel = rng.standard_normal((yamnet_backbone.EMBEDDING_SIZE, len(yamnet_backbone.AUDIOSET_CLASSES))).astype(
        np.float32
    )
    bias = np.arange(len(yamnet_backbone.AUDIOSET_CLASSES), dtype=np.float32)
    return yamnet_backbone.BaseYamnet(backbone, "random", class_scores=(kernel, bias))


def two_headed(base, rng):
    """Return a classifier whose heads predict differently, and their weights."""
    heads = [
        (rng.normal(0, 0.05, (3, n)).astype(np.float32), rng.normal(size=3).astype(np.float32)) for n in (2048, 69)
    ]
    return yamnet.build_classifier(base.with_class_scores(), yamnet.build_head(*heads)), heads


def test_class_scores_are_the_audioset_logits_of_their_classes(base, rng):
    clips = [noise(rng, 20_000), noise(rng, 50_000)]
    plain = yamnet.embeddings(base.backbone, clips)
    of_embedding, of_scores = yamnet.split_features(yamnet.pool(yamnet.embeddings(base.with_class_scores(), clips)))
    np.testing.assert_allclose(of_embedding, yamnet.pool(plain)[:, :2048], atol=1e-5)
    logits = [e @ base.class_scores[0] + base.class_scores[1] for e in plain]
    np.testing.assert_allclose(of_scores, yamnet.pool(logits), rtol=1e-3, atol=1e-2)


def test_two_heads_are_averaged_and_predict_the_same_after_loading(base, rng, tmp_path):
    classifier, heads = two_headed(base, rng)
    clips = [noise(rng, 20_000), noise(rng, 50_000)]
    parts = yamnet.split_features(yamnet.pool(yamnet.embeddings(base.with_class_scores(), clips)))
    mean = sum(softmax(part @ kernel.T + bias, axis=1) for part, (kernel, bias) in zip(parts, heads, strict=True)) / 2
    np.testing.assert_allclose(yamnet.predict(classifier, clips), mean, atol=1e-4)
    path = yamnet.save(classifier, tmp_path, record={})
    np.testing.assert_allclose(yamnet.predict(yamnet.load(tmp_path), clips), mean, atol=1e-4)
    assert path.stat().st_size < 14e6


def test_fine_tuning_moves_convolutions_and_leaves_batch_norms_and_class_scores(base, rng):
    classifier, _ = two_headed(base, rng)
    network = classifier.get_layer("yamnet")
    yamnet.set_trainable(network, first_layer=13)
    before = {v.path: v.numpy() for v in network.weights}
    classifier.compile(keras.optimizers.SGD(0.1), loss="sparse_categorical_crossentropy", jit_compile=False)
    loss = classifier.train_on_batch(yamnet.clip_batch([noise(rng, 20_000), noise(rng, 30_000)]), np.array([0, 1]))
    assert np.isfinite(loss)
    moved = {v.path.split("/")[-2] for v in network.weights if not np.array_equal(before[v.path], v.numpy())}
    assert moved == {f"layer{n}_{kind}_conv" for n in (13, 14) for kind in ("depthwise", "pointwise")}


def test_a_trained_network_is_saved_without_its_optimiser_and_loads_in_safe_mode(classifier, rng, tmp_path):
    clips = [noise(rng, 12_000), noise(rng, 40_000)]
    yamnet.set_trainable(classifier.get_layer("yamnet"), first_layer=14)
    classifier.compile(optimizer=keras.optimizers.AdamW(1e-4), loss="categorical_crossentropy", jit_compile=False)
    classifier.train_on_batch(yamnet.clip_batch(clips), np.eye(3)[:2])
    path = yamnet.save(classifier, tmp_path, record={"base_weights": "random"})
    for other in (yamnet.load(tmp_path), yamnet.copy(classifier)):
        np.testing.assert_allclose(yamnet.predict(other, clips), yamnet.predict(classifier, clips), atol=1e-6)
    assert config.read_record(tmp_path) == {"base_weights": "random"}
    assert path.stat().st_size < 20e6  # moments would triple it


def test_permuted_classes_and_missing_checkpoints_are_refused(classifier, tmp_path):
    yamnet.save(classifier, tmp_path, record={})
    (tmp_path / config.LABELS_FILE).write_text(json.dumps({"class_names": ["normal", "crying", "screaming"]}))
    with pytest.raises(config.ClassOrderError):
        yamnet.load(tmp_path)
    with pytest.raises(config.MissingCheckpointError, match=r"run_all\.sh"):
        yamnet.load(tmp_path / "nothing")


def test_without_a_hub_the_released_backbone_is_taken_with_its_class_scores(
    classifier, base, backbone, monkeypatch, rng, tmp_path
):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr(yamnet_backbone, "HUB_HANDLE", "https://hub.invalid/yamnet")
    assert "random" in yamnet.load_base(tmp_path / "none").description
    clip = [noise(rng, 16_000)]
    for given in (classifier, two_headed(base, rng)[0]):
        yamnet.save(given, tmp_path / "yamnet", record={"base_weights": "google/yamnet/1"})
        released = yamnet.load_base(tmp_path / "yamnet")
        assert released.description == "models/yamnet (google/yamnet/1)"
        found = yamnet.embeddings(released.backbone, clip)
        np.testing.assert_allclose(found, yamnet.embeddings(backbone, clip), atol=1e-5)
        if given is classifier:
            assert released.class_scores is None  # this head was fitted to the embedding alone
    np.testing.assert_array_equal(released.class_scores[0], base.class_scores[0])
    with pytest.raises(yamnet_backbone.HubUnavailableError):
        yamnet_backbone.from_hub()


def test_variables_that_do_not_match_are_refused(backbone):
    with pytest.raises(ValueError, match="layer1/conv/kernel"):
        yamnet_backbone.copy_variables(backbone, {"layer2/conv/kernel": np.zeros(1)})


def test_unfolded_batch_norms_are_copied_too(backbone):
    """The official file's batch norms hold learned statistics in every layer; each must land under its own name."""
    names = [yamnet_backbone._hub_name(v) for layer in backbone.layers for v in layer.weights]
    variables = {
        name: np.full(v.shape, number + 1.0, np.float32)
        for number, (name, v) in enumerate(zip(names, backbone.weights, strict=True))
    }
    network = yamnet_backbone.build_backbone()
    yamnet_backbone.copy_variables(network, variables)
    variance = network.get_layer("layer9_pointwise_conv_bn").moving_variance.numpy()
    np.testing.assert_array_equal(variance, variables["layer9/pointwise_conv/bn/moving_variance"])


def class_names(module):
    lines = Path(module.class_map_path().numpy().decode()).read_text(encoding="utf-8").splitlines()[1:]
    return [line.split(",", 2)[2].strip('"') for line in lines]


def assert_parity(base, module, waveform):
    scores, embeddings, log_mel = (tensor.numpy() for tensor in module(waveform))
    ours = yamnet.embeddings(base.backbone, [waveform])[0]
    patches = base.backbone.get_layer("log_mel")(onnx_networks.cut_patches(waveform)).numpy()
    n = len(ours)
    np.testing.assert_allclose(ours, embeddings[:n], atol=1e-3)  # embeddings reach 10 and more
    kernel, bias = base.class_scores
    names = class_names(module)
    columns = [names.index(name) for name in yamnet_backbone.AUDIOSET_CLASSES]
    np.testing.assert_allclose(expit(ours @ kernel + bias), scores[:n, columns], atol=1e-4)
    all_names, kernel, bias = base.all_scores
    assert list(all_names) == names and len(names) == 521
    np.testing.assert_allclose(expit(ours @ kernel + bias), scores[:n], atol=1e-4)
    for number in range(n):
        start = number * yamnet_backbone.PATCH_FRAMES // 2
        np.testing.assert_allclose(patches[number], log_mel[start : start + yamnet_backbone.PATCH_FRAMES], atol=1e-4)


@pytest.mark.hub
def test_parity_with_the_hub_on_generated_clips(hub_base, hub_module, rng):
    time = np.arange(WHOLE_HOPS) / 16_000
    for waveform in (noise(rng, WHOLE_HOPS), 0.5 * np.sin(2 * np.pi * 440 * time), np.zeros(WHOLE_HOPS)):
        assert_parity(hub_base, hub_module, waveform.astype(np.float32))


@pytest.mark.hub
@pytest.mark.real_audio
def test_parity_with_the_hub_on_real_clips(hub_base, hub_module, mirror_dir):
    paths = sorted(mirror_dir.glob("*/*/*/**/*.wav"))[::150][:6]
    assert paths
    for path in paths:
        waveform = np.resize(audio.load(path), WHOLE_HOPS)
        assert_parity(hub_base, hub_module, waveform)


@pytest.mark.hub
def test_the_description_says_whose_weights_they_are(hub_base, hub_module):
    variables = {v.name.split(":")[0]: v.numpy() for v in hub_module._yamnet.variables}
    rebuilt = yamnet_backbone.weights_sha256(variables) == yamnet_backbone.REBUILT_WEIGHTS_SHA256
    assert hub_base.description.startswith("rebuilt" if rebuilt else "google/yamnet/1")
    variables["dense/bias"] = variables["dense/bias"] + 1e-3
    assert yamnet_backbone.weights_sha256(variables) != yamnet_backbone.REBUILT_WEIGHTS_SHA256
