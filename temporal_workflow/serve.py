"""`python -m temporal_workflow.serve`: Temporal's development server, workers, and a supervisor for both.

For one machine. On a cluster, run `python -m temporal_workflow.worker` under the machine's own supervisor.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import fcntl
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from temporalio.client import Client

from lib import config
from temporal_workflow import devserver
from temporal_workflow.results import ResultsTable
from temporal_workflow.settings import PITCH_CLASSIFIER, Settings, connect, count
from temporal_workflow.worker import EX_CONFIG, EX_OK, EX_UNAVAILABLE, SLOTS

LOG = logging.getLogger(__name__)
RESTART_SECONDS = 0.2  # pause before a restart; it grows up to LONGEST_PAUSE while a child dies before it is ready
LONGEST_PAUSE = 30.0
START_SECONDS = 300.0  # for workers to load their models
READY = b'"message": "ready"'  # what a worker logs once it takes work
WATCH_SECONDS = 0.1
WORKER_STOP_SECONDS = 35.0  # a little more than the worker's own grace


@dataclass
class Child:
    """One supervised process: how to start it, and how its last run went."""

    name: str
    start: Callable[[], subprocess.Popen]
    log_path: Path
    ready: bytes = b""  # what it logs once it works; empty where `start` waits for that
    process: subprocess.Popen | None = None
    log_start: int = 0  # where its present run begins in the log
    pause: float = RESTART_SECONDS
    due_at: float = 0.0  # when it is to be started where it does not run; on the monotonic clock

    def last_message(self) -> str:
        """Return the message of the last line that the process logged."""
        lines = self.log_path.read_text(errors="replace").splitlines() or [""]
        try:
            return json.loads(lines[-1])["message"]
        except (ValueError, KeyError, TypeError):
            return lines[-1]

    def was_ready(self) -> bool:
        """Return whether the process got as far as taking work in its present or last run."""
        if not self.log_path.is_file():
            return not self.ready
        with self.log_path.open("rb") as log:
            log.seek(self.log_start)  # a long run leaves a long log
            return self.ready in log.read()

    def keep_running(self) -> None:
        """Start the process; again if it has ended: soon if it had worked, after growing pauses if it cannot start.

        Never waits itself, so that one child that cannot start keeps no other from being started.
        """
        if self.process is None and time.monotonic() >= self.due_at:
            self.log_start = self.log_path.stat().st_size if self.log_path.is_file() else 0
            self.process = self.start()
        elif self.process is not None and self.process.poll() is not None:
            self.pause = RESTART_SECONDS if self.was_ready() else min(2 * self.pause, LONGEST_PAUSE)
            self.due_at = time.monotonic() + self.pause
            LOG.warning("%s ended with code %s; starting it again", self.name, self.process.returncode)
            self.process = None


class LocalService:
    """A development server, one orchestration worker and some inference workers, as child processes.

    `run` supervises them until it is told to stop; `start` does so in a thread, for notebooks and tests.

    Parameters
    ----------
    settings : Settings
        The address is set to the server's own.
    n_workers : int
        Inference workers.
    port, ui_port : int, optional
        Loopback ports of the server (default: a free one) and of its Web UI (default: none).
    metrics_port : int
        First Prometheus port; 0: none.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        n_workers: int = 1,
        port: int | None = None,
        ui_port: int | None = None,
        metrics_port: int = 0,
    ) -> None:
        self.port = port or devserver.free_port()
        self.ui_port, self.n_workers = ui_port, n_workers
        n_ports = 2 * (1 + n_workers) if metrics_port else 0  # each worker's own metrics, and its SDK's
        self.metrics_ports = range(metrics_port, metrics_port + n_ports)
        self.settings = replace(settings, address=f"127.0.0.1:{self.port}")
        self.logs_dir = settings.service_dir / "logs"
        self.logs_dir.mkdir(parents=True, exist_ok=True)
        workers = ["orchestration", *(f"inference-{index}" for index in range(1, n_workers + 1))]
        self.children = {"server": Child("server", self._start_server, self.logs_dir / "server.log")}
        for index, name in enumerate(workers):
            start = functools.partial(self._start_worker, name, index)
            self.children[name] = Child(name, start, self.logs_dir / f"{name}.log", READY)
        self._stopping, self._launched = threading.Event(), threading.Event()
        self._supervisor = threading.Thread(target=self.run, args=(self._stopping, self._launched.set), daemon=True)

    def run(self, stop: threading.Event, on_launched: Callable[[], object]) -> int:
        """Run everything until `stop` is set, or until a worker reports a wrong setting; return the exit code."""
        try:
            with self._only_one():
                for port in self.metrics_ports:
                    devserver.check_port(port)
                return supervise(list(self.children.values()), stop=stop, on_launched=on_launched)
        except BlockingIOError:
            LOG.error("another service runs on %s: stop it, or set AUDIO_SERVICE_DIR", self.settings.service_dir)
        except (devserver.ServerError, devserver.PortError) as error:
            LOG.error("%s", error)
        return EX_UNAVAILABLE

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """Hold the folder's lock, or raise BlockingIOError; the kernel frees it however the process ends."""
        with (self.settings.service_dir / ".serve.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def start(self) -> None:
        """Start everything and wait until every worker has loaded what it needs.

        Raises
        ------
        RuntimeError
            If a process does not start, or a worker reports a wrong setting; the logs' folder is named.
        """
        atexit.register(self.stop)
        self._supervisor.start()
        deadline = time.monotonic() + START_SECONDS
        while not (self._launched.is_set() and all(child.was_ready() for child in self.children.values())):
            if not self._supervisor.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the service did not start: see {self.logs_dir}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop every process gracefully; doing it twice changes nothing."""
        self._stopping.set()
        if self._supervisor.ident is not None:
            self._supervisor.join()
        atexit.unregister(self.stop)

    def kill(self, name: str) -> bool:
        """SIGKILL one process; the supervisor starts it again. Return whether there was one to kill."""
        process = self.children[name].process
        if process is None or process.poll() is not None:
            return False
        os.kill(process.pid, signal.SIGKILL)
        return True

    @property
    def results(self) -> ResultsTable:
        """The results table."""
        return ResultsTable(self.settings.results_url)

    async def client(self) -> Client:
        """Connect to the server."""
        return await connect(self.settings)

    def __enter__(self) -> LocalService:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_server(self) -> subprocess.Popen:
        database, log_path = self.settings.service_dir / "temporal.sqlite", self.children["server"].log_path
        return devserver.start(database, port=self.port, ui_port=self.ui_port, log_path=log_path)

    def _start_worker(self, name: str, index: int) -> subprocess.Popen:
        command = [sys.executable, "-m", "temporal_workflow.worker", "--queue", name.partition("-")[0]]
        if self.metrics_ports:
            command += ["--metrics-port", str(self.metrics_ports[2 * index])]
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        threads = str(config.n_threads(SLOTS * self.n_workers))
        chosen = {**self.settings.environment(), "PYTHONPATH": path, config.THREADS_VARIABLE: threads}
        return devserver.launch(command, log_path=self.children[name].log_path, env={**os.environ, **chosen})


def supervise(children: Sequence[Child], *, stop: threading.Event, on_launched: Callable[[], object]) -> int:
    """Run the children until `stop` is set, or until a worker reports a wrong setting; return the exit code.

    `devserver.start`'s errors pass, once every child was stopped.
    """
    try:
        for child in children:
            child.keep_running()
        on_launched()
        while not stop.wait(WATCH_SECONDS):
            for child in children:
                if child.process is not None and child.process.poll() == EX_CONFIG:
                    LOG.error("%s cannot run: %s", child.name, child.last_message())
                    return EX_CONFIG
                child.keep_running()
        return EX_OK
    finally:
        for child in reversed(children):
            if child.process is not None:
                devserver.stop(child.process, seconds=WORKER_STOP_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service on this machine until SIGTERM or SIGINT; return the exit code."""
    chosen = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        service = LocalService(
            Settings.from_environment(),
            n_workers=chosen.workers,
            port=chosen.port,
            ui_port=None if chosen.headless else chosen.ui_port,
            metrics_port=chosen.metrics_port,
        )
    except (ValueError, OSError) as error:
        LOG.error("wrong setting: %s", error)
        return EX_CONFIG
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return service.run(stop, lambda: _announce(service))


def _announce(service: LocalService) -> None:
    lines = [f"Temporal      {service.settings.address}"]
    if service.ui_port:
        lines.append(f"Web UI        http://127.0.0.1:{service.ui_port}")
    if service.metrics_ports:
        first = f"http://127.0.0.1:{service.metrics_ports[0]}/metrics"
        lines.append(f"Metrics       {first} (the next worker's two ports on)")
    if service.settings.classifier == PITCH_CLASSIFIER:
        lines.append("Classifier    STAND-IN: it sorts by pitch and knows nothing about crying")
    lines += [
        f"Workers       1 orchestration, {service.n_workers} inference (models load now)",
        f"Logs          {service.logs_dir}",
    ]
    LOG.info("%s", "\n".join([*lines, "Ready. Try: python -m temporal_workflow.client submit FILE   Stop: Ctrl+C"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m temporal_workflow.serve", description=__doc__)
    parser.add_argument(
        "--workers", type=count, default=1, help="inference workers, each with its own models (default 1)"
    )
    parser.add_argument("--port", type=int, default=7233)
    parser.add_argument("--ui-port", type=int, default=8233)
    parser.add_argument("--headless", action="store_true", help="no Web UI")
    parser.add_argument("--metrics-port", type=int, default=9464, help="first Prometheus port; 0: none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
