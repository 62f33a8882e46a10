"""Kinds of normal sound and their false alarms, on rows whose kind and answers are known."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from lib import evaluation, plots
from lib.corpora import acquisition
from lib.studies import decisions, hard_negatives

ALARM, SCREAM, QUIET = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)

NAMED = [
    ("deeply", "body", "dataset/coughing/AAAA_1.wav", "cough or sneeze"),
    ("deeply", "body", "dataset/moaning/AAAA_2.wav", "moaning"),
    ("deeply", "body", "dataset/panting/AAAA_3.wav", "breathing or snoring"),
    ("deeply", "body", "dataset/teeth-grinding/AAAA_4.wav", "mouth, nose and other body"),
    ("deeply", "body", "dataset/crying/AAAA_5.wav", "adult crying or sobbing"),
    ("nevado", "laugh", "sound/emotes/giggle_female1.ogg", "laughter"),
    ("wilhelmsfx", "baby_laugh", "Samples/1__x__infantlaugh.mp3", "baby laughter"),
    ("wilhelmsfx", "shout", "Samples/2__x__protest02.wav", "shouting"),
    ("wilhelmsfx", "animal", "Samples/3__x__cathowls2.wav", "cat"),
    ("esc10_lasiyan", "animal", "Source/data/106 - Cat/4-149940-A.ogg", "cat"),
    ("esc10_lasiyan", "animal", "Source/data/205 - Chirping birds/1-34495-A.ogg", "bird"),
    ("esc10_lasiyan", "siren", "Source/data/504 - Car horn/4-176638-A.ogg", "horn, alarm or bell"),
    ("esc50", "siren", "audio/1-31482-A-42.wav", "siren"),
    ("esc50", "animal", "audio/1-100032-A-0.wav", "dog"),
    ("esc50", "outdoor", "audio/1-34495-A-14.wav", "bird"),
    ("esc50", "body", "audio/1-187979-A-24.wav", "cough or sneeze"),
    ("esc50", "household", "audio/1-12654-A-39.wav", "household"),
    ("goonstation", "household", "sound/ambience/station/Chapel_FemaleChoir.ogg", "singing"),
    ("goonstation", "household", "sound/ambience/station/JazzLounge1.ogg", "music"),
    ("goonstation", "household", "sound/ambience/industrial/Timeship_Tones.ogg", "ambience or outdoor"),
    ("goonstation", "outdoor", "sound/ambience/nature/Seagulls1.ogg", "bird"),
    ("emodb", "speech_adult", "wav/03a01Wa.wav", "affective speech (acted)"),
    ("emodb", "speech_adult", "wav/03a01Nc.wav", "speech of adults"),
    ("ravdess", "speech_adult", "ravdess/Actor_21/03-01-05-01-01-01-21.wav", "affective speech (acted)"),
    ("ravdess", "speech_adult", "ravdess/Actor_21/03-01-07-01-01-01-21.wav", "speech of adults"),
    ("speechocean762", "speech_child", "WAVE/SPEAKER0145/001450142.WAV", "speech of children"),
    ("icsd", "body", "audio/17.wav", "breathing or snoring"),
    ("kaggle_screaming", "other", "NotScreaming/1.wav", "other"),
]


@pytest.mark.parametrize(("source", "subtype", "path", "expected"), NAMED)
def test_kinds_are_read_from_subtype_and_name(source, subtype, path, expected):
    recordings = pd.DataFrame([{"clip_id": "x-1", "source": source, "subtype": subtype, "path": path}])
    found = hard_negatives.kind(pd.DataFrame({"clip_id": ["x-1", "x-1-03"]}, index=[4, 9]), recordings)
    assert found.tolist() == [expected] * 2 and found.index.tolist() == [4, 9]
    assert expected in hard_negatives.KINDS


def test_rows_that_no_index_knows_speak_for_themselves():
    row = {"clip_id": "own-1", "source": "mine", "subtype": "animal", "path": "processed/dog barks.wav"}
    assert hard_negatives.kind(pd.DataFrame([row]), acquisition.clips()).tolist() == ["dog"]


def test_every_normal_recording_of_the_index_has_a_kind():
    normal = acquisition.clips().query("label == 'normal'")
    counts = hard_negatives.kind(normal).value_counts()
    assert counts.sum() == len(normal) and set(counts.index) <= set(hard_negatives.KINDS)
    assert "other" not in counts and counts[["cat", "dog", "bird", "laughter"]].min() >= 50


@pytest.fixture
def given():
    """Return 20 cats of which 5 alarm, 12 quiet dogs of 6 groups, 4 sirens of 2 groups, and a cry that counts not."""
    kinds = ["cat"] * 20 + ["dog"] * 12 + ["siren"] * 4
    rows = pd.DataFrame(
        {"clip_id": [f"x-{i}" for i in range(37)], "source": "x", "label": ["normal"] * 36 + ["crying"]}
    )
    rows["subtype"] = ["animal"] * 32 + ["siren"] * 4 + ["infant_cry"]
    rows["path"] = [f"{name}.wav" for name in kinds] + ["cry.wav"]
    rows["group_id"] = [f"c{i // 2}" for i in range(20)] + [f"d{i // 2}" for i in range(12)] + ["s1", "s2"] * 2 + ["b"]
    answers = np.array([ALARM] * 3 + [SCREAM] * 2 + [QUIET] * 31 + [ALARM])
    return rows, answers


def test_rates_count_alarms_by_class_and_leave_cries_out(given):
    rows, answers = given
    table = hard_negatives.by_kind(rows, {"m": answers}, n_bootstrap=200).set_index("kind")
    cat, dog, siren, whole = (table.loc[name] for name in ("cat", "dog", "siren", "all"))
    assert (cat["n_clips"], cat["n_groups"], cat["n_alarms"], cat["n_crying"], cat["n_screaming"]) == (20, 10, 5, 3, 2)
    assert cat["value"] == 0.25 and cat["low"] < 0.25 < cat["high"] and cat["interval"] == decisions.BY_BOOTSTRAP
    assert dog["value"] == 0 and dog["high"] == pytest.approx(1 - 0.025 ** (1 / 6))  # none of six: not none at all
    assert dog["interval"] == decisions.BY_BOUND
    assert siren["n_groups"] < evaluation.MIN_GROUPS and pd.isna(siren["high"])
    assert whole["n_clips"] == 36 and whole["n_alarms"] == 5
    assert table.loc["music", "n_clips"] == 0 and table.loc["music", "interval"] == decisions.NO_CLIP


def test_the_drawing_shows_n_and_says_where_there_is_nothing(given):
    rows, answers = given
    table = hard_negatives.by_kind(rows, {"m": answers}, n_bootstrap=50)
    _, ax = plots.subplots(height_inches=4.5)
    hard_negatives.draw_rates(ax, table)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert "cat (20 of 10)" in labels and len(labels) == len(table)
    assert [text.get_text() for text in ax.texts] == ["no clip"] * int((table["n_clips"] == 0).sum())
    plt.close("all")


def test_the_study_names_the_worst_kind_and_those_without_any_clip(given):
    rows, predictions = given
    quiet = np.tile(QUIET, (len(rows), 1))

    class Inputs:
        test_predictions, recordings = {"m": predictions[:20]}, None

        def rows(self, _):
            return rows.iloc[:20]

        def left_out(self, _):
            return rows, {"m": quiet}

    found = hard_negatives.run(Inputs())
    assert list(found.figures["test"]["m"]["worst"]) == ["cat"]
    assert found.figures["test"]["m"]["all"]["value"] == 0.25
    assert found.figures["left_out"]["m"]["all"]["n_alarms"] == 0
    assert "music" in found.figures["no_clips"] and not {"cat", "siren"} & set(found.figures["no_clips"])
