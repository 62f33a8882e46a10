"""Deterministic orchestration: which chunk when, in which order, and what to do when one is bad, late or missing.

No numpy, no files, no models, no clock but Temporal's: this module runs again on every replay.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutType, is_cancelled_exception
from temporalio.exceptions import TimeoutError as ActivityTimeout

with workflow.unsafe.imports_passed_through():
    from temporal_workflow import shared
    from temporal_workflow.progress import StreamProgress

UNBOUNDED = RetryPolicy(initial_interval=shared.RETRY_FIRST, maximum_interval=shared.RETRY_LONGEST)
BOUNDED = replace(UNBOUNDED, maximum_attempts=shared.MAX_CRASHES)
ONCE = RetryPolicy(maximum_attempts=1)
Result = TypeVar("Result")


@workflow.defn
class MonitorStreamWorkflow:
    """One live stream, for as long as it lasts: a signal per chunk, and a new run after some rounds, see `is_run_long`.

    Signals wait in an inbox; one coroutine takes them in their order, a round at a time, and waits for each step of a
    round before the next. So the order of commands follows from the order of events alone: a worker that stood still
    may have seen the same events in other workflow tasks than a replay, which hands over signals before results.
    Timers only note what is due, for the same reason: a task that is done again, because its worker was killed after a
    local activity, may find that a timer has fired meanwhile, and must store the same changes under the same numbers.
    """

    @workflow.init
    def __init__(self, stream: shared.MonitorStreamInput) -> None:
        self._pipeline = ChunkPipeline(stream.settings, stream.state)
        self._progress = self._pipeline.progress
        self._settings = stream.settings
        self._last_chunk_at = workflow.now().timestamp()
        self._inbox: list[shared.ChunkReference] = []
        self._announced: tuple[int, str] | None = None  # the end of the stream, and why if before its time
        self._gap_due: int | None = None  # the missing sequence that was waited for long enough
        self._silence_due = False

    @workflow.run
    async def run(self, stream: shared.MonitorStreamInput) -> shared.StreamSummary:
        """Classify chunks as they come until the sender says that it is done."""
        watches = [asyncio.create_task(self._watch_gaps()), asyncio.create_task(self._watch_sender())]
        if self._pipeline.replays_old:
            await self._run_as_before(stream)
        else:
            await self._run_rounds(stream)
        for watch in watches:
            watch.cancel()
        self._progress.end_events()
        summary = self._progress.summary("stream")
        await self._pipeline.flush(summary=summary)
        return summary

    async def _run_rounds(self, stream: shared.MonitorStreamInput) -> None:
        while True:
            self._take()
            if self._progress.is_finished():
                return
            if self._pipeline.is_run_long():
                self._take(every=True)
                await self._pipeline.drain()
                self._take(every=True)  # what came while event changes were stored
                workflow.continue_as_new(shared.MonitorStreamInput(stream.settings, self._progress.state))
            if self._progress.state.pending:
                await self._pipeline.run_round()
            elif self._progress.state.outbox:
                await self._pipeline.flush()
            else:
                await workflow.wait_condition(self._has_news)

    def _take(self, *, every: bool = False) -> None:
        """Do what came since the last round: tell of silence, accept chunks, note the end, go on without a late chunk.

        Chunks are as many as a round takes, or every one; the end is noted once all are accepted.
        """
        state = self._progress.state
        if self._silence_due:
            self._silence_due = False
            self._raise_silence()
        if self._inbox and state.silent:
            self._progress.raise_silence(is_silent=False)
        while self._inbox and (every or len(state.pending) < shared.CHUNKS_PER_ROUND):
            self._progress.accept(self._inbox.pop(0))
        if self._announced is not None and not self._inbox:
            self._progress.finish(*self._announced)
            self._announced = None
        awaited, self._gap_due = self._gap_due, None
        is_there = any(chunk.sequence == awaited for chunk in self._inbox)  # it came after all
        if awaited == state.next_sequence and self._progress.has_gap() and not is_there:
            self._progress.skip_gap(now=workflow.now().timestamp())

    def _raise_silence(self) -> None:
        self._progress.raise_silence(is_silent=True)
        self._progress.state.silent_since = workflow.now().timestamp()

    def _has_news(self) -> bool:
        sent = bool(self._inbox) or self._announced is not None
        due = self._silence_due or self._gap_due is not None
        return sent or due or bool(self._progress.state.outbox) or self._progress.is_finished()

    async def _run_as_before(self, stream: shared.MonitorStreamInput) -> None:
        """Go on as versions without rounds did, which started this run."""
        progress, pipeline = self._progress, self._pipeline

        def must_flush() -> bool:  # event changes wait, and no chunk is on its way that would take them along
            return bool(progress.state.outbox) and not progress.in_flight and not progress.state.pending

        while not progress.is_finished():
            await workflow.wait_condition(
                lambda: progress.can_start() or must_flush() or progress.is_finished() or pipeline.is_run_long()
            )
            if pipeline.is_run_long():
                await pipeline.drain()
                workflow.continue_as_new(shared.MonitorStreamInput(stream.settings, progress.state))
            while progress.can_start():
                pipeline.start()
            if must_flush():
                await pipeline.flush()

    @workflow.signal
    def add_chunk(self, chunk: shared.ChunkReference) -> None:
        """Take one chunk; sent twice or out of order it changes nothing."""
        self._last_chunk_at = workflow.now().timestamp()
        if not self._pipeline.replays_old:
            self._inbox.append(chunk)
            return
        if self._progress.state.silent:
            self._progress.raise_silence(is_silent=False)
        self._progress.accept(chunk)

    @workflow.signal
    def finish(self, n_chunks: int, interrupted: str = "") -> None:
        """Note that the stream ends after `n_chunks` chunks, and why if that is before its time."""
        if self._pipeline.replays_old:
            self._progress.finish(n_chunks, interrupted)
        else:
            self._announced = n_chunks, interrupted

    @workflow.query
    def status(self) -> shared.StreamStatus:
        """Return counts, last label, open events, lag, and which sequences are known."""
        status = self._progress.status()
        taken = {str(chunk.sequence): shared.short_hash(chunk.sha256) for chunk in self._inbox}
        known = sorted({*status.seen, *(chunk.sequence for chunk in self._inbox)})
        n_pending = status.n_pending + len(self._inbox)
        return replace(status, seen=known, n_pending=n_pending, hashes={**taken, **status.hashes})

    async def _watch_gaps(self) -> None:
        """Wait `gap_seconds` for a missing chunk, then go on without it."""
        while True:
            await workflow.wait_condition(self._progress.has_gap)
            awaited = self._progress.state.next_sequence

            def is_closed(awaited: int = awaited) -> bool:
                return self._progress.state.next_sequence != awaited or not self._progress.has_gap()

            try:
                await workflow.wait_condition(is_closed, timeout=timedelta(seconds=self._settings.gap_seconds))
            except TimeoutError:
                if self._pipeline.replays_old:
                    self._progress.skip_gap(now=workflow.now().timestamp())
                else:
                    self._gap_due = awaited
                    await workflow.wait_condition(lambda: self._gap_due is None)

    async def _watch_sender(self) -> None:
        """Report a silent sender once per silence; a day of it ends the stream."""
        state = self._progress.state
        while not state.abandoned:
            silence = workflow.now().timestamp() - self._last_chunk_at
            if silence < self._settings.silent_seconds:
                await workflow.sleep(self._settings.silent_seconds - silence)
            elif self._has_end():
                return
            else:
                await self._wait_out_the_silence()

    def _has_end(self) -> bool:
        return self._progress.state.end >= 0 or self._announced is not None

    async def _wait_out_the_silence(self) -> None:
        state = self._progress.state
        if not state.silent:  # it may have been carried over from an earlier run
            if self._pipeline.replays_old:
                self._raise_silence()
            else:
                self._silence_due = True
        waited = workflow.now().timestamp() - state.silent_since if state.silent and state.silent_since else 0.0
        left = timedelta(seconds=max(1.0, self._settings.abandon_seconds - waited))  # in this run of the stream
        try:
            await workflow.wait_condition(
                lambda: not (state.silent or self._silence_due) or self._has_end(), timeout=left
            )
        except TimeoutError:
            state.abandoned = True


@workflow.defn
class ClassifyFileWorkflow:
    """One recording of any length: cut into chunks, classified side by side, merged into one list of events."""

    @workflow.init
    def __init__(self, file: shared.ClassifyFileInput) -> None:
        self._pipeline = ChunkPipeline(file.settings, file.state)
        self._progress = self._pipeline.progress

    @workflow.run
    async def run(self, file: shared.ClassifyFileInput) -> shared.StreamSummary:
        """Cut, classify and store the recording; return the summary."""
        progress = self._progress
        while not progress.is_finished():
            if self._pipeline.is_run_long():
                await self._pipeline.drain()
                workflow.continue_as_new(replace(file, state=progress.state))
            if not progress.state.pending:  # some are left where the last run waited for a worker
                for chunk in await self._cut(file):
                    progress.accept(chunk)
            if self._pipeline.replays_old:
                while progress.state.pending:
                    await workflow.wait_condition(progress.can_start)
                    self._pipeline.start()
                await workflow.wait_condition(lambda: not progress.in_flight)
            else:
                n_lanes = max(1, shared.WINDOW // shared.CHUNKS_PER_ROUND)
                await asyncio.gather(*(self._pipeline.run_lane() for _ in range(n_lanes)))
            while progress.state.outbox:
                await self._pipeline.flush()
        progress.end_events()
        summary = progress.summary("file")
        await self._pipeline.flush(summary=summary, audio=(file.recording.sha256,))
        return summary

    @workflow.query
    def status(self) -> shared.StreamStatus:
        """Return what a stream's status does."""
        return self._progress.status("file")

    async def _cut(self, file: shared.ClassifyFileInput) -> list[shared.ChunkReference]:
        """Cut the next chunks; unreadable audio is recorded and fails the workflow with the error's name."""
        given = shared.CutInput(
            stream_id=workflow.info().workflow_id,
            recording=file.recording,
            chunk_seconds=file.chunk_seconds,
            first_sequence=self._progress.state.next_sequence,
            n_chunks=min(2 * shared.WINDOW, shared.MAX_PENDING),
        )
        try:
            cut = await _infer("cut", given, shared.CutResult, timeout=shared.CUT_TIMEOUT)
        except ActivityError as error:
            if _is_bad_audio(error):
                summary = replace(self._progress.summary("file"), state=shared.REJECTED)
                await self._pipeline.flush(summary=summary, audio=(file.recording.sha256,))
            raise
        if cut.n_total >= 0:
            self._progress.finish(cut.n_total)
            self._progress.state.remarks = [remark[:300] for remark in cut.remarks[:5]]
        return cut.chunks


