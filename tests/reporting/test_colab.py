"""Every notebook's set-up cell in a simulated Colab: one installation, nothing that is there replaced, no restart.

Simulated are `google.colab`, git (the clone is this project) and pip: its stand-in records what it is asked for and
installs exactly that, with the dependencies, by links to the packages of the environment that runs the tests. Which
versions Colab ships is assumed: tests/data/colab_versions.txt.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
import venv
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from sources import code_cells, packages
from test_requirements import DISTRIBUTIONS

from lib import config
from lib.reporting import closure, environment, steps

NOTEBOOKS = [step.name for step in steps.STEPS]
COLAB_VERSIONS = Path(__file__).parent.parent / "data" / "colab_versions.txt"
PIP = """
import importlib.metadata, json, os, re, sys
from pathlib import Path
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
source, target = os.environ["TEST_SITE"], Path(__file__).parent.parent
arguments = sys.argv[1:]
wanted = arguments[arguments.index("-c") + 2 :]
with open(os.environ["TEST_RECORD"], "a") as record:
    held = Path(arguments[arguments.index("-c") + 1]).read_text().split()
    record.write(json.dumps({"arguments": arguments, "wanted": wanted, "held": held}) + "\\n")
found = {plain(item.metadata["Name"]): item for item in importlib.metadata.distributions(path=[source])}
names, linked = [plain(re.split(r"[<>=\\[;! ]", line)[0]) for line in wanted], set()
while names:
    name = names.pop()
    if name in linked or name not in found:
        continue
    linked.add(name)
    for top in {path.parts[0] for path in found[name].files or () if path.parts[0] not in ("..", "__pycache__")}:
        if not (target / top).exists():
            (target / top).symlink_to(Path(source) / top)
    required = [line for line in found[name].requires or () if "extra ==" not in line]
    names += [plain(re.split(r"[<>=\\[;! (]", line)[0]) for line in required]
"""
GIT = """#!/bin/sh
test "$1" = clone && echo "$@" >>"$TEST_GIT" && ln -s "$TEST_PROJECT" "$5"
"""
RUN = """
import json, os, sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
for name, cells in json.load(open(sys.argv[1])).items():
    for cell in cells:
        exec(compile(cell, name, "exec"), {"__name__": "__main__"} if cell is cells[0] else space)
        space = {"environment": sys.modules["lib.reporting.environment"]}
    print("ran", name)
"""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def colab_versions() -> dict[str, str]:
    lines = COLAB_VERSIONS.read_text(encoding="utf-8").splitlines()
    return {plain(name): version for name, _, version in (line.partition("==") for line in lines) if version}


@cache
def imported_by(name: str) -> set[str]:
    """Return the distributions that a notebook imports, through this project's modules too, inside functions too."""
    source = "\n".join(code_cells(name))
    files = [path for path in closure.files_of_code(source) if path.suffix == ".py"]
    texts = [source, *(path.read_text(encoding="utf-8") for path in files)]
    return {plain(DISTRIBUTIONS.get(package, package)) for package in packages(*texts)}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_notebook_imports_what_colab_goes_without(name):
    assert imported_by(name) & {plain(program) for program in environment.PROGRAMS} == set()


def test_colab_is_asked_for_what_it_lacks_and_keeps_the_rest(monkeypatch, capsys):
    there = colab_versions()
    calls = []

    def run(command, **_):
        calls.append((command, Path(command[command.index("-c") + 1]).read_text(encoding="utf-8").split()))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(environment, "on_colab", lambda: True)
    monkeypatch.setattr(environment, "installed_version", lambda name: there.get(plain(name)))
    distributions = [SimpleNamespace(metadata={"Name": name}, version=version) for name, version in there.items()]
    monkeypatch.setattr(environment.importlib.metadata, "distributions", lambda: distributions)
    monkeypatch.setattr(environment.subprocess, "run", run)
    environment.prepare()
    ((command, held),) = calls
    wanted = {plain(re.split("[<>=]", line)[0]) for line in command[command.index("-c") + 2 :]}
    assert held == sorted(f"{name}=={version}" for name, version in there.items())
    assert wanted & set(there) == set() and "--upgrade" not in command
    needed = set().union(*map(imported_by, NOTEBOOKS)) & {plain(item.name) for item in environment.requirements()}
    assert needed - set(there) <= wanted
    said = capsys.readouterr().out
    assert "Installed: " in said and "Kept in the versions found here" in said


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """An environment with nothing but the stand-ins, and what ran in it."""
    folder = tmp_path_factory.mktemp("colab")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    pip = folder / "env" / "lib" / "python3.11" / "site-packages" / "pip"
    pip.mkdir()
    (pip / "__main__.py").write_text(PIP, encoding="utf-8")
    (folder / "bin").mkdir()
    (folder / "bin" / "git").write_text(GIT, encoding="utf-8")
    (folder / "bin" / "git").chmod(0o755)
    (folder / "content").mkdir()
    cells = {name: code_cells(name)[:2] for name in NOTEBOOKS}
    assert all(cell.count('Path("/content")') == 1 for cell, _ in cells.values())
    moved = {
        name: [cell.replace("/content", str(folder / "content")), imports] for name, (cell, imports) in cells.items()
    }
    (folder / "cells.json").write_text(json.dumps(moved), encoding="utf-8")
    (folder / "run.py").write_text(RUN, encoding="utf-8")
    variables = {"TEST_SITE": sysconfig.get_path("purelib"), "TEST_RECORD": str(folder / "pip.jsonl")}
    variables |= {"TEST_GIT": str(folder / "git.txt"), "TEST_PROJECT": str(config.PROJECT_DIR)}
    variables |= {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "MPLBACKEND": "Agg", "HOME": str(folder)}
    result = subprocess.run(
        [python, "run.py", "cells.json"],
        cwd=folder,
        env=variables | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return folder, result


@pytest.mark.slow
def test_every_set_up_cell_clones_and_installs_once_and_the_imports_follow(colab):
    folder, result = colab
    assert result.returncode == 0, result.stderr[-3000:]
    assert [line[4:] for line in result.stdout.splitlines() if line.startswith("ran ")] == NOTEBOOKS
    assert len((folder / "git.txt").read_text().splitlines()) == 1
    (call,) = [json.loads(line) for line in (folder / "pip.jsonl").read_text().splitlines()]
    required = [item for item in environment.requirements() if item.name not in environment.PROGRAMS]
    assert call["wanted"] == [item.line.replace("==", "<=") for item in required]
    assert call["held"] == []
