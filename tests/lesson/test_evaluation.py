import numpy as np
import pytest

from lib import config, evaluation


def one_hot(class_ids):
    return np.eye(3)[np.asarray(class_ids)]


def sharp(class_ids, confidence=0.8):
    return one_hot(class_ids) * confidence + (1 - confidence) / 3


def test_a_perfect_classifier_scores_one_with_an_interval_of_no_width_where_groups_are_enough():
    class_ids = np.repeat([0, 1, 2], 20)
    result = evaluation.score(one_hot(class_ids), class_ids, [f"g{i // 2}" for i in range(60)])
    assert (result["n_clips"], result["n_groups"]) == (60, 30)
    for figure in (result["accuracy"], result["macro_f1"], result["per_class"]["screaming"]["f1"]):
        assert figure == {"value": 1.0, "low": 1.0, "high": 1.0}
    few = np.where(class_ids == 1, "one singer", np.arange(60).astype(str))
    result = evaluation.score(sharp(class_ids), class_ids, few)
    assert result["per_class"]["screaming"]["recall"] == {"value": 1.0, "low": None, "high": None}
    assert result["per_class"]["crying"]["recall"]["low"] == 1.0
    alone = evaluation.score(sharp(class_ids), class_ids, ["one"] * 60)["accuracy"]
    assert alone == {"value": 1.0, "low": None, "high": None}


def test_confusion_and_figures_equal_those_by_hand():
    true, predicted = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2]), np.array([0, 0, 2, 1, 0, 2, 2, 2, 2, 1])
    counts = evaluation.confusion(sharp(predicted), true)
    assert counts.tolist() == [[2, 0, 1], [1, 1, 0], [0, 1, 4]]
    result = evaluation.score(sharp(predicted), true, [str(i) for i in range(10)])
    crying = result["per_class"]["crying"]
    assert crying["precision"]["value"] == pytest.approx(2 / 3)
    assert crying["recall"]["value"] == pytest.approx(2 / 3)
    assert result["per_class"]["screaming"]["f1"]["value"] == pytest.approx(1 / 2)
    assert result["accuracy"]["value"] == pytest.approx(0.7)
    assert result["macro_f1"]["value"] == pytest.approx((2 / 3 + 1 / 2 + 0.8) / 3)


def test_a_class_never_predicted_has_precision_zero_not_nan():
    class_ids = np.array([0, 1, 2, 2])
    result = evaluation.score(sharp([0, 2, 2, 2]), class_ids, list("abcd"))
    assert result["accuracy"]["low"] is None  # four groups are too few for an interval
    assert result["per_class"]["screaming"]["precision"]["value"] == 0.0
    assert result["macro_f1"]["value"] == pytest.approx((1 + 0 + 0.8) / 3)


