"""`python -m temporal_workflow.serve`: Temporal's development server, workers, and a supervisor for both.

For one machine. On a cluster, run `python -m temporal_workflow.worker` under the machine's own supervisor.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from temporal_workflow import devserver
from temporal_workflow.settings import LIGHT_CLASSIFIER, Settings
from temporal_workflow.worker import EX_CONFIG, EX_OK, EX_UNAVAILABLE

LOG = logging.getLogger(__name__)
RESTART_SECONDS = 0.2  # pause before a restart; doubled up to LONGEST_PAUSE while a child dies before it is ready
LONGEST_PAUSE = 30.0
READY = b'"message": "ready"'  # what a worker logs once it takes work
WATCH_SECONDS = 0.1
WORKER_STOP_SECONDS = 35.0  # a little more than the worker's own grace


@dataclass
class Child:
    """One supervised process: how to start it, and how its last life went."""

    name: str
    start: Callable[[], subprocess.Popen]
    log_path: Path
    ready: bytes = b""  # what it logs once it works; empty where `start` waits for that
    process: subprocess.Popen | None = None
    log_start: int = 0  # where its present life begins in the log
    pause: float = RESTART_SECONDS
    due_at: float | None = None  # when it is to be started again; on the monotonic clock
    n_restarts: int = 0

    def last_message(self) -> str:
        """Return the message of the last line that the process logged."""
        lines = self.log_path.read_text(errors="replace").splitlines() or [""]
        try:
            return json.loads(lines[-1])["message"]
        except (ValueError, KeyError, TypeError):
            return lines[-1]

    def launch(self) -> None:
        """Start the process."""
        self.log_start = self.log_path.stat().st_size if self.log_path.is_file() else 0
        self.process = self.start()

    def was_ready(self) -> bool:
        """Return whether the process got as far as taking work in its present or last life."""
        if not self.log_path.is_file():
            return not self.ready
        with self.log_path.open("rb") as log:
            log.seek(self.log_start)  # a long life leaves a long log
            return self.ready in log.read()

    def revive(self) -> None:
        """Start the process again if it has died: soon if it had worked, after growing pauses if it cannot start.

        Never waits itself, so that one child that cannot start keeps no other from being started.
        """
        if self.process is None or self.process.poll() is None:
            return
        if self.due_at is None:
            self.pause = RESTART_SECONDS if self.was_ready() else min(2 * self.pause, LONGEST_PAUSE)
            self.due_at = time.monotonic() + self.pause
            LOG.warning("%s ended with code %s; starting it again", self.name, self.process.returncode)
        elif time.monotonic() >= self.due_at:
            self.due_at = None
            self.n_restarts += 1
            self.launch()


@dataclass(frozen=True)
class Plan:
    """What to run and where."""

    port: int
    ui_port: int | None
    n_workers: int
    metrics_port: int
    settings: Settings

    @property
    def address(self) -> str:
        """Address of the server for clients and workers."""
        return f"127.0.0.1:{self.port}"

    @property
    def logs_dir(self) -> Path:
        """Folder of the children's output."""
        return self.settings.service_dir / "logs"

    def children(self) -> list[Child]:
        """Return the server, one orchestration worker and `n_workers` inference workers, none of them started."""
        self.logs_dir.mkdir(parents=True, exist_ok=True)
        queues = {"orchestration": 0, **{f"inference-{index}": index for index in range(1, self.n_workers + 1)}}
        found = [Child("server", self._start_server, self._log_path("server"))]
        for name, index in queues.items():
            start = functools.partial(self._start_worker, name, index)
            found.append(Child(name, start, self._log_path(name), READY))
        return found

    def _log_path(self, name: str) -> Path:
        return self.logs_dir / f"{name}.log"

    def _start_server(self) -> subprocess.Popen:
        database = self.settings.service_dir / "temporal.sqlite"
        return devserver.start(database, port=self.port, ui_port=self.ui_port, log_path=self._log_path("server"))

    def _start_worker(self, name: str, index: int) -> subprocess.Popen:
        command = [sys.executable, "-m", "temporal_workflow.worker", "--queue", name.partition("-")[0]]
        if self.metrics_port:
            command += ["--metrics-port", str(self.metrics_port + 2 * index)]
        environment = {**os.environ, **self.settings.environment(), "TEMPORAL_ADDRESS": self.address}
        root = str(Path(__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with self._log_path(name).open("ab") as log:
            return subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=devserver.end_with_parent,
            )


def supervise(children: Sequence[Child], *, stop: threading.Event, on_ready: Callable[[], None]) -> int:
    """Run the children until `stop` is set, or until a worker reports a wrong setting; return the exit code."""
    try:
        for child in children:
            child.launch()
        on_ready()
        while not stop.wait(WATCH_SECONDS):
            for child in children:
                if child.process is not None and child.process.poll() == EX_CONFIG:
                    LOG.error("%s cannot run: %s", child.name, child.last_message())
                    return EX_CONFIG
                child.revive()
        return EX_OK
    except devserver.ServerError as error:
        LOG.error("%s", error)
        return EX_UNAVAILABLE
    finally:
        for child in reversed(children):
            if child.process is not None:
                devserver.stop(child.process, seconds=WORKER_STOP_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service on this machine until SIGTERM or SIGINT; return the exit code."""
    chosen = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if chosen.classifier:
        os.environ["AUDIO_CLASSIFIER"] = LIGHT_CLASSIFIER if chosen.classifier == "light" else chosen.classifier
    plan = Plan(
        port=chosen.port,
        ui_port=None if chosen.headless else chosen.ui_port,
        n_workers=chosen.workers,
        metrics_port=chosen.metrics_port,
        settings=Settings.from_environment(),
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return supervise(plan.children(), stop=stop, on_ready=lambda: _announce(plan))


def _announce(plan: Plan) -> None:
    lines = [f"Temporal      {plan.address}"]
    if plan.ui_port:
        lines.append(f"Web UI        http://127.0.0.1:{plan.ui_port}")
    if plan.metrics_port:
        lines.append(f"Metrics       http://127.0.0.1:{plan.metrics_port}/metrics (one more every second port)")
    if plan.settings.classifier == LIGHT_CLASSIFIER:
        lines.append("Classifier    LIGHT STAND-IN: it sorts by pitch and knows nothing about crying")
    lines += [
        f"Workers       1 orchestration, {plan.n_workers} inference (models load now)",
        f"Logs          {plan.logs_dir}",
    ]
    LOG.info("%s", "\n".join([*lines, "Ready. Try: python -m temporal_workflow.client submit FILE   Stop: Ctrl+C"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m temporal_workflow.serve", description=__doc__)
    parser.add_argument(
        "--workers", type=int, default=1, help="inference workers, each with its own models (default 1)"
    )
    parser.add_argument("--port", type=int, default=7233)
    parser.add_argument("--ui-port", type=int, default=8233)
    parser.add_argument("--headless", action="store_true", help="no Web UI")
    parser.add_argument("--metrics-port", type=int, default=9464, help="first Prometheus port; 0: none")
    parser.add_argument("--classifier", help="`light`, or module:factory (default: the released models)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