class ChunkPipeline:
    """What both workflows share: progress, a bounded number of chunks in flight, and the store at the end of each."""

    def __init__(self, settings: shared.StreamSettings, state: shared.StreamState | None) -> None:
        self.replays_old = not workflow.patched("one activity")  # a run that version 0.1 began
        self.progress = StreamProgress(settings, state or shared.StreamState(), replays_old=self.replays_old)
        self._settings = settings
        self._n_started = self._n_rounds = 0
        self._n_alone = 0  # chunks to be worked on one at a time: a round with them was lost

    async def run_lane(self) -> None:
        """Run one round after the other until no chunk is left, or no worker takes them and the run is long."""
        while self.progress.state.pending:
            if not await self.run_round() and self.is_run_long():
                return

    async def run_round(self) -> bool:
        """Classify and store the next chunks: one command at a time. Return whether a worker could do it.

        What was done is read from the results, not from what is remembered: a replay may take more chunks into the
        round than the worker did that saw their signals later.
        """
        is_alone, keep_audio = self._n_alone > 0, False
        chunks = self.progress.start_round(1 if is_alone else shared.CHUNKS_PER_ROUND)
        self._n_alone -= is_alone
        self._n_rounds += 1
        try:
            outcomes = await self._classify_round(chunks)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            if _is_not_taken(error) or _is_infrastructure(error):
                await self._put_off(chunks, is_told=_is_not_taken(error))
                self._n_alone += is_alone
                return False
            outcomes, keep_audio = [self._outcome(chunk, None, _reason(error)) for chunk in chunks], True
            if len(chunks) > 1:
                self._n_alone, outcomes = len(chunks), []
        for outcome in outcomes:
            self.progress.record(outcome, now=workflow.now().timestamp())
        done = {outcome.sequence for outcome in outcomes}
        self.progress.give_back([chunk for chunk in chunks if chunk.sequence not in done])
        if outcomes:
            stored = [self._message(outcome, keep_audio=keep_audio) for outcome in outcomes]
            stored[-1] = replace(stored[-1], changes=self.progress.take_changes())
            await self._store(stored, is_local=True)
        self._n_started += len(done)
        self.progress.in_flight -= done
        return True

    async def _put_off(self, chunks: list[shared.ChunkReference], *, is_told: bool) -> None:
        """Put chunks back that no worker took or could take: the next round tries again, of the next run perhaps."""
        if is_told:
            self.progress.note_wait()
            if self.progress.state.outbox:
                await self.flush()
        self.progress.give_back(chunks)

    async def _classify_round(self, chunks: list[shared.ChunkReference]) -> list[shared.ChunkOutcome]:
        classified = await _infer(
            "classify_round",
            shared.ClassifyRound(chunks, self.progress.state.settings_version),
            list[shared.ClassifiedChunk],
            timeout=shared.CLASSIFY_TIMEOUT,
            wait=timedelta(seconds=self._settings.unclassified_seconds),
        )
        by_sequence = {chunk.sequence: chunk for chunk in chunks}
        ordered = sorted(classified, key=lambda each: each.sequence)
        return [self._outcome(by_sequence[each.sequence], each.result, each.reason) for each in ordered]

    def _outcome(
        self, chunk: shared.ChunkReference, result: shared.ClassifyResult | None, reason: str
    ) -> shared.ChunkOutcome:
        """Return what came of a chunk: its classification, or why it is rejected."""
        found: dict[str, Any] = {"reason": reason}
        if result is not None:
            found = {name: value for name, value in vars(result).items() if not name.startswith("settings")}
            if result.settings is not None:
                self.progress.use_settings(result.settings, result.settings_version)
        status = shared.CLASSIFIED if result else shared.REJECTED
        is_late = chunk.sequence not in self.progress.state.seen  # the stream had gone on without it
        return shared.ChunkOutcome.for_chunk(chunk, status, late=is_late, **found)

    def _message(
        self, outcome: shared.ChunkOutcome | None = None, *, keep_audio: bool = False, **found: Any
    ) -> shared.StoreInput:
        """Return what is stored; audio is kept where it was asked for, or for a corrected version of our code."""
        return shared.StoreInput(
            workflow.info().workflow_id,
            outcome,
            **{"audio": [outcome.sha256] if outcome else [], **found},
            keep_audio=keep_audio or self._settings.keep_audio,
            name=self._settings.name[: shared.MAX_NAME],
        )

    def start(self) -> None:
        """Start the earliest pending chunk, as versions without rounds did."""
        self._n_started += 1
        self.progress.state.pending.sort(key=lambda pending: pending.sequence)
        (chunk,) = self.progress.start_round(1)
        asyncio.get_running_loop().create_task(self._process(chunk))

    async def flush(self, *, summary: shared.StreamSummary | None = None, audio: tuple[str, ...] = ()) -> None:
        """Store event changes that no chunk took along, and the summary at the end.

        Changes alone may follow from a timer. A workflow task that is lost after a local activity may be done again
        with a chunk that came before the timer then, so they are stored once Temporal knows what was decided.
        """
        if not self.replays_old and summary is None:
            workflow.deprecate_patch("changes alone")  # running histories hold its mark
        stored = self._message(changes=self.progress.take_changes(), summary=summary, audio=list(audio))
        await self._store(stored, is_local=summary is not None and not self.replays_old)

    async def _store(self, stored: shared.StoreInput | list[shared.StoreInput], *, is_local: bool) -> None:
        """Write to the results table; this never gives up, so nothing that was classified is lost.

        `is_local`: by a local activity first: quick, and its input is not part of the history. Where that fails, by
        one that Temporal repeats until it works.
        """
        name = "store_round" if isinstance(stored, list) else "store"
        if is_local:
            try:
                await workflow.execute_local_activity(
                    name, stored, start_to_close_timeout=shared.STORE_TIMEOUT, retry_policy=ONCE
                )
                return
            except FailureError as error:  # of a local activity not wrapped in an ActivityError
                if is_cancelled_exception(error):
                    raise
        await workflow.execute_activity(
            name,
            stored,
            task_queue=shared.ORCHESTRATION_QUEUE,
            start_to_close_timeout=shared.STORE_TIMEOUT,
            heartbeat_timeout=shared.HEARTBEAT_TIMEOUT,
            retry_policy=UNBOUNDED,
        )

    def is_run_long(self) -> bool:
        """Return whether it is time for continue-as-new."""
        info, long = workflow.info(), self._n_started >= self._settings.chunks_per_run
        limit = shared.HISTORY_EVENTS_PER_RUN * (1 if self.replays_old else 2)  # rounds are counted: that is exact
        n_events = info.get_current_history_length()
        long = long or self._n_rounds >= shared.ROUNDS_PER_RUN or n_events >= limit
        return long or info.is_continue_as_new_suggested()

    async def drain(self) -> None:
        """Wait until nothing is in flight, no handler runs and every event change is stored."""
        await workflow.wait_condition(lambda: not self.progress.in_flight and workflow.all_handlers_finished())
        while self.progress.state.outbox:
            await self.flush()
        self.progress.state.n_runs += 1

    async def _process(self, chunk: shared.ChunkReference) -> None:
        """Classify and store one chunk, as versions without rounds did."""
        result, reason, keep_audio = None, "", False
        try:
            given = shared.ClassifyInput(chunk)
            given = await _infer("preprocess", given, shared.ClassifyInput, timeout=shared.PREPROCESS_TIMEOUT)
            given = replace(given, settings_version=self.progress.state.settings_version)
            result = await _infer("classify", given, shared.ClassifyResult, timeout=shared.CLASSIFY_TIMEOUT)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            reason, keep_audio = _reason(error), not _is_bad_audio(error)
        outcome = self._outcome(chunk, result, reason)
        self.progress.record(outcome, now=workflow.now().timestamp())
        stored = self._message(outcome, keep_audio=keep_audio, changes=self.progress.take_changes())
        await self._store(stored, is_local=False)
        self.progress.in_flight.discard(chunk.sequence)


