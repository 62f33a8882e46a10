"""Acoustic features: known pitches, glides, spectra and roughness come out, whatever the level."""

import numpy as np
import pytest

from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES, SAMPLE_RATE_HZ
from lib.networks import acoustics

SHARE, PITCH, SPREAD, HIGH, JUMPS, GLIDE, HARMONICITY = range(7)
FIRST_BAND, CENTROID, FLATNESS, FIRST_ROUGHNESS = 8, 16, 18, 21
SECONDS = np.arange(PATCH_SAMPLES) / SAMPLE_RATE_HZ


def features(sound):
    (found,) = acoustics.features(np.asarray(sound, dtype=np.float32)[None])
    assert found.shape == (acoustics.N_FEATURES,) and np.isfinite(found).all()
    return found


def voice(pitch_hz):
    """Return a sound with 8 harmonics; `pitch_hz` may change over time."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(pitch_hz, SECONDS.shape)) / SAMPLE_RATE_HZ
    return 0.1 * sum(np.sin(number * phase) / number for number in range(1, 9))


def noise(seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(PATCH_SAMPLES)


@pytest.mark.parametrize("pitch_hz", [120, 260, 440, 700, 1100])
def test_the_pitch_of_a_voice_is_found_in_octaves(pitch_hz):
    found = features(voice(pitch_hz))
    assert found[PITCH] == pytest.approx(np.log2(pitch_hz / 440), abs=0.06)
    assert found[SHARE] == pytest.approx(1) and found[SPREAD] < 0.05 and abs(found[GLIDE]) < 0.02
    assert found[HIGH] == pytest.approx(float(pitch_hz > 900))


def test_a_glide_has_a_sign_and_noise_has_no_pitch():
    up = features(voice(300 * 2 ** (SECONDS / SECONDS[-1])))
    down = features(voice(600 / 2 ** (SECONDS / SECONDS[-1])))
    assert up[GLIDE] > 0.1 > -0.1 > down[GLIDE] and up[SPREAD] > 0.2
    assert features(noise())[SHARE] < 0.1 and features(noise())[HARMONICITY] < up[HARMONICITY] - 10


@pytest.mark.parametrize(("changes_hz", "part"), [(4, 0), (10, 1), (20, 2), (50, 3), (110, 4)])
def test_roughness_is_found_where_the_loudness_changes_that_fast(changes_hz, part):
    found = features(noise() * (1 + 0.9 * np.sin(2 * np.pi * changes_hz * SECONDS)))
    still = features(noise())
    more = (found - still)[FIRST_ROUGHNESS:].reshape(5, 3).mean(axis=1)  # by how fast, of three bands
    assert more.argmax() == part and more[part] > 0.2


def test_the_spectrum_is_where_the_sound_is():
    tone = np.sin(2 * np.pi * 2000 * SECONDS) * 0.1
    found = features(tone)
    bands = found[FIRST_BAND : FIRST_BAND + 8]
    assert bands.argmax() == 4 and bands[4] == pytest.approx(0, abs=0.01)
    assert found[CENTROID] == pytest.approx(2.0, abs=0.05)
    assert features(noise())[FLATNESS] < 0.5 < 2 < found[FLATNESS]


@pytest.mark.parametrize("sound", [voice(440), noise(), voice(300) * (1 + 0.5 * np.sin(2 * np.pi * 70 * SECONDS))])
def test_the_level_does_not_count(sound):
    np.testing.assert_allclose(features(sound), features(sound / 30), atol=0.05)


def test_a_patch_does_not_depend_on_its_neighbours_and_silence_has_features():
    stream = np.concatenate([voice(300), noise(), np.zeros(PATCH_SAMPLES), voice(500)]).astype(np.float32)
    starts = [0, 1, 2, 3, 5, 2, 6]  # most follow each other and share half their samples
    patches = np.stack([stream[start * PATCH_HOP_SAMPLES :][:PATCH_SAMPLES] for start in starts])
    together = acoustics.features(patches)
    np.testing.assert_array_equal(together, np.concatenate([acoustics.features(patch[None]) for patch in patches]))
    silent = acoustics.features(np.zeros((2, PATCH_SAMPLES), dtype=np.float32))
    np.testing.assert_array_equal(silent, [acoustics.of_silence()] * 2)
