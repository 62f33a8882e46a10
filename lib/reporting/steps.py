"""The steps of a build: what each reads and writes, its parameters, and whether it has to run again.

A step is a notebook, or a study of `lib.studies`. It is run again when its notebook or module, its parameters, its
input files or the modules that it really imports have changed. Importing this module is quick on purpose: a build in
which nothing changed must not wait for papermill or pandas.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib import config
from lib.config import read_json
from lib.reporting import closure

NOTEBOOKS_DIR = config.PROJECT_DIR / "notebooks"
PARAMS_DIR = config.PROJECT_DIR / "params"
FULL = "full"  # the profile that has studies, cards and README


class BuildError(RuntimeError):
    """A build cannot go on; the message names the file and the next command."""


def command(write: Callable[[], Iterable[Path]]) -> int:
    """Run what writes files; print their paths, or an expected failure in one line, and return the exit status."""
    try:
        written = "".join(f"{path}\n" for path in write())
    except (BuildError, FileNotFoundError, config.ClassOrderError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(written or "unchanged\n")
    return 0


@dataclass(frozen=True)
class Step:
    """A notebook, or a study, with the files it reads and writes; `Plan.paths` fills in the places in their names."""

    name: str  # of the notebook without suffix, or of the study
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variables: tuple[str, ...] = ()  # of the environment
    optional: tuple[str, ...] = ()  # read where they are there
    module: str = ""  # dotted name of a study's module; empty for a notebook
    on_request: bool = False  # a study that takes so long that a build leaves it to `./run_all.sh studies NAME`

    @property
    def number(self) -> str:
        """How the notebook's name begins, and the names of its tables and figures: two digits, or "appendix"."""
        return self.name.partition("_")[0]


_MADE_LATER = (".onnx", ".md")  # beside the checkpoints in a folder of models
_PROBABILITIES = ("{build}/probabilities/yamnet.csv", "{build}/probabilities/wav2vec2.csv")
_MODELS, _DETECTOR = ("{build}/models",), ("{models}/detector",)
_FROZEN = ("{models}/yamnet/backbone.onnx",)  # says which 3 s are classified
_NETWORKS = ("{build}/models/yamnet", "{build}/models/wav2vec2")
_GRAPHS = tuple(  # of notebook 05; the checkpoints beside them are those of 03 and 04
    f"{{build}}/models/{file}"
    for file in ("yamnet/released/backbone.onnx", "yamnet/released/head.onnx", "wav2vec2/released/model.onnx")
)
_MANIFESTS = ("{data}/manifest.csv", "{data}/manifest_random_split.csv")
STEPS = (
    Step("01_data_acquisition", (), ("{data}/raw_manifest.csv", "{data}/acquisition.json"), ("AUDIO_MIRROR",)),
    Step("02_preprocessing", ("{data}/raw_manifest.csv",), _MANIFESTS),
    Step(
        "03_yamnet",
        _MANIFESTS,
        ("{build}/models/yamnet", _PROBABILITIES[0]),
        ("TFHUB_CACHE_DIR",),
        optional=_FROZEN,
    ),
    Step(
        "04_wav2vec2",
        _MANIFESTS,
        ("{build}/models/wav2vec2", _PROBABILITIES[1]),
        optional=("{models}/wav2vec2_pretrained", *_FROZEN),
    ),
    Step(
        "05_ensemble",
        ("{data}/manifest.csv", *_PROBABILITIES, *_NETWORKS),
        ("{build}/models/ensemble.json", "{build}/models/ensemble_rules.json", *_GRAPHS),
    ),
    Step(
        "06_evaluation",
        (*_MANIFESTS, *_MODELS, *_PROBABILITIES),
        ("{report}/metrics.json",),
        optional=(*_DETECTOR, *_FROZEN),
    ),
    Step("07_temporal_client", ("{data}/manifest.csv", *_MODELS), (), optional=_DETECTOR),
    Step(
        "appendix_environmental_audio",
        ("{data}/raw_manifest.csv",),
        ("{report}/tables/appendix_accuracy.csv",),
        ("TFHUB_CACHE_DIR", "AUDIOSET_WEIGHTS_DIR"),
    ),
)


@dataclass(frozen=True)
class Plan:
    """Where one profile's build reads and writes, and with which parameters."""

    profile: str
    parameters: Mapping[str, dict] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The notebooks of this profile: the full build alone has the appendix."""
        return STEPS if self.profile == FULL else STEPS[:-1]

    @property
    def build_dir(self) -> Path:
        """Folder of the trained networks, the executed notebooks and the stamps."""
        return config.build_dir(self.profile)

    @property
    def executed_dir(self) -> Path:
        """Folder of the executed notebooks."""
        return self.build_dir / "executed"

    @property
    def stamps_dir(self) -> Path:
        """Folder of the stamps that say what each finished step was made from."""
        return self.build_dir / "stamps"

    def notebook(self, step: Step) -> Path:
        """Return the source notebook of a step."""
        return NOTEBOOKS_DIR / f"{step.name}.ipynb"

    def executed(self, step: Step) -> Path:
        """Return where a notebook's executed form is when it succeeded."""
        return self.executed_dir / f"{step.name}.ipynb"

    def paths(self, templates: tuple[str, ...]) -> list[Path]:
        """Fill in {data}, {models}, {full}, {build} and {report}."""
        places = {
            "data": config.DATA_DIR,
            "models": config.MODELS_DIR,
            "full": config.build_dir("full"),
            "build": self.build_dir,
            "report": config.report_dir(self.profile),
        }
        return [Path(template.format(**places)) for template in templates]


