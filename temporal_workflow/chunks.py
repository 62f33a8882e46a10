"""Recordings cut into chunks in the store: by the client for a stream, by the worker for a whole file."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib import audio, config
from temporal_workflow import shared
from temporal_workflow.store import ChunkStore

RATE = config.SAMPLE_RATE_HZ
CONTEXT_SAMPLES = round(shared.CONTEXT_SECONDS * RATE)
MIN_SAMPLES, MAX_SAMPLES = (round(s * RATE) for s in (config.MIN_SEGMENT_SECONDS, config.MAX_SEGMENT_SECONDS))
JUMP_SECONDS = 0.1  # live sound that comes later than this is behind a gap
MAX_OPEN = 4  # recordings
MAX_WAITING = 1_000  # blocks that wait for the sender; then a device overflows, and a connection is lost
LAST_SECONDS = 1.0
Block = tuple[float, np.ndarray]  # start in seconds by the clock, 16 kHz waveform (n_samples,)


class Part(NamedTuple):
    """A chunk of a stream: `n_context` samples before it, then its own from sample `start` of the stream on."""

    waveform: np.ndarray
    start: int
    n_context: int


class Held:
    """Sound from sample `start` of a stream on that waits to be cut, behind up to 5 s of the part before it."""

    def __init__(self, start: int = 0) -> None:
        self._waveform, self.start, self._n_context = np.empty(0, np.float32), start, 0

    def __len__(self) -> int:
        """Return how many samples wait."""
        return len(self._waveform) - self._n_context

    def add(self, block: np.ndarray) -> None:
        """Take the next samples (n_samples,)."""
        self._waveform = np.concatenate([self._waveform, block])

    def cut(self, n_samples: int) -> Part:
        """Return the next samples as a part."""
        stop = self._n_context + n_samples
        part = Part(self._waveform[:stop], self.start, self._n_context)
        self.start, self._n_context = self.start + n_samples, min(stop, CONTEXT_SAMPLES)
        self._waveform = self._waveform[stop - self._n_context :]
        return part

    def rest(self) -> list[Part]:
        """Return all that waits as a part, if it is long enough to be judged."""
        return [self.cut(len(self))] if len(self) >= audio.MIN_SECONDS * RATE else []


def parts(blocks: Iterable[np.ndarray], *, chunk_seconds: float) -> Iterator[Part]:
    """Cut a waveform that comes in blocks into chunks: all of `chunk_seconds`, the last one or two of 5 to 15 s.

    Up to 15 s are one chunk: `lib.inference` takes them as one window, too.

    Raises
    ------
    ValueError
        If `chunk_seconds` is not between 5 and 15.
    """
    n_chunk, held = _chunk_samples(chunk_seconds), Held()
    for block in itertools.chain(blocks, [None]):
        if block is not None:
            held.add(block)
        while n_new := _next_length(len(held), n_chunk, is_last=block is None, is_first=not held.start):
            yield held.cut(n_new)


def live_parts(blocks: Iterable[Block], *, chunk_seconds: float) -> Iterator[Part]:
    """Cut live sound, blocks of (start in seconds by the clock, waveform), into chunks of `chunk_seconds`.

    Where the clock jumps, and at the end, the chunk is as long as what came; the next one starts at its true time,
    without context. ValueError as for `parts`; an error of the source is raised once the sound in hand was given.
    """
    n_chunk, held = _chunk_samples(chunk_seconds), Held()
    try:
        for seconds, block in blocks:
            if seconds - (held.start + len(held)) / RATE > JUMP_SECONDS:
                yield from held.rest()
                held = Held(round(seconds * RATE))
            held.add(block)
            while len(held) >= n_chunk:
                yield held.cut(n_chunk)
    except (OSError, ValueError):
        yield from held.rest()
        raise
    yield from held.rest()


def _from_thread(blocks: Iterable[Block], stop: threading.Event) -> Iterator[Block]:
    """Yield blocks that a thread of its own reads, so that a slow sender costs no sound; its error comes last.

    Once `stop` is set, the reader has `LAST_SECONDS` to give its last block.
    """
    waiting: queue.Queue[Block | Exception | None] = queue.Queue(MAX_WAITING)

    def read() -> None:
        try:
            for block in blocks:
                waiting.put(block)
        except Exception as error:
            waiting.put(error)
        waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            found = waiting.get(timeout=LAST_SECONDS)
        except queue.Empty:
            if stop.is_set():
                return
            continue
        if isinstance(found, Exception):
            raise found
        if found is None:
            return
        yield found


async def _put_all(
    store: ChunkStore, found: Iterator[Part], *, stream_id: str, started: float | None = None
) -> AsyncIterator[shared.ChunkReference]:
    """Yield parts as chunks, each when it would have been recorded where `started` (monotonic clock) is given."""
    for sequence in itertools.count():
        part = await asyncio.to_thread(next, found, None)
        if part is None:
            return
        if started is not None:
            stop_seconds = (part.start - part.n_context + len(part.waveform)) / RATE
            await asyncio.sleep(max(0.0, started + stop_seconds - time.monotonic()))
        yield await asyncio.to_thread(put_part, store, part, stream_id=stream_id, sequence=sequence)


async def send_live(
    store: ChunkStore,
    blocks: Iterable[Block],
    stop: threading.Event,
    *,
    stream_id: str,
    chunk_seconds: float = 10.0,
) -> AsyncIterator[shared.ChunkReference]:
    """Yield the chunks of live sound until its end, then set `stop`, which ends `blocks`.

    An error of `blocks` is raised once the sound in hand was given.
    """
    found = live_parts(_from_thread(blocks, stop), chunk_seconds=chunk_seconds)
    try:
        async for chunk in _put_all(store, found, stream_id=stream_id):
            yield chunk
    finally:
        stop.set()
    await asyncio.to_thread(list, found)  # until a device is closed


def _chunk_samples(chunk_seconds: float) -> int:
    shared.check_chunk_seconds(chunk_seconds)
    return round(chunk_seconds * RATE)


def _next_length(n_waiting: int, n_chunk: int, *, is_first: bool, is_last: bool) -> int:
    """Return the length of the next chunk; 0 while more must come first."""
    if is_first and n_waiting <= MAX_SAMPLES:
        return n_waiting if is_last else 0
    if n_waiting >= n_chunk + MIN_SAMPLES:
        return n_chunk
    if not is_last:
        return 0
    return n_waiting if n_waiting <= MAX_SAMPLES else -(-n_waiting // 2)


def put_part(store: ChunkStore, part: Part, *, stream_id: str, sequence: int) -> shared.ChunkReference:
    """Store one part of a stream as FLAC; return its reference, stamped with the time of sending."""
    sha256 = store.put(audio.encode_flac(part.waveform), stream_id=stream_id, sequence=sequence)
    return shared.ChunkReference(
        sequence=sequence,
        sha256=sha256,
        n_samples=len(part.waveform) - part.n_context,
        start_seconds=round(part.start / RATE, 6),
        sent_seconds=round(time.time(), 3),
        n_context_samples=part.n_context,
    )


def put_waveform(
    store: ChunkStore, waveform: np.ndarray, *, stream_id: str, sequence: int, start_seconds: float
) -> shared.ChunkReference:
    """Store a 16 kHz mono waveform (n_samples,) as `put_part` does, without context."""
    return put_part(store, Part(waveform, round(start_seconds * RATE), 0), stream_id=stream_id, sequence=sequence)


async def cut_live(
    store: ChunkStore,
    path: Path,
    *,
    stream_id: str,
    chunk_seconds: float = 10.0,
    realtime: bool = False,
    on_remark: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[shared.ChunkReference]:
    """Yield the chunks of a recording, each when it would have been recorded if `realtime`, else at once."""
    stream, started = audio.stream(path), time.monotonic() if realtime else None
    found = parts(stream, chunk_seconds=chunk_seconds)
    async for chunk in _put_all(store, found, stream_id=stream_id, started=started):
        yield chunk
    for remark in stream.remarks:
        on_remark(remark)


def cut(store: ChunkStore, given: shared.CutInput) -> shared.CutResult:
    """Cut up to `n_chunks` chunks of a recording into the store, from `first_sequence` on.

    Recordings stay open between calls, so that each is decoded once, in bounded memory.

    Raises
    ------
    lib.audio.AudioError, temporal_workflow.store.StoreError
        If the recording is not readable, not in the store or altered.
    """
    key = (store.path(given.recording.sha256), given.chunk_seconds)
    stream, rest, position = _OPEN.pop(key, (None, iter(()), 0))
    if stream is None or position > given.first_sequence:
        stream, position = audio.stream(key[0]), 0
        rest = parts(stream, chunk_seconds=given.chunk_seconds)
    n_skipped = given.first_sequence - position
    wanted = itertools.islice(rest, n_skipped, n_skipped + given.n_chunks)
    chunks = [
        put_part(store, part, stream_id=given.stream_id, sequence=sequence)
        for sequence, part in enumerate(wanted, start=given.first_sequence)
    ]
    position = given.first_sequence + len(chunks)
    if len(chunks) < given.n_chunks:
        return shared.CutResult(chunks, position, list(stream.remarks))
    _OPEN[key] = stream, rest, position
    for oldest in list(_OPEN)[:-MAX_OPEN]:
        _OPEN.pop(oldest, None)
    return shared.CutResult(chunks, -1)


# Recordings, what is left of each, and the number of its next chunk. Taking and setting an item are atomic: no lock.
_OPEN: dict[tuple[Path, float], tuple[audio.Stream, Iterator[Part], int]] = {}
