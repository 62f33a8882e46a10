"""`./run_all.sh setup` where only another Python is there (Ubuntu 24.04, Debian 13), with stand-ins for programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lib import config

TOOLS = (
    *("bash", "cat", "chmod", "cp", "cut", "dirname", "env", "flock", "grep", "mkdir", "mktemp", "rm", "sed"),
    *("sha256sum", "touch", "tr"),
)
OTHER_PYTHON = """case "$*" in
  *version_info*) exit 1 ;;  # it is not 3.11
  "-m pip install"*) [ -n "$WITH_PIP" ] && mkdir -p build/.uv/bin && cp "$STAND_INS/uv" build/.uv/bin/ ;;
  *) exit 1 ;;
esac"""
UV = """[ "$1" = --version ] || echo "uv $*" >>"$LOG"
[ "$1" = venv ] || exit 0
[ -n "$UV_FETCHES" ] || exit 1
for last; do :; done
mkdir -p "$last/bin"
printf '#!/bin/sh\\n' >"$last/bin/python"
chmod +x "$last"/bin/python"""


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    """A machine with another Python and nothing else; returns what runs set-up on it."""
    for folder in ("project", "bin", "stand_ins"):
        (tmp_path / folder).mkdir()
    for name in ("run_all.sh", "requirements.txt", "requirements-serve.txt", "environment.yml"):
        shutil.copy(config.PROJECT_DIR / name, tmp_path / "project" / name)
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    script(tmp_path / "bin" / "python3", OTHER_PYTHON)
    script(tmp_path / "stand_ins" / "uv", UV)

    def setup(*programs: str, **settings: str) -> tuple[subprocess.CompletedProcess, str]:
        for name in programs:
            script(tmp_path / "bin" / name, UV if name == "uv" else f'[ "{name}" != apt-cache ]')
        places = {"HOME": str(tmp_path), "STAND_INS": str(tmp_path / "stand_ins"), "LOG": str(tmp_path / "log")}
        environment = {"PATH": str(tmp_path / "bin"), **places, "WITH_PIP": "", "UV_FETCHES": "", **settings}
        command = [shutil.which("bash"), "run_all.sh", "setup"]
        done = subprocess.run(
            command, cwd=tmp_path / "project", env=environment, capture_output=True, text=True, timeout=60
        )
        log = tmp_path / "log"
        return done, log.read_text(encoding="utf-8") if log.exists() else ""

    return setup


@pytest.mark.parametrize(("programs", "with_pip"), [(["uv"], ""), ([], "yes")])
def test_uv_brings_python_3_11_wherever_uv_comes_from(machine, tmp_path, programs, with_pip):
    done, log = machine(*programs, WITH_PIP=with_pip, UV_FETCHES="yes")
    assert done.returncode == 0, done.stderr
    assert "Environment ready" in done.stdout
    first, second = log.splitlines()[:2]
    assert first.startswith("uv venv") and "--python 3.11" in first
    assert second.startswith("uv pip install")
    assert os.access(tmp_path / "project" / ".venv" / "bin" / "python", os.X_OK)


@pytest.mark.parametrize(
    ("programs", "with_pip", "says"),
    [
        (["apt-get", "apt-cache"], "", "Python 3.11 is missing. Next: sudo apt-get install -y pipx && pipx install uv"),
        (["apt-get", "apt-cache"], "yes", "and uv could not fetch it. Next: sudo apt-get install -y pipx"),
        ([], "", "Python 3.11 is missing. Next: install uv (https://docs.astral.sh/uv/) or micromamba"),
    ],
)
def test_where_uv_cannot_a_command_is_named(machine, programs, with_pip, says):
    done, _ = machine(*programs, WITH_PIP=with_pip)
    assert done.returncode == 1
    assert says in done.stderr
