"""Frame probabilities of chunks become the events of the whole stream, however it is cut and in whatever order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import config
from lib.detector import CONTEXT_SAMPLES as DETECTOR_CONTEXT
from lib.detector import Detection
from lib.ensemble import combined_with
from lib.events import Event, EventSettings, ended, frames_to_events
from lib.inference import Prediction
from temporal_workflow import shared
from temporal_workflow.activities import frames_of_chunk
from temporal_workflow.chunks import cut, parts, put_waveform
from temporal_workflow.progress import StreamProgress
from temporal_workflow.store import ChunkStore
from tests.chaos.harness import another_run, apply, classify_round, inference, outcome

HOP, RATE = config.PATCH_HOP_SAMPLES, config.SAMPLE_RATE_HZ
CONTEXT_SAMPLES = round(shared.CONTEXT_SECONDS * RATE)
SETTINGS = EventSettings.create(on=0.6, off=0.4, min_seconds=0.4, merge_seconds=1.0)


def test_chunks_carry_what_the_detector_looks_back_on() -> None:
    assert CONTEXT_SAMPLES >= DETECTOR_CONTEXT + HOP + config.PATCH_SAMPLES
    assert shared.HOP_SECONDS == HOP / RATE


class TableDetector:
    """Looks frames up by number; as lib.detector it needs 7 hops before a frame and a patch behind it."""

    settings = SimpleNamespace(events=SETTINGS, version="table")

    def __init__(self, table: np.ndarray, n_samples: int) -> None:
        self.table, self.n_samples = table, n_samples

    def frames(self, samples: np.ndarray, *, first_sample: int, is_last: bool) -> tuple[int, np.ndarray]:
        stop = first_sample + len(samples)
        first = 0 if first_sample == 0 else -(-first_sample // HOP) + 7
        rows = self.table[first : -(-stop // HOP)].copy()
        if stop < self.n_samples:  # what is not known yet looks like anything
            rows[(stop - config.PATCH_SAMPLES) // HOP - first :] = 1.0
        return first, rows


def whole_and_table(seed: int, n_samples: int) -> np.ndarray:
    """Return probabilities (n_frames, 2) in thousandths, with runs of the same value."""
    rng = np.random.default_rng(seed)
    n_frames = -(-n_samples // HOP)
    rows = np.repeat(rng.random((n_frames, 2)), rng.integers(1, 9, n_frames), axis=0)[:n_frames]
    return np.round(rows, 3)


def cut_outcome(detector: TableDetector, start: int, stop: int, sequence: int) -> shared.ChunkOutcome:
    n_context = min(start, CONTEXT_SAMPLES)
    chunk = shared.ChunkReference(sequence, "", stop - start, RATE, round(start / RATE, 6), n_context_samples=n_context)
    frames = frames_of_chunk(detector, np.zeros(stop - start + n_context, np.float32), chunk)
    return outcome(chunk, "normal", frames=frames)


def applied(outcomes: list[shared.ChunkOutcome], order: list[int], *, chance: float = 1.0) -> StreamProgress:
    """Apply outcomes as their chunks arrive, some later by `chance`, each in another run; return the ended stream."""
    progress, rng = StreamProgress(shared.StreamSettings(), shared.StreamState()), np.random.default_rng(7)
    progress.use_settings(SETTINGS, "table")
    for sequence in [*order, None]:
        if sequence is not None:
            progress.accept(shared.ChunkReference(sequence, "", 80_000, RATE, 0.0))
        while progress.state.pending and (sequence is None or rng.random() < chance):
            progress.record(outcomes[progress.start_round(1)[0].sequence], now=0.0)
        progress = another_run(progress)
    while progress.has_gap():
        progress.skip_gap(now=0.0)
    progress.end_events()
    return progress


def events(progress: StreamProgress) -> list[Event]:
    return sorted(ended(progress.state.outbox))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    chunk_seconds=st.sampled_from([5, 10, 15]),
    phase_seconds=st.sampled_from([0, 1.7, 3.1]),
    shuffle=st.randoms(use_true_random=False),
)
def test_chunks_of_any_length_in_any_order_give_the_events_of_the_whole(
    seed, chunk_seconds, phase_seconds, shuffle
) -> None:
    n_samples = round((60 + phase_seconds) * RATE)
    table = whole_and_table(seed, n_samples)
    expected = frames_to_events(table, SETTINGS, hop_seconds=shared.HOP_SECONDS, end_seconds=n_samples / RATE)
    borders = [0, *range(round((5 + phase_seconds) * RATE), n_samples - 5 * RATE, chunk_seconds * RATE), n_samples]
    detector = TableDetector(table, n_samples)
    outcomes = [cut_outcome(detector, *pair, n) for n, pair in enumerate(zip(borders, borders[1:], strict=False))]
    order = [*range(len(outcomes)), *range(0, len(outcomes), 3)]
    shuffle.shuffle(order)
    progress = applied(outcomes, order, chance=0.5)
    assert events(progress) == expected
    changes = [change.change for change in progress.state.outbox]
    assert changes == list(range(1, len(changes) + 1))
    counts = progress.state.next_sequence, progress.state.n_classified, progress.state.n_duplicates
    assert counts == (len(outcomes), len(outcomes), len(order) - len(outcomes))


def test_a_missing_chunk_costs_its_own_frames_alone() -> None:
    n_samples = 40 * RATE
    table = np.full((-(-n_samples // HOP), 2), [0.9, 0.1])
    detector = TableDetector(table, 0)  # what is not known yet looks as it is
    outcomes = [cut_outcome(detector, n * 10 * RATE, (n + 1) * 10 * RATE, n) for n in range(4)]
    (event,) = events(applied(outcomes, [0, 2, 3]))  # 10 s are bridged
    assert (event.onset_seconds, event.offset_seconds) == (0.0, 40.0)
    first, second = events(applied(outcomes, [0, 3]))  # 20 s are not
    assert first.offset_seconds == pytest.approx(10.08)
    assert 27 < second.onset_seconds < 30  # the context of the next chunk reaches back


@pytest.mark.parametrize("n_samples", [RATE // 10, 12 * RATE, 15 * RATE])
@pytest.mark.parametrize("window", ["crying", "screaming", "normal"])
@pytest.mark.parametrize("peak", [0.1, 0.2, 0.7])
def test_one_chunk_is_labelled_as_the_command_labels_a_file(n_samples, window, peak) -> None:
    table = np.full((-(-n_samples // HOP), 2), 0.05)
    table[-1, 0] = peak  # known only once the stream has ended
    detector = TableDetector(table, n_samples)
    (part,) = parts([np.zeros(n_samples, np.float32)], chunk_seconds=5.0)
    assert len(part.waveform) == n_samples
    progress = StreamProgress(shared.StreamSettings(), shared.StreamState())
    progress.use_settings(EventSettings.create(on=0.6, off=0.4), "table")
    frames = cut_outcome(detector, 0, n_samples, 0).frames
    apply(progress, shared.ChunkReference(0, "", n_samples, RATE), window, frames=frames)
    progress.finish(1)
    progress.end_events()
    found = frames_to_events(table, progress.tracker.settings, hop_seconds=shared.HOP_SECONDS)
    assert progress.summary("file").label == Detection(table, found).label_with(window)


@settings(max_examples=40, deadline=None)
@given(
    n_samples=st.integers(1_000, 50 * RATE),
    chunk_seconds=st.sampled_from([5.0, 7.3, 10.0, 15.0]),
    n_block=st.sampled_from([4_001, 50_000, 160_000]),
)
def test_parts_cover_everything_once_with_5_s_of_context(n_samples, chunk_seconds, n_block) -> None:
    waveform = np.arange(n_samples, dtype=np.float32)
    blocks = (waveform[at : at + n_block] for at in range(0, n_samples, n_block))
    found = list(parts(blocks, chunk_seconds=chunk_seconds))
    assert np.array_equal(np.concatenate([part.waveform[part.n_context :] for part in found]), waveform)
    for part in found:
        assert part.n_context == min(part.start, CONTEXT_SAMPLES)
        assert part.waveform[0] == part.start - part.n_context
        assert len(part.waveform) - part.n_context <= 15 * RATE
        assert len(found) == 1 or len(part.waveform) - part.n_context >= 5 * RATE


def test_a_recording_is_cut_the_same_from_any_place_on(tmp_path: Path) -> None:
    path, store = tmp_path / "long.wav", ChunkStore(tmp_path / "chunks")
    soundfile.write(path, np.random.default_rng(7).normal(0, 0.1, 67 * RATE), RATE)
    sha256 = store.put(path.read_bytes(), stream_id="file", sequence=shared.WHOLE_RECORDING)

    def take(first: int, n_chunks: int) -> shared.CutResult:
        recording = shared.RecordingReference(sha256)
        return cut(store, shared.CutInput("file", recording, 10.0, first, n_chunks))

    whole = take(0, 99)
    assert whole.n_total == len(whole.chunks) == 7
    pieces = {first: take(first, 2) for first in (0, 2, 2, 0, 4, 6)}  # 2 twice: an activity that is done again
    assert [pieces[first].n_total for first in (0, 2, 4, 6)] == [-1, -1, -1, 7]
    assert take(0, 7).n_total == -1
    assert (take(7, 7).chunks, take(7, 7).n_total) == ([], 7)
    found = [chunk for first in (0, 2, 4, 6) for chunk in pieces[first].chunks]
    assert [(c.sequence, c.sha256) for c in found] == [(c.sequence, c.sha256) for c in whole.chunks]


@pytest.mark.parametrize(
    ("seconds", "crying", "expected"),
    [
        (1, 0.0, [0.018, 0.882, 0.1]),
        (10, 0.1, [0.018, 0.882, 0.1]),  # of the first 4 s no frame is known: low ones say nothing of them
        (10, 1.0, [0.94, 0.0, 0.06]),
    ],
)
def test_chunk_behind_a_gap_is_predicted_by_the_ensemble_where_no_known_frame_is_high(
    tmp_path: Path, seconds: int, crying: float, expected: list[float]
) -> None:
    """The detector has nothing to look back on; a short chunk comes from a microphone that stops soon."""

    def predict(own: np.ndarray, frames: np.ndarray) -> Prediction:
        combined = combined_with(frames, np.array([0.2, 0.7, 0.1]))
        return Prediction("screaming", dict(zip(config.CLASS_NAMES, combined, strict=True)), {})

    store, detector = ChunkStore(tmp_path), TableDetector(np.tile([crying, 0.0], (300, 1)), 0)
    tone = np.sin(np.arange(seconds * RATE) / 9).astype(np.float32)
    chunk = put_waveform(store, tone, stream_id="s", sequence=3, start_seconds=100.0)
    (found,) = classify_round(inference(store, predict, detector=detector), chunk)
    assert len(found.result.frames.rows()) == {1: 0, 10: 14}[seconds]  # stored as they are
    assert found.result.probabilities == pytest.approx(expected, abs=1e-3)
