"""What a recording is: container, codec, rate, channels, the length that it promises; and which of them are bearable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.decoding.errors import EmptyAudio, TooLong, UnsupportedFormat

MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 384_000
MAX_CHANNELS = 16


@dataclass(frozen=True)
class Head:
    """Facts of a recording.

    `n_frames` is the promised number of samples per channel, None where nothing is promised; `is_exact` says that the
    promise counts samples, not the frames of a codec.
    """

    container: str
    codec: str
    sample_rate_hz: int
    channels: int
    n_frames: int | None = None
    is_exact: bool = False

    def describe(self) -> str:
        """Return one line for messages."""
        return f"{self.container} {self.codec}, {self.sample_rate_hz} Hz, {self.channels} ch"

    def check(self, path: Path, *, max_seconds: float) -> None:
        """Hold it to the limits before anything is allocated.

        Raises
        ------
        UnsupportedFormat, EmptyAudio, TooLong
        """
        if not MIN_RATE_HZ <= self.sample_rate_hz <= MAX_RATE_HZ:
            limits = f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
            raise UnsupportedFormat(f"its rate is {self.sample_rate_hz} Hz, outside {limits}", path)
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise UnsupportedFormat(f"it has {self.channels} channels, outside 1 to {MAX_CHANNELS}", path)
        if self.n_frames is None:
            return
        if self.n_frames <= 0 and self.is_exact and self.container == "WAV":
            raise EmptyAudio("it holds no samples", path)
        check_length(self.n_frames / self.sample_rate_hz, path, max_seconds=max_seconds)


def check_length(seconds: float, path: Path, *, max_seconds: float) -> None:
    """Raise TooLong above the limit."""
    if seconds > max_seconds:
        raise TooLong(f"it lasts {seconds:.1f} s or more, the maximum here is {max_seconds:g} s", path)
