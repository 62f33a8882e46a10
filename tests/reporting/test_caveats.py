"""Sentences beside the headline: every number is that of the files, and what is not there gives no sentence."""

from __future__ import annotations

import pandas as pd

from lib.reporting import caveats

EVENTS = {"crying": {"value": 0.123, "low": 0.1, "high": 0.2}, "screaming": {"value": 0.5, "low": 0.4, "high": 0.6}}
NO_INTERVAL = {"low": None, "high": None}
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
        "recall": {label: NO_INTERVAL | {"value": 0.301} for label in EVENTS},
        "false_alarms_per_hour": {label: NO_INTERVAL | {"value": 5.14} for label in EVENTS},
    },
}


NOISE = pd.DataFrame(
    [
        ("as recorded", "weighted", "0.909 [0.891, 0.923]"),
        ("noise, 10 dB", "weighted", "0.817 [0.791, 0.840]"),
        ("noise, 10 dB", "average", "0.825 [0.799, 0.847]"),
        ("noise, 0 dB", "weighted", "0.777 [0.749, 0.800]"),
    ],
    columns=["condition", "model", "macro F1"],
)


def written(tmp_path, *, noise=NOISE, trust=TRUST, chosen="weighted", stale=()):
    sentences = caveats.write(tmp_path, noise=noise, trust=trust, chosen=chosen, stale=stale)
    assert caveats.read(tmp_path) == sentences
    return sentences


def test_every_number_is_that_of_the_files(tmp_path):
    noise, kinds, hours = written(tmp_path)
    assert "0.817 [0.791, 0.840] (noise, 10 dB) and 0.777 [0.749, 0.800] (noise, 0 dB)" in noise
    assert "0.909" not in noise and "0.825" not in noise
    assert "cat (27 of 28 clips), dog (1 of 9 clips)" in kinds
    assert "10 hours" in hours and "1.8 % of the time" in hours
    assert "crying: event F1 0.12 [0.10, 0.20], recall 0.30, 5.1 false alarms an hour" in hours


def test_the_noise_is_that_of_the_chosen_rule(tmp_path):
    assert "0.825 [0.799, 0.847] (noise, 10 dB)." in written(tmp_path, chosen="average")[0]
    assert len(written(tmp_path, chosen="vote")) == 2  # no row: no sentence


def test_what_was_not_computed_or_is_of_other_networks_gives_no_sentence(tmp_path):
    (sentence,) = written(tmp_path, noise=NOISE.iloc[:0], stale=["long_recordings"])
    assert "cat" in sentence
    assert written(tmp_path, noise=NOISE.iloc[:0], trust={}) == []
    assert caveats.read(tmp_path / "nothing") == []


def test_what_too_few_events_cannot_tell_is_said(tmp_path):
    unknown = {label: {"value": None, "low": None, "high": None} for label in EVENTS}
    hours = written(tmp_path, trust={"long_recordings": TRUST["long_recordings"] | {"event_f1": unknown}})[1]
    assert "crying: event F1 not known, recall 0.30" in hours
