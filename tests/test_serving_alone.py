"""Serving runs where nothing but requirements-serve.txt is installed: no training framework is there to be imported."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib import config
from temporal_workflow.worker import EX_UNAVAILABLE

REQUIREMENTS = config.PROJECT_DIR / "requirements-serve.txt"
TRAINING = (
    "tensorflow", "keras", "torch", "transformers", "librosa", "pandas", "sklearn", "scipy", "matplotlib", "noisereduce"
)  # fmt: skip
CASES = config.PROJECT_DIR / "tests" / "data" / "cases"
MAX_MEGABYTES, MAX_CPU_SECONDS = 450, 2.5
# A small process in between: peak memory starts with that of the process that started one, here all of pytest.
MEASURE = """
import pathlib, resource, subprocess, sys
code, usage = subprocess.call(sys.argv[2:]), resource.getrusage(resource.RUSAGE_CHILDREN)
pathlib.Path(sys.argv[1]).write_text(f"{usage.ru_maxrss} {usage.ru_utime + usage.ru_stime}")
sys.exit(code)
"""
CLASSIFY = """
import json, pathlib, sys
from temporalio.testing import ActivityEnvironment
from lib import audio
from temporal_workflow import shared
from temporal_workflow.activities import InferenceActivities
from temporal_workflow.chunks import put_waveform
from temporal_workflow.settings import Settings
from temporal_workflow.store import ChunkStore

settings = Settings.below(pathlib.Path(sys.argv[1]))
store, worker = ChunkStore(settings.chunks_dir), ActivityEnvironment()
inference = InferenceActivities(settings.load_classifier(), store)
chunk = put_waveform(store, audio.load(sys.argv[2]), stream_id="s", sequence=0, start_seconds=0.0)
(classified,) = worker.run(inference.classify_round, shared.ClassifyRound([chunk]))
print(json.dumps(classified.result.label))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """Return the Python of an environment made from requirements-serve.txt; made once for each content of that file."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    folder = config.PROJECT_DIR / "build" / f"serve-{digest[:12]}"
    python, done = folder / "bin" / "python", folder / "done"
    if not done.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
        install = [sys.executable, "-m", "pip", "--python", folder, "install", "--quiet"]
        if subprocess.run([*install, "--dry-run", "numpy"], capture_output=True).returncode:
            pytest.skip("no package index is reachable")
        subprocess.run([*install, "--requirement", REQUIREMENTS], check=True)
        done.touch()
    return python


def run(python: Path, *arguments: object, folder: Path, **variables: str) -> SimpleNamespace:
    """Run Python in the project's folder; return exit code, what it wrote, peak memory in MB and CPU seconds."""
    unwanted = ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL", config.THREADS_VARIABLE)
    environment = {name: value for name, value in os.environ.items() if name not in unwanted} | variables
    out, err = folder / "out", folder / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        command = [sys.executable, "-c", MEASURE, folder / "usage", python, *map(str, arguments)]
        done = subprocess.run(command, stdout=stdout, stderr=stderr, env=environment, cwd=config.PROJECT_DIR)
    kilobytes, seconds = map(float, (folder / "usage").read_text().split())
    return SimpleNamespace(
        code=done.returncode, out=out.read_text(), err=err.read_text(), megabytes=kilobytes / 1e3, seconds=seconds
    )


def test_nothing_of_training_is_there(python, tmp_path):
    code = f"from importlib.util import find_spec; print([name for name in {TRAINING} if find_spec(name)])"
    assert run(python, "-c", code, folder=tmp_path).out == "[]\n"


@pytest.mark.parametrize("name", ["scream_2s_at_0s.flac", "scream_2s_alone.wav"])
def test_a_file_is_classified_quickly_in_little_memory_and_silence(python, tmp_path, name):
    done = run(python, "-m", "lib.inference", CASES / name, folder=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "Predicted Label: Screaming" in done.out
    assert done.megabytes < MAX_MEGABYTES
    assert done.seconds < MAX_CPU_SECONDS


def test_the_service_is_imported(python, tmp_path):
    names = ("microphone", "listening", "alerts", "dashboard", "client", "serve", "worker")
    modules = ", ".join(f"temporal_workflow.{name}" for name in names)
    done = run(python, "-c", f"import lib.reporting.timeline, {modules}, paho.mqtt.client", folder=tmp_path)
    assert (done.code, done.err) == (0, "")


def test_a_worker_classifies_a_chunk(python, tmp_path):
    done = run(python, "-c", CLASSIFY, tmp_path / "service", CASES / "scream_2s_alone.wav", folder=tmp_path)
    assert (done.code, done.err, json.loads(done.out)) == (0, "", "screaming")


def test_a_worker_gets_ready_to_classify_in_little_memory(python, tmp_path):
    """It loads and warms up before it connects; here nobody listens."""
    place = {"AUDIO_SERVICE_DIR": str(tmp_path / "service"), "TEMPORAL_ADDRESS": "127.0.0.1:9"}
    done = run(python, "-m", "temporal_workflow.worker", "--queue", "inference", folder=tmp_path, **place)
    assert done.code == EX_UNAVAILABLE
    assert [json.loads(line)["level"] for line in done.err.splitlines()] == ["ERROR"]
    assert done.megabytes < MAX_MEGABYTES
