"""`python -m temporal_workflow.load`: how many streams this machine holds, and how long a chunk takes.

Starts a service of its own in a temporary folder, sends made-up streams to it at the pace of live sound, and prints one
JSON object: latency from sending to the stored result, its growth, history bytes and seconds per chunk. Its cries are
generated, which needs requirements.txt: it measures, it is no part of serving.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lib import audio, config
from lib.corpora import synthetic
from temporal_workflow import shared
from temporal_workflow.results import with_zone
from temporal_workflow.sender import StreamSender, new_stream_id
from temporal_workflow.serve import LocalService
from temporal_workflow.settings import PITCH_CLASSIFIER, REAL_CLASSIFIER, Settings, chunk_seconds, count, leave
from temporal_workflow.store import ChunkStore

RATE, HOP = config.SAMPLE_RATE_HZ, config.PATCH_HOP_SAMPLES
N_TURNS, SILENCE_RUN = 10, 10  # streams that take turns; chunks of silence come together, as at night
LOOP_HOPS, APART_HOPS = 1_250, 40  # 10 minutes of sound; from where one stream starts in it to where the next does
CRY_SHARE = 0.1  # of the chunks
NOISE_LEVEL, CRY_GAIN = 0.05, 0.6  # the generator's peak is 0.5


class Sounds:
    """Chunks of noise, cries and digital silence for `n_streams` streams, a share `silence` of which is silent.

    All streams go through one loop of sound, so that a chunk starts with the end of the one before it, as a client's.
    No two of them, and no two rounds of one, see it on the same grid of hops: no patch comes twice, so a worker has
    kept no embeddings of what it is sent.
    """

    def __init__(self, *, chunk_seconds: float, n_streams: int = 1, silence: float = 0.0, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        self._n_samples, self._n_context = round(chunk_seconds * RATE), round(shared.CONTEXT_SECONDS * RATE)
        self._n_silent = round(N_TURNS * silence)
        self.n_loop = LOOP_HOPS * HOP + n_streams
        loop = NOISE_LEVEL * rng.standard_normal(self.n_loop, np.float32).clip(-4, 4)
        cry = CRY_GAIN * synthetic.generate("cry", synthetic.draw_traits(rng), rng, seconds=chunk_seconds / 2)
        for start in range(0, self.n_loop - len(cry), round(1.5 * self._n_samples / CRY_SHARE)):  # 1.5 chunks hold one
            loop[start : start + len(cry)] += cry
        self._loop = np.concatenate([loop, loop[: self._n_context + self._n_samples]])
        self._silent = audio.encode_flac(np.zeros(self._n_context + self._n_samples, np.float32))

    def start(self, number: int, sequence: int) -> int | None:
        """Return where in the loop a chunk of stream `number` starts, with its context; None for silence."""
        if (sequence // SILENCE_RUN + number) % N_TURNS < self._n_silent:
            return None
        return (number * (APART_HOPS * HOP + 1) + sequence * self._n_samples) % self.n_loop

    def put(self, store: ChunkStore, stream_id: str, sequence: int, *, number: int) -> shared.ChunkReference:
        """Store a chunk of stream `number`, with its context, and return its reference."""
        start, n_samples = self.start(number, sequence), self._n_context + self._n_samples
        content = self._silent if start is None else audio.encode_flac(self._loop[start : start + n_samples])
        sha256 = store.put(content, stream_id=stream_id, sequence=sequence)
        return shared.ChunkReference(
            sequence=sequence,
            sha256=sha256,
            n_samples=self._n_samples,
            start_seconds=shared.CONTEXT_SECONDS + sequence * self._n_samples / RATE,
            sent_seconds=round(time.time(), 3),
            n_context_samples=self._n_context,
        )


async def _send(service: LocalService, chosen: argparse.Namespace, *, sounds: Sounds, number: int) -> str:
    """Send a stream, a chunk every `chosen.pace` seconds (as fast as they are taken where that is 0); return its id."""
    sender, store = StreamSender(await service.client(), new_stream_id()), ChunkStore(service.settings.chunks_dir)
    pace = chosen.chunk_seconds if chosen.pace is None else chosen.pace
    started = time.monotonic() + number * pace / chosen.streams
    for sequence in range(chosen.chunks):
        await asyncio.sleep(max(0.0, started + sequence * pace - time.monotonic()))
        await sender.send(sounds.put(store, sender.stream_id, sequence, number=number))
    await sender.finish(chosen.chunks)
    await sender.result()
    return sender.stream_id


async def measure(service: LocalService, chosen: argparse.Namespace) -> dict[str, Any]:
    """Send `chosen.streams` streams side by side, evenly spread in time; return what it cost."""
    sounds = Sounds(chunk_seconds=chosen.chunk_seconds, n_streams=chosen.streams, silence=chosen.silence)
    started = time.monotonic()
    streams = (_send(service, chosen, sounds=sounds, number=number) for number in range(chosen.streams))
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
    parser.add_argument("--streams", type=count, default=1, help="side by side (default 1)")
    parser.add_argument("--chunks", type=count, default=30, help="per stream (default 30)")
    parser.add_argument("--chunk-seconds", type=chunk_seconds, default=10.0)
    parser.add_argument("--pace", type=float, help="seconds between a stream's chunks (default: their length)")
    parser.add_argument("--silence", type=float, default=0.0, help="share of digital silence, in tenths")
    parser.add_argument("--stand-in", action="store_true", help="classify by pitch: what the service alone costs")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="load-", ignore_cleanup_errors=True) as folder:
        settings = Settings.below(Path(folder))
        settings = replace(settings, classifier=PITCH_CLASSIFIER if chosen.stand_in else REAL_CLASSIFIER)
        with LocalService(settings) as service:
            found = asyncio.run(measure(service, chosen))
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    leave(main())
