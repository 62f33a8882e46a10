"""Probabilities over time to events: when a cry or a scream begins and ends.

The one tracker of the project. Whole recordings, the stream detector and the service's workflow all use it; a
workflow may import pure Python only, so there is no numpy here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

EVENT_LABELS = ("crying", "screaming")  # lib.config.CLASS_NAMES without "normal"; the order of probabilities
SUSTAINED_LABEL = "crying"
TOLERANCE_SECONDS = 1e-6  # in floating point 3 * 0.16 is not 0.48


class Span(NamedTuple):
    """A piece of a stream, a frame or a chunk, in which the probabilities do not change."""

    start_seconds: float
    stop_seconds: float
    probabilities: Sequence[float]  # of EVENT_LABELS, in that order, more are ignored; empty: the sound is not known


@dataclass(frozen=True, order=True)
class Event:
    """A cry or scream; it covers whole spans, `offset_seconds` is the end of the last one, or of the stream."""

    onset_seconds: float
    offset_seconds: float
    label: str
    peak_probability: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class EventChange:
    """One step in the life of an event: START, UPDATE, SUSTAINED or END."""

    number: int  # of the event within its stream
    change: int  # ascending within the stream: a repeated or late write never undoes a newer one
    kind: str
    label: str
    onset_seconds: float
    offset_seconds: float
    peak_probability: float
    sustained: bool


@dataclass(frozen=True)
class EventSettings:
    """How probabilities become events; the first four by label. ValueError if a value makes no sense.

    A label becomes active at a probability of `on` or more and stays so while it is `off` or more. Events of one label
    with at most `merge_seconds` between them are one event (a breath in a cry); shorter than `min_seconds` after that,
    they are dropped. An event outlives rejected or missing audio up to `bridge_seconds`; a cry that lasts
    `sustained_seconds` is sustained.
    """

    on: dict[str, float]
    off: dict[str, float]
    min_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(EVENT_LABELS, 0.0))
    merge_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(EVENT_LABELS, 0.0))
    bridge_seconds: float = 15.0
    sustained_seconds: float = 30.0

    def __post_init__(self) -> None:
        for label in EVENT_LABELS:
            if not 0 < self.off[label] <= self.on[label] <= 1:
                raise ValueError(f"{label}: need 0 < off <= on <= 1, have off {self.off[label]}, on {self.on[label]}.")
            if self.min_seconds[label] < 0 or self.merge_seconds[label] < 0:
                raise ValueError(f"{label}: min_seconds and merge_seconds must be at least 0.")
        if self.bridge_seconds < 0 or not self.sustained_seconds > 0:
            raise ValueError("bridge_seconds must be at least 0 and sustained_seconds above 0.")

    @classmethod
    def create(cls, *, bridge_seconds: float = 15.0, sustained_seconds: float = 30.0, **by_label: Any) -> EventSettings:
        """Return settings whose first four are numbers that hold for all labels, or mappings by label."""
        given = {
            name: {label: float(value[label] if isinstance(value, Mapping) else value) for label in EVENT_LABELS}
            for name, value in by_label.items()
        }
        return cls(**given, bridge_seconds=bridge_seconds, sustained_seconds=sustained_seconds)


@dataclass
class OpenEvent:
    """An event that may still grow."""

    onset_seconds: float
    offset_seconds: float  # end of its last active span
    peak_probability: float = 0.0
    number: int = 0  # 0 until it is long enough to be reported
    is_active: bool = True  # whether the last known span belonged to it
    is_changed: bool = True  # since it was last reported
    is_sustained: bool = False
    quiet_seconds: float = 0.0  # other sound since the offset
    unknown_seconds: float = 0.0  # rejected or missing audio since the offset


@dataclass
class EventState:
    """All that a tracker remembers; small, and plain enough for JSON."""

    open: dict[str, OpenEvent] = field(default_factory=dict)  # by label
    seconds: float = 0.0  # end of the last span
    n_events: int = 0
    n_changes: int = 0


class EventTracker:
    """Follow one stream; each label is followed by itself, and the events do not depend on how the stream is cut.

    Parameters
    ----------
    settings : EventSettings
        Thresholds and durations.
    state : EventState, optional
        Where an earlier tracker of the same stream stopped; changed in place. Default: the start of a stream.
    """

    def __init__(self, settings: EventSettings, state: EventState | None = None) -> None:
        self.settings = settings
        self.state = EventState() if state is None else state
        self.end_seconds = math.inf  # of the stream, once known: its last frame may reach beyond, no event does

    def advance(self, spans: Iterable[Span]) -> list[EventChange]:
        """Take the next spans, in order, and return what they changed: at most one UPDATE a label.

        Raises
        ------
        ValueError
            If a probability is not between 0 and 1.
        """
        changes: list[EventChange] = []
        for span in spans:
            for index, label in enumerate(EVENT_LABELS):
                changes += self._pass_gap(label, span.start_seconds - self.state.seconds)
                changes += self._step(label, span, span.probabilities[index] if len(span.probabilities) else None)
            self.state.seconds = max(self.state.seconds, span.stop_seconds)
        for label in self.state.open:
            changes += self._report(label)
        return changes

    def finish(self) -> list[EventChange]:
        """End the stream: end the events that are open."""
        return [change for label in list(self.state.open) for change in self._close(label)]

    def open_events(self) -> list[EventChange]:
        """Return the reported events that are open now, without changing anything."""
        return [self._as_change("OPEN", label) for label, event in self.state.open.items() if event.number]

    def _pass_gap(self, label: str, seconds: float) -> list[EventChange]:
        """Note audio that is missing before the next span."""
        if seconds <= TOLERANCE_SECONDS or label not in self.state.open:
            return []
        self.state.open[label].unknown_seconds += seconds
        return self._close_if_over(label)

    def _step(self, label: str, span: Span, probability: float | None) -> list[EventChange]:
        event = self.state.open.get(label)
        if probability is None:
            if event is not None:
                event.unknown_seconds += span.stop_seconds - span.start_seconds
        elif not 0 <= probability <= 1 + TOLERANCE_SECONDS:
            raise ValueError(f"{label} has probability {probability}, expected 0 to 1.")
        elif probability >= self._threshold(label, event):
            self._extend(label, span, probability)
            return []
        elif event is not None:
            event.is_active = False
            event.quiet_seconds += span.stop_seconds - span.start_seconds
        return [] if event is None else self._close_if_over(label)

    def _threshold(self, label: str, event: OpenEvent | None) -> float:
        return self.settings.off[label] if event is not None and event.is_active else self.settings.on[label]

    def _extend(self, label: str, span: Span, probability: float) -> None:
        event = self.state.open.setdefault(label, OpenEvent(span.start_seconds, span.stop_seconds))
        event.offset_seconds = span.stop_seconds
        event.peak_probability = max(event.peak_probability, probability)
        event.is_active = event.is_changed = True
        event.quiet_seconds = event.unknown_seconds = 0.0

    def _close_if_over(self, label: str) -> list[EventChange]:
        event = self.state.open[label]
        is_quiet = event.quiet_seconds > self.settings.merge_seconds[label] + TOLERANCE_SECONDS
        is_lost = event.unknown_seconds > self.settings.bridge_seconds + TOLERANCE_SECONDS
        return self._close(label) if is_quiet or is_lost else []

    def _close(self, label: str) -> list[EventChange]:
        changes = self._report(label)
        if self.state.open[label].number:
            changes.append(self._change("END", label))
        del self.state.open[label]
        return changes

    def _report(self, label: str) -> list[EventChange]:
        """Report what is new about an event, once it is long enough to be one."""
        event = self.state.open[label]
        seconds = event.offset_seconds - event.onset_seconds + TOLERANCE_SECONDS
        if not event.is_changed or seconds < self.settings.min_seconds[label]:
            return []
        event.is_changed = False
        if event.number:
            changes = [self._change("UPDATE", label)]
        else:
            self.state.n_events += 1
            event.number = self.state.n_events
            changes = [self._change("START", label)]
        if label == SUSTAINED_LABEL and not event.is_sustained and seconds >= self.settings.sustained_seconds:
            event.is_sustained = True
            changes.append(self._change("SUSTAINED", label))
        return changes

    def _change(self, kind: str, label: str) -> EventChange:
        self.state.n_changes += 1
        return self._as_change(kind, label)

    def _as_change(self, kind: str, label: str) -> EventChange:
        event = self.state.open[label]
        return EventChange(
            number=event.number,
            change=self.state.n_changes,
            kind=kind,
            label=label,
            onset_seconds=round(event.onset_seconds, 6),
            offset_seconds=round(min(event.offset_seconds, self.end_seconds), 6),
            peak_probability=round(event.peak_probability, 4),
            sustained=event.is_sustained,
        )


def frame_spans(probabilities: Any, *, hop_seconds: float, first_frame: int = 0) -> Iterator[Span]:
    """Yield the spans of frames (n_frames, 2 or more), columns as `EVENT_LABELS`: frame i covers [i, i + 1) hops.

    Frames count from `first_frame`, that is from the start of the stream, so that times cannot drift.
    """
    rows = probabilities.tolist() if hasattr(probabilities, "tolist") else probabilities
    for frame, row in enumerate(rows, start=first_frame):
        yield Span(frame * hop_seconds, (frame + 1) * hop_seconds, row)


def ended(changes: Iterable[EventChange]) -> list[Event]:
    """Return the events that ended, by onset; nothing later can change them."""
    return sorted(
        Event(change.onset_seconds, change.offset_seconds, change.label, change.peak_probability)
        for change in changes
        if change.kind == "END"
    )


def frames_to_events(
    probabilities: Any, settings: EventSettings, *, hop_seconds: float, end_seconds: float = math.inf
) -> list[Event]:
    """Find the events in the frame probabilities (n_frames, 2 or more) of a whole recording, by onset."""
    tracker = EventTracker(settings)
    tracker.end_seconds = end_seconds
    return ended([*tracker.advance(frame_spans(probabilities, hop_seconds=hop_seconds)), *tracker.finish()])
