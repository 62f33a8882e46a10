"""The detector's training: labels of frames, what a fold may see, and that NumPy runs what PyTorch trained."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib import config
from lib.config import SAMPLE_RATE_HZ
from lib.detector import Detector, DetectorSettings
from lib.events import EventSettings
from lib.studies import detector_training, mixtures
from lib.studies.mixtures import FRAME_STEPS, Material


def steps(*stretches, n_steps=1000):
    active = np.zeros(n_steps, dtype=bool)
    for first, stop in stretches:
        active[first:stop] = True
    return active


def test_a_frame_counts_where_half_of_it_or_half_of_a_short_sound_is_active():
    labels = mixtures.frame_labels(steps((0, FRAME_STEPS), (300, 310)), 12)
    assert labels[0] == 1
    assert labels[300 // FRAME_STEPS] == 1
    assert (labels[[2, 4, 8]] == 0).all()


def test_pauses_in_a_bout_and_touched_frames_count_for_nothing():
    labels = mixtures.frame_labels(steps((0, 58), (150, 250)), 8)
    assert labels.tolist() == [1, -1, -1, 1, 1, -1, 0, 0]


def test_an_active_step_is_near_the_loudest_or_marked_by_hand():
    clip = np.concatenate([np.full(8000, 1e-3), np.full(8000, 0.3)]).astype(np.float32)
    assert mixtures.active_steps(clip).tolist() == [False] * 49 + [True] * 51  # smoothed over three steps
    marked = mixtures.active_steps(clip, np.array([[0.1, 0.2]]))
    assert np.flatnonzero(marked).tolist() == list(range(10, 20))


@pytest.fixture(scope="module")
def material():
    rng, rows, clips = np.random.default_rng(0), [], []
    kinds = (("crying", "infant_cry"), ("screaming", "scream"), ("normal", "cat"), ("normal", "household"))
    for source in ("donateacry", "deeply", "esc10"):
        for label, subtype in kinds:
            for number in range(3):
                rows.append({"clip_id": f"{source}-{subtype}-{number}", "label": label, "subtype": subtype})
                rows[-1] |= {"source": source, "group_id": f"{source}:{subtype}:{number}", "start_seconds": 0.0}
                clips.append((0.1 * rng.standard_normal(2 * SAMPLE_RATE_HZ)).astype(np.float32))
    return Material.of(pd.DataFrame(rows), clips, [mixtures.active_steps(clip) for clip in clips])


def test_a_mixture_follows_from_its_seed_and_holds_what_its_labels_say(material):
    seen = set()
    for seed in range(12):
        mixture, again = (mixtures.mixture(material, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(mixture.waveform, again.waveform)
        assert mixture.waveform.shape == (mixtures.N_SAMPLES,)
        assert np.abs(mixture.waveform).max() <= 1
        labels = material.rows["label"].iloc[list(mixture.rows)]
        for column, label in enumerate(("crying", "screaming")):
            if (mixture.labels[:, column] == 1).any():
                assert label in set(labels)
                seen.add(label)
    assert seen == {"crying", "screaming"}


def embed_by_spectrum(patches):
    return np.abs(np.fft.rfft(patches, axis=1))[:, :1024].astype(np.float32) / 50


@pytest.fixture(scope="module")
def audioset():
    rng = np.random.default_rng(1)
    names = np.array(["Cat", "Siren", "Speech"] * 60)
    kernel = rng.standard_normal((1024, 180)).astype(np.float32) / 32
    return {"kernel": kernel, "bias": np.zeros(180, np.float32), "names": names, "silence": np.zeros(1024, np.float32)}


@pytest.fixture(scope="module")
def described(material):
    return detector_training.describe(material, embed_by_spectrum, n_mixtures=24, seed=3)


def test_a_fold_sees_no_mixture_with_a_clip_of_its_corpus_group(described, material):
    kept = described.without("esc50")
    assert 0 < len(kept) < 24
    assert not described.groups.loc[kept, "esc50"].any()


def test_numpy_runs_what_pytorch_trained(described, audioset, monkeypatch):
    monkeypatch.setattr(detector_training, "N_COMPONENTS", 12)
    numbers = np.arange(24)
    options = {"members": detector_training.MEMBERS[2:3], "steps": 5, "seed": 2}
    network, again = (detector_training.train(described, numbers, audioset, **options) for _ in range(2))
    np.testing.assert_array_equal(network.weights["0.out_w"], again.weights["0.out_w"])
    first = described.embeddings[:1], described.acoustics[:1]
    inputs = torch.from_numpy(detector_training.inputs_of(*first, network.weights)).float()
    model = detector_training.Temporal(inputs.shape[-1], *options["members"])
    state = {name: torch.from_numpy(network.weights["0." + _renamed(name)]) for name in model.state_dict()}
    model.load_state_dict(state)
    with torch.no_grad():
        wanted = torch.sigmoid(model.eval()(inputs, torch.from_numpy(described.levels[:1])))[0].numpy()
    detector = Detector(embed_by_spectrum, network, DetectorSettings(EventSettings.create(on=0.5, off=0.5)))
    given = described.embeddings[0].astype(np.float32), described.acoustics[0], described.levels[0]
    patches = [None] * 3 + [network.describe(*patch) for patch in zip(*given, strict=True)] + [None]
    hidden = [None] * 4 + [network.hidden(patches[i : i + 5]) for i in range(len(patches) - 4)]
    found = np.array([network.probabilities(hidden[i : i + 5]) for i in range(len(hidden) - 4)])
    np.testing.assert_allclose(found, wanted, atol=2e-3)  # PyTorch was given 16-bit floats
    assert detector.detect(np.zeros(config.PATCH_SAMPLES, np.float32)).frames.shape == (3, 2)


def _renamed(name):
    layer, kind = name.split(".")
    return f"{layer}_{'w' if kind == 'weight' else 'b'}"
