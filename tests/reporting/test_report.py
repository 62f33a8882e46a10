"""Skipping, stamps and locks of the builder; headline, pages and README of the report; the shell command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from lib import config
from lib.reporting import build, data_card, energy, pages, report, run_info, steps


def figure(value: float) -> dict:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def split(value: float) -> dict:
    kinds = ("precision", "recall", "f1")
    per_class = {label: {kind: figure(value) for kind in kinds} for label in config.CLASS_NAMES}
    return {"n_clips": 40, "n_groups": 12, "accuracy": figure(value), "macro_f1": figure(value), "per_class": per_class}


METRICS = {
    name: {"validation": split(0.7), "test": split(0.6), "test_random_split": split(0.8)}
    for name in report.MODEL_TITLES
}
INFO = {
    "profile": "quick",
    "commit": "0123456789abcdef",
    "dirty": False,
    "data": {"tier": "mirror", "sources": ["a"], "failures": []},
    "base_weights": {"yamnet": "weights <A>"},
    "ensemble_rule": "vote",
}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan over throwaway folders."""
    monkeypatch.setattr(config, "DATA_DIR", tmp_path / "data")
    monkeypatch.setattr(config, "BUILD_DIR", tmp_path / "build")
    monkeypatch.setattr(config, "REPORTS_DIR", tmp_path / "reports")
    return steps.Plan("quick", notebooks_dir=tmp_path / "notebooks")


def test_native_messages_go_to_the_log_and_the_terminal_comes_back(tmp_path, capfd):
    with build.native_messages_to(tmp_path / "logs" / "x.log"):
        os.write(2, b"greeting\n")
    os.write(2, b"after\n")
    assert (tmp_path / "logs" / "x.log").read_text(encoding="utf-8") == "greeting\n"
    assert capfd.readouterr().err == "after\n"


def test_energy_that_cannot_be_measured_is_said_and_fails_nothing(monkeypatch):
    def broken():
        raise OSError("no counters")

    monkeypatch.setattr(energy, "_new_tracker", broken)
    meter = energy.EnergyMeter()
    meter.start("a")
    assert meter.stop("a") is None
    meter.close()
    assert meter.reason == "OSError: no counters"


def test_run_info_tolerates_a_build_that_has_not_begun(plan, monkeypatch):
    monkeypatch.setattr(config, "ACQUISITION_PATH", config.DATA_DIR / "acquisition.json")
    info = run_info.collect(plan)
    assert info["data"] == {"tier": "none"} and info["steps"] == {} and info["base_weights"] == {}
    assert info["energy"]["kwh"] is None
    json.dumps(info)


# -- the report ------------------------------------------------------------------------------------------------


def test_the_headline_holds_value_interval_and_n_of_the_chosen_rule():
    text = report.headline(METRICS, INFO)
    for part in ("40 test clips", "12 groups", "majority vote", "0.600", "[0.500, 0.700]", "0.800"):
        assert part in text
    assert "No test result" in report.headline({}, INFO)


def test_the_headline_table_has_a_row_per_model_and_marks_the_chosen_one():
    rows = report.headline_rows(METRICS, chosen="vote")
    assert [row["title"] for row in rows] == list(report.MODEL_TITLES.values())
    assert [row["title"] for row in rows if row["chosen"]] == ["Ensemble: majority vote"]
    assert [cell["text"] for cell in rows[0]["cells"]] == ["0.700", "0.600", "0.800", "0.600"]


def test_figures_without_an_interval_or_a_value_are_said_to_be_so():
    bare = report.shown({"value": 0.5, "low": None, "high": None})
    assert bare["text"] == "0.500" and "too few groups" in bare["interval"] and not bare["has_bar"]
    assert report.shown({"value": None, "low": None, "high": None})["text"] == "–"


def test_a_partial_table_leaves_gaps_instead_of_failing():
    rows = report.headline_rows({"yamnet": {"validation": split(0.7)}}, chosen=None)
    assert [cell and cell["text"] for cell in rows[0]["cells"]] == ["0.700", None]


def test_the_readme_block_is_replaced_and_marks_are_required(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    (tmp_path / "run_info.json").write_text(json.dumps(INFO), encoding="utf-8")
    start, end = report.README_MARKS
    text = report.readme_text(f"before\n{start}\nold\n{end}\nafter\n", report_dir=tmp_path)
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "[0.500, 0.700]" in text and "40 test clips" in text
    with pytest.raises(steps.BuildError, match="marks"):
        report.readme_text("no marks", report_dir=tmp_path)


def test_the_readme_is_current_short_and_names_no_machine_path():
    text = report.README_PATH.read_text(encoding="utf-8")
    assert text == report.readme_text(text, report_dir=config.PROJECT_DIR / "reports" / "full")
    assert len(text.splitlines()) < 150
    assert str(config.PROJECT_DIR) not in text and "/home/" not in text
    assert (config.PROJECT_DIR / "LICENSE").is_file()


def test_the_data_card_is_current():
    text = data_card.CARD_PATH.read_text(encoding="utf-8")
    assert text == data_card.card_text(text)


def page_of(path: Path) -> str:
    return pages.notebook_body(path, names={"01_data_acquisition"})


def test_a_page_holds_formulas_as_mathml_and_no_remote_image(tmp_path):
    path = tmp_path / "n.ipynb"
    text = (
        "[![Open in Colab](https://example.org/b.svg)](https://example.org) $a_1 + b$ and `$HOME`\n\n"
        "[back](01_data_acquisition.ipynb)"
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]), path)
    body = page_of(path)
    assert "<math" in body and "$HOME" in body and "FORMULA" not in body
    assert "<img" not in body and "Open in Colab" in body
    assert 'href="01_data_acquisition.html"' in body


