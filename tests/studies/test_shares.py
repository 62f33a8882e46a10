"""Shares with intervals over groups, counted by hand."""

import numpy as np
import pytest

from lib.studies import shares


def own_groups(n):
    return np.arange(n).astype(str)


def test_none_of_n_groups_leaves_room_and_few_groups_no_interval():
    none = shares.rate(np.zeros(60, bool), np.repeat(own_groups(20), 3))
    assert none == {"value": 0, "low": 0, "high": pytest.approx(1 - 0.025 ** (1 / 20)), "n_clips": 60, "n_groups": 20}
    every = shares.rate(np.ones(60, bool), np.repeat(own_groups(20), 3))
    assert every["low"] == pytest.approx(0.025 ** (1 / 20)) and every["high"] == 1
    few = shares.rate(np.ones(9, bool), np.repeat(list("abc"), 3))
    assert (few["value"], few["low"], few["n_groups"]) == (1, None, 3)
    assert shares.rate(np.zeros(0, bool), [])["value"] is None


def test_the_share_is_of_clips_and_clips_that_go_together_widen_its_interval(rng):
    hits = rng.random(40) < 0.3
    together = shares.rate(np.repeat(hits, 10), np.repeat(own_groups(40), 10))
    apart = shares.rate(np.repeat(hits, 10), own_groups(400))
    assert together["value"] == apart["value"] == pytest.approx(hits.mean())
    assert together["low"] < together["value"] < together["high"]
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])
