"""Spread over seeds on answers whose macro F1 is known by construction."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lib import config, evaluation
from lib.studies import spread

N_CLIPS = 300


@pytest.fixture
def truth():
    """Return 300 clips, 100 a class, 2 a group."""
    return spread.Truth(np.repeat([0, 1, 2], 100), (np.arange(N_CLIPS) // 2).astype(str), n_bootstrap=300)


def answers(truth, wrong):
    """Return probabilities that are wrong on the clips `wrong`, by one class up."""
    predicted = truth.class_ids.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 3
    return np.eye(3)[predicted] * 0.7 + 0.1


def spaced(n_wrong, start=0):
    """Return n_wrong clips of each class, spread evenly, from `start`."""
    return [100 * k + (start + i * 100 // n_wrong) % 100 for k in range(3) for i in range(n_wrong)]


def one(table, measure="macro F1"):
    rows = table[table["measure"] == measure]
    assert len(rows) == 1
    return rows.iloc[0]


def test_seeds_that_err_on_1_2_and_3_in_ten_have_mean_and_deviation_by_hand(truth):
    """Wrong shares that are equal in every class make macro F1 one less the share: 0.9, 0.8, 0.7."""
    models = {"net": {seed: answers(truth, spaced(10 * n)) for seed, n in ((7, 1), (8, 2), (9, 3))}}
    row = one(spread.over_seeds(models, truth))
    assert row["mean"] == pytest.approx(0.8) and row["sd"] == pytest.approx(0.1)
    assert row["first"] == pytest.approx(0.9)
    reach = 4.302653 * 0.1 / math.sqrt(3)  # Student's t of 2 degrees of freedom, 97.5 %
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx((0.8 - reach, 0.8 + reach), abs=1e-5)
    assert (row["n_seeds"], row["n_clips"], row["n_groups"]) == (3, 300, 150)


def test_the_first_seed_carries_the_interval_that_score_gives(truth):
    first = answers(truth, spaced(10))
    row = one(spread.over_seeds({"net": {1: first, 2: answers(truth, spaced(20))}}, truth))
    expected = evaluation.score(first, truth.class_ids, truth.groups, n_bootstrap=300)["macro_f1"]
    assert {"value": row["first"], "low": row["first_low"], "high": row["first_high"]} == expected


def test_equal_seeds_make_no_variance_and_the_groups_all_of_it(truth):
    same = answers(truth, spaced(10))
    table = spread.over_seeds({"net": {1: same, 2: same, 3: same}}, truth)
    row = one(table)
    assert row["sd"] == 0 and row["share_of_seeds"] == 0 and row["sd_groups"] > 0.005
    assert (row["groups_low"], row["groups_high"]) == pytest.approx((row["first_low"], row["first_high"]))
    assert set(table["measure"]) == {"macro F1", *(f"F1 {label}" for label in config.CLASS_NAMES)}


def test_where_all_groups_are_alike_the_seed_makes_all_of_the_variance(truth):
    """Every group is one right and one wrong clip, or two right: no resample differs within a seed."""
    half = [i for i in range(N_CLIPS) if i % 2]
    table = spread.over_seeds({"net": {1: answers(truth, half), 2: answers(truth, [])}}, truth)
    assert one(table)["share_of_seeds"] > 0.99


def test_seeds_far_apart_widen_the_spread_and_hide_a_difference(truth):
    steady = {seed: answers(truth, spaced(10, start=seed)) for seed in (1, 2, 3)}
    wild = {1: answers(truth, spaced(5)), 2: answers(truth, spaced(20)), 3: answers(truth, spaced(50))}
    bad = {seed: answers(truth, spaced(30 + seed, start=seed)) for seed in (1, 2, 3)}
    pairs = spread.differences({"steady": steady, "wild": wild, "bad": bad}, truth).set_index(
        ["first_model", "second_model"]
    )
    clear, hidden = pairs.loc[("steady", "bad")], pairs.loc[("steady", "wild")]
    assert clear["mean"] == pytest.approx(0.22) and clear["sd"] == pytest.approx(0.01, abs=1e-3)
    assert clear["exceeds_seeds"] and clear["exceeds_groups"]
    assert hidden["mean"] == pytest.approx(0.15) and not hidden["exceeds_seeds"] and hidden["exceeds_groups"]


def test_seeds_that_agree_do_not_make_up_for_few_test_clips():
    """One clip of ten decides: the seeds repeat it exactly, the test groups do not vouch for it."""
    truth = spread.Truth(np.repeat([0, 1, 2], 10), np.arange(30).astype(str), n_bootstrap=300)
    better, worse = answers(truth, []), answers(truth, [0])
    row = spread.differences({"a": {1: better, 2: better}, "b": {1: worse, 2: worse}}, truth).iloc[0]
    assert row["exceeds_seeds"] and not row["exceeds_groups"]


def test_a_model_does_not_differ_from_itself(truth):
    by_seed = {1: answers(truth, spaced(10)), 2: answers(truth, spaced(20))}
    row = spread.differences({"a": by_seed, "b": dict(by_seed)}, truth).iloc[0]
    assert row["mean"] == 0 and not row["exceeds_seeds"] and not row["exceeds_groups"]


def test_one_run_has_no_spread(truth):
    with pytest.raises(ValueError, match="seed"):
        spread.over_seeds({"net": {1: answers(truth, [])}}, truth)


def test_too_few_groups_carry_no_interval():
    truth = spread.Truth(np.array([0, 1, 2, 2]), np.array(list("abcd")), n_bootstrap=50)
    models = {"net": {1: answers(truth, []), 2: answers(truth, [3])}}
    row = one(spread.over_seeds(models, truth))
    assert row["first_low"] is None and row["groups_low"] is None and row["sd"] > 0


def test_the_study_reads_the_seeds_and_combines_them(truth, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "STUDIES_DIR", tmp_path)
    (tmp_path / "tables").mkdir()
    rows = pd.DataFrame({"clip_id": np.arange(len(truth.class_ids)), "group_id": truth.groups})
    rows["label"] = np.array(config.CLASS_NAMES)[truth.class_ids]
    tables = [
        rows.assign(
            **dict(zip(config.CLASS_NAMES, answers(truth, spaced(10, start=seed)).T, strict=True)), seed=seed
        ).assign(model=name)
        for name in ("yamnet", "wav2vec2")
        for seed in (7, 8)
    ]
    pd.concat(tables).to_csv(tmp_path / "tables" / "seeds.csv", index=False)

    class Inputs:
        def rows(self, _):
            return rows

        def combine(self, members):
            return members | {"ensemble": (members["yamnet"] + members["wav2vec2"]) / 2}

    found = spread.run(Inputs())
    assert found.figures["seeds"] == dict.fromkeys(("yamnet", "wav2vec2", "ensemble"), [7, 8])
    table = found.tables["spread"]
    assert table.loc[table["measure"] == "macro F1", "mean"].tolist() == pytest.approx([0.9] * 3)
    assert set(found.tables) == {"spread", "spread_differences"}
    assert spread.draw(found.tables).keys() == {"spread"}
