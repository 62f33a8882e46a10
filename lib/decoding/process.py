"""Child processes in which files are decoded, so that a crash, hang or memory bomb ends there; a few wait for work.

One JSON request goes in per file. Out come a JSON message with the head, one for each block of float32 samples, a JSON
message with the remarks or the refusal, and an empty one; "." in between says that all is well. `multiprocessing` does
not start the child: it would run the caller's own script in it again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Pipe
from pathlib import Path

from lib.config import PROJECT_DIR

START_SECONDS = 60.0  # to import numpy and av on a busy machine
WALL_SECONDS = 30.0  # between two messages, by the clock of a busy machine: FFmpeg needs less than 0.1 s
MAX_IDLE = 2

_idle: list[Decoder] = []
os.register_at_fork(after_in_child=_idle.clear)  # a forked process must not share its parent's sockets


class Decoder:
    """One child, seen from the parent. TimeoutError or EOFError mean that it is ended: drop this object."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        search = os.pathsep.join(filter(None, (str(PROJECT_DIR), os.environ.get("PYTHONPATH"))))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lib.decoding.track"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": search},
                start_new_session=True,  # Ctrl-C goes to the program that asked, not to the decoder
            )
        try:
            self._receive(START_SECONDS)
        except (TimeoutError, EOFError) as error:
            raise RuntimeError(f"The decoder process does not start, it {error}: is av there?") from error

    def ask(self, path: Path, *, head_only: bool) -> Iterator[bytes]:
        """Have a recording decoded: wait for the first message, and return the iterator over all of them."""
        with contextlib.suppress(BrokenPipeError):  # the answer will say that it crashed
            self._connection.send_bytes(json.dumps([os.fspath(path.absolute()), head_only]).encode())
        first = self._receive(WALL_SECONDS)
        return itertools.chain([first], iter(lambda: self._receive(WALL_SECONDS), b""))

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self._connection.close()
        self.process.wait()

    def _receive(self, seconds: float) -> bytes:
        try:
            while self._connection.poll(seconds):
                if (data := self._connection.recv_bytes()) != b".":
                    return data
        except (EOFError, ConnectionError) as error:
            raise EOFError(f"crashes on it (exit code {self.process.wait()})") from error
        self.close()
        raise TimeoutError(f"has not finished it in the time allowed (no answer for {seconds:.0f} s)")


@contextlib.contextmanager
def messages(path: Path, *, head_only: bool) -> Iterator[Iterator[bytes]]:
    """Have a recording decoded by an idle process or a new one; one that fails or is left half-way is ended."""
    found = None
    with contextlib.suppress(IndexError, EOFError):  # none is idle, or it died there, perhaps for want of memory
        decoder = _idle.pop()  # list.pop and append are atomic: no lock needed
        found = decoder.ask(path, head_only=head_only)
    if found is None:
        decoder = Decoder()
        found = decoder.ask(path, head_only=head_only)
    try:
        yield found
    except BaseException:
        decoder.close()
        raise
    if len(_idle) < MAX_IDLE:
        _idle.append(decoder)
    else:
        decoder.close()
