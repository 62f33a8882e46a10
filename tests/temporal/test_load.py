"""The load command: real service, made-up streams, figures that fit what was sent."""

from __future__ import annotations

import json

import pytest

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