def test_a_page_drops_scripts_bars_and_machine_paths_and_folds_code(tmp_path):
    path = tmp_path / "n.ipynb"
    outputs = [
        nbformat.v4.new_output("stream", name="stderr", text=" 10%|█   | 1/10\r 90%|███ | 9/10 [00:01]\n"),
        nbformat.v4.new_output("stream", text=f"wrote {config.PROJECT_DIR}/data/x.csv\n"),
        nbformat.v4.new_output("display_data", {"text/html": "<script src='https://x.org/a.js'></script><b>kept</b>"}),
    ]
    cell = nbformat.v4.new_code_cell("value = 1", outputs=outputs)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    body = page_of(path)
    assert "<script" not in body and "<b>kept</b>" in body
    assert "9/10" not in body and "1/10" not in body
    assert "wrote data/x.csv" in body
    assert '<details class="code">' in body


def test_titles_are_escaped_in_the_frame():
    page = pages.render_page(
        "<p>own</p>",
        title="a < b",
        links=[],
        current="",
        banner={"kind": "mirror", "tier": "<tier>", "weights": ["<w>"]},
        foot="<foot>",
    )
    assert "a &lt; b" in page and "&lt;tier&gt;" in page and "&lt;w&gt;" in page and "<p>own</p>" in page


def test_the_pdf_is_written_from_figures_and_wide_tables(tmp_path):
    from lib.reporting import pdf

    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
    head = "".join(f"<th>a_long_column_name_{number}</th>" for number in range(16))
    row = "".join(f"<td>{number / 7:.9f}</td>" for number in range(15)) + "<td>0.753 [0.00012, 0.779]</td>"
    table = (
        f"<table border=1 class=dataframe><thead><tr>{head}</tr></thead><tbody>{f'<tr>{row}</tr>' * 60}</tbody></table>"
    )
    outputs = [
        nbformat.v4.new_output("display_data", {"image/png": pixel}),
        nbformat.v4.new_output("display_data", {"text/html": table}),
        nbformat.v4.new_output(
            "display_data", {"text/html": "<audio controls src='data:audio/wav;base64,AA=='></audio>"}
        ),
        nbformat.v4.new_output("stream", text="line\n" * 99),
    ]
    path = tmp_path / "n.ipynb"
    cells = [nbformat.v4.new_markdown_cell("# 01 Title @ #mark $x^2$"), nbformat.v4.new_code_cell("1", outputs=outputs)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    source = pdf.chapter(path, tmp_path)
    assert "20 more rows in the HTML page" in source and "59 more lines in the HTML page" in source
    assert "0.142857" not in source and "0.143" in source and "audio" not in source
    assert "player: in the HTML page" in source and "0.00012, 0.779" in source  # neither broken nor gone
    front = report.pdf_front(INFO | {"data": {"tier": "synthetic"}}, METRICS)
    made = pdf.write(tmp_path / "report.pdf", notebooks=[path], front=front)
    assert made.read_bytes().startswith(b"%PDF")


# -- the shell command -----------------------------------------------------------------------------------------


def shell(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = [str(config.PROJECT_DIR / "run_all.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


def test_help_lists_every_command_and_works_from_another_folder(tmp_path):
    result = shell("help", cwd=tmp_path)
    assert result.returncode == 0
    for command in (
        "quick|full",
        "test",
        "doctor",
        "serve",
        "release",
        "chaos",
        "fuzz",
        "--from NN",
        "--force",
        "--data",
    ):
        assert command in result.stdout


def test_an_unknown_command_is_refused_with_the_help(tmp_path):
    result = shell("bild", cwd=tmp_path)
    assert result.returncode == 1
    assert "Unknown command: bild" in result.stderr and "doctor" in result.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", ["run_all.sh", ".ci/run"])
def test_shell_scripts_are_clean(name):
    result = subprocess.run(["shellcheck", str(config.PROJECT_DIR / name)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_no_file_that_is_run_names_a_machine_path():
    for name in ("run_all.sh", "environment.yml", "requirements.txt", "params/quick.yaml", "params/full.yaml"):
        text = (config.PROJECT_DIR / name).read_text(encoding="utf-8")
        assert "/home/" not in text and "/root/" not in text and "shared" not in text, name


def test_conda_takes_the_one_list_of_dependencies():
    import yaml

    wanted = yaml.safe_load((config.PROJECT_DIR / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert {"pip": ["-r requirements.txt"]} in wanted and "python=3.11" in wanted
