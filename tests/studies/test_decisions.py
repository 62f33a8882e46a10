"""Answers withheld, thresholds by cost and shares with intervals, on probabilities whose answer is counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lib.studies import decisions


def own_groups(n):
    return np.arange(n).astype(str)


def test_a_perfect_classifier_has_no_risk_and_one_that_knows_its_errors_has_it_last(rng):
    truth = rng.integers(0, 3, 100)
    perfect = np.eye(3)[truth] * 0.9 + 0.1 / 3
    curve = decisions.coverage_risk(perfect, truth)
    assert curve.iloc[-1]["coverage"] == 1 and curve["risk"].max() == 0
    knows = perfect.copy()
    knows[:10] = np.eye(3)[(truth[:10] + 1) % 3] * 0.2 + 0.8 / 3  # wrong, and least sure
    curve = decisions.coverage_risk(knows, truth)
    assert curve["coverage"].tolist() == [0.9, 1.0] and curve["risk"].tolist() == [0.0, 0.1]


def test_the_threshold_to_abstain_keeps_the_risk_and_most_predictions():
    truth, sure = np.zeros(10, dtype=int), np.linspace(0.95, 0.5, 10)
    probabilities = np.column_stack([sure, 1 - sure, np.zeros(10)])
    probabilities[[4, 8]] = probabilities[[4, 8]][:, [1, 0, 2]]  # the fifth and the ninth answer are wrong
    curve = decisions.coverage_risk(probabilities, truth)
    threshold = decisions.abstain_threshold(probabilities, truth, risk=0.13)
    assert threshold == pytest.approx(sure[7])  # one error in eight
    assert curve["risk"].iloc[7] == 0.125
    assert decisions.abstain_threshold(probabilities, truth, risk=0.3) == 0
    assert decisions.abstain_threshold(probabilities[4:5], truth[:1], risk=0.1) > 1


def test_alarm_rates_and_hours_equal_those_by_hand():
    class_ids = np.array([0, 1, 2, 2, 2, 2])
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], *[[0.1, 0.0, 0.9]] * 3, [0.4, 0.4, 0.2]])
    rates = decisions.alarm_rates(probabilities, class_ids)
    at_half = rates[np.isclose(rates["threshold"], 0.5)].iloc[0]
    assert at_half["false_alarm_rate"] == 0.25 and at_half["miss_rate"] == 0.5
    assert at_half["false_alarms_per_hour"] == pytest.approx(0.25 * 720 * 0.985)
    assert at_half["misses_per_hour"] == pytest.approx(0.5 * 720 * 0.015)
    crying = decisions.alarm_rates(probabilities, class_ids, alarm="crying")
    assert crying[np.isclose(crying["threshold"], 0.5)].iloc[0][["false_alarm_rate", "miss_rate"]].tolist() == [0, 0]


def test_dearer_misses_lower_the_threshold_and_ties_go_to_the_middle():
    class_ids = np.repeat([0, 2], 100)
    crying = np.concatenate([np.linspace(0.2, 0.99, 100), np.linspace(0.01, 0.8, 100)])
    rates = decisions.alarm_rates(np.column_stack([crying, np.zeros(200), 1 - crying]), class_ids)
    chosen = [decisions.choose_threshold(rates, ratio=ratio) for ratio in (1, 65, 1000)]
    assert chosen == sorted(chosen, reverse=True) and chosen[0] > 0.7 and chosen[2] < 0.3
    apart = np.where(class_ids == 0, 0.9, 0.1)
    rates = decisions.alarm_rates(np.column_stack([apart, np.zeros(200), 1 - apart]), class_ids)
    assert decisions.choose_threshold(rates, ratio=10) == pytest.approx(0.5)


def test_none_of_n_groups_leaves_room_and_few_groups_no_interval():
    found = decisions.rate(np.zeros(60, bool), np.repeat(own_groups(20), 3))
    assert found["value"] == 0 and found["low"] == 0
    assert found["high"] == pytest.approx(1 - 0.025 ** (1 / 20)) and found["interval"] == decisions.BY_BOUND
    every = decisions.rate(np.ones(60, bool), np.repeat(own_groups(20), 3))
    assert every["low"] == pytest.approx(0.025 ** (1 / 20)) and every["high"] == 1
    assert decisions.rate(np.ones(9, bool), np.repeat(list("abc"), 3))["interval"] == decisions.NO_INTERVAL
    assert decisions.rate(np.zeros(0, bool), [])["interval"] == decisions.NO_CLIP


def test_clips_that_go_together_widen_the_interval(rng):
    hits = rng.random(40) < 0.3
    together = decisions.rate(np.repeat(hits, 10), np.repeat(own_groups(40), 10))
    apart = decisions.rate(np.repeat(hits, 10), own_groups(400))
    assert together["low"] < together["value"] < together["high"]
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


def test_the_share_of_hits_is_a_share_whatever_its_groups():
    hits = np.array([True] * 30 + [False] * 10)
    result = decisions.rate(hits, np.arange(40).astype(str), n_bootstrap=500)
    assert result["value"] == 0.75 and 0.55 < result["low"] < 0.7 < 0.8 < result["high"] < 0.95
