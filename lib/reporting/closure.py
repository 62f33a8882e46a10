"""Which files of this project a notebook or a module really imports: read from the source, nothing is run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lib import config

PACKAGES = ("lib", "temporal_workflow")
_DOTTED = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+")  # a module run as a program: `-m lib.decoding.track`
_BESIDE = re.compile(r"[\w.-]+\.(?:csv|json|j2|css|typ|py)")  # data, and programs started by their path


def files_of_code(source: str) -> list[Path]:
    """Return the files that a piece of code imports, directly or through others, without its own.

    Imports inside functions count, those under ``if TYPE_CHECKING`` do not. A string that is exactly a module's dotted
    name counts as an import of it, and a file beside a module counts where the module names it.

    Parameters
    ----------
    source : str
        Python code; lines that begin with % or ! (notebooks) are skipped.

    Returns
    -------
    list of Path
        Sorted.

    Raises
    ------
    SyntaxError
        If the code cannot be parsed.
    """
    code = "\n".join("pass" if line.lstrip()[:1] in ("%", "!") else line for line in source.splitlines())
    return _closure(_files_named(ast.parse(code), beside=config.PROJECT_DIR / "notebooks"))


def files_of_module(name: str) -> list[Path]:
    """Return a module's own file and those that it imports, directly or through others."""
    return _closure(_source_files(name))


def _closure(pending: list[Path]) -> list[Path]:
    seen = set()
    while pending:
        path = pending.pop()
        if path not in seen:
            seen.add(path)
            pending += _neighbours(path, path.stat().st_mtime_ns) if path.suffix == ".py" else ()
    return sorted(seen)


@cache
def _neighbours(path: Path, _: int) -> list[Path]:
    """Return the files that a file asks for; the time of its last change is part of the cache's key."""
    return _files_named(ast.parse(path.read_text(encoding="utf-8")), beside=path.parent)


def _files_named(tree: ast.AST, *, beside: Path) -> list[Path]:
    names, data = [], []
    for node in _run_time_nodes(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names += [node.value] if _DOTTED.fullmatch(node.value) else []
            data += [beside / node.value] if _BESIDE.fullmatch(node.value) else []
    return [file for name in names for file in _source_files(name)] + [file for file in data if file.is_file()]


def _source_files(name: str) -> list[Path]:
    """Return the file of a dotted name and of the packages that hold it; an attribute's name ends at its module."""
    parts = name.split(".")
    paths = [config.PROJECT_DIR.joinpath(*parts[: n + 1]) for n in range(len(parts)) if parts[0] in PACKAGES]
    candidates = [file for path in paths for file in (path / "__init__.py", path.with_suffix(".py"))]
    return [file for file in candidates if file.is_file()]


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what stands under ``if TYPE_CHECKING``."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from _run_time_nodes(child)
