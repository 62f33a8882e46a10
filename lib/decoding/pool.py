"""A few decoder processes that wait for work, so that the safety of a child costs no start for each recording."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

START_SECONDS = 60.0  # to import numpy, soundfile and av on a busy machine
WALL_SECONDS = 60.0  # between two messages, by the clock of a busy machine
MAX_IDLE = 2
PROJECT_DIR = Path(__file__).resolve().parents[2]

_idle: list[Decoder] = []


class DecoderTimeout(Exception):  # noqa: N818 - named as subprocess.TimeoutExpired is
    """The process was ended because its time was over."""


class DecoderCrashed(Exception):  # noqa: N818
    """The process ended by itself."""


class Decoder:
    """One process of `lib.decoding.child`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        search = os.pathsep.join(filter(None, (str(PROJECT_DIR), os.environ.get("PYTHONPATH"))))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lib.decoding.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": search},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C goes to the program that asked, not to the decoder
            )
        self._connection = Connection(ours.detach())
        try:
            self._receive(START_SECONDS)
        except (DecoderTimeout, DecoderCrashed) as error:
            self.close()
            raise RuntimeError(f"The decoder process does not start ({error}): are av and soundfile there?") from error

    def messages(self, path: Path, *, max_seconds: float, count_only: bool) -> Iterator[dict | np.ndarray]:
        """Have a recording decoded: yield its head, blocks of float32 values, and a last message.

        Raises
        ------
        DecoderTimeout, DecoderCrashed
            The process is gone; drop this object.
        """
        request = {"path": os.fspath(path.absolute()), "max_seconds": max_seconds, "count_only": count_only}
        with contextlib.suppress(BrokenPipeError):  # the answer will say that it crashed
            self._connection.send_bytes(json.dumps(request).encode())
        message: dict | np.ndarray = {}
        while not isinstance(message, dict) or "head" in message or not message:
            data = self._receive(WALL_SECONDS)
            if data[:1] == b".":
                continue
            message = json.loads(data) if data[:1] == b"{" else np.frombuffer(data, np.float32, offset=4)
            yield message

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self._connection.close()
        self.process.wait()

    def _receive(self, seconds: float) -> bytes:
        try:
            if not self._connection.poll(seconds):
                raise DecoderTimeout(f"no answer for {seconds:.0f} s")
            return self._connection.recv_bytes()
        except (EOFError, ConnectionError) as error:
            code = self.process.wait()
            raise (DecoderTimeout if code == -signal.SIGXCPU else DecoderCrashed)(f"exit code {code}") from error


@contextlib.contextmanager
def borrow_decoder() -> Iterator[Decoder]:
    """Lend a decoder process to this thread; one that failed or was left half-way is ended and not lent again."""
    try:
        decoder = _idle.pop()  # list.pop and append are atomic: no lock needed
    except IndexError:
        decoder = Decoder()
    try:
        yield decoder
    except BaseException:
        decoder.close()
        raise
    if len(_idle) < MAX_IDLE:
        _idle.append(decoder)
    else:
        decoder.close()


os.register_at_fork(after_in_child=_idle.clear)  # a forked process must not share its parent's sockets
