"""The seven steps of a build: what each reads and writes, its parameters, and whether it has to run again.

Importing this module is quick on purpose: a build in which nothing changed must not wait for papermill or pandas.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from lib import config

NOTEBOOKS_DIR = config.PROJECT_DIR / "notebooks"
PARAMS_DIR = config.PROJECT_DIR / "params"
# Modules of lib that run or describe notebooks but change no result: editing them repeats no step.
_ORCHESTRATION = {
    "build",
    "card_facts",
    "data_card",
    "doctor",
    "energy",
    "environment",
    "model_card",
    "pages",
    "pdf",
    "release",
    "report",
    "run_info",
    "steps",
    "study",
}
# Studies of lib.studies.study that notebook 06 shows.
SHOWN_STUDIES = ("left_out", "ablation", "options", "pretraining")
_MODULE = re.compile(r"\b(lib|temporal_workflow)\.(\w+)")
_FROM_PACKAGE = re.compile(r"from\s+(lib|temporal_workflow)\s+import\s+(\([^)]*\)|[^\n#;]+)")


class BuildError(RuntimeError):
    """A build cannot go on; the message names the file and the next command."""


@dataclass(frozen=True)
class Step:
    """A notebook with the files it reads and writes and the environment variables that steer it."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variables: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()  # read where they are there

    @property
    def number(self) -> str:
        """Two digits, as the notebook's name begins."""
        return self.name[:2]


STEPS = (
    Step("01_data_acquisition", (), ("{data}/raw_manifest.csv", "{data}/acquisition.json"), ("AUDIO_MIRROR",)),
    Step(
        "02_preprocessing",
        ("{data}/raw_manifest.csv",),
        ("{data}/manifest.csv", "{data}/manifest_random_split.csv"),
    ),
    Step(
        "03_yamnet",
        ("{data}/manifest.csv", "{data}/manifest_random_split.csv"),
        ("{build}/models/yamnet", "{build}/probabilities/yamnet.csv"),
        ("TFHUB_CACHE_DIR",),
    ),
    Step(
        "04_wav2vec2",
        ("{data}/manifest.csv", "{data}/manifest_random_split.csv"),
        ("{build}/models/wav2vec2", "{build}/probabilities/wav2vec2.csv"),
        optional=("{models}/wav2vec2_pretrained",),
    ),
    Step(
        "05_ensemble",
        (
            "{data}/manifest.csv",
            "{build}/probabilities/yamnet.csv",
            "{build}/probabilities/wav2vec2.csv",
        ),
        tuple(f"{{build}}/models/ensemble{part}.json" for part in ("", "_rules", "_out_of_fold")),
        optional=("{studies}/tables/left_out.csv",),
    ),
    Step(
        "06_evaluation",
        (
            "{data}/manifest.csv",
            "{data}/manifest_random_split.csv",
            "{build}/models",
            "{build}/probabilities/yamnet.csv",
            "{build}/probabilities/wav2vec2.csv",
        ),
        ("{report}/metrics.json",),
        optional=(*(f"{{studies}}/tables/{name}.csv" for name in SHOWN_STUDIES), "{report}/trust.json"),
    ),
    Step("07_temporal_client", ("{data}/manifest.csv", "{build}/models"), ()),
)


@dataclass(frozen=True)
class Plan:
    """Where one profile's build reads and writes, and with which parameters."""

    profile: str
    parameters: dict[str, dict]
    notebooks_dir: Path = NOTEBOOKS_DIR

    @property
    def executed_dir(self) -> Path:
        """Folder of the executed notebooks."""
        return config.build_dir(self.profile) / "executed"

    @property
    def stamps_dir(self) -> Path:
        """Folder of the stamps that say what each executed notebook was made from."""
        return config.build_dir(self.profile) / "stamps"

    def notebook(self, step: Step) -> Path:
        """Return the source notebook of a step."""
        return self.notebooks_dir / f"{step.name}.ipynb"

    def executed(self, step: Step) -> Path:
        """Return where a step's executed notebook lies when it succeeded."""
        return self.executed_dir / f"{step.name}.ipynb"

    def paths(self, templates: tuple[str, ...]) -> list[Path]:
        """Fill in {data}, {build}, {report}, {models} and {studies}."""
        places = {
            "data": config.DATA_DIR,
            "build": config.build_dir(self.profile),
            "report": config.report_dir(self.profile),
            "models": config.MODELS_DIR,
            "studies": config.STUDIES_DIR,
        }
        return [Path(template.format(**places)) for template in templates]


def read_notebook(path: Path) -> dict:
    """Read a notebook's JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BuildError(f"{path} is missing. Next: restore it with `git checkout -- notebooks`.") from None
    except json.JSONDecodeError as error:
        raise BuildError(f"{path} is not a notebook ({error}). Next: `git diff -- notebooks`.") from None


def cell_source(cell: dict) -> str:
    """Return a cell's text; nbformat allows a string or a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def parameters_cells(notebook: dict) -> list[dict]:
    """Return the cells tagged ``parameters``."""
    return [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]