def test_a_class_without_clips_has_no_recall_and_no_place_in_macro_f1():
    class_ids = np.repeat([0, 2], 10)
    result = evaluation.score(sharp(class_ids), class_ids, [str(i) for i in range(20)])
    assert result["macro_f1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert result["per_class"]["screaming"]["recall"] == {"value": None, "low": None, "high": None}
    assert set(evaluation.roc_curves(sharp(class_ids), class_ids)) == {"crying", "normal"}
    # Nor does a resample without a class count against it.
    class_ids = np.array([0] * 20 + [1] * 5 + [2] * 20)
    result = evaluation.score(sharp(class_ids), class_ids, [str(i) for i in range(45)])
    assert result["per_class"]["screaming"]["recall"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_groups_widen_the_interval_of_clips_that_go_together(rng):
    class_ids = np.repeat([0, 1, 2], 100)
    groups = np.array([f"g{i // 10}" for i in range(300)])
    wrong = rng.random(30).repeat(10) < 0.3  # whole groups are right or wrong
    probabilities = sharp(np.where(wrong, (class_ids + 1) % 3, class_ids))
    by_group = evaluation.score(probabilities, class_ids, groups)["accuracy"]
    by_clip = evaluation.score(probabilities, class_ids, np.arange(300).astype(str))["accuracy"]
    assert by_group["high"] - by_group["low"] > 2 * (by_clip["high"] - by_clip["low"])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(3), 0
    class_ids = np.repeat([0, 1, 2], 60)
    groups = np.array([f"g{i // 3}" for i in range(180)])
    for trial in range(100):
        right = (rng.random(60) < 0.8).repeat(3)
        result = evaluation.score(
            sharp(np.where(right, class_ids, (class_ids + 1) % 3)), class_ids, groups, n_bootstrap=300, seed=trial
        )["accuracy"]
        covered += result["low"] <= 0.8 <= result["high"]
    assert 86 <= covered <= 100


def test_same_seed_same_interval_other_seed_other_interval(rng):
    class_ids = rng.integers(0, 3, 90)
    probabilities = rng.dirichlet([1, 1, 1], 90)
    groups = rng.integers(0, 30, 90).astype(str)
    first = evaluation.score(probabilities, class_ids, groups, seed=1)
    assert first == evaluation.score(probabilities, class_ids, groups, seed=1)
    assert first["macro_f1"] != evaluation.score(probabilities, class_ids, groups, seed=2)["macro_f1"]


def test_paired_difference_is_zero_against_itself_and_clear_against_a_worse_one(rng):
    class_ids = rng.integers(0, 3, 300)
    groups = (np.arange(300) // 2).astype(str)
    good = sharp(class_ids)
    bad = sharp(np.where(rng.random(300) < 0.3, (class_ids + 1) % 3, class_ids))
    same = evaluation.paired_difference(good, good, class_ids, groups)
    assert (same["value"], same["low"], same["high"], same["p_above_zero"]) == (0, 0, 0, 0)
    assert evaluation.paired_difference(good, bad, class_ids, groups)["low"] > 0.2
    assert evaluation.paired_difference(bad, good, class_ids, groups)["high"] < -0.2


def test_curves_of_a_perfect_and_of_a_blind_classifier(rng):
    class_ids = np.repeat([0, 1, 2], 200)
    for curve in evaluation.roc_curves(sharp(class_ids), class_ids).values():
        assert curve.area == 1.0 and curve.n_positive == 200 and curve.n_negative == 400
    blind = rng.dirichlet([1, 1, 1], 600)
    for curve in evaluation.roc_curves(blind, class_ids).values():
        assert abs(curve.area - 0.5) < 0.1
    for curve in evaluation.pr_curves(blind, class_ids).values():
        assert abs(curve.area - 1 / 3) < 0.1
        assert (np.diff(curve.x) >= 0).all()


@pytest.mark.parametrize(
    ("probabilities", "class_ids", "groups"),
    [
        (np.full((2, 3), 0.5), [0, 1], ["a", "b"]),
        (np.full((2, 3), np.nan), [0, 1], ["a", "b"]),
        (np.full((2, 2), 0.5), [0, 1], ["a", "b"]),
        (np.full((2, 3), 1 / 3), [0, 3], ["a", "b"]),
        (np.full((2, 3), 1 / 3), [0, 1], ["a"]),
        (np.empty((0, 3)), [], []),
    ],
)
def test_what_cannot_be_scored_is_refused(probabilities, class_ids, groups):
    with pytest.raises(ValueError, match=r"probabilities|class ids|groups|row"):
        evaluation.score(probabilities, np.array(class_ids, dtype=int), groups)


def test_table_has_a_row_a_model_and_split():
    result = evaluation.score(sharp([0, 1, 2]), np.array([0, 1, 2]), list("abc"))
    rows = evaluation.macro_f1_table({"yamnet": {"validation": result, "test": result}})
    assert [(row["model"], row["split"]) for row in rows] == [("yamnet", "validation"), ("yamnet", "test")]
    assert {f"f1_{label}" for label in config.CLASS_NAMES} <= set(rows[0])


def test_one_bootstrap_serves_every_figure_of_summed_counts():
    by_group = np.array([[3.0, 4], [1, 2], [0, 1], [2, 2], [5, 9], [1, 1]])  # right, all
    found = evaluation.bootstrap(by_group, lambda counts: counts[..., 0] / counts[..., 1], n_bootstrap=500)
    assert found["value"] == pytest.approx(12 / 19)
    assert found["low"] < found["value"] < found["high"]
    nobody = evaluation.bootstrap(np.empty((0, 2)), lambda counts: counts[..., 0])
    assert nobody == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize(
    ("figure", "options", "text"),
    [
        ({"value": 0.98, "low": 0.96, "high": 0.9951}, {}, "0.980 [0.960, 0.995]"),
        ({"value": 0.98, "low": None, "high": None}, {"digits": 2}, "0.98"),
        ({"value": 0.01, "low": float("nan"), "high": float("nan")}, {"sign": True}, "+0.010"),
        ({"value": -0.01, "low": -0.02, "high": 0.0}, {"sign": True, "digits": 2}, "-0.01 [-0.02, +0.00]"),
        ({"value": None, "low": None, "high": None}, {}, "no value"),
    ],
)
def test_a_figure_and_its_interval_are_written_in_one_way(figure, options, text):
    assert evaluation.format_interval(figure, **options) == text
