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

CONTEXT_SAMPLES = round(shared.CONTEXT_SECONDS * config.SAMPLE_RATE_HZ)


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
        uri=uri_of(sha256),
        sha256=sha256,
        n_samples=len(waveform) - n_context_samples,
        sample_rate_hz=config.SAMPLE_RATE_HZ,
        start_seconds=round(start_seconds, 6),
        sent_seconds=round(time.time(), 3),
        n_context_samples=n_context_samples,
    )


def put_part(
    store: ChunkStore, waveform: np.ndarray, bounds: tuple[int, int], *, stream_id: str, sequence: int
) -> shared.ChunkReference:
    """Store samples [start, stop) of a stream's waveform as a chunk, with the context before them."""
    start, stop = bounds
    n_context_samples = min(start, CONTEXT_SAMPLES)
    return put_waveform(
        store,
        waveform[start - n_context_samples : stop],
        stream_id=stream_id,
        sequence=sequence,
        start_seconds=start / config.SAMPLE_RATE_HZ,
        n_context_samples=n_context_samples,
    )


def cut(store: ChunkStore, given: shared.CutInput) -> shared.CutResult:
    """Cut up to `n_chunks` chunks of a recording into the store, from `first_sequence` on.

    Raises
    ------
    lib.audio.AudioError, temporal_workflow.store.StoreError
        If the recording is not readable, not in the store or altered.
    """
    waveform = _decoded(store.path(given.recording.uri, given.recording.sha256))
    bounds = audio.segment_bounds(len(waveform), segment_seconds=given.chunk_seconds)
    wanted = range(len(bounds))[given.first_sequence : given.first_sequence + given.n_chunks]
    chunks = [put_part(store, waveform, bounds[n], stream_id=given.stream_id, sequence=n) for n in wanted]
    return shared.CutResult(chunks, len(bounds))


async def cut_live(
    store: ChunkStore, path: Path, *, stream_id: str, chunk_seconds: float = 10.0, realtime: bool = False
) -> AsyncIterator[shared.ChunkReference]:
    """Yield the chunks of a recording, each when it would have been recorded if `realtime`, else at once."""
    waveform = await asyncio.to_thread(audio.load, path)
    started = time.monotonic()
    for sequence, bounds in enumerate(audio.segment_bounds(len(waveform), segment_seconds=chunk_seconds)):
        if realtime:
            await asyncio.sleep(max(0.0, started + bounds[1] / config.SAMPLE_RATE_HZ - time.monotonic()))
        yield put_part(store, waveform, bounds, stream_id=stream_id, sequence=sequence)


@functools.lru_cache(maxsize=1)
def _decoded(path: Path) -> np.ndarray:
    """Decode once for the many parts of one recording; the path names its content."""
    return audio.load(path)
