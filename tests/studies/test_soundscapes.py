"""Soundscapes hold what their reference list says, at the ratio it says, and nothing that a network has met."""

import numpy as np
import pandas as pd
import pytest

from lib.config import SAMPLE_RATE_HZ
from lib.studies import soundscapes

SECONDS = 300.0


def tone(seconds, frequency_hz=440.0, amplitude=0.2):
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ)
            ).astype(np.float32)  # fmt: skip


def corpus():
    """Return rows and waveforms: 4 groups of 2 clips of every kind in each split; each split has a pitch of its own."""
    kinds = [("crying", "infant_cry", 4.0), ("screaming", "scream", 1.5)]
    kinds += [("normal", name, 2.0) for names in soundscapes.BACKGROUND_SUBTYPES.values() for name in names]
    rows, waveforms = [], []
    for split, frequency_hz in (("train", 3000.0), ("validation", 1000.0), ("test", 500.0)):
        for label, subtype, seconds in kinds:
            for number in range(8):
                name = f"{split}_{label}_{subtype}_{number}"
                group = f"{split}_{label}_{subtype}_{number // 2}"
                rows.append({"clip_id": name, "label": label, "subtype": subtype, "group_id": group, "split": split})
                waveforms.append(tone(seconds, frequency_hz))
    return pd.DataFrame(rows), waveforms


def make(rows, waveforms, **changes):
    return list(
        soundscapes.soundscapes(
            rows, waveforms, **({"split": "test", "n_soundscapes": 12, "seconds": SECONDS, "seed": 3} | changes)
        )
    )


@pytest.fixture(scope="module")
def made():
    return make(*corpus(), seconds=600.0)


def test_the_planted_time_is_one_to_two_per_cent(made):
    table = soundscapes.reference_table(made)
    shares = (table["offset_seconds"] - table["onset_seconds"]).groupby(table["soundscape"]).sum() / 600.0
    assert 0.01 < shares.mean() < 0.02
    assert (shares.drop("test_011") < 0.02).all()
    assert set(table["label"]) == {"crying", "screaming"}


def test_one_soundscape_in_twelve_holds_a_cry_of_over_half_a_minute(made):
    (item,) = made[11].references
    assert item.event.label == "crying"
    assert item.event.offset_seconds - item.event.onset_seconds > 30
    assert all(e.event.offset_seconds - e.event.onset_seconds < 30 for scape in made[:11] for e in scape.references)


def test_nothing_comes_from_another_split(made):
    clips = {clip for scape in made for clip in scape.bed_clip_ids}
    clips |= {clip for scape in made for item in scape.references for clip in item.clip_ids}
    assert len(clips) > 50
    assert all(clip.startswith("test_") for clip in clips)


def test_no_train_clip_can_be_heard():
    """Train clips are the only ones at 3 kHz."""
    (scape,) = make(*corpus(), n_soundscapes=1, seconds=120.0)
    spectrum = np.abs(np.fft.rfft(scape.waveform().astype(float)))
    at = {hz: spectrum[round((hz - 5) * 120) : round((hz + 5) * 120)].max() for hz in (500, 3000)}
    assert at[500] > 100 * at[3000]


def test_the_train_split_and_a_group_in_two_splits_are_refused():
    rows, waveforms = corpus()
    with pytest.raises(ValueError, match="never from 'train'"):
        make(rows, waveforms, split="train")
    rows.loc[rows["clip_id"] == "train_crying_infant_cry_0", "group_id"] = "test_crying_infant_cry_0"
    with pytest.raises(ValueError, match="more than one split"):
        make(rows, waveforms)


def test_a_split_without_screams_is_refused():
    rows, waveforms = corpus()
    kept = np.flatnonzero((rows["split"] != "test") | (rows["label"] != "screaming"))
    with pytest.raises(ValueError, match="no clip of screaming"):
        make(rows.iloc[kept], [waveforms[place] for place in kept])


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
    assert [scape.background for scape in made[:6]] == ["speech", "household", "outdoor", "music", "quiet", "speech"]
    assert made[4].bed_clip_ids == ()
    assert all("speech" in clip for clip in made[0].bed_clip_ids)
    counts = soundscapes.reference_table(made).groupby(["label", "snr_db"]).size().unstack(fill_value=0)
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


def test_stretches_are_joined_over_two_seconds_and_no_more():
    on, off = np.ones(100, bool), np.zeros(200, bool)
    assert soundscapes.active_stretches(np.r_[on, off, on]) == [(0.0, 4.0)]
    assert soundscapes.active_stretches(np.r_[off, on, off, [False], on]) == [(2.0, 3.0), (5.01, 6.01)]
    assert soundscapes.active_stretches(off) == []


def test_silence_at_the_ends_is_no_part_of_an_event():
    padded = np.concatenate([np.zeros(8000, np.float32), tone(1.0), np.full(8000, 1e-4, np.float32)])
    assert soundscapes.active_stretches(soundscapes.active_frames(padded)) == [(0.5, 1.5)]
    assert not soundscapes.active_frames(np.zeros(1600, np.float32)).any()


def test_too_short_a_soundscape_is_refused():
    with pytest.raises(ValueError, match="too short"):
        make(*corpus(), seconds=40.0)
