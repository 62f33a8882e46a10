"""A whole service in a folder of its own: real server, real worker processes, the product's supervisor."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import sqlalchemy as sa
from temporalio.testing import ActivityEnvironment

from lib import config
from lib.inference import Prediction
from temporal_workflow import shared
from temporal_workflow.activities import InferenceActivities
from temporal_workflow.chunks import RATE, Held, put_part, put_waveform
from temporal_workflow.codec import data_converter
from temporal_workflow.pitch_classifier import PitchDetector
from temporal_workflow.progress import StreamProgress
from temporal_workflow.results import RUNNING, STREAMS, ResultsTable
from temporal_workflow.sender import StreamSender, new_stream_id, send_stream
from temporal_workflow.serve import LocalService
from temporal_workflow.settings import PITCH_CLASSIFIER, Settings
from temporal_workflow.store import ChunkStore

PITCH_HZ = {"normal": 200.0, "crying": 500.0, "screaming": 1500.0}  # what the stand-in classifier takes for each label
CHUNK_SECONDS = 5.0


class Service(LocalService):
    """A service with the stand-in classifier, everything in one folder, and a way to make chunks for it."""

    def __init__(self, folder: Path, *, n_workers: int = 1, metrics_port: int = 0, **chosen: Any) -> None:
        settings = Settings.below(folder, **{"classifier": PITCH_CLASSIFIER, **chosen})
        super().__init__(settings, n_workers=n_workers, metrics_port=metrics_port)
        self.chunks = ChunkStore(settings.chunks_dir)

    def logs(self) -> str:
        """Return what all processes wrote."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.logs_dir.glob("*.log")))

    def put(self, stream_id: str, labels: list[str], *, seed: int = 7) -> list[shared.ChunkReference]:
        """Store one tone for each label, no two alike, and return their references."""
        return list(self.put_slowly(stream_id, labels, seed=seed))

    def put_slowly(
        self, stream_id: str, labels: list[str], *, seed: int = 7, chunk_seconds: float = CHUNK_SECONDS
    ) -> Iterator[shared.ChunkReference]:
        """Store the chunks one by one, each when it is asked for."""
        rng = np.random.default_rng(seed)
        tones = {label: tone(pitch_hz, chunk_seconds) for label, pitch_hz in PITCH_HZ.items()}
        for sequence, label in enumerate(labels):
            waveform = tones[label].copy()
            waveform[:16] += rng.normal(0, 1e-2, 16).astype(np.float32)  # makes each chunk's hash its own
            place = {"sequence": sequence, "start_seconds": sequence * chunk_seconds}
            yield put_waveform(self.chunks, waveform, stream_id=stream_id, **place)

    async def send(
        self,
        stream_id: str,
        chunks: Iterable[shared.ChunkReference] | AsyncIterator[shared.ChunkReference],
        *,
        on_sent: Callable[[shared.ChunkReference], object] = lambda _: None,
        **settings: Any,
    ) -> shared.StreamSummary:
        """Send a whole stream, some chunks twice perhaps; return its summary once it has ended."""
        sender = StreamSender(await self.client(), stream_id, settings=shared.StreamSettings(**settings))
        source = _each(chunks) if isinstance(chunks, Iterable) else chunks
        return await send_stream(sender, source, on_sent=on_sent)


async def _each(chunks: Iterable[shared.ChunkReference]) -> AsyncIterator[shared.ChunkReference]:
    for chunk in chunks:
        yield chunk


def ended_streams(results: ResultsTable) -> list[dict[str, Any]]:
    """Return finished streams and files, oldest first."""
    return results.rows(sa.select(STREAMS).where(STREAMS.c.state != RUNNING).order_by(STREAMS.c.stored_at))


LABELS = ["normal", *["crying"] * 7, "screaming", "normal"]


