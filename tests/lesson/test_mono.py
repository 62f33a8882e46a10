"""From several channels to one: the sound that is in one of them is not lost to the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib import audio, waveforms

CRY_PATH = Path(__file__).resolve().parents[1] / "data" / "id3_twice.mp3"


@pytest.fixture(scope="module")
def cry() -> np.ndarray:
    waveform = audio.load(CRY_PATH)
    return 0.3 * waveform / np.abs(waveform).max()


def at_level(other: np.ndarray, cry: np.ndarray, level_db: float) -> np.ndarray:
    return other * np.sqrt(np.square(cry).mean() / np.square(other).mean()) * 10 ** (level_db / 20)


def hum(n_samples: int) -> np.ndarray:
    times = np.arange(n_samples) / 16_000
    return sum(np.sin(2 * np.pi * 50 * k * times) / k for k in (1, 2, 3, 5))


def likeness(mono: np.ndarray, cry: np.ndarray) -> float:
    return np.corrcoef(mono, cry)[0, 1] ** 2


def test_channels_out_of_phase_with_a_hum_in_phase(cry):
    buzz = at_level(hum(len(cry)), cry, -9.0)
    assert likeness(waveforms.to_mono(np.stack([cry + buzz, -cry + buzz], axis=1)), cry) > 0.85


@pytest.mark.parametrize("level_db", [-6.0, 0.0, 10.0, 20.0])
@pytest.mark.parametrize("kind", ["noise", "hum", "dead", "constant"])
@pytest.mark.parametrize("bad", [0, 1])
def test_one_bad_channel_does_not_drown_a_good_one(cry, rng, kind, level_db, bad):
    kinds = {"noise": rng.normal(size=len(cry)), "hum": hum(len(cry)), "constant": np.ones(len(cry))}
    other = 0 * cry if kind == "dead" else at_level(kinds[kind], cry, level_db)
    mono = waveforms.to_mono(np.stack([other, cry] if bad == 0 else [cry, other], axis=1))
    assert likeness(mono, cry) > 0.75


def test_the_choice_may_change_in_the_course_of_a_recording(cry, rng, tmp_path):
    import soundfile

    noise = at_level(rng.normal(size=160_000), cry, 10.0)
    sound = np.resize(cry, 160_000)
    samples = np.concatenate([np.stack([sound, noise], axis=1), np.stack([noise, sound], axis=1)]) / 4
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    waveform = audio.load(tmp_path / "a.wav")
    assert likeness(waveform[:160_000], sound) > 0.9
    assert likeness(waveform[160_000:], sound) > 0.9


def test_silence_and_one_channel_stay_as_they_are(cry):
    assert not waveforms.to_mono(np.zeros((100, 2))).any()
    assert np.array_equal(waveforms.to_mono(cry), cry) and np.array_equal(waveforms.to_mono(cry[:, None]), cry)


def test_channels_that_agree_are_averaged_exactly(cry, rng):
    samples = np.stack([cry, cry + 0.01 * rng.normal(size=len(cry))], axis=1).astype(np.float32)
    assert np.array_equal(waveforms.to_mono(samples), samples.mean(axis=1))
