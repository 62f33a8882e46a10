"""A corpus of hostile audio: each case is a few lines that say what is wrong and what must come of it.

Run as a program it tabulates how this project, soundfile and librosa treat each case:
`python tests/decoding/bad_audio.py --table bad_audio.csv`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parents[2]
for folder in (PROJECT_DIR, PROJECT_DIR / "tests" / "decoding"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import numpy as np  # noqa: E402
from audio_bytes import (  # noqa: E402
    FLOAT,
    FLOATS,
    PCM,
    RATE_HZ,
    TONE,
    after,
    aiff,
    amr,
    by_ffmpeg,
    caf,
    chunk,
    cut,
    encoded,
    extended,
    extensible,
    flac,
    float_wav,
    id3,
    m4a,
    middle,
    mp3,
    noise,
    ogg,
    opus,
    pages,
    patch,
    repaged,
    riff,
    spoiled,
    three_gp,
    wav,
    wav_format,
    webm,
)

from lib.audio import (  # noqa: E402
    DamagedAudio,
    EmptyAudio,
    MissingAudio,
    NonFiniteAudio,
    NotAudio,
    TooLong,
    TooShort,
    TruncatedAudio,
    UnsupportedFormat,
)


@dataclass(frozen=True)
class Sound:
    """An acceptable result: so much sound at the tone's level, not silence."""

    seconds: float = 1.0
    rms_db: float = -9.0

    def __str__(self) -> str:
        return f"{self.seconds:g} s of sound"


@dataclass(frozen=True)
class Silence:
    """An acceptable result: digital silence, which is a valid recording of nothing."""

    seconds: float = 1.0

    def __str__(self) -> str:
        return f"{self.seconds:g} s of silence"


@dataclass(frozen=True)
class BadAudio:
    """One case: `make` gives the file's bytes, or puts something at the path that it is given."""

    name: str
    what_is_wrong: str
    expected: type[Exception] | Sound | Silence
    make: Callable[[], bytes] | Callable[[Path], Path | None]

    def build(self, folder: Path) -> Path:
        """Make the case in a folder and return the path to give to a reader."""
        path = folder / self.name.replace("/", "_")
        if self.make.__code__.co_argcount > len(self.make.__defaults__ or ()):  # it wants the path
            return self.make(path) or path
        path.write_bytes(self.make())
        return path

    @property
    def expectation(self) -> str:
        return self.expected.__name__ if isinstance(self.expected, type) else str(self.expected)


CASES: list[BadAudio] = []


def add(name, what_is_wrong, expected, make):
    CASES.append(BadAudio(name, what_is_wrong, expected, make))


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int, order: str = "<") -> bytes:
    return struct.pack(order + "I", value & 0xFFFFFFFF)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def sparse(n_bytes: int, head: bytes = b"") -> Callable[[Path], None]:
    """A file that claims much room and takes none."""

    def make(path: Path) -> None:
        path.write_bytes(head)
        os.truncate(path, n_bytes)

    return make


def bind_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:  # a socket's address is short
        server.bind(path.name)


# -- no regular file ----------------------------------------------------------------------------------------
add("path/missing", "there is nothing at the path", MissingAudio, lambda path: path)
add("path/folder", "the path is a folder", MissingAudio, lambda path: path.mkdir())
add(
    "path/empty_string",
    "the path is an empty string, which means the current folder",
    MissingAudio,
    lambda path: Path(),
)
add(
    "path/named_pipe",
    "a named pipe that nobody writes to: opening it waits for ever",
    MissingAudio,
    lambda path: os.mkfifo(path),
)
add(
    "path/link_to_pipe",
    "a link to such a pipe",
    MissingAudio,
    lambda path: (os.mkfifo(f"{path}.p"), path.symlink_to(f"{path}.p"))[1],
)
add("path/endless_device", "a link to /dev/zero, which never ends", MissingAudio, link_to("/dev/zero"))
add("path/null_device", "a link to /dev/null", MissingAudio, link_to("/dev/null"))
add("path/terminal", "a link to /dev/tty", MissingAudio, link_to("/dev/tty"))
add("path/socket", "a socket", MissingAudio, bind_socket)
add("path/dangling_link", "a link to nothing", MissingAudio, link_to("nowhere.wav"))
add("path/link_loop", "a link to itself", MissingAudio, lambda path: path.symlink_to(path))
add("path/too_long", "a name of 5,000 letters", MissingAudio, lambda path: path.with_name("a" * 5000))
add("path/null_byte", "a null byte in the name", MissingAudio, lambda path: path.with_name("a\0b.wav"))
add(
    "path/below_a_file",
    "a path that goes through a file",
    MissingAudio,
    lambda path: (path.write_bytes(wav()), path / "a.wav")[1],
)
add("path/newline", "a line break in the name of a sound file", Sound(), lambda path: named(path, "a\nb.wav"))
add(
    "path/undecodable",
    "a name that is not UTF-8",
    Sound(),
    lambda path: named(path, os.fsdecode(b"\xff\xfe.flac"), flac()),
)
add("path/option", "a name that looks like an option", Sound(), lambda path: named(path, "-i.m4a", m4a()))
add(
    "path/protocol",
    "a name that looks like a URL to ffmpeg",
    Sound(),
    lambda path: named(path, "concat:a|b.m4a", m4a()),
)
add("path/wrong_suffix", "a FLAC file called .wav", Sound(), lambda path: named(path, "clip.wav", flac()))
add("path/no_suffix", "a WAV file without a suffix", Sound(), lambda: wav())


def named(path: Path, name: str, data: bytes | None = None) -> Path:
    path = path.with_name(name)
    path.write_bytes(wav() if data is None else data)
    return path


