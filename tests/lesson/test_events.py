"""Events from frame probabilities: known ones are found exactly, in one go and fed in pieces."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.events import Candidate, Event, EventTracker, frames_to_events

HOP_SECONDS = 0.5
SETTINGS = {"on": 0.6, "off": 0.4}


def frames(crying, screaming=None):
    crying = np.asarray(crying, float)
    screaming = np.zeros_like(crying) if screaming is None else np.asarray(screaming, float)
    return np.stack([crying, screaming, 1 - crying - screaming], axis=1)


def test_known_events_are_found_exactly():
    crying = np.zeros(40)
    crying[4:10] = 0.9
    screaming = np.zeros(40)
    screaming[20:23] = 0.8
    found = frames_to_events(frames(crying, screaming), HOP_SECONDS, **SETTINGS)
    assert found == [Event(2.0, 5.0, "crying"), Event(10.0, 11.5, "screaming")]


def test_hysteresis_holds_between_the_thresholds():
    probabilities = frames([0.5, 0.5, 0.7, 0.5, 0.41, 0.39, 0.5, 0.5])
    assert frames_to_events(probabilities, HOP_SECONDS, **SETTINGS) == [Event(1.0, 2.5, "crying")]
    assert frames_to_events(probabilities, HOP_SECONDS, on=0.6, off=0.6) == [Event(1.0, 1.5, "crying")]


def test_thresholds_are_reached_by_equality():
    assert frames_to_events(frames([0.6, 0.4, 0.3]), HOP_SECONDS, **SETTINGS) == [Event(0.0, 1.0, "crying")]


def test_gaps_up_to_the_limit_are_joined_and_longer_ones_not():
    crying = frames([1, 0, 0, 1, 0, 0, 0, 1])
    found = frames_to_events(crying, HOP_SECONDS, **SETTINGS, merge_seconds=1.0)
    assert found == [Event(0.0, 2.0, "crying"), Event(3.5, 4.0, "crying")]
    assert len(frames_to_events(crying, HOP_SECONDS, **SETTINGS, merge_seconds=1.5)) == 1


def test_short_events_are_dropped_after_joining():
    crying = frames([1, 0, 1, 0, 0, 0, 0, 1, 0])
    found = frames_to_events(crying, HOP_SECONDS, **SETTINGS, merge_seconds=0.5, min_seconds=1.5)
    assert found == [Event(0.0, 1.5, "crying")]


def test_limits_are_not_lost_to_rounding():
    crying = frames([1, 1, 1, 0, 0, 0, 1, 1, 1])
    found = frames_to_events(crying, 0.16, **SETTINGS, merge_seconds=0.48, min_seconds=9 * 0.16)
    assert len(found) == 1
    assert found[0].offset_seconds == pytest.approx(1.44)


def test_each_label_has_its_own_threshold_and_normal_is_no_event():
    probabilities = frames([0.45] * 4, [0.45] * 4)
    limits = {"crying": 0.4, "screaming": 0.5}
    assert frames_to_events(probabilities, HOP_SECONDS, on=limits, off=limits) == [Event(0.0, 2.0, "crying")]
    assert frames_to_events(frames(np.zeros(9)), HOP_SECONDS, **SETTINGS) == []
    assert frames_to_events(np.zeros((0, 3)), HOP_SECONDS, **SETTINGS) == []


probability_rows = arrays(float, st.tuples(st.integers(0, 60), st.just(3)), elements=st.floats(0, 1))


@settings(deadline=None, max_examples=150)
@given(
    probabilities=probability_rows,
    cuts=st.lists(st.integers(0, 60), max_size=8),
    min_seconds=st.sampled_from([0.0, 0.48, 1.0, 2.4]),
    merge_seconds=st.sampled_from([0.0, 0.48, 1.0, 2.4]),
)
def test_any_chunking_gives_the_same_events(probabilities, cuts, min_seconds, merge_seconds):
    limits = {"on": 0.6, "off": 0.3, "min_seconds": min_seconds, "merge_seconds": merge_seconds}
    whole = frames_to_events(probabilities, 0.48, **limits)
    tracker = EventTracker(0.48, **limits)
    pieces = [event for part in np.split(probabilities, sorted(cuts)) for event in tracker.update(part)]
    assert sorted(pieces + tracker.finish()) == whole
    for event in whole:
        assert event.offset_seconds - event.onset_seconds >= min_seconds - 1e-6
    for label in ("crying", "screaming"):
        mine = [event for event in whole if event.label == label]
        for before, after in zip(mine, mine[1:], strict=False):
            assert after.onset_seconds - before.offset_seconds > merge_seconds


def test_an_event_is_given_out_once_and_as_soon_as_it_is_certain():
    tracker = EventTracker(HOP_SECONDS, **SETTINGS, merge_seconds=0.5)
    assert tracker.update(frames([1, 1])) == []
    assert tracker.update(frames([0])) == []  # the gap could still be bridged
    assert tracker.update(frames([0])) == [Event(0.0, 1.0, "crying")]
    assert tracker.finish() == []


def test_a_tracker_goes_on_from_its_saved_state():
    tracker = EventTracker(HOP_SECONDS, **SETTINGS)
    tracker.update(frames([0, 1, 1]))
    state = json.loads(json.dumps(dataclasses.asdict(tracker)))
    candidates = {label: Candidate(**item) for label, item in state.pop("candidates").items()}
    resumed = EventTracker(**state, candidates=candidates)
    assert resumed.update(frames([1, 0])) == [Event(0.5, 2.0, "crying")]


@pytest.mark.parametrize(
    "changes", [{"on": 0.3}, {"off": 0.0}, {"on": 1.2}, {"min_seconds": -1}, {"merge_seconds": -1}, {"hop_seconds": 0}]
)
def test_senseless_settings_are_refused(changes):
    with pytest.raises(ValueError):
        EventTracker(**({"hop_seconds": HOP_SECONDS, **SETTINGS} | changes))


@pytest.mark.parametrize("probabilities", [np.zeros(3), np.zeros((4, 2)), np.full((2, 3), np.nan)])
def test_senseless_frames_are_refused(probabilities):
    with pytest.raises(ValueError, match="frame probabilities"):
        frames_to_events(probabilities, HOP_SECONDS, **SETTINGS)
