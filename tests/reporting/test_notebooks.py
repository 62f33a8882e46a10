"""The seven notebooks as files, and the whole build of them on generated audio."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from sources import code_cells

from lib import config
from lib.reporting import steps
from tests.reporting import builds

NAMES = [step.name for step in steps.STEPS]
SEVEN, (APPENDIX,) = NAMES[:7], NAMES[7:]  # a build of another profile than full has no appendix
PATHS = [steps.NOTEBOOKS_DIR / f"{name}.ipynb" for name in NAMES]
CODE_CELL_CAP, MAX_PARAMETERS = 20, 8
PROFILES = sorted(steps.PARAMS_DIR.glob("*.yaml"))


def repository() -> str:
    return tomllib.loads((config.PROJECT_DIR / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
        "Repository"
    ]


def test_there_are_exactly_seven_and_an_appendix():
    assert sorted(path.stem for path in steps.NOTEBOOKS_DIR.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_it_is_valid_without_outputs_and_its_cells_are_short(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    kept = {"codemirror_mode", "file_extension", "mimetype", "nbconvert_exporter", "pygments_lexer", "version", "name"}
    assert set(notebook.metadata.language_info) == kept  # as the kernel says it: else Jupyter shows the tab as unsaved
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert [c.source.splitlines()[0] for c in code if len(c.source.splitlines()) > CODE_CELL_CAP] == []
    declared = steps.declared_parameters(path)  # raises unless one cell, literals only
    assert declared["profile"] == "quick" and isinstance(declared["seed"], int) and len(declared) <= MAX_PARAMETERS


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_its_prose_has_badge_bullets_and_no_formula_that_needs_a_script_and_readme_has_its_badge(path):
    prose = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    colab = f"github/{repository().removeprefix('https://github.com/')}/blob/main/notebooks/{path.name}"
    assert f"https://colab.research.google.com/{colab}" in prose[0] and re.search(r"^# ", prose[0], re.MULTILINE)
    assert [word for word in ("Question", "Reads", "Writes") if f"**{word}" not in prose[0]] == []
    assert [text for text in prose if re.search(r"\$\$|(?<![`\w])\$[^$`\n]+\$|\\\(|\\\[", text)] == []
    assert f"/{colab}" in (config.PROJECT_DIR / "README.md").read_text(encoding="utf-8")


def test_the_set_up_cell_is_the_same_in_all_and_names_the_repository():
    found = {code_cells(name)[0] for name in NAMES}
    assert len(found) == 1
    (source,) = found
    assert f'REPOSITORY = "{repository()}"' in source
    assert "environment.prepare()" in source and "%cd" not in source


@pytest.mark.parametrize("path", PATHS[2:4], ids=NAMES[2:4])
def test_a_network_has_its_first_accuracy_by_cell_12(path):
    assert any('print(f"accuracy' in cell.source for cell in nbformat.read(path, as_version=4).cells[:12])


@pytest.mark.parametrize("path", PROFILES, ids=[path.stem for path in PROFILES])
def test_parameter_files_name_only_declared_parameters(path):
    plan = steps.Plan(path.stem, steps.load_parameters(path.stem))
    steps.check_parameters(plan)
    assert {parameters["profile"] for parameters in plan.parameters.values()} == {path.stem}


def test_an_undeclared_parameter_and_an_unknown_section_are_errors(tmp_path, monkeypatch):
    parameters = steps.load_parameters("quick")
    parameters["05_ensemble"]["no_such"] = 1
    with pytest.raises(steps.BuildError, match="no_such"):
        steps.check_parameters(steps.Plan("quick", parameters))
    monkeypatch.setattr(steps, "PARAMS_DIR", tmp_path)
    (tmp_path / "odd.yaml").write_text("08_more:\n  seed: 1\n", encoding="utf-8")
    with pytest.raises(steps.BuildError, match="08_more"):
        steps.load_parameters("odd")


# -- the build -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    build = builds.EARLY[0] if builds.EARLY else builds.Build(tmp_path_factory.mktemp("build"))
    result = build.run()
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    build.said = result.stdout
    return build


def outcomes(said: str) -> list[str]:
    """Return what happened to each of the seven: run or skipped."""
    lines = [line for line in said.splitlines() if re.match(r"\[\d/7\]", line)]
    return ["skipped" if "skipped" in line else "run" for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_build_runs_all_seven_on_generated_audio_and_says_so(built):
    assert outcomes(built.said) == ["run"] * 7
    assert "SYNTHETIC AUDIO" in built.said
    pages = sorted(path.name for path in built.report_dir.glob("*.html"))
    assert pages == sorted(["index.html", *(f"{name}.html" for name in SEVEN)])
    for path in built.report_dir.glob("*.html"):
        assert "SYNTHETIC AUDIO" in path.read_text(encoding="utf-8"), path.name
    assert (built.report_dir / "report.pdf").read_bytes().startswith(b"%PDF")
    assert list((built.report_dir / "figures").glob("*.png"))


@pytest.mark.slow
def test_metrics_have_every_model_split_and_interval(built):
    metrics = json.loads((built.report_dir / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"yamnet", "wav2vec2", "average", "weighted", "vote", "calibrated", "meta"}
    for splits in metrics.values():
        windows = {f"test_windows_{seconds}" for seconds in (5, 10, 15)}
        assert set(splits) == {"validation", "test", "test_random_split", "test_released"} | windows
        for facts in splits.values():
            assert facts["n_clips"] > 0 and facts["n_groups"] > 0
            assert tuple(facts["per_class"]) == config.CLASS_NAMES
            by_class = [row[kind] for row in facts["per_class"].values() for kind in ("precision", "recall", "f1")]
            for figure in (facts["accuracy"], facts["macro_f1"], *by_class):
                assert set(figure) == {"value", "low", "high"}
                assert figure["value"] is None or 0 <= figure["value"] <= 1
                assert figure["low"] is None or 0 <= figure["low"] <= figure["high"] <= 1


@pytest.mark.slow
def test_run_info_states_data_weights_parameters_and_times(built):
    info = json.loads((built.report_dir / "run_info.json").read_text(encoding="utf-8"))
    assert info["data"]["tier"] == "synthetic"
    assert set(info["base_weights"]) == {"yamnet", "wav2vec2"}
    assert set(info["steps"]) == set(SEVEN) and all(step["seconds"] > 0 for step in info["steps"].values())
    assert info["energy"]["kwh"] is not None or info["energy"]["not_measured_because"]
    assert info["parameters"]["03_yamnet"]["n_windows"] == builds.SMALL["03_yamnet"]["n_windows"]
    assert info["versions"]["tensorflow"] and info["versions"]["torch"]


@pytest.mark.slow
def test_pages_ask_for_nothing_outside_link_to_what_is_there_and_name_no_folder_of_this_machine(built):
    for path in built.report_dir.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert str(built.output_dir) not in text and f"{config.PROJECT_DIR}/" not in text, path.name
        soup = BeautifulSoup(text, "html.parser")
        asked = [node.get("src") for node in soup.find_all(src=True)]
        asked += [node["href"] for node in soup.find_all("link", href=True)]
        asked += [node["poster"] for node in soup.find_all(poster=True)]
        assert [url[:80] for url in asked if not url.startswith("data:")] == [], path.name
        assert soup.find_all(["script", "iframe", "object", "embed"]) == [], path.name
        styles = " ".join(
            [*(node.get_text() for node in soup.find_all("style")), *(n["style"] for n in soup.find_all(style=True))]
        )
        assert "@import" not in styles
        assert re.findall(r"url\(\s*['\"]?(?!data:)[^)]*\)", styles) == [], path.name
        links = {link["href"].partition("#")[0] for link in soup.find_all("a", href=True)} - {""}
        own = [link for link in links if "://" not in link and not link.startswith("mailto:")]
        assert [link for link in own if not (built.report_dir / link).is_file()] == [], path.name


@pytest.mark.slow
def test_a_second_run_skips_everything_in_ten_seconds(built):
    started = time.monotonic()
    result = built.run()
    assert result.returncode == 0, result.stderr
    assert outcomes(result.stdout) == ["skipped"] * 7
    assert "[report]" in result.stdout and result.stdout.count("unchanged, skipped") == 8
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_a_failing_notebook_stops_the_build_and_is_kept_and_the_next_run_goes_on_there(built):
    built.edit("02_preprocessing", "raise ZeroDivisionError('made to fail')")
    result = built.run()
    assert result.returncode != 0
    assert outcomes(result.stdout) == ["skipped", "run"]
    kept = built.output_dir / "build" / "small" / "executed" / "02_preprocessing.failed.ipynb"
    assert "ZeroDivisionError: made to fail" in result.stderr
    assert str(kept) in result.stderr and kept.is_file()
    built.restore("02_preprocessing")
    result = built.run()
    assert result.returncode == 0, result.stderr
    assert outcomes(result.stdout) == ["skipped", "run"] + ["skipped"] * 5  # it wrote the same again
    assert not kept.exists()


@pytest.mark.slow
def test_the_appendix_runs_on_generated_audio_without_weights_and_says_so(built):
    """Last, for it adds a table to the report of the seven."""
    (step,) = [step for step in steps.STEPS if step.name == APPENDIX]
    code = f"""
from lib.reporting import build, steps
plan = steps.Plan("small", {{{APPENDIX!r}: {{"profile": "small", "n_epochs": 5}}}})
build.kernel_environment("small")
build.execute(plan, steps.STEPS[-1])"""
    offline = {"AUDIO_OUTPUT_DIR": str(built.output_dir), "AUDIO_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=config.PROJECT_DIR,
        env={name: value for name, value in os.environ.items() if name != "AUDIOSET_WEIGHTS_DIR"} | offline,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    page = (built.output_dir / "build" / "small" / "executed" / f"{step.name}.ipynb").read_text(encoding="utf-8")
    assert "SYNTHETIC AUDIO" in page and "kinds of generated sound take their place" in page
    assert "YAMNet alone: mn04_as_mAP_432.pt is not available" in page
    events = pd.read_csv(built.report_dir / "tables" / "appendix_events.csv", index_col="label")
    assert events.loc["all", "reference"] >= 20 and 0 < events.loc["all", "event_f1"] <= 1