# -- not a recording ----------------------------------------------------------------------------------------
add("bytes/none", "0 bytes", EmptyAudio, lambda: b"")
add("bytes/one", "1 byte", NotAudio, lambda: b"R")
add("bytes/magic_alone", "the four letters RIFF and no more", NotAudio, lambda: b"RIFF")
add("bytes/zeros", "1 MB of zeros, as a broken download leaves", NotAudio, lambda: b"\0" * 1_000_000)
add("bytes/ones", "64 kB of 0xFF, which looks like MP3 synchronisation", NotAudio, lambda: b"\xff" * 65_536)
for seed in range(6):
    add(f"bytes/noise_{seed}", "100 kB of random bytes", NotAudio, lambda seed=seed: noise(100_000, seed))
add("bytes/text", "a text file", NotAudio, lambda: b"This is not audio.\n" * 1000)
add("bytes/utf16", "a text file in UTF-16", NotAudio, lambda: "This is not audio. ".encode("utf-16") * 100)
add(
    "bytes/html",
    "an error page saved as a recording",
    NotAudio,
    lambda: b"<!DOCTYPE html><html><h1>404</h1></html>" * 20,
)
add(
    "bytes/xml",
    "the XML of a cloud store's refusal",
    NotAudio,
    lambda: b'<?xml version="1.0"?><Error>AccessDenied</Error>',
)
add("bytes/json", "the JSON of an API's refusal", NotAudio, lambda: b'{"error": "rate limit exceeded"}')
add(
    "bytes/git_lfs",
    "a Git LFS pointer",
    NotAudio,
    lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9",
)
add("bytes/png", "a picture (PNG)", NotAudio, lambda: b"\x89PNG\r\n\x1a\n" + noise(5000))
add("bytes/jpeg", "a picture (JPEG)", NotAudio, lambda: b"\xff\xd8\xff\xe0\0\x10JFIF" + noise(5000))
add("bytes/gif", "a picture (GIF)", NotAudio, lambda: b"GIF89a" + noise(5000))
add("bytes/pdf", "a PDF document", NotAudio, lambda: b"%PDF-1.7\n" + noise(5000))
add("bytes/zip", "a ZIP archive", NotAudio, lambda: b"PK\x03\x04" + noise(5000))
add("bytes/gzip", "a gzip archive", NotAudio, lambda: b"\x1f\x8b\x08" + noise(5000))
add("bytes/program", "a program (ELF)", NotAudio, lambda: b"\x7fELF\x02\x01\x01" + noise(5000))
add("bytes/pickle", "a Python pickle", NotAudio, lambda: b"\x80\x04\x95" + noise(5000))
add("bytes/numpy", "a NumPy array", NotAudio, lambda: b"\x93NUMPY\x01\0" + noise(5000))
add(
    "bytes/playlist",
    "a playlist that names a local file",
    NotAudio,
    lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
)
add(
    "bytes/concat",
    "an ffmpeg script that names a local file",
    NotAudio,
    lambda: b"ffconcat version 1.0\nfile /etc/passwd\n",
)
add("bytes/avi", "a film (RIFF AVI)", NotAudio, lambda: b"RIFF" + u32(5000) + b"AVI " + noise(5000))
add("bytes/webp", "a picture (RIFF WEBP)", NotAudio, lambda: b"RIFF" + u32(5000) + b"WEBP" + noise(5000))
add("bytes/transport", "a broadcast stream (MPEG-TS)", NotAudio, lambda: (b"\x47\x40\x11\x10" + b"\0" * 184) * 100)
add(
    "other/midi",
    "MIDI, which holds notes and no sound",
    UnsupportedFormat,
    lambda: b"MThd\0\0\0\x06\0\x01\0\x01" + noise(500),
)
add("other/au", "Sun AU", UnsupportedFormat, lambda: encoded("AU", "PCM_16"))
add("other/wave64", "Sony Wave64", UnsupportedFormat, lambda: encoded("W64", "PCM_16"))
add("other/rf64", "RF64", UnsupportedFormat, lambda: encoded("RF64", "PCM_16"))
add("other/rifx", "big-endian WAV", UnsupportedFormat, lambda: b"RIFX" + wav()[4:])
add("other/wma", "Windows Media", UnsupportedFormat, lambda: by_ffmpeg("wma", "-c:a", "wmav2"))
add("other/wavpack", "WavPack", UnsupportedFormat, lambda: by_ffmpeg("wv", "-c:a", "wavpack"))
add("other/adts", "bare AAC", UnsupportedFormat, lambda: by_ffmpeg("aac", "-c:a", "aac"))
add("bytes/sparse_2_gib", "2 GiB that take no room on the disk", TooLong, sparse(2**31, wav()))

# -- WAV: less than promised --------------------------------------------------------------------------------
for n_bytes in (5, 8, 11):
    add(f"wav/cut_at_{n_bytes}", f"cut inside its first line, at byte {n_bytes}", NotAudio, lambda n=n_bytes: wav()[:n])
for n_bytes in (12, 13, 20, 35, 36, 40, 43):
    add(
        f"wav/cut_at_{n_bytes}",
        f"cut inside its header, at byte {n_bytes}",
        TruncatedAudio,
        lambda n=n_bytes: wav()[:n],
    )
add("wav/cut_before_data", "cut where the samples begin", TruncatedAudio, lambda: wav()[:44])
for percent in (10, 50, 90, 99):
    add(
        f"wav/cut_{percent}",
        f"only {percent} % of the file is there",
        TruncatedAudio,
        lambda p=percent: cut(wav(), p / 100),
    )
