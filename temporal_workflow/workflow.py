"""Deterministic orchestration: which chunk when, in which order, and what to do when one is bad, late or missing.

No numpy, no files, no models, no clock but Temporal's: the sandbox runs this module again on every replay.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from temporal_workflow import shared
    from temporal_workflow.progress import StreamProgress

UNBOUNDED = RetryPolicy(initial_interval=shared.RETRY_FIRST, maximum_interval=shared.RETRY_LONGEST)
BOUNDED = RetryPolicy(
    initial_interval=shared.RETRY_FIRST,
    maximum_interval=shared.RETRY_LONGEST,
    maximum_attempts=shared.MAX_CRASHES,
)
Result = TypeVar("Result")


@workflow.defn
class MonitorStreamWorkflow:
    """One live stream, for as long as it lasts: a signal per chunk, continue-as-new every few hundred."""

    @workflow.init
    def __init__(self, stream: shared.MonitorStreamInput) -> None:
        self._pipeline = ChunkPipeline(stream.settings, stream.state)
        self._progress = self._pipeline.progress
        self._settings = stream.settings
        self._last_chunk_at = workflow.now().timestamp()

    @workflow.run
    async def run(self, stream: shared.MonitorStreamInput) -> shared.StreamSummary:
        """Classify chunks as they come until the sender says that it is done."""
        watches = [asyncio.create_task(self._watch_gaps()), asyncio.create_task(self._watch_sender())]
        while not self._progress.is_finished():
            await workflow.wait_condition(self._has_work)
            if self._pipeline.is_run_long():
                await self._pipeline.drain()
                workflow.continue_as_new(shared.MonitorStreamInput(stream.settings, self._progress.state))
            while self._progress.can_start():
                self._pipeline.start()
            if self._must_flush():
                await self._pipeline.flush()
        for watch in watches:
            watch.cancel()
        self._progress.end_events()
        summary = self._progress.summary("stream")
        await self._pipeline.flush(summary=summary)
        return summary

    @workflow.signal
    def add_chunk(self, chunk: shared.ChunkReference) -> None:
        """Take one chunk; sent twice or out of order it changes nothing."""
        self._last_chunk_at = workflow.now().timestamp()
        if self._progress.state.silent:
            self._progress.raise_silence(is_silent=False)
        self._progress.accept(chunk)

    @workflow.signal
    def finish(self, n_chunks: int) -> None:
        """Note that the stream ends after `n_chunks` chunks."""
        self._progress.finish(n_chunks)

    @workflow.query
    def status(self) -> shared.StreamStatus:
        """Return counts, last label, open events, lag, and which sequences are known."""
        return self._progress.status()

    def _has_work(self) -> bool:
        ready = self._progress.can_start() or self._must_flush()
        return ready or self._progress.is_finished() or self._pipeline.is_run_long()

    def _must_flush(self) -> bool:
        """Return whether event changes wait and no chunk is on its way that would take them along."""
        state = self._progress.state
        return bool(state.outbox) and not self._progress.in_flight and not state.pending

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
                self._progress.skip_gap(now=workflow.now().timestamp())

    async def _watch_sender(self) -> None:
        """Report a silent sender once per silence; a day of it ends the stream."""
        state = self._progress.state
        while not state.abandoned:
            silence = workflow.now().timestamp() - self._last_chunk_at
            if silence < self._settings.silent_seconds:
                await workflow.sleep(self._settings.silent_seconds - silence)
            elif state.end >= 0:
                return
            else:
                await self._wait_out_the_silence()

    async def _wait_out_the_silence(self) -> None:
        state = self._progress.state
        if not state.silent:  # it may have been carried over from an earlier run
            self._progress.raise_silence(is_silent=True)
        try:
            await workflow.wait_condition(
                lambda: not state.silent or state.end >= 0, timeout=timedelta(seconds=self._settings.abandon_seconds)
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
            for chunk in await self._cut(file):
                progress.accept(chunk)
            while progress.state.pending:
                await workflow.wait_condition(progress.can_start)
                self._pipeline.start()
            await workflow.wait_condition(lambda: not progress.in_flight)
            while progress.state.outbox:
                await self._pipeline.flush()
        progress.end_events()
        summary = progress.summary("file")
        await self._pipeline.flush(summary=summary, audio=(file.recording.sha256,))
        return summary

    @workflow.query
    def status(self) -> shared.StreamSummary:
        """Return the counts so far."""
        return self._progress.summary("file")

    async def _cut(self, file: shared.ClassifyFileInput) -> list[shared.ChunkReference]:
        """Cut the next chunks; unreadable audio is recorded and fails the workflow with the error's name."""
        given = shared.CutInput(
            stream_id=workflow.info().workflow_id,
            recording=file.recording,
            chunk_seconds=file.chunk_seconds,
            first_sequence=self._progress.state.next_sequence,
            n_chunks=min(2 * file.settings.window, shared.MAX_PENDING),
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
        reports_health = workflow.patched("health")
        self.progress = StreamProgress(settings, state or shared.StreamState(), reports_health=reports_health)
        self._settings = settings
        self._n_started = 0

    def start(self) -> None:
        """Start the earliest pending chunk."""
        self._n_started += 1
        chunk = self.progress.start_next()
        asyncio.get_running_loop().create_task(self._process(chunk))

    async def flush(self, *, summary: shared.StreamSummary | None = None, audio: tuple[str, ...] = ()) -> None:
        """Store event changes that no chunk took along, and the summary at the end."""
        await _store(
            shared.StoreInput(
                workflow.info().workflow_id,
                changes=self.progress.take_changes(),
                summary=summary,
                audio=list(audio),
                keep_audio=self._settings.keep_audio,
            )
        )

    def is_run_long(self) -> bool:
        """Return whether it is time for continue-as-new."""
        info = workflow.info()
        n_events = info.get_current_history_length()
        long = n_events >= shared.HISTORY_EVENTS_PER_RUN or info.is_continue_as_new_suggested()
        return long or self._n_started >= self._settings.chunks_per_run

    async def drain(self) -> None:
        """Wait until nothing is in flight, no handler runs and every event change is stored."""
        await workflow.wait_condition(lambda: not self.progress.in_flight and workflow.all_handlers_finished())
        while self.progress.state.outbox:
            await self.flush()
        self.progress.state.n_runs += 1

    async def _process(self, chunk: shared.ChunkReference) -> None:
        stored = await self._classify(workflow.info().workflow_id, chunk, late=self.progress.is_late(chunk))
        assert stored.outcome is not None
        self.progress.record(stored.outcome, now=workflow.now().timestamp())
        keep_audio = stored.keep_audio or self._settings.keep_audio
        await _store(replace(stored, changes=self.progress.take_changes(), keep_audio=keep_audio))
        self.progress.in_flight.discard(chunk.sequence)

    async def _classify(self, stream_id: str, chunk: shared.ChunkReference, *, late: bool) -> shared.StoreInput:
        """Preprocess and classify one chunk; return what is to be stored about it."""
        try:
            prepared = await _infer(
                "preprocess",
                shared.PreprocessInput(stream_id, chunk),
                shared.PreprocessResult,
                timeout=shared.PREPROCESS_TIMEOUT,
            )
            result = await _infer(
                "classify",
                shared.ClassifyInput(prepared.chunk, self.progress.state.settings_version),
                shared.ClassifyResult,
                timeout=shared.CLASSIFY_TIMEOUT,
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            outcome = _outcome(chunk, late=late, status=shared.REJECTED, reason=_reason(error))
            # What failed because of our code is kept: a corrected classifier may need it.
            return shared.StoreInput(stream_id, outcome, audio=[chunk.sha256], keep_audio=not _is_bad_audio(error))
        if result.settings is not None:
            self.progress.use_settings(result.settings, result.settings_version)
        found = {name: value for name, value in vars(result).items() if not name.startswith("settings")}
        outcome = _outcome(chunk, late=late, status=shared.CLASSIFIED, health=prepared.health, **found)
        return shared.StoreInput(stream_id, outcome, audio=sorted({chunk.sha256, prepared.chunk.sha256}))


def _outcome(chunk: shared.ChunkReference, **found: object) -> shared.ChunkOutcome:
    return shared.ChunkOutcome(
        sequence=chunk.sequence,
        sha256=chunk.sha256,
        start_seconds=chunk.start_seconds,
        stop_seconds=chunk.stop_seconds,
        sent_seconds=chunk.sent_seconds,
        **found,  # type: ignore[arg-type]
    )


async def _infer(name: str, given: object, result: type[Result], *, timeout: timedelta) -> Result:
    """Run an activity of the inference queue; while disk or store are at fault, go on trying."""
    while True:
        try:
            return await workflow.execute_activity(
                name,
                given,
                result_type=result,
                task_queue=shared.INFERENCE_QUEUE,
                start_to_close_timeout=timeout,
                heartbeat_timeout=shared.HEARTBEAT_TIMEOUT,
                retry_policy=BOUNDED,
            )
        except ActivityError as error:
            if not (isinstance(error.cause, ApplicationError) and error.cause.type == shared.INFRASTRUCTURE):
                raise


async def _store(stored: shared.StoreInput) -> None:
    """Write to the results table; this never gives up, so nothing that was classified is lost."""
    await workflow.execute_activity(
        "store",
        stored,
        task_queue=shared.ORCHESTRATION_QUEUE,
        start_to_close_timeout=shared.STORE_TIMEOUT,
        heartbeat_timeout=shared.HEARTBEAT_TIMEOUT,
        retry_policy=UNBOUNDED,
    )


def _is_bad_audio(error: ActivityError) -> bool:
    """Return whether the chunk itself was refused, by a named error."""
    return isinstance(error.cause, ApplicationError) and error.cause.non_retryable


def _reason(error: ActivityError) -> str:
    """Say why a chunk is rejected: the named error, or that it took down its worker too often."""
    if isinstance(error.cause, ApplicationError):
        return f"{error.cause.type}: {error.cause.message}"[:300]
    return f"WorkerLost: the worker was lost {shared.MAX_CRASHES} times while it held this chunk"
