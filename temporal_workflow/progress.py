"""The progress of one stream: what to accept, what comes next, what is missing, which events follow. Pure Python.

Temporal's own de-duplication does not cross continue-as-new, so this keeps its own high-water mark and set of
sequences that it has seen, in a `StreamState` small enough to travel to the next run.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from lib.config import LEVEL_FLOOR_DB, STILL_DB
from lib.events import EventChange, EventSettings, EventTracker, OpenEvent, Span, ended, frame_spans
from temporal_workflow import shared


class StreamProgress:
    """Accepts chunks in any order, any number of times; applies their outcomes once and in order.

    `state` is what earlier runs left; it is changed in place. `replays_old`: a run of a version without
    rounds and health goes on as it decided before.
    """

    def __init__(
        self, settings: shared.StreamSettings, state: shared.StreamState, *, replays_old: bool = False
    ) -> None:
        self.settings = settings
        self.state = state
        self._replays_old = replays_old
        _take_over_old_events(state)
        self.tracker = EventTracker(state.event_settings or shared.CHUNK_EVENTS, state.tracker)
        self.in_flight: set[int] = set()

    def accept(self, chunk: shared.ChunkReference) -> None:
        """Accept a chunk, unless it is known, too far ahead or one too many.

        A refused chunk costs nothing: the sender sees in the status that it is not there and sends it again.
        """
        state = self.state
        late = any(first <= chunk.sequence <= last for first, last in state.missing)
        known = chunk.sequence in state.seen or (chunk.sequence < state.next_sequence and not late)
        if known or chunk.sequence < 0 or 0 <= state.end <= chunk.sequence:
            state.n_duplicates += 1
            return
        if chunk.sequence >= state.next_sequence + shared.MAX_AHEAD or len(state.pending) >= shared.MAX_PENDING:
            state.n_refused += 1
            return
        if late:
            self._forget_missing(chunk.sequence)
            state.n_late += 1
        else:
            state.seen.append(chunk.sequence)
        state.pending.append(chunk)
        state.hashes[str(chunk.sequence)] = shared.short_hash(chunk.sha256)
        if len(state.hashes) > shared.MAX_HASHES:
            del state.hashes[min(state.hashes, key=int)]

    def can_start(self) -> bool:
        """Return whether a chunk waits and a slot is free."""
        return bool(self.state.pending) and len(self.in_flight) < shared.WINDOW

    def start_round(self, n_chunks: int) -> list[shared.ChunkReference]:
        """Return the next chunks, in the order in which they came, and count them as in flight."""
        chunks, self.state.pending[:n_chunks] = self.state.pending[:n_chunks], []
        self.in_flight |= {chunk.sequence for chunk in chunks}
        return chunks

    def give_back(self, chunks: list[shared.ChunkReference]) -> None:
        """Put chunks that were not worked on back to the head of the queue."""
        self.state.pending[:0] = chunks
        self.in_flight -= {chunk.sequence for chunk in chunks}

    def record(self, outcome: shared.ChunkOutcome, *, now: float) -> None:
        """Count an outcome and apply everything that is now in order; event changes go to the outbox."""
        state = self.state
        if outcome.status == shared.REJECTED:
            state.n_rejected += 1
            state.reason = outcome.reason
        else:
            state.n_classified += 1
            state.n_by_label[outcome.label] = state.n_by_label.get(outcome.label, 0) + 1
        if not outcome.late:
            state.waiting.append(outcome.waiting())
            self._apply(now)

    def use_settings(self, settings: EventSettings, version: str) -> None:
        """Take over the event settings of the detector that the workers run."""
        self.state.event_settings = self.tracker.settings = settings
        self.state.settings_version = version

    def raise_silence(self, *, is_silent: bool) -> None:
        """Note that the sender fell silent or came back: an event of its own."""
        state = self.state
        state.silent = is_silent
        if is_silent:
            state.tracker.n_events += 1
            state.silent_number = state.tracker.n_events
        kind, at = "SILENT" if is_silent else "RESUMED", state.seconds
        self._tell(EventChange(state.silent_number, 0, kind, shared.SENDER_SILENT, at, at, 0.0, False))

    def end_events(self) -> None:
        """End the stream: its last frames, then the events and the problems that are open."""
        state = self.state
        self.tracker.end_seconds = state.seconds
        self._apply_tail()
        self._note(self.tracker.finish())
        if state.end == state.n_classified == 1 and state.last_label != "normal":  # one window, as in lib.inference
            state.label = state.last_label
        self._end_problems()

    def take_changes(self) -> list[EventChange]:
        """Return the oldest event changes not stored yet, at most one message full."""
        changes = self.state.outbox[: shared.MAX_CHANGES]
        del self.state.outbox[: shared.MAX_CHANGES]
        return changes

    def has_gap(self) -> bool:
        """Return whether the next sequence is missing although a later one is done, or the end is known."""
        state = self.state
        if self._replays_old:
            return state.next_sequence not in state.seen and (bool(state.seen) or state.next_sequence < state.end)
        return bool(state.waiting) or (state.next_sequence < state.end and not state.pending and not self.in_flight)

    def skip_gap(self, *, now: float) -> None:
        """Declare everything up to the next known sequence missing and go on."""
        state = self.state
        if state.next_sequence in state.seen:  # it is being worked on
            return
        stop = min(state.seen, default=state.end)
        state.missing = [*state.missing, [state.next_sequence, stop - 1]][-shared.MAX_GAP_RANGES :]
        state.next_sequence = stop
        self._apply(now)

    def finish(self, n_chunks: int, interrupted: str = "") -> None:
        """Note that the stream ends after `n_chunks` chunks; a smaller number than already seen is ignored.

        `interrupted`: why it ends before its time.
        """
        self.state.interrupted = interrupted[:300]
        self.state.end = max(n_chunks, self.state.next_sequence, *(sequence + 1 for sequence in self.state.seen), 0)

    def is_finished(self) -> bool:
        """Return whether every announced chunk is applied, missing or rejected, and stored."""
        is_given_up = self.state.abandoned and (self._replays_old or not self.state.pending)
        return is_given_up or (self._is_complete() and not self.state.outbox)

    def summary(self, kind: str) -> shared.StreamSummary:
        """Return the counts so far."""
        state = self.state
        lasting = {name: seconds for name, seconds in state.problem_seconds.items() if seconds > shared.SAME_SECONDS}
        remarks = [f"{problem} for {seconds:.1f} s" for problem, seconds in lasting.items()]  # a wait takes none of it
        remarks += [f"a chunk was rejected: {state.reason}"] * bool(state.reason)
        remarks += [f"interrupted: {state.interrupted}"] * bool(state.interrupted)
        found = {
            "state": self._name_of_state(),
            "kind": kind,
            "name": self.settings.name,
            "n_chunks": state.n_classified + state.n_rejected,
            "n_missing": sum(last - first + 1 for first, last in state.missing),
            "n_events": state.tracker.n_events,
            "remarks": [*state.remarks, *remarks],
            "problem_seconds": {problem: round(seconds, 3) for problem, seconds in state.problem_seconds.items()},
        }
        return shared.StreamSummary(**_of_state(state, shared.StreamSummary) | found)

    def status(self, kind: str = "stream") -> shared.StreamStatus:
        """Return what the status query answers."""
        state = self.state
        found = {
            "summary": self.summary(kind),
            "seen": sorted(state.seen),
            "n_pending": len(state.pending),
            "n_in_flight": len(self.in_flight),
            "open_events": self.tracker.open_events(),
            "problems": list(state.problems.values()),
        }
        return shared.StreamStatus(**_of_state(state, shared.StreamStatus) | found)

    def _name_of_state(self) -> str:
        if self.state.abandoned:
            return "abandoned"
        if self._is_complete():
            return "interrupted" if self.state.interrupted else "finished"
        return "silent" if self.state.silent else "running"

    def _is_complete(self) -> bool:
        busy = self.in_flight or self.state.pending
        return 0 <= self.state.end <= self.state.next_sequence and not busy

    def _apply(self, now: float) -> None:
        """Apply the outcomes that are in order now."""
        state = self.state
        while outcome := next((w for w in state.waiting if w.sequence == state.next_sequence), None):
            state.waiting.remove(outcome)
            state.seen.remove(outcome.sequence)
            state.next_sequence += 1
            self._watch_health(outcome)
            self._note(self.tracker.advance(self._spans(outcome)))
            state.last_label = outcome.label or state.last_label
            state.lag_seconds = round(max(0.0, now - outcome.sent_seconds), 3) if outcome.sent_seconds else 0.0
            state.seconds = max(state.seconds, outcome.stop_seconds)

    def _spans(self, outcome: shared.ChunkOutcome) -> list[Span]:
        """Return the chunk's frames that are final and new; without frames, the whole chunk."""
        state, frames = self.state, outcome.frames
        if frames is None:
            self._apply_tail()
            return [Span(outcome.start_seconds, outcome.stop_seconds, outcome.probabilities)]
        if frames.first_frame > state.next_frame:  # the chunk before this one is missing
            self._apply_tail(until=frames.first_frame)
        first, stop = max(state.next_frame, frames.first_frame), frames.first_frame + frames.n_final
        state.next_frame, state.tail = max(first, stop), frames
        return _frame_spans(frames, first, stop)

    def _apply_tail(self, until: int | None = None) -> None:
        """Apply the last chunk's frames that wait for the next chunk: none comes."""
        state = self.state
        if state.tail is not None:
            spans = _frame_spans(state.tail, state.next_frame, until)
            self._note(self.tracker.advance(spans))
            state.next_frame += len(spans)
            state.tail = None

    def _note(self, changes: list[EventChange]) -> None:
        self.state.outbox += changes
        for event in ended(changes):
            if event.peak_probability > self.state.peak_probability:
                self.state.peak_probability, self.state.label = event.peak_probability, event.label

    def _watch_health(self, outcome: shared.ChunkOutcome) -> None:
        """Raise and end problems by the next chunk in order."""
        start, stop, state = outcome.start_seconds, outcome.stop_seconds, self.state
        lost = start - state.seconds > shared.SAME_SECONDS
        self._set_problem(shared.SOUND_LOST, is_on=lost, since=state.seconds, until=start)
        state.unclassified_seconds += stop - start if outcome.status == shared.REJECTED else -state.unclassified_seconds
        failing = state.unclassified_seconds >= self.settings.unclassified_seconds - shared.SAME_SECONDS
        self._set_problem(shared.UNCLASSIFIED, is_on=failing, since=stop - state.unclassified_seconds, until=stop)
        if outcome.health is not None:
            self._watch_level(outcome.health, since=start, until=stop)

    def note_wait(self) -> None:
        """Raise that nothing is classified: no worker takes the next chunk."""
        self._set_problem(shared.UNCLASSIFIED, is_on=True, since=self.state.seconds, until=self.state.seconds)

    def _watch_level(self, health: shared.ChunkHealth, *, since: float, until: float) -> None:
        state, problems = self.state, health.problems()
        low, high, seconds = state.still or (health.low_db, health.high_db, 0.0)
        low, high = min(low, health.low_db), max(high, health.high_db)
        if high - low > STILL_DB:
            low, high, seconds = health.low_db, health.high_db, 0.0
        state.still = [low, high, seconds + until - since] if shared.NO_SIGNAL in problems else []
        state.level_db = health.high_db
        still_seconds = state.still[2] if state.still else 0.0
        is_still = still_seconds >= shared.STILL_SECONDS - shared.SAME_SECONDS
        self._set_problem(shared.NO_SIGNAL, is_on=is_still, since=until - still_seconds, until=until)
        self._set_problem(shared.CLIPPING, is_on=shared.CLIPPING in problems, since=since, until=until)

    def _set_problem(self, problem: str, *, is_on: bool, since: float, until: float) -> None:
        """Raise a problem, go on with it or end it, and count its seconds."""
        state, known = self.state, self.state.problems.get(problem)
        if self._replays_old or not (is_on or known):
            return
        if known is None:
            state.tracker.n_events += 1
            known = EventChange(state.tracker.n_events, 0, "HEALTH", problem, round(since, 6), since, 0.0, False)
            self._tell(replace(known, offset_seconds=until))
        elif not is_on:
            self._tell(replace(state.problems.pop(problem), kind="RESUMED"))
            return
        seconds = state.problem_seconds.get(problem, 0.0) + until - known.offset_seconds
        state.problem_seconds[problem] = seconds
        state.problems[problem] = replace(known, offset_seconds=until)

    def _end_problems(self) -> None:
        """End the stream's problems; a whole stream of silence is no signal, however short."""
        state = self.state
        if state.still and state.still[1] <= LEVEL_FLOOR_DB and state.still[2] >= state.seconds - shared.SAME_SECONDS:
            self._set_problem(shared.NO_SIGNAL, is_on=True, since=0.0, until=state.seconds)
        if state.silent and not state.abandoned:
            self.raise_silence(is_silent=False)
        for known in state.problems.values():
            self._tell(replace(known, kind="RESUMED"))
        state.problems.clear()

    def _tell(self, change: EventChange) -> None:
        self.state.tracker.n_changes += 1
        offset_seconds = round(change.offset_seconds, 6)
        self.state.outbox.append(replace(change, change=self.state.tracker.n_changes, offset_seconds=offset_seconds))

    def _forget_missing(self, sequence: int) -> None:
        kept: list[list[int]] = []
        for first, last in self.state.missing:
            kept += [[first, min(last, sequence - 1)], [max(first, sequence + 1), last]]
        self.state.missing = [span for span in kept if span[0] <= span[1]][-shared.MAX_GAP_RANGES :]


