"""Pages, PDF, studies' copies and run facts of the report; the shell command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import golden
import nbformat
import pytest
import yaml

from lib import config
from lib.reporting import build, closure, energy, pages, pdf, report, results, run_info, steps
from tests.reporting import reports

GOLDEN_DIR = Path(__file__).parent / "golden"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A plan over throwaway folders, whose notebooks are those of the project."""
    reports.move(monkeypatch, tmp_path)
    return steps.Plan("quick")


def notebook_html(path: Path, *, text: str, code: bool = True, outputs: list | None = None) -> str:
    return pages.notebook_html(reports.write_notebook(path, "value = 1", text=text, outputs=outputs), code=code)


def html_output(html: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", {"text/html": html})


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


def test_run_info_and_index_tolerate_a_build_that_has_not_begun_on_macos(plan, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")  # Linux alone has it
    info = run_info.collect(plan)
    assert info["data"] == {"tier": "none"} and info["steps"] == {} and info["base_weights"] == {}
    assert info["energy"]["kwh"] is None
    json.dumps(info)
    assert "notebook 06 has not run" in report.index_body(plan, info)


# -- the pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", [True, False], ids=["product", "clips"])
def test_the_index_page(plan, product):
    reports.write(config.report_dir("quick"), product=product)
    body = report.index_body(plan, reports.INFO)
    golden.check(GOLDEN_DIR / f"index_{'product' if product else 'clips'}.html", body)


def test_the_page_of_the_product():
    golden.check(GOLDEN_DIR / "product.html", results.render("product.html.j2", product=reports.PRODUCT))
    assert "<h3>" not in results.render("product.html.j2", product={"trimmed_clips": {}})


def test_studies_are_copied_and_others_stay_as_the_committed_report_has_them(plan, monkeypatch, tmp_path):
    folder = config.report_dir("full")
    monkeypatch.setattr(config, "MODELS_DIR", tmp_path / "models")
    yamnet = config.MODELS_DIR / config.RELEASED_DIRS["yamnet"] / config.CHECKPOINT_FILES["yamnet"]
    yamnet.parent.mkdir(parents=True, exist_ok=True)
    yamnet.write_bytes(b"weights")
    for path in (folder / "tables" / "study_old.csv", folder / "tables" / "06_scores.csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old", encoding="utf-8")
    (config.STUDIES_DIR / "tables").mkdir(parents=True)
    (config.STUDIES_DIR / "tables" / "seeds.csv").write_text("a\n", encoding="utf-8")
    windows = {"10": {"macro_f1": reports.figure(0.9)}}
    unseen = {"cross_corpus": {"windows": windows}}
    (config.STUDIES_DIR / "studies.json").write_text(json.dumps(unseen), encoding="utf-8")
    (config.STUDIES_DIR / "product.json").write_text('{"versions": {"detector": "d"}}', encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(reports.METRICS), encoding="utf-8")
    for _ in range(2):  # a second build copies again
        report.copy_studies(folder, rule="vote")
        product = json.loads((folder / "product.json").read_text(encoding="utf-8"))
        assert product["windows"]["leave_one_corpus_out"] == windows
        assert product["versions"] == {"detector": "d", "yamnet": config.version_of(yamnet)}
        assert product["trimmed_clips"]["macro_f1"]["value"] == 0.6
    there = sorted(path.name for path in (folder / "tables").iterdir())
    assert there == ["06_scores.csv", "study_old.csv", "study_seeds.csv"]


def test_a_commit_of_the_report_itself_changes_no_page_and_an_edit_of_what_a_page_is_made_by_does(
    plan, monkeypatch, capsys
):
    def written(commit, *, dirty):
        monkeypatch.setattr(run_info, "commit", lambda: {"commit": commit * 40, "dirty": dirty})
        return report.make(plan).read_text(encoding="utf-8")

    first = written("a", dirty=False)
    assert "aaaa" in first and written("b", dirty=False) == first
    assert capsys.readouterr().out.endswith("unchanged, skipped\n")
    index = config.report_dir(plan.profile) / "index.html"
    index.write_text("an earlier page", encoding="utf-8")  # as a checkout brings it
    assert "bbbb" in written("b", dirty=False)
    assert "bbbb" in written("b", dirty=True)
    assert config.PROJECT_DIR / "lib/studies/appendix.py" in closure.files_of_module("lib.reporting.report")
    monkeypatch.setattr(closure, "files_of_module", lambda _: [Path(__file__)])
    assert "cccc" in written("c", dirty=True)


def test_a_page_asks_for_no_remote_image_and_links_to_pages(tmp_path):
    text = (
        "# 01 A title\n\n[![Open in Colab](https://example.org/b.svg)](https://example.org) and `$HOME`\n\n"
        "[back](01_data_acquisition.ipynb)"
    )
    html = notebook_html(tmp_path / "n.ipynb", text=text)
    body = str(pages.localise(html, names={"01_data_acquisition"}))
    assert "<img" not in body and "Open in Colab" in body and "$HOME" in body
    assert 'href="01_data_acquisition.html"' in body


def test_a_page_drops_scripts_bars_and_machine_paths_and_folds_code(tmp_path):
    outputs = [
        nbformat.v4.new_output("stream", name="stderr", text=" 10%|█   | 1/10\r 90%|███ | 9/10 [00:01]\n"),
        nbformat.v4.new_output("stream", text=f"wrote {config.PROJECT_DIR}/data/x.csv\n"),
        html_output("<script src='https://x.org/a.js'></script><b>kept</b>"),
    ]
    html = notebook_html(tmp_path / "n.ipynb", text="# 01 A title", outputs=outputs)
    body = str(pages.localise(html, names=set()))
    assert "<script" not in body and "<b>kept</b>" in body
    assert "9/10" not in body and "1/10" not in body
    assert "wrote data/x.csv" in body
    assert '<details class="code">' in body


def test_titles_are_escaped_in_the_frame():
    banner = {"kind": "mirror", "tier": "<tier>", "weights": ["<w>"]}
    page = pages.render_page("<p>own</p>", title="a < b", links=[], current="", banner=banner, foot="<foot>")
    assert "a &lt; b" in page and "&lt;tier&gt;" in page and "&lt;w&gt;" in page and "<p>own</p>" in page


def test_the_pdf_is_written_from_figures_and_wide_tables(tmp_path):
    head = "".join(f"<th>a_long_column_name_{number}</th>" for number in range(16))
    row = "".join(f"<td>{number / 7:.9f}</td>" for number in range(15)) + "<td>0.753 [0.00012, 0.779]</td>"
    table = (
        f"<table border=1 class=dataframe><thead><tr>{head}</tr></thead><tbody>{f'<tr>{row}</tr>' * 60}</tbody></table>"
    )
    outputs = [
        nbformat.v4.new_output("display_data", {"image/png": PIXEL}),
        html_output(table),
        html_output("<audio controls src='data:audio/wav;base64,AA=='></audio>"),
        nbformat.v4.new_output("stream", text="line\n" * 99),
    ]
    html = notebook_html(tmp_path / "n.ipynb", text="# 01 Title @ #mark `x^2`", code=False, outputs=outputs)
    source = pdf.chapter(html, tmp_path)
    assert "20 more rows in the HTML page" in source and "59 more lines in the HTML page" in source
    assert "0.142857" not in source and "0.143" in source and "audio" not in source
    assert "player: in the HTML page" in source and "0.00012, 0.779" in source  # neither broken nor gone
    front = {"title": "T", "subtitle": "S", "synthetic": True, "lines": ["a"], "headline": "h"}
    front["rows"] = [["a", "b", "c"], ["1", '"2" #x', "3"]]
    made = pdf.write(tmp_path / "report.pdf", chapters=[html], front=front)
    assert made.read_bytes().startswith(b"%PDF")


def test_columns_of_long_texts_share_the_page_by_their_content(tmp_path):
    table = "<table><tr><th>name</th><th>how</th></tr><tr><td>a_name</td><td>{}</td></tr></table>"
    long, short = (pdf.chapter(table.format("some words " * n), tmp_path) for n in (40, 4))
    narrow, wide = map(float, re.search(r"columns: \(([\d.]+)%, ([\d.]+)%\)", long).groups())
    assert narrow + wide == pytest.approx(100, abs=0.2) and wide > 2 * narrow
    assert "columns: 2" in short


# -- the shell command -----------------------------------------------------------------------------------------


def shell(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = [str(config.PROJECT_DIR / "run_all.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


def test_help_lists_every_command_from_any_folder_and_an_unknown_one_is_refused(tmp_path):
    result = shell("help", cwd=tmp_path)
    assert result.returncode == 0
    script = (config.PROJECT_DIR / "run_all.sh").read_text(encoding="utf-8")
    commands = re.findall(r"^  \[([a-z]+)\]=", script, flags=re.MULTILINE)
    assert len(commands) == 8
    assert [name for name in commands if f"run_all.sh {name}" not in result.stdout] == []
    result = shell("bild", cwd=tmp_path)
    assert result.returncode == 1
    assert "Unknown command: bild" in result.stderr and "doctor" in result.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", ["run_all.sh", ".ci/run"])
def test_shell_scripts_are_clean(name):
    result = subprocess.run(["shellcheck", str(config.PROJECT_DIR / name)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_files_that_are_run_name_no_machine_path_and_conda_takes_the_one_list_of_dependencies():
    names = ("run_all.sh", "environment.yml", "requirements.txt", "requirements-serve.txt")
    for name in (*names, "params/quick.yaml", "params/full.yaml"):
        text = (config.PROJECT_DIR / name).read_text(encoding="utf-8")
        assert "/home/" not in text and "/root/" not in text and "shared" not in text, name
    wanted = yaml.safe_load((config.PROJECT_DIR / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert {"pip": ["-r requirements.txt"]} in wanted and "python=3.11" in wanted