add("wav/one_frame_missing", "the last sample is missing", TruncatedAudio, lambda: wav()[:-2])
add(
    "wav/stereo_half_frame",
    "the right channel of the last frame is missing",
    TruncatedAudio,
    lambda: wav(channels=2)[:-2],
)
add("wav/24_bit_cut", "24-bit samples, cut in half", TruncatedAudio, lambda: cut(wav(PCM * 3, bits=24), 0.5))
add("wav/float_cut", "float samples, cut in half", TruncatedAudio, lambda: cut(wav(FLOATS, **FLOAT), 0.5))
add("wav/promise_doubled", "the header promises twice the samples", TruncatedAudio, lambda: wav(data_size=2 * len(PCM)))
add("wav/promise_1_gib", "the header promises 1 GiB", TruncatedAudio, lambda: wav(data_size=2**30))
add(
    "wav/promise_4_gib",
    "the data size is 0xFFFFFFFF, the RIFF size true: no stream, a lie",
    TruncatedAudio,
    lambda: wav(data_size=2**32 - 1),
)
add(
    "wav/mp3_inside_cut",
    "MP3 in WAV, cut in half",
    TruncatedAudio,
    lambda: cut(by_ffmpeg("wav", "-c:a", "libmp3lame"), 0.5),
)
add("wav/adpcm_cut", "ADPCM, cut in half", TruncatedAudio, lambda: cut(encoded("WAV", "MS_ADPCM"), 0.5))
add(
    "wav/data_chunk_missing",
    "a format chunk and nothing else",
    TruncatedAudio,
    lambda: riff(chunk(b"fmt ", wav_format())),
)

# -- WAV: odd, and yet whole --------------------------------------------------------------------------------
add(
    "wav/piped_ffmpeg",
    "both sizes 0xFFFFFFFF, as ffmpeg writes into a pipe",
    Sound(),
    lambda: wav(data_size=2**32 - 1, riff_size=2**32 - 1),
)
add("wav/piped_zero", "both sizes 0, as some recorders leave them", Sound(), lambda: wav(data_size=0, riff_size=0))
add(
    "wav/piped_sox",
    "both sizes near 0x7FFFFFFF, as sox writes into a pipe",
    Sound(),
    lambda: wav(data_size=0x7FFFF000, riff_size=0x7FFFF024),
)
add("wav/riff_size_zero", "the RIFF size is 0, the data size true", Sound(), lambda: wav(riff_size=0))
add("wav/riff_size_huge", "the RIFF size is too large, the data whole", Sound(), lambda: wav(riff_size=2**31))
add("wav/riff_size_small", "the RIFF size ends before the data does", Sound(), lambda: wav(riff_size=100))
add("wav/tail", "an ID3v1 tag and noise behind the data", Sound(), lambda: wav() + b"TAG" + noise(125))
add("wav/last_frame_partial", "3 bytes behind the last whole frame", Sound(), lambda: wav(PCM + b"abc"))
add(
    "wav/junk_before",
    "unknown chunks before the format",
    Sound(),
    lambda: riff(chunk(b"JUNK", b"\0" * 999) + wav()[12:]),
)
add("wav/odd_chunk", "a chunk of odd length before the data", Sound(), lambda: wav(before=chunk(b"LIST", b"abc")))
add("wav/byte_rate_zero", "the byte rate is 0, which some writers leave", Sound(), lambda: wav(byte_rate=0))
add(
    "wav/20_bits_in_24",
    "20 valid bits in 24 (extensible)",
    Sound(),
    lambda: wav(pcm24(), tag=0xFFFE, bits=24, tail=extensible(valid_bits=20)),
)
add(
    "wav/extensible_float",
    "floats by way of the extensible format",
    Sound(),
    lambda: wav(FLOATS, tag=0xFFFE, bits=32, tail=extensible(3, valid_bits=32)),
)
add("wav/slowest", "4,000 Hz, the lowest rate allowed", Sound(4.0), lambda: wav(rate_hz=4_000))
add(
    "wav/fastest",
    "384,000 Hz, the highest rate allowed",
    Sound(),
    lambda: wav(np.repeat(np.frombuffer(PCM, "<i2"), 24).tobytes(), rate_hz=384_000),
)
add(
    "wav/second_data_chunk",
    "two data chunks: the format allows one, the first counts",
    Sound(),
    lambda: wav(after=chunk(b"data", PCM)),
)


def pcm24() -> bytes:
    return b"".join(b"\0" + PCM[index : index + 2] for index in range(0, len(PCM), 2))


# -- WAV: headers that lie ----------------------------------------------------------------------------------
for rate_hz in (0, 1, 3_999, 384_001, 2**32 - 1):
    add(
        f"wav/rate_{rate_hz}",
        f"a rate of {rate_hz:,} Hz",
        UnsupportedFormat,
        lambda r=rate_hz: wav(rate_hz=r, byte_rate=0),
    )
add(
    "wav/rate_wrong",
    "the rate says 48 kHz, the byte rate 16 kHz",
    DamagedAudio,
    lambda: wav(rate_hz=48_000, byte_rate=32_000),
)
for channels in (0, 17, 255, 32_767):
    add(f"wav/channels_{channels}", f"{channels:,} channels", UnsupportedFormat, lambda c=channels: wav(channels=c))
add("wav/channels_wrong", "2 channels in frames of one sample", DamagedAudio, lambda: wav(channels=2, block=2))
for bits in (0, 1, 4, 7, 12, 20, 48, 64, 65_535):
    add(f"wav/bits_{bits}", f"integers of {bits} bits", UnsupportedFormat, lambda b=bits: wav(bits=b))
for bits in (8, 16, 24, 80):
    add(f"wav/float_bits_{bits}", f"floats of {bits} bits", UnsupportedFormat, lambda b=bits: wav(tag=3, bits=b))
for block in (0, 1, 3, 65_535):
    add(
        f"wav/block_{block}",
        f"frames of {block:,} bytes for one sample of 2",
        DamagedAudio,
        lambda b=block: wav(block=b),
    )
for tag, meaning in (
    (0, "unknown"),
    (0x50, "MPEG"),
    (0x161, "Windows Media"),
    (0x674F, "Vorbis"),
    (0xFFFF, "experimental"),
):
    add(f"wav/codec_{tag:04x}", f"codec 0x{tag:04x}, {meaning}", UnsupportedFormat, lambda t=tag: wav(tag=t))
