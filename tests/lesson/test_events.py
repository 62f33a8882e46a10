"""Events from probabilities: known ones are found exactly, whatever the pieces that the stream comes in."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib import config
from lib.events import (
    EVENT_LABELS,
    Event,
    EventSettings,
    EventState,
    EventTracker,
    OpenEvent,
    Span,
    ended,
    frame_spans,
    frames_to_events,
)

HOP_SECONDS = 0.5
LIMITS = {"on": 0.6, "off": 0.4}


def frames(crying, screaming=None):
    crying = np.asarray(crying, float)
    return np.stack([crying, np.zeros_like(crying) if screaming is None else np.asarray(screaming, float)], axis=1)


def found(probabilities, hop_seconds=HOP_SECONDS, **limits):
    return frames_to_events(probabilities, EventSettings.create(**LIMITS | limits), hop_seconds=hop_seconds)


def test_labels_are_the_projects_and_importing_brings_no_numpy():
    assert config.CLASS_NAMES[:2] == EVENT_LABELS
    code = "import sys, lib.events; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=config.PROJECT_DIR).returncode == 0


def test_known_events_are_found_exactly():
    crying, screaming = np.zeros(40), np.zeros(40)
    crying[4:10], screaming[8:13] = 0.9, 0.8  # both can be true
    events = found(frames(crying, screaming))
    assert events == [Event(2.0, 5.0, "crying"), Event(4.0, 6.5, "screaming")]
    assert [event.peak_probability for event in events] == [0.9, 0.8]


def test_hysteresis_holds_between_the_thresholds_and_equality_reaches_them():
    probabilities = frames([0.5, 0.5, 0.7, 0.5, 0.41, 0.39, 0.5, 0.5])
    assert found(probabilities) == [Event(1.0, 2.5, "crying")]
    assert found(probabilities, off=0.6) == [Event(1.0, 1.5, "crying")]
    assert found(frames([0.6, 0.4, 0.3])) == [Event(0.0, 1.0, "crying")]


def test_gaps_up_to_the_limit_are_joined_and_short_events_are_dropped_after_joining():
    crying = frames([1, 0, 0, 1, 0, 0, 0, 1])
    assert found(crying, merge_seconds=1.0) == [Event(0.0, 2.0, "crying"), Event(3.5, 4.0, "crying")]
    assert len(found(crying, merge_seconds=1.5)) == 1
    assert found(crying, merge_seconds=1.0, min_seconds=2.0) == [Event(0.0, 2.0, "crying")]


def test_no_event_lasts_longer_than_the_stream():
    """Its last frame may; the shortest length is asked of whole frames."""
    crying, limits = frames([0, 0.9, 0.9]), EventSettings.create(**LIMITS, min_seconds=1.0)
    assert frames_to_events(crying, limits, hop_seconds=0.5, end_seconds=1.3) == [Event(0.5, 1.3, "crying")]


def test_limits_are_not_lost_to_rounding():
    crying = frames([1, 1, 1, 0, 0, 0, 1, 1, 1])
    (event,) = found(crying, 0.16, merge_seconds=0.48, min_seconds=9 * 0.16)
    assert event.offset_seconds == pytest.approx(1.44)


def test_each_label_has_its_own_limits_and_a_third_column_is_ignored():
    limits = {"crying": 0.4, "screaming": 0.5}
    rows = np.full((4, 3), 0.45)
    assert found(rows, on=limits, off=limits) == [Event(0.0, 2.0, "crying")]
    shortest = {"crying": 3.0, "screaming": 1.0}
    assert found(rows, on=0.4, off=0.4, min_seconds=shortest) == [Event(0.0, 2.0, "screaming")]
    assert found(np.zeros((0, 2))) == []


def split(rows, cuts):
    """Yield (first frame, rows) of pieces."""
    first = 0
    for part in np.split(rows, sorted(cuts)):
        yield first, part
        first += len(part)


@settings(deadline=None, max_examples=150)
@given(
    rows=arrays(float, st.tuples(st.integers(0, 60), st.just(2)), elements=st.floats(0, 1)),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    min_seconds=st.sampled_from([0.0, 0.48, 1.0, 2.4]),
    merge_seconds=st.sampled_from([0.0, 0.48, 1.0, 2.4]),
    lost=st.sets(st.integers(0, 59), max_size=20),
)
def test_any_cutting_and_any_interruption_give_the_same_events(rows, cuts, min_seconds, merge_seconds, lost):
    limits = {"on": 0.6, "off": 0.3, "min_seconds": min_seconds, "merge_seconds": merge_seconds, "bridge_seconds": 1.0}
    chosen = EventSettings.create(**limits)
    whole = EventTracker(chosen)
    spans = [span for number, span in enumerate(frame_spans(rows, hop_seconds=0.48)) if number not in lost]
    expected = sorted(ended(whole.advance(spans) + whole.finish()))
    state, changes = EventState(), []
    for first, part in split(rows, cuts):
        spans = [
            span if number not in lost else span._replace(probabilities=())  # refused here, missing above
            for number, span in enumerate(frame_spans(part, hop_seconds=0.48, first_frame=first), start=first)
        ]
        changes += EventTracker(chosen, state).advance(spans)
        state = restored(state)
    changes += EventTracker(chosen, state).finish()
    assert sorted(ended(changes)) == expected
    assert [change.change for change in changes] == list(range(1, len(changes) + 1))
    for event in expected:
        assert event.offset_seconds - event.onset_seconds >= min_seconds - 1e-6
    for label in EVENT_LABELS:
        mine = [event for event in expected if event.label == label]
        for before, after in zip(mine, mine[1:], strict=False):
            assert after.onset_seconds - before.offset_seconds > min(merge_seconds, 1.0)


def restored(state):
    """Return what JSON leaves of a state."""
    plain = json.loads(json.dumps(dataclasses.asdict(state)))
    return EventState(**plain | {"open": {label: OpenEvent(**event) for label, event in plain["open"].items()}})


def kinds(changes):
    return [(change.kind, change.label, change.offset_seconds) for change in changes]


def test_an_event_starts_when_it_is_long_enough_and_ends_as_soon_as_that_is_certain():
    tracker = EventTracker(EventSettings.create(**LIMITS, min_seconds=1.0, merge_seconds=0.5))
    pieces = [[1], [1], [1, 1], [0], [0], [1], [0, 0]]
    first, changes = 0, []
    for piece in pieces:
        changes.append(kinds(tracker.advance(frame_spans(frames(piece), hop_seconds=0.5, first_frame=first))))
        first += len(piece)
    assert changes == [
        [],
        [("START", "crying", 1.0)],
        [("UPDATE", "crying", 2.0)],
        [],
        [("END", "crying", 2.0)],
        [],
        [],
    ]
    assert tracker.finish() == []


def test_labels_are_followed_independently_chunk_by_chunk():
    tracker = EventTracker(EventSettings.create(on=0.6, off=0.3))
    steps = [(0.5, 0.1), (0.7, 0.1), (0.35, 0.62), (0.1, 0.2)]
    changes = [kinds(tracker.advance([Span(10.0 * n, 10.0 * n + 10, row)])) for n, row in enumerate(steps)]
    assert changes == [
        [],
        [("START", "crying", 20)],
        [("UPDATE", "crying", 30), ("START", "screaming", 30)],
        [("END", "crying", 30), ("END", "screaming", 30)],
    ]


@pytest.mark.parametrize(("lost_seconds", "expected"), [(10, ["UPDATE", "SUSTAINED"]), (20, ["END", "START"])])
@pytest.mark.parametrize("is_rejected", [True, False])
def test_an_event_bridges_a_short_loss_and_ends_on_a_long_one(lost_seconds, expected, is_rejected):
    tracker = EventTracker(EventSettings.create(on=0.5, off=0.35, bridge_seconds=15, sustained_seconds=30))
    assert kinds(tracker.advance([Span(0, 10, (0.9, 0.05))])) == [("START", "crying", 10)]
    back = 10 + lost_seconds
    lost = [Span(10, back, ())] if is_rejected else []
    changes = tracker.advance([*lost, Span(back, back + 10, (0.9, 0.05))])
    assert [change.kind for change in changes] == expected


def test_open_events_are_shown_without_changing_them():
    tracker = EventTracker(EventSettings.create(**LIMITS))
    tracker.advance([Span(0, 40, (0.9, 0.7))])
    assert [(event.kind, event.label, event.sustained) for event in tracker.open_events()] == [
        ("OPEN", "crying", True),
        ("OPEN", "screaming", False),
    ]
    assert [change.kind for change in tracker.finish()] == ["END", "END"]
    assert tracker.open_events() == []


@pytest.mark.parametrize(
    "changes",
    [{"on": 0.3}, {"off": 0.0}, {"on": 1.2}, {"min_seconds": -1}, {"merge_seconds": -1}, {"bridge_seconds": -1}],
)
def test_senseless_settings_are_refused(changes):
    with pytest.raises(ValueError):
        EventSettings.create(**LIMITS | changes)


@pytest.mark.parametrize("probability", [np.nan, -0.1, 1.1])
def test_senseless_probabilities_are_refused(probability):
    with pytest.raises(ValueError, match="crying has probability"):
        found(frames([0.5, probability]))