async def _infer(
    name: str, given: object, result: type[Result], *, timeout: timedelta, wait: timedelta | None = None
) -> Result:
    """Run an activity of the inference queue.

    With `wait`, its error passes where no worker takes it for so long, or disk or store are at fault. Without, go on
    trying.
    """
    while True:
        try:
            return await workflow.execute_activity(
                name,
                given,
                result_type=result,
                task_queue=shared.INFERENCE_QUEUE,
                start_to_close_timeout=timeout,
                schedule_to_start_timeout=wait,
                heartbeat_timeout=shared.HEARTBEAT_TIMEOUT,
                retry_policy=BOUNDED,
            )
        except ActivityError as error:
            if wait or not _is_infrastructure(error):
                raise


def _is_not_taken(error: ActivityError) -> bool:
    """Return whether no worker took the activity in time."""
    return isinstance(error.cause, ActivityTimeout) and error.cause.type == TimeoutType.SCHEDULE_TO_START


def _is_infrastructure(error: ActivityError) -> bool:
    """Return whether disk or store were at fault, not the chunk."""
    return isinstance(error.cause, ApplicationError) and error.cause.type == shared.INFRASTRUCTURE


def _is_bad_audio(error: ActivityError) -> bool:
    """Return whether the chunk itself was refused, by a named error."""
    return isinstance(error.cause, ApplicationError) and error.cause.non_retryable


def _reason(error: ActivityError) -> str:
    """Say why a chunk is rejected: the named error, or that it took down its worker too often."""
    if isinstance(error.cause, ApplicationError):
        return f"{error.cause.type}: {error.cause.message}"[:300]
    return f"WorkerLost: the worker was lost {shared.MAX_CRASHES} times while it held this chunk"
