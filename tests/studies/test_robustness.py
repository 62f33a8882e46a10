"""Changes whose size can be measured on the waveform itself, and a table whose course is known."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from lib import config, plots
from lib.studies import robustness

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
    frame = pd.DataFrame({"clip_id": [f"c{i}" for i in range(n)], "group_id": [f"g{i}" for i in range(n)]})
    return frame.assign(label=np.array(config.CLASS_NAMES)[np.arange(n) % 3])


@pytest.mark.parametrize("snr_db", robustness.SNR_DB)
def test_noise_and_babble_are_at_the_ratio_that_they_say(sound, snr_db):
    speech = [np.random.default_rng(i).normal(0, 0.1, RATE).astype(np.float32) for i in range(6)]
    for change in (robustness.add_noise, partial(robustness.add_babble, speech=speech)):
        mixed = change(sound, np.random.default_rng(0), snr_db=snr_db)
        scale = np.dot(mixed, sound) / np.dot(sound, sound)  # turned down where the peak would pass full scale
        rest = mixed - scale * change(sound, np.random.default_rng(0), snr_db=200)
        assert 10 * np.log10(power(scale * sound) / power(rest)) == pytest.approx(snr_db, abs=0.7)


@pytest.mark.parametrize("t60_seconds", robustness.T60_SECONDS)
def test_the_room_rings_as_long_as_it_says_after_the_direct_sound(t60_seconds, rng):
    response = robustness.room_response(t60_seconds, rng)
    assert response[0] == 1 and np.square(response[1:]).sum() == pytest.approx(1)
    left = np.cumsum(np.square(response[::-1]))[::-1]  # Schroeder 1965: energy still to come
    decay_db = 10 * np.log10(left[1:] / left[1])
    part = (decay_db < -5) & (decay_db > -35)
    slope = np.polyfit(np.flatnonzero(part) / RATE, decay_db[part], 1)[0]
    assert -60 / slope == pytest.approx(t60_seconds, rel=0.2)
    click = 0.5 * np.eye(1, RATE, 1000, dtype=np.float32)[0]
    wet = robustness.reverberate(click, rng, t60_seconds=t60_seconds)
    assert len(wet) == RATE and int(np.abs(wet).argmax()) == 1000
    assert np.abs(wet[:1000]).max() < 1e-6 and power(wet[1001:9000]) > 0


@pytest.mark.parametrize("percent", robustness.CLIPPED_PERCENT)
def test_as_many_samples_clip_as_it_says_and_silence_stays_finite(sound, rng, percent):
    driven = robustness.clip(sound, rng, percent=percent)
    assert np.mean(np.abs(driven) >= 0.9999) == pytest.approx(percent / 100, rel=0.05)
    assert not robustness.clip(np.zeros(1000, np.float32), rng, percent=percent).any()
    sparse = np.zeros(1000, np.float32)
    sparse[3] = 0.1
    assert robustness.clip(sparse, rng, percent=percent).max() == 1


@pytest.mark.parametrize("name", robustness.TELEPHONE_CODECS)
def test_the_telephone_keeps_its_band_alone(rng, name):
    hiss = rng.normal(0, 0.1, 2 * RATE).astype(np.float32)
    given = robustness.telephone(hiss, rng, name=name)
    assert len(given) == len(hiss) and share_above(given, 4000) < 0.01 < 0.4 < share_above(hiss, 4000)
    assert 1 - share_above(given, 150) < 0.02


def test_every_condition_keeps_length_and_range_and_is_the_same_in_every_run(sound):
    rows, clips = rows_of(2), [sound, sound[: RATE // 2]]
    changes = robustness.conditions(speech=[sound, sound[::-1].copy()])
    kinds = dict.fromkeys(name.partition(" ")[0] for name in changes)
    assert list(kinds) == ["as", "noise", "babble", "reverberation", "codec", "telephone", "clipping"]
    for name, change in changes.items():
        once, again = (robustness.degraded(rows, clips, name, change) for _ in range(2))
        for before, first, second in zip(clips, once, again, strict=True):
            assert np.array_equal(first, second), name
            assert first.shape == before.shape and first.dtype == np.float32
            assert np.isfinite(first).all() and np.abs(first).max() <= 1 and not np.array_equal(first, before), name


def test_two_clips_get_other_noise_and_one_clip_the_same_at_every_level(sound):
    changes = robustness.conditions(speech=[sound])
    (first, second), (lower, _) = (
        robustness.degraded(rows_of(2), [sound, sound], name, changes[name]) for name in ("noise 0 dB", "noise 20 dB")
    )
    rests = [part - np.float32(np.dot(part, sound) / np.dot(sound, sound)) * sound for part in (first, lower, second)]
    correlations = np.corrcoef(rests)
    assert correlations[0, 1] > 0.9 and abs(correlations[0, 2]) < 0.5


def test_the_table_compares_each_model_with_the_clips_as_recorded():
    rows = rows_of(30)
    right = np.eye(3)[np.arange(30) % 3] * 0.9 + 0.1 / 3
    silent = np.tile([0.0, 0.0, 1.0], (30, 1))
    predicted = {robustness.AS_RECORDED: {"m": right, "n": silent}, "noise 0 dB": {"m": silent, "n": right}}
    table = robustness.tabulate(rows, predicted)
    found = table.set_index(["model", "condition", "measure"])
    assert found.loc[("m", "noise 0 dB", "macro F1"), "value"] == pytest.approx(1 / 6)  # F1 of 0, 0 and 1/2
    assert (
        found.loc[("m", "noise 0 dB", "change"), "high"] < -0.7 < 0.7 < found.loc[("n", "noise 0 dB", "change"), "low"]
    )
    assert found.loc[("n", robustness.AS_RECORDED, "F1 crying"), "value"] == 0 and set(table["n_groups"]) == {30}
    assert (found.xs(robustness.AS_RECORDED, level="condition").xs("change", level="measure")["value"] == 0).all()
    figure = robustness.draw({"robustness": table})["robustness"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(predicted)
    plots.close(figure)
