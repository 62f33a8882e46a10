"""Sentences beside the headline: every number is that of the files, and what is not there gives no sentence."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from lib.caveats import caveats

EVENTS = {"crying": {"value": 0.123, "low": 0.1, "high": 0.2}, "screaming": {"value": 0.5, "low": 0.4, "high": 0.6}}
TRUST = {
    "hard_negatives": {
        "left_out": {
            "ensemble": {"worst": {"cat": {"n_alarms": 27, "n_clips": 28}, "dog": {"n_alarms": 1, "n_clips": 9}}}
        }
    },
    "long_recordings": {
        "hours": 10.0,
        "prevalence": 0.0177,
        "event_f1": EVENTS,
        "recall": {label: {"value": 0.301} for label in EVENTS},
        "false_alarms_per_hour": {label: {"value": 5.14} for label in EVENTS},
    },
}


@pytest.fixture
def report_dir(tmp_path):
    (tmp_path / "tables").mkdir()
    rows = [
        ("as recorded", "weighted", "0.909 [0.891, 0.923]"),
        ("noise, 10 dB", "weighted", "0.817 [0.791, 0.840]"),
        ("noise, 10 dB", "average", "0.825 [0.799, 0.847]"),
        ("noise, 0 dB", "weighted", "0.777 [0.749, 0.800]"),
    ]
    table = pd.DataFrame(rows, columns=["condition", "model", "macro F1"])
    table.to_csv(tmp_path / "tables" / "06_left_out_noise.csv", index=False)
    (tmp_path / "trust.json").write_text(json.dumps(TRUST), encoding="utf-8")
    return tmp_path


def test_every_number_is_that_of_the_files(report_dir):
    noise, kinds, hours = caveats(report_dir, chosen="weighted")
    assert "0.817 [0.791, 0.840] (noise, 10 dB) and 0.777 [0.749, 0.800] (noise, 0 dB)" in noise
    assert "0.909" not in noise and "0.825" not in noise
    assert "cat (27 of 28 clips), dog (1 of 9 clips)" in kinds
    assert "10 hours" in hours and "1.8 % of the time" in hours
    assert "crying: event F1 0.12 [0.10, 0.20], recall 0.30, 5.1 false alarms an hour" in hours


def test_the_noise_is_that_of_the_chosen_rule(report_dir):
    assert "0.825 [0.799, 0.847] (noise, 10 dB)." in caveats(report_dir, chosen="average")[0]


def test_what_was_not_computed_gives_no_sentence(report_dir, tmp_path):
    (report_dir / "tables" / "06_left_out_noise.csv").unlink()
    (report_dir / "trust.json").write_text(json.dumps({"hard_negatives": TRUST["hard_negatives"]}), encoding="utf-8")
    (sentence,) = caveats(report_dir, chosen="weighted")
    assert "cat" in sentence
    assert caveats(tmp_path / "nothing", chosen="weighted") == []
