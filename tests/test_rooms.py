"""The rooms stay apart: imports point one way, and the lesson stays small."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from sources import imported

from lib import config

ROOMS = ("lib.decoding", "lib.networks", "lib.corpora", "lib.reporting", "lib.studies")
LESSON = sorted((config.PROJECT_DIR / "lib").glob("*.py"))
MAX_ENTRIES, MAX_LINES, MAX_LINES_IN_ALL = 22, 300, 4_000
# Of lib and temporal_workflow. 16,500 was asked for before serving, alerts, timeline, demo, dashboard and the appendix.
MAX_CODE_LINES = 19_500
PURE_PYTHON = ("temporalio",)  # beside the standard library, what workflow.py may reach


def reaches(path: Path, *packages: str) -> list[str]:
    names = imported(path.read_text(encoding="utf-8"))
    return sorted(name for name in names for package in packages if f"{name}.".startswith(f"{package}."))


def files(room: str) -> list[Path]:
    return sorted((config.PROJECT_DIR / room.replace(".", "/")).rglob("*.py"))


def n_lines(paths: list[Path]) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


@pytest.mark.parametrize("path", LESSON, ids=[path.stem for path in LESSON])
def test_the_lesson_imports_no_room_but_decoding_and_networks(path):
    assert reaches(path, "lib.corpora", "lib.reporting", "lib.studies", "temporal_workflow") == []
    if path.stem not in ("audio", "waveforms"):
        assert reaches(path, "lib.decoding") == []


@pytest.mark.parametrize("path", [path for room in ROOMS for path in files(room)], ids=lambda path: path.stem)
def test_a_room_imports_neither_the_service_nor_notebooks_nor_tests(path):
    assert reaches(path, "temporal_workflow", "notebooks", "tests") == []
    if {"decoding", "networks", "corpora"} & set(path.parts):
        assert reaches(path, "lib.reporting", "lib.studies") == []


def test_the_lesson_stays_small():
    assert [path.name for path in LESSON if n_lines([path]) >= MAX_LINES] == []
    entries = [path.name for path in (config.PROJECT_DIR / "lib").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MAX_ENTRIES, sorted(entries)
    assert n_lines(LESSON) <= MAX_LINES_IN_ALL


def test_the_code_stays_small():
    assert n_lines(files("lib") + files("temporal_workflow")) <= MAX_CODE_LINES


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_a_door_with_a_docstring_and_nothing_else(room):
    tree = ast.parse((config.PROJECT_DIR / room.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1 and ast.get_docstring(tree)


def test_the_workflow_imports_pure_python_alone():
    """Temporal replays workflow code in a sandbox: what it imports must be deterministic and quick."""
    pending, seen = [config.PROJECT_DIR / "temporal_workflow" / "workflow.py"], set()
    while pending:
        path = pending.pop()
        seen.add(path)
        for name in imported(path.read_text(encoding="utf-8")):
            own = config.PROJECT_DIR.joinpath(*name.split(".")).with_suffix(".py")
            if own.is_file() and own not in seen:
                pending.append(own)
            elif name.partition(".")[0] not in (*sys.stdlib_module_names, *PURE_PYTHON, "lib", "temporal_workflow"):
                pytest.fail(f"{path.name}, which workflow.py reaches, imports {name}")
