"""The load command: real service, made-up streams, figures that fit what was sent."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pytest
import soundfile

from temporal_workflow import load


@pytest.fixture(scope="module")
def found():
    out = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load.sys.stdout, "write", out.append)
        assert (
            load.main(["--stand-in", "--streams", "2", "--chunks", "6", "--pace", "0.2", "--chunk-seconds", "5"]) == 0
        )
    return json.loads("".join(out))


def test_every_chunk_of_every_stream_is_counted(found):
    assert (found["n_streams"], found["n_chunks"], found["n_classified"]) == (2, 12, 12)


def test_latency_and_history_are_those_of_a_service_that_works(found):
    assert 0 < found["p50_seconds"] <= found["p95_seconds"] < 10
    assert len(found["p50_by_tenth"]) == 10
    assert 500 < found["history_bytes_per_chunk"] <= 3_000


def test_silence_comes_in_runs_of_the_share_asked_for(tmp_path):
    sounds, store = load.Sounds(chunk_seconds=5, silence=0.9), load.ChunkStore(tmp_path)
    hashes = [sounds.put(store, "stream-1", sequence, number=0).sha256 for sequence in range(100)]
    assert len(set(hashes)) == 11  # no sound comes again while a worker keeps its embeddings
    silent = max(set(hashes), key=hashes.count)
    assert [sequence for sequence, found in enumerate(hashes) if found != silent] == list(range(90, 100))
    at_once = [sounds.put(store, f"stream-{number}", 0, number=number).sha256 for number in range(20)]
    assert sum(found != silent for found in at_once) == 2  # streams take turns


@pytest.mark.parametrize(
    ("n_streams", "n_tenths_silent"),
    [(1, 0), (4, 0), (4, 5), (12, 9), (25, 2), (25, 7), (120, 0), (120, 5), (150, 9), (300, 9), (400, 0)],
)
def test_no_worker_still_keeps_the_sound_that_a_stream_sends(n_streams, n_tenths_silent):
    turns, last, n_sent, n_sounding = load.Turns(n_streams, n_tenths_silent, 288), {}, 0, 0
    for sequence in range(2_000 // n_streams + 100):
        for number in range(n_streams):
            place = turns.place(number, sequence)
            if place is not None:
                assert n_sent - last.get(place, -turns.n_sounds) > 288
                last[place], n_sent = n_sent, n_sent + 1
                n_sounding += sequence < 100
    assert n_sounding == 10 * (10 - n_tenths_silent) * n_streams  # the share asked for
    assert turns.n_sounds <= 2_000  # they are kept in memory


def test_a_chunk_starts_with_the_end_of_the_one_before_it_and_a_share_of_them_cries(monkeypatch):
    monkeypatch.setattr(load, "MAX_KEPT", 1_000)
    sounds, waves = load.Sounds(chunk_seconds=15, n_streams=100, cries=0.25), []
    for content in sounds._loop:
        waves.append(soundfile.read(io.BytesIO(content), dtype="float32")[0])
    n_context = round(load.shared.CONTEXT_SECONDS * load.config.SAMPLE_RATE_HZ)
    for before, after in itertools.pairwise([*waves, waves[0]]):
        np.testing.assert_array_equal(before[-n_context:], after[:n_context])
    noise = load.NOISE_LEVEL * 4
    assert np.mean([np.abs(wave[n_context:]).max() > 1.1 * noise for wave in waves]) == pytest.approx(0.25, abs=0.03)
