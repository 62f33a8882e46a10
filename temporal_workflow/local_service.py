"""The whole service as child processes of this one, for notebooks and tests: start it, lose a process, stop it."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from dataclasses import replace

from temporalio.client import Client

from temporal_workflow import devserver
from temporal_workflow.results import ResultsTable
from temporal_workflow.serve import READY, Child, Plan, supervise
from temporal_workflow.settings import Settings, connect


class LocalService:
    """A dev server on a free loopback port, one orchestration worker and some inference workers, supervised.

    Parameters
    ----------
    settings : Settings
        Where everything lies and which classifier is used; the address is set to the server's own.
    n_workers : int
        Inference workers.
    """

    def __init__(self, settings: Settings, *, n_workers: int = 1, metrics_port: int = 0) -> None:
        port = devserver.free_port()
        self.settings = replace(settings, address=f"127.0.0.1:{port}")
        self.plan = Plan(port, None, n_workers, metrics_port, self.settings)
        self.children: dict[str, Child] = {child.name: child for child in self.plan.children()}
        self._stopping = threading.Event()
        self._launched = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._n_ready_before = self.logs().count(READY.decode())

    @property
    def results(self) -> ResultsTable:
        """The results table."""
        return ResultsTable(self.settings.results_url)

    def start(self, *, wait_seconds: float = 300.0) -> None:
        """Start everything and wait until every worker has loaded what it needs.

        Raises
        ------
        RuntimeError
            If a process does not start, or a worker reports a wrong setting; the logs' folder is named.
        """
        atexit.register(self.stop)
        self._supervisor.start()
        deadline = time.monotonic() + wait_seconds
        while not (self._launched.is_set() and self.n_ready() >= len(self.children) - 1):
            if not self._supervisor.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the service did not start: see {self.plan.logs_dir}")
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

    def n_ready(self) -> int:
        """Return how often a worker has become ready since this service was made."""
        return self.logs().count(READY.decode()) - self._n_ready_before

    def logs(self) -> str:
        """Return what all processes wrote."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.plan.logs_dir.glob("*.log")))

    async def client(self) -> Client:
        """Connect to the server."""
        return await connect(self.settings)

    def __enter__(self) -> LocalService:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _supervise(self) -> None:
        supervise(list(self.children.values()), stop=self._stopping, on_ready=self._launched.set)
