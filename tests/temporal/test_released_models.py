"""The released models in the real service: a real stream's events are those of the detector on the whole of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lib import audio, config
from lib.detector import Detection
from lib.inference import Classifier, run_inference
from temporal_workflow import shared
from temporal_workflow.sender import submit_file
from temporal_workflow.settings import REAL_CLASSIFIER
from tests.chaos.harness import Service, send_in_pieces

RATE = config.SAMPLE_RATE_HZ
CASES = config.PROJECT_DIR / "tests" / "data" / "cases"
ODD = config.PROJECT_DIR / "tests" / "data"
CRY_AT, SCREAM_AT, SHORT_AT = 8, 29, 49.75  # seconds: over the border at 10 s, over that at 30 s, at that at 50 s


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    """A minute of faint room noise with a cry, a scream, and the loudest half second of the scream."""
    waveform = np.random.default_rng(7).normal(0, 10 ** (-57 / 20), 60 * RATE).astype(np.float32)
    cry, scream = audio.load(ODD / "no_eos.opus"), audio.load(CASES / "scream_2s_alone.wav")
    n_short = RATE // 2
    power = np.convolve(np.square(scream), np.ones(n_short), mode="valid")
    short = scream[power.argmax() :][:n_short]
    for sound, start in ((cry, CRY_AT), (scream, SCREAM_AT), (short, SHORT_AT)):
        waveform[round(start * RATE) :][: len(sound)] += sound
    return waveform.clip(-1, 1)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load()


@pytest.fixture(scope="module")
def whole(stream: np.ndarray, classifier: Classifier) -> Detection:
    return classifier.detector.detect(stream)


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
