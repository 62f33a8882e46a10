"""Decode the sound track of a file with PyAV, as players do, an OGG without a fault with libsndfile.

This is the program of the child process of `lib.decoding.decode`, which says what goes in and what comes out.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path

import av
import numpy as np
import soundfile
from av.logging import ERROR

from lib.decoding.errors import AudioError, DamagedAudio, EmptyAudio, Head, NotAudio, UnsupportedFormat

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
GAP_SECONDS = 0.1  # time stamps that run ahead by less are rounding
MAX_GAP_SECONDS = 600.0  # longest gap that is filled where no length is promised
LATE_SECONDS = 0.5  # encoders delay by less
MAX_FAILED = 5_000  # packets that do not decode before one does: the file is given up
SENSELESS_SECONDS = 1e9
SOUND = 1e-4  # amplitude from which a track is not silent
KNOWN = (b"RIFF", b"RF64", b"FORM", b"caff", b"OggS", b"\x1a\x45\xdf\xa3", b"fLaC", b"#!AMR", b".snd", b"riff")
HINTS = {b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`", b"<": "a web page, or XML of a download"}


class Track:
    """One sound track of a file, for one pass.

    `head` is known at once; `remarks`, and `n_filled`, the samples of silence that stand for gaps, after the pass.
    `logs` is where `av.logging.Capture` puts FFmpeg's complaints; `alive` is called now and then while all is well.
    """

    def __init__(self, path: Path, index: int, logs: list, alive: Callable[[], None]) -> None:
        """Decode the first frame, which alone tells the true rate."""
        logs.clear()
        self.path, self._logs, self._alive = path, logs, alive
        self.remarks: list[str] = []
        self.n_filled = self._n_frames = self._n_packets = self._n_failed = 0
        self._faults: list[str] = []
        self._gaps: list[float] = []  # where they begin, in seconds
        self._converters: dict[tuple, av.AudioResampler] = {}
        container = _container(path)
        self._format, stream = container.format.name, container.streams.audio[index]
        if stream.codec_context is None:
            raise UnsupportedFormat("the codec of its sound track is not known")
        self._start = (container.start_time or 0) / 1e6 if self._format in OWN_CLOCK else 0.0
        promise = self._promised_seconds(container, stream)
        self._frames = self._decoded(container, stream)
        if (frame := next(self._frames, None)) is None:
            if self._n_failed:
                raise DamagedAudio(f"nothing of it decodes ({self._faults[0]})")
            raise EmptyAudio("it holds no samples")
        self._first = frame
        codec = stream.codec_context.codec.canonical_name
        name = {"mov": "MP4"}.get(kind := self._format.split(",")[0], kind.upper())
        slack = 0.0 if codec.startswith(EXACT_CODECS) else COARSE.get(self._format, SLACK_SECONDS)
        n_frames = round(promise * frame.sample_rate) if promise else None
        self.head = Head(name, codec.upper(), frame.sample_rate, frame.layout.nb_channels, n_frames, slack)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield float32 (n_samples, n_channels); gaps in the time stamps become silence, so that the clock holds."""
        for _, pieces in itertools.groupby(self._clocked(), self._block):
            yield np.concatenate(list(pieces))
            self._alive()
        faults = f"{len(self._faults)} faults on decoding, the first: {''.join(self._faults[:1])}"
        if 2 * self._n_failed > self._n_packets:
            raise DamagedAudio(f"less than half of it decodes ({faults})")
        if self._gaps:
            seconds = self.n_filled / self.head.sample_rate_hz
            self.remarks.append(f"silence fills gaps of {seconds:.2f} s in all, from {self._gaps[0]:.2f} s on")
        if self._faults:
            self.remarks.append(faults)
        if self._format == "ogg" and not _has_end_mark(self.path):
            self.remarks.append("the mark of its end is missing, perhaps sound as well")

    def blocks_of_libsndfile(self) -> Iterator[np.ndarray] | None:
        """Return the blocks of an OGG as libsndfile decodes it if FFmpeg, in this pass, finds no fault in it.

        FFmpeg counts a short Vorbis a few hundred samples too long or too short, and decodes Opus at 48 kHz alone.
        """
        n_promised, rate_hz = self.head.n_frames or 0, self.head.sample_rate_hz
        is_night = n_promised > SNDFILE_SECONDS * rate_hz
        if is_night or abs(sum(map(len, self.blocks())) - n_promised) > GAP_SECONDS * rate_hz or self.remarks:
            return None
        sound = soundfile.SoundFile(bytes(self.path))
        self.head = replace(self.head, sample_rate_hz=sound.samplerate, channels=sound.channels, n_frames=sound.frames)
        return sound.blocks(self.head.n_window, dtype="float32", always_2d=True)

    def _promised_seconds(self, container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
        """Return the length that the file itself states, None where it states none."""
        unit, length = float(stream.time_base or 0), None
        if self._format == "caf" and stream.frames:  # its duration is that of what is there
            length = stream.frames / stream.rate
        elif self._format == "w64" and stream.codec_context.bit_rate:
            with self.path.open("rb") as file:
                _, _, after = file.read(4096).partition(W64_DATA)
            length = (int.from_bytes(after[:8], "little") - 24) * 8 / stream.codec_context.bit_rate
        elif self._format not in UNSTATED and not any(ESTIMATE in text for *_, text in self._logs):
            length = stream.duration * unit if stream.duration else None
            if length is None and len(container.streams) == 1 and container.duration:
                length = container.duration / 1e6 - max((stream.start_time or 0) * unit, 0.0)
        if length and length > SENSELESS_SECONDS and self._format in ("caf", "w64"):
            self.remarks.append("its header gives no length of the sound: read to the end of the file")
            return None
        return length

    def _decoded(self, container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
        """Yield what decodes, and note what does not."""
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "crccheck"}
        try:
            for packet in container.demux(stream):
                frames, failed = [], []
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    failed = [str(error.strerror)]
                errors = [f"{part}: {ascii(text.strip())}" for level, part, text in self._logs if level <= ERROR]
                self._logs.clear()
                self._faults += errors or failed
                self._n_failed += len(failed)
                self._n_packets += packet.size > 0
                yield from frames
                if not self._n_frames and self._n_failed > MAX_FAILED:
                    return
        except av.error.FFmpegError as error:
            self._faults.insert(0, f"it cannot be read to its end: {error.strerror}")

    def _clocked(self) -> Iterator[np.ndarray]:
        """Yield the samples of each frame, and silence where the time stamps run ahead of them."""
        origin, rate_hz = None if self._format in NO_CLOCK else self._first.time, self.head.sample_rate_hz
        if origin is not None and abs(late := origin - self._start) > LATE_SECONDS:
            self.remarks.append(f"its sound begins {late:.2f} s into it: times here count from there")
        for frame in itertools.chain([self._first], self._frames):
            at = self._n_frames / rate_hz
            if origin is not None and frame.time is not None and abs(ahead := frame.time - origin - at) > GAP_SECONDS:
                yield from self._silence(ahead, at)
                origin = frame.time - self._n_frames / rate_hz  # what is not filled begins a new line of time
            yield from self._samples(frame)

    def _block(self, samples: np.ndarray) -> int:
        """Count samples, and return the number of the block that they belong to."""
        self._n_frames += len(samples)
        return self._n_frames // self.head.n_window

    def _silence(self, ahead: float, at: float) -> Iterator[np.ndarray]:
        """Yield what keeps the clock where the time stamps jump."""
        n_missing = round(ahead * self.head.sample_rate_hz)
        if ahead < 0:
            self.remarks.append("its time stamps jump back: joined, or parts of it twice")
        elif ahead > max(MAX_GAP_SECONDS, self.head.duration_seconds / 2):
            self.remarks.append(f"its time stamps jump by {ahead:.0f} s at {at:.2f} s: that is left out")
        else:
            self._gaps.append(at)
            self.n_filled += n_missing
            for start in range(0, n_missing, BLOCK_FRAMES):
                yield np.zeros((min(BLOCK_FRAMES, n_missing - start), self.head.channels), np.float32)

    def _samples(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        """Yield float32 (n_samples, n_channels) at the first frame's rate and channels, which joined files change."""
        layout, rate_hz = self._first.layout.name, self._first.sample_rate
        key = (frame.sample_rate, frame.layout.name, frame.format.name)
        if key not in self._converters:
            if key[:2] != (rate_hz, layout):
                self.remarks.append(f"its rate or its channels change, to {key[0]} Hz, {key[1]}")
            self._converters[key] = av.AudioResampler(format="flt", layout=layout, rate=rate_hz)
        for converted in self._converters[key].resample(frame):
            yield converted.to_ndarray().reshape(-1, self.head.channels)


def choose(path: Path, logs: list, alive: Callable[[], None]) -> tuple[Track, Iterator[np.ndarray]]:
    """Return the first sound track with sound, the first one where all are silent, and its blocks."""
    container = _container(path)
    n_tracks = len(container.streams.audio)
    if container.format.name == "ogg" and len(container.streams) == 1:
        with suppress(AudioError, av.error.FFmpegError, soundfile.SoundFileError):
            if blocks := (track := Track(path, 0, logs, alive)).blocks_of_libsndfile():
                return track, blocks
    index = next((index for index in range(n_tracks) if n_tracks > 1 and _has_sound(path, index, logs, alive)), 0)
    track = Track(path, index, logs, alive)
    if n_tracks > 1:
        track.remarks.append(f"it has {n_tracks} sound tracks: number {index + 1}, the first with sound, is read")
    return track, track.blocks()


def _has_sound(path: Path, index: int, logs: list, alive: Callable[[], None]) -> bool:
    """Whether anything in a track is louder than the noise of an encoder."""
    with suppress(AudioError):
        return any(np.abs(block).max(initial=0) > SOUND for block in Track(path, index, logs, alive).blocks())
    return False


def _container(path: Path, kind: str | None = None) -> av.container.InputContainer:
    """Open a file by its descriptor: neither its name nor what it holds can lead FFmpeg to another one."""
    with path.open("rb") as file:  # FFmpeg has its own copy of the descriptor
        options = {"fd": str(file.fileno()), "protocol_whitelist": "fd", "format_whitelist": FORMATS}
        try:
            container = av.open("fd:", format=kind, container_options=options, metadata_errors="replace")
        except (av.error.FFmpegError, ValueError) as error:
            file.seek(0)
            head = file.read(2**16)
            if kind is None and b"OggS" in head[1:]:  # players go by its name
                return _container(path, "ogg")
            raise _refusal(head, error) from error
    if not container.streams.audio:
        raise UnsupportedFormat("it has no sound track")
    return container


def _refusal(head: bytes, error: Exception) -> AudioError:
    if hint := next((hint for magic, hint in HINTS.items() if head.startswith(magic)), ""):
        return NotAudio(f"it is {hint}")
    if isinstance(error, EOFError) or head.startswith(KNOWN) or head[4:8] == b"ftyp":
        return DamagedAudio(f"FFmpeg cannot open it ({getattr(error, 'strerror', error)})")
    return NotAudio(f"its first bytes, {head[:8].hex(' ')}, belong to no known container")


def _has_end_mark(path: Path) -> bool:
    """Whether the last page of an OGG is whole and marked as the last (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 2**17, 0))
        _, mark, page = file.read().rpartition(b"OggS")
    is_whole = len(page) > 22 and len(page) >= 23 + page[22] + sum(page[23 : 23 + page[22]])
    return bool(mark) and is_whole and bool(page[1] & 4)


def _serve(out: Connection, path: str, *, head_only: bool) -> dict:
    """Send what a file holds; return the last message."""
    try:
        with av.logging.Capture() as logs:
            track, blocks = choose(Path(path), logs, lambda: out.send_bytes(b"."))
            out.send_bytes(json.dumps({"head": asdict(track.head)}).encode())
            for block in () if head_only else blocks:
                out.send_bytes(b"data" + block.tobytes())
    except AudioError as error:
        return {"error": type(error).__name__, "what": error.what}
    except Exception as error:
        return {"error": "DamagedAudio", "what": f"its decoder gives up ({error or type(error).__name__})"}
    return {"remarks": [*dict.fromkeys(track.remarks)], "n_filled": track.n_filled}


def main() -> None:
    """Serve requests until the parent closes the socket, which is the standard input."""
    for what, most in {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_AS: 2**31}.items():
        with suppress(ValueError, OSError):  # macOS knows some limits only by name
            resource.setrlimit(what, (most, most))
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    connection = Connection(sys.stdin.fileno())
    connection.send_bytes(b"ready")
    with suppress(EOFError, ConnectionError):
        while True:
            path, head_only = json.loads(connection.recv_bytes())
            connection.send_bytes(json.dumps(_serve(connection, path, head_only=head_only)).encode())
            connection.send_bytes(b"")


if __name__ == "__main__":
    main()
