"""`python -m temporal_workflow.load`: how many streams this machine holds, and how long a chunk takes.

Starts a service of its own in a temporary folder, sends made-up streams to it at the pace of live sound, and prints one
JSON object: latency from sending to the stored result, its growth, history bytes and seconds per chunk. Its cries are
generated, which needs requirements.txt: it measures, it is no part of serving.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lib import audio, config
from lib.corpora import synthetic
from lib.networks.onnx_networks import MAX_KEPT
from temporal_workflow import shared
from temporal_workflow.results import with_zone
from temporal_workflow.sender import StreamSender, new_stream_id
from temporal_workflow.serve import LocalService
from temporal_workflow.settings import PITCH_CLASSIFIER, REAL_CLASSIFIER, Settings, chunk_seconds, leave
from temporal_workflow.store import ChunkStore

N_TURNS, SILENCE_RUN = 10, 10  # streams that take turns; chunks of silence come together, as at night
NOISE_LEVEL, CRY_GAIN = 0.05, 0.6  # the generator's peak is 0.5


@dataclass(frozen=True)
class Turns:
    """Which streams are silent when, and which chunk of one loop of sound each of the others sends.

    Of ten streams, `n_silent` are silent at any time. Where one or more sound, a chunk comes again, from another stream
    or the same, after more than `n_kept` others: a worker no longer keeps its embeddings.
    """

    n_streams: int
    n_silent: int
    n_kept: float

    @property
    def n_sounds(self) -> int:
        """How many chunks the loop has."""
        return self._apart * (self.n_streams // N_TURNS * self._n_lanes + min(self.n_streams % N_TURNS, self._n_lanes))

    def place(self, number: int, sequence: int) -> int | None:
        """Return which chunk of the loop stream `number` sends; None for silence."""
        if (sequence // SILENCE_RUN + number) % N_TURNS < self.n_silent:
            return None
        lane = number // N_TURNS * self._n_lanes + number % self._n_lanes
        return (self._apart * lane + sequence) % self.n_sounds

    @property
    def _n_lanes(self) -> int:
        """How many places in the loop ten streams need: those that share one never sound together."""
        return next(n for n in (1, 2, 5, N_TURNS) if n >= N_TURNS - self.n_silent)

    @property
    def _apart(self) -> int:
        """By how many chunks one place is ahead of the next; a fifth more than needed, as streams are not in step."""
        at_once = max(1.0, self.n_streams * (1 - self.n_silent / N_TURNS))
        return math.ceil(1.2 * self.n_kept / at_once)


class Sounds:
    """Chunks of noise, cries and digital silence, encoded before the clock starts: microphones are other machines.

    All streams go through one loop of sound, see `Turns`, so that a chunk starts with the end of the one before it, as
    a client's. A share `cries` of its chunks holds a generated cry.
    """

    def __init__(
        self,
        *,
        chunk_seconds: float,
        n_streams: int = 1,
        silence: float = 0.0,
        cries: float = 0.1,
        n_workers: int = 1,
        seed: int = 7,
    ) -> None:
        self._chunk_seconds, self._cries, self._seed = chunk_seconds, cries, seed
        n_kept = n_workers * MAX_KEPT * config.PATCH_HOP_SAMPLES / config.SAMPLE_RATE_HZ / chunk_seconds
        self._turns = Turns(n_streams, round(N_TURNS * silence), n_kept)
        self._loop = [self._encoded(number) for number in range(self._turns.n_sounds)]
        self._silent = audio.encode_flac(np.zeros(_n_samples(shared.CONTEXT_SECONDS + chunk_seconds), np.float32))

    def _encoded(self, number: int) -> bytes:
        before = self._sound((number - 1) % self._turns.n_sounds)
        return audio.encode_flac(np.concatenate([before[-_n_samples(shared.CONTEXT_SECONDS) :], self._sound(number)]))

    def _sound(self, number: int) -> np.ndarray:
        """Return a chunk of the loop without its context, the same each time."""
        rng = np.random.default_rng([self._seed, number])
        sound = NOISE_LEVEL * rng.standard_normal(_n_samples(self._chunk_seconds)).clip(-4, 4).astype(np.float32)
        if int((number + 1) * self._cries) > int(number * self._cries):
            cry = synthetic.generate("cry", synthetic.draw_traits(rng), rng, seconds=self._chunk_seconds / 2)
            sound[: len(cry)] += CRY_GAIN * cry
        return sound

    def put(self, store: ChunkStore, stream_id: str, sequence: int, *, number: int) -> shared.ChunkReference:
        """Store a chunk of stream `number`, with its context, and return its reference."""
        place = self._turns.place(number, sequence)
        content = self._silent if place is None else self._loop[place]
        sha256 = store.put(content, stream_id=stream_id, sequence=sequence)
        return shared.ChunkReference(
            sequence=sequence,
            sha256=sha256,
            n_samples=_n_samples(self._chunk_seconds),
            start_seconds=shared.CONTEXT_SECONDS + sequence * self._chunk_seconds,
            sent_seconds=round(time.time(), 3),
            n_context_samples=_n_samples(shared.CONTEXT_SECONDS),
        )


def _n_samples(seconds: float) -> int:
    return round(seconds * config.SAMPLE_RATE_HZ)


async def _send(
    service: LocalService, sounds: Sounds, *, number: int, n_chunks: int, pace_seconds: float, wait: float
) -> str:
    """Send a stream: a chunk every `pace_seconds` after `wait`; as fast as it is taken where that is 0."""
    sender, store = StreamSender(await service.client(), new_stream_id()), ChunkStore(service.settings.chunks_dir)
    started = time.monotonic() + wait
    for sequence in range(n_chunks):
        await asyncio.sleep(max(0.0, started + sequence * pace_seconds - time.monotonic()))
        await sender.send(sounds.put(store, sender.stream_id, sequence, number=number))
    await sender.finish(n_chunks)
    await sender.result()
    return sender.stream_id


async def measure(service: LocalService, chosen: argparse.Namespace) -> dict[str, Any]:
    """Send `chosen.streams` streams side by side, evenly spread in time; return what it cost."""
    sounds = Sounds(
        chunk_seconds=chosen.chunk_seconds,
        n_streams=chosen.streams,
        silence=chosen.silence,
        cries=chosen.cries,
        n_workers=chosen.workers,
    )
    pace = chosen.chunk_seconds if chosen.pace is None else chosen.pace
    started = time.monotonic()
    streams = [
        _send(
            service,
            sounds,
            number=number,
            n_chunks=chosen.chunks,
            pace_seconds=pace,
            wait=number * pace / chosen.streams,
        )
        for number in range(chosen.streams)
    ]
    stream_ids = await asyncio.gather(*streams)
    seconds, rows = time.monotonic() - started, service.results.chunks()
    return {
        "n_streams": chosen.streams,
        "n_chunks": len(rows),
        "n_classified": sum(row["status"] == shared.CLASSIFIED for row in rows),
        "seconds": round(seconds, 2),
        "history_bytes_per_chunk": round(await _history_bytes(service, stream_ids[0]) / chosen.chunks),
        **_latencies(rows),
    }


def _latencies(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return p50 and p95 of the seconds from sending to the stored result, and the medians of ten parts in order."""
    sent, stored = (np.array([with_zone(row[at]).timestamp() for row in rows]) for at in ("sent_at", "stored_at"))
    order = np.argsort(sent)
    lags, times = (stored - sent)[order], np.sort(stored)
    parts = np.array_split(lags, min(10, len(lags)))
    return {
        "p50_seconds": round(float(np.percentile(lags, 50)), 4),
        "p95_seconds": round(float(np.percentile(lags, 95)), 4),
        "p50_by_tenth": [round(float(np.median(part)), 4) for part in parts],
        "chunk_seconds_by_tenth": [
            round(float(np.ptp(part) / max(len(part) - 1, 1)), 5) for part in np.array_split(times, len(parts))
        ],
    }


