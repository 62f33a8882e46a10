"""Common mistakes on data where the answer is known: a planted leak is optimistic, and no leak is not."""

import numpy as np
import pandas as pd
import pytest

from lib import config, ensemble, plots
from lib.studies import common_mistakes as mistakes

N_FEATURES = 64
LABELS = np.array(config.CLASS_NAMES)


@pytest.fixture(autouse=True)
def small_scale(monkeypatch):
    monkeypatch.setattr(mistakes, "HEAD_C", 10.0)  # its own is for thousands of features
    monkeypatch.setattr(mistakes, "LEARNING_RATE", 0.02)
    monkeypatch.setattr(mistakes, "N_EPOCHS", 12)
    monkeypatch.setattr(mistakes, "N_TREES", 40)
    monkeypatch.setattr(mistakes, "N_REPEATS", 1)


def rows_of(groups, class_ids):
    facts = {"clip_id": [f"clip{i}" for i in range(len(groups))], "group_id": [f"g{group}" for group in groups]}
    return pd.DataFrame(facts | {"label": LABELS[class_ids]})


@pytest.fixture
def planted(rng):
    """Return 240 rows of 60 groups and features: a group has a voice and a class, which say nothing of each other."""
    groups = np.repeat(np.arange(60), 4)
    voices, class_ids = rng.normal(0, 2, (60, N_FEATURES)), rng.permutation(np.arange(60) % 3)
    return rows_of(groups, class_ids[groups]), voices[groups] + rng.normal(0, 0.5, (240, N_FEATURES))


@pytest.fixture
def independent(rng):
    """Return 240 rows, each a group of its own, and features in which the class shows faintly."""
    class_ids = np.arange(240) % 3
    return rows_of(np.arange(240), class_ids), np.eye(3, 8)[class_ids] + rng.normal(0, 1, (240, 8))


def compared(key, pair):
    return mistakes.tabulate({key: pair}).iloc[0]


def split(rows, features):
    return mistakes.fold_pair(rows, features, mistakes.linear, usual=mistakes.at_random)


def test_a_recording_or_its_copy_on_both_sides_is_optimistic_where_a_group_is_recognised(planted):
    row = compared("windows", split(*planted))
    assert row["usual"] > 0.9 and row["control_f1"] < 0.5 and row["difference_low"] > 0.3
    assert (row["n_rows"], row["n_clips"], row["n_groups"], row["n_repeats"]) == (240, 240, 60, 1)


def test_independent_rows_show_no_difference(independent, monkeypatch):
    monkeypatch.setattr(mistakes, "N_REPEATS", 5)
    row = compared("windows", split(*independent))
    assert row["difference_low"] <= 0 <= row["difference_high"] and abs(row["difference"]) < 0.08


def test_one_clip_of_every_group_is_drawn(planted):
    rows = planted[0]
    places = mistakes.one_clip_per_group(rows, seed=1)
    assert sorted(rows.loc[places, "group_id"]) == sorted(set(rows["group_id"]))
    assert places.tolist() != mistakes.one_clip_per_group(rows, seed=2).tolist()


def test_windows_share_no_sample():
    n = mistakes.WINDOW_SAMPLES
    clip = np.arange(3 * n - 1)
    assert [window[0] for window in mistakes.cut(clip)] == [0, n] and {len(w) for w in mistakes.cut(clip)} == {n}
    assert [len(window) for window in mistakes.cut(clip[:100])] == [100]


def test_a_forest_knows_its_own_rows_by_heart(planted, rng):
    rows = planted[0]
    blind = ensemble.meta_features({name: rng.dirichlet([1, 1, 1], len(rows)) for name in ensemble.MODEL_NAMES})
    pair = mistakes.fold_pair(rows, blind, mistakes.forest, usual=mistakes.same_rows)
    row = compared("meta", pair)
    assert row["usual"] > 0.98 and row["control_f1"] < 0.5


def test_two_class_orders_give_exactly_the_broken_average():
    class_ids = np.arange(30) % 3
    right = np.eye(3)[class_ids]
    sure = {"yamnet": right * 0.4 + 0.2, "wav2vec2": right * 0.7 + 0.1}
    pair = mistakes.class_order_pair(rows_of(np.arange(30), class_ids), sure)
    assert pair.usual[0, 0] == pytest.approx([0.7, 0.15, 0.15])  # crying: first in both orders
    assert pair.usual[0, 1] == pytest.approx([0.15, 0.35, 0.5])  # screaming: the second network's falls to normal
    assert pair.usual[0, 2] == pytest.approx([0.15, 0.5, 0.35])
    row = compared("class_order", pair)
    assert (row["control_f1"], row["usual"]) == (1.0, pytest.approx(1 / 3)) and row["difference_high"] < 0


def test_an_epoch_chosen_on_test_rows_is_optimistic_where_there_is_nothing_to_learn(independent, rng):
    rows, _ = independent
    noise = rng.normal(0, 1, (len(rows), 8))
    row = compared("early_stopping", mistakes.early_stopping_pair(rows, noise))
    assert row["difference_low"] > 0 and row["control_f1"] < 0.42, row["difference"]
    clear = np.eye(3)[np.arange(len(rows)) % 3] * 50
    row = compared("early_stopping", mistakes.early_stopping_pair(rows, clear))
    assert row["control_f1"] > 0.99 and row["difference"] < 0.01


def test_intervals_over_groups_and_repeats_hold_the_value_and_grow_with_the_repeats_unlike(rng):
    class_ids = np.arange(120) % 3
    rows = rows_of(np.arange(120) // 2, class_ids)
    right, wrong = np.eye(3)[class_ids], np.eye(3)[(class_ids + 1) % 3]
    mixed = np.where(rng.random((120, 1)) < 0.5, right, wrong)

    def compare(usual, control, frame=rows):
        return mistakes.compare(mistakes.Pair(frame, np.stack(usual), np.stack(control)))

    alike = compare([mixed] * 4, [mixed] * 4)
    assert alike["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert alike["usual"]["low"] < alike["usual"]["value"] < alike["usual"]["high"]
    torn = compare([right, wrong, right, wrong], [mixed] * 4)["difference"]
    one = compare([mixed], [right])["difference"]
    assert torn["low"] < 0 < torn["high"] and torn["high"] - torn["low"] > 2 * (one["high"] - one["low"])
    assert one["high"] < 0
    assert compare([mixed], [right], rows.assign(group_id=class_ids.astype(str)))["difference"]["low"] is None


def test_every_mistake_of_the_table_is_drawn_the_same_each_time(planted):
    table, again = (mistakes.tabulate({"windows": split(*planted), "meta": split(*planted)}) for _ in range(2))
    pd.testing.assert_frame_equal(table, again)
    assert table["difference"].to_numpy() == pytest.approx((table["usual"] - table["control_f1"]).to_numpy())
    figure = mistakes.draw({"common_mistakes": table})["common_mistakes"]
    assert len(figure.axes[0].get_yticks()) == 2
    plots.close(figure)
