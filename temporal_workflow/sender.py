"""Sends streams and files to the service: audio to the store, references through Temporal.

A stream's chunks go by signal, and again whatever did not arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from lib.events import EventChange
from temporal_workflow import shared
from temporal_workflow.settings import Settings
from temporal_workflow.store import ChunkStore
from temporal_workflow.workflow import ClassifyFileWorkflow, MonitorStreamWorkflow

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")
MAX_UNCONFIRMED = 16  # chunks sent beyond what the workflow is known to have accepted and applied
POLL_SECONDS = 0.2
RESEND_SECONDS = 5.0
WATCH_SECONDS = 5.0
OUTAGE_SECONDS = 300.0  # sending is given up when the server cannot be reached for longer
QUERY_SECONDS = timedelta(seconds=5)
UNREACHABLE = (  # what the SDK reports while the server or every worker is down or restarting
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.UNKNOWN,
)


class SendError(RuntimeError):
    """Chunks could not be delivered; sending the same stream again goes on where this stopped."""


class StreamClosedError(SendError):
    """The stream has ended already."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(f"{stream_id} has ended and its results are stored: leave out --stream to start a new one.")


class ConflictError(SendError):
    """The stream holds other sound under the same sequence."""


def new_stream_id() -> str:
    """Return a random id: stream ids are plain text in Temporal's database, so they must tell nothing."""
    return f"stream-{secrets.token_hex(8)}"


class StreamSender:
    """Delivers the chunks of a new stream, or of one to continue, at least once; the workflow stores them exactly once.

    `settings` are used if the stream is new. `stored`, where it may be there already: SHA-256 by sequence of what the
    results table has; other content under the same sequence is refused (the workflow remembers only the newest).
    """

    def __init__(
        self,
        client: Client,
        stream_id: str,
        *,
        settings: shared.StreamSettings | None = None,
        stored: Mapping[int, str] | None = None,
    ) -> None:
        self.stream_id = stream_id
        self._client, self._stored = client, stored
        settings = settings or shared.StreamSettings()
        self._settings = replace(settings, name=settings.name[: shared.MAX_NAME])
        self._handle: WorkflowHandle = client.get_workflow_handle_for(MonitorStreamWorkflow.run, stream_id)
        self._unconfirmed: dict[int, tuple[shared.ChunkReference, float]] = {}
        self._next_sequence = 0
        self.has_sent = False

    async def send(self, chunk: shared.ChunkReference) -> None:
        """Send one chunk; wait first while too many are on their way.

        Raises
        ------
        StreamClosedError, ConflictError
            If the stream has ended, or holds other sound under the same sequence.
        SendError
            If the server cannot be reached for `OUTAGE_SECONDS`.
        """
        while len(self._unconfirmed) >= MAX_UNCONFIRMED or (
            self.has_sent and chunk.sequence >= self._next_sequence + shared.MAX_AHEAD  # the workflow would refuse it
        ):
            await self._confirm()
            await asyncio.sleep(POLL_SECONDS)
        self._check_same(chunk, (self._stored or {}).get(chunk.sequence, ""))
        await self._signal(chunk)
        self._unconfirmed[chunk.sequence] = (chunk, time.monotonic())
        is_first, self.has_sent = not self.has_sent, True
        if is_first and self._stored is not None:  # before more is sent that may not belong there
            await self.delivered()

    async def finish(self, n_chunks: int, *, interrupted: str = "") -> None:
        """Wait until every chunk was accepted, then say that the stream has ended, and why if before its time."""
        await self.delivered()
        await _patiently(lambda: self._handle.signal("finish", args=[n_chunks, interrupted]))

    async def delivered(self) -> None:
        """Wait until the workflow has accepted everything that was sent."""
        while self._unconfirmed:
            await self._confirm()
            if self._unconfirmed:
                await asyncio.sleep(POLL_SECONDS)

    async def status(self) -> shared.StreamStatus:
        """Ask the stream how it stands."""
        return await _patiently(
            lambda: self._handle.query(MonitorStreamWorkflow.status, rpc_timeout=QUERY_SECONDS), exists=self.has_sent
        )

    async def result(self) -> shared.StreamSummary:
        """Wait for the end of the stream."""
        return await _patiently(self._handle.result)

    async def _signal(self, chunk: shared.ChunkReference) -> None:
        try:
            await _patiently(
                lambda: self._client.start_workflow(
                    MonitorStreamWorkflow.run,
                    shared.MonitorStreamInput(self._settings),
                    id=self.stream_id,
                    task_queue=shared.ORCHESTRATION_QUEUE,
                    task_timeout=shared.WORKFLOW_TASK_TIMEOUT,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    start_signal="add_chunk",
                    start_signal_args=[chunk],
                )
            )
        except WorkflowAlreadyStartedError:
            raise StreamClosedError(self.stream_id) from None

    async def _confirm(self) -> None:
        """Drop what the workflow has, and send again what it should have by now."""
        status = await self.status()
        self._next_sequence = status.next_sequence
        for sequence, (chunk, sent_at) in list(self._unconfirmed.items()):
            is_missing = any(first <= sequence <= last for first, last in status.missing)
            if sequence in status.seen or (sequence < status.next_sequence and not is_missing):
                self._check_same(chunk, status.hashes.get(str(sequence), ""))
                del self._unconfirmed[sequence]
            elif time.monotonic() - sent_at > RESEND_SECONDS:
                await self._signal(chunk)
                self._unconfirmed[sequence] = (chunk, time.monotonic())

    def _check_same(self, chunk: shared.ChunkReference, known: str) -> None:
        if not chunk.sha256.startswith(known):
            raise ConflictError(
                f"{self.stream_id} holds other sound as chunk {chunk.sequence}: this is another recording, or the same "
                "one cut otherwise (--chunk-seconds). Leave out --stream to start a new stream."
            )


