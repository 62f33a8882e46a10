"""The released models in the service: a real stream's events are those of the detector on the whole of it.

Also of real screams cut to 0.3 s, at a border of chunks and in the middle of one. Not every scream so short is found:
YAMNet's patches are 0.975 s long, and a scream must last for two frames.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib import audio, config
from lib.corpora import acquisition
from lib.detector import Detection, Detector
from lib.events import Event, ended
from lib.inference import Classifier, run_inference
from temporal_workflow import shared
from temporal_workflow.chunks import parts, put_part
from temporal_workflow.progress import StreamProgress
from temporal_workflow.sender import submit_file
from temporal_workflow.settings import REAL_CLASSIFIER
from temporal_workflow.store import ChunkStore
from tests.chaos.harness import Service, apply, classify_round, inference, send_in_pieces

RATE = config.SAMPLE_RATE_HZ
CASES = config.PROJECT_DIR / "tests" / "data" / "cases"
ODD = config.PROJECT_DIR / "tests" / "data"
CRY_AT, SCREAM_AT, SHORT_AT = 8, 29, 49.75  # seconds: over the border at 10 s, over that at 30 s, at that at 50 s
N_SCREAM = round(0.3 * RATE)
LEVEL_DB, ROOM_DB = -20.0, -57.0
NOISE_SECONDS = 5 * shared.HOP_SECONDS  # the noise repeats: a scream so much later is the same patches
MIDDLE_SECONDS = 3 * NOISE_SECONDS  # from a border to a place that is over 2 s from any
BORDERS = {30: 0.0, 60: 0.5, 90: 1.0}  # seconds, of chunks of 5, 10 and 15 s; share of the scream before it
STREAM_SECONDS = 105


def loudest(path: Path, seconds: float) -> np.ndarray:
    """Return the loudest so many seconds of a recording."""
    waveform, n_samples = audio.load(path), round(seconds * RATE)
    power = np.convolve(np.square(waveform, dtype=np.float64), np.ones(n_samples), mode="valid")
    return waveform[power.argmax() :][:n_samples]


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    """A minute of faint room noise with a cry, a scream, and the loudest half second of the scream."""
    waveform = np.random.default_rng(7).normal(0, 10 ** (-57 / 20), 60 * RATE).astype(np.float32)
    cry, scream = audio.load(ODD / "no_eos.opus"), audio.load(CASES / "scream_2s_alone.wav")
    short = loudest(CASES / "scream_2s_alone.wav", 0.5)
    for sound, start in ((cry, CRY_AT), (scream, SCREAM_AT), (short, SHORT_AT)):
        waveform[round(start * RATE) :][: len(sound)] += sound
    return waveform.clip(-1, 1)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load()


@pytest.fixture(scope="module")
def whole(stream: np.ndarray, classifier: Classifier) -> Detection:
    return replace(classifier.detector).detect(stream)  # without the patches that the service will keep


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("released"), classifier=REAL_CLASSIFIER) as running:
        yield running


def test_cry_and_screams_over_chunk_borders_are_found(whole: Detection) -> None:
    (cry, *screams) = whole.events
    assert (cry.label, [event.label for event in screams]) == ("crying", ["screaming"] * len(screams))
    assert cry.onset_seconds == pytest.approx(CRY_AT, abs=1.0) and cry.offset_seconds > 12
    assert [event.onset_seconds for event in screams] == pytest.approx([SCREAM_AT, SHORT_AT], abs=1.0)


@pytest.mark.parametrize("path", [ODD / "no_eos.opus", CASES / "scream_2s_alone.wav"], ids=lambda path: path.stem)
def test_a_short_file_is_labelled_as_by_the_command(service: Service, classifier: Classifier, path: Path) -> None:
    async def submit() -> shared.StreamSummary:
        handle = await submit_file(await service.client(), service.settings, path, chunk_seconds=5.0)
        return await handle.result()

    summary = asyncio.run(submit())
    assert (summary.n_chunks, summary.label) == (1, run_inference(path, classifier=classifier).label)


@pytest.mark.parametrize(("chunk_seconds", "phase_seconds"), [(5, 0.0), (10, 0.0), (10, 3.3), (15, 1.7)])
def test_the_service_finds_the_same_however_the_stream_is_cut(
    service: Service, stream: np.ndarray, whole: Detection, chunk_seconds: int, phase_seconds: float
) -> None:
    stream_id = send_in_pieces(service, stream, first_seconds=5 + phase_seconds, chunk_seconds=chunk_seconds)
    found = [(e["label"], e["onset_seconds"], e["offset_seconds"]) for e in service.results.events(stream_id)]
    expected = [(event.label, event.onset_seconds, event.offset_seconds) for event in whole.events]
    assert [label for label, *_ in found] == [label for label, *_ in expected]
    np.testing.assert_allclose([times for _, *times in found], [times for _, *times in expected], atol=1e-6)


def stream_with(scream: np.ndarray) -> np.ndarray:
    """Return a quiet room with the scream at each border, and again in the middle of a chunk; in steps of 16 bit.

    The scream is at `LEVEL_DB` where the peak allows it.
    """
    scream = scream * min(10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(np.square(scream))), 0.98 / np.abs(scream).max())
    noise = np.random.default_rng(7).normal(0, 10 ** (ROOM_DB / 20), round(NOISE_SECONDS * RATE))
    waveform = np.resize(noise, STREAM_SECONDS * RATE).astype(np.float32)
    for place in (*places(), *(place + MIDDLE_SECONDS for place in places())):
        waveform[round(place * RATE) :][:N_SCREAM] += scream
    return np.round(waveform.clip(-1, 1) * 32767).astype(np.float32) / 32768


def places() -> list[float]:
    """Return where the scream starts, in seconds, for a border to be at its start, its middle and its end."""
    return [border - share * N_SCREAM / RATE for border, share in BORDERS.items()]


def at(place: float, events: list[Event]) -> list[Event]:
    """Return the screams that are found at a place, by their times from there."""
    here = [event for event in events if event.onset_seconds < place + 0.3 and event.offset_seconds > place]
    return [
        Event(round(event.onset_seconds - place, 6), round(event.offset_seconds - place, 6), event.label)
        for event in here
        if event.label == "screaming"
    ]


def through_service(detector: Detector, store: ChunkStore, stream: np.ndarray, chunk_seconds: float) -> list[Event]:
    """Return the events of a stream that is cut, stored, classified in rounds and followed as by the service."""
    activities = inference(store, detector=detector)  # events need no label of a chunk
    progress = StreamProgress(shared.StreamSettings(), shared.StreamState())
    progress.use_settings(detector.settings.events, detector.settings.version)
    for sequence, part in enumerate(parts([stream], chunk_seconds=chunk_seconds)):
        chunk = put_part(store, part, stream_id="s", sequence=sequence)
        (found,) = classify_round(activities, chunk)
        apply(progress, chunk, "normal", frames=found.result.frames)
    progress.end_events()
    return ended(progress.state.outbox)


@pytest.fixture(scope="module")
def found(classifier: Classifier) -> list[tuple[np.ndarray, list[Event]]]:
    """Streams with a scream of each corpus that the detector finds in the middle of a chunk, and their events."""
    clips = acquisition.clips().query("label == 'screaming'").drop_duplicates("source")
    paths = [Path(os.environ["AUDIO_MIRROR"], item.remote) for item in acquisition.items(clips)]
    streams = [stream_with(loudest(path, 0.3)) for path in paths]
    whole = [(stream, replace(classifier.detector).detect(stream).events) for stream in streams]
    return [(stream, events) for stream, events in whole if any(in_middle(events))]


def in_middle(events: list[Event]) -> list[list[Event]]:
    return [at(place + MIDDLE_SECONDS, events) for place in places()]


@pytest.mark.hub
@pytest.mark.real_audio
def test_some_are_found_in_the_middle_of_a_chunk(found) -> None:
    """At each place on the grid of frames; when this was written, 10, 8 and 5 screams of the 43 corpora."""
    n_found = np.sum([[bool(each) for each in in_middle(events)] for _, events in found], axis=0)
    assert min(n_found) >= 3, n_found


@pytest.mark.hub
@pytest.mark.real_audio
@pytest.mark.parametrize("chunk_seconds", [5, 10, 15])
def test_what_is_found_in_the_middle_of_a_chunk_is_found_at_a_border_as_one_event(
    found, classifier: Classifier, tmp_path: Path, chunk_seconds: int
) -> None:
    for stream, whole in found:
        events = through_service(classifier.detector, ChunkStore(tmp_path), stream, chunk_seconds)
        assert events == whole
        at_border = [at(place, events) for place in places()]
        assert at_border == in_middle(events)
        assert {len(each) for each in at_border} <= {0, 1}
