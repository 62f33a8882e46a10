"""The type checker is clean on lib and temporal_workflow, at its ordinary level (pyproject.toml)."""

from __future__ import annotations

import subprocess
import sys

from lib import config


def test_mypy_finds_nothing(tmp_path):
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=config.PROJECT_DIR, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
