"""Sends streams and files to the service: audio to the store, references through Temporal.

A stream's chunks go by signal, and again whatever did not arrive.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from temporal_workflow import shared
from temporal_workflow.settings import Settings
from temporal_workflow.store import ChunkStore, uri_of
from temporal_workflow.workflow import ClassifyFileWorkflow, MonitorStreamWorkflow

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")
MAX_UNCONFIRMED = 16  # chunks sent beyond what the workflow is known to have accepted and applied
POLL_SECONDS = 0.2
RESEND_SECONDS = 5.0
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


def new_stream_id() -> str:
    """Return a random id: stream ids are plain text in Temporal's database, so they must tell nothing."""
    return f"stream-{secrets.token_hex(8)}"


class StreamSender:
    """Delivers the chunks of a new stream, or of one to continue, at least once; the workflow stores them exactly once.

    `settings` are used if the stream is new.
    """

    def __init__(self, client: Client, stream_id: str, *, settings: shared.StreamSettings | None = None) -> None:
        self.stream_id = stream_id
        self._client = client
        self._settings = settings or shared.StreamSettings()
        self._handle: WorkflowHandle = client.get_workflow_handle_for(MonitorStreamWorkflow.run, stream_id)
        self._unconfirmed: dict[int, tuple[shared.ChunkReference, float]] = {}
        self._next_sequence = 0
        self._sent = False
        self._polling = asyncio.Lock()
        self._n_polls = 0

    async def send(self, chunk: shared.ChunkReference) -> None:
        """Send one chunk; wait first while too many are on their way.

        Raises
        ------
        StreamClosedError
            If the stream has ended.
        SendError
            If the server cannot be reached for `OUTAGE_SECONDS`.
        """
        while len(self._unconfirmed) >= MAX_UNCONFIRMED or self._runs_ahead(chunk):
            await self._confirm()
            await asyncio.sleep(POLL_SECONDS)
        await self._signal(chunk)
        self._sent = True
        self._unconfirmed[chunk.sequence] = (chunk, time.monotonic())

    async def finish(self, n_chunks: int) -> None:
        """Wait until every chunk was accepted, then say that the stream has ended."""
        await self.delivered()
        await _patiently(lambda: self._handle.signal(MonitorStreamWorkflow.finish, n_chunks))

    async def delivered(self) -> None:
        """Wait until the workflow has accepted everything that was sent."""
        while self._unconfirmed:
            await self._confirm()
            if self._unconfirmed:
                await asyncio.sleep(POLL_SECONDS)

    async def status(self) -> shared.StreamStatus:
        """Ask the stream how it stands."""
        return await _patiently(
            lambda: self._handle.query(MonitorStreamWorkflow.status, rpc_timeout=QUERY_SECONDS), exists=self._sent
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
            message = f"{self.stream_id} has ended and its results are stored: start a new one."
            raise StreamClosedError(message) from None

    async def _confirm(self) -> None:
        """Drop what the workflow has, send again what it should have by now; one query serves all who wait for it."""
        polls = self._n_polls
        async with self._polling:
            if self._n_polls == polls:
                await self._poll()
                self._n_polls += 1

    async def _poll(self) -> None:
        status = await self.status()
        self._next_sequence = status.next_sequence
        for sequence, (chunk, sent_at) in list(self._unconfirmed.items()):
            if _is_known(status, sequence):
                del self._unconfirmed[sequence]
            elif time.monotonic() - sent_at > RESEND_SECONDS:
                await self._signal(chunk)
                self._unconfirmed[sequence] = (chunk, time.monotonic())

    def _runs_ahead(self, chunk: shared.ChunkReference) -> bool:
        """Return whether the workflow would refuse the chunk because earlier ones are not done."""
        return bool(self._sent) and chunk.sequence >= self._next_sequence + shared.MAX_AHEAD


async def send_stream(
    client: Client,
    chunks: AsyncIterator[shared.ChunkReference],
    *,
    stream_id: str,
    settings: shared.StreamSettings | None = None,
    on_sent: Callable[[shared.ChunkReference], None] = lambda _: None,
) -> shared.StreamSummary:
    """Send all chunks of one stream, end it, and return its summary."""
    sender = StreamSender(client, stream_id, settings=settings)
    n_chunks = 0
    try:
        async for chunk in chunks:
            await sender.send(chunk)
            on_sent(chunk)
            n_chunks = max(n_chunks, chunk.sequence + 1)
    except asyncio.CancelledError:  # Ctrl+C ends a microphone's stream: what was sent is still wanted
        if task := asyncio.current_task():
            task.uncancel()
    await sender.finish(n_chunks)
    return await sender.result()


async def submit_file(
    client: Client, settings: Settings, path: Path, *, chunk_seconds: float = 10.0, keep_audio: bool = False
) -> WorkflowHandle:
    """Put a recording into the store and start its workflow; return the workflow's handle.

    Raises
    ------
    lib.audio.AudioError
        If the file is not usable audio.
    """
    from lib import audio

    audio.inspect(path)
    file_id = f"file-{secrets.token_hex(8)}"  # random: a file's name could tell something
    sha256 = ChunkStore(settings.chunks_dir).put(path.read_bytes(), stream_id=file_id, sequence=shared.WHOLE_RECORDING)
    return await client.start_workflow(
        ClassifyFileWorkflow.run,
        shared.ClassifyFileInput(
            shared.RecordingReference(uri_of(sha256), sha256),
            chunk_seconds=chunk_seconds,
            settings=shared.StreamSettings(keep_audio=keep_audio),
        ),
        id=file_id,
        task_queue=shared.ORCHESTRATION_QUEUE,
        task_timeout=shared.WORKFLOW_TASK_TIMEOUT,
    )


def _is_known(status: shared.StreamStatus, sequence: int) -> bool:
    if sequence in status.seen:
        return True
    return sequence < status.next_sequence and not any(first <= sequence <= last for first, last in status.missing)


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
            passing = error.status in UNREACHABLE or (exists and error.status == RPCStatusCode.NOT_FOUND)
            if not passing or time.monotonic() > deadline:
                raise SendError(f"Temporal does not answer ({error.status.name}, {error.message})") from error
            LOG.info("waiting for Temporal", extra={"fields": {"status": error.status.name, "error": error.message}})
        await asyncio.sleep(POLL_SECONDS)
