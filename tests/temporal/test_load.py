"""The load command: real service, made-up streams, figures that fit what was sent."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from lib import audio
from temporal_workflow import load


def test_every_chunk_of_every_stream_is_counted_and_figures_are_those_of_a_service_that_works(capsys):
    assert load.main(["--stand-in", "--streams", "2", "--chunks", "6", "--pace", "0.2", "--chunk-seconds", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n_streams"], found["n_chunks"], found["n_classified"]) == (2, 12, 12)
    assert 0 < found["p50_seconds"] <= found["p95_seconds"] < 10
    assert len(found["p50_by_tenth"]) == 10
    assert 500 < found["history_bytes_per_chunk"] <= 3_000


def test_silence_comes_in_runs_of_the_share_asked_for(tmp_path):
    sounds, store = load.Sounds(chunk_seconds=5, silence=0.9, n_streams=20), load.ChunkStore(tmp_path)
    hashes = [sounds.put(store, "stream-1", sequence, number=0).sha256 for sequence in range(100)]
    silent = max(set(hashes), key=hashes.count)
    assert [sequence for sequence, found in enumerate(hashes) if found != silent] == list(range(90, 100))
    at_once = [sounds.put(store, f"stream-{number}", 0, number=number).sha256 for number in range(20)]
    assert sum(found != silent for found in at_once) == 2  # streams take turns


@pytest.mark.parametrize(("n_streams", "chunk_seconds"), [(1, 5), (4, 10), (120, 10), (400, 15)])
def test_no_patch_of_sound_comes_twice(n_streams, chunk_seconds):
    sounds, n_samples = load.Sounds(chunk_seconds=chunk_seconds, n_streams=n_streams), chunk_seconds * load.RATE
    places = [
        (sounds.start(number, sequence) + np.arange(-sequence * n_samples % load.HOP, n_samples, load.HOP))
        for number in range(n_streams)
        for sequence in range(30 * 60 // chunk_seconds)  # half an hour: three rounds
    ]
    found = np.concatenate(places) % sounds.n_loop
    assert len(np.unique(found)) == len(found)


def test_a_chunk_starts_with_the_end_of_the_one_before_it_and_a_share_of_them_cries(tmp_path):
    sounds, store, waves = load.Sounds(chunk_seconds=15), load.ChunkStore(tmp_path), []
    for sequence in range(45):  # over the end of the loop
        waves.append(audio.load(store.path(sounds.put(store, "stream-1", sequence, number=0).sha256)))
    n_context = round(load.shared.CONTEXT_SECONDS * load.RATE)
    for before, after in itertools.pairwise(waves):
        np.testing.assert_array_equal(before[-n_context:], after[:n_context])
    starts = [n_context + sounds.start(number, sequence) for number in range(40) for sequence in range(40)]
    is_cry = np.abs(sounds._loop) > 1.1 * 4 * load.NOISE_LEVEL
    assert np.mean([is_cry[at : at + 15 * load.RATE].any() for at in starts]) == pytest.approx(0.1, abs=0.03)