async def send_stream(
    sender: StreamSender,
    chunks: AsyncIterator[shared.ChunkReference],
    *,
    on_sent: Callable[[shared.ChunkReference], object] = lambda _: None,
    on_problem: Callable[[EventChange], object] = lambda _: None,
) -> shared.StreamSummary:
    """Send all chunks of one stream, end it, and return its summary.

    Where the source fails, or Ctrl+C comes, the stream is ended as interrupted. `on_problem` is told what is wrong with
    the stream while it is sent.

    Raises
    ------
    ValueError
        If the source ends before it gave a chunk: then there is no stream.
    """
    n_chunks, interrupted = 0, ""
    watch = asyncio.create_task(_watch(sender, on_problem))
    try:
        async for chunk in chunks:
            await sender.send(chunk)
            on_sent(chunk)
            n_chunks = max(n_chunks, chunk.sequence + 1)
    except (OSError, ValueError, asyncio.CancelledError) as error:
        if not n_chunks:
            raise
        interrupted = str(error) or "its sender was stopped"
        if isinstance(error, asyncio.CancelledError) and (task := asyncio.current_task()):
            task.uncancel()
    finally:
        watch.cancel()
    if not n_chunks:
        raise ValueError("nothing was sent: the source ended before any sound came.")
    await sender.finish(n_chunks, interrupted=interrupted)
    return await sender.result()


async def _watch(sender: StreamSender, on_problem: Callable[[EventChange], object]) -> None:
    """Tell each problem of the stream once, soon after it was raised."""
    told: set[int] = set()
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        with contextlib.suppress(SendError):
            for problem in (await sender.status()).problems if sender.has_sent else []:
                if problem.number not in told:
                    told.add(problem.number)
                    on_problem(problem)


async def submit_file(
    client: Client, settings: Settings, path: Path, *, chunk_seconds: float = 10.0, keep_audio: bool = False
) -> WorkflowHandle:
    """Put a recording into the store and start its workflow; return the workflow's handle.

    Raises
    ------
    lib.audio.AudioError, ValueError
        If the file is not usable audio, or `chunk_seconds` not 5 to 15.
    """
    from lib import audio

    shared.check_chunk_seconds(chunk_seconds)
    audio.inspect(path)
    file_id = f"file-{secrets.token_hex(8)}"  # random: a file's name could tell something
    sha256 = ChunkStore(settings.chunks_dir).put(path.read_bytes(), stream_id=file_id, sequence=shared.WHOLE_RECORDING)
    return await client.start_workflow(
        ClassifyFileWorkflow.run,
        shared.ClassifyFileInput(
            shared.RecordingReference(sha256),
            chunk_seconds=chunk_seconds,
            settings=shared.StreamSettings(keep_audio=keep_audio),
        ),
        id=file_id,
        task_queue=shared.ORCHESTRATION_QUEUE,
        task_timeout=shared.WORKFLOW_TASK_TIMEOUT,
    )


async def _patiently(call: Callable[[], Awaitable[Result]], *, exists: bool = True) -> Result:
    """Repeat a call while the server cannot be reached or no worker answers.

    Where the stream is known to exist, "not found" passes, too: a busy server reports it for a query whose worker was
    killed.
    """
    deadline = time.monotonic() + OUTAGE_SECONDS
    while True:
        try:
            return await call()
        except RPCError as error:
            missing = error.status == RPCStatusCode.NOT_FOUND and not error.message.startswith("Namespace")
            passing = error.status in UNREACHABLE or (exists and missing)
            if not passing or time.monotonic() > deadline:
                raise SendError(f"Temporal does not answer ({error.status.name}, {error.message})") from error
            LOG.info("waiting for Temporal", extra={"fields": {"status": error.status.name, "error": error.message}})
        await asyncio.sleep(POLL_SECONDS)
