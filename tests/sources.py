"""What the project's files hold as code: the cells of a notebook, and what is imported."""

from __future__ import annotations

import ast
import sys

import nbformat

from lib import config


def code_cells(notebook: str) -> list[str]:
    """Return the code of a notebook's cells, by its name without suffix."""
    path = config.PROJECT_DIR / "notebooks" / f"{notebook}.ipynb"
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def imported(*sources: str) -> set[str]:
    """Return the dotted names that pieces of code import, inside functions too: of modules, and of what is in them."""
    names = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def packages(*sources: str) -> set[str]:
    """Return the first parts of those names, without the standard library's and the project's own."""
    own = {"lib", "temporal_workflow", "tests"} | {path.stem for path in (config.PROJECT_DIR / "tests").rglob("*.py")}
    return {name.partition(".")[0] for name in imported(*sources)} - own - set(sys.stdlib_module_names)
