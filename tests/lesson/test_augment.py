"""Augmentation: repeatable, same length, in range, and each change does what its name says."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import audio, augment, waveforms
from lib.augment import CODECS, AugmentConfig

SAMPLE_RATE_HZ = 16_000
CHANCES = [name for name in vars(AugmentConfig()) if name.startswith("p_")]
EVERYTHING, NOTHING = (AugmentConfig(**dict.fromkeys(CHANCES, chance)) for chance in (1.0, 0.0))


def noise(rng, seconds=1.0, amplitude=0.1):
    return (amplitude * rng.uniform(-1, 1, round(seconds * SAMPLE_RATE_HZ))).astype(np.float32)


def level_db(waveform):
    return 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)) + 1e-12)


def power_between(waveform, low_hz, high_hz):
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequencies = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE_HZ)
    return power[(frequencies >= low_hz) & (frequencies < high_hz)].sum()


def peak_hz(waveform):
    return np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE_HZ)[np.abs(np.fft.rfft(waveform)).argmax()]


@settings(deadline=None, max_examples=60)
@given(
    n_samples=st.integers(1, 40_000),
    seed=st.integers(0, 2**32 - 1),
    amplitude=st.sampled_from([0.0, 1e-6, 0.3, 1.0]),
    options=st.sampled_from([AugmentConfig(), EVERYTHING]),
)
def test_any_waveform_keeps_its_length_range_and_type(n_samples, seed, amplitude, options):
    rng = np.random.default_rng(seed)
    waveform = noise(rng, n_samples / SAMPLE_RATE_HZ, amplitude)
    before = waveform.copy()
    changed = augment.augment(waveform, rng, background=[noise(rng, 0.3)], settings=options)
    assert changed.shape == waveform.shape
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert np.abs(changed).max() <= 1
    np.testing.assert_array_equal(waveform, before)  # the clip itself is left alone


def test_same_seed_same_result_other_seed_another(rng):
    waveform, beds = noise(rng, 2), [noise(rng, 3), noise(rng, 0.5)]

    def run(seed):
        return augment.augment(waveform, np.random.default_rng(seed), background=beds, settings=EVERYTHING)

    np.testing.assert_array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 0.01


def test_with_all_probabilities_zero_only_the_level_is_set(rng):
    waveform = noise(rng)
    changed = augment.augment(waveform, rng, background=[waveform], settings=NOTHING)
    np.testing.assert_array_equal(changed, waveforms.equalise_level(waveform))


@pytest.mark.parametrize("snr_db", [0, 5, 10, 20])
def test_mixing_reaches_the_ratio_asked_for(tone, rng, snr_db):
    waveform, bed = tone(440, 2, amplitude=0.05), noise(rng, 2, 0.7)
    added = augment.mix(waveform, bed, snr_db=snr_db) - waveform
    assert level_db(waveform) - level_db(added) == pytest.approx(snr_db, abs=0.5)


def test_mixing_with_silence_changes_nothing(tone):
    waveform = tone(440, 1)
    silence = np.zeros_like(waveform)
    np.testing.assert_array_equal(augment.mix(waveform, silence, snr_db=0), waveform)
    np.testing.assert_array_equal(augment.mix(silence, waveform, snr_db=0), silence)


def test_background_is_mixed_in_and_left_out_without_one(tone, rng):
    options, waveform, bed = replace(NOTHING, p_background=1.0), tone(1000, 2), tone(300, 5)
    mixed = augment.augment(waveform, rng, background=[bed], settings=options)
    alone = augment.augment(waveform, rng, settings=options)
    assert power_between(mixed, 290, 310) > 1000 * power_between(alone, 290, 310)


@pytest.mark.parametrize(
    ("change", "kept_hz", "cut_hz"),
    [(partial(augment.low_pass, cutoff_hz=hz), 0.8 * hz, 1.5 * hz) for hz in (2000, 3000, 5000)]
    + [(partial(augment.resample_round_trip, rate_hz=hz), 0.4 * hz, 0.55 * hz) for hz in (8000, 11_025, 12_000)],
)
def test_low_pass_and_resampling_remove_what_is_above_and_keep_the_rest(rng, change, kept_hz, cut_hz):
    waveform = noise(rng, 2)
    changed = change(waveform)
    assert power_between(changed, cut_hz, 8000) < 1e-3 * power_between(waveform, cut_hz, 8000)
    kept = power_between(changed, 100, kept_hz) / power_between(waveform, 100, kept_hz)
    assert kept == pytest.approx(1, abs=0.05)


def test_low_pass_at_half_the_rate_and_high_pass(rng):
    waveform = noise(rng, 2)
    assert augment.low_pass(waveform, cutoff_hz=8000.0) is waveform
    filtered = augment.high_pass(waveform, cutoff_hz=400)
    assert power_between(filtered, 0, 100) < 0.01 * power_between(waveform, 0, 100)
    assert power_between(filtered, 1000, 8000) == pytest.approx(power_between(waveform, 1000, 8000), rel=0.05)


@pytest.mark.parametrize("codec", ["mu_law", "gsm"])
def test_telephone_codecs_clip_what_is_beyond_full_scale(tone, codec):
    loud = tone(200.0, 1.0, amplitude=1.5)
    back, beyond = augment.codec_round_trip(loud, codec=codec), np.abs(loud) > 1.1
    assert (np.sign(back) == np.sign(loud))[beyond].all() and np.abs(back[beyond]).min() > 0.5


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_codecs_keep_time_and_tune(tone, codec):
    waveform = tone(700, 1.5)
    waveform[: SAMPLE_RATE_HZ // 2] = 0
    back = augment.codec_round_trip(waveform, codec=codec)
    assert back.shape == waveform.shape
    assert peak_hz(back) == pytest.approx(700, abs=2)
    half = SAMPLE_RATE_HZ // 2
    assert level_db(back[half + 800 : -800]) == pytest.approx(level_db(waveform[half + 800 : -800]), abs=1)
    assert level_db(back[: half - 800]) < level_db(waveform[half:]) - 25


def test_gain_is_exact_and_never_clips(tone):
    waveform = tone(500, 1, amplitude=0.1)
    np.testing.assert_allclose(augment.gain(waveform, gain_db=6.0), waveform * 10**0.3, rtol=1e-5)
    loud = augment.gain(waveform, gain_db=40)
    assert np.abs(loud).max() == pytest.approx(1)
    assert np.corrcoef(loud, waveform)[0, 1] == pytest.approx(1)


def test_noise_colours_fall_between_white_and_brown():
    slopes = []
    for seed in range(30):
        colour = augment.coloured_noise(64_000, np.random.default_rng(seed))
        low, high = power_between(colour, 200, 400) / 200, power_between(colour, 3200, 6400) / 3200
        slopes.append(10 * np.log10(low / high) / 4)  # dB an octave
    assert -0.5 < min(slopes) < 1.5
    assert 4.5 < max(slopes) < 6.5


def test_random_crop_gives_one_length_without_zeros(rng):
    long, short = noise(rng, 3), noise(rng, 0.3)
    starts = set()
    for _ in range(20):
        crop = augment.random_crop(long, SAMPLE_RATE_HZ, rng)
        starts.add(np.flatnonzero(long == crop[0])[0])
        assert len(crop) == SAMPLE_RATE_HZ
        repeated = augment.random_crop(short, SAMPLE_RATE_HZ, rng)
        assert len(repeated) == SAMPLE_RATE_HZ
        assert np.abs(repeated).reshape(-1, 400).max(axis=1).min() > 0
    assert len(starts) > 10
    np.testing.assert_array_equal(augment.random_crop(long, len(long), rng), long)
    with pytest.raises(audio.EmptyAudio):
        augment.random_crop(np.zeros(0, np.float32), 10, rng)


def rows(*groups):
    expanded = [(label, source, group) for label, source, group, n_clips in groups for _ in range(n_clips)]
    return pd.DataFrame(expanded, columns=["label", "source", "group_id"])


def test_a_source_counts_with_the_root_of_its_groups_and_a_group_with_the_root_of_its_clips():
    frame = rows(("crying", "a", "g1", 9), ("crying", "a", "g2", 1), ("crying", "b", "g3", 5), ("normal", "a", "g4", 2))
    weights = pd.Series(augment.balanced_weights(frame))
    assert weights.groupby(frame["label"]).sum().tolist() == pytest.approx([0.5, 0.5])
    by_group = weights.groupby(frame["group_id"]).sum()
    first, second = 0.5 * np.array([np.sqrt(2), 1]) / (np.sqrt(2) + 1)  # of crying: source a of two groups, source b
    assert by_group[["g1", "g2", "g3"]].tolist() == pytest.approx([first * 3 / 4, first / 4, second])


def test_weights_follow_the_rows_and_keep_classes_equal(rng):
    frame = rows(*[(label, f"s{i % 3}", f"{label}{i}", i + 1) for label in ("crying", "screaming") for i in range(9)])
    frame = frame.iloc[rng.permutation(len(frame))]
    weights = augment.balanced_weights(frame)
    assert weights.sum() == pytest.approx(1)
    assert weights[(frame["label"] == "crying").to_numpy()].sum() == pytest.approx(0.5)
    assert (weights > 0).all()
    shuffled = augment.balanced_weights(frame.iloc[::-1])
    np.testing.assert_allclose(shuffled[::-1], weights)


def test_a_copy_is_the_same_in_every_run_and_another_for_another_key(rng):
    clip = noise(rng, 1)
    first, again, other = (augment.augmented_copy(clip, key=key) for key in ("a 0", "a 0", "a 1"))
    np.testing.assert_array_equal(first, again)
    assert len(first) == len(clip) and not np.array_equal(first, other)
