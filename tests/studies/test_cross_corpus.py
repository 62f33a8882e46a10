"""The matrix of sources never met, on answers whose recall, macro F1 and false alarms are counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from lib import config, evaluation, plots, splits
from lib.studies import cross_corpus, sources_plots

# source: [(true class, answered class, clips)]; every clip is a group of its own unless said otherwise
ANSWERS = {
    "deeply": [("screaming", "screaming", 8), ("screaming", "normal", 2), ("normal", "normal", 30)],
    "donateacry": [("crying", "crying", 18), ("crying", "screaming", 2)],
    "esc10": [("normal", "normal", 15), ("normal", "crying", 5)],
    "giulbia": [("crying", "crying", 3), ("crying", "normal", 1)],  # of the family esc50, one group
}


def answer_rows(answers, model="yamnet"):
    rows = []
    for source, cells in answers.items():
        for true, answered, n in cells:
            for _ in range(n):
                group = source if source == "giulbia" else f"{source}:{len(rows)}"
                row = {"clip_id": f"{source}-{len(rows)}", "group_id": group, "source": source, "label": true}
                rows.append(row | {name: 0.8 if name == answered else 0.1 for name in config.CLASS_NAMES})
    table = pd.DataFrame(rows)
    scheme = splits.LEFT_OUT + splits.corpus_group(table["source"])
    return table.assign(scheme=scheme, split="test", model=model)


@pytest.fixture(scope="module")
def table():
    both = [answer_rows(ANSWERS), answer_rows({"donateacry": [("crying", "normal", 20)]}, "wav2vec2")]
    return cross_corpus.matrix(pd.concat(both), n_bootstrap=300)


def figure(table, place, measure, label="all", model="yamnet"):
    family, source = place
    rows = table[(table["family"] == family) & (table["source"] == source) & (table["model"] == model)]
    rows = rows[(rows["measure"] == measure) & (rows["label"] == label)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_there_is_a_part_for_everything_each_family_and_each_source_within_it(table):
    parts = table[table["model"] == "yamnet"][["family", "source"]].drop_duplicates()
    assert [tuple(row) for row in parts.to_numpy()] == [
        ("all", "all"), ("deeply", "all"), ("deeply", "deeply"), ("donateacry", "all"), ("donateacry", "donateacry"),
        ("esc50", "all"), ("esc50", "esc10"), ("esc50", "giulbia"),
    ]  # fmt: skip
    assert tuple(table.columns) == cross_corpus.COLUMNS


def test_recall_and_false_alarms_are_those_counted_by_hand_with_their_n(table):
    recall = figure(table, ("deeply", "deeply"), "recall", "screaming")
    assert (recall["value"], recall["n_clips"], recall["n_groups"]) == (0.8, 10, 10)
    assert recall["low"] < 0.8 < recall["high"]
    alarms = figure(table, ("esc50", "esc10"), "false alarms", "crying")
    assert (alarms["value"], alarms["n_clips"]) == (0.25, 20)
    pooled = figure(table, ("all", "all"), "false alarms", "crying")  # 5 of all that is no cry
    assert (pooled["value"], pooled["n_clips"]) == (5 / 60, 60)
    family = figure(table, ("esc50", "all"), "recall", "crying")
    assert (family["value"], family["n_clips"], family["n_groups"]) == (0.75, 4, 1)


def test_macro_f1_is_over_the_classes_held_and_a_foreign_answer_is_a_miss(table):
    """Two of 20 cries are answered screaming: F1 of crying is 2 * 18 / (20 + 18), no other class counts."""
    assert figure(table, ("donateacry", "all"), "macro F1")["value"] == pytest.approx(36 / 38)
    f1 = {"screaming": 16 / 18, "normal": 60 / 62}
    assert figure(table, ("deeply", "all"), "macro F1")["value"] == pytest.approx(np.mean(list(f1.values())))
    held = table[(table["source"] == "donateacry") & (table["measure"] == "recall")]
    assert set(held["label"]) == {"crying"}


def test_the_pooled_row_is_what_score_gives_on_all_clips(table):
    rows = answer_rows(ANSWERS)
    class_ids = rows["label"].map(config.CLASS_ID).to_numpy()
    probabilities = rows[list(config.CLASS_NAMES)].to_numpy()
    expected = evaluation.score(probabilities, class_ids, rows["group_id"].to_numpy(), n_bootstrap=300)["macro_f1"]
    pooled = figure(table, ("all", "all"), "macro F1")
    assert {name: pooled[name] for name in ("value", "low", "high")} == pytest.approx(expected)


def test_one_group_carries_no_interval_and_no_error_carries_an_exact_one(table):
    assert np.isnan(figure(table, ("esc50", "giulbia"), "recall", "crying")["low"])
    perfect = figure(table, ("deeply", "deeply"), "recall", "normal")  # 30 of 30 groups
    assert (perfect["value"], perfect["high"]) == (1.0, 1.0)
    assert perfect["low"] == pytest.approx(0.025 ** (1 / 30))
    none = figure(table, ("deeply", "deeply"), "false alarms", "crying")
    assert (none["value"], none["low"]) == (0.0, 0.0) and none["high"] == pytest.approx(1 - 0.025 ** (1 / 40))


def test_a_source_met_in_training_is_refused():
    rows = answer_rows(ANSWERS)
    rows.loc[rows["source"] == "giulbia", "scheme"] = "without_giulbia"  # its family was in training
    with pytest.raises(ValueError, match="giulbia"):
        cross_corpus.matrix(rows)


def test_the_read_out_names_worst_and_best_and_what_is_too_small(table):
    said = cross_corpus.read_out(table, "yamnet")
    text = "\n".join(said)
    assert "3 families" in said[0] and "3 of the 4 sources hold one class alone" in said[0]
    assert "Recall of normal is lowest on esc10, 0.75" in text and "highest on deeply, 1.00" in text
    assert "Too few groups of crying to say anything: giulbia (4 clips, 1 group)." in text
    assert "donateacry holds 83% of these clips" in text
    assert "the most by source: esc10, 0.25" in text
    assert "Recall of crying is lowest" not in text  # one source alone has groups enough


def test_the_read_out_says_whether_the_intervals_part():
    near = {"deeply": [("normal", "normal", 28), ("normal", "crying", 2)], "esc10": ANSWERS["esc10"]}
    far = {"deeply": [("normal", "normal", 100)], "esc10": [("normal", "normal", 10), ("normal", "crying", 30)]}
    for answers, verdict in ((near, "the intervals overlap"), (far, "the intervals do not overlap")):
        table = cross_corpus.matrix(answer_rows(answers), n_bootstrap=300)
        assert verdict in "\n".join(cross_corpus.read_out(table, "yamnet"))


def test_the_section_keeps_every_model_apart_and_is_plain_json():
    both = pd.concat([answer_rows(ANSWERS), answer_rows({"donateacry": [("crying", "normal", 20)]}, "wav2vec2")])
    section = cross_corpus.findings(both, chosen="yamnet", n_bootstrap=50)
    figures = json.loads(json.dumps(section.figures))
    assert figures["pooled"]["wav2vec2"]["recall"]["crying"]["value"] == 0.0
    assert figures["pooled"]["yamnet"]["recall"]["crying"]["value"] == 21 / 24
    assert (figures["n_clips"], figures["n_groups"], figures["n_families"], figures["n_sources"]) == (84, 81, 3, 4)
    overview = section.tables["cross_corpus_overview"].set_index("source")
    assert overview.loc["giulbia", "recall, crying"] == "0.75"
    assert overview.loc["donateacry", "recall, normal"] == ""
    with pytest.raises(ValueError, match="average"):
        cross_corpus.findings(both, chosen="average", n_bootstrap=50)


def test_the_heat_map_writes_value_and_n_into_every_cell_held(table):
    rows = cross_corpus.recalls(table, "yamnet")
    figure, ax = plots.subplots(height_inches=3)
    sources_plots.draw_cross_corpus(ax, rows)
    texts = [text.get_text() for text in ax.texts]
    assert len(texts) == len(rows) == 5
    assert "0.75\nn = 4 / 1" in texts and any(text.startswith("0.80 [") and "n = 10 / 10" in text for text in texts)
    figure.canvas.draw()
    plots.close(figure)
