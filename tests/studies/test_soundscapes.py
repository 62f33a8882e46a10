"""Soundscapes hold what their reference list says, at the ratio it says, and nothing that a network has met."""

import numpy as np
import pandas as pd
import pytest

from lib.config import SAMPLE_RATE_HZ
from lib.studies import soundscapes

SECONDS = 300.0


def tone(seconds):
    return (0.2 * np.sin(2 * np.pi * 500 / SAMPLE_RATE_HZ * np.arange(seconds * SAMPLE_RATE_HZ))).astype(np.float32)


def corpus():
    """Return rows and waveforms of 4 groups of 2 clips of every kind."""
    kinds = [("crying", "infant_cry", 4.0), ("screaming", "scream", 1.5)]
    kinds += [("normal", name, 2.0) for names in soundscapes.SUBTYPES.values() for name in names]
    rows, waveforms = [], []
    for label, subtype, seconds in kinds:
        for number in range(8):
            name, group = f"{label}_{subtype}_{number}", f"{label}_{subtype}_{number // 2}"
            rows.append({"clip_id": name, "label": label, "subtype": subtype, "group_id": group})
            waveforms.append(tone(seconds))
    return pd.DataFrame(rows), waveforms


def make(rows, waveforms, **changes):
    options = {"name": "test", "n_soundscapes": 14, "seconds": SECONDS, "seed": 3} | changes
    return list(soundscapes.soundscapes(rows, waveforms, **options))


def events_of(made):
    return pd.DataFrame(
        [
            {"name": scape.name, "seconds": item.event.offset_seconds - item.event.onset_seconds}
            | {"label": item.event.label, "snr_db": item.snr_db}
            for scape in made
            for item in scape.references
        ]
    )


@pytest.fixture(scope="module")
def made():
    return make(*corpus(), seconds=600.0)


def test_the_planted_time_is_one_to_two_per_cent(made):
    table = events_of(made)
    shares = table.groupby("name")["seconds"].sum() / 600.0
    assert 0.01 < shares.mean() < 0.02
    assert shares.max() < 0.02
    assert set(table["label"]) == {"crying", "screaming"}


def test_what_a_soundscape_holds_is_what_was_asked_for():
    rows, waveforms = corpus()
    for scape in make(rows, waveforms, content="sustained", seconds=60.0, n_soundscapes=3):
        (item,) = scape.references
        assert item.event.label == "crying" and item.event.offset_seconds - item.event.onset_seconds > 30
    empty = make(rows, waveforms, content="nothing", kinds=("speech",), n_soundscapes=2)
    assert all(scape.references == () and scape.background_clip_ids for scape in empty)
    kept = np.flatnonzero(rows["label"] != "screaming")
    assert set(events_of(make(rows.iloc[kept], [waveforms[place] for place in kept]))["label"]) == {"crying"}
    kept = np.flatnonzero(rows["label"] == "normal")
    with pytest.raises(ValueError, match="no clip of screaming"):
        make(rows.iloc[kept], [waveforms[place] for place in kept])
    with pytest.raises(ValueError, match="background"):
        make(rows.iloc[:16], waveforms[:16], kinds=("speech",))
    with pytest.raises(ValueError, match="too short"):
        make(rows, waveforms, seconds=40.0, content="sustained")


def test_no_clip_is_in_the_background_more_often_than_it_may():
    made = make(*corpus(), n_soundscapes=21)
    backgrounds = [[part for part in scape.sounding if part[0].startswith("normal")] for scape in made]
    assert pd.Series([name for parts in backgrounds for name, *_ in parts]).value_counts().max() <= soundscapes.MAX_USES
    for scape, parts in zip(made, backgrounds, strict=True):
        assert {name for name, *_ in parts} == set(scape.background_clip_ids)
        assert parts or scape.background == "quiet"
        times = np.array([times for _, *times in parts]).reshape(-1, 2)
        assert (times[:-1, 1] <= times[1:, 0]).all()  # now and then, never over each other


