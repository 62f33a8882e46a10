"""mn04_as: its published size, its front end, and what it predicts of known recordings."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lib import audio
from lib.corpora import acquisition
from lib.studies import audioset_cnn

# A part of the name of a published recording, and a class that has to be among mn04_as's first three.
KNOWN = {
    "cat_189.wav": "Meow", "dog_154.wav": "Dog", "koyun_28.wav": "Sheep", "kurbaga_9.wav": "Frog",
    "4-169127-B.ogg": "Chainsaw", "4-125825-B.ogg": "Church bell", "5-235671-A.ogg": "Tick-tock",
    "1-88807-A.ogg": "Glass",
}  # fmt: skip


@pytest.fixture(scope="module")
def mn04_as():
    try:
        return audioset_cnn.load(), audioset_cnn.class_names()
    except audioset_cnn.WeightsUnavailableError as error:
        pytest.skip(str(error))


def test_size_is_the_published_one_and_a_batch_equals_single_calls(rng):
    network = audioset_cnn.mn04_as().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 983_599
    sounds = list(rng.uniform(-1, 1, (3, 64_000)).astype(np.float32))
    assert network[0](torch.from_numpy(sounds[0][None])).shape == (1, 1, 128, 200)
    together = audioset_cnn.scores(network, sounds)
    assert together.shape == (3, 527) and together.min() >= 0 and together.max() <= 1
    np.testing.assert_allclose(together, np.concatenate([audioset_cnn.scores(network, [s]) for s in sounds]), atol=1e-5)


def test_the_front_end_of_mn04_as_has_kaldis_triangles_and_the_published_offsets():
    log_mel = audioset_cnn.mn04_as()[0]
    silence = log_mel(torch.zeros(1, 32_000))
    np.testing.assert_allclose(silence.numpy(), (np.log(1e-5) + 4.5) / 5, rtol=1e-6)
    assert len(log_mel.window) == 800 and log_mel.window[0] == log_mel.window[-1] == 0  # Hann, not periodic
    mel_of = 1127 * np.log1p(np.arange(513) * 32_000 / 1024 / 700)
    edges = np.linspace(0, 1127 * np.log1p(15_000 / 700), 130)
    rising, falling = (
        (mel_of[:, None] - edges[:-2]) / np.diff(edges)[0],
        (edges[2:] - mel_of[:, None]) / np.diff(edges)[0],
    )
    np.testing.assert_allclose(log_mel.mels.T, np.clip(np.minimum(rising, falling), 0, None), atol=1e-5)


@pytest.mark.real_audio
def test_mn04_as_names_known_recordings(mn04_as, mirror_dir):
    network, names = mn04_as
    assert len(names) == audioset_cnn.N_CLASSES and names[0] == "Speech" and names[-1] == "Field recording"
    paths = {Path(item.path).name: mirror_dir / item.remote for item in acquisition.items(acquisition.clips())}
    for name, wanted in KNOWN.items():
        scores = audioset_cnn.scores(network, [audio.load(paths[name], sample_rate_hz=32_000)])[0]
        first = [names[number] for number in scores.argsort()[::-1][:3]]
        assert wanted in first, f"{name}: {first}"


def test_a_file_that_is_not_as_published_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(audioset_cnn, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setenv("AUDIO_OFFLINE", "1")
    monkeypatch.setenv(audioset_cnn.WEIGHTS_VARIABLE, str(tmp_path))
    published = audioset_cnn.Published(
        "weights.pt", "https://example.org/weights.pt", hashlib.sha256(b"right").hexdigest()
    )
    (tmp_path / "weights.pt").write_bytes(b"wrong")
    with pytest.raises(audioset_cnn.WeightsUnavailableError, match="AUDIOSET_WEIGHTS_DIR"):
        published.path()
    (tmp_path / "weights.pt").write_bytes(b"right")
    assert published.path() == tmp_path / "weights.pt"
    assert list(tmp_path.iterdir()) == [tmp_path / "weights.pt"]  # nothing is written beside it
