"""Decode a recording to float32 samples at its own rate, trusting neither the file nor the decoder.

Order of the checks: a regular file of bearable size; a known container; a header within the allow-list; decoding in
bounded time and memory; the length that was promised. Plain samples are converted in this process, where nothing in the
file can lead the code astray; everything compressed is decoded in a child process.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from lib.decoding import ffmpeg
from lib.decoding.audio_errors import (
    DamagedAudio,
    DecodeTimeout,
    EmptyAudio,
    MissingAudio,
    TooLong,
    TooShort,
    TruncatedAudio,
    UnsupportedFormat,
)
from lib.decoding.containers import SAMPLE_BYTES, Header, Source
from lib.decoding.decoding_pool import DecoderCrashed, DecoderTimeout, Reply, borrow_decoder
from lib.decoding.sniffing import read_header

MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 384_000
MAX_CHANNELS = 16
MAX_FILE_BYTES = 2**30
MAX_VALUES = 2**29  # samples times channels: 2 GiB of float32, an hour of stereo at 48 kHz
CPU_SECONDS = 2.0  # what any decoder may use, and above that
CPU_SECONDS_PER_SECOND = 0.05  # this much for each second of sound; libsndfile and ffmpeg need about 0.005
WALL_SECONDS = 20.0  # and this much by the clock, for a busy machine
DEMUXERS = {"CAF": "caf", "AMR": "amr", "MP4": "mov", "MATROSKA": "matroska", "MP3": "mp3", "FLAC": "flac"}


@dataclass(frozen=True)
class AudioInfo:
    """What a recording is, as its header says.

    Attributes
    ----------
    duration_seconds : float
    sample_rate_hz, channels : int
    container, codec : str
        For example "WAV" and "PCM_16".
    """

    duration_seconds: float
    sample_rate_hz: int
    channels: int
    container: str
    codec: str

    def describe(self) -> str:
        """Return one line for messages."""
        return f"{self.container} {self.codec}, {self.sample_rate_hz} Hz, {self.channels} ch"


@dataclass(frozen=True)
class Decoded:
    """Samples as float32 (n_samples, n_channels), not yet known to be finite, and their rate in hertz."""

    samples: np.ndarray
    sample_rate_hz: float


def inspect(path: Path, *, max_seconds: float) -> AudioInfo:
    """Return what the header says; decode where it promises no length."""
    with _open(path) as source:
        header = read_header(source)
        _check_header(source, header, max_seconds)
        n_frames, rate_hz = header.n_frames, header.sample_rate_hz
        if n_frames is None:
            decoded = _decode(source, header, max_seconds)
            n_frames, rate_hz = len(decoded.samples), decoded.sample_rate_hz
    return AudioInfo(n_frames / rate_hz, round(rate_hz), header.channels, header.container, header.codec)


def decode(path: Path, *, min_seconds: float, max_seconds: float) -> Decoded:
    """Return all samples of a recording, or raise a named error."""
    with _open(path) as source:
        header = read_header(source)
        _check_header(source, header, max_seconds)
        _check_minimum(source, header.n_frames, header.sample_rate_hz, min_seconds)
        decoded = _decode(source, header, max_seconds)
        _check_minimum(source, len(decoded.samples), decoded.sample_rate_hz, min_seconds)
        return decoded


def _check_minimum(source: Source, n_frames: int | None, rate_hz: float, min_seconds: float) -> None:
    if n_frames is not None and n_frames < min_seconds * rate_hz:
        raise TooShort(f"it lasts {n_frames / rate_hz:.3f} s, the minimum is {min_seconds} s", source.path)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Source]:
    """Open a regular file; pipes, devices and folders are refused before opening, and checked again after."""
    if "\0" in str(path):
        raise MissingAudio("its name holds a null byte", path)
    descriptor = None
    try:
        _check_regular(path, path.stat())
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        _check_regular(path, os.fstat(descriptor))
        yield Source(descriptor, path)
    except FileNotFoundError as error:
        raise MissingAudio("there is no such file", path) from error
    except OSError as error:
        raise MissingAudio(f"it cannot be read ({error.strerror or error})", path) from error
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
        raise MissingAudio(f"it is a {kinds.get(stat.S_IFMT(status.st_mode), 'device')}, no regular file", path)
    if status.st_size == 0:
        raise EmptyAudio("the file has 0 bytes", path)
    if status.st_size > MAX_FILE_BYTES:
        raise TooLong(f"the file has {status.st_size} bytes, the maximum is {MAX_FILE_BYTES}", path)


def _check_header(source: Source, header: Header, max_seconds: float) -> None:
    """Hold a header to the allow-list before anything is allocated or decoded."""
    if not MIN_RATE_HZ <= header.sample_rate_hz <= MAX_RATE_HZ:
        raise UnsupportedFormat(
            f"its rate is {header.sample_rate_hz:g} Hz, outside {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz", source.path
        )
    if not 1 <= header.channels <= MAX_CHANNELS:
        raise UnsupportedFormat(f"it has {header.channels} channels, outside 1 to {MAX_CHANNELS}", source.path)
    if header.n_frames is None:
        return
    if header.n_frames <= 0:
        raise EmptyAudio("it holds no samples", source.path)
    if header.n_frames > max_seconds * header.sample_rate_hz:
        seconds = header.n_frames / header.sample_rate_hz
        raise TooLong(f"it lasts {seconds:.1f} s, the maximum is {max_seconds:g} s", source.path)
    if header.n_frames * header.channels > MAX_VALUES:
        raise TooLong(f"it holds {header.n_frames * header.channels} values, the maximum is {MAX_VALUES}", source.path)


def _decode(source: Source, header: Header, max_seconds: float) -> Decoded:
    decoders = {"raw": _decode_raw, "sndfile": _decode_sndfile, "ffmpeg": _decode_ffmpeg}
    decoded = decoders[header.decoder](source, header, max_seconds)
    _check_header(source, _as_decoded(header, decoded), max_seconds)
    _check_length(source, header, decoded)
    if header.md5:
        _check_md5(source, header, decoded)
    return decoded


def _as_decoded(header: Header, decoded: Decoded) -> Header:
    n_frames, channels = decoded.samples.shape
    return Header(header.container, header.codec, decoded.sample_rate_hz, channels, n_frames, header.decoder)


def _decode_raw(source: Source, header: Header, _max_seconds: float) -> Decoded:
    n_bytes = header.n_frames * header.channels * SAMPLE_BYTES.get(header.codec, 1)
    data = io.BytesIO(source.take(header.data_offset, n_bytes))
    layout = {"format": "RAW", "subtype": header.codec, "endian": header.endian}
    samples, _ = soundfile.read(
        data, dtype="float32", always_2d=True, samplerate=48_000, channels=header.channels, **layout
    )
    return Decoded(samples, header.sample_rate_hz)


def _cpu_seconds(header: Header) -> float:
    return CPU_SECONDS + CPU_SECONDS_PER_SECOND * (header.n_frames or 0) / header.sample_rate_hz


def _max_frames(header: Header, max_seconds: float) -> int:
    """Return how many frames to decode at most: one over the promise, so that a lie shows.

    Where the MD5 of all samples is known it shows a lie too, and reading on would stumble over tags behind the samples.
    """
    most = int(min(max_seconds * header.sample_rate_hz, MAX_VALUES // header.channels)) + 1
    if header.n_frames is None:
        return most
    return min(most, header.n_frames if header.md5 else header.n_frames + header.slack_frames + 1)


def _decode_sndfile(source: Source, header: Header, max_seconds: float) -> Decoded:
    try:
        reply = _ask_decoder(source, header, max_seconds)
    except DecoderCrashed:  # perhaps while it was idle, for want of memory: once more, with a fresh process
        try:
            reply = _ask_decoder(source, header, max_seconds)
        except DecoderCrashed as error:
            raise DamagedAudio(f"libsndfile crashes on it ({error})", source.path) from error
    if reply.error:
        found = f"beyond {len(reply.samples) / reply.sample_rate_hz:.2f} s " if len(reply.samples) else ""
        raise DamagedAudio(f"libsndfile cannot decode it {found}({reply.error.strip().rstrip('.')})", source.path)
    return Decoded(reply.samples, reply.sample_rate_hz)


def _ask_decoder(source: Source, header: Header, max_seconds: float) -> Reply:
    seconds = _cpu_seconds(header)
    max_frames, wall_seconds = _max_frames(header, max_seconds), WALL_SECONDS + 10 * seconds
    try:
        with borrow_decoder() as decoder:
            return decoder.decode(source.path, max_frames=max_frames, cpu_seconds=seconds, wall_seconds=wall_seconds)
    except DecoderTimeout as error:
        raise DecodeTimeout(
            f"libsndfile has not finished it in {seconds:.1f} s of computing, {wall_seconds:.0f} s by the clock",
            source.path,
        ) from error


def _decode_ffmpeg(source: Source, header: Header, max_seconds: float) -> Decoded:
    seconds = _cpu_seconds(header)
    samples, rate_hz = ffmpeg.decode(
        source.path,
        DEMUXERS[header.container],
        max_seconds=_max_frames(header, max_seconds) / header.sample_rate_hz + 1,
        max_bytes=4 * MAX_VALUES,
        cpu_seconds=seconds,
        wall_seconds=WALL_SECONDS + 10 * seconds,
    )
    return Decoded(samples, rate_hz)


def _check_length(source: Source, header: Header, decoded: Decoded) -> None:
    """Compare in seconds, because some codecs decode at twice the rate of their header."""
    if header.n_frames is None:
        return
    promised = header.n_frames / header.sample_rate_hz
    found = len(decoded.samples) / decoded.sample_rate_hz
    slack = (header.slack_frames + 0.5) / header.sample_rate_hz
    if found < promised - slack:
        raise TruncatedAudio(f"it promises {promised:.3f} s and decodes to {found:.3f} s", source.path)
    if found > promised + slack:
        raise DamagedAudio(f"it promises {promised:.3f} s and decodes to {found:.3f} s or more", source.path)


def _check_md5(source: Source, header: Header, decoded: Decoded) -> None:
    """Compare with the MD5 that FLAC keeps of its samples as little-endian integers of whole bytes (RFC 9639, 8.2)."""
    integers = np.rint(decoded.samples * 2.0 ** (header.bits - 1)).astype("<i4")  # float32 holds 24 bits exactly
    n_bytes = (header.bits + 7) // 8
    if hashlib.md5(integers.view(np.uint8).reshape(-1, 4)[:, :n_bytes].tobytes()).digest() != header.md5:
        raise DamagedAudio("its samples do not match the checksum in its header", source.path)
