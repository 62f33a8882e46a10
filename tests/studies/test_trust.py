"""The trust report's command: sections side by side in trust.json, and what they start from."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from lib import config, ensemble
from lib.studies import __main__ as trust
from lib.studies.findings import Findings
from lib.studies.inputs import Inputs

VERSIONS = {"yamnet": "a", "wav2vec2": "b"}


def test_sections_stand_side_by_side_in_their_order(tmp_path):
    trust.write("spread", Findings({"sd": np.float64(0.01)}), tmp_path, versions=VERSIONS)
    table = pd.DataFrame({"n": [1, 2]})
    trust.write("calibration", Findings({"n": np.int64(3)}, {"bins": table}), tmp_path, versions=VERSIONS)
    written = json.loads((tmp_path / "trust.json").read_text())
    assert list(written) == ["calibration", "spread"]
    assert written["spread"] == {"sd": 0.01, "networks": VERSIONS}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tables" / "trust_bins.csv"), table)


def test_a_section_names_the_networks_it_heard(tmp_path):
    for name in ("long_recordings", "transfer_learning", "robustness"):
        trust.write(name, Findings({}), tmp_path, versions=VERSIONS)
    written = json.loads((tmp_path / "trust.json").read_text())
    heard = {name: section["networks"] for name, section in written.items()}
    assert heard == {"long_recordings": {"yamnet": "a"}, "robustness": VERSIONS, "transfer_learning": {}}


def test_a_section_computed_again_replaces_only_itself(tmp_path):
    for value in (1, 2):
        trust.write("spread", Findings({"value": value}), tmp_path, versions=VERSIONS)
        trust.write("robustness", Findings({"value": 0}), tmp_path, versions=VERSIONS)
    written = json.loads((tmp_path / "trust.json").read_text())
    assert (written["spread"]["value"], written["robustness"]["value"]) == (2, 0)


def test_no_value_is_null(tmp_path):
    findings = Findings({"delay": {"crying": float("nan")}, "list": [np.float64("nan"), 1.5]})
    trust.write("spread", findings, tmp_path, versions=VERSIONS)
    written = json.loads((tmp_path / "trust.json").read_text())["spread"]
    assert written == {"delay": {"crying": None}, "list": [None, 1.5], "networks": VERSIONS}


@pytest.mark.parametrize("value", [float("inf"), object()])
def test_what_is_no_number_is_refused(tmp_path, value):
    with pytest.raises((ValueError, TypeError)):
        trust.write("spread", Findings({"value": value}), tmp_path, versions=VERSIONS)


def test_an_unknown_section_is_refused(capsys):
    with pytest.raises(SystemExit):
        trust.main(["horoscope"])
    assert "calibration" in capsys.readouterr().err


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Return inputs whose networks answer by a clip's first sample: YAMNet surely, Wav2Vec2 not."""
    monkeypatch.setattr(config, "BUILD_DIR", tmp_path / "build")
    monkeypatch.setattr(config, "REPORTS_DIR", tmp_path / "reports")
    given = Inputs("full")
    given.networks = {
        "yamnet": lambda waveforms: np.eye(3)[[int(w[0]) for w in waveforms]],
        "wav2vec2": lambda waveforms: np.full((len(waveforms), 3), 1 / 3),
    }
    given.models_dir.mkdir(parents=True)
    rule = {"rule": "weighted", "model_names": list(ensemble.MODEL_NAMES), "weights": [0.75, 0.25]}
    rule |= {"class_names": list(config.CLASS_NAMES)}
    rules = {"chosen": "weighted", "class_names": list(config.CLASS_NAMES), "rules": {"grouped": {"weighted": rule}}}
    (given.models_dir / "ensemble_rules.json").write_text(json.dumps(rules))
    return given


def test_the_ensemble_answers_by_the_rule_that_was_chosen(inputs):
    answers = inputs.answer([np.array([2.0]), np.array([0.0])])
    assert set(answers) == {"yamnet", "wav2vec2", "ensemble"}
    np.testing.assert_allclose(answers["ensemble"][0], [0.25 / 3, 0.25 / 3, 0.75 + 0.25 / 3])


def test_rules_in_another_class_order_are_refused(inputs):
    path = inputs.models_dir / "ensemble_rules.json"
    path.write_text(path.read_text().replace('["crying", "screaming", "normal"]', '["normal", "crying", "screaming"]'))
    with pytest.raises(config.ClassOrderError):
        inputs.answer([np.array([1.0])])