def _of_state(state: shared.StreamState, kind: type) -> dict[str, Any]:
    """Return what a message of a kind takes from the state as it is: fields of the same name."""
    return {name: vars(state)[name] for field in fields(kind) if (name := field.name) in vars(state)}


def _frame_spans(frames: shared.FrameProbabilities, first: int, stop: int | None) -> list[Span]:
    """Return the spans of frames [first, stop) of the stream, or to the last one; `first` is not before the first."""
    rows = frames.rows()[first - frames.first_frame : None if stop is None else max(0, stop - frames.first_frame)]
    return list(frame_spans(rows, hop_seconds=shared.HOP_SECONDS, first_frame=first))


def _take_over_old_events(state: shared.StreamState) -> None:
    """Go on with what version 0.1 carried over: at most one open event."""
    old, state.events = state.events, None
    if old is None:
        return
    tracker = state.tracker
    tracker.n_events, tracker.n_changes, tracker.seconds = old["n_events"], old["n_changes"], state.seconds
    state.silent_number = old["silent_number"]
    if old["label"]:
        event = OpenEvent(*(old[name] for name in ("onset_seconds", "offset_seconds", "peak_probability", "number")))
        event.is_changed, event.is_sustained = False, old["sustained"]
        event.unknown_seconds = max(0.0, state.seconds - event.offset_seconds)
        tracker.open[old["label"]] = event