add(
    "wav/guid",
    "extensible with an unknown codec",
    UnsupportedFormat,
    lambda: wav(tag=0xFFFE, tail=extensible(guid_tail=b"x" * 14)),
)
add("wav/extensible_short", "extensible without its extension", DamagedAudio, lambda: wav(tag=0xFFFE))
add(
    "wav/format_short",
    "a format chunk of 14 bytes",
    DamagedAudio,
    lambda: riff(chunk(b"fmt ", wav_format()[:14]) + chunk(b"data", PCM)),
)
add("wav/format_endless", "a format chunk of 4 GiB", TruncatedAudio, lambda: patch(wav(), 16, u32(2**32 - 1)))
add("wav/format_missing", "data without a format chunk", DamagedAudio, lambda: riff(chunk(b"data", PCM)))
add(
    "wav/format_behind",
    "the format chunk behind the data",
    DamagedAudio,
    lambda: riff(chunk(b"data", PCM) + chunk(b"fmt ", wav_format())),
)
add(
    "wav/chunk_bomb",
    "100,000 empty chunks before the data",
    DamagedAudio,
    lambda: wav(before=chunk(b"JUNK", b"") * 100_000),
)
add(
    "wav/chunk_endless",
    "a chunk of 4 GiB before the data",
    TruncatedAudio,
    lambda: wav(before=chunk(b"LIST", b"abcd", size=2**32 - 8)),
)
add(
    "wav/adpcm_block_zero",
    "ADPCM in frames of 0 bytes",
    DamagedAudio,
    lambda: patch(encoded("WAV", "MS_ADPCM"), 32, u16(0)),
)
add(
    "wav/adpcm_channels",
    "ADPCM that claims 16 channels",
    DamagedAudio,
    lambda: patch(encoded("WAV", "MS_ADPCM"), 22, u16(16)),
)
add(
    "wav/fact_endless",
    "ADPCM that promises 2**31 samples",
    TooLong,
    lambda: after(encoded("WAV", "MS_ADPCM"), b"fact", 4, u32(2**31)),
)
add(
    "wav/fact_doubled",
    "ADPCM that promises twice its samples",
    TruncatedAudio,
    lambda: after(encoded("WAV", "MS_ADPCM"), b"fact", 4, u32(32_000)),
)

# -- samples ------------------------------------------------------------------------------------------------
add("samples/nan_one", "one sample of 16,000 is NaN", NonFiniteAudio, lambda: float_wav(spoiled(8_000, np.nan)))
add("samples/nan_all", "all samples are NaN", NonFiniteAudio, lambda: float_wav(TONE * np.nan))
add(
    "samples/nan_right",
    "the right channel is NaN",
    NonFiniteAudio,
    lambda: float_wav(np.stack([TONE, TONE * np.nan], 1), channels=2),
)
add("samples/inf", "one sample is infinite", NonFiniteAudio, lambda: float_wav(spoiled(8_000, np.inf)))
add("samples/minus_inf", "one sample is minus infinity", NonFiniteAudio, lambda: float_wav(spoiled(8_000, -np.inf)))
add(
    "samples/double_nan",
    "a NaN among doubles",
    NonFiniteAudio,
    lambda: wav(spoiled(5, np.nan).astype("<f8").tobytes(), tag=3, bits=64),
)
add(
    "samples/double_overflow",
    "doubles of 1e300, infinite as floats",
    NonFiniteAudio,
    lambda: wav((TONE.astype("<f8") * 1e300).tobytes(), tag=3, bits=64),
)
add(
    "samples/spike",
    "one sample of 1e30: turned down to it, the rest would be silence",
    DamagedAudio,
    lambda: float_wav(spoiled(8_000, 1e30)),
)
add(
    "samples/integers_as_floats",
    "floats that run to 32,767 instead of 1",
    Sound(1.0, -3),
    lambda: float_wav(TONE * 2 * 32_767),
)
add("samples/over_full_scale", "floats that run to 4", Sound(1.0, -3), lambda: float_wav(TONE * 8))
add(
    "samples/enormous",
    "floats that run to 3e38, whose sum is infinite",
    DamagedAudio,
    lambda: stereo(6e38 * TONE.astype("f8"), 6e38 * TONE.astype("f8")),
)
add("samples/subnormal", "floats of 1e-40", Silence(), lambda: float_wav(np.full(16_000, 1e-40)))
add(
    "samples/aiff_nan",
    "a NaN in AIFF",
    NonFiniteAudio,
    lambda: aiff(spoiled(9, np.nan).astype(">f4").tobytes(), bits=32, codec=b"fl32"),
)
add(
    "samples/caf_nan",
    "a NaN in CAF",
    NonFiniteAudio,
    lambda: caf(spoiled(9, np.nan).tobytes(), flags=3, packet=(4, 1), bits=32),
)
add("samples/none", "0 samples", EmptyAudio, lambda: wav(b""))
add("samples/flac_none", "0 samples in FLAC", EmptyAudio, lambda: encoded("FLAC", "PCM_16", 0.0))
add("samples/one", "1 sample", TooShort, lambda: wav(PCM[:2]))
add("samples/99_ms", "99 ms", TooShort, lambda: wav(PCM[: 2 * 1584]))
add("samples/100_ms", "100 ms, the shortest allowed", Sound(0.1), lambda: wav(PCM[: 2 * 1600]))
add(
    "samples/61_minutes",
    "61 minutes at 4 kHz",
    TooLong,
    sparse(14_640_044, wav(b"", rate_hz=4_000, bits=8, data_size=14_640_000)),
)
add(
    "samples/wide",
    "88 s in 16 channels at 384 kHz: over 2 GiB of floats",
    TooLong,
    sparse(2**29 + 1024 + 44, wav(b"", rate_hz=384_000, bits=8, channels=16, data_size=2**29 + 1024)),
)
add("samples/anti_phase", "stereo whose channels cancel", Sound(), lambda: stereo(TONE, -TONE))
add("samples/nearly_anti_phase", "stereo whose channels cancel to 1 %", Sound(), lambda: stereo(TONE, -0.98 * TONE))
add("samples/one_side_empty", "stereo with an empty right channel", Sound(1.0, -15), lambda: stereo(TONE, 0 * TONE))
add(
    "samples/one_of_16",
    "16 channels, of which one sounds",
    Sound(),
    lambda: float_wav(np.outer(TONE, np.arange(16) == 11), channels=16),
)
add("samples/silence", "digital silence", Silence(), lambda: wav(b"\0" * 32_000))
add("samples/dc_alone", "a constant of 0.5", Sound(1.0, -6), lambda: float_wav(np.full(16_000, 0.5)))
add("samples/dc_and_tone", "a tone on a constant of 0.4", Sound(1.0, -5.5), lambda: float_wav(TONE + 0.4))
add("samples/clipped", "a tone clipped to a square", Sound(1.0, -0.5), lambda: float_wav(np.clip(20 * TONE, -1, 1)))


