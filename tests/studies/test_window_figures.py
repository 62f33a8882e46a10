"""Windows of unseen corpora, by ensemble and detector: on stand-ins."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib import config
from lib.corpora import windows
from lib.detector import Detection
from lib.studies import window_figures
from lib.waveforms import prepare

SOURCES = {"crying": "donateacry", "screaming": "freesound", "normal": "esc50"}


@pytest.fixture
def clips(tone):
    """Rows of 24 clips of two splits and three sources, and their waveforms."""
    labels = [*config.CLASS_NAMES] * 8
    rows = pd.DataFrame({"label": labels, "clip_id": [f"c{number}" for number in range(24)]})
    rows = rows.assign(group_id=rows["clip_id"], source=rows["label"].map(SOURCES), duration_seconds=2.0)
    rows["split"] = np.repeat(["train", "validation"], 12)
    return rows, [tone(300 + 50 * number, 2) for number in range(24)]


@pytest.fixture
def examples(clips, monkeypatch):
    rows, waveforms = clips
    by_clip = dict(zip(rows["clip_id"], waveforms, strict=True))
    monkeypatch.setattr(windows.splits, "read", lambda scheme, splits: rows)
    monkeypatch.setattr(windows.manifest, "load_waveforms", lambda frame: [by_clip[i] for i in frame["clip_id"]])
    table, sounds = windows.examples(n_training=10, n_judged=30, seed=7)
    judged = (table["kind"] == "window").to_numpy()
    return table[judged].reset_index(drop=True), [sounds[number] for number in np.flatnonzero(judged)]


def test_windows_are_drawn_again_as_the_notebooks_drew_them(clips, examples):
    table, sounds = examples
    assert len(table) > 10 and table["clip_id"].duplicated().any()  # screams come in three lengths
    order = np.random.default_rng(0).permutation(len(table))
    again = window_figures.drawn_again(table.iloc[order], *clips)
    for place, sound in zip(order, again, strict=True):
        np.testing.assert_array_equal(prepare(sound), sounds[place])


def test_a_detector_that_knows_helps_an_ensemble_that_guesses(clips, examples):
    table, _ = examples
    truth = table["label"].map(config.CLASS_ID).to_numpy()
    heard = iter(truth)

    class Knows:
        def detect(self, waveform):
            assert waveform.ndim == 1
            return Detection(np.eye(3)[[next(heard)], :2], [])

    inputs = SimpleNamespace(
        left_out=lambda kind: (table, {"ensemble": np.full((len(table), 3), 1 / 3)}),
        rows=lambda *names: clips[0],
        waveforms=lambda *names: clips[1],
    )
    figures, scores = window_figures.measure(inputs, dict.fromkeys(set(table["corpus_group"]), Knows()))
    assert {seconds: found["macro_f1"]["value"] for seconds, found in figures.items()} == dict.fromkeys(figures, 1.0)
    assert all(found["ensemble_macro_f1"]["value"] < 0.9 for found in figures.values())
    assert set(figures) == {"5", "10", "15"} and figures["5"]["macro_f1"]["n_clips"] > 0
    n_events = table[table["label"] != "normal"].groupby("seconds").size()
    assert [found["n_with_ensemble"] for found in figures.values()] == n_events.tolist()
    assert [found["n_labels_changed"] for found in figures.values()] == [0, 0, 0]
    assert set(scores["model"]) == {"ensemble", "ensemble and detector"}
