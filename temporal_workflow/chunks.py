"""Recordings cut into chunks in the store: by the client for a stream, by the worker for a whole file."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from lib import audio, config
from temporal_workflow import shared
from temporal_workflow.store import ChunkStore, uri_of


def put_waveform(
    store: ChunkStore, waveform: np.ndarray, *, stream_id: str, sequence: int, start_seconds: float
) -> shared.ChunkReference:
    """Store a 16 kHz mono waveform (n_samples,) as FLAC; return its reference, stamped with the time of sending."""
    sha256 = store.put(audio.encode_flac(waveform), stream_id=stream_id, sequence=sequence)
    return shared.ChunkReference(
        sequence=sequence,
        uri=uri_of(sha256),
        sha256=sha256,
        n_samples=len(waveform),
        sample_rate_hz=config.SAMPLE_RATE_HZ,
        start_seconds=round(start_seconds, 6),
        sent_seconds=round(time.time(), 3),
    )


def cut(store: ChunkStore, given: shared.CutInput) -> shared.CutResult:
    """Cut up to `n_chunks` chunks of a recording into the store, from `first_sequence` on.

    Raises
    ------
    lib.audio.AudioError, temporal_workflow.store.StoreError
        If the recording is not readable, not in the store or altered.
    """
    waveform = _decoded(store.path(given.recording.uri, given.recording.sha256))
    bounds = _bounds(waveform, given.chunk_seconds)
    wanted = range(len(bounds))[given.first_sequence : given.first_sequence + given.n_chunks]
    chunks = [_put(store, waveform, bounds, stream_id=given.stream_id, sequence=sequence) for sequence in wanted]
    return shared.CutResult(chunks, len(bounds))


async def cut_live(
    store: ChunkStore, path: Path, *, stream_id: str, chunk_seconds: float = 10.0, realtime: bool = False
) -> AsyncIterator[shared.ChunkReference]:
    """Yield the chunks of a recording, each when it would have been recorded if `realtime`, else at once."""
    waveform = await asyncio.to_thread(audio.load, path)
    bounds = _bounds(waveform, chunk_seconds)
    started = time.monotonic()
    for sequence, (_, stop) in enumerate(bounds):
        if realtime:
            await asyncio.sleep(max(0.0, started + stop / config.SAMPLE_RATE_HZ - time.monotonic()))
        yield _put(store, waveform, bounds, stream_id=stream_id, sequence=sequence)


def _bounds(waveform: np.ndarray, chunk_seconds: float) -> list[tuple[int, int]]:
    """Return (start, stop) in samples of equal chunks of 5 to 15 s near `chunk_seconds` that cover everything."""
    return audio.segment_bounds(len(waveform), segment_seconds=chunk_seconds)


def _put(
    store: ChunkStore, waveform: np.ndarray, bounds: list[tuple[int, int]], *, stream_id: str, sequence: int
) -> shared.ChunkReference:
    start, stop = bounds[sequence]
    start_seconds = start / config.SAMPLE_RATE_HZ
    return put_waveform(
        store, waveform[start:stop], stream_id=stream_id, sequence=sequence, start_seconds=start_seconds
    )


@functools.lru_cache(maxsize=1)
def _decoded(path: Path) -> np.ndarray:
    """Decode once for the many parts of one recording; the path names its content."""
    return audio.load(path)
