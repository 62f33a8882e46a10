"""The matrix of unseen corpora, on predictions whose recall, macro F1 and false alarms are counted by hand."""

import numpy as np
import pandas as pd
import pytest

from lib import config, plots, splits
from lib.studies import cross_corpus

# source: [(true class, answered class, clips)]; every clip is a group of its own unless said otherwise
ANSWERS = {
    "deeply": [("screaming", "screaming", 8), ("screaming", "normal", 2), ("normal", "normal", 30)],
    "donateacry": [("crying", "crying", 18), ("crying", "screaming", 2)],
    "esc10": [("normal", "normal", 15), ("normal", "crying", 5)],
    "giulbia": [("crying", "crying", 3), ("crying", "normal", 1)],  # of the corpus group esc50, one group
}


def answer_rows(answers):
    cells = [(source, *cell[:2]) for source, cells in answers.items() for cell in cells for _ in range(cell[2])]
    table = pd.DataFrame(cells, columns=["source", "label", "answered"])
    groups = table["source"].where(table["source"] == "giulbia", table["source"] + ":" + table.index.astype(str))
    scheme = splits.LEFT_OUT + splits.corpus_group(table["source"])
    predictions = np.eye(3)[table.pop("answered").map(config.CLASS_ID)] * 0.7 + 0.1
    return table.assign(group_id=groups, scheme=scheme), predictions


def matrix(answers):
    rows, predictions = answer_rows(answers)
    return cross_corpus.matrix(rows, {cross_corpus.CHOSEN: predictions})


@pytest.fixture(scope="module")
def table():
    return matrix(ANSWERS)


