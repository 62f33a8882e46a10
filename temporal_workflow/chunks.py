"""Recordings cut into chunks in the store: by the client for a stream, by the worker for a whole file."""

from __future__ import annotations

import asyncio
import itertools
import math
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
EMPTY = np.empty(0, np.float32)
Block = tuple[float, np.ndarray]  # start in seconds by the clock, 16 kHz waveform (n_samples,)


class Part(NamedTuple):
    """A chunk of a stream: `n_context` samples before it, then its own from sample `start` of the stream on."""

    waveform: np.ndarray
    start: int
    n_context: int


def put_waveform(
    store: ChunkStore,
    waveform: np.ndarray,
    *,
    stream_id: str,
    sequence: int,
    start_seconds: float,
    n_context_samples: int = 0,
) -> shared.ChunkReference:
    """Store a 16 kHz mono waveform (n_samples,) as FLAC; return its reference, stamped with the time of sending.

    The first `n_context_samples` are of the time before `start_seconds`.
    """
    sha256 = store.put(audio.encode_flac(waveform), stream_id=stream_id, sequence=sequence)
    return shared.ChunkReference(
        sequence=sequence,
        sha256=sha256,
        n_samples=len(waveform) - n_context_samples,
        start_seconds=round(start_seconds, 6),
        sent_seconds=round(time.time(), 3),
        n_context_samples=n_context_samples,
    )


def parts(blocks: Iterable[np.ndarray], *, chunk_seconds: float) -> Iterator[Part]:
    """Cut a waveform that comes in blocks into chunks: all of `chunk_seconds`, the last one or two of 5 to 15 s.

    Up to 15 s are one chunk: `lib.inference` takes them as one window, too.

    Raises
    ------
    ValueError
        If `chunk_seconds` is not between 5 and 15.
    """
    n_chunk = _chunk_samples(chunk_seconds)
    held, start, n_context = EMPTY, 0, 0
    for block in itertools.chain(blocks, [None]):
        held = held if block is None else np.concatenate([held, block])
        while n_new := _next_length(len(held) - n_context, n_chunk, is_last=block is None, is_first=not start):
            yield Part(held[: n_context + n_new], start, n_context)
            start += n_new
            n_before, n_context = n_context + n_new, min(start, CONTEXT_SAMPLES)
            held = held[n_before - n_context :]


def live_parts(blocks: Iterable[Block], *, chunk_seconds: float) -> Iterator[Part]:
    """Cut live sound, blocks of (start in seconds by the clock, waveform), into chunks of `chunk_seconds`.

    Where the clock jumps, and at the end, the chunk is as long as what came; the next one starts at its true time,
    without context. ValueError as for `parts`; an error of the source is raised once the sound in hand was given.
    """
    n_chunk = _chunk_samples(chunk_seconds)
    held, start, n_context = EMPTY, 0, 0
    faults: list[Exception] = []
    for seconds, block in _to_the_end(blocks, faults):
        if seconds - (start + len(held) - n_context) / RATE > JUMP_SECONDS:
            if len(held) - n_context >= audio.MIN_SECONDS * RATE:
                yield Part(held, start, n_context)
            held, start, n_context = EMPTY, 0 if math.isinf(seconds) else round(seconds * RATE), 0
        held = np.concatenate([held, block])
        while len(held) - n_context >= n_chunk:
            stop = n_context + n_chunk
            yield Part(held[:stop], start, n_context)
            start, n_context = start + n_chunk, min(stop, CONTEXT_SAMPLES)
            held = held[stop - n_context :]
    if faults:
        raise faults[0]


def _to_the_end(blocks: Iterable[Block], faults: list[Exception]) -> Iterator[Block]:
    try:
        yield from blocks
    except (OSError, ValueError) as error:
        faults.append(error)
    yield math.inf, EMPTY


def _from_thread(blocks: Iterable[Block], stop: threading.Event) -> Iterator[Block]:
    """Yield blocks that a thread of its own reads, so that a slow sender costs no sound; its error comes last.

    Once `stop` is set, the reader has `LAST_SECONDS` to give its last block.
    """
    waiting: queue.Queue[Block | Exception | None] = queue.Queue(MAX_WAITING)

    def read() -> None:
        last: Exception | None = None
        try:
            for block in blocks:
                waiting.put(block)
        except Exception as error:
            last = error
        waiting.put(last)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            block = waiting.get(timeout=LAST_SECONDS)
        except queue.Empty:
            if stop.is_set():
                return
            continue
        if isinstance(block, Exception):
            raise block
        if block is None:
            return
        yield block


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
        for sequence in itertools.count():
            part = await asyncio.to_thread(next, found, None)
            if part is None:
                break
            yield await asyncio.to_thread(put_part, store, part, stream_id=stream_id, sequence=sequence)
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
    """Store one part of a stream as a chunk."""
    return put_waveform(
        store,
        part.waveform,
        stream_id=stream_id,
        sequence=sequence,
        start_seconds=part.start / RATE,
        n_context_samples=part.n_context,
    )


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
    stream = audio.stream(path)
    found = parts(stream, chunk_seconds=chunk_seconds)
    started = time.monotonic()
    for sequence in itertools.count():
        part = await asyncio.to_thread(next, found, None)
        if part is None:
            break
        if realtime:
            stop_seconds = (part.start - part.n_context + len(part.waveform)) / RATE
            await asyncio.sleep(max(0.0, started + stop_seconds - time.monotonic()))
        yield put_part(store, part, stream_id=stream_id, sequence=sequence)
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
    found: Open | None = _OPEN.pop(key, None)
    stream, rest, position = found if found and found[2] <= given.first_sequence else _open(*key)
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


def _open(path: Path, chunk_seconds: float) -> Open:
    stream = audio.stream(path)
    return stream, parts(stream, chunk_seconds=chunk_seconds), 0


Open = tuple[audio.Stream, Iterator[Part], int]  # a recording, what is left of it, and the number of the next chunk
_OPEN: dict[tuple[Path, float], Open] = {}  # dict.pop and setting an item are atomic: no lock needed
