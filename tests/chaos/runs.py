"""The chaos runs: each breaks the service on purpose, audits what is left, and returns one row for chaos.json.

Every run is seeded, bounded, and talks to 127.0.0.1 alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from temporal_workflow import shared
from temporal_workflow.sender import StreamSender, new_stream_id
from tests.chaos.audit import examined
from tests.chaos.harness import CHUNK_SECONDS, Service, random_labels

Row = dict[str, Any]
RECOVERY_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Kill:
    """One SIGKILL and what came of it."""

    process: str
    at_seconds: float  # Unix time
    recovery: asyncio.Task[float]  # seconds until every chunk sent before it, and the next one, was stored


WORKERS = ("orchestration", "inference-1", "inference-2")


async def kills(
    service: Service,
    *,
    names: Sequence[str],
    pace: float,
    n_kills: int,
    n_chunks: int,
    seed: int,
    trace_path: Path | None = None,
) -> Row:
    """SIGKILL one of the processes at random moments while a chunk is sent every `pace` seconds.

    The server comes back with the same database file.
    """
    chance, found = random.Random(seed), dict[int, Kill]()
    kill_after = sorted(chance.sample(range(2, n_chunks - 2), n_kills))
    stream_id = new_stream_id()

    async def kill(chunk: shared.ChunkReference) -> None:
        if chunk.sequence in kill_after:
            await asyncio.gather(*(kill.recovery for kill in found.values()))  # each kill meets a service that works
            await asyncio.sleep(chance.random() * pace)
            while not service.kill(name := chance.choice(names)):
                await asyncio.sleep(0.1)
            recovery = asyncio.create_task(_recovery(service, stream_id, chunk.sequence + 2))
            found[chunk.sequence] = Kill(name, time.time(), recovery)
        await asyncio.sleep(pace)

    row, sent = await _sent(service, stream_id, kill, n_chunks=n_chunks, seed=seed)
    if trace_path is not None:
        _write_trace(trace_path, service.results.chunks(stream_id), sent, found)
    seconds = [kill.recovery.result() for kill in found.values()]
    p50, p95 = np.percentile(seconds, [50, 95]).round(2).tolist()
    return {**row, "kills": len(found), "recovery_p50_seconds": p50, "recovery_p95_seconds": p95}


async def _sent(
    service: Service,
    stream_id: str,
    after: Callable[[shared.ChunkReference], Awaitable[object]],
    *,
    n_chunks: int,
    seed: int,
    chunk_seconds: float = CHUNK_SECONDS,
) -> tuple[Row, list[shared.ChunkReference]]:
    """Send a stream, do something after each chunk; return the audited row and what was sent."""
    sender, sent, started = StreamSender(await service.client(), stream_id), [], time.monotonic()
    labels = random_labels(n_chunks, seed=seed)
    for chunk in service.put_slowly(stream_id, labels, seed=seed, chunk_seconds=chunk_seconds):
        await sender.send(chunk)
        sent.append(chunk)
        await after(chunk)
    await sender.finish(n_chunks)
    await sender.result()
    return await _audited(service, stream_id, sent, seed=seed, started=started), sent


def _write_trace(
    path: Path, rows: list[dict[str, Any]], sent: Sequence[shared.ChunkReference], kills: dict[int, Kill]
) -> None:
    """Write when each chunk was sent and stored, and which process was killed after it was sent, when."""
    origin = sent[0].sent_seconds
    stored = {row["sequence"]: row["stored_at"].replace(tzinfo=UTC).timestamp() - origin for row in rows}
    table = pd.DataFrame(
        {
            "sequence": chunk.sequence,
            "sent_seconds": chunk.sent_seconds - origin,
            "stored_seconds": stored.get(chunk.sequence),
            "killed": kill.process if (kill := kills.get(chunk.sequence)) else "",
            "killed_seconds": kill.at_seconds - origin if kill else None,
            "recovery_seconds": kill.recovery.result() if kill else None,
        }
        for chunk in sent
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    table.round(3).to_csv(path, index=False)


async def _recovery(service: Service, stream_id: str, n_chunks: int) -> float:
    """Return the seconds until the first `n_chunks` chunks are stored, one of which is still to be sent."""
    results, started = service.results, time.monotonic()
    waiting = set(range(n_chunks)) - {row["sequence"] for row in results.chunks(stream_id)}
    while waiting := {sequence for sequence in waiting if not results.has(stream_id, sequence)}:
        assert time.monotonic() - started < RECOVERY_LIMIT_SECONDS, "the service does not recover"
        await asyncio.sleep(0.05)
    return time.monotonic() - started


async def duplicates(service: Service, *, n_sends: int, seed: int, sends_per_chunk: int = 5) -> Row:
    """Send every chunk several times and shuffled within a window, across many runs of the workflow."""
    chance = random.Random(seed)
    stream_id = new_stream_id()
    settings = shared.StreamSettings(chunks_per_run=50)
    sender = StreamSender(await service.client(), stream_id, settings=settings)
    n_chunks = n_sends // sends_per_chunk
    started = time.monotonic()
    sent: list[shared.ChunkReference] = []
    window: list[shared.ChunkReference] = []
    for chunk in service.put_slowly(stream_id, random_labels(n_chunks, seed=seed), seed=seed):
        sent.append(chunk)
        window += [chunk] * sends_per_chunk
        if len(window) >= 16 * sends_per_chunk or chunk.sequence == n_chunks - 1:
            chance.shuffle(window)
            for shuffled in window:
                await sender.send(shuffled)
            window = chance.sample(window, 8) if chunk.sequence < n_chunks - 1 else []  # some come again much later
    await sender.finish(n_chunks)
    await sender.result()
    status = await sender.status()
    row = await _audited(service, stream_id, sent, seed=seed, started=started)
    n_signals = n_chunks + status.summary.n_duplicates + status.summary.n_refused
    return {**row, "sends": n_signals, "runs": status.n_runs}


async def soak(service: Service, *, audio_seconds: float, seed: int) -> Row:
    """Feed one stream for a long stretch of audio at full speed; watch memory and the length of histories."""
    memory, n_chunks = list[tuple[int, int]](), round(audio_seconds / 15)

    async def watch(chunk: shared.ChunkReference) -> None:
        if chunk.sequence % 20 == 19:
            memory.append(_memory_bytes(service))

    row, _ = await _sent(service, new_stream_id(), watch, n_chunks=n_chunks, seed=seed, chunk_seconds=15.0)
    return {**row, "audio_hours": round(n_chunks * 15 / 3600, 2), **_growth(memory)}


def _memory_bytes(service: Service) -> tuple[int, int]:
    """Resident memory of the orchestration and of the inference worker."""
    pids = [service.children[name].process.pid for name in ("orchestration", "inference-1")]
    return tuple(psutil.Process(pid).memory_info().rss for pid in pids)  # type: ignore[return-value]


def _growth(memory: list[tuple[int, int]]) -> Row:
    """Compare the last quarter with the second one: the first quarter fills caches."""
    table = np.array(memory, dtype=float)
    quarter = max(1, len(table) // 4)
    early, late = table[quarter : 2 * quarter].mean(axis=0), table[-quarter:].mean(axis=0)
    orchestration, inference = (late / early - 1).round(4).tolist()
    return {
        "memory_growth_orchestration": orchestration,
        "memory_growth_inference": inference,
        "memory_mb": (table[-1] / 2**20).round(1).tolist(),
    }


async def _audited(
    service: Service, stream_id: str, sent: Sequence[shared.ChunkReference], *, seed: int, started: float
) -> Row:
    wall_seconds = round(time.monotonic() - started, 1)
    rejected = sum(row["status"] == shared.REJECTED for row in service.results.chunks(stream_id))
    row = await examined(service, stream_id, sent)
    return {**row, "rejected": rejected, "seed": seed, "wall_seconds": wall_seconds}
