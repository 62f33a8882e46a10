"""The one door for audio: files in, waveforms out, and back.

A *waveform* is float32 of shape ``(n_samples,)``, mono, finite, in [-1, 1], at 16 kHz unless a rate is given. Files
are read by `lib.decoding.decoding`, waveforms changed by `lib.waveforms`; what others need of both is found here.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from lib.config import SAMPLE_RATE_HZ
from lib.decoding import decoding
from lib.decoding.audio_errors import (
    AudioError,
    DamagedAudio,
    DecodeTimeout,
    EmptyAudio,
    InvalidWaveform,
    MissingAudio,
    NonFiniteAudio,
    NotAudio,
    TooLong,
    TooShort,
    TruncatedAudio,
    UnsupportedFormat,
)
from lib.decoding.decoding import AudioInfo
from lib.waveforms import (
    MIN_SECONDS,
    amplitude,
    bandwidth_hz,
    cancelled_by,
    check_waveform,
    equalise_level,
    remove_dc,
    resample,
    segment_bounds,
    to_mono,
    within_full_scale,
)

__all__ = [
    "AudioError",
    "AudioInfo",
    "DamagedAudio",
    "DecodeTimeout",
    "EmptyAudio",
    "InvalidWaveform",
    "MissingAudio",
    "NonFiniteAudio",
    "NotAudio",
    "QualityReport",
    "TooLong",
    "TooShort",
    "TruncatedAudio",
    "UnsupportedFormat",
    "bandwidth_hz",
    "check_waveform",
    "encode_flac",
    "equalise_level",
    "examine",
    "inspect",
    "load",
    "read_pcm16",
    "remove_dc",
    "resample",
    "segment_bounds",
    "sha256_of_samples",
    "to_mono",
    "write_pcm16",
]

MAX_SECONDS = 3600.0  # longest recording read unless asked otherwise
MAX_PEAK = 2.0**31  # integers written as floats reach this; more is damage
OUTLIER_SHARE, OUTLIER_DB = 0.001, 60.0  # floats over full scale: all but 0.1 % this far below the peak is damage
PCM16_SCALE = 32768
CLIPPED_RUN = 3  # samples in a row at the extreme value
CLIPPED_FROM = 0.1  # extremes below this amplitude are silence or faint noise, not clipping


@dataclass(frozen=True)
class QualityReport:
    """What a recording is like, measured on its samples at their own rate.

    Attributes
    ----------
    info : AudioInfo
        What it is.
    peak_db, rms_db : float
        Levels in dB relative to full scale; minus infinity for digital silence.
    dc_offset : float
        Mean of the mono mix; full scale is 1.
    clipped_fraction : float
        Share of samples in runs of 3 or more at the highest or lowest value.
    bandwidth_hz : float
        Frequency below which 99 % of the energy lies.
    cancels : bool
        The channels cancel, so that the loudest one stands for all.
    """

    info: AudioInfo
    peak_db: float
    rms_db: float
    dc_offset: float
    clipped_fraction: float
    bandwidth_hz: float
    cancels: bool

    @property
    def remarks(self) -> list[str]:
        """What somebody should know before trusting the recording, in plain words; often nothing."""
        found = {
            "digital silence": self.peak_db == -math.inf,
            "its channels cancel: the loudest one is used": self.cancels,
            f"{100 * self.clipped_fraction:.1f} % of its samples are clipped": self.clipped_fraction > 0.001,
            f"its DC offset is {self.dc_offset:+.2f}": abs(self.dc_offset) > 0.05,
            f"its peak is {self.peak_db:+.1f} dB over full scale": self.peak_db > 0.1,
        }
        return [remark for remark, applies in found.items() if applies]


def inspect(path: str | os.PathLike[str]) -> AudioInfo:
    """Read what a recording's header says, after the checks that need no decoding.

    Parameters
    ----------
    path : path-like
        Recording in any supported container.

    Returns
    -------
    AudioInfo
        Duration in seconds, rate in hertz, channels, container and codec.

    Raises
    ------
    AudioError
        One of its named subclasses.
    """
    return decoding.inspect(Path(path), max_seconds=MAX_SECONDS)


def load(
    path: str | os.PathLike[str], *, sample_rate_hz: int = SAMPLE_RATE_HZ, max_seconds: float = MAX_SECONDS
) -> np.ndarray:
    """Read a recording as a waveform.

    Parameters
    ----------
    path : path-like
        Recording in any supported container.
    sample_rate_hz : int
        Rate of the result in hertz.
    max_seconds : float
        Longest recording accepted.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        Mono, finite, in [-1, 1]. Content over full scale is turned down, never clipped.

    Raises
    ------
    AudioError
        One of its named subclasses: the recording is missing, not audio, unsupported, truncated, damaged, empty,
        too short, too long, not finite, or takes too long to decode.
    """
    samples, rate_hz = _load_samples(Path(path), max_seconds)
    return within_full_scale(resample(to_mono(samples), rate_hz, sample_rate_hz))


def _load_samples(path: Path, max_seconds: float) -> tuple[np.ndarray, float]:
    """Decode and hold the samples themselves to account: enough of them, finite, and of one scale."""
    decoded = decoding.decode(path, min_seconds=MIN_SECONDS, max_seconds=max_seconds)
    samples, rate_hz = decoded.samples, decoded.sample_rate_hz
    magnitudes = np.abs(samples)
    peak = magnitudes.max()
    if not np.isfinite(peak):
        raise NonFiniteAudio(f"{np.count_nonzero(~np.isfinite(samples))} samples are NaN or infinite", path)
    if peak > MAX_PEAK:
        raise DamagedAudio(f"its samples reach {peak:.3g}; full scale is 1", path)
    if peak > 1 and np.quantile(magnitudes, 1 - OUTLIER_SHARE) < peak * amplitude(-OUTLIER_DB):
        raise DamagedAudio(f"a few samples reach {peak:.3g}, far over full scale and over all others", path)
    return samples, rate_hz


def examine(path: str | os.PathLike[str], *, max_seconds: float = MAX_SECONDS) -> QualityReport:
    """Decode a recording and measure what `load` would hide: clipping, DC offset, cancelling channels, silence.

    Parameters
    ----------
    path : path-like
        Recording in any supported container.
    max_seconds : float
        Longest recording accepted.

    Returns
    -------
    QualityReport

    Raises
    ------
    AudioError
        As for `load`.
    """
    samples, rate_hz = _load_samples(Path(path), max_seconds)
    mono = to_mono(samples)
    return QualityReport(
        info=inspect(path),
        peak_db=_decibels(float(np.abs(samples).max())),
        rms_db=_decibels(math.sqrt(np.square(mono, dtype=np.float64).mean())),
        dc_offset=float(mono.mean(dtype=np.float64)),
        clipped_fraction=_clipped_fraction(samples),
        bandwidth_hz=bandwidth_hz(mono, rate_hz),
        cancels=cancelled_by(samples) is not None,
    )


def write_pcm16(path: str | os.PathLike[str], waveform: np.ndarray) -> None:
    """Write a 16 kHz waveform as mono PCM16 WAV; the file appears whole or not at all.

    Parameters
    ----------
    path : path-like
        Target; its folder is made where missing.
    waveform : ndarray of float32, shape (n_samples,)
        In [-1, 1].
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        try:
            soundfile.write(part, _pcm16(waveform), SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
            Path(part.name).chmod(0o644)  # the temporary file is readable by its owner alone
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def read_pcm16(path: str | os.PathLike[str]) -> np.ndarray:
    """Read back what `write_pcm16` wrote, exactly.

    Returns
    -------
    ndarray of float32, shape (n_samples,)

    Raises
    ------
    InvalidWaveform
        The file is sound audio but not 16 kHz mono PCM16.
    AudioError
        As for `load`.
    """
    info = inspect(path)
    if (info.container, info.codec, info.sample_rate_hz, info.channels) != ("WAV", "PCM_16", SAMPLE_RATE_HZ, 1):
        raise InvalidWaveform(f"expected 16 kHz mono PCM16 WAV, got {info.describe()}", path)
    return load(path)


def encode_flac(waveform: np.ndarray) -> bytes:
    """Return a 16 kHz waveform as the bytes of a mono 16-bit FLAC file.

    Parameters
    ----------
    waveform : ndarray of float32, shape (n_samples,)
        In [-1, 1].
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, _pcm16(waveform), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def sha256_of_samples(waveform: np.ndarray) -> str:
    """Return the SHA-256 (hexadecimal) of a waveform's little-endian PCM16 samples.

    It survives a round trip through `write_pcm16` or `encode_flac`, whatever the header holds.
    """
    return hashlib.sha256(_pcm16(waveform).astype("<i2").tobytes()).hexdigest()


def _pcm16(waveform: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(waveform * np.float32(PCM16_SCALE)), -PCM16_SCALE, PCM16_SCALE - 1).astype(np.int16)


def _decibels(magnitude: float) -> float:
    return 20 * math.log10(magnitude) if magnitude > 0 else -math.inf


def _clipped_fraction(samples: np.ndarray) -> float:
    extreme = ((samples == samples.max(axis=0)) | (samples == samples.min(axis=0))) & (np.abs(samples) > CLIPPED_FROM)
    starts = np.all([extreme[shift : len(extreme) - CLIPPED_RUN + 1 + shift] for shift in range(CLIPPED_RUN)], axis=0)
    in_run = np.zeros_like(extreme)
    for shift in range(CLIPPED_RUN):
        in_run[shift : len(extreme) - CLIPPED_RUN + 1 + shift] |= starts
    return float(in_run.mean())
