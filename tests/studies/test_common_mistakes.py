"""Common mistakes on data where the answer is known: a planted leak is optimistic, and no leak is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lib import config, ensemble
from lib.studies import common_mistakes as mistakes

N_FEATURES = 16
QUICK = {"n_repeats": 1, "seed": 3}


@pytest.fixture(autouse=True)
def small_scale(monkeypatch):
    monkeypatch.setattr(mistakes, "LEARNING_RATE", 0.02)  # its own is for thousands of rows
    monkeypatch.setattr(mistakes, "HEAD_EPOCHS", 12)
    monkeypatch.setattr(mistakes, "N_TREES", 40)


def rows_of(groups, labels):
    return pd.DataFrame({"clip_id": [f"clip{i}" for i in range(len(groups))], "label": labels, "group_id": groups})


def clips_of(rng, marks, *, n_patches=17, noise=0.5):
    """Return a clip for each mark (n_features,): the mark in every patch, and noise."""
    return [(mark + rng.normal(0, noise, (n_patches, N_FEATURES))).astype(np.float32) for mark in marks]


@pytest.fixture
def planted(rng):
    """Return rows and patches in which a group has a voice and a class, and one says nothing of the other."""
    groups = np.repeat([f"g{i}" for i in range(60)], 2)
    voices = rng.normal(0, 2, (60, N_FEATURES)).repeat(2, axis=0)
    labels = np.array(config.CLASS_NAMES)[rng.permutation(np.arange(60) % 3).repeat(2)]
    return rows_of(groups, labels), clips_of(rng, voices)


@pytest.fixture
def independent(rng):
    """Return rows and patches of one clip a group, a class showing faintly."""
    labels = np.array(config.CLASS_NAMES)[np.arange(240) % 3]
    marks = np.eye(3, N_FEATURES)[np.arange(240) % 3] * 0.5
    return rows_of([f"g{i}" for i in range(240)], labels), clips_of(rng, marks, n_patches=3)


def compared(key, pair):
    return mistakes.tabulate({key: pair}, n_bootstrap=200).iloc[0]


def test_windows_of_one_recording_on_both_sides_are_optimistic_where_a_group_is_recognised(planted):
    rows, patches = planted
    samples = mistakes.pool_samples(rows, [patches], window_patches=mistakes.WINDOW_PATCHES)
    assert len(samples.class_ids) == 3 * len(rows)  # patches 0-4, 6-10, 12-16 of 17
    row = compared("windows", mistakes.split_pair(samples, n_repeats=2, seed=3))
    assert row["usual"] > 0.95 and row["control_f1"] < 0.5
    assert row["difference_low"] > 0.4
    assert (row["n_rows"], row["n_clips"], row["n_groups"], row["n_repeats"]) == (360, 120, 60, 2)


def test_independent_rows_show_no_difference(independent):
    rows, patches = independent
    row = compared("windows", mistakes.split_pair(mistakes.pool_samples(rows, [patches]), n_repeats=3, seed=3))
    assert row["difference_low"] <= 0 <= row["difference_high"] and abs(row["difference"]) < 0.08


def test_a_copy_on_the_other_side_is_optimistic(rng):
    marks = rng.normal(0, 2, (90, N_FEATURES))
    rows = rows_of([f"g{i}" for i in range(90)], np.array(config.CLASS_NAMES)[rng.permutation(90) % 3])
    versions = [clips_of(rng, marks, n_patches=3), clips_of(rng, marks, n_patches=3)]
    row = compared("augmentation", mistakes.split_pair(mistakes.pool_samples(rows, versions), **QUICK))
    assert row["usual"] > 0.8 and row["control_f1"] < 0.5 and row["n_clips"] == 90


def test_one_clip_of_every_group_is_drawn(planted):
    rows = planted[0]
    places = mistakes.one_clip_per_group(rows, seed=1)
    assert sorted(rows.loc[places, "group_id"]) == sorted(set(rows["group_id"]))
    assert places.tolist() == mistakes.one_clip_per_group(rows, seed=1).tolist()
    assert places.tolist() != mistakes.one_clip_per_group(rows, seed=2).tolist()


def test_windows_cover_a_clip_without_sharing_a_patch():
    clip = np.arange(17.0)[:, None]
    windows = mistakes._windows(clip, 5)
    assert [window[:, 0].tolist() for window in windows] == [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10], [12, 13, 14, 15, 16]]
    assert [len(window) for window in mistakes._windows(clip[:3], 5)] == [3]
    assert [len(window) for window in mistakes._windows(clip, None)] == [17]


def test_a_forest_knows_its_own_rows_by_heart(planted, rng):
    rows = planted[0]
    blind = {name: rng.dirichlet([1, 1, 1], len(rows)) for name in ensemble.MODEL_NAMES}
    row = compared("meta", mistakes.meta_pair(rows, blind, **QUICK))
    assert row["usual"] > 0.98 and row["control_f1"] < 0.5


def test_two_class_orders_give_exactly_the_broken_average():
    labels = np.array(config.CLASS_NAMES)[np.arange(30) % 3]
    rows = rows_of([f"g{i}" for i in range(30)], labels)
    right = np.eye(3)[np.arange(30) % 3]
    sure = {"yamnet": right * 0.4 + 0.2, "wav2vec2": right * 0.7 + 0.1}
    pair = mistakes.class_order_pair(rows, sure)
    by_class = {label: pair.usual[pair.samples.class_ids == k][0] for k, label in enumerate(config.CLASS_NAMES)}
    assert by_class["crying"] == pytest.approx([0.7, 0.15, 0.15])  # first in both orders
    assert by_class["screaming"] == pytest.approx([0.15, 0.35, 0.5])  # the second network's falls to normal
    assert by_class["normal"] == pytest.approx([0.15, 0.5, 0.35])
    row = compared("class_order", pair)
    assert (row["control_f1"], row["usual"]) == (1.0, pytest.approx(1 / 3))
    assert row["difference_high"] < 0


def test_an_epoch_chosen_on_test_rows_is_optimistic_where_there_is_nothing_to_learn(independent, rng):
    rows, _ = independent
    noise = mistakes.pool_samples(rows, [clips_of(rng, np.zeros((len(rows), N_FEATURES)), n_patches=3)])
    row = compared("early_stopping", mistakes.early_stopping_pair(noise, n_epochs=12, **QUICK))
    assert row["difference_low"] > 0 and row["control_f1"] < 0.42, row["difference"]
    clear = np.eye(3, N_FEATURES)[np.arange(len(rows)) % 3] * 50
    easy = mistakes.pool_samples(rows, [clips_of(rng, clear, n_patches=3)])
    row = compared("early_stopping", mistakes.early_stopping_pair(easy, n_epochs=12, **QUICK))
    assert row["control_f1"] > 0.99 and row["difference"] < 0.01


def test_intervals_over_groups_and_repeats_hold_the_value_and_grow_with_the_repeats_unlike(rng):
    class_ids = np.arange(120) % 3
    samples = mistakes.Samples(np.empty((120, 0)), class_ids, np.arange(120), (np.arange(120) // 2).astype(str))
    right, wrong = np.eye(3)[class_ids], np.eye(3)[(class_ids + 1) % 3]
    mixed = np.where(rng.random((120, 1)) < 0.5, right, wrong)
    alike = mistakes.compare(mistakes.Pair(samples, np.concatenate([mixed] * 4), np.concatenate([mixed] * 4)))
    assert alike["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert alike["usual"]["low"] < alike["usual"]["value"] < alike["usual"]["high"]
    unlike = np.concatenate([right, wrong, right, wrong])
    torn = mistakes.compare(mistakes.Pair(samples, unlike, np.concatenate([mixed] * 4)))["difference"]
    one = mistakes.compare(mistakes.Pair(samples, mixed, right))["difference"]
    assert torn["low"] < 0 < torn["high"] and torn["high"] - torn["low"] > 2 * (one["high"] - one["low"])
    assert one["high"] < 0
    few = mistakes.Samples(samples.features, class_ids, samples.clip_ids, np.array(["a", "b", "c"])[class_ids])
    assert mistakes.compare(mistakes.Pair(few, mixed, right))["difference"]["low"] is None


def test_the_drawing_shows_every_recipe_with_both_numbers():
    from matplotlib import pyplot as plt

    numbers = {
        "usual": 0.9,
        "usual_low": 0.85,
        "usual_high": 0.95,
        "control_f1": 0.6,
        "control_f1_low": 0.5,
        "n_groups": 60,
    }
    numbers |= {"control_f1_high": np.nan, "difference": 0.3, "difference_low": 0.2, "difference_high": 0.4}
    table = pd.DataFrame([{"mistake": name} | numbers for name in ("Copies", "Windows")])
    fig, ax = plt.subplots()
    mistakes.draw_differences(ax, table)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["Copies", "Windows"]
    texts = [text.get_text() for text in ax.texts]
    assert len(texts) == 2 and all("+0.300" in text for text in texts)
    plt.close(fig)


def test_every_mistake_is_rebuilt_the_same_each_time(planted, rng):
    rows, patches = planted
    networks = {name: rng.dirichlet([1, 1, 1], len(rows)) for name in ensemble.MODEL_NAMES}
    options = {"tested": rows, "networks": networks, "n_repeats": 1, "n_epochs": 3}
    first, again = (
        mistakes.tabulate(mistakes.build_pairs(rows, patches, copies=[patches], **options), n_bootstrap=50)
        for _ in range(2)
    )
    assert first["key"].tolist() == list(mistakes.MISTAKES) and not first.isna().any().any()
    assert first["difference"].to_numpy() == pytest.approx((first["usual"] - first["control_f1"]).to_numpy())
    pd.testing.assert_frame_equal(first, again)
    with pytest.raises(ValueError, match="copies"):
        mistakes.build_pairs(rows, patches, copies=[], **options)
