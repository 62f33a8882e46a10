"""Changes whose size can be measured on the waveform itself."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from lib import config
from lib.studies import noise

RATE = config.SAMPLE_RATE_HZ


@pytest.fixture
def sound(rng):
    """Return two seconds of a decaying tone over faint noise, level as a processed clip's."""
    times = np.arange(2 * RATE) / RATE
    wave = np.sin(2 * np.pi * 440 * times) * np.exp(-times) * 0.2 + rng.normal(0, 0.005, len(times))
    return wave.astype(np.float32)


def power(waveform):
    return float(np.mean(np.square(waveform, dtype=np.float64)))


def share_above(waveform, hz):
    energy = np.abs(np.fft.rfft(waveform)) ** 2
    return energy[np.fft.rfftfreq(len(waveform), 1 / RATE) > hz].sum() / energy.sum()


def rows_of(n):
    labels = [config.CLASS_NAMES[i % 3] for i in range(n)]
    return pd.DataFrame(
        {"clip_id": [f"c{i}" for i in range(n)], "label": labels, "group_id": [f"g{i}" for i in range(n)]}
    )


@pytest.mark.parametrize("snr_db", noise.SNR_DB)
def test_noise_and_babble_lie_as_far_below_as_they_say(sound, snr_db):
    speech = [np.random.default_rng(i).normal(0, 0.1, RATE).astype(np.float32) for i in range(6)]
    for change in (noise.add_noise, partial(noise.add_babble, speech=speech)):
        mixed = change(sound, np.random.default_rng(0), snr_db=snr_db)
        scale = np.dot(mixed, sound) / np.dot(sound, sound)  # turned down where the peak would pass full scale
        more = change(sound, np.random.default_rng(0), snr_db=200)
        rest = mixed - scale * more
        assert 10 * np.log10(power(scale * sound) / power(rest)) == pytest.approx(snr_db, abs=0.7)


@pytest.mark.parametrize("t60_seconds", noise.T60_SECONDS)
def test_the_room_rings_as_long_as_it_says(t60_seconds, rng):
    response = noise.room_response(t60_seconds, rng)
    assert response[0] == 1 and np.square(response[1:]).sum() == pytest.approx(1)
    left = np.cumsum(np.square(response[::-1]))[::-1]  # Schroeder 1965: energy still to come
    decay_db = 10 * np.log10(left[1:] / left[1])
    part = (decay_db < -5) & (decay_db > -35)
    slope = np.polyfit(np.flatnonzero(part) / RATE, decay_db[part], 1)[0]
    assert -60 / slope == pytest.approx(t60_seconds, rel=0.2)


def test_reverberation_starts_with_the_direct_sound_and_keeps_the_length(rng):
    click = np.zeros(RATE, dtype=np.float32)
    click[1000] = 0.5
    wet = noise.reverberate(click, rng, t60_seconds=0.5)
    assert len(wet) == RATE and int(np.abs(wet).argmax()) == 1000
    assert np.abs(wet[:1000]).max() < 1e-6 and power(wet[1001:9000]) > 0


@pytest.mark.parametrize("percent", noise.CLIPPED_PERCENT)
def test_as_many_samples_clip_as_it_says(sound, rng, percent):
    driven = noise.clip(sound, rng, percent=percent)
    assert np.mean(np.abs(driven) >= 0.9999) == pytest.approx(percent / 100, rel=0.05)


def test_driving_silence_or_what_is_mostly_silence_stays_finite(rng):
    assert not noise.clip(np.zeros(1000, np.float32), rng, percent=5).any()
    sparse = np.zeros(1000, np.float32)
    sparse[3] = 0.1
    assert noise.clip(sparse, rng, percent=5).max() == 1


def test_gain_is_exact_until_it_clips(sound, rng):
    assert noise.gain(sound, rng, gain_db=-20) == pytest.approx(sound / 10, abs=1e-7)
    loud = noise.gain(sound, rng, gain_db=20)
    assert np.abs(loud).max() == 1 and np.mean(np.abs(loud) == 1) > 0.05
    inside = np.abs(sound) < 0.099
    assert loud[inside] == pytest.approx(sound[inside] * 10, abs=1e-5)


@pytest.mark.parametrize("name", ["mu_law", "gsm"])
def test_the_telephone_keeps_its_band_alone(rng, name):
    hiss = rng.normal(0, 0.1, 2 * RATE).astype(np.float32)
    heard = noise.telephone(hiss, rng, name=name)
    assert len(heard) == len(hiss) and share_above(heard, 4000) < 0.01 < 0.4 < share_above(hiss, 4000)
    assert 1 - share_above(heard, 150) < 0.02


def test_changes_of_no_strength_leave_the_clip_alone(sound, rng):
    assert np.array_equal(noise.gain(sound, rng, gain_db=0), sound)
    assert noise.add_noise(sound, rng, snr_db=120) == pytest.approx(sound, abs=1e-5)
    assert noise.clip(sound, rng, percent=0) == pytest.approx(sound / np.abs(sound).max(), abs=1e-6)
    flat = noise.reverberate(sound, rng, t60_seconds=1e-6)
    assert flat == pytest.approx(sound, abs=1e-6)


def test_every_condition_keeps_length_range_and_is_the_same_in_every_run(sound):
    rows, clips = rows_of(2), [sound, sound[: RATE // 2]]
    given = noise.conditions(speech=[sound, sound[::-1].copy()])
    assert list(given) == ["noise", "babble", "reverberation", "codec", "telephone", "gain", "clipping"]
    for kind, levels in given.items():
        for level, change in levels:
            once, again = (noise.degraded(rows, clips, change, kind=kind) for _ in range(2))
            for before, first, second in zip(clips, once, again, strict=True):
                assert np.array_equal(first, second), (kind, level)
                assert first.shape == before.shape and first.dtype == np.float32
                assert np.isfinite(first).all() and np.abs(first).max() <= 1
                assert not np.array_equal(first, before), (kind, level)


def test_opus_costs_more_the_fewer_bits_it_has(sound, rng):
    def error(level):
        return power(noise.opus(sound, rng, compression_level=level) - sound)

    assert error(0.0) < error(noise.OPUS_SMALLEST)
    assert error(noise.OPUS_SMALLEST) < power(sound)


def test_two_clips_get_other_noise_and_one_clip_the_same_at_every_level(sound):
    change = partial(noise.add_noise, snr_db=0)
    first, second = noise.degraded(rows_of(2), [sound, sound], change, kind="noise", equalise=False)
    assert not np.allclose(first, second)
    lower = noise.degraded(rows_of(1), [sound], partial(noise.add_noise, snr_db=20), kind="noise", equalise=False)
    rests = [part - np.float32(np.dot(part, sound) / np.dot(sound, sound)) * sound for part in (first, lower[0])]
    assert np.corrcoef(rests)[0, 1] > 0.99


def test_an_equalised_gain_leaves_nothing_but_its_clipping(sound):
    rows = rows_of(1)
    down, up = (partial(noise.gain, gain_db=gain_db) for gain_db in (-20, 20))
    plain = noise.degraded(rows, [sound], lambda waveform, _: waveform, kind="")[0]
    assert noise.degraded(rows, [sound], down, kind="gain")[0] == pytest.approx(plain, abs=1e-5)
    assert np.abs(noise.degraded(rows, [sound], up, kind="gain")[0] - plain).max() > 0.02
    raw = noise.degraded(rows, [sound], down, kind="gain", equalise=False)[0]
    assert power(raw) == pytest.approx(power(sound) / 100, rel=1e-4)