def declared_parameters(path: Path) -> dict:
    """Return name and default of every parameter that a notebook declares.

    Raises
    ------
    BuildError
        If the notebook has not exactly one cell tagged ``parameters``, or if that cell holds anything but literals.
    """
    cells = parameters_cells(read_notebook(path))
    if len(cells) != 1:
        raise BuildError(f"{path} has {len(cells)} cells tagged `parameters`; it needs exactly one.")
    declared = {}
    for node in ast.parse(cell_source(cells[0])).body:
        try:
            (target,) = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            declared[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            text = ast.unparse(node)
            raise BuildError(f"{path}: the `parameters` cell may hold literals only, not `{text}`.") from None
    return declared


def load_parameters(path: Path, *, overrides: dict[str, dict] | None = None) -> dict[str, dict]:
    """Read a parameter file: its `common` section and one per notebook, merged.

    Parameters
    ----------
    path : Path
        YAML file such as params/quick.yaml.
    overrides : dict, optional
        Parameters by notebook that win over the file.

    Returns
    -------
    dict
        Parameters by notebook name.

    Raises
    ------
    BuildError
        If the file is missing, is no mapping, or names a section that is no notebook.
    """
    import yaml

    if not path.is_file():
        raise BuildError(f"There is no {path}. Profiles are the files of {PARAMS_DIR.name}/.")
    sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    names = {step.name for step in STEPS}
    unknown = set(sections) - names - {"common"}
    if unknown:
        raise BuildError(f"{path} has sections that are no notebook: {', '.join(sorted(unknown))}.")
    common = sections.get("common") or {}
    given = overrides or {}
    return {name: common | (sections.get(name) or {}) | given.get(name, {}) for name in sorted(names)}


def check_parameters(plan: Plan) -> None:
    """Raise BuildError when a parameter is passed to a notebook that does not declare it."""
    for step in STEPS:
        unknown = set(plan.parameters[step.name]) - set(declared_parameters(plan.notebook(step)))
        if unknown:
            raise BuildError(
                f"{plan.notebook(step).name} declares no parameter {', '.join(sorted(unknown))}. Next: mend "
                f"params/{plan.profile}.yaml or the notebook's `parameters` cell."
            )


def _names_in(text: str) -> set[tuple[str, str]]:
    """Return every (package, module) that a text mentions; too many is safe, too few is not."""
    found = set(_MODULE.findall(text))
    for package, imported in _FROM_PACKAGE.findall(text):
        found |= {
            (package, name.split()[0]) for name in imported.strip("()").replace("\n", " ").split(",") if name.split()
        }
    return found


def code_files(notebook: dict) -> list[Path]:
    """Return the files of lib and temporal_workflow that a notebook's code reaches, directly or through others."""
    text = "\n".join(cell_source(cell) for cell in notebook["cells"] if cell["cell_type"] == "code")
    pending, seen = _names_in(text), set()
    while pending:
        package, name = pending.pop()
        if package == "lib" and name in _ORCHESTRATION:
            continue
        module = config.PROJECT_DIR / package / name  # a file, or a folder of files
        for path in {module.with_suffix(".py"), *module.glob("*.py")} - seen:
            if path.is_file():
                seen.add(path)
                pending |= _names_in(path.read_text(encoding="utf-8"))
    # Tables beside the code (sources, clips) count for whoever uses lib at all.
    return sorted(seen | set((config.PROJECT_DIR / "lib").glob("*.csv")))


def digest(paths: list[Path]) -> str:
    """Return one SHA-256 over the contents of files and folders; absent ones count as absent."""
    total = hashlib.sha256()
    for path in paths:
        files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
        for file in files:
            total.update(str(file.relative_to(path.parent)).encode())
            total.update(hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b"absent")
    return total.hexdigest()


def fingerprint(plan: Plan, step: Step) -> str:
    """Return a hash over everything that a step's result depends on."""
    notebook = read_notebook(plan.notebook(step))
    cells = [(cell["cell_type"], cell_source(cell)) for cell in notebook["cells"]]
    facts = {
        "cells": cells,
        "parameters": plan.parameters[step.name],
        "code": digest(code_files(notebook)),
        "inputs": digest(plan.paths(step.inputs + step.optional)),
        "variables": {name: os.environ.get(name, "") for name in step.variables},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_stamp(plan: Plan, step: Step) -> dict:
    """Return what the last successful run of a step left, or an empty dict."""
    try:
        return json.loads((plan.stamps_dir / f"{step.name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def write_stamp(plan: Plan, step: Step, *, facts: dict) -> None:
    """Record a successful run; atomic, so a killed build never believes a half-written stamp.

    `facts` holds the `fingerprint` taken before the run: what was edited meanwhile has to count as a change.
    """
    plan.stamps_dir.mkdir(parents=True, exist_ok=True)
    path = plan.stamps_dir / f"{step.name}.json"
    temporary = path.with_suffix(".tmp")
    record = facts | {"outputs": digest(plan.paths(step.outputs))}
    temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def is_current(plan: Plan, step: Step) -> bool:
    """Tell whether a step's executed notebook and outputs are still what its sources would make."""
    stamp = read_stamp(plan, step)
    outputs = plan.paths(step.outputs)
    return (
        bool(stamp)
        and plan.executed(step).is_file()
        and all(path.exists() for path in outputs)
        and stamp["fingerprint"] == fingerprint(plan, step)
        and stamp["outputs"] == digest(outputs)
    )


def check_inputs(plan: Plan, step: Step) -> None:
    """Raise BuildError when a file that an earlier step writes is not there."""
    for path in plan.paths(step.inputs):
        if not path.exists():
            raise BuildError(
                f"{step.name} needs {path}, which is missing. Next: `./run_all.sh {plan.profile} --from 01`."
            )
