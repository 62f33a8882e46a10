"""The bounded part of the chaos suite: the same runs as `python -m tests.chaos`, at the sizes for every build."""

from __future__ import annotations

from pathlib import Path

import pytest

from temporal_workflow import shared
from tests.chaos import faults, marker, runs
from tests.chaos.harness import Service

SEED = 7
MAX_HISTORY_EVENTS = 10_240


def assert_clean(row: runs.Row) -> None:
    assert (row["lost"], row["duplicated"], row["out_of_order"]) == (0, 0, 0), row
    if "histories" in row:
        assert row["replayed"] == row["histories"] >= 1
        assert row["largest_history_events"] < MAX_HISTORY_EVENTS
        assert row["largest_event_bytes"] < shared.MAX_MESSAGE_BYTES


@pytest.mark.slow
def test_worker_kills(tmp_path: Path) -> None:
    recoveries = []
    while not recoveries or (recoveries[-1] > 5 and len(recoveries) < 3):  # again where the machine was busy meanwhile
        seed = SEED + len(recoveries)
        row = runs.worker_kills(tmp_path / str(seed), n_kills=10, n_chunks=300, seed=seed)
        assert_clean(row)
        recoveries.append(row["recovery_p95_seconds"])
    assert recoveries[-1] <= 5, recoveries


@pytest.mark.slow
def test_server_kills(tmp_path: Path) -> None:
    assert_clean(runs.server_kills(tmp_path, n_kills=4, n_chunks=60, seed=SEED))


@pytest.mark.slow
def test_duplicates_and_shuffles_across_runs(tmp_path: Path) -> None:
    row = runs.duplicates(tmp_path, n_sends=1_000, seed=SEED)
    assert_clean(row)
    assert row["sends"] >= 1_000
    assert row["runs"] >= 3


@pytest.mark.slow
def test_soak(tmp_path: Path) -> None:
    row = runs.soak(tmp_path, audio_seconds=7_200, seed=SEED)
    assert_clean(row)
    assert row["memory_growth_inference"] < 0.05


@pytest.mark.parametrize("name", faults.ON_A_SERVICE)
def test_fault_of_one_stream(name: str, service: Service) -> None:
    row = faults.ON_A_SERVICE[name](service, 1)
    assert row["held"] == 1, row
    assert_clean(row)


@pytest.mark.parametrize("name", faults.IN_A_FOLDER)
def test_fault_of_the_machine(name: str, tmp_path: Path) -> None:
    if name in ("disk full", "read-only store") and not faults.can_mount():
        pytest.skip("needs the right to mount a small disk in memory (root)")
    row = faults.IN_A_FOLDER[name](tmp_path, 1)
    assert row["held"] == 1, row
    if "lost" in row:
        assert_clean(row)


@pytest.mark.parametrize("encrypt", [True, False])
def test_plain_text_marker(tmp_path: Path, encrypt: bool) -> None:
    row = marker.plain_text_marker(tmp_path, n_chunks=12, seed=SEED, encrypt=encrypt)
    assert_clean(row)
    assert (row["markers_in_database"] == 0) == encrypt, "without the codec the marker must be found"
    assert (row["markers_in_logs"], row["markers_in_metrics"]) == (0, 0)
