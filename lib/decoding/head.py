"""What a recording is: container, codec, rate, channels, and the length that it promises; and what is bearable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib.decoding.errors import EmptyAudio, TooLong, UnsupportedFormat

MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS = 4_000, 384_000, 16
WINDOW_SECONDS, MAX_VALUES = 10.0, 2**23  # decoded at a time; values for many channels at high rates


@dataclass(frozen=True)
class Head:
    """Facts of a recording; container and codec are for example "WAV" and "PCM_16".

    `n_frames` is the promised number of samples per channel, None where nothing is promised; `slack_seconds` is how far
    the promise may differ from what decodes, 0 where it counts samples.
    """

    container: str
    codec: str
    sample_rate_hz: int
    channels: int
    n_frames: int | None = None
    slack_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.container} {self.codec}, {self.sample_rate_hz} Hz, {self.channels} ch"

    @property
    def duration_seconds(self) -> float:
        """The promised length."""
        return (self.n_frames or 0) / self.sample_rate_hz

    @property
    def n_window(self) -> int:
        """Samples per channel of a block: 10 s."""
        return max(min(round(WINDOW_SECONDS * self.sample_rate_hz), MAX_VALUES // self.channels), 1)

    def check(self, path: Path, max_seconds: float, n_decoded: int = 0) -> None:
        """Raise UnsupportedFormat, EmptyAudio or TooLong, by what is promised and by the samples decoded so far."""
        if not (MIN_RATE_HZ <= self.sample_rate_hz <= MAX_RATE_HZ and 1 <= self.channels <= MAX_CHANNELS):
            limits = f"outside {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, 1 to {MAX_CHANNELS} ch"
            raise UnsupportedFormat(f"it is {self}, {limits}", path)
        if self.n_frames == 0:
            raise EmptyAudio("it holds no samples", path)
        if (seconds := max(self.n_frames or 0, n_decoded) / self.sample_rate_hz) > max_seconds:
            raise TooLong(f"it lasts {seconds:.1f} s or more, the maximum here is {max_seconds:g} s", path)