STUDIES_PLAN = Plan("studies")  # of all studies: they write to build/studies, whatever the profile


def read_cells(path: Path) -> list[dict]:
    """Return a notebook's cells, their sources as text: nbformat allows lists of lines, too."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise BuildError(f"{path} cannot be read ({error}). Next: `git status -- notebooks`.") from None
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def declared_parameters(path: Path) -> dict:
    """Return name and default of every parameter that a notebook declares.

    Raises
    ------
    BuildError
        If the notebook has not exactly one cell tagged ``parameters``, or if that cell holds anything but literals.
    """
    cells = [cell for cell in read_cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    try:
        (cell,) = cells
        given = [node for node in ast.parse(cell["source"]).body if isinstance(node, ast.Assign)]
        return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in given}
    except ValueError:
        raise BuildError(f"{path} needs one cell tagged `parameters`, of literals only.") from None


def load_parameters(profile: str) -> dict[str, dict]:
    """Return parameters by notebook: the `common` section of params/<profile>.yaml and its section of the notebook.

    Raises
    ------
    BuildError
        If the file is missing or names a section that is no notebook.
    """
    import yaml

    path = PARAMS_DIR / f"{profile}.yaml"
    if not path.is_file():
        raise BuildError(f"There is no {path}. Profiles are the files of {PARAMS_DIR.name}/.")
    sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    names = {step.name for step in STEPS}
    unknown = set(sections) - names - {"common"}
    if unknown:
        raise BuildError(f"{path} has sections that are no notebook: {', '.join(sorted(unknown))}.")
    return {name: (sections.get("common") or {}) | (sections.get(name) or {}) for name in sorted(names)}


def check_parameters(plan: Plan) -> None:
    """Raise BuildError when a parameter is passed to a notebook that does not declare it."""
    for step in plan.steps:
        unknown = set(plan.parameters[step.name]) - set(declared_parameters(plan.notebook(step)))
        if unknown:
            raise BuildError(
                f"{plan.notebook(step).name} declares no parameter {', '.join(sorted(unknown))}. Next: correct "
                f"params/{plan.profile}.yaml or the notebook's `parameters` cell."
            )


def code_files(plan: Plan, step: Step) -> list[Path]:
    """Return the files of lib and temporal_workflow that a step's code imports, directly or through others."""
    if step.module:
        return closure.files_of_module(step.module)
    cells = read_cells(plan.notebook(step))
    source = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
    try:
        return closure.files_of_code(source)
    except SyntaxError as error:
        raise BuildError(f"{plan.notebook(step)}: the code cannot be read ({error}).") from None


def digest(paths: list[Path]) -> str:
    """Return one SHA-256 over the contents of files and folders; absent ones count as absent.

    Of a folder, the graphs that a later step exports from its checkpoints do not count, nor do cards.
    """
    total = hashlib.sha256()
    for path in paths:
        inside = (item for item in path.rglob("*") if item.is_file() and item.suffix not in _MADE_LATER)
        files = sorted(inside) if path.is_dir() else [path]
        for file in files:
            total.update(str(file.relative_to(path.parent)).encode())
            total.update(hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b"absent")
    return total.hexdigest()


def fingerprint(plan: Plan, step: Step) -> str:
    """Return a hash over everything that a step's result depends on."""
    cells = [] if step.module else read_cells(plan.notebook(step))
    facts = {
        "cells": [(cell["cell_type"], cell["source"]) for cell in cells],
        "parameters": plan.parameters.get(step.name, {}),
        "code": digest(code_files(plan, step)),
        "inputs": digest(plan.paths(step.inputs + step.optional)),
        "variables": {name: os.environ.get(name, "") for name in step.variables},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_stamp(plan: Plan, step: Step) -> dict:
    """Return what the last successful run of a step left, or an empty dict."""
    try:
        return read_json(plan.stamps_dir / f"{step.name}.json")
    except json.JSONDecodeError:  # a power cut
        return {}


def write_stamp(plan: Plan, step: Step, *, facts: dict) -> None:
    """Record a successful run; atomic, so a killed build never believes a half-written stamp.

    `facts` holds the `fingerprint` taken before the run: what was edited meanwhile has to count as a change.
    """
    record = facts | {"outputs": digest(plan.paths(step.outputs))}
    config.write_whole(plan.stamps_dir / f"{step.name}.json", f"{json.dumps(record, indent=2)}\n".encode())


def is_current(plan: Plan, step: Step) -> bool:
    """Tell whether what a step left is still what its sources would make."""
    stamp, outputs = read_stamp(plan, step), plan.paths(step.outputs)
    return (
        bool(stamp)
        and (bool(step.module) or plan.executed(step).is_file())
        and all(path.exists() for path in outputs)
        and stamp["fingerprint"] == fingerprint(plan, step)
        and stamp["outputs"] == digest(outputs)
    )


def check_inputs(plan: Plan, step: Step) -> None:
    """Raise BuildError when a file that an earlier step writes is not there."""
    for path in plan.paths(step.inputs):
        if not path.exists():
            made_by = "full" if step.module else plan.profile
            raise BuildError(f"{step.name} needs {path}, which is missing. Next: `./run_all.sh {made_by}`.")