def test_the_seed_decides_everything():
    rows, waveforms = corpus()
    first, again, other = (make(rows, waveforms, n_soundscapes=3, seed=seed) for seed in (5, 5, 6))
    assert [scape.references for scape in first] == [scape.references for scape in again]
    assert [scape.references for scape in first] != [scape.references for scape in other]
    np.testing.assert_array_equal(first[1].waveform(), again[1].waveform())
    np.testing.assert_array_equal(first[1].waveform(), first[1].waveform())
    assert first[1].waveform().dtype == np.float32
    assert np.abs(first[1].waveform()).max() <= 1


def test_backgrounds_take_turns_and_ratios_are_spread_evenly(made):
    assert [scape.background for scape in made[:8]] == [*soundscapes.SUBTYPES, "speech"]
    assert made[6].background_clip_ids == ()
    assert all("speech" in clip for clip in made[0].background_clip_ids)
    counts = events_of(made).groupby(["label", "snr_db"]).size().unstack(fill_value=0)
    assert list(counts.columns) == list(soundscapes.SNR_DB)
    assert ((counts.max(axis=1) - counts.min(axis=1)) <= 1).all()


def test_bouts_are_far_apart_and_inside(made):
    for scape in made:
        events = sorted(item.event for item in scape.references)
        edges = [0.0, *(time for event in events for time in (event.onset_seconds, event.offset_seconds)), 600.0]
        assert all(b - a >= soundscapes.APART_SECONDS - 0.02 for a, b in zip(edges[::2], edges[1::2], strict=True))


def test_onsets_offsets_and_ratio_are_those_of_the_samples():
    """The bed lies at 500 Hz, cries and screams are noise here: they can be told apart by their band."""
    rows, waveforms = corpus()
    loud = np.random.default_rng(0).normal(0, 0.1, 4 * SAMPLE_RATE_HZ).astype(np.float32)
    loud = np.concatenate([np.zeros(8000, np.float32), loud, np.zeros(16_000, np.float32)])
    waveforms = [loud if row.label != "normal" else w for row, w in zip(rows.itertuples(), waveforms, strict=True)]
    scape = make(rows, waveforms, n_soundscapes=1)[0]
    samples = scape.waveform().astype(float)
    levels = np.array([np.abs(np.fft.rfft(part))[20:].std() for part in samples.reshape(-1, 160)])  # over 2 kHz
    for item in scape.references:
        first, stop = (round(time * 100) for time in (item.event.onset_seconds, item.event.offset_seconds))
        quiet, inside = np.median(levels[first - 60 : first - 20]), np.median(levels[first + 5 : stop - 5])
        assert inside > 5 * quiet
        assert np.median(levels[first - 12 : first - 2]) < 3 * quiet
        assert np.median(levels[stop + 2 : stop + 12]) < 3 * quiet


@pytest.mark.parametrize("snr_db", [-5.0, 20.0])
def test_an_event_stands_at_its_ratio_over_the_bed(monkeypatch, snr_db):
    monkeypatch.setattr(soundscapes, "SNR_DB", (snr_db,))
    (scape,) = make(*corpus(), n_soundscapes=1)
    whole = scape.waveform().astype(float)
    monkeypatch.setattr(soundscapes, "_add_bout", lambda bed, bout: None)
    bed = scape.waveform().astype(float)
    for item in scape.references:
        first, stop = (round(t * SAMPLE_RATE_HZ) for t in (item.event.onset_seconds, item.event.offset_seconds))
        added, below = (np.mean(part[first:stop] ** 2) for part in (whole - bed, bed))
        floor = max(below, 10 ** (soundscapes.QUIETEST_DB / 10))
        assert 10 * np.log10(added / floor) == pytest.approx(snr_db, abs=1.5)  # pauses of a bout count in one alone


def test_stretches_are_joined_over_two_seconds_and_no_more_without_silence_at_the_ends():
    on, off = np.ones(100, bool), np.zeros(200, bool)
    assert soundscapes.active_stretches(np.r_[on, off, on]) == [(0.0, 4.0)]
    assert soundscapes.active_stretches(np.r_[off, on, off, [False], on]) == [(2.0, 3.0), (5.01, 6.01)]
    assert soundscapes.active_stretches(off) == []
    padded = np.concatenate([np.zeros(8000, np.float32), tone(1.0), np.full(8000, 1e-4, np.float32)])
    assert soundscapes.active_stretches(soundscapes.active_frames(padded)) == [(0.5, 1.5)]
    assert not soundscapes.active_frames(np.zeros(1600, np.float32)).any()
