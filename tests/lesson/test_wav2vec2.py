"""Wav2Vec2: padding and batch invariance, normalisation, base weights, freezing, checkpoints."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining, Wav2Vec2ForSequenceClassification

from lib import config, wav2vec2
from lib.networks import onnx_networks
from lib.studies import compact_wav2vec2

# facebook/wav2vec2-base's layout, a thousandth of its size.
TINY = {
    "conv_dim": (16,) * 7, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
# The published checkpoint was written before PyTorch renamed the two parts of a weight norm.
OLD_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return compact_wav2vec2.initial_model().eval()


@pytest.fixture
def group_norm_model():
    """A classifier of two other classes, laid out as facebook/wav2vec2-base."""
    torch.manual_seed(3)
    return Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**TINY, num_labels=2)).eval()


def noise(rng, n_samples):
    return (0.1 * rng.standard_normal(n_samples) + 0.01).astype(np.float32)


def test_the_compact_network_is_compact(model):
    n_parameters = sum(p.numel() for p in model.parameters())
    assert 4e6 < n_parameters < 12e6
    assert tuple(model.config.id2label.values()) == config.CLASS_NAMES


def test_the_first_convolution_starts_as_a_mel_spaced_filterbank(model):
    filters = compact_wav2vec2.gabor_filters(128, 256)
    weight = model.wav2vec2.feature_extractor.conv_layers[0].conv.weight[:, 0].detach().numpy()
    np.testing.assert_array_equal(weight, filters)
    peaks_hz = np.abs(np.fft.rfft(filters, 4096)).argmax(axis=1) * 16_000 / 4096
    assert np.all(np.diff(peaks_hz[::2]) > 0)
    assert peaks_hz[0] < 200
    assert 7_000 < peaks_hz[-1] < 8_000
    np.testing.assert_allclose(peaks_hz[::2], peaks_hz[1::2], atol=40)  # cosine and sine of one frequency
    np.testing.assert_allclose(np.linalg.norm(filters, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(filters.mean(axis=1), 0, atol=1e-6)


def test_normalisation_looks_at_valid_samples_only_and_padding_cannot_be_seen(model, rng):
    inputs = wav2vec2.collate([3 * noise(rng, 40_000) + 1, noise(rng, 80_000)])
    valid = inputs["input_values"][0, :40_000]
    assert valid.mean().abs() < 1e-5 and valid.std() == pytest.approx(1, abs=1e-3)
    assert inputs["attention_mask"].sum(dim=1).tolist() == [40_000, 80_000]
    assert (inputs["input_values"][0, 40_000:] == 0).all()
    with torch.inference_mode():
        clean = model(**inputs).logits[0]
        inputs["input_values"][0, 40_000:] = 5.0
        filled = model(**inputs).logits[0]
    np.testing.assert_allclose(filled, clean, atol=1e-4)


@pytest.mark.parametrize("n_samples", [1, 100, 399, 4_800])
def test_a_short_waveform_is_repeated(model, rng, n_samples):
    waveform = noise(rng, n_samples)
    clip = onnx_networks.normalise(waveform)
    assert clip.shape == (onnx_networks.MIN_SAMPLES,)
    if n_samples > 1:
        np.testing.assert_array_equal(clip[:n_samples], clip[n_samples : 2 * n_samples])
    assert np.isfinite(wav2vec2.predict(model, [waveform])).all()


@pytest.mark.parametrize("waveform", [np.empty(0, np.float32), np.zeros((2, 100), np.float32)])
@pytest.mark.parametrize("given", [onnx_networks.normalise, onnx_networks.cut_patches])
def test_what_is_no_waveform_is_refused(waveform, given):
    with pytest.raises(ValueError, match="n_samples"):
        given(waveform)


def test_batch_of_n_equals_n_singles(model, rng):
    clips = [noise(rng, n_samples) for n_samples in (100_000, 4_800, 31_234, 64_000)] + [np.zeros(30_000, np.float32)]
    together = wav2vec2.logits(model, clips, batch_size=5)
    alone = np.concatenate([wav2vec2.logits(model, [clip]) for clip in clips])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(wav2vec2.predict(model, clips).sum(axis=1), 1, atol=1e-6)
    assert wav2vec2.predict(model, []).shape == (0, 3)


def test_a_network_that_sees_padding_is_never_given_any(group_norm_model, rng, tmp_path):
    group_norm_model.save_pretrained(tmp_path)
    model, description = wav2vec2.load_base(str(tmp_path))
    assert description == str(tmp_path)
    assert model.config.num_labels == 3  # the head is new
    clips = [noise(rng, n_samples) for n_samples in (20_000, 48_000)]
    together = wav2vec2.logits(model, clips, batch_size=2)
    alone = np.concatenate([wav2vec2.logits(model, [clip]) for clip in clips])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    pooled = wav2vec2.pooled(model.wav2vec2, clips)
    for clip, row in zip(clips, pooled, strict=True):
        np.testing.assert_allclose(wav2vec2.pooled(model.wav2vec2, [clip])[0], row, atol=1e-4)


def test_a_classifier_given_as_base_loses_its_head(model, tmp_path):
    wav2vec2.save(model, tmp_path, record={})
    loaded, _ = wav2vec2.load_base(str(tmp_path))
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]) == name.startswith("wav2vec2."), name


def test_auto_does_without_an_unreachable_hub_and_asks_none_where_that_is_forbidden(monkeypatch, model, tmp_path):
    compact_wav2vec2.save_backbone(model.wav2vec2, tmp_path / "own", record={})
    monkeypatch.setattr(wav2vec2, "PRETRAINED_DIR", tmp_path / "own")
    monkeypatch.setattr(wav2vec2, "PRETRAINED_NAME", "nobody/nothing")  # in no cache
    monkeypatch.setattr(wav2vec2, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(wav2vec2.constants, "ENDPOINT", "https://hub.invalid")
    for _ in range(2):
        assert wav2vec2.load_base("auto")[1] == "compact Wav2Vec2, pretrained (models/own)"
        monkeypatch.setattr(wav2vec2.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(wav2vec2.urllib.request, "urlopen", None)


def hub_cache_with(folder, model):
    """Lay a checkpoint out as the Hugging Face cache does after facebook/wav2vec2-base was fetched."""
    repository, commit = Path(folder) / "hub" / "models--facebook--wav2vec2-base", "0" * 40
    snapshot, blobs = repository / "snapshots" / commit, repository / "blobs"
    for part in (snapshot, blobs, repository / "refs"):
        part.mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    model.config.architectures = [type(model).__name__]
    model.config.to_json_file(blobs / "config")
    weights = model.state_dict()
    for new, old in OLD_NAMES.items():
        weights = {name.replace(new, old): value for name, value in weights.items()}
    save_file(weights, blobs / "weights", metadata={"format": "pt"})
    (snapshot / "config.json").symlink_to("../../blobs/config")
    (snapshot / "model.safetensors").symlink_to("../../blobs/weights")


AS_WITH_A_GPU = """
import sys, torch
from safetensors.torch import save_file
from lib import wav2vec2
wav2vec2.device = lambda: torch.device("cuda")
model, description = wav2vec2.load_base("auto")
save_file(model.state_dict(), sys.argv[1], metadata={"description": description, "labels": str(model.config.id2label)})
"""


def load_offline(cache_dir):
    """Load "auto" as where a GPU is, in a fresh process: huggingface_hub reads its environment once, when imported.

    Its hub takes calls and never answers; it must not be called. Returns description, labels and weights.
    """
    out, variables = cache_dir / "loaded", {"HF_HUB_OFFLINE": 1, "no_proxy": "127.0.0.1"}
    with socket.create_server(("127.0.0.1", 0)) as hub:
        variables |= {"HF_HOME": cache_dir, "HF_HUB_CACHE": cache_dir / "hub"}
        variables |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}"}
        environment = os.environ | {name: str(value) for name, value in variables.items()}
        command = [sys.executable, "-c", AS_WITH_A_GPU, str(out)]
        subprocess.run(command, env=environment, cwd=config.PROJECT_DIR, check=True, timeout=300)
        assert not select.select([hub], [], [], 0)[0], "HF_HUB_OFFLINE asks for no connection"
    with safe_open(out, "pt") as loaded:
        return loaded.metadata(), load_file(out)


def test_auto_takes_the_cached_published_network_with_a_new_head(tmp_path):
    settings = {"codevector_dim": 16, "proj_codevector_dim": 16, "num_codevectors_per_group": 8}
    published = Wav2Vec2ForPreTraining(Wav2Vec2Config(**TINY, **settings))
    hub_cache_with(tmp_path, published)
    facts, weights = load_offline(tmp_path)
    assert facts == {"description": "facebook/wav2vec2-base", "labels": str(dict(enumerate(config.CLASS_NAMES)))}
    backbone = {name: value for name, value in published.state_dict().items() if name.startswith("wav2vec2.")}
    assert all(torch.equal(weights.pop(name), value) for name, value in backbone.items())
    assert {name.split(".")[0] for name in weights} == {"classifier"}  # no quantiser
    assert weights["classifier.weight"].shape == (len(config.CLASS_NAMES), 2 * TINY["hidden_size"])


def test_auto_names_what_it_took_and_what_makes_it_where_it_is_missing(monkeypatch, model, tmp_path):
    monkeypatch.setattr(wav2vec2, "PRETRAINED_DIR", tmp_path / "wav2vec2_pretrained")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("auto", "pretrained"):
        with pytest.raises(config.MissingCheckpointError, match=r"lib\.studies\.pretraining"):
            wav2vec2.load_base(name)
    compact_wav2vec2.save_backbone(model.wav2vec2, wav2vec2.PRETRAINED_DIR, record={})
    loaded, description = wav2vec2.load_base("auto")
    kept = loaded.wav2vec2.state_dict()
    assert all(torch.equal(kept[name], value.half().float()) for name, value in model.wav2vec2.state_dict().items())
    assert "wav2vec2_pretrained" in description and wav2vec2.load_base("pretrained")[1] == description


def test_frozen_parts_leave_the_backward_graph(rng):
    model = compact_wav2vec2.initial_model().train()
    everything = wav2vec2.set_trainable(model)
    head = wav2vec2.set_trainable(model, n_layers=0, convolutions=False)
    top = wav2vec2.set_trainable(model, n_layers=2, convolutions=False)
    assert head < top < everything
    model(**wav2vec2.collate([noise(rng, 20_000)])).logits[0, 1].backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert not any("feature_extractor" in name or "layers.3." in name for name in trained)
    assert any("layers.4." in name for name in trained)
    assert wav2vec2.set_trainable(model) == everything
    assert model.wav2vec2.feature_extractor._requires_grad


def test_a_fitted_head_is_given_mean_and_maximum_of_the_valid_frames(rng):
    model, clips = compact_wav2vec2.initial_model().eval(), [noise(rng, 20_000), noise(rng, 48_000)]
    kernel, bias = rng.standard_normal((3, 512)), rng.standard_normal(3)
    wav2vec2.set_head(model, kernel, bias)
    features = wav2vec2.pooled(model.wav2vec2, clips)
    for clip, row in zip(clips, features, strict=True):
        with torch.inference_mode():
            frames = model.wav2vec2(**wav2vec2.collate([clip])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(row, np.concatenate([frames.mean(axis=0), frames.max(axis=0)]), atol=1e-4)
    np.testing.assert_allclose(wav2vec2.logits(model, clips), features @ kernel.T + bias, atol=1e-3)
    with pytest.raises(ValueError, match=r"\(3, 512\), not \(3, 256\)"):
        wav2vec2.set_head(model, kernel[:, :256], bias)


def test_a_head_of_another_kind_is_refused(tmp_path):
    other = Wav2Vec2ForSequenceClassification(compact_wav2vec2.compact_config())
    other.save_pretrained(tmp_path)
    config.describe_checkpoint(tmp_path, {})
    with pytest.raises(RuntimeError, match="size"):
        wav2vec2.load(tmp_path)


def test_weight_decay_spares_biases_and_norms(model):
    decayed, spared = compact_wav2vec2.parameter_groups(model, weight_decay=0.1)
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0
    n_parameters = sum(p.numel() for group in (decayed, spared) for p in group["params"])
    assert n_parameters == sum(p.numel() for p in model.parameters())
    assert all(p.ndim <= 1 for p in spared["params"])


def test_checkpoint_round_trip(model, rng, tmp_path):
    path = wav2vec2.save(model, tmp_path, record={"base_weights": "initial"})
    assert path.stat().st_size < 25e6
    assert not list(tmp_path.glob("*.bin"))
    clips = [noise(rng, 30_000)]
    np.testing.assert_allclose(
        wav2vec2.predict(wav2vec2.load(tmp_path), clips), wav2vec2.predict(model, clips), atol=1e-6
    )
    assert config.read_record(tmp_path)["base_weights"] == "initial"


def test_permuted_classes_are_refused(model, tmp_path):
    wav2vec2.save(model, tmp_path, record={})
    for name in ("config.json", config.LABELS_FILE):
        path = tmp_path / name
        content = json.loads(path.read_text())
        content["class_names"] = ["normal", "crying", "screaming"]
        path.write_text(json.dumps(content | {"id2label": dict(enumerate(content["class_names"]))}))
        with pytest.raises(config.ClassOrderError, match=name):
            wav2vec2.load(tmp_path)
