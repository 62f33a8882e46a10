"""What makes a step of the build run again: its code by real imports, its notebook, parameters, inputs and outputs."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from lib import config
from lib.reporting import build, closure, steps
from tests.reporting import reports
from tests.reporting.reports import write_notebook

STEP = steps.Step("02_preprocessing", ("{data}/in.csv",), ("{data}/out.csv",), ("TEST_VARIABLE",))
STUDY = steps.Step("plots", ("{data}/in.csv",), ("{build}/tables/plots.csv",), module="lib.studies.plots_of_x")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan over throwaway folders, with one notebook."""
    reports.move(monkeypatch, tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.csv").write_text("a\n", encoding="utf-8")
    monkeypatch.setattr(steps, "NOTEBOOKS_DIR", tmp_path / "notebooks")
    made = steps.Plan("quick", {STEP.name: {"seed": 7}})
    write_notebook(made.notebook(STEP), "from lib import config")
    return made


def finish(plan: steps.Plan, step: steps.Step) -> None:
    """Leave what a successful run of a step leaves."""
    fingerprint = steps.fingerprint(plan, step)
    if not step.module:
        plan.executed_dir.mkdir(parents=True, exist_ok=True)
        shutil.copy(plan.notebook(step), plan.executed(step))
    for path in plan.paths(step.outputs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("b\n", encoding="utf-8")
    steps.write_stamp(plan, step, facts={"fingerprint": fingerprint})


CHANGES = {
    "notebook": lambda plan, patch: write_notebook(plan.notebook(STEP), "from lib import config, audio"),
    "input": lambda plan, patch: (config.DATA_DIR / "in.csv").write_text("c\n", encoding="utf-8"),
    "output": lambda plan, patch: (config.DATA_DIR / "out.csv").write_text("of another profile\n", encoding="utf-8"),
    "output lost": lambda plan, patch: (config.DATA_DIR / "out.csv").unlink(),
    "executed notebook lost": lambda plan, patch: plan.executed(STEP).unlink(),
    "parameters": lambda plan, patch: plan.parameters[STEP.name].update(seed=8),
    "variable": lambda plan, patch: patch.setenv("TEST_VARIABLE", "elsewhere"),
    "stamp cut off": lambda plan, patch: (plan.stamps_dir / f"{STEP.name}.json").write_text('{"fingerpr'),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_finished_step_is_current_until_anything_changes(plan, monkeypatch, change):
    assert not steps.is_current(plan, STEP)
    finish(plan, STEP)
    assert steps.is_current(plan, STEP)
    change(plan, monkeypatch)
    assert not steps.is_current(plan, STEP)


def test_outputs_saved_into_the_source_notebook_are_no_change(plan):
    finish(plan, STEP)
    notebook = nbformat.read(plan.notebook(STEP), as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="run by hand")]
    nbformat.write(notebook, plan.notebook(STEP))
    assert steps.is_current(plan, STEP)


def test_a_missing_input_names_the_next_command_and_parameters_must_be_literals(plan, tmp_path):
    (config.DATA_DIR / "in.csv").unlink()
    with pytest.raises(steps.BuildError, match=r"in\.csv.*run_all\.sh quick"):
        steps.check_inputs(plan, STEP)
    cell = nbformat.v4.new_code_cell("seed = int('7')", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    with pytest.raises(steps.BuildError, match="literals only"):
        steps.declared_parameters(tmp_path / "n.ipynb")


def test_two_builds_of_one_profile_do_not_run_at_once(plan):
    with build.only_build("quick"), pytest.raises(steps.BuildError, match="Another build"), build.only_build("quick"):
        pass
    with build.only_build("quick"):
        pass  # the lock is free again


def test_a_kernel_that_dies_is_told_in_one_line_with_the_next_command(plan):
    write_notebook(plan.notebook(STEP), "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(steps.BuildError, match=r"Kernel died, .* memory\. Next: .*run_all\.sh quick"):
        build.execute(plan, STEP)


# -- which code counts ------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of six modules beside `plan`'s folders."""
    sources = {
        "lib/__init__.py": "",
        "lib/config.py": "",
        "lib/yamnet.py": "def load():\n    from lib import config\n",
        "lib/decoding/__init__.py": "",
        "lib/decoding/child.py": "",
        "lib/decoding/pool.py": 'CHILD, TABLE = "lib.decoding.child", "rates.csv"\n',
        "lib/decoding/rates.csv": "1\n",
        "lib/studies/__init__.py": "",
        "lib/studies/plots_of_x.py": "import typing\nif typing.TYPE_CHECKING:\n    from lib import yamnet\n",
    }
    for name, text in sources.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(config, "PROJECT_DIR", tmp_path / "project")
    return tmp_path / "project"


def names(files: list[Path]) -> set[str]:
    return {file.name for file in files} - {"__init__.py"}


def test_imports_are_followed_into_functions_programs_and_files_that_a_module_names_but_for_types(project):
    assert names(closure.files_of_code("%matplotlib inline\nfrom lib.yamnet import load")) == {"yamnet.py", "config.py"}
    assert names(closure.files_of_code("import lib.decoding.pool")) == {"pool.py", "child.py", "rates.csv"}
    assert names(closure.files_of_module("lib.studies.plots_of_x")) == {"plots_of_x.py"}


def test_an_edit_of_a_studys_plots_reruns_the_study_and_no_notebook(plan, project):
    write_notebook(plan.notebook(STEP), "from lib import yamnet")
    study_plan = steps.Plan("studies")
    finish(plan, STEP)
    finish(study_plan, STUDY)
    assert steps.is_current(plan, STEP) and steps.is_current(study_plan, STUDY)
    (project / "lib/studies/plots_of_x.py").write_text("COLOUR = 'red'\n", encoding="utf-8")
    assert steps.is_current(plan, STEP) and not steps.is_current(study_plan, STUDY)
    (project / "lib/config.py").write_text("SAMPLE_RATE_HZ = 8000\n", encoding="utf-8")
    assert not steps.is_current(plan, STEP)


@pytest.mark.parametrize("name", ["03_yamnet", "04_wav2vec2"])
def test_the_notebooks_that_train_reach_no_study_and_no_part_of_the_report_but_its_environment(name):
    (step,) = [step for step in steps.STEPS if step.name == name]
    reached = {str(path.relative_to(config.PROJECT_DIR)) for path in steps.code_files(steps.Plan("quick"), step)}
    rooms = {path for path in reached if path.startswith(("lib/studies/", "lib/reporting/", "temporal_workflow/"))}
    assert rooms - {"lib/reporting/__init__.py"} == {"lib/reporting/environment.py"}
    assert f"lib/{name[3:]}.py" in reached


def test_the_full_build_runs_notebooks_then_studies(plan, monkeypatch):
    studies = (
        steps.Step("short", (), (), module="lib.studies.short"),
        steps.Step("long", (), (), module="lib.studies.long", on_request=True),
    )
    ran = []
    monkeypatch.setattr("lib.studies.registry.STUDIES", studies)
    monkeypatch.setattr(steps, "is_current", lambda plan, step: step.name == "02_preprocessing")
    monkeypatch.setattr(build, "run_step", lambda plan, step, *, meter: ran.append(step.name))
    monkeypatch.setattr(
        build.subprocess, "run", lambda command, **_: ran.extend(command[3:]) or SimpleNamespace(returncode=0)
    )
    names = [step.name for step in plan.steps]
    assert [step.name for step in steps.Plan("full").steps] == [*names, "appendix_environmental_audio"]
    assert build.run_steps(plan) == 6
    build.run_studies()
    assert ran == [names[0], *names[2:], "short"]
    ran.clear()
    assert build.run_steps(plan, first="06", force=True) == 2
    assert ran == names[5:]


def test_graphs_and_cards_made_later_do_not_make_the_step_that_trained_stale(tmp_path):
    (tmp_path / "model.keras").write_text("weights")
    before = steps.digest([tmp_path])
    (tmp_path / "head.onnx").write_text("graph")
    (tmp_path / "README.md").write_text("card")
    assert steps.digest([tmp_path]) == before
    assert steps.digest([tmp_path / "head.onnx"]) != steps.digest([tmp_path / "backbone.onnx"])  # itself, it counts
    (tmp_path / "model.keras").write_text("other weights")
    assert steps.digest([tmp_path]) != before
