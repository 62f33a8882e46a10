"""The shortcut audit on data where the answer is known: a planted shortcut is found, and where there is none, none."""

import numpy as np
import pandas as pd
import pytest

from lib import config, plots
from lib.studies import shortcuts

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


def test_a_planted_shortcut_is_found_and_no_other(rows, blind, rng):
    class_ids = rows["label"].map(config.CLASS_ID).to_numpy()
    planted = blind.assign(bandwidth_hz=4000.0 + 1000 * class_ids + rng.normal(0, 50, N_CLIPS))
    table = shortcuts.audit(rows, {"before": planted, "after": blind})
    for scheme in shortcuts.SCHEMES:
        found = picked(table, scheme)
        assert found["bandwidth"] > 0.95 and found[shortcuts.ALL_CUES] > 0.85
        for cue in set(shortcuts.CUES) - {"bandwidth"}:
            assert abs(found[cue] - 1 / 3) < 0.12, cue
        assert abs(picked(table, scheme, "after")["bandwidth"] - 1 / 3) < 0.12
    assert set(table["n_clips"]) == {N_CLIPS} and set(table["n_groups"]) == {90}
    assert (table["balanced_accuracy_low"] <= table["balanced_accuracy"]).all()
    figures = shortcuts.draw({"shortcuts": table})
    assert list(figures) == ["shortcuts_other_groups", "shortcuts_unseen_corpora"]
    for figure in figures.values():
        assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [*shortcuts.CUES, shortcuts.ALL_CUES]
        plots.close(figure)


def test_a_shortcut_through_the_source_falls_with_the_source_left_out(rows, blind, rng):
    """Each source has its own band and leans to one class: the band predicts the class in known sources alone."""
    number = rows["source"].str[-1].astype(int).to_numpy()
    leaning = np.where(rng.random(N_CLIPS // 2).repeat(2) < 0.9, number % 3, rng.integers(0, 3, N_CLIPS // 2).repeat(2))
    rows = rows.assign(label=np.array(config.CLASS_NAMES)[leaning])
    bands_hz = np.array([2000, 7000, 4000, 8000, 3000, 6000])[number]
    table = shortcuts.audit(rows, {"before": blind.assign(bandwidth_hz=bands_hz)})
    assert picked(table, "other groups")["bandwidth"] > 0.8
    assert picked(table, "unseen corpora")["bandwidth"] < 0.45


def test_a_cue_that_is_the_same_for_all_scores_exactly_chance_whatever_the_sources_hold(rows, blind):
    """Were ties settled by what a tree happened to draw, each source left out would be predicted as one class."""
    lone = np.where(rows["source"] == "source0", "crying", rows["label"])
    table = shortcuts.audit(rows.assign(label=lone), {"before": blind.assign(sample_rate_hz=16_000.0)})
    for scheme in shortcuts.SCHEMES:
        assert picked(table, scheme)["sample rate"] == pytest.approx(1 / 3, abs=1e-12)


@pytest.mark.filterwarnings("ignore:Number of classes in training fold")
def test_a_class_that_was_not_fitted_gets_probability_zero():
    class_ids = np.repeat([0, 1, 2], 10)
    folds = [(np.flatnonzero(class_ids != left_out), np.flatnonzero(class_ids == left_out)) for left_out in range(3)]
    found = shortcuts.blind_predictions(class_ids[:, None].astype(float), class_ids, folds)
    assert (found[np.arange(30), class_ids] == 0).all() and found.sum(axis=1) == pytest.approx(np.ones(30))


def test_a_clip_is_never_predicted_by_trees_that_were_fitted_to_its_group(rows):
    folds = shortcuts._folds(rows)
    for name, column in zip(shortcuts.SCHEMES, ("group_id", "source"), strict=True):
        assert sorted(np.concatenate([scored for _, scored in folds[name]])) == list(range(N_CLIPS))
        for fitted, scored in folds[name]:
            assert not set(rows[column].iloc[fitted]) & set(rows[column].iloc[scored])


@pytest.mark.parametrize("spoil", [lambda m: m.drop(columns="level_db"), lambda m: m[1:], lambda m: m * np.nan])
def test_measures_that_do_not_fit_are_refused(rows, blind, spoil):
    with pytest.raises(ValueError, match="after"):
        shortcuts.audit(rows, {"before": blind, "after": spoil(blind)})


def test_the_measures_of_a_known_tone(tone):
    waveform = tone(1010.0, 2.0)
    facts = shortcuts.measure(waveform)
    assert set(facts) == set(shortcuts.MEASURES)
    assert facts["duration_seconds"] == 2.0 and facts["sample_rate_hz"] == 16_000
    assert facts["bandwidth_hz"] == pytest.approx(1010, abs=2) and facts["clipped_share"] == 0
    half = np.concatenate([np.full(8000, 5e-5, np.float32), np.full(8000, 1.0, np.float32)])
    assert [shortcuts.measure(half)[name] for name in ("zero_share", "clipped_share")] == [0.5, 0.5]


def test_a_clip_has_its_recordings_facts_as_published():
    """The second clip is cut from the first recording, which is listed last."""
    levels = {"a:x:o": {"a0": -10, "a1": -20}, "b:y:o": {"b": -30}}
    others = {f"{name}_before": 0.0 for name in shortcuts.preprocess.MEASURES}
    index = {
        key: {"clips": [others | {"sha256": name, "level_db_before": level} for name, level in clips.items()]}
        for key, clips in levels.items()
    }
    raw = pd.DataFrame({"clip_id": ["b", "a"], "bandwidth_hz": [1, 2], "duration_seconds": [3, 4]})
    raw = raw.assign(sample_rate_hz=44_100, path="x")
    found = shortcuts.as_published(pd.DataFrame({"sha256": ["b", "a1"]}, index=[4, 9]), raw, index)
    assert list(found) == list(shortcuts.MEASURES)
    assert found["duration_seconds"].tolist() == [3, 4] and found["level_db"].tolist() == [-30, -20]
    with pytest.raises(KeyError):
        shortcuts.as_published(pd.DataFrame({"sha256": ["c"]}), raw, index)
