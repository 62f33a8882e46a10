"""A small build of all notebooks on generated audio, with folders of its own; the suite begins it early."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
import yaml

from lib import config
from lib.reporting import steps

SMALL = {
    "common": {"profile": "small", "seed": 7},
    "01_data_acquisition": {"data_tier": "auto", "n_synthetic_groups": 20},
    "03_yamnet": {"n_windows": 30, "n_judged_windows": 60, "n_steps": 2},
    "04_wav2vec2": {"n_windows": 30, "n_judged_windows": 60, "n_steps": 2},
    "05_ensemble": {"n_bootstrap": 50},
    "06_evaluation": {"n_bootstrap": 50, "n_mistakes": 1, "n_windows": 30},
    "07_temporal_client": {"n_chunks": 10, "kill_after_chunk": 4},
}
RUN = """
import pathlib, sys
from lib.reporting import build, steps
steps.NOTEBOOKS_DIR = steps.PARAMS_DIR = pathlib.Path(sys.argv[1])
sys.exit(build.main(["small", "--data", "synthetic"]))
"""


class Build:
    """A build of its own: parameters, notebooks and outputs in one folder."""

    def __init__(self, folder: Path) -> None:
        self.notebooks_dir = folder / "note books"
        self.output_dir = folder / "out"
        self.report_dir = self.output_dir / "reports" / "small"
        shutil.copytree(steps.NOTEBOOKS_DIR, self.notebooks_dir, ignore=shutil.ignore_patterns(".*"))
        (self.notebooks_dir / "small.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
        self._said = [folder / "stdout", folder / "stderr"]
        self.process: subprocess.Popen | None = None

    def begin(self) -> None:
        out, err = (path.open("w") for path in self._said)
        with out, err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, str(self.notebooks_dir)],
                cwd=config.PROJECT_DIR,
                env=os.environ | {"AUDIO_OUTPUT_DIR": str(self.output_dir), "OMP_NUM_THREADS": "1"},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def run(self) -> subprocess.CompletedProcess:
        """Run to the end, or wait for a run that has begun."""
        if self.process is None:
            self.begin()
        process, self.process = self.process, None
        return subprocess.CompletedProcess(process.args, process.wait(), *(path.read_text() for path in self._said))

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def edit(self, name: str, source: str) -> None:
        """Put a cell before all others, so that no time is lost."""
        path = self.notebooks_dir / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.insert(0, nbformat.v4.new_code_cell(source))
        nbformat.write(notebook, path)

    def restore(self, name: str) -> None:
        shutil.copy(steps.NOTEBOOKS_DIR / f"{name}.ipynb", self.notebooks_dir / f"{name}.ipynb")


EARLY: list[Build] = []


def begin_early(wanted: Iterable[list[str]]) -> None:
    """Begin the build if one of the tests asks for it, by the names of their fixtures: it needs one core of two."""
    if not EARLY and any("built" in names for names in wanted):
        folder = config.OUTPUT_DIR / "small build"
        folder.mkdir(parents=True)
        EARLY.append(Build(folder))
        EARLY[0].begin()
