"""Decode a recording to float32 samples at its own rate, trusting neither the file nor the decoder.

What ordinary players play is accepted, with remarks where something is odd. Refused by a named error: what is no
regular file, what does not decode, of which less than half of a known length decodes, what is not finite, whose rate or
channel count makes no sense, or what is over the limits. Plain WAV is read in this process, where nothing in the file
can lead the code astray; everything else is decoded in a child process.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lib.decoding import errors
from lib.decoding.errors import DamagedAudio, EmptyAudio, MissingAudio, NonFiniteAudio
from lib.decoding.head import Head
from lib.decoding.process import messages
from lib.decoding.wav import read_wav

MAX_PEAK = 2.0**31  # integers written as floats reach this; more is damage
OUTLIER_PEAK = 16.0  # floats this far over full scale are judged by the next line
OUTLIER_SHARE, OUTLIER_DB = 0.001, 60.0  # all but 0.1 % this far below the peak: a few samples are damaged


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
        with contextlib.closing(self._source(head_only=False)) as source:
            for block in source:
                n_frames += len(block)
                self.head.check(self.path, self.max_seconds, n_frames)
                _check_values(block, self.path)
                yield block
        self._check_promise(n_frames)

    def inspect(self) -> Head:
        """Return the head, with the samples counted by decoding where none are promised."""
        for _ in self._source(head_only=True):
            pass
        if self.head.n_frames is None:
            self.head = replace(self.head, n_frames=sum(map(len, self.blocks())))
        return self.head

    def _source(self, *, head_only: bool) -> Generator[np.ndarray]:
        with _regular_file(self.path) as descriptor:
            if wav := read_wav(descriptor, self.path):
                self.head, self.remarks[:] = wav.head, wav.remarks
                self.head.check(self.path, self.max_seconds)
                yield from () if head_only else wav.blocks(descriptor)
            else:
                yield from self._decoded(head_only)

    def _decoded(self, head_only: bool) -> Generator[np.ndarray]:
        said: dict = {}
        try:
            with messages(self.path, head_only=head_only) as found:
                for data in found:
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


@contextlib.contextmanager
def _regular_file(path: Path) -> Iterator[int]:
    """Open a regular file; pipes, devices and folders are refused, and do not halt the opening."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise MissingAudio(f"it cannot be opened ({getattr(error, 'strerror', error)})", path) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise MissingAudio("it is a folder, pipe or device, no regular file", path)
        if status.st_size == 0:
            raise EmptyAudio("the file has 0 bytes", path)
        yield descriptor
    finally:
        os.close(descriptor)


def _check_values(block: np.ndarray, path: Path) -> None:
    """Hold samples to account: finite, and of one scale."""
    magnitudes = np.abs(block)
    peak = magnitudes.max(initial=0)
    if not np.isfinite(peak):
        raise NonFiniteAudio(f"{np.count_nonzero(~np.isfinite(block))} samples are NaN or infinite", path)
    is_outlier = peak > OUTLIER_PEAK and np.quantile(magnitudes, 1 - OUTLIER_SHARE) < peak * 10 ** (-OUTLIER_DB / 20)
    if peak > MAX_PEAK or is_outlier:
        raise DamagedAudio(f"a few samples or all reach {peak:.3g}, far over full scale, which is 1", path)
