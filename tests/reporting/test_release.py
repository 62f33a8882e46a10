"""Releasing a build: what is copied, what is refused, and cards that quote the metrics."""

from __future__ import annotations

import json

import pytest

from lib import config
from lib.reporting import release
from tests.reporting import reports


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Return the four folders of a release: build, report, models, docs; tests/lesson/test_onnx_networks.py exports."""
    monkeypatch.setattr(release.export, "export", lambda folder: (folder / "yamnet/released/head.onnx").touch())
    folders = {name: tmp_path / name for name in ("build", "report", "models", "docs")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setattr(config, "MODELS_DIR", folders["models"])
    monkeypatch.setattr(release.cards, "DOCS_DIR", folders["docs"])
    for name, weights_file in config.CHECKPOINT_FILES.items():
        checkpoint_dir = folders["build"] / name / "released"
        record = {"base_weights": "rebuilt YAMNet weights", "data_tier": "mirror", "parameters": {"seed": 7}}
        config.describe_checkpoint(checkpoint_dir, record)
        (checkpoint_dir / weights_file).write_bytes(b"weights")
    (folders["build"] / "ensemble.json").write_text(json.dumps({"rule": "average"}))
    (folders["report"] / "metrics.json").write_text(json.dumps(reports.METRICS))
    (folders["build"] / "detector").mkdir()
    (folders["build"] / "detector" / "settings.json").write_text(json.dumps({"version": "d1"}))
    return folders


def run(build):
    return release.release(build["build"], build["report"])


def test_networks_rule_and_cards_are_written(build):
    stale = build["models"] / "yamnet" / "old.keras"
    stale.parent.mkdir()
    stale.write_text("old")
    written = run(build)
    assert all(path.is_file() for path in written)
    assert not stale.exists()
    assert build["models"] / "yamnet" / "head.onnx" in written
    assert (build["models"] / "wav2vec2" / "labels.json").is_file()
    assert json.loads((build["models"] / "detector" / "settings.json").read_text()) == {"version": "d1"}
    assert {path.parent.name for path in written if path.name == "README.md"} == {
        *config.RELEASED_DIRS.values(),
        "detector",
    }
    assert json.loads((build["models"] / "ensemble.json").read_text()) == {"rule": "average"}


REFUSED = {  # file of the build, its content (None: not there), what is said
    "too large for git": ("build/wav2vec2/released/model.safetensors", bytes(26_000_000), "MB"),
    "permuted classes": (
        "build/yamnet/released/labels.json", b'{"class_names": ["normal", "crying", "screaming"]}', "normal",
    ),
    "generated audio": ("build/yamnet/released/training.json", b'{"data_tier": "synthetic"}', "real"),
    "unknown audio": ("build/yamnet/released/training.json", b"{}", "real"),
    "no rule": ("build/ensemble.json", None, r"run_all\.sh"),
    "no metrics": ("report/metrics.json", None, r"run_all\.sh"),
    "no weights": ("build/yamnet/released/model.keras", None, r"run_all\.sh"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "content", "said"), REFUSED.values(), ids=REFUSED)
def test_what_may_not_be_released_is_refused_and_nothing_is_copied(build, tmp_path, file, content, said):
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises((release.BuildError, config.MissingCheckpointError, config.ClassOrderError), match=said):
        run(build)
    assert not list(build["models"].iterdir())


def test_the_command_fails_in_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "REPORTS_DIR", tmp_path)
    assert release.main() == 1
    assert capsys.readouterr().err.count("\n") == 1
