"""The one door for audio: files in, waveforms out, and back.

A *waveform* is float32 of shape ``(n_samples,)``, mono, finite, in [-1, 1], at 16 kHz unless a rate is given. Files
are decoded by `lib.decoding`, whose errors are found here, and waveforms changed by `lib.waveforms`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from lib.config import SAMPLE_RATE_HZ, write_whole
from lib.decoding.decode import Decoding
from lib.decoding.errors import *  # noqa: F403 - each of them is audio's, too
from lib.decoding.errors import Head, InvalidWaveform, MissingAudio, TooShort, printable
from lib.waveforms import MIN_SECONDS, check_waveform, equalise_level, resample, to_mono, within_full_scale  # noqa: F401

AUDIO_SUFFIXES = {
    ".3g2", ".3ga", ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au", ".avi", ".awb",
    ".caf", ".eac3", ".flac", ".flv", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpc",
    ".mpeg", ".mpg", ".mts", ".oga", ".ogg", ".ogv", ".opus", ".qt", ".rf64", ".snd", ".spx", ".ts", ".tta", ".w64",
    ".wav", ".wave", ".weba", ".webm", ".wma", ".wmv", ".wv",
}  # fmt: skip
MAX_SECONDS = 4 * 3600.0  # longest recording that `load` and `read` hold in memory unless asked otherwise: 0.9 GB
MAX_STREAM_SECONDS = 366 * 86_400.0
PCM16_SCALE = 32768


@dataclass(frozen=True)
class Recording:
    """A recording in memory: its waveform, and in plain words what somebody should know before trusting it."""

    waveform: np.ndarray
    remarks: list[str]


@dataclass(eq=False)
class Stream(Decoding):
    """The waveform of a recording of any length in blocks of about 10 s: iterate over it, once or more.

    Together the blocks are what `load` returns, but for content over full scale: that is turned down from where it
    occurs on. Errors are those of `load`; some are known only at the end, as are `remarks`: what somebody should know
    before trusting the recording, in plain words.
    """

    sample_rate_hz: int = SAMPLE_RATE_HZ

    def __iter__(self) -> Iterator[np.ndarray]:
        peak = np.float32(1)
        for block in self.unscaled():
            peak = max(peak, np.abs(block).max())
            yield block / peak if peak > 1 else block

    def unscaled(self) -> Iterator[np.ndarray]:
        """Yield the blocks with whatever is over full scale."""
        return filter(len, self._resampled())

    def _resampled(self) -> Iterator[np.ndarray]:
        n_samples, resampler, ready = 0, None, np.empty(0, np.float32)
        for block in self.blocks():
            rate_hz, to_hz = self.head.sample_rate_hz, self.sample_rate_hz
            resampler = resampler or soxr.ResampleStream(rate_hz, to_hz, 1, dtype="float32", quality="HQ")
            n_samples += len(block)
            yield ready
            ready = resampler.resample_chunk(to_mono(block, rate_hz))
        if resampler is None or n_samples < MIN_SECONDS * rate_hz:
            raise TooShort(f"it lasts {n_samples / rate_hz:.3f} s, the minimum is {MIN_SECONDS} s", self.path)
        rest = resampler.resample_chunk(np.empty(0, np.float32), last=True)  # some ms: no block of its own
        yield np.concatenate([ready, rest])


def stream(path: str | os.PathLike[str]) -> Stream:
    """Return a recording of any length as blocks at 16 kHz, in bounded memory.

    Returns
    -------
    Stream
        Iterate over it for blocks, ndarray of float32, shape (n_samples,), mono, finite, in [-1, 1].

    Examples
    --------
    >>> blocks = stream("night.m4a")
    >>> sum(len(block) for block in blocks) / 16_000, blocks.remarks  # doctest: +SKIP
    (36000.0, [])
    """
    return Stream(Path(path), MAX_STREAM_SECONDS)


def read(
    path: str | os.PathLike[str], *, sample_rate_hz: int = SAMPLE_RATE_HZ, max_seconds: float = MAX_SECONDS
) -> Recording:
    """Read a recording as a waveform with remarks; parameters and errors are those of `load`.

    Returns
    -------
    Recording
    """
    source = Stream(Path(path), max_seconds, sample_rate_hz=sample_rate_hz)
    waveform = within_full_scale(np.concatenate(list(source.unscaled())))
    return Recording(waveform, source.remarks)


def load(
    path: str | os.PathLike[str], *, sample_rate_hz: int = SAMPLE_RATE_HZ, max_seconds: float = MAX_SECONDS
) -> np.ndarray:
    """Read a recording in any container that FFmpeg reads as a waveform (n_samples,): mono, finite, in [-1, 1].

    Content over full scale is turned down, never clipped. `max_seconds` is the longest accepted; `stream` reads any.

    Raises
    ------
    AudioError
        One of its named subclasses: the recording is missing, not audio, unsupported, damaged, empty, less than half
        there, too short, too long, not finite, or takes too long to decode.
    """
    return read(path, sample_rate_hz=sample_rate_hz, max_seconds=max_seconds).waveform


def inspect(path: str | os.PathLike[str]) -> Head:
    """Return what a recording's header says; where it promises no length, decode to count. Errors as for `load`."""
    return Decoding(Path(path), MAX_STREAM_SECONDS).inspect()


