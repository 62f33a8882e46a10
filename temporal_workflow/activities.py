"""The work on chunks: classify and store; and cut, for files. Thin calls into lib and the stores.

Errors are of two kinds. Bad audio: a non-retryable error with the name of what is wrong. Infrastructure (a full disk, a
locked database): retried until it works, and no chunk is lost meanwhile.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy.exc
from temporalio import activity
from temporalio.exceptions import ApplicationError

from lib.config import CLASS_NAMES, MAX_SEGMENT_SECONDS, PATCH_HOP_SAMPLES, PATCH_SAMPLES, SAMPLE_RATE_HZ
from temporal_workflow import metrics, shared
from temporal_workflow.results import ResultsTable
from temporal_workflow.settings import SettingsError
from temporal_workflow.store import ChunkStore, MissingChunk, StoreError

if TYPE_CHECKING:
    import numpy as np

LOG = logging.getLogger(__name__)
MAX_KNOWN = 64  # results of about 1 kB
DOUBTFUL_ATTEMPTS = 3  # shared storage may show a file late, a decoder process may have been killed
Activity = TypeVar("Activity", bound=Callable[..., Any])


@contextlib.contextmanager
def _heartbeats() -> Iterator[None]:
    """Send heartbeats to Temporal from a thread of its own for as long as the block runs."""
    done = threading.Event()
    context = contextvars.copy_context()

    def beat() -> None:
        while not done.wait(shared.HEARTBEAT_EVERY.total_seconds()):
            context.run(activity.heartbeat)

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _as_application_error(error: Exception) -> ApplicationError:
    """Return the error as one of the two kinds that the workflow distinguishes."""
    from lib.decoding.errors import AudioError, DamagedAudio

    # Errors that a fault of the machine can cause, too, are final only when they come again.
    if isinstance(error, MissingChunk | DamagedAudio) and activity.info().attempt < DOUBTFUL_ATTEMPTS:
        return ApplicationError("tried again", type=type(error).__name__)
    if isinstance(error, OSError | sqlalchemy.exc.OperationalError | MemoryError):
        return ApplicationError(f"{type(error).__name__}: not caused by the chunk", type=shared.INFRASTRUCTURE)
    what = str(getattr(error, "what", error))[:300]  # lib.audio's errors: without the path
    # Any other error is a fault in our code: retried for a while, as a corrected worker may take over.
    is_bad_audio = isinstance(error, AudioError | StoreError | WrongLength)
    return ApplicationError(what, type=type(error).__name__, non_retryable=is_bad_audio)


def observed(function: Activity) -> Activity:
    """Add heartbeats and the two kinds of errors to an activity."""
    name = function.__name__

    @functools.wraps(function)
    def run(self: Any, given: Any) -> Any:
        try:
            with contextlib.nullcontext() if activity.info().is_local else _heartbeats():
                return function(self, given)
        except Exception as error:
            LOG.warning("activity failed", extra={"fields": {"activity": name, "error": type(error).__name__}})
            raise _as_application_error(error) from None

    return run  # type: ignore[return-value]


class StoreActivities:
    """Activities of the orchestration queue: no machine learning import."""

    def __init__(self, results: ResultsTable, chunks: ChunkStore) -> None:
        self._results = results
        self._chunks = chunks

    @activity.defn(name="store")
    @observed
    def store(self, stored: shared.StoreInput) -> None:
        """Write outcome, event changes and summary in one transaction; then release the chunk's audio."""
        self._store(stored)

    def _store(self, stored: shared.StoreInput) -> None:
        is_file = activity.info().workflow_type == "ClassifyFileWorkflow"
        self._results.store(stored, kind="file" if is_file else "stream")
        if stored.outcome is not None:
            _count(stored.outcome)
        self._release(stored)
        for change in stored.changes:
            metrics.EVENTS.labels(change.kind).inc()
            if change.label in shared.PROBLEMS:
                metrics.HEALTH.labels(change.label, change.kind).inc()
        sequence, status = (stored.outcome.sequence, stored.outcome.status) if stored.outcome else (None, None)
        fields = {"sequence": sequence, "status": status, "n_changes": len(stored.changes)}
        LOG.info("stored", extra={"fields": {"stream_id": stored.stream_id, **fields}})

    @activity.defn(name="store_round")
    @observed
    def store_round(self, given: list[shared.StoreInput]) -> None:
        """Store what a round of chunks gave, each by itself: done again it changes nothing."""
        for stored in given:
            self._store(stored)

    def _release(self, stored: shared.StoreInput) -> None:
        sequence = shared.WHOLE_RECORDING if stored.outcome is None else stored.outcome.sequence
        for sha256 in stored.audio:
            try:
                done = self._chunks.keep if stored.keep_audio else self._chunks.release
                done(sha256, stream_id=stored.stream_id, sequence=sequence)
            except (OSError, StoreError) as error:  # the result is stored; the sweep tries again later
                LOG.warning("audio not released", extra={"fields": {"error": type(error).__name__}})


