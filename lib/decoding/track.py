"""Decode the sound track of a file with PyAV, as players do; run only in the child process.

What FFmpeg does not pass on is read from the bytes: an MP3's count of frames, the size of a CAF's sound, the mark at
the end of an OGG. An OGG without a fault is decoded by libsndfile, as it always was here.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import soundfile

from lib.decoding.errors import AudioError, DamagedAudio, EmptyAudio, NotAudio, TruncatedAudio, UnsupportedFormat
from lib.decoding.head import Head

FORMATS = (  # never playlists or others that open further files
    "wav,w64,aiff,caf,au,flac,ogg,mp3,aac,loas,mov,matroska,amr,asf,avi,mpegts,mpeg,flv,wv,tta,ape,ac3,eac3,mpc,mpc8"
)
UNSTATED = {"aac", "loas", "amr", "mpegts", "mpeg", "ac3", "eac3"}  # FFmpeg only estimates their lengths
OWN_CLOCK = {"mpegts", "mpeg", "asf", "flv"}  # their time stamps begin anywhere
NO_CLOCK = {"wav", "w64", "aiff", "caf", "au"}  # their time stamps are their positions
EXACT_CODECS = ("pcm_", "flac", "wavpack", "tta")  # headers count their samples
SLACK_SECONDS = 0.01  # how far other lengths may be from what decodes
COARSE = {"matroska,webm": 0.1, "asf": 0.1}  # whose lengths take in the delay of the encoder
BLOCK_FRAMES = 65_536
GAP_SECONDS = 0.1  # time stamps that run ahead by less are rounding
MAX_GAP_SECONDS = 600.0  # longest gap that is filled where no length is promised
LATE_SECONDS = 0.5  # encoders delay by less
MAX_FAILED = 5_000  # packets that do not decode before one does: the file is given up
SENSELESS = 1e6  # times more sound than there is
SOUND = 1e-4  # amplitude from which a track is not silent
KNOWN = (b"RIFF", b"RF64", b"FORM", b"caff", b"OggS", b"\x1a\x45\xdf\xa3", b"fLaC", b"#!AMR", b".snd", b"riff")
HINTS = {b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`", b"<": "a web page, or XML of a download"}


class Track:
    """The first sound track with sound of a file, for one pass.

    `logs` is where `av.logging.Capture` puts FFmpeg's complaints; `progress` is told how many seconds are decoded.
    """

    def __init__(self, path: Path, logs: list, progress: Callable[[float], None]) -> None:
        self.path, self._logs, self._progress = path, logs, progress
        self.remarks: list[str] = []
        self.n_filled = 0  # samples of silence that stand for gaps
        self._complaints: list[str] = []
        self._n_packets = self._n_failed = self._n_complaints = self._n_jumps_back = self._first_byte = 0
        self._gaps: list[tuple[float, float]] = []  # (start, length) in seconds
        self._converters: dict[tuple, av.AudioResampler] = {}

    def open(self) -> Head:
        """Choose the track; decode its first frame, which alone tells its true rate."""
        index = self._choose()
        container = self._container()
        self._format, stream = container.format.name, container.streams.audio[index]
        self._start = (container.start_time or 0) / 1e6 if self._format in OWN_CLOCK else 0.0
        self._frames = self._decoded(container, stream)
        if (frame := next(self._frames, None)) is None:
            if self._n_failed:
                raise DamagedAudio(f"nothing of it decodes ({self._complaints[0]})", self.path)
            raise EmptyAudio("it holds no samples", self.path)
        self._frame, self.rate_hz, self.channels = frame, frame.sample_rate, frame.layout.nb_channels
        self._promise = self._promised_seconds(container, stream)
        self._sndfile = self._clean_ogg(index) if self._format == "ogg" else None
        if self._sndfile:
            self.rate_hz, self.channels = self._sndfile.samplerate, self._sndfile.channels
            self._promise = self._sndfile.frames / self.rate_hz
        codec = stream.codec_context.codec.canonical_name
        name = {"mov": "MP4"}.get(kind := self._format.split(",")[0], kind.upper())
        slack = 0.0 if codec.startswith(EXACT_CODECS) else COARSE.get(self._format, SLACK_SECONDS)
        n_frames = round(self._promise * self.rate_hz) if self._promise else None
        return Head(name, codec.upper(), self.rate_hz, self.channels, n_frames, slack)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield float32 (n_samples, n_channels); gaps in the time stamps become silence, so that the clock holds."""
        if self._sndfile:
            with self._sndfile as sound:
                while len(block := sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                    self._progress(sound.tell() / self.rate_hz)
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

    def _container(self) -> av.container.InputContainer:
        """Open the file by its descriptor: neither its name nor what it holds can lead FFmpeg to another one."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            options = {"fd": str(descriptor), "protocol_whitelist": "fd", "format_whitelist": FORMATS}
            container = av.open("fd:", container_options=options, metadata_errors="replace")
        except (av.error.FFmpegError, ValueError) as error:
            raise self._refusal(error) from error
        finally:
            os.close(descriptor)  # FFmpeg has a copy of it
        if not container.streams.audio:
            raise UnsupportedFormat("it has no sound track", self.path)
        return container

    def _refusal(self, error: Exception) -> AudioError:
        with self.path.open("rb") as file:
            head = file.read(64)
        if hint := next((hint for magic, hint in HINTS.items() if head.startswith(magic)), ""):
            return NotAudio(f"it is {hint}", self.path)
        if isinstance(error, EOFError):
            return TruncatedAudio("it ends before any sound", self.path)
        if head.startswith(KNOWN) or head[4:8] == b"ftyp":
            return DamagedAudio(f"FFmpeg cannot open it ({getattr(error, 'strerror', error)})", self.path)
        return NotAudio(f"its first bytes, {head[:8].hex(' ')}, belong to no known container", self.path)

    def _choose(self) -> int:
        tracks = self._container().streams.audio
        if all(track.codec_context is None for track in tracks):
            raise UnsupportedFormat("the codec of its sound track is not known", self.path)
        if len(tracks) == 1:
            return 0
        index = next((index for index in range(len(tracks)) if self._has_sound(index)), 0)
        self.remarks.append(f"it has {len(tracks)} sound tracks: number {index + 1}, the first with sound, is read")
        return index

    def _has_sound(self, index: int) -> bool:
        container = self._container()
        stream = container.streams.audio[index]
        if stream.codec_context is None:
            return False
        for frame in self._decoded(container, stream):
            converter = av.AudioResampler(format="flt", layout=frame.layout.name, rate=frame.sample_rate)
            if any(np.abs(each.to_ndarray()).max(initial=0) > SOUND for each in converter.resample(frame)):
                return True
        return False

    def _decoded(self, container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
        """Yield what decodes, and count what does not."""
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "crccheck"}
        self._n_packets = self._n_failed = 0
        packets, seconds = container.demux(stream), 0.0
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError) as error:
                if isinstance(error, av.error.FFmpegError):
                    self._complaints.insert(0, f"it cannot be read beyond {seconds:.2f} s: {error.strerror}")
                return
            self._first_byte = self._first_byte if self._n_packets else packet.pos or 0
            self._n_packets += packet.size > 0
            if not seconds and self._n_failed > MAX_FAILED:
                return
            try:
                for frame in packet.decode():
                    seconds += frame.samples / max(frame.sample_rate, 1)
                    yield frame
            except av.error.FFmpegError as error:
                self._n_failed += 1
                self._complaints = self._complaints or [str(error.strerror)]
            self._n_complaints += len(self._logs)
            for _, part, text in self._logs[:1] if not self._complaints else ():
                self._complaints.append(f"{part}: {ascii(text.strip())}")
            self._logs.clear()
            self._progress(seconds)

    def _clocked(self) -> Iterator[np.ndarray]:
        n_frames, origin = 0, None
        for frame in itertools.chain([self._frame], self._frames):
            if frame.pts is not None and self._format not in NO_CLOCK:
                seconds = _seconds(frame)
                if origin is None:
                    origin = seconds
                    if abs(late := seconds - self._start) > LATE_SECONDS:
                        self.remarks.append(f"its sound begins {late:.2f} s into it: times here count from there")
                ahead = seconds - origin - n_frames / self.rate_hz
                n_missing = self._n_missing(n_frames, ahead) if ahead > GAP_SECONDS else 0
                for start in range(0, n_missing, BLOCK_FRAMES):
                    yield np.zeros((min(BLOCK_FRAMES, n_missing - start), self.channels), np.float32)
                n_frames += n_missing
                if abs(ahead) > GAP_SECONDS:  # what is not filled begins a new line of time
                    self._n_jumps_back += ahead < 0
                    origin = seconds - n_frames / self.rate_hz
            samples = self._samples(frame)
            n_frames += len(samples)
            yield samples

    def _n_missing(self, n_frames: int, gap_seconds: float) -> int:
        """Return how many samples of silence a gap needs; refuse where gaps make up half of what is promised."""
        at, n_missing = n_frames / self.rate_hz, round(gap_seconds * self.rate_hz)
        if self._promise is None and gap_seconds > MAX_GAP_SECONDS:
            self.remarks.append(f"its time stamps jump by {gap_seconds:.0f} s at {at:.2f} s: that is left out")
            return 0
        self.n_filled += n_missing
        if self._promise is not None and self.n_filled > self._promise * self.rate_hz / 2:
            raise TruncatedAudio(f"over half of its {self._promise:.3f} s is missing, from {at:.2f} s on", self.path)
        self._gaps.append((at, gap_seconds))
        return n_missing

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

    def _promised_seconds(self, container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
        """Return the length that the file itself states, None where it states none."""
        if self._format == "mp3":
            return _mp3_seconds(self.path, self._first_byte, stream.codec_context.frame_size, self.rate_hz)
        if self._format in UNSTATED:
            return None
        unit = float(stream.time_base or 0)
        length = stream.duration * unit if stream.duration else None
        if length is None and len(container.streams) == 1 and container.duration:
            length = container.duration / 1e6 - max((stream.start_time or 0) * unit, 0.0)
        share = _caf_share(self.path) if self._format == "caf" else 1.0
        if share > SENSELESS:
            self.remarks.append("its header gives no length of the sound: read to the end of the file")
        return length * share if length and share <= SENSELESS else length

    def _clean_ogg(self, index: int) -> soundfile.SoundFile | None:
        """Return an OGG file opened by libsndfile if its packets follow each other without a fault to the last one."""
        container, end = self._container(), None
        if len(container.streams) > 1 or not _has_end_mark(self.path) or abs(_seconds(self._frame)) > GAP_SECONDS:
            return None
        try:
            for packet in container.demux(container.streams.audio[index]):
                start = _seconds(packet)
                if packet.pts is not None and end is not None and abs(start - end) > GAP_SECONDS:
                    return None
                end = start + float((packet.duration or 0) * (packet.time_base or 0))
            return None if self._logs else soundfile.SoundFile(os.fsencode(self.path))
        except (av.error.FFmpegError, soundfile.SoundFileError):
            return None


def _seconds(what: av.AudioFrame | av.Packet) -> float:
    return float((what.pts or 0) * (what.time_base or 0))


def _mp3_seconds(path: Path, first_byte: int, frame_size: int, rate_hz: int) -> float | None:
    """Return the length by the tag that LAME and others put into a silent first frame."""
    with path.open("rb") as file:
        file.seek(max(first_byte - 4096, 0))
        data = file.read(min(first_byte, 4096))
    at = max(data.rfind(b"Xing"), data.rfind(b"Info"))
    if at < 0 or len(data) < at + 144 or not data[at + 7] & 1:
        return None
    delays = int.from_bytes(data[at + 141 : at + 144], "big") if data[at + 120 : at + 124].isalnum() else 0
    n_frames = int.from_bytes(data[at + 8 : at + 12], "big")
    return max(n_frames * frame_size - (delays >> 12) - (delays & 0xFFF), 0) / rate_hz or None


def _caf_share(path: Path) -> float:
    """Return what a CAF's data chunk claims over what is there: FFmpeg counts only what is there."""
    with path.open("rb") as file:
        n_file, offset = os.fstat(file.fileno()).st_size, 8
        while len(head := os.pread(file.fileno(), 12, offset)) == 12 and offset < 2**20:
            name, n_bytes = struct.unpack(">4sq", head)
            offset += 12
            if name == b"data":
                return n_bytes / (n_file - offset) if n_file > offset and n_bytes > n_file - offset else 1.0
            offset += max(n_bytes, 0)
    return 1.0


def _has_end_mark(path: Path) -> bool:
    """Whether the last page of an OGG is whole and marked as the last (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - 2**17, 0))
        data = file.read()
    page = data[max(data.rfind(b"OggS"), 0) :]
    is_whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    return is_whole and page[:4] == b"OggS" and bool(page[5] & 4)
