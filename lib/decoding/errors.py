"""What a recording is, and named errors for what cannot be used: what is wrong, where, and what to do next."""

# ruff: noqa: N818 - "except DamagedAudio" reads better than "except DamagedAudioError"
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS = 4_000, 384_000, 16
WINDOW_SECONDS, MAX_VALUES = 10.0, 2**23  # decoded at a time; values for many channels at high rates


def printable(where: object) -> str:
    """Return `where` as text that is safe to print on one line (odd file names are escaped)."""
    text = str(where)
    return text if text.isprintable() else ascii(text)


class AudioError(ValueError):
    """Audio that must not reach a model: `what` is wrong, with the figures that show it, and `where`."""

    next_step = "Leave this recording out, or replace it."

    def __init_subclass__(cls, next_step: str) -> None:
        cls.next_step = next_step

    def __init__(self, what: str, where: object = "") -> None:
        super().__init__(what, printable(where) if where else "")
        self.what, self.where = self.args

    def __str__(self) -> str:
        prefix = f"{self.where}: " if self.where else ""
        return f"{prefix}{self.what.rstrip('.')}. {self.next_step}"


class MissingAudio(AudioError, next_step="Check the path and its permissions."):
    """There is no regular file to read at this path, or it may not be read."""


class NotAudio(AudioError, next_step="Give a recording or a film with sound."):
    """The bytes are no recording that FFmpeg knows."""


class UnsupportedFormat(AudioError, next_step="Export it again as WAV, FLAC or M4A."):
    """No sound track with a known codec, or a rate or channel count that makes no sense."""


class DamagedAudio(AudioError, next_step="Fetch or export the recording again."):
    """Nothing of it, less than half of the length that is known, or nothing within the time allowed, decodes."""


class EmptyAudio(AudioError, next_step="Check the device or the program that recorded it."):
    """A valid file without a single sample."""


class NonFiniteAudio(AudioError, next_step="Export it again as integer PCM."):
    """Samples that are NaN or infinite."""


class TooLong(AudioError, next_step="Read it in blocks with lib.audio.stream, or cut it."):
    """More audio than the stated maximum for one piece."""


class TooShort(AudioError, next_step="Give a longer recording."):
    """Less audio than any model here can judge."""


class InvalidWaveform(AudioError, next_step="Use lib.audio.load, or to_mono and resample, to make it."):
    """An array that is not float32 of shape (n_samples,) in [-1, 1] at the expected rate."""


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

    def check(self, path: Path, max_seconds: float = float("inf"), n_decoded: int = 0) -> None:
        """Raise UnsupportedFormat or TooLong, by what is promised and by the samples decoded so far."""
        if not (MIN_RATE_HZ <= self.sample_rate_hz <= MAX_RATE_HZ and 1 <= self.channels <= MAX_CHANNELS):
            limits = f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, 1 to {MAX_CHANNELS} ch"
            raise UnsupportedFormat(f"it is {self}, outside {limits}", path)
        if (seconds := max(self.n_frames or 0, n_decoded) / self.sample_rate_hz) > max_seconds:
            raise TooLong(f"it lasts {seconds:.1f} s or more, the maximum here is {max_seconds:g} s", path)
