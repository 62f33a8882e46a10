"""The class order is refused when permuted, and every path follows AUDIO_OUTPUT_DIR."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from lib import config


def test_class_order_is_fixed_and_another_is_refused():
    assert config.CLASS_NAMES == ("crying", "screaming", "normal")
    assert [config.CLASS_ID[name] for name in config.CLASS_NAMES] == [0, 1, 2]
    for order in (("screaming", "crying", "normal"), ("crying", "screaming"), ()):
        with pytest.raises(config.ClassOrderError, match="somewhere"):
            config.check_class_names(order, where="somewhere")


def test_labels_survive_a_round_trip_and_are_checked(tmp_path):
    config.describe_checkpoint(tmp_path, {"base_weights": "any"})
    (tmp_path / config.CHECKPOINT_FILES["yamnet"]).touch()
    assert config.require_checkpoint(tmp_path, "yamnet").is_file()
    assert config.read_record(tmp_path) == {"base_weights": "any"}
    path = tmp_path / config.LABELS_FILE
    path.write_text(json.dumps({"class_names": ["normal", "crying", "screaming"]}), encoding="utf-8")
    with pytest.raises(config.ClassOrderError):
        config.require_checkpoint(tmp_path, "yamnet")
    path.unlink()
    with pytest.raises(config.MissingCheckpointError, match=r"labels\.json"):
        config.require_checkpoint(tmp_path, "yamnet")


def test_output_folder_moves_data_build_and_reports_but_not_models(tmp_path):
    code = (
        "from lib import config as c; print(c.DATA_DIR, c.build_dir('q'), c.report_dir('q'), c.MODELS_DIR, sep='\\n')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"AUDIO_OUTPUT_DIR": str(tmp_path)},
        cwd=config.PROJECT_DIR,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    here = tmp_path.resolve()
    assert found == [
        str(here / "data"),
        str(here / "build/q"),
        str(here / "reports/q"),
        str(config.PROJECT_DIR / "models"),
    ]
