"""The appendix: tables of numbers become text, and every study's section is made from what the study wrote."""

import pandas as pd
import pytest

from lib.reporting import results
from lib.studies import appendix, recipe, result
from lib.studies.result import Result

ENDS = {"low": [0.4, None], "high": [0.6, None]}


@pytest.fixture
def folder(tmp_path):
    size = {"n_clips": [1200, 8], "n_groups": [30, 2]}
    table = pd.DataFrame({"option": ["a", "b"], "measure": "change", "value": [0.5, -0.1], **ENDS, **size})
    named = pd.DataFrame({"kind": ["x", "y"], "threshold": [0.25, 1.0], "risk": [0.5, 0.1]})
    named = named.assign(risk_low=ENDS["low"], risk_high=ENDS["high"])
    tables = {"options": table, "pretraining": table.rename(columns={"option": "pretraining"}), "named": named}
    tables["pretraining_tried"] = pd.read_csv(recipe.TRIED_PATH)
    result.write("recipe", Result({"n_clips": 1200}, tables), tmp_path)
    for path in (tmp_path / "tables").glob("*.csv"):  # as the report copies them
        path.rename(path.with_name(f"study_{path.name}"))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "study_options.png").write_bytes(b"picture")
    return tmp_path


def test_figures_are_written_with_interval_and_n(folder):
    tables = result.read_tables(folder, prefix="study_")
    shown = appendix.by_measure(tables["options"], keys=["option"], measures=["change"])
    assert shown.rows == [["a", "+0.500 [+0.400, +0.600]", "1,200 / 30"], ["b", "-0.100", "8 / 2"]]
    assert shown.head == ["option", "change", "clips / groups"]
    some = appendix.wide(tables["named"], keys=["kind", "threshold"], figures=["risk"], kind=["x"])
    assert some.rows == [["x", "0.25", "0.500 [0.400, 0.600]"]]
    assert (shown.is_text, some.is_text) == ([True, False, False], [True, False, False])


def test_a_tables_head_is_words_and_missing_cells_are_empty():
    shown = appendix.as_text(pd.DataFrame({"split": ["left_out", "test"], "n_clips": [7, 8], "p95": [1.5, None]}))
    assert shown == appendix.Table(
        ["split", "clips", "p95"], [["left_out", "7", "1.50"], ["test", "8", ""]], [True, False, False]
    )


def test_only_studies_that_ran_have_a_section(folder):
    page = results.render("appendix.html.j2", **appendix.context(folder))
    assert "What each piece of the recipe is worth" in page and "+0.500 [+0.400, +0.600]" in page
    assert "Unseen corpora</h2>" not in page and "Shortcuts" not in page


def test_a_figure_is_in_the_page_itself(folder):
    assert appendix.figure_address(folder, "options").startswith("data:image/png;base64,")
    assert appendix.figure_address(folder, "other") == ""


def test_without_studies_there_is_no_appendix(tmp_path):
    assert appendix.context(tmp_path) is None