def expand(paths: Iterable[str | os.PathLike[str]]) -> tuple[list[Path], list[str]]:
    """Find the recordings that paths of files and folders mean.

    Files are taken as they are, whatever their names; of folders, all files below with a suffix of sound or film, but
    for what is hidden.

    Returns
    -------
    (list of Path, list of str)
        The files in order, those of a folder sorted; and for each other file of the folders, a folder that cannot be
        read, is a link or has no recordings, a line with its path and why.

    Raises
    ------
    MissingAudio
        If a path is empty: it would mean the current folder.
    """
    files: list[Path] = []
    skipped: list[str] = []
    for path in paths:
        if not os.fspath(path):
            raise MissingAudio("the path is empty")
        inside = sorted(_inside(path)) if os.path.isdir(path) else [(Path(path), "")]  # noqa: PTH112 - never raises
        chosen = [each for each, why in inside if not why]
        files += chosen
        skipped += [f"{printable(each)}: {why}" for each, why in inside if why]
        if not chosen:
            skipped.append(f"{printable(path)}: no sound files found in it")
    return files, skipped


def _inside(folder: str | os.PathLike[str]) -> Iterator[tuple[Path, str]]:
    """Yield what is below a folder and not hidden, and why it is skipped, "" for a recording."""
    failed: list[OSError] = []
    for place, folders, names in os.walk(folder, onerror=failed.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from ((path, "a link to a folder") for name in folders if (path := Path(place, name)).is_symlink())
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            yield path, "" if path.suffix.lower() in AUDIO_SUFFIXES else "not the name of a sound file"
    yield from ((Path(error.filename), f"it cannot be read ({error.strerror})") for error in failed)


def write_pcm16(path: str | os.PathLike[str], waveform: np.ndarray) -> None:
    """Write a 16 kHz waveform as mono PCM16 WAV; the file appears whole or not at all.

    Parameters
    ----------
    path : path-like
        Target; its folder is made where missing.
    waveform : ndarray of float32, shape (n_samples,)
        In [-1, 1].
    """
    write_whole(Path(path), _encoded(waveform, "WAV"))


def read_pcm16(path: str | os.PathLike[str]) -> np.ndarray:
    """Read back what `write_pcm16` wrote, exactly: (n_samples,); InvalidWaveform for any other kind of file."""
    info = inspect(path)
    if (info.container, info.codec, info.sample_rate_hz, info.channels) != ("WAV", "PCM_16", SAMPLE_RATE_HZ, 1):
        raise InvalidWaveform(f"expected 16 kHz mono PCM16 WAV, got {info}", path)
    return load(path)


def encode_flac(waveform: np.ndarray) -> bytes:
    """Return a 16 kHz waveform, float32 (n_samples,) in [-1, 1], as the bytes of a mono 16-bit FLAC file."""
    return _encoded(waveform, "FLAC")


def _encoded(waveform: np.ndarray, container: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, _pcm16(waveform), SAMPLE_RATE_HZ, format=container, subtype="PCM_16")
    return buffer.getvalue()


def sha256_of_samples(waveform: np.ndarray) -> str:
    """Return the SHA-256 (hexadecimal) of a waveform's little-endian PCM16 samples.

    It survives a round trip through `write_pcm16` or `encode_flac`, whatever the header holds.
    """
    return hashlib.sha256(_pcm16(waveform).astype("<i2").tobytes()).hexdigest()


def _pcm16(waveform: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(waveform * np.float32(PCM16_SCALE)), -PCM16_SCALE, PCM16_SCALE - 1).astype(np.int16)
