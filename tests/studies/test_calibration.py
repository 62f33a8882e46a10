"""Calibration on data whose answer is known: labels drawn from the probabilities, sharpened ones, perfect ones."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib import config, ensemble, plots
from lib.studies import calibration


def drawn(n, rng):
    """Return probabilities and labels drawn from them: calibrated by construction."""
    probabilities = rng.dirichlet((1.0, 1.0, 1.0), size=n)
    return probabilities, (rng.random(n)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)


def ece(probabilities, class_ids):
    bins = calibration.reliability(*calibration.top_class(probabilities, class_ids))
    return float(np.average((bins["confidence"] - bins["accuracy"]).abs(), weights=bins["n"]))


def own_groups(n):
    return np.arange(n).astype(str)


@pytest.fixture(scope="module")
def found():
    """Return the findings of a model that is surer of validation and test clips than of the others."""
    given, rng = {}, np.random.default_rng(7)
    for split, sharpness in (("validation", 0.4), ("test", 0.4), ("left_out", 0.8)):
        probabilities, class_ids = drawn(1500, rng)
        groups = np.repeat(own_groups(500), 3)
        rows = pd.DataFrame({"label": np.array(config.CLASS_NAMES)[class_ids], "group_id": groups})
        given[split] = rows, {"ensemble": ensemble.apply_temperature(probabilities, sharpness)}
    predictions = {f"{name}_predictions": given[name][1] for name in ("validation", "test")}
    inputs = SimpleNamespace(rows=lambda name: given[name][0], left_out=lambda kind: given["left_out"], **predictions)
    return calibration.run(inputs)


def test_the_temperature_that_sharpened_is_found_again_and_undoes_it(found):
    assert found.figures["temperatures"]["ensemble"] == pytest.approx(2.5, abs=0.2)
    value = found.tables["calibration_measures"].query("split == 'test'").set_index(["state", "measure"])["value"]
    assert value["before", "ece"] > 0.08 > 0.04 > value["after", "ece"]
    assert value["after", "log_loss"] < value["before", "log_loss"]


def test_bins_and_ece_equal_those_by_hand(monkeypatch):
    monkeypatch.setattr(calibration, "N_BINS", 10)
    bins = calibration.reliability(np.array([0.0, 0.55, 0.58, 1.0, 0.9]), np.array([False, True, False, True, True]))
    assert bins["n"].tolist() == [1, 2, 1, 1] and bins["accuracy"].tolist() == [0, 0.5, 1, 1]
    assert bins["low"].tolist() == [0, 0.5, 0.8, 0.9] and bins["confidence"].tolist() == [0, 0.565, 0.9, 1]
    probabilities = np.array([[0.55, 0.45, 0], [0.58, 0.42, 0], [0.95, 0.05, 0], [0.95, 0, 0.05]])
    table = calibration.measures(probabilities, np.array([0, 1, 0, 0]), list("abcd"))
    assert table.set_index("measure").loc["ece", "value"] == pytest.approx(0.5 * 0.065 + 0.5 * 0.05)


def test_brier_and_log_loss_equal_those_by_hand():
    truth = np.repeat([0, 1, 2], 4)
    perfect = calibration.measures(np.eye(3)[truth], truth, own_groups(12)).set_index("measure")
    assert perfect.loc["brier", "value"] == 0 and perfect.loc["log_loss", "value"] == pytest.approx(0)
    wrong = calibration.measures(np.eye(3)[(truth + 1) % 3], truth, own_groups(12))
    assert wrong.set_index("measure").loc["brier", "value"] == 2
    even = calibration.measures(np.full((12, 3), 1 / 3), truth, own_groups(12)).set_index("measure")
    assert even.loc["brier", "value"] == pytest.approx(2 / 3)
    assert even.loc["log_loss", "value"] == pytest.approx(np.log(3))


def test_the_interval_of_the_error_covers_the_truth_about_as_often_as_it_says():
    true = ece(*sharpened(np.random.default_rng(1), 200_000))
    rng, n_covered = np.random.default_rng(5), 0
    for _ in range(40):
        probabilities, class_ids = sharpened(rng, 400)
        row = calibration.measures(probabilities, class_ids, own_groups(400)).iloc[0]
        assert row["measure"] == "ece" and row["low"] <= row["value"] <= row["high"]
        n_covered += row["low"] <= true <= row["high"]
    assert n_covered >= 34


def sharpened(rng, n):
    probabilities, class_ids = drawn(n, rng)
    return ensemble.apply_temperature(probabilities, 0.5), class_ids


def test_few_clips_leave_gaps_by_chance_and_too_few_groups_give_no_interval(rng):
    probabilities, class_ids = drawn(200, rng)
    row = calibration.measures(probabilities, class_ids, own_groups(200)).iloc[0]
    assert 0.04 < row["perfect"] < 0.15 and row["value"] < row["perfect"]
    table = calibration.measures(probabilities, class_ids, np.repeat(list("abcd"), 50))
    assert table[["low", "high"]].isna().all().all() and table["value"].notna().all()


def test_thresholds_are_those_of_validation_on_every_split_and_drawings_name_axes_and_n(found):
    table = found.tables["calibration_abstain"]
    assert (table.groupby(["model", "target_risk"])["threshold"].nunique() == 1).all()
    assert set(table["split"]) == {"validation", "test", "left_out"}
    kept = table.query("split == 'validation'").dropna(subset="risk")
    assert (kept["risk"] <= kept["target_risk"]).all()
    figures = calibration.draw(found.tables)
    assert all(ax.get_xlabel() and ax.get_ylabel() for figure in figures.values() for ax in figure.axes)
    texts = [text.get_text() for text in figures["reliability"].axes[0].get_legend().get_texts()]
    assert texts == ["perfect", "before (n = 1,500)", "after (n = 1,500)"]
    plots.close("all")


def test_a_perfect_classifier_has_no_risk_and_one_that_knows_its_errors_has_it_last(rng):
    truth = rng.integers(0, 3, 100)
    perfect = np.eye(3)[truth] * 0.9 + 0.1 / 3
    curve = calibration.coverage_risk(perfect, truth)
    assert curve.iloc[-1]["coverage"] == 1 and curve["risk"].max() == 0
    knows = perfect.copy()
    knows[:10] = np.eye(3)[(truth[:10] + 1) % 3] * 0.2 + 0.8 / 3  # wrong, and least sure
    curve = calibration.coverage_risk(knows, truth)
    assert curve["coverage"].tolist() == [0.9, 1.0] and curve["risk"].tolist() == [0.0, 0.1]


def test_the_threshold_to_abstain_keeps_the_risk_and_most_predictions():
    truth, sure = np.zeros(10, dtype=int), np.linspace(0.95, 0.5, 10)
    probabilities = np.column_stack([sure, 1 - sure, np.zeros(10)])
    probabilities[[4, 8]] = probabilities[[4, 8]][:, [1, 0, 2]]  # the fifth and the ninth answer are wrong
    curve = calibration.coverage_risk(probabilities, truth)
    threshold = calibration.abstain_threshold(probabilities, truth, risk=0.13)
    assert threshold == pytest.approx(sure[7])  # one error in eight
    assert curve["risk"].iloc[7] == 0.125
    assert calibration.abstain_threshold(probabilities, truth, risk=0.3) == 0
    assert calibration.abstain_threshold(probabilities[4:5], truth[:1], risk=0.1) > 1
