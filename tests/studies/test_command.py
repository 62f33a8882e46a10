"""The command of the studies: what runs, what is written, and what studies start from."""

import json

import numpy as np
import pandas as pd
import pytest

from lib import config, ensemble
from lib.networks import frozen_features
from lib.studies import __main__ as command
from lib.studies import result
from lib.studies.inputs import Inputs
from lib.studies.registry import STUDIES
from lib.studies.result import Result


def test_studies_stand_side_by_side_and_replace_only_themselves(tmp_path):
    result.write("spread", Result({"sd": np.float64(0.01), "list": [np.float64("nan"), 1.5]}), tmp_path)
    table = pd.DataFrame({"n": [1, 2]})
    for n in (1, 3):
        result.write("calibration", Result({"n": np.int64(n)}, {"bins": table}), tmp_path)
    assert result.read(tmp_path) == {"calibration": {"n": 3}, "spread": {"sd": 0.01, "list": [None, 1.5]}}
    assert list(result.read(tmp_path)) == ["calibration", "spread"]
    pd.testing.assert_frame_equal(result.read_tables(tmp_path)["bins"], table)
    for value in (float("inf"), object()):
        with pytest.raises((ValueError, TypeError)):
            result.write("spread", Result({"value": value}), tmp_path)


def test_an_interval_goes_into_columns_and_comes_back():
    row = result.columns("recall", {"value": 0.5, "low": None, "high": np.nan})
    assert result.interval_of(row, "recall") == {"value": 0.5, "low": None, "high": None}
    assert result.interval_of({"value": 1, "low": 0, "high": 2}) == {"value": 1.0, "low": 0.0, "high": 2.0}


def test_an_unknown_study_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["horoscope"])
    assert "cross-corpus" in capsys.readouterr().err


@pytest.mark.parametrize("named", [[], ["product"]], ids=["all", "product"])
def test_product_which_replaces_the_detector_runs_only_where_it_is_named(named, monkeypatch):
    ran = []
    monkeypatch.setattr(command.steps, "is_current", lambda plan, step: False)
    monkeypatch.setattr(command, "run", lambda plan, step, inputs: ran.append(step.name))
    assert command.main(named) == 0
    assert ran == (named or [step.name for step in STUDIES if step.name != "product"])


def test_no_study_reads_what_a_later_one_writes():
    written = set()
    for step in STUDIES:
        assert {path for path in step.inputs if path.startswith("{build}")} <= written, step.name
        written |= set(step.outputs)


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Return inputs whose networks predict by a clip's first sample: YAMNet confidently, Wav2Vec2 not."""
    monkeypatch.setattr(config, "BUILD_DIR", tmp_path / "build")
    given = Inputs("full")
    given.networks = {
        "yamnet": lambda waveforms: np.eye(3)[[int(w[0]) for w in waveforms]],
        "wav2vec2": lambda waveforms: np.full((len(waveforms), 3), 1 / 3),
    }
    given.models_dir.mkdir(parents=True)
    rule = {"rule": "weighted", "model_names": list(ensemble.MODEL_NAMES), "weights": [0.75, 0.25]}
    rule |= {"class_names": list(config.CLASS_NAMES)}
    rules = {"chosen": "weighted", "class_names": list(config.CLASS_NAMES), "rules": {"weighted": rule}}
    (given.models_dir / "ensemble_rules.json").write_text(json.dumps(rules))
    return given


def test_the_networks_are_given_the_excerpt_of_each_sound(inputs, monkeypatch):
    monkeypatch.setattr(frozen_features, "excerpts", lambda sounds, models_dir: [sound[1:] for sound in sounds])
    predictions = inputs.predict([np.array([0.0, 2.0]), np.array([2.0, 1.0])])
    np.testing.assert_array_equal(predictions["yamnet"], np.eye(3)[[2, 1]])


def test_the_ensemble_predicts_by_the_rule_that_was_chosen_in_our_class_order(inputs):
    predictions = inputs.predict([np.array([2.0]), np.array([0.0])])
    assert set(predictions) == {"yamnet", "wav2vec2", "ensemble"}
    np.testing.assert_allclose(predictions["ensemble"][0], [0.25 / 3, 0.25 / 3, 0.75 + 0.25 / 3])
    del inputs.rule  # kept once read
    path = inputs.models_dir / "ensemble_rules.json"
    path.write_text(path.read_text().replace('["crying", "screaming", "normal"]', '["normal", "crying", "screaming"]'))
    with pytest.raises(config.ClassOrderError):
        inputs.predict([np.array([1.0])])