def stereo(left: np.ndarray, right: np.ndarray) -> bytes:
    return float_wav(np.stack([left, right], axis=1), channels=2)


# -- FLAC ---------------------------------------------------------------------------------------------------
def flac_info(rate_hz=RATE_HZ, channels=1, bits=16, n_frames=RATE_HZ) -> bytes:
    """FLAC with the packed 64 bits of its stream information rewritten."""
    return patch(flac(), 18, u64(rate_hz << 44 | channels - 1 << 41 | bits - 1 << 36 | n_frames))


for percent in (20, 50, 90, 99):
    add(
        f"flac/cut_{percent}",
        f"only {percent} % of the file is there",
        DamagedAudio,
        lambda p=percent: cut(flac(), p / 100),
    )
add("flac/magic_alone", "the four letters fLaC and no more", TruncatedAudio, lambda: b"fLaC")
add("flac/header_alone", "the stream information and no frame", TruncatedAudio, lambda: flac()[:42])
add("flac/promise_doubled", "promises twice its samples", DamagedAudio, lambda: flac_info(n_frames=32_000))
add("flac/promise_halved", "promises half its samples", DamagedAudio, lambda: flac_info(n_frames=8_000))
add("flac/promise_endless", "promises 2**36 - 1 samples", TooLong, lambda: flac_info(n_frames=2**36 - 1))
add("flac/promise_none", "promises nothing, which the format allows", Sound(), lambda: flac_info(n_frames=0))
add("flac/rate_0", "the header says 0 Hz, each frame 16 kHz", DamagedAudio, lambda: flac_info(rate_hz=0))
add("flac/rate_1", "the header says 1 Hz, each frame 16 kHz", DamagedAudio, lambda: flac_info(rate_hz=1))
add(
    "flac/rate_1048575",
    "the header says 1,048,575 Hz, each frame 16 kHz",
    DamagedAudio,
    lambda: flac_info(rate_hz=2**20 - 1),
)
add("flac/rate_doubled", "the header says 32 kHz, each frame 16 kHz", DamagedAudio, lambda: flac_info(rate_hz=32_000))
add("flac/channels_8", "the header says 8 channels, each frame 1", DamagedAudio, lambda: flac_info(channels=8))
add("flac/bits_4", "the header says 4 bits, each frame 16", DamagedAudio, lambda: flac_info(bits=4))
add("flac/bits_32", "the header says 32 bits", UnsupportedFormat, lambda: flac_info(bits=32))
add("flac/bits_24", "the header says 24 bits, each frame 16", DamagedAudio, lambda: flac_info(bits=24))
add("flac/checksum_wrong", "the MD5 of its samples is wrong", DamagedAudio, lambda: patch(flac(), 30, b"x"))
add("flac/checksum_none", "no MD5, which the format allows", Sound(), lambda: patch(flac(), 26, b"\0" * 16))
add(
    "flac/bit_flipped",
    "one bit in the middle",
    DamagedAudio,
    lambda: middle(flac(), bytes([flac()[len(flac()) // 2] ^ 1])),
)
add("flac/hole", "500 zeros in the middle", DamagedAudio, lambda: middle(flac(), b"\0" * 500))
add("flac/noise", "500 random bytes in the middle", DamagedAudio, lambda: middle(flac(), noise(500)))
add("flac/piece_lost", "1,000 bytes lost in the middle", DamagedAudio, lambda: flac()[:4000] + flac()[5000:])
add("flac/piece_twice", "1,000 bytes repeated in the middle", DamagedAudio, lambda: flac()[:5000] + flac()[4000:])
add("flac/tail", "an ID3v1 tag behind the last frame", Sound(), lambda: flac() + b"TAG" + b"\0" * 125)
add("flac/id3", "an ID3v2 tag before it", Sound(), lambda: id3(500) + flac())
add("flac/metadata_endless", "a metadata block of 16 MiB", TruncatedAudio, lambda: patch(flac(), 43, b"\xff\xff\xff"))
add("flac/information_missing", "begins with another metadata block", DamagedAudio, lambda: patch(flac(), 4, b"\x04"))

# -- OGG ----------------------------------------------------------------------------------------------------
for percent in (30, 50, 90, 99):
    add(
        f"ogg/cut_{percent}",
        f"only {percent} % of the file is there",
        TruncatedAudio,
        lambda p=percent: cut(ogg(), p / 100),
    )
    add(
        f"opus/cut_{percent}",
        f"only {percent} % of the file is there",
        TruncatedAudio,
        lambda p=percent: cut(opus(), p / 100),
    )
add("ogg/cut_at_page", "the last page is missing", TruncatedAudio, lambda: b"".join(pages(ogg())[:-1]))
add("ogg/first_page_alone", "the first page and no more", TruncatedAudio, lambda: pages(ogg())[0])
add("ogg/last_mark_missing", "no page is marked as the last", TruncatedAudio, lambda: repaged(ogg(), -1, 5, b"\0"))
add(
    "ogg/bit_flipped", "one bit in the middle", DamagedAudio, lambda: middle(ogg(), bytes([ogg()[len(ogg()) // 2] ^ 1]))
)
add("ogg/hole", "200 zeros in the middle", DamagedAudio, lambda: middle(ogg(), b"\0" * 200))
add(
    "ogg/page_lost",
    "a page in the middle is missing",
    DamagedAudio,
    lambda: b"".join(pages(ogg())[:2] + pages(ogg())[3:]),
)
add("ogg/page_twice", "a page is there twice", DamagedAudio, lambda: b"".join(pages(ogg())[:3] + pages(ogg())[2:]))
add(
    "ogg/pages_swapped",
    "two pages have changed places",
    DamagedAudio,
    lambda: b"".join(pages(ogg())[i] for i in (0, 1, 3, 2, *range(4, len(pages(ogg()))))),
)
add(
    "ogg/noise_between",
    "random bytes between two pages",
    DamagedAudio,
    lambda: pages(ogg())[0] + noise(99) + b"".join(pages(ogg())[1:]),
)
add("ogg/zeros_behind", "zeros behind the last page", Sound(12.0), lambda: ogg() + b"\0" * 500)
add("ogg/chained", "two recordings one behind the other", UnsupportedFormat, lambda: ogg() + opus())
add("ogg/stream_changed", "a page of another stream", UnsupportedFormat, lambda: repaged(ogg(), 2, 14, b"abcd"))
add("ogg/film", "a film (Theora)", UnsupportedFormat, lambda: repaged(ogg(), 0, 28, b"\x80theora"))
add("ogg/speex", "Speex", UnsupportedFormat, lambda: repaged(ogg(), 0, 28, b"Speex   "))
add("ogg/rate_0", "a rate of 0 Hz", UnsupportedFormat, lambda: repaged(ogg(), 0, 40, u32(0)))
add("ogg/rate_1", "a rate of 1 Hz", UnsupportedFormat, lambda: repaged(ogg(), 0, 40, u32(1)))
add(
    "ogg/rate_4294967295",
    "a rate of 4,294,967,295 Hz",
    UnsupportedFormat,
    lambda: repaged(ogg(), 0, 40, u32(2**32 - 1)),
)
add("ogg/channels_0", "0 channels", UnsupportedFormat, lambda: repaged(ogg(), 0, 39, b"\0"))
add("ogg/channels_255", "255 channels", UnsupportedFormat, lambda: repaged(ogg(), 0, 39, b"\xff"))
add("ogg/blocks_senseless", "block sizes of 2**15 and 2**0", DamagedAudio, lambda: repaged(ogg(), 0, 56, b"\x0f"))
add(
    "ogg/promise_doubled",
    "the last page counts twice the samples",
    TruncatedAudio,
    lambda: repaged(ogg(), -1, 6, struct.pack("<q", 384_000)),
)
add(
    "ogg/promise_endless",
    "the last page counts 2**62 samples",
    TooLong,
    lambda: repaged(ogg(), -1, 6, struct.pack("<q", 2**62)),
)
add("opus/channels_0", "0 channels", UnsupportedFormat, lambda: repaged(opus(), 0, 37, b"\0"))
add("opus/family", "an unknown channel mapping", DamagedAudio, lambda: repaged(opus(), 0, 46, b"\xfe"))
add(
    "opus/bit_flipped",
    "one bit in the middle",
    DamagedAudio,
    lambda: middle(opus(), bytes([opus()[len(opus()) // 2] ^ 1])),
)
add(
    "opus/promise_doubled",
    "the last page counts twice the samples",
    TruncatedAudio,
    lambda: repaged(opus(), -1, 6, struct.pack("<q", 1_152_000)),
)
add(
    "ogg/time_goes_back",
    "a page counts fewer samples than the one before",
    DamagedAudio,
    lambda: repaged(ogg(), -2, 6, struct.pack("<q", 9)),
)
add(
    "opus/all_skipped",
    "tells the player to skip all of it",
    EmptyAudio,
    lambda: repaged(encoded("OGG", "OPUS"), 0, 38, u16(65_535)),
)


# -- MP3 ----------------------------------------------------------------------------------------------------
def mp3_frames() -> list[bytes]:
    """The frames of the MP3; all have the same length but for one byte of padding."""
    from lib.decoding.streams import mp3_frame

    data, found = mp3(), []
    while data:
        n_bytes = mp3_frame(data[:4])[0]
        found.append(data[:n_bytes])
        data = data[n_bytes:]
    return found


def plain_mp3() -> bytes:
    """MP3 without the tag frame that counts the others."""
    return b"".join(mp3_frames()[1:])


for percent in (20, 50, 90, 99):
    add(
        f"mp3/cut_{percent}",
        f"only {percent} % of the file is there",
        TruncatedAudio,
        lambda p=percent: cut(mp3(), p / 100),
    )
add("mp3/cut_at_frame", "10 frames of 30, the tag counts 30", TruncatedAudio, lambda: b"".join(mp3_frames()[:11]))
add("mp3/untagged_cut", "no tag, cut in half", TruncatedAudio, lambda: plain_mp3()[: len(plain_mp3()) // 2 + 7])
add(
    "mp3/untagged_cut_at_frame",
    "no tag, cut between frames: nothing was promised",
    Sound(0.72),
    lambda: b"".join(mp3_frames()[1:21]),
)
add(
    "mp3/tag_doubled", "the tag counts twice the frames", TruncatedAudio, lambda: after(mp3(), b"Xing", 4, u32(60, ">"))
)
add(
    "mp3/tag_endless",
    "the tag counts 2**32 - 1 frames",
    TruncatedAudio,
    lambda: after(mp3(), b"Xing", 4, u32(2**32 - 1, ">")),
)
add("mp3/hole", "200 zeros in the middle", DamagedAudio, lambda: middle(mp3(), b"\0" * 200))
add("mp3/noise", "200 random bytes in the middle", DamagedAudio, lambda: middle(mp3(), noise(200)))
add("mp3/piece_lost", "100 bytes lost in the middle", DamagedAudio, lambda: mp3()[:1000] + mp3()[1100:])
add(
    "mp3/sync_lost",
    "one frame's first byte is wrong",
    DamagedAudio,
    lambda: patch(mp3(), len(b"".join(mp3_frames()[:9])), b"\0"),
)
add(
    "mp3/rate_changes",
    "the rate changes in the middle",
    DamagedAudio,
    lambda: patch(mp3(), len(b"".join(mp3_frames()[:9])) + 2, b"\x84"),
)
add("mp3/rate_reserved", "the reserved rate", NotAudio, lambda: patch(mp3(), 2, b"\x8c"))
add("mp3/free_format", "free-format frames, whose length nobody states", NotAudio, lambda: patch(mp3(), 2, b"\x08"))
add("mp3/one_frame", "one frame of 36 ms", TooShort, lambda: mp3_frames()[2])
add("mp3/id3_endless", "an ID3v2 tag that claims 256 MiB", NotAudio, lambda: id3(100, claimed=2**28 - 1) + mp3())
add("mp3/id3_alone", "an ID3v2 tag and no sound", NotAudio, lambda: id3(2000))
add("mp3/id3_before", "an ID3v2 tag before it", Sound(), lambda: id3(2000) + mp3())
add("mp3/id3_behind", "an ID3v1 tag behind it", Sound(), lambda: mp3() + b"TAG" + b"\0" * 125)
add("mp3/noise_behind", "random bytes behind it", DamagedAudio, lambda: mp3() + noise(300))
add("mp3/picture_behind", "a picture behind it", DamagedAudio, lambda: mp3() + b"\x89PNG\r\n\x1a\n" + noise(3000))
add(
    "mp3/frame_bomb",
    "1.2 million frames of 24 bytes",
    TooLong,
    lambda: b"\xff\xf3\x14\xc4".ljust(24, b"\0") * 1_200_000,
)
add(
    "mp3/two_joined",
    "two recordings of different rates joined",
    DamagedAudio,
    lambda: mp3() + by_ffmpeg("mp3", "-ar", "44100"),
)

# -- AIFF and CAF -------------------------------------------------------------------------------------------
for percent in (50, 99):
    add(
        f"aiff/cut_{percent}",
        f"only {percent} % of the file is there",
        TruncatedAudio,
        lambda p=percent: cut(aiff(), p / 100),
    )
    add(
        f"caf/cut_{percent}",
        f"only {percent} % of the file is there",
        TruncatedAudio,
        lambda p=percent: cut(caf(), p / 100),
    )
add("aiff/promise_doubled", "promises twice its frames", TruncatedAudio, lambda: aiff(n_frames=32_000))
add("aiff/promise_endless", "promises 2**32 - 1 frames", TruncatedAudio, lambda: aiff(n_frames=2**32 - 1))
add("aiff/promise_none", "promises 0 frames", EmptyAudio, lambda: aiff(n_frames=0))
add("aiff/rate_0", "a rate of 0 Hz", UnsupportedFormat, lambda: aiff(rate=extended(0, 0)))
add("aiff/rate_1", "a rate of 1 Hz", UnsupportedFormat, lambda: aiff(rate=extended(1 << 63, 16383)))
add("aiff/rate_infinite", "an infinite rate", UnsupportedFormat, lambda: aiff(rate=extended(1 << 63, 0x7FFF)))
add(
    "aiff/rate_negative",
    "a negative rate",
    UnsupportedFormat,
    lambda: aiff(rate=extended(RATE_HZ << 50, 0x8000 | 16396)),
)
for channels in (0, -1, 17, 32_767):
    add(
        f"aiff/channels_{channels}",
        f"{channels} channels",
        UnsupportedFormat,
        lambda c=channels: aiff(channels=c, n_frames=0 if c > 17 else 1),
    )
add("aiff/bits_12", "12 bits", UnsupportedFormat, lambda: aiff(bits=12))
add("aiff/codec", "an unknown codec", UnsupportedFormat, lambda: aiff(codec=b"MAC6"))
add("aiff/offset", "the samples begin behind the file's end", TruncatedAudio, lambda: aiff(offset=2**31))
add("aiff/no_description", "no description", TruncatedAudio, lambda: aiff(order=("SSND",)))
add("aiff/no_sound", "no sound", TruncatedAudio, lambda: aiff(order=("COMM",)))
add(
    "aiff/sound_first",
    "the description behind the sound, which is allowed",
    Sound(),
    lambda: aiff(order=("SSND", "COMM")),
)
add("aiff/little_endian", "little-endian samples (sowt)", Sound(), lambda: aiff(PCM, codec=b"sowt"))
add("aiff/ima_cut", "IMA ADPCM, cut in half", TruncatedAudio, lambda: cut(encoded("AIFF", "IMA_ADPCM"), 0.5))
add("caf/size_open", "a data size of -1, which means to the end", Sound(), lambda: caf(size=-1))
add("caf/size_negative", "a data size of -5", DamagedAudio, lambda: caf(size=-5))
add("caf/size_endless", "a data size of 2**62", TruncatedAudio, lambda: caf(size=2**62))
for rate_hz in (0.0, -16_000.0, 1e300, np.inf, np.nan):
    add(f"caf/rate_{rate_hz}", f"a rate of {rate_hz} Hz", UnsupportedFormat, lambda r=rate_hz: caf(rate=r))
add("caf/channels_0", "0 channels", UnsupportedFormat, lambda: caf(channels=0, packet=(0, 1)))
add("caf/channels_endless", "2**32 - 1 channels", DamagedAudio, lambda: caf(channels=2**32 - 1))
add("caf/packets", "packets of 3 bytes for one sample of 2", DamagedAudio, lambda: caf(packet=(3, 1)))
add("caf/bits_12", "12 bits", UnsupportedFormat, lambda: caf(bits=12))
add("caf/codec", "an unknown codec", UnsupportedFormat, lambda: caf(codec=b"abcd"))
add("caf/no_description", "no description", TruncatedAudio, lambda: patch(caf(), 8, b"free"))
add("caf/ima_cut", "IMA ADPCM, cut in half", TruncatedAudio, lambda: cut(by_ffmpeg("caf", "-c:a", "adpcm_ima_qt"), 0.5))
add("caf/ima_whole", "IMA ADPCM as telephones recorded it", Sound(), lambda: by_ffmpeg("caf", "-c:a", "adpcm_ima_qt"))

# -- MPEG-4, 3GP, WebM, AMR ---------------------------------------------------------------------------------
for percent in (10, 50, 90, 99):
    add(
        f"m4a/cut_{percent}",
        f"only {percent} % of the file is there",
        TruncatedAudio,
        lambda p=percent: cut(m4a(), p / 100),
    )
    add(
        f"3gp/cut_{percent}",
        f"only {percent} % of the file is there",
        TruncatedAudio,
        lambda p=percent: cut(three_gp(), p / 100),
    )
    add(
        f"webm/cut_{percent}",
        f"only {percent} % of the file is there",
        TruncatedAudio,
        lambda p=percent: cut(webm(), p / 100),
    )
add("m4a/index_first_cut", "index first, sound cut in half", TruncatedAudio, lambda: cut(m4a(faststart=True), 0.6))
add("m4a/type_alone", "the type box and no more", TruncatedAudio, lambda: m4a()[:28])
add("m4a/hole", "zeros in place of half the sound", DamagedAudio, lambda: after(m4a(), b"mdat", 2000, b"\0" * 3000))
add(
    "m4a/noise",
    "random bytes in place of half the sound",
    DamagedAudio,
    lambda: after(m4a(), b"mdat", 2000, noise(3000)),
)
add(
    "m4a/box_endless",
    "a box of 2**63 bytes",
    TruncatedAudio,
    lambda: m4a()[:28] + u32(1, ">") + b"free" + u64(2**63) + m4a()[28:],
)
add(
    "m4a/box_tiny",
    "a box that claims 4 bytes, less than its own header",
    DamagedAudio,
    lambda: m4a()[:28] + u32(4, ">") + b"free" + m4a()[28:],
)
add(
    "m4a/box_bomb",
    "200,000 empty boxes",
    DamagedAudio,
    lambda: m4a()[:28] + (u32(8, ">") + b"free") * 200_000 + m4a()[28:],
)
add("m4a/encrypted", "bought and encrypted (enca)", UnsupportedFormat, lambda: m4a().replace(b"mp4a", b"enca"))
add("m4a/codec", "an unknown codec", UnsupportedFormat, lambda: m4a().replace(b"mp4a", b"abcd"))
add(
    "m4a/promise_times_10",
    "promises ten times its length",
    TruncatedAudio,
    lambda: after(m4a(), b"mdhd", 16, u32(160_000, ">")),
)
add(
    "m4a/promise_endless", "promises 2**32 - 2 samples", TooLong, lambda: after(m4a(), b"mdhd", 16, u32(2**32 - 2, ">"))
)
add("m4a/rate_1", "a rate of 1 Hz", UnsupportedFormat, lambda: after(m4a(), b"mp4a", 24, struct.pack(">H", 1)))
add(
    "m4a/film_alone",
    "a film without sound",
    UnsupportedFormat,
    lambda: by_ffmpeg("mp4", "-t", "1", "-c:v", "mpeg4", source="color=s=32x32"),
)
add(
    "3gp/hole",
    "zeros in place of part of the sound",
    DamagedAudio,
    lambda: after(three_gp(), b"mdat", 100, b"\x7c" * 600),
)
add("3gp/whole", "AMR as telephones recorded it", Sound(1.0, -10.5), lambda: three_gp())
add("webm/header_alone", "the first line and no more", TruncatedAudio, lambda: webm()[:40])
add(
    "webm/piped",
    "written into a pipe: no sizes, no length",
    Sound(),
    lambda: by_ffmpeg("webm", "-c:a", "libopus", "-live", "1"),
)
add("webm/noise", "random bytes in the sound", DamagedAudio, lambda: patch(webm(), -3000, noise(2000)))
add("webm/codec", "an unknown codec", UnsupportedFormat, lambda: webm().replace(b"A_OPUS", b"A_ABCD"))
add(
    "webm/no_tracks",
    "no list of tracks",
    UnsupportedFormat,
    lambda: webm().replace(b"\x16\x54\xae\x6b", b"\x16\x54\xae\x6c"),
)
add("amr/whole", "AMR as telephones recorded it", Sound(1.0, -10.5), lambda: amr())
add("amr/magic_alone", "the magic line and no frame", EmptyAudio, lambda: b"#!AMR\n")
for percent in (50, 99):
    add(
        f"amr/cut_{percent}",
        f"only {percent} % of the file is there",
        TruncatedAudio,
        lambda p=percent: cut(amr(), p / 100 - 0.003),
    )
add("amr/frame_bomb", "3 million frames of 1 byte that hold nothing", TooLong, lambda: b"#!AMR\n" + b"\x7c" * 3_000_000)
add("mp3/tag_bomb", "600,000 empty ID3 tags behind it", TooLong, lambda: mp3() + id3(0) * 600_000)
add("amr/reserved", "a frame of a reserved type", DamagedAudio, lambda: patch(amr(), 6 + 32 * 10, b"\x64"))
add("amr/noise", "random bytes behind the magic line", DamagedAudio, lambda: b"#!AMR\n" + noise(3000))

if __name__ == "__main__":
    from bad_audio_table import main

    main()
