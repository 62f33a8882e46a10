"""torchaudio where it fits and where it does not: notebook 04's cell, and set-up."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch

from lib import audio, config, manifest
from lib.reporting import environment, steps

INDEX, INSTALL = "https://download.pytorch.org/whl/cpu", "pip install --quiet --no-deps"
REFUSED = ["torchaudio does not fit this PyTorch and is left out.", "called -m pip uninstall --quiet --yes torchaudio"]
SET_UP = r"""
eval "$(sed '/^main "\$@"$/d' "$1")"
eval "has_gpu() { [[ $2 == gpu ]]; }"
install_with_pip() { echo "pip install $*"; }
PYTHON="$4"
with_torchaudio "$3"
"""


def cell() -> str:
    cells = nbformat.read(steps.NOTEBOOKS_DIR / "04_wav2vec2.ipynb", as_version=4).cells
    (found,) = [cell.source for cell in cells if cell.id == "torchaudio"]
    return found


@pytest.fixture
def recording(tmp_path, monkeypatch, rng):
    """A recording of 1 s at 44.1 kHz as the first of the raw manifest."""
    monkeypatch.setattr(config, "DATA_DIR", tmp_path)
    times = np.arange(44_100) / 44_100
    soundfile.write(
        tmp_path / "a.wav", 0.3 * np.sin(2 * np.pi * 440 * times) + 0.01 * rng.standard_normal(44_100), 44_100
    )
    rows = pd.DataFrame({"path": ["a.wav"], "sample_rate_hz": [44_100]})
    monkeypatch.setattr(manifest, "read", lambda path: rows)


def stand_in(*, loads: bool, gain: float = 1.0) -> ModuleType:
    """torchaudio with another resampler; `gain` spoils what it resamples."""

    def load(path):
        if not loads:
            raise ImportError("TorchCodec is required")
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T.copy()), rate_hz

    def resample(waveform, rate_hz, to_hz, **options):
        assert options["resampling_method"] == "sinc_interp_kaiser"
        return torch.from_numpy(gain * soxr.resample(waveform.numpy(), rate_hz, to_hz, quality="VHQ"))

    module = ModuleType("torchaudio")
    module.__version__, module.load, module.functional = "2.11.1+cpu", load, SimpleNamespace(resample=resample)
    return module


def run(capsys) -> str:
    space = {"audio": audio, "config": config, "environment": environment, "manifest": manifest}
    space |= {"np": np, "torch": torch}
    exec(compile(cell(), "04", "exec"), space)
    (line,) = capsys.readouterr().out.splitlines()
    return line


@pytest.mark.parametrize(("loads", "said"), [(True, "loaded and resampled"), (False, "resampled (no torchcodec)")])
def test_where_it_fits_both_waveforms_are_equal_within_the_tolerance(recording, monkeypatch, capsys, loads, said):
    monkeypatch.setattr(environment, "why_no_torchaudio", lambda: "")
    monkeypatch.setitem(sys.modules, "torchaudio", stand_in(loads=loads))
    line = run(capsys)
    assert line.startswith(f"torchaudio 2.11.1+cpu, {said}: ") and "(tolerance 5 %)" in line
    assert 0 < float(line.partition(": ")[2].partition("%")[0]) < 5
    monkeypatch.setitem(sys.modules, "torchaudio", stand_in(loads=loads, gain=1.2))
    assert 19 < float(run(capsys).partition(": ")[2].partition("%")[0]) < 21


def test_where_it_does_not_fit_it_stays_out_and_one_line_says_why(recording, monkeypatch, capsys):
    monkeypatch.setattr(environment, "installed_version", {"torch": "2.13.0+cpu"}.get)
    monkeypatch.setitem(sys.modules, "torchaudio", None)  # an import would fail
    assert run(capsys) == environment.why_no_torchaudio() != ""


@pytest.mark.parametrize(
    ("gpu", "index", "fits", "expected"),
    [
        ("none", INDEX, True, [f"{INSTALL} --index-url {INDEX} torchaudio==2.11.1"]),
        ("gpu", "", True, [f"{INSTALL} torchaudio==2.11.1"]),
        ("none", "", True, []),
        ("none", INDEX, False, [f"{INSTALL} --index-url {INDEX} torchaudio==2.11.1", *REFUSED]),
    ],
    ids=["PyTorch's own index", "CUDA", "neither", "does not import"],
)
def test_set_up_takes_it_from_where_pytorch_came_from(tmp_path, gpu, index, fits, expected):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {0 if fits else 1}\necho "called $@"\n', encoding="utf-8")
    python.chmod(0o755)
    script = tmp_path / "set_up.sh"
    script.write_text(SET_UP, encoding="utf-8")
    command = ["bash", str(script), str(config.PROJECT_DIR / "run_all.sh"), gpu, index, str(python)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == expected, result.stderr