async def _history_bytes(service: LocalService, stream_id: str) -> int:
    """Return the size of the histories of all runs of a stream."""
    client, total = await service.client(), 0
    async for run in client.list_workflows(f'WorkflowId = "{stream_id}"'):
        history = await client.get_workflow_handle(stream_id, run_id=run.run_id).fetch_history()
        total += sum(event.ByteSize() for event in history.events)
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m temporal_workflow.load", description=__doc__)
    parser.add_argument("--streams", type=int, default=1, help="side by side (default 1)")
    parser.add_argument("--chunks", type=int, default=30, help="per stream (default 30)")
    parser.add_argument("--chunk-seconds", type=chunk_seconds, default=10.0)
    parser.add_argument("--pace", type=float, help="seconds between a stream's chunks (default: their length)")
    parser.add_argument("--silence", type=float, default=0.0, help="share of digital silence, in tenths")
    parser.add_argument("--cries", type=float, default=0.1, help="share of the other chunks with a cry (default 0.1)")
    parser.add_argument("--workers", type=int, default=1, help="inference workers")
    parser.add_argument("--stand-in", action="store_true", help="classify by pitch: what the service alone costs")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="load-", ignore_cleanup_errors=True) as folder:
        settings = Settings.below(Path(folder))
        settings = replace(settings, classifier=PITCH_CLASSIFIER if chosen.stand_in else REAL_CLASSIFIER)
        with LocalService(settings, n_workers=chosen.workers) as service:
            found = asyncio.run(measure(service, chosen))
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    leave(main())