def figure(table, place, measure, label="all"):
    corpus_group, source = place
    rows = table[(table["corpus_group"] == corpus_group) & (table["source"] == source)]
    rows = rows[(rows["measure"] == measure) & (rows["label"] == label)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_there_is_a_part_for_everything_each_corpus_group_and_each_source_within_it(table):
    assert tuple(table.columns) == cross_corpus.COLUMNS
    parts = table[["corpus_group", "source"]].drop_duplicates()
    assert [tuple(row) for row in parts.to_numpy()] == [
        ("all", "all"), ("deeply", "all"), ("deeply", "deeply"), ("donateacry", "all"), ("donateacry", "donateacry"),
        ("esc50", "all"), ("esc50", "esc10"), ("esc50", "giulbia"),
    ]  # fmt: skip


def test_recall_and_false_alarms_are_those_counted_by_hand_with_their_n(table):
    recall = figure(table, ("deeply", "deeply"), "recall", "screaming")
    assert (recall["value"], recall["n_clips"], recall["n_groups"]) == (0.8, 10, 10)
    assert recall["low"] < 0.8 < recall["high"]
    alarms = figure(table, ("esc50", "esc10"), "false alarms", "crying")
    assert (alarms["value"], alarms["n_clips"]) == (0.25, 20)
    pooled = figure(table, ("all", "all"), "false alarms", "crying")  # 5 of all that is no cry
    assert (pooled["value"], pooled["n_clips"]) == (5 / 60, 60) and pooled["low"] < 5 / 60 < pooled["high"]
    whole = figure(table, ("esc50", "all"), "recall", "crying")
    assert (whole["value"], whole["n_clips"], whole["n_groups"]) == (0.75, 4, 1)


def test_macro_f1_is_over_the_classes_held_and_a_foreign_answer_is_a_miss(table):
    """Two of 20 cries are answered screaming: F1 of crying is 2 * 18 / (20 + 18), no other class counts."""
    assert figure(table, ("donateacry", "all"), "macro F1")["value"] == pytest.approx(36 / 38)
    f1 = {"screaming": 16 / 18, "normal": 60 / 62}
    assert figure(table, ("deeply", "all"), "macro F1")["value"] == pytest.approx(np.mean(list(f1.values())))
    assert set(table.query("source == 'donateacry' and measure == 'recall'")["label"]) == {"crying"}


def test_one_group_carries_no_interval_and_no_error_carries_an_exact_one(table):
    assert np.isnan(figure(table, ("esc50", "giulbia"), "recall", "crying")["low"])
    ends = ["value", "low", "high"]
    perfect = figure(table, ("deeply", "deeply"), "recall", "normal")  # 30 of 30 groups
    assert perfect[ends].tolist() == pytest.approx([1, 0.025 ** (1 / 30), 1])
    none = figure(table, ("deeply", "deeply"), "false alarms", "crying")
    assert none[ends].tolist() == pytest.approx([0, 0, 1 - 0.025 ** (1 / 40)])


def test_a_source_trained_on_is_refused():
    rows, predictions = answer_rows(ANSWERS)
    rows.loc[rows["source"] == "giulbia", "scheme"] = "without_giulbia"  # its corpus group was in training
    with pytest.raises(ValueError, match="giulbia"):
        cross_corpus.matrix(rows, {"yamnet": predictions})


def test_the_summary_names_lowest_and_highest_and_what_is_too_small(table):
    found = cross_corpus.summary(table)
    assert (found["n_clips"], found["n_groups"], found["n_corpus_groups"], found["n_sources"]) == (84, 81, 3, 4)
    assert found["n_sources_of_one_class"] == 3
    normal, crying = found["recall"]["normal"], found["recall"]["crying"]
    assert (normal["lowest"]["source"], normal["lowest"]["value"]) == ("esc10", 0.75)
    assert (normal["highest"]["source"], normal["highest"]["value"]) == ("deeply", 1.0)
    assert "lowest" not in crying  # one source alone has groups enough
    assert [(row["source"], row["n_clips"]) for row in crying["few_groups"]] == [("giulbia", 4)]
    assert crying["largest"]["source"] == "donateacry" and crying["largest"]["share"] == pytest.approx(20 / 24)
    assert found["false_alarms"]["crying"]["highest"]["source"] == "esc10"
    near = {"deeply": [("normal", "normal", 28), ("normal", "crying", 2)], "esc10": ANSWERS["esc10"]}
    far = {"deeply": [("normal", "normal", 100)], "esc10": [("normal", "normal", 10), ("normal", "crying", 30)]}
    for answers, apart in ((near, False), (far, True)):
        assert cross_corpus.summary(matrix(answers))["recall"]["normal"]["apart"] is apart


def test_windows_are_scored_by_their_length():
    labels = np.repeat([0, 1, 2], 20)
    right, wrong = np.eye(3)[labels], np.eye(3)[(labels + 1) % 3]
    rows = pd.DataFrame({"label": np.array(config.CLASS_NAMES)[labels], "group_id": [f"g{i}" for i in range(60)]})
    rows = rows.assign(clip_id=rows.index, source="esc10", scheme="without_esc50", seconds=[5.0, 10.0] * 30)
    given = dict.fromkeys(("yamnet", "ensemble"), right) | {"wav2vec2": wrong}

    class Inputs:
        def left_out(self, kind):
            return (rows, given) if kind == "window" else (rows.iloc[:40], {n: v[:40] for n, v in given.items()})

    found = cross_corpus.run(Inputs())
    assert list(found.figures["windows"]) == ["5", "10"] and found.figures["scores"]["wav2vec2"]["n_clips"] == 40
    five = found.figures["windows"]["5"]
    assert (five["macro_f1"]["value"], five["macro_f1"]["n_clips"], five["macro_f1"]["n_groups"]) == (1.0, 30, 30)
    table = found.tables["left_out_scores"].set_index(["seconds", "model", "measure"])["value"]
    assert table["10", "wav2vec2", "macro F1"] == 0 and table["5", "ensemble", "recall screaming"] == 1


def test_the_heat_map_writes_value_and_n_into_every_cell_held(table):
    (figure,) = cross_corpus.draw({"cross_corpus": table}).values()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "0.75\nn = 4 / 1" in texts and any(text.startswith("0.80 [") and "n = 10 / 10" in text for text in texts)
    figure.canvas.draw()
    plots.close(figure)