class InferenceActivities:
    """Activities of the inference queue.

    Parameters
    ----------
    classifier : lib.inference.Classifier or alike
        With its detector; loaded once, before the worker polls. SettingsError without one.
    chunks : ChunkStore
    """

    def __init__(self, classifier: Any, chunks: ChunkStore) -> None:
        if classifier.detector is None:
            raise SettingsError("no detector is in models/detector or AUDIO_MODELS_DIR: no events can be found.")
        self._classifier, self._detector, self._chunks = classifier, classifier.detector, chunks
        self._known = functools.lru_cache(MAX_KNOWN)(self._work_out)
        self._version = ", ".join(f"{name} {version}" for name, version in sorted(classifier.versions.items()))

    def warm_up(self) -> None:
        """Decode and classify a second of tone, so that the first chunk does not wait for imports and graphs."""
        import numpy as np

        from lib import audio

        with tempfile.NamedTemporaryFile(suffix=".flac") as file:
            file.write(audio.encode_flac(np.sin(np.arange(SAMPLE_RATE_HZ) / 9).astype(np.float32)))
            file.flush()
            waveform = audio.load(file.name)
        self._classifier.predict(waveform)  # the detector's part of it, too

    @activity.defn(name="classify_round")
    @observed
    def classify_round(self, given: shared.ClassifyRound) -> list[shared.ClassifiedChunk]:
        """Verify, decode, check, measure and classify chunks of a stream; a bad one is named and costs no other."""
        classified, version = [], given.settings_version
        for chunk in given.chunks:
            try:
                result = self._classify(chunk, version)
            except Exception as error:
                told = _as_application_error(error)
                if not told.non_retryable:
                    raise
                reason = f"{told.type}: {told.message}"[:300]
                classified.append(shared.ClassifiedChunk(chunk.sequence, reason=reason))
            else:
                version = result.settings_version or version
                classified.append(shared.ClassifiedChunk(chunk.sequence, result))
        return classified

    def _classify(self, chunk: shared.ChunkReference, known_version: str) -> shared.ClassifyResult:
        result, settings = self._remembered(chunk, self._chunks.path(chunk.sha256)), self._detector.settings
        if settings.version == known_version:
            return result
        return replace(result, settings=settings.events, settings_version=settings.version)

    def _remembered(self, chunk: shared.ChunkReference, path: Path) -> shared.ClassifyResult:
        """Return the result of a chunk; the same sound (silence, mostly) on the same grid of frames is done once.

        It is worked out as if it came at the start of the stream, but behind it: no frame looks back beyond that.
        """
        n_hops = max(0, _first_sample(chunk) // PATCH_HOP_SAMPLES - 1)
        start_samples = _first_sample(chunk) + _n_context(chunk) - n_hops * PATCH_HOP_SAMPLES
        alike = replace(chunk, sequence=0, sent_seconds=0.0, start_seconds=start_samples / SAMPLE_RATE_HZ)
        result, frames = self._known(alike, path)
        return replace(result, frames=replace(frames, first_frame=frames.first_frame + n_hops))

    def _work_out(
        self, chunk: shared.ChunkReference, path: Path
    ) -> tuple[shared.ClassifyResult, shared.FrameProbabilities]:
        from lib.waveforms import clipped_share, level_range_db

        waveform = _load(path, chunk)
        own = waveform[_n_context(chunk) :]
        frames = frames_of_chunk(self._detector, waveform, chunk)
        prediction = self._classifier.predict_with(own, _frames_within(frames, chunk))
        result = shared.ClassifyResult(
            prediction.label,
            _in_class_order(prediction.probabilities),
            self._version,
            members={name: _in_class_order(rows) for name, rows in prediction.members.items()},
            health=shared.ChunkHealth(*level_range_db(own), clipped_share(own)),
        )
        return result, frames

    @activity.defn(name="preprocess")
    @observed
    def preprocess(self, given: shared.ClassifyInput) -> shared.ClassifyInput:
        """Return the chunk: streams of version 0.1 ask for it before `classify`, which does all the work now."""
        return given

    @activity.defn(name="classify")
    @observed
    def classify(self, given: shared.ClassifyInput) -> shared.ClassifyResult:
        """Classify one chunk, of a stream of version 0.1."""
        return self._classify(given.chunk, given.settings_version)

    @activity.defn(name="cut")
    @observed
    def cut(self, given: shared.CutInput) -> shared.CutResult:
        """Cut the next few chunks of a recording and put them into the store."""
        from temporal_workflow import chunks

        return chunks.cut(self._chunks, given)


def frames_of_chunk(detector: Any, waveform: np.ndarray, chunk: shared.ChunkReference) -> shared.FrameProbabilities:
    """Return the frames of a `lib.detector.Detector` for a chunk; `waveform` (n_samples,) starts with its context."""
    start = _first_sample(chunk)
    first, rows = detector.frames(waveform, first_sample=start, is_last=True)
    n_known = (start + len(waveform) - PATCH_SAMPLES) // PATCH_HOP_SAMPLES  # of the stream
    n_final = min(len(rows), max(0, n_known - first))
    return shared.FrameProbabilities.pack(rows.tolist(), first_frame=first, n_final=n_final)


def _frames_within(frames: shared.FrameProbabilities, chunk: shared.ChunkReference) -> np.ndarray:
    """Return the frames (n_frames, 2) that hold some of a chunk's own samples.

    None where the first are not known, as behind a gap, and the others are low: the ensemble is to predict then.
    """
    import numpy as np

    from lib.detector import frames_between
    from lib.ensemble import needs_ensemble

    start = round(chunk.start_seconds * SAMPLE_RATE_HZ)
    stop = start + round(chunk.n_samples * SAMPLE_RATE_HZ / chunk.sample_rate_hz)
    rows = np.array(frames.rows())  # none of a short chunk behind a gap
    found = frames_between(rows, start, stop, first_frame=frames.first_frame)
    is_whole = frames.first_frame * PATCH_HOP_SAMPLES <= start
    return found if is_whole or needs_ensemble(found) else found[:0]


def _in_class_order(probabilities: Mapping[str, float]) -> list[float]:
    return [round(float(probabilities[name]), 6) for name in CLASS_NAMES]


class WrongLength(ValueError):  # noqa: N818
    """A chunk is not as long as its reference says."""


def _load(path: Path, chunk: shared.ChunkReference) -> np.ndarray:
    """Return a chunk's waveform (n_samples,) with its context."""
    from lib import audio

    waveform = audio.load(path, max_seconds=MAX_SEGMENT_SECONDS + shared.CONTEXT_SECONDS + 1)
    seconds = len(waveform) / SAMPLE_RATE_HZ
    expected = (chunk.n_context_samples + chunk.n_samples) / chunk.sample_rate_hz
    if abs(seconds - expected) > 0.05:
        raise WrongLength(f"the chunk holds {seconds:.2f} s, its reference says {expected:.2f} s: send it again.")
    return waveform


def _first_sample(chunk: shared.ChunkReference) -> int:
    """Return the place in the stream, at 16 kHz, of the first sample of a chunk's context."""
    return round(chunk.start_seconds * SAMPLE_RATE_HZ) - _n_context(chunk)


def _n_context(chunk: shared.ChunkReference) -> int:
    """Return how many samples at 16 kHz are context."""
    return round(chunk.n_context_samples * SAMPLE_RATE_HZ / chunk.sample_rate_hz)


def _count(outcome: shared.ChunkOutcome) -> None:
    metrics.CHUNKS.labels(outcome.status).inc()
    if outcome.status == shared.CLASSIFIED:
        metrics.LABELS.labels(outcome.label).inc()
    else:
        metrics.REJECTS.labels(outcome.reason.partition(":")[0]).inc()
    if outcome.sent_seconds:
        metrics.LATENCY.observe(max(0.0, datetime.now(UTC).timestamp() - outcome.sent_seconds))
