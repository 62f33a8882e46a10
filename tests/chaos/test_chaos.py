"""The bounded part of the chaos suite: the same runs as `python -m tests.chaos`, at the sizes for every build."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos import faults, marker
from tests.chaos.__main__ import RUNS, suite
from tests.chaos.audit import assert_clean
from tests.chaos.harness import Service

SEED = 7


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RUNS if name != "marker"])
def test_run(name: str, tmp_path: Path) -> None:
    for seed in range(SEED, SEED + 3):
        row = suite("ci", seed)[name](tmp_path / str(seed))
        assert_clean(row)
        if name != "worker kills" or row["recovery_p95_seconds"] <= 5:  # else again: the machine may have been busy
            break
    else:
        pytest.fail(f"recovery takes {row['recovery_p95_seconds']} s")
    assert row.get("sends", 1_000) >= 1_000
    assert row.get("runs", 3) >= 3
    assert row.get("memory_growth_inference", 0.0) < 0.05


@pytest.mark.parametrize("name", faults.ON_A_SERVICE)
def test_fault_of_one_stream(name: str, service: Service) -> None:
    row = asyncio.run(faults.ON_A_SERVICE[name](service, 1))
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
