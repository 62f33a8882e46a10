"""The shortcut audit on data where the answer is known: a planted shortcut is found, and where there is none, none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lib import augment, config
from lib.studies import shortcuts

FEW = {"n_bootstrap": 100, "seed": 1}
N_CLIPS = 180


@pytest.fixture(autouse=True)
def small_scale(monkeypatch):
    monkeypatch.setattr(shortcuts, "N_TREES", 12)


@pytest.fixture
def rows(rng):
    """Return 180 clips of 90 groups and 6 sources, classes alike in each source."""
    groups = np.arange(N_CLIPS) // 2
    labels = np.array(config.CLASS_NAMES)[(groups // 6) % 3]
    frame = pd.DataFrame({"clip_id": [f"clip{i}" for i in range(N_CLIPS)], "label": labels})
    return frame.assign(group_id=[f"g{i}" for i in groups], source=[f"source{i % 6}" for i in groups])


@pytest.fixture
def blind(rng):
    """Return measures that say nothing."""
    return pd.DataFrame(rng.random((N_CLIPS, len(shortcuts.MEASURES))), columns=list(shortcuts.MEASURES))


def picked(table, scheme, stage="before"):
    part = table[(table["scheme"] == scheme) & (table["stage"] == stage)]
    return part.set_index("cue")["balanced_accuracy"]


def tone(frequency_hz, *, seconds=1.0, level=0.1, rate_hz=16_000):
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def test_a_planted_shortcut_is_found_and_no_other(rows, blind, rng):
    class_ids = rows["label"].map(config.CLASS_ID).to_numpy()
    planted = blind.assign(bandwidth_hz=4000.0 + 1000 * class_ids + rng.normal(0, 50, N_CLIPS))
    table = shortcuts.audit(rows, {"before": planted, "after": blind}, **FEW)
    for scheme in shortcuts.SCHEMES:
        found = picked(table, scheme)
        assert found["bandwidth"] > 0.95 and found[shortcuts.ALL_CUES] > 0.85
        for cue in set(shortcuts.CUES) - {"bandwidth"}:
            assert abs(found[cue] - 1 / 3) < 0.12, cue
        assert abs(picked(table, scheme, "after")["bandwidth"] - 1 / 3) < 0.12
    assert set(table["n_clips"]) == {N_CLIPS} and set(table["n_groups"]) == {90}


def test_a_shortcut_through_the_source_falls_with_the_source_left_out(rows, blind, rng):
    """Each source has its own band and leans to one class: the band gives the class away, but only where it was met."""
    number = rows["source"].str[-1].astype(int).to_numpy()
    leaning = np.where(rng.random(N_CLIPS // 2).repeat(2) < 0.9, number % 3, rng.integers(0, 3, N_CLIPS // 2).repeat(2))
    rows = rows.assign(label=np.array(config.CLASS_NAMES)[leaning])
    bands_hz = np.array([2000, 7000, 4000, 8000, 3000, 6000])[number]
    table = shortcuts.audit(rows, {"before": blind.assign(bandwidth_hz=bands_hz, edge_hz=bands_hz)}, **FEW)
    assert picked(table, "other groups")["bandwidth"] > 0.8
    assert picked(table, "unseen corpora")["bandwidth"] < 0.45


def test_a_cue_that_is_the_same_for_all_scores_exactly_chance_whatever_the_sources_hold(rows, blind, rng):
    """Were ties settled by what a tree happened to draw, each source left out would be answered with one class."""
    lone = np.where(rows["source"] == "source0", "crying", rows["label"])
    table = shortcuts.audit(rows.assign(label=lone), {"before": blind.assign(sample_rate_hz=16_000.0)}, **FEW)
    for scheme in shortcuts.SCHEMES:
        assert picked(table, scheme)["sample rate"] == pytest.approx(1 / 3, abs=1e-12)


def test_a_class_that_was_not_met_gets_probability_zero():
    class_ids = np.repeat([0, 1, 2], 10)
    met, left_out = np.arange(20), np.arange(20, 30)
    answers = shortcuts.blind_predictions(class_ids[:, None].astype(float), class_ids, [(met, left_out)], seed=0)
    assert (answers[left_out, 2] == 0).all() and answers[left_out].sum(axis=1) == pytest.approx(np.ones(10))


def test_a_clip_is_never_answered_for_by_trees_that_met_its_group(rows, monkeypatch):
    class_ids = rows["label"].map(config.CLASS_ID).to_numpy()
    folds = shortcuts._folds(rows, class_ids, seed=0)
    for name, column in zip(shortcuts.SCHEMES, ("group_id", "source"), strict=True):
        assert sorted(np.concatenate([scored for _, scored in folds[name]])) == list(range(N_CLIPS))
        for fitted, scored in folds[name]:
            assert not set(rows[column].iloc[fitted]) & set(rows[column].iloc[scored])


@pytest.mark.parametrize("spoil", [lambda m: m.drop(columns="level_db"), lambda m: m[1:], lambda m: m * np.nan])
def test_measures_that_do_not_fit_are_refused(rows, blind, spoil):
    with pytest.raises(ValueError, match="after"):
        shortcuts.audit(rows, {"before": blind, "after": spoil(blind)}, **FEW)


def test_balanced_accuracy_is_the_mean_recall():
    class_ids = np.array([0] * 8 + [1] * 4 + [2] * 2)
    predicted = np.array([0] * 6 + [1] * 2 + [1] * 4 + [0, 2])
    value = shortcuts.balanced_accuracy(np.eye(3)[predicted], class_ids, [str(i) for i in range(14)], **FEW)
    assert value["value"] == pytest.approx((6 / 8 + 1 + 1 / 2) / 3) and value["low"] < value["value"] < value["high"]
    alone = shortcuts.balanced_accuracy(np.eye(3)[predicted], class_ids, ["one"] * 14, **FEW)
    assert alone == {"value": value["value"], "low": None, "high": None}


def test_the_measures_are_those_of_a_known_tone():
    facts = shortcuts.measure(tone(1010, seconds=2.0, level=0.1))
    assert tuple(facts) == shortcuts.MEASURES
    assert facts["duration_seconds"] == 2.0 and facts["sample_rate_hz"] == 16_000
    assert facts["level_db"] == pytest.approx(-23.01, abs=0.02) and facts["peak_db"] == pytest.approx(-20, abs=0.02)
    assert facts["bandwidth_hz"] == pytest.approx(1010, abs=2) and 1000 <= facts["edge_hz"] < 1300
    assert facts["clipped_share"] == 0 and facts["quiet_share"] < 0.02


def test_silence_and_clipping_are_counted():
    half = np.concatenate([np.zeros(8000, np.float32), np.full(8000, 1.0, np.float32)])
    facts = shortcuts.measure(half)
    assert (facts["zero_share"], facts["quiet_share"], facts["clipped_share"]) == (0.5, 0.5, 0.5)
    assert shortcuts.measure(np.full(8000, 2e-5, np.float32))["quiet_share"] == 1.0
    assert shortcuts.measure(np.zeros(8000, np.float32))["edge_hz"] == 0


def test_the_edge_is_where_the_band_ends(rng):
    noise = (0.1 * rng.standard_normal(32_000)).astype(np.float32)
    assert shortcuts.measure(noise)["edge_hz"] > 7900
    edge_hz = shortcuts.measure(augment.resample_round_trip(noise, rate_hz=8000))["edge_hz"]
    assert edge_hz == pytest.approx(4000, abs=300)


def test_recordings_are_measured_as_published_and_go_to_their_clips(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", tone(500, seconds=3.0, rate_hz=8000), 8000)
    soundfile.write(tmp_path / "b.wav", tone(9000, seconds=1.0, rate_hz=44_100), 44_100)
    raw = pd.DataFrame({"clip_id": ["s-a1", "s-b2"], "path": ["a.wav", "b.wav"]})
    rows = pd.DataFrame({"clip_id": ["s-b2", "s-a1-00", "s-a1-01"]})
    facts = shortcuts.measure_recordings(rows, raw, data_dir=tmp_path, n_workers=1)
    assert facts["sample_rate_hz"].tolist() == [44_100, 8000, 8000]
    assert facts["duration_seconds"].tolist() == [1.0, 3.0, 3.0]
    assert facts["bandwidth_hz"].tolist() == pytest.approx([9000, 500, 500], abs=2)
    with pytest.raises(ValueError, match="s-c3"):
        shortcuts.measure_recordings(pd.DataFrame({"clip_id": ["s-c3-00"]}), raw, data_dir=tmp_path, n_workers=1)


def test_the_audit_can_be_drawn(rows, blind):
    audited = shortcuts.audit(rows, {"before": blind}, **FEW)
    figure = shortcuts.draw({"shortcuts": audited})["shortcuts_other_groups"]
    ax, part = figure.axes[0], audited[audited["scheme"] == "other groups"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [*shortcuts.CUES, shortcuts.ALL_CUES]
    assert sorted(patch.get_width() for patch in ax.patches) == pytest.approx(sorted(part["balanced_accuracy"]))
