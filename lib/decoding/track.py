"""Decode the sound track of a file with PyAV, as players do, an OGG without a fault with libsndfile; in the child."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import soundfile

from lib.decoding.errors import AudioError, DamagedAudio, EmptyAudio, NotAudio, UnsupportedFormat
from lib.decoding.head import Head

FORMATS = (  # never playlists or others that open further files
    "wav,w64,aiff,caf,au,flac,ogg,mp3,aac,loas,mov,matroska,amr,asf,avi,mpegts,mpeg,flv,wv,tta,ape,ac3,eac3,mpc,mpc8"
)
ESTIMATE = "Estimating duration from bitrate"  # FFmpeg's warning where a file states no length
UNSTATED = {"mpegts", "mpeg"}  # FFmpeg estimates their lengths, without a warning
OWN_CLOCK = {"mpegts", "mpeg", "asf", "flv"}  # their time stamps begin anywhere
NO_CLOCK = {"wav", "w64", "aiff", "caf", "au"}  # their time stamps are their positions
EXACT_CODECS = ("pcm_", "flac", "wavpack", "tta")  # headers count their samples
SLACK_SECONDS = 0.01  # how far other lengths may be from what decodes
COARSE = {"matroska,webm": 0.1, "asf": 0.1, "caf": 0.1}  # whose lengths take in the delay of the encoder
W64_DATA = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")  # its size, 8 bytes, takes in this name and itself
SNDFILE_SECONDS = 600.0  # longest OGG for libsndfile: it fails on some nights, and takes a pass more
BLOCK_FRAMES = 65_536
ALIVE_PACKETS = 500
GAP_SECONDS = 0.1  # time stamps that run ahead by less are rounding
MAX_GAP_SECONDS = 600.0  # longest gap that is filled where no length is promised
LATE_SECONDS = 0.5  # encoders delay by less
MAX_FAILED = 5_000  # packets that do not decode before one does: the file is given up
SENSELESS_SECONDS = 1e9
SOUND = 1e-4  # amplitude from which a track is not silent
KNOWN = (b"RIFF", b"RF64", b"FORM", b"caff", b"OggS", b"\x1a\x45\xdf\xa3", b"fLaC", b"#!AMR", b".snd", b"riff")
HINTS = {b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`", b"<": "a web page, or XML of a download"}


def choose(path: Path, logs: list, alive: Callable[[], None]) -> Track:
    """Return the first sound track with sound; the first one where all are silent.

    `logs` is where `av.logging.Capture` puts FFmpeg's complaints; `alive` is called now and then while all is well.
    """
    n_tracks = len(_container(path).streams.audio)
    tracks = (Track(path, index, logs, alive) for index in range(n_tracks))
    index = next((index for index, track in enumerate(tracks) if n_tracks > 1 and track.has_sound()), 0)
    chosen = Track(path, index, logs, alive)
    if n_tracks > 1:
        chosen.remarks.append(f"it has {n_tracks} sound tracks: number {index + 1}, the first with sound, is read")
    return chosen


class Track:
    """One sound track of a file, for one pass: `open`, then `blocks`."""

    def __init__(self, path: Path, index: int, logs: list, alive: Callable[[], None]) -> None:
        self.path, self._index, self._logs, self._alive = path, index, logs, alive
        self.remarks: list[str] = []
        self.n_filled = 0  # samples of silence that stand for gaps
        self._complaints: list[str] = []
        self._n_packets = self._n_failed = self._n_complaints = self._n_jumps_back = 0
        self._gaps: list[tuple[float, float]] = []  # (start, length) in seconds
        self._converters: dict[tuple, av.AudioResampler] = {}
        self._sound: soundfile.SoundFile | None = None

    def open(self) -> Head:
        """Decode the first frame, which alone tells the true rate."""
        self._logs.clear()
        container = _container(self.path)
        self._format, stream = container.format.name, container.streams.audio[self._index]
        if stream.codec_context is None:
            raise UnsupportedFormat("the codec of its sound track is not known", self.path)
        self._start = (container.start_time or 0) / 1e6 if self._format in OWN_CLOCK else 0.0
        self._promise = self._promised_seconds(container, stream)
        self._frames = self._decoded(container, stream)
        if (frame := next(self._frames, None)) is None:
            if self._n_failed:
                raise DamagedAudio(f"nothing of it decodes ({self._complaints[0]})", self.path)
            raise EmptyAudio("it holds no samples", self.path)
        self._frame, self.rate_hz, self.channels = frame, frame.sample_rate, frame.layout.nb_channels
        is_short = self._format == "ogg" and (self._promise or 0) <= SNDFILE_SECONDS
        if is_short and (sound := self._clean_ogg()):
            self._sound, self.rate_hz, self.channels = sound, sound.samplerate, sound.channels
            self._promise = sound.frames / self.rate_hz
        codec = stream.codec_context.codec.canonical_name
        name = {"mov": "MP4"}.get(kind := self._format.split(",")[0], kind.upper())
        slack = 0.0 if codec.startswith(EXACT_CODECS) else COARSE.get(self._format, SLACK_SECONDS)
        n_frames = round(self._promise * self.rate_hz) if self._promise else None
        return Head(name, codec.upper(), self.rate_hz, self.channels, n_frames, slack)

    def has_sound(self) -> bool:
        """Whether anything in it is louder than the noise of an encoder."""
        with suppress(AudioError):
            self.open()
            return any(np.abs(block).max(initial=0) > SOUND for block in self.blocks())
        return False

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield float32 (n_samples, n_channels); gaps in the time stamps become silence, so that the clock holds."""
        if self._sound:
            while len(block := self._sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                yield block
            return
        waiting: list[np.ndarray] = []
        n_waiting = 0  # counted, as a frame may hold one sample
        for samples in self._clocked():
            waiting.append(samples)
            n_waiting += len(samples)
            if n_waiting >= BLOCK_FRAMES:
                yield np.concatenate(waiting)
                waiting, n_waiting = [], 0
        if waiting:
            yield np.concatenate(waiting)
        self._conclude()

    def _promised_seconds(self, container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
        """Return the length that the file itself states, None where it states none."""
        unit, length = float(stream.time_base or 0), None
        if self._format == "caf" and stream.frames:  # its duration is that of what is there
            length = stream.frames / stream.rate
        elif self._format == "w64" and stream.codec_context.bit_rate:
            _, _, after = _head(self.path, 4096).partition(W64_DATA)
            length = (int.from_bytes(after[:8], "little") - 24) * 8 / stream.codec_context.bit_rate
        elif self._format not in UNSTATED and not any(ESTIMATE in text for *_, text in self._logs):
            length = stream.duration * unit if stream.duration else None
            if length is None and len(container.streams) == 1 and container.duration:
                length = container.duration / 1e6 - max((stream.start_time or 0) * unit, 0.0)
        if length and length > SENSELESS_SECONDS and self._format in ("caf", "w64"):
            self.remarks.append("its header gives no length of the sound: read to the end of the file")
            return None
        return length

    def _clean_ogg(self) -> soundfile.SoundFile | None:
        """Return an OGG file opened by libsndfile if its packets follow each other without a fault to the last one.

        FFmpeg counts a short Vorbis a few hundred samples too long or too short, and decodes Opus at 48 kHz alone.
        """
        container, end = _container(self.path), 0.0
        if len(container.streams) > 1 or not _has_end_mark(self.path):
            return None
        with suppress(av.error.FFmpegError, soundfile.SoundFileError):
            for packet in container.demux():
                start = float((packet.pts or 0) * packet.time_base)
                if packet.pts is not None and abs(start - end) > GAP_SECONDS:
                    return None
                end = start + float((packet.duration or 0) * packet.time_base)
            return None if self._logs else soundfile.SoundFile(os.fsencode(self.path))
        return None

    def _decoded(self, container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
        """Yield what decodes, and count what does not."""
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "crccheck"}
        packets, seconds = container.demux(stream), 0.0
        while seconds or self._n_failed <= MAX_FAILED:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:
                self._complaints.insert(0, f"it cannot be read beyond {seconds:.2f} s: {error.strerror}")
                return
            self._n_packets += packet.size > 0
            try:
                for frame in packet.decode():
                    seconds += frame.samples / max(frame.sample_rate, 1)
                    yield frame
            except av.error.FFmpegError as error:
                self._n_failed += 1
                self._complaints = self._complaints or [str(error.strerror)]
            errors = [f"{part}: {ascii(text.strip())}" for level, part, text in self._logs if level <= av.logging.ERROR]
            self._n_complaints += len(errors)
            self._complaints = self._complaints or errors[:1]
            self._logs.clear()
            if self._n_packets % ALIVE_PACKETS == 0:
                self._alive()

    def _clocked(self) -> Iterator[np.ndarray]:
        """Yield the samples of each frame, and silence where the time stamps run ahead of them."""
        n_frames, origin, longest = 0, None, max(MAX_GAP_SECONDS, (self._promise or 0) / 2)
        for frame in itertools.chain([self._frame], self._frames):
            if frame.pts is not None and self._format not in NO_CLOCK:
                seconds = float(frame.pts * (frame.time_base or 0))
                if origin is None:
                    origin = seconds
                    if abs(late := seconds - self._start) > LATE_SECONDS:
                        self.remarks.append(f"its sound begins {late:.2f} s into it: times here count from there")
                at = n_frames / self.rate_hz
                ahead = seconds - origin - at
                if ahead > longest:
                    self.remarks.append(f"its time stamps jump by {ahead:.0f} s at {at:.2f} s: that is left out")
                elif ahead > GAP_SECONDS:
                    n_missing = round(ahead * self.rate_hz)
                    for start in range(0, n_missing, BLOCK_FRAMES):
                        yield np.zeros((min(BLOCK_FRAMES, n_missing - start), self.channels), np.float32)
                    self._gaps.append((at, ahead))
                    n_frames, self.n_filled = n_frames + n_missing, self.n_filled + n_missing
                if abs(ahead) > GAP_SECONDS:  # what is not filled begins a new line of time
                    self._n_jumps_back += ahead < 0
                    origin = seconds - n_frames / self.rate_hz
            samples = self._samples(frame)
            n_frames += len(samples)
            yield samples

    def _samples(self, frame: av.AudioFrame) -> np.ndarray:
        """Return float32 (n_samples, n_channels) at the first frame's rate and channels, which joined files change."""
        layout, rate_hz = self._frame.layout.name, self._frame.sample_rate
        key = (frame.sample_rate, frame.layout.name, frame.format.name)
        if key not in self._converters:
            if key[:2] != (rate_hz, layout):
                self.remarks.append(f"its rate or its channels change, to {key[0]} Hz, {key[1]}")
            self._converters[key] = av.AudioResampler(format="flt", layout=layout, rate=rate_hz)
        converted = [each.to_ndarray().reshape(-1, self.channels) for each in self._converters[key].resample(frame)]
        return np.concatenate([np.zeros((0, self.channels), np.float32), *converted])

    def _conclude(self) -> None:
        n_faults = max(self._n_failed, self._n_complaints, len(self._complaints))
        faults = f"{n_faults} faults on decoding, the first: {self._complaints[0]}" if n_faults else ""
        if 2 * self._n_failed > self._n_packets:
            raise DamagedAudio(f"less than half of it decodes ({faults})", self.path)
        if self._gaps:
            total, first = sum(length for _, length in self._gaps), self._gaps[0][0]
            gaps = f"{len(self._gaps)} gaps" if len(self._gaps) > 1 else "a gap"
            self.remarks.append(f"{gaps}, {total:.2f} s from {first:.2f} s on, filled with silence")
        if self._n_jumps_back:
            self.remarks.append(f"its time stamps jump back {self._n_jumps_back} times: joined, or parts of it twice")
        if faults:
            self.remarks.append(faults)
        if self._format == "ogg" and not _has_end_mark(self.path):
            self.remarks.append("the mark of its end is missing, perhaps sound as well")


def _container(path: Path, kind: str | None = None) -> av.container.InputContainer:
    """Open a file by its descriptor: neither its name nor what it holds can lead FFmpeg to another one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        options = {"fd": str(descriptor), "protocol_whitelist": "fd", "format_whitelist": FORMATS}
        container = av.open("fd:", format=kind, container_options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        if kind is None and b"OggS" in _head(path, 2**16)[1:]:  # players go by its name
            return _container(path, "ogg")
        raise _refusal(path, error) from error
    finally:
        os.close(descriptor)  # FFmpeg has a copy of it
    if not container.streams.audio:
        raise UnsupportedFormat("it has no sound track", path)
    return container


def _head(path: Path, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        return file.read(n_bytes)


def _refusal(path: Path, error: Exception) -> AudioError:
    head = _head(path, 64)
    if hint := next((hint for magic, hint in HINTS.items() if head.startswith(magic)), ""):
        return NotAudio(f"it is {hint}", path)
    if isinstance(error, EOFError) or head.startswith(KNOWN) or head[4:8] == b"ftyp":
        return DamagedAudio(f"FFmpeg cannot open it ({getattr(error, 'strerror', error)})", path)
    return NotAudio(f"its first bytes, {head[:8].hex(' ')}, belong to no known container", path)


def _has_end_mark(path: Path) -> bool:
    """Whether the last page of an OGG is whole and marked as the last (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - 2**17, 0))
        data = file.read()
    page = data[max(data.rfind(b"OggS"), 0) :]
    is_whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    return is_whole and page[:4] == b"OggS" and bool(page[5] & 4)
