"""Decode a recording to float32 samples at its own rate, trusting neither the file nor the decoder.

What ordinary players play is accepted, with remarks where something is odd. Refused by a named error: what is no
regular file, what does not decode, of which less than half of a known length decodes, what is not finite, whose rate or
channel count makes no sense, or what is over the limits. Plain WAV is read in this process, where nothing in the file
can lead the code astray; everything else is decoded in child processes, of which a few wait for work.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Pipe
from pathlib import Path

import numpy as np

from lib.config import PROJECT_DIR
from lib.decoding import errors
from lib.decoding.errors import DamagedAudio, EmptyAudio, Head, MissingAudio, NonFiniteAudio
from lib.decoding.wav import read_wav

MAX_PEAK = 2.0**31  # integers written as floats reach this; more is damage
OUTLIER_PEAK = 16.0  # floats this far over full scale are judged by the next line
OUTLIER_SHARE, OUTLIER_DB = 0.001, 60.0  # all but 0.1 % this far below the peak: a few samples are damaged
START_SECONDS = 60.0  # to import numpy and av on a busy machine
WALL_SECONDS = 30.0  # between two messages, by the clock of a busy machine: FFmpeg needs less than 0.1 s
MAX_IDLE = 2

_idle: list[Decoder] = []
os.register_at_fork(after_in_child=_idle.clear)  # a forked process must not share its parent's sockets


@dataclass(eq=False)
class Decoding:
    """A recording of at most `max_seconds`.

    `head` is known from the first block on; `remarks`, what somebody should know before trusting it, after the last.
    """

    path: Path
    max_seconds: float
    head: Head = field(init=False)
    remarks: list[str] = field(init=False, default_factory=list)
    _n_filled: int = field(init=False, default=0)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the samples, float32 (n_samples, n_channels), finite; raise a named error as soon as it is known."""
        n_frames = 0
        for block in self._source():
            n_frames += len(block)
            self.head.check(self.path, self.max_seconds, n_frames)
            _check_values(block, self.path)
            yield block
        self._check_promise(n_frames)

    def inspect(self) -> Head:
        """Return the head, with the samples counted by decoding where none are promised."""
        next(self._source(head_only=True), None)  # without blocks
        if not self.head.n_frames:
            self.head = replace(self.head, n_frames=sum(map(len, self.blocks())))
        return self.head

    def _source(self, *, head_only: bool = False) -> Iterator[np.ndarray]:
        """Open a regular file; pipes, devices and folders are refused, and do not halt the opening."""
        try:
            file = open(self.path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise MissingAudio(f"it cannot be opened ({getattr(error, 'strerror', error)})", self.path) from error
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise MissingAudio("it is a pipe or device, no regular file", self.path)
            if not os.pread(file.fileno(), 1, 0):
                raise EmptyAudio("the file has 0 bytes", self.path)
            if wav := read_wav(file.fileno(), self.path):
                self.head, self.remarks[:] = wav.head, wav.remarks
                yield from () if head_only else wav.blocks(file.fileno())
            else:
                yield from self._decoded(head_only)

    def _decoded(self, head_only: bool) -> Iterator[np.ndarray]:
        try:
            for data in messages(self.path, head_only=head_only):
                if data.startswith(b"data"):
                    yield np.frombuffer(data, np.float32, offset=4).reshape(-1, self.head.channels)
                elif "head" in (said := json.loads(data)):
                    self.head = Head(**said["head"])
                    self.head.check(self.path, self.max_seconds)
        except (TimeoutError, EOFError) as error:
            raise DamagedAudio(f"its decoder {error}", self.path) from error
        if "error" in said:
            raise getattr(errors, said["error"])(said["what"], self.path)
        self.remarks[:], self._n_filled = said["remarks"], said["n_filled"]

    def _check_promise(self, n_frames: int) -> None:
        if not n_frames:
            raise EmptyAudio("it holds no samples", self.path)
        if self.head.n_frames is None:
            return
        n_promised, n_decoded, rate_hz = self.head.n_frames, n_frames - self._n_filled, self.head.sample_rate_hz
        says = f"it promises {n_promised / rate_hz:.4f} s and {n_decoded / rate_hz:.4f} s decode"
        if n_decoded < n_promised / 2:
            raise DamagedAudio(says, self.path)
        n_slack = self.head.slack_seconds * rate_hz
        if n_frames < n_promised - n_slack or (n_frames > n_promised and not n_slack):
            self.remarks.append(says)


def _check_values(block: np.ndarray, path: Path) -> None:
    """Hold samples to account: finite, and of one scale."""
    magnitudes = np.abs(block)
    peak = magnitudes.max(initial=0)
    if not np.isfinite(peak):
        raise NonFiniteAudio(f"{np.count_nonzero(~np.isfinite(block))} samples are NaN or infinite", path)
    is_outlier = peak > OUTLIER_PEAK and np.quantile(magnitudes, 1 - OUTLIER_SHARE) < peak * 10 ** (-OUTLIER_DB / 20)
    if peak > MAX_PEAK or is_outlier:
        raise DamagedAudio(f"a few samples or all reach {peak:.3g}, far over full scale, which is 1", path)


class Decoder:
    """A child process, so that a crash, hang or memory bomb ends there. TimeoutError or EOFError mean that it is ended.

    One JSON request goes in per file. Out come a JSON message with the head, one for each block of float32 samples, a
    JSON message with the remarks or the refusal, and an empty one; "." in between says that all is well.
    `multiprocessing` does not start the child: it would run the caller's own script in it again.
    """

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
            self.receive(START_SECONDS)
        except (TimeoutError, EOFError) as error:
            raise RuntimeError(f"The decoder process does not start, it {error}: is av there?") from error

    def ask(self, path: Path, *, head_only: bool) -> bytes:
        """Have a recording decoded: wait for the first message, and return it."""
        with contextlib.suppress(BrokenPipeError):  # the answer will say that it crashed
            self._connection.send_bytes(json.dumps([os.fspath(path.absolute()), head_only]).encode())
        return self.receive(WALL_SECONDS)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self._connection.close()
        self.process.wait()

    def receive(self, seconds: float) -> bytes:
        """Return the next message; `seconds` is the longest wait."""
        try:
            while self._connection.poll(seconds):
                if (data := self._connection.recv_bytes()) != b".":
                    return data
        except (EOFError, ConnectionError) as error:
            raise EOFError(f"crashes on it (exit code {self.process.wait()})") from error
        self.close()
        raise TimeoutError(f"has not finished it in the time allowed (no answer for {seconds:.0f} s)")


def messages(path: Path, *, head_only: bool) -> Iterator[bytes]:
    """Have a recording decoded by an idle process or a new one; one that fails or is left half-way is ended."""
    try:
        decoder = _idle.pop()  # list.pop and append are atomic: no lock needed
        first = decoder.ask(path, head_only=head_only)
    except (IndexError, EOFError):  # none is idle, or it died there, perhaps for want of memory
        decoder = Decoder()
        first = decoder.ask(path, head_only=head_only)
    with contextlib.ExitStack() as stack:
        stack.callback(decoder.close)
        yield first
        yield from iter(lambda: decoder.receive(WALL_SECONDS), b"")
        if len(_idle) < MAX_IDLE:
            stack.pop_all()
            _idle.append(decoder)