async def send_eventful(service: Service, stream_id: str) -> shared.StreamSummary:
    """Send chunks shuffled, twice, altered (0), late (5) and never (6), and fall silent; return what came out."""
    settings = shared.StreamSettings(chunks_per_run=6, gap_seconds=1.0, silent_seconds=3.0)
    sender = StreamSender(await service.client(), stream_id, settings=settings)
    chunks = service.put(stream_id, LABELS)
    service.chunks.path(chunks[0].sha256).write_bytes(b"altered")
    for sequence in (1, 0, 1, 2, 3, 4, 7):
        await sender.send(chunks[sequence])
    while (await sender.status()).next_sequence < 8:
        await asyncio.sleep(0.2)
    assert (await sender.status()).missing == [[5, 6]]
    await sender.send(chunks[5])
    while not (await sender.status()).silent:
        await asyncio.sleep(0.2)
    return await send_stream(sender, _each(chunks[8:]))


def send_in_pieces(service: Service, waveform: np.ndarray, *, first_seconds: float, chunk_seconds: float) -> str:
    """Send a stream as chunks of any phase, shuffled, every third one twice; return its id once it has ended."""
    n_first, n_chunk, n_least = (round(s * RATE) for s in (first_seconds, chunk_seconds, CHUNK_SECONDS))
    borders = [0, *range(n_first, len(waveform) - n_least, n_chunk), len(waveform)]
    stream_id, held = new_stream_id(), Held()
    held.add(waveform)
    sent = [
        put_part(service.chunks, held.cut(stop - start), stream_id=stream_id, sequence=sequence)
        for sequence, (start, stop) in enumerate(itertools.pairwise(borders))
    ]
    random.Random(7).shuffle(sent)
    asyncio.run(service.send(stream_id, sent + sent[::3]))
    return stream_id


def another_run(progress: StreamProgress) -> StreamProgress:
    """Return the stream after continue-as-new: its state has been a message."""
    converter = data_converter(None).payload_converter
    (state,) = converter.from_payloads(converter.to_payloads([progress.state]), [shared.StreamState])
    return StreamProgress(progress.settings, state)


def outcome(chunk: shared.ChunkReference, label: str = "crying", **found: Any) -> shared.ChunkOutcome:
    """Return what is stored of a classified chunk."""
    probabilities = [0.9 if name == label else 0.05 for name in config.CLASS_NAMES]
    given = {"label": label, "probabilities": probabilities, **found}
    return shared.ChunkOutcome.for_chunk(chunk, given.pop("status", shared.CLASSIFIED), **given)


def apply(progress: StreamProgress, chunk: shared.ChunkReference, label: str = "crying", **found: Any) -> None:
    """Accept a stream's next chunk and record its outcome."""
    progress.accept(chunk)
    progress.record(outcome(*progress.start_round(1), label, **found), now=0.0)
    progress.in_flight.clear()


def inference(
    store: ChunkStore, predict: Callable[..., Prediction] | None = None, *, detector: Any = None
) -> InferenceActivities:
    """Return activities whose classifier predicts by a function of waveform and frames; else always "normal"."""
    usual = Prediction("normal", dict.fromkeys(config.CLASS_NAMES, 1 / 3), {})
    found = {"versions": {"made": "1"}, "detector": detector or PitchDetector()}
    return InferenceActivities(SimpleNamespace(**found, predict_with=predict or (lambda *_: usual)), store)


def classify_round(
    activities: InferenceActivities, *chunks: shared.ChunkReference, settings_version: str = ""
) -> list[shared.ClassifiedChunk]:
    """Run the activity on a round of chunks."""
    return ActivityEnvironment().run(activities.classify_round, shared.ClassifyRound([*chunks], settings_version))


def tone(frequency_hz: float, seconds: float = CHUNK_SECONDS) -> np.ndarray:
    """A tone whose level moves a little, as a room's does."""
    times = np.arange(round(seconds * RATE)) / RATE
    return ((0.3 + 0.05 * np.sin(times)) * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def random_labels(n_chunks: int, *, seed: int) -> list[str]:
    """Runs of one label, 1 to 8 chunks long."""
    rng = np.random.default_rng(seed)
    labels: list[str] = []
    while len(labels) < n_chunks:
        labels += [str(rng.choice(list(PITCH_HZ)))] * int(rng.integers(1, 9))
    return labels[:n_chunks]


def wait_until(holds: Callable[[], bool], *, seconds: float, every: float = 0.1) -> float:
    """Wait until `holds()`; return how long it took, or fail."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds, f"still waiting after {seconds} s"
        time.sleep(every)
    return time.monotonic() - started
