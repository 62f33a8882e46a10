"""The benchmark: when a goal is met, what is written, and what the parts of it measure."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lib import config
from lib.reporting import results
from lib.studies import benchmark
from lib.studies.benchmark import Row, Sizes


@pytest.mark.parametrize(
    ("goals", "ratio", "met"),
    [
        ({"least_ratio": 5}, 6.0, True),
        ({"least_ratio": 7}, 6.0, False),
        ({"limit": 2.0}, 6.0, True),
        ({"limit": 1.9}, 6.0, False),
        ({"least_ratio": 5, "limit": 1.9}, 6.0, False),
        ({"limit": 3.0, "higher": True}, 1 / 6, False),
        ({"limit": 2.0, "higher": True}, 1 / 6, True),
    ],
)
def test_every_goal_of_a_row_must_be_reached(goals, ratio, met):
    row = Row("x", "s", 12.0, 2.0, **goals)
    assert row.ratio == pytest.approx(ratio)
    assert row.met is met


def test_a_row_without_baseline_has_no_ratio_and_cannot_reach_one():
    assert Row("x", "s", None, 2.0, limit=3).record()["ratio"] is None
    assert not Row("x", "s", None, 2.0, least_ratio=2).met


def test_rows_are_replaced_by_name_and_shown_with_their_units(tmp_path):
    path = tmp_path / benchmark.FILE_NAME
    benchmark.write(
        path, [Row("a", "s", 4.0, 2.0, least_ratio=5), Row("b", "streams", None, 1234, limit=9, higher=True)]
    )
    benchmark.write(path, [Row("a", "s", 4.0, 0.5, least_ratio=5)])
    assert [row["figure"] for row in json.loads(path.read_text())] == ["b", "a"]
    assert results.benchmark(tmp_path) == [
        ["b", "-", "1,234 streams", "-", ">= 9 streams", "yes"],
        ["a", "4 s", "0.5 s", "8x", ">= 5x", "yes"],
    ]
    assert results.benchmark(tmp_path / "nothing") == []


def test_silence_comes_in_the_share_that_was_asked_for():
    waveform = benchmark.sound(200, silence=0.9)
    assert np.mean(waveform == 0) == pytest.approx(0.9, abs=0.01)
    assert np.abs(benchmark.sound(20)).max() < 0.5 and np.mean(benchmark.sound(20) == 0) < 0.01


def test_a_process_is_measured_and_one_that_fails_is_told(tmp_path):
    printed, seconds = benchmark.run_process("json.tool", "--help")
    assert "usage" in printed and 0 < seconds < 30
    with pytest.raises(subprocess.CalledProcessError, match="exit status 2"):
        benchmark.run_process("json.tool", tmp_path / "absent.json")


def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    held, code = np.ones(40_000_000), "from lib.studies import benchmark; print(benchmark._peak_megabytes())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=config.PROJECT_DIR, capture_output=True, text=True, check=True)
    assert 10 < float(done.stdout) < held.nbytes / 1e6


def test_the_sweep_is_timed_with_and_without_features(monkeypatch):
    """By a clock that moves on only where a window is predicted: how busy the machine is does not count."""
    predicted = []
    clock = SimpleNamespace(monotonic=lambda: 0.01 * len(predicted))
    monkeypatch.setattr(benchmark, "time", clock)
    classifier = SimpleNamespace(predict_by_ensemble=predicted.append)
    monkeypatch.setattr(benchmark, "load_classifier", lambda module: classifier)
    (row,) = benchmark.cached_sweep(Sizes(n_runs=1))
    assert (row.ours, row.baseline) == (0, pytest.approx(20 * 2_000 * 0.01))
