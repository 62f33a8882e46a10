"""Shares with intervals over groups, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lib.studies import shares


def own_groups(n):
    return np.arange(n).astype(str)


def test_none_of_n_groups_leaves_room_and_few_groups_no_interval():
    found = shares.rate(np.zeros(60, bool), np.repeat(own_groups(20), 3))
    assert found["value"] == 0 and found["low"] == 0
    assert found["high"] == pytest.approx(1 - 0.025 ** (1 / 20)) and found["interval"] == shares.BY_BOUND
    every = shares.rate(np.ones(60, bool), np.repeat(own_groups(20), 3))
    assert every["low"] == pytest.approx(0.025 ** (1 / 20)) and every["high"] == 1
    assert shares.rate(np.ones(9, bool), np.repeat(list("abc"), 3))["interval"] == shares.NO_INTERVAL
    assert shares.rate(np.zeros(0, bool), [])["interval"] == shares.NO_CLIP


def test_clips_that_go_together_widen_the_interval(rng):
    hits = rng.random(40) < 0.3
    together = shares.rate(np.repeat(hits, 10), np.repeat(own_groups(40), 10))
    apart = shares.rate(np.repeat(hits, 10), own_groups(400))
    assert together["low"] < together["value"] < together["high"]
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


def test_the_share_of_hits_is_a_share_whatever_its_groups():
    hits = np.array([True] * 30 + [False] * 10)
    result = shares.rate(hits, np.arange(40).astype(str), n_bootstrap=500)
    assert result["value"] == 0.75 and 0.55 < result["low"] < 0.7 < 0.8 < result["high"] < 0.95
