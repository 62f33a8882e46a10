"""A few decoder processes that wait for work, so that the safety of a child costs no start for each recording."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

START_SECONDS = 60.0  # to import numpy and soundfile on a busy machine
READ_BYTES = 2**20
MAX_IDLE = 2

_idle: list[Decoder] = []


class DecoderTimeout(Exception):  # noqa: N818 - named as subprocess.TimeoutExpired is
    """The process was ended because its time was over."""


class DecoderCrashed(Exception):  # noqa: N818
    """The process ended by itself."""


@dataclass(frozen=True)
class Reply:
    """What a decoder process answered: samples (n_samples, n_channels) float32, or an error text."""

    samples: np.ndarray
    sample_rate_hz: float
    error: str


class Decoder:
    """One process of `lib.decoding.decoding_child`."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("decoding_child.py"))],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C goes to the program that asked, not to the decoder
        )
        self._buffer = bytearray()
        try:
            self._read_line(time.monotonic() + START_SECONDS)
        except (DecoderTimeout, DecoderCrashed) as error:
            self.close()
            raise RuntimeError(f"The decoder process does not start ({error}): is soundfile installed?") from error

    def decode(self, path: Path, *, max_frames: int, cpu_seconds: float, wall_seconds: float) -> Reply:
        """Have one recording decoded.

        Raises
        ------
        DecoderTimeout, DecoderCrashed
            The process is gone; drop this object.
        """
        deadline = time.monotonic() + wall_seconds
        request = {"path": os.fspath(path.absolute()), "max_frames": max_frames, "cpu_seconds": cpu_seconds}
        with contextlib.suppress(BrokenPipeError):  # the answer will say that it crashed
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        head = self._read_line(deadline)
        if "error" in head:
            return Reply(np.empty((0, 1), np.float32), 0.0, head["error"])
        data = bytearray()
        while n_bytes := struct.unpack("<I", self._read(4, deadline))[0]:
            data += self._read(n_bytes, deadline)
        samples = np.frombuffer(data, np.float32).reshape(-1, head["channels"])
        return Reply(samples, head["sample_rate_hz"], self._read_line(deadline).get("error", ""))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _read(self, n_bytes: int, deadline: float) -> bytes:
        while len(self._buffer) < n_bytes:
            self._fill(deadline)
        data = bytes(memoryview(self._buffer)[:n_bytes])
        del self._buffer[:n_bytes]
        return data

    def _read_line(self, deadline: float) -> dict:
        while b"\n" not in self._buffer:
            self._fill(deadline)
        return json.loads(self._read(self._buffer.index(b"\n") + 1, deadline))

    def _fill(self, deadline: float) -> None:
        waiter = select.poll()
        waiter.register(self._process.stdout, select.POLLIN)
        if not waiter.poll(max(0, deadline - time.monotonic()) * 1000):
            raise DecoderTimeout("no answer in time")
        data = self._process.stdout.read(READ_BYTES)
        if not data:
            code = self._process.wait()
            raise (DecoderTimeout if code == -signal.SIGXCPU else DecoderCrashed)(f"exit code {code}")
        self._buffer += data


@contextlib.contextmanager
def borrow_decoder() -> Iterator[Decoder]:
    """Lend a decoder process to this thread; one that failed in any way is ended and not lent again."""
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


os.register_at_fork(after_in_child=_idle.clear)  # a forked process must not share its parent's pipes
