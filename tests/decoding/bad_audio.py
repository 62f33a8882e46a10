"""A corpus of odd and hostile audio: each case is a line that says what is wrong and what must come of it.

Three outcomes: read, read with a remark, refused by a named error.
"""

# ruff: noqa: F403, F405 - every builder of audio_bytes and every error is used
from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from audio_bytes import *

from lib.decoding.errors import *


@dataclass(frozen=True)
class Sound:
    """An acceptable result: so much sound at a level (None: any), and what its remarks hold (None: there are none)."""

    seconds: float = 1.0
    rms_db: float | None = -9.0
    remark: str | None = None


@dataclass(frozen=True)
class BadAudio:
    """One case: `make` gives the file's bytes, or puts something at the path that it is given."""

    name: str
    what_is_wrong: str
    expected: type[Exception] | Sound
    make: Callable[[], bytes] | Callable[[Path], Path | None]

    def build(self, folder: Path) -> Path:
        """Make the case in a folder and return the path to give to a reader."""
        path = folder / self.name.replace("/", "_")
        if self.make.__code__.co_argcount > len(self.make.__defaults__ or ()):  # it wants the path
            return self.make(path) or path
        path.write_bytes(self.make())
        return path


CASES: list[BadAudio] = []
READ, SILENCE = Sound(), Sound(1.0, -np.inf)
GONE, BROKEN, ODD = MissingAudio, DamagedAudio, UnsupportedFormat


def noted(seconds: float = 1.0, rms_db: float | None = -9.0, remark: str = "") -> Sound:
    """Read with a remark that holds this."""
    return Sound(seconds, rms_db, remark)


def add(name, what_is_wrong, expected, make):
    CASES.append(BadAudio(name, what_is_wrong, expected, make))


def cuts(name, make, outcomes):
    """A file cut to some percentages of its bytes."""
    for percent, expected in outcomes.items():
        what = f"only {percent} % of the file is there"
        add(f"{name}/cut_{percent}", what, expected, lambda p=percent: cut(make(), p / 100))


def each(pattern, what, expected, values, make):
    """One case for each value of one field."""
    for value in values:
        add(pattern.format(value), what.format(value), expected, lambda v=value: make(v))


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
    return lambda path: (path.write_bytes(head), os.truncate(path, n_bytes))[1]


def bind_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:  # a socket's address is short
        server.bind(path.name)


def named(path: Path, name: str, data: bytes | None = None) -> Path:
    path = path.with_name(name)
    path.write_bytes(wav() if data is None else data)
    return path


# -- no regular file ----------------------------------------------------------------------------------------
add("path/missing", "there is nothing at the path", GONE, lambda path: path)
add("path/folder", "the path is a folder", GONE, lambda path: path.mkdir())
add("path/empty_string", "an empty string, which means the current folder", GONE, lambda path: Path())
add("path/named_pipe", "a named pipe that nobody writes to", GONE, lambda path: os.mkfifo(path))
add("path/link_to_pipe", "a link to a pipe", GONE, lambda p: (os.mkfifo(f"{p}.p"), p.symlink_to(f"{p}.p"))[1])
add("path/endless_device", "a link to /dev/zero, which never ends", GONE, link_to("/dev/zero"))
add("path/null_device", "a link to /dev/null", GONE, link_to("/dev/null"))
add("path/terminal", "a link to /dev/tty", GONE, link_to("/dev/tty"))
add("path/socket", "a socket", GONE, bind_socket)
add("path/dangling_link", "a link to nothing", GONE, link_to("nowhere.wav"))
add("path/link_loop", "a link to itself", GONE, lambda path: path.symlink_to(path))
add("path/too_long", "a name of 5,000 letters", GONE, lambda path: path.with_name("a" * 5000))
add("path/null_byte", "a null byte in the name", GONE, lambda path: path.with_name("a\0b.wav"))
add("path/below_a_file", "a path through a file", GONE, lambda path: (path.write_bytes(wav()), path / "a.wav")[1])
add("path/newline", "a line break in the name of a sound file", READ, lambda path: named(path, "a\nb.wav"))
add("path/undecodable", "no UTF-8", READ, lambda path: named(path, os.fsdecode(b"\xff\xfe.flac"), flac()))
add("path/option", "a name that looks like an option", Sound(1.02), lambda path: named(path, "-i.m4a", m4a()))
add("path/protocol", "a name like a URL of FFmpeg", Sound(1.02), lambda path: named(path, "concat:a|b.m4a", m4a()))
add("path/wrong_suffix", "a FLAC file called .wav", READ, lambda path: named(path, "clip.wav", flac()))
add("path/no_suffix", "a WAV file without a suffix", READ, lambda: wav())

# -- not a recording ----------------------------------------------------------------------------------------
add("bytes/none", "0 bytes", EmptyAudio, lambda: b"")
add("bytes/one", "1 byte", NotAudio, lambda: b"R")
add("bytes/magic_alone", "the four letters RIFF and no more", BROKEN, lambda: b"RIFF")
add("bytes/zeros", "1 MB of zeros, as a broken download leaves", NotAudio, lambda: b"\0" * 1_000_000)
add("bytes/ones", "64 kB of 0xFF, which looks like MP3 synchronisation", NotAudio, lambda: b"\xff" * 65_536)
each("bytes/noise_{}", "100 kB of random bytes", NotAudio, range(6), lambda seed: noise(100_000, seed))
add("bytes/text", "a text file", NotAudio, lambda: b"This is not audio.\n" * 1000)
add("bytes/utf16", "a text file in UTF-16", NotAudio, lambda: "This is not audio. ".encode("utf-16") * 100)
add("bytes/html", "an error page", NotAudio, lambda: b"<!DOCTYPE html><html><h1>404</h1></html>" * 20)
add("bytes/xml", "a cloud store's refusal", NotAudio, lambda: b'<?xml version="1.0"?><Error>AccessDenied</Error>')
add("bytes/json", "the JSON of an API's refusal", NotAudio, lambda: b'{"error": "rate limit exceeded"}')
add("bytes/git_lfs", "a Git LFS pointer", NotAudio, lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
magics = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF", "gif": b"GIF89a", "pdf": b"%PDF-1.7\n"}
magics |= {"zip": b"PK\x03\x04", "gzip": b"\x1f\x8b\x08", "program": b"\x7fELF\x02\x01\x01"}
magics |= {"pickle": b"\x80\x04\x95", "numpy": b"\x93NUMPY\x01\0"}
for name, magic in magics.items():
    add(f"bytes/{name}", f"another kind of file ({name})", NotAudio, lambda magic=magic: magic + noise(5000))
add("bytes/playlist", "a playlist of a local file", NotAudio, lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
add("bytes/concat", "an ffmpeg script of a local file", NotAudio, lambda: b"ffconcat version 1.0\nfile /etc/passwd\n")
add("bytes/avi", "a broken film (RIFF AVI)", ODD, lambda: b"RIFF" + u32(5000) + b"AVI " + noise(5000))
add("bytes/webp", "a picture (RIFF WEBP)", BROKEN, lambda: b"RIFF" + u32(5000) + b"WEBP" + noise(5000))
add("bytes/transport", "an empty broadcast stream", BROKEN, lambda: (b"\x47\x40\x11\x10" + b"\0" * 184) * 100)
add("bytes/sparse_2_gib", "2 GiB that take no room on the disk", TooLong, sparse(2**31, wav(data_size=2**31 - 2**20)))
add("other/midi", "MIDI, which holds notes", NotAudio, lambda: b"MThd\0\0\0\x06\0\x01\0\x01" + noise(500))
add("other/au", "Sun AU", READ, lambda: encoded("AU", "PCM_16"))
add("other/wave64", "Sony Wave64", READ, lambda: encoded("W64", "PCM_16"))
add("other/rf64", "RF64", READ, lambda: encoded("RF64", "PCM_16"))
add("other/rifx", "big-endian WAV", READ, lambda: encoded("WAV", "PCM_16", endian="BIG"))
add("other/wma", "Windows Media", Sound(0.97), lambda: by_av("asf", "wmav2", 44_100, bit_rate=64_000))
add("other/wavpack", "WavPack", READ, lambda: by_av("wv", "wavpack"))
add("other/adts", "bare AAC", Sound(1.09), lambda: by_av("adts", "aac"))
short_of = noted(0.8, remark="promises 1.0000 s and 0.7")
add("other/au_cut", "Sun AU, cut", short_of, lambda: cut(by_av("au", "pcm_s16be"), 0.8))
add("other/wave64_cut", "Wave64, cut", short_of, lambda: cut(by_av("w64", "pcm_s16le"), 0.8))

# -- WAV: less than promised --------------------------------------------------------------------------------
places = (5, 8, 11, 12, 13, 20, 35, 36, 40, 43)
each("wav/cut_at_{}", "cut inside its header, at byte {}", BROKEN, places, lambda n: wav()[:n])
add("wav/cut_before_data", "cut where the samples begin", EmptyAudio, lambda: wav()[:44])
cuts("wav", wav, {10: BROKEN, 50: BROKEN, 90: noted(0.9), 99: noted(0.99)})
add("wav/one_frame_missing", "the last sample is missing", noted(), lambda: wav()[:-2])
add("wav/stereo_half_frame", "half of the last frame is missing", noted(0.5), lambda: wav(channels=2)[:-2])
add("wav/24_bit_cut", "24-bit samples, cut in half", BROKEN, lambda: cut(wav(PCM * 3, bits=24), 0.5))
add("wav/float_cut", "float samples, cut in half", BROKEN, lambda: cut(wav(FLOATS, **FLOAT), 0.5))
add("wav/promise_doubled", "the header promises twice the samples", noted(), lambda: wav(data_size=2 * len(PCM)))
add("wav/promise_1_gib", "the header promises 1 GiB", TooLong, lambda: wav(data_size=2**30))
add("wav/promise_4_gib", "the data size is 0xFFFFFFFF, the RIFF size true", noted(), lambda: wav(data_size=2**32 - 1))
add("wav/mp3_inside_cut", "MP3 in WAV, cut in half", noted(0.576, -10), lambda: cut(by_av("wav", "libmp3lame"), 0.52))
add("wav/adpcm_cut", "ADPCM, cut", noted(0.6), lambda: cut(encoded("WAV", "MS_ADPCM"), 0.6))
add("wav/data_chunk_missing", "a format chunk and nothing else", BROKEN, lambda: riff(chunk(b"fmt ", wav_format())))

# -- WAV: odd, and yet whole --------------------------------------------------------------------------------
big = 2**32 - 1
add("wav/piped_ffmpeg", "both sizes 0xFFFFFFFF, as ffmpeg pipes", noted(), lambda: wav(data_size=big, riff_size=big))
add("wav/piped_zero", "both sizes 0, as recorders leave them", noted(), lambda: wav(data_size=0, riff_size=0))
zero = noted(remark="says 0.000 s")
add("wav/piped_tag", "the data size is 0, tags behind", zero, lambda: wav(data_size=0) + chunk(b"LIST", b"INFOISFT"))
add("wav/piped_sox", "both sizes as sox pipes", noted(), lambda: wav(data_size=0x7FFFF000, riff_size=0x7FFFF024))
add("wav/data_size_zero", "the data size is 0, the RIFF size is not", noted(), lambda: wav(data_size=0, riff_size=4088))
add("wav/data_size_small", "the header says 0.25 s", noted(), lambda: wav(data_size=8_000))
add("wav/riff_size_zero", "the RIFF size is 0, the data size true", READ, lambda: wav(riff_size=0))
add("wav/riff_size_huge", "the RIFF size is too large, the data whole", READ, lambda: wav(riff_size=2**31))
add("wav/riff_size_small", "the RIFF size ends before the data does", READ, lambda: wav(riff_size=100))
add("wav/tail", "an ID3v1 tag and noise behind the data", READ, lambda: wav() + b"TAG" + noise(125))
add("wav/last_frame_partial", "3 bytes behind the last whole frame", READ, lambda: wav(PCM + b"abc"))
add("wav/junk_before", "unknown chunks first", READ, lambda: riff(chunk(b"JUNK", b"\0" * 999) + wav()[12:]))
add("wav/odd_chunk", "a chunk of odd length before the data", READ, lambda: wav(before=chunk(b"LIST", b"abc")))
add("wav/odd_chunk_bare", "the same, not padded", READ, lambda: wav(before=chunk(b"LIST", b"INFOabc")[:-1]))
add("wav/byte_rate_zero", "the byte rate is 0, which some writers leave", READ, lambda: wav(byte_rate=0))
wide = {"tag": 0xFFFE, "bits": 24, "tail": extensible(valid_bits=20)}
add("wav/20_bits_in_24", "20 valid bits in 24", READ, lambda: wav(pcm24(), **wide))
floats = {"tag": 0xFFFE, "bits": 32, "tail": extensible(3, valid_bits=32)}
add("wav/extensible_float", "floats by way of the extensible format", READ, lambda: wav(FLOATS, **floats))
add("wav/slowest", "4,000 Hz, the lowest rate allowed", Sound(4.0), lambda: wav(rate_hz=4_000))
fast = np.repeat(np.frombuffer(PCM, "<i2"), 24).tobytes()
add("wav/fastest", "384,000 Hz, the highest rate allowed", READ, lambda: wav(fast, rate_hz=384_000))
add("wav/second_data_chunk", "two data chunks", noted(2.0), lambda: wav(after=chunk(b"data", PCM)))
add("wav/joined", "three recordings, one behind the other", noted(3.0), lambda: 3 * wav())
add("wav/joined_other", "a recording of another rate behind it", noted(1.0), lambda: wav() + wav(rate_hz=8_000))

# -- WAV: headers that lie ----------------------------------------------------------------------------------
rates = (0, 1, 3_999, 384_001, 2**32 - 1)
each("wav/rate_{}", "a rate of {:,} Hz", ODD, rates, lambda rate: wav(rate_hz=rate, byte_rate=0))
add("wav/rate_wrong", "48 kHz, the byte rate 16 kHz", noted(1 / 3), lambda: wav(rate_hz=48_000, byte_rate=32_000))
each("wav/channels_{}", "{:,} channels", ODD, (0, 17, 255, 32_767), lambda n: wav(channels=n))
add("wav/channels_wrong", "2 channels in frames of one sample", noted(0.5), lambda: wav(channels=2, block=2))
each("wav/bits_{}", "integers of {} bits", ODD, (0, 48, 65_535), lambda bits: wav(bits=bits))
each("wav/bits_{}", "integers of {} bits, read as 8", Sound(2.0, None), (1, 4, 7), lambda bits: wav(bits=bits))
add("wav/bits_12", "integers of 12 bits, in 16", READ, lambda: wav(bits=12))
add("wav/bits_20", "integers of 20 bits, in 24", noted(0.667, None), lambda: wav(bits=20))
add("wav/bits_64", "integers of 64 bits", Sound(0.25, None), lambda: wav(bits=64))
each("wav/float_bits_{}", "floats of {} bits", ODD, (8, 16, 24, 80), lambda bits: wav(tag=3, bits=bits))
each("wav/block_{}", "frames of {:,} bytes for samples of 2", noted(), (0, 1, 3, 65_535), lambda n: wav(block=n))
each("wav/codec_{:04x}", "codec 0x{:04x}, unknown", ODD, (0, 0x674F, 0xFFFF), lambda tag: wav(tag=tag))
add("wav/codec_0050", "MP2 by its header, not by its bytes", BROKEN, lambda: wav(tag=0x50))
add("wav/codec_0161", "Windows Media by its header alone", noted(4.93, None), lambda: wav(tag=0x161))
odd_guid = extensible(guid_tail=b"x" * 14)
add("wav/guid", "extensible with an unknown codec", ODD, lambda: wav(tag=0xFFFE, tail=odd_guid))
add("wav/extensible_short", "extensible without its extension", ODD, lambda: wav(tag=0xFFFE))
short = chunk(b"fmt ", wav_format()[:14]) + chunk(b"data", PCM)
add("wav/format_short", "a format chunk of 14 bytes, read as 8 bits", Sound(2.0, None), lambda: riff(short))
add("wav/format_endless", "a format chunk of 4 GiB", BROKEN, lambda: patch(wav(), 16, u32(big)))
add("wav/format_missing", "data without a format chunk", BROKEN, lambda: riff(chunk(b"data", PCM)))
behind = chunk(b"data", PCM) + chunk(b"fmt ", wav_format())
add("wav/format_behind", "the format chunk behind the data", BROKEN, lambda: riff(behind))
add("wav/chunk_bomb", "100,000 empty chunks before it", BROKEN, lambda: wav(before=chunk(b"JUNK", b"") * 100_000))
endless = chunk(b"LIST", b"abcd", size=2**32 - 8)
add("wav/chunk_endless", "a chunk of 4 GiB before the data", BROKEN, lambda: wav(before=endless))


def adpcm() -> bytes:
    return encoded("WAV", "MS_ADPCM")


add("wav/adpcm_block_zero", "ADPCM in frames of 0 bytes", Sound(1.02, None), lambda: patch(adpcm(), 32, u16(0)))
add("wav/adpcm_channels", "ADPCM that claims 16 channels", BROKEN, lambda: patch(adpcm(), 22, u16(16)))
add("wav/fact_endless", "promises 2**31 samples", TooLong, lambda: after(adpcm(), b"fact", 4, u32(2**31)))
add("wav/fact_doubled", "promises twice its samples", noted(1.01), lambda: after(adpcm(), b"fact", 4, u32(32_000)))


# -- samples ------------------------------------------------------------------------------------------------
def stereo(left: np.ndarray, right: np.ndarray) -> bytes:
    return float_wav(np.stack([left, right], axis=1), channels=2)


def doubles(samples: np.ndarray) -> bytes:
    return wav(samples.astype("<f8").tobytes(), tag=3, bits=64)


nan, inf = np.nan, np.inf
each("samples/{}", "one sample is {}", NonFiniteAudio, (nan, inf, -inf), lambda v: float_wav(spoiled(8_000, v)))
add("samples/nan_all", "all samples are NaN", NonFiniteAudio, lambda: float_wav(TONE * nan))
add("samples/nan_right", "the right channel is NaN", NonFiniteAudio, lambda: stereo(TONE, TONE * nan))
add("samples/double_nan", "a NaN among doubles", NonFiniteAudio, lambda: doubles(spoiled(5, nan)))
add("samples/double_overflow", "doubles of 1e300", NonFiniteAudio, lambda: doubles(TONE.astype("f8") * 1e300))
spike = "one sample of 1e30, beside which the rest is silence"
add("samples/spike", spike, BROKEN, lambda: float_wav(spoiled(8, 1e30)))
add("samples/integers_as_floats", "floats to 32,767", Sound(1.0, -3), lambda: float_wav(TONE * 2 * 32_767))
add("samples/over_full_scale", "floats that run to 4", Sound(1.0, -3), lambda: float_wav(TONE * 8))
add("samples/enormous", "floats to 3e38", BROKEN, lambda: stereo(6e38 * TONE.astype("f8"), 6e38 * TONE.astype("f8")))
add("samples/subnormal", "floats of 1e-40", SILENCE, lambda: float_wav(np.full(16_000, 1e-40)))
nan_aiff = spoiled(9, np.nan).astype(">f4").tobytes()
add("samples/aiff_nan", "a NaN in AIFF", NonFiniteAudio, lambda: aiff(nan_aiff, bits=32, codec=b"fl32"))
nan_caf = {"flags": 3, "packet": (4, 1), "bits": 32}
add("samples/caf_nan", "a NaN in CAF", NonFiniteAudio, lambda: caf(spoiled(9, nan).tobytes(), **nan_caf))
add("samples/none", "0 samples", EmptyAudio, lambda: wav(b""))
add("samples/flac_none", "0 samples in FLAC", EmptyAudio, lambda: encoded("FLAC", "PCM_16", 0.0))
add("samples/one", "1 sample", TooShort, lambda: wav(PCM[:2]))
add("samples/99_ms", "99 ms", TooShort, lambda: wav(PCM[: 2 * 1584]))
add("samples/100_ms", "100 ms, the shortest allowed", Sound(0.1), lambda: wav(PCM[: 2 * 1600]))
hour = {"rate_hz": 4_000, "bits": 8, "data_size": 14_640_000}
add("samples/61_minutes", "61 minutes", Sound(3660.0, None), sparse(14_640_044, wav(b"", **hour)))
hours = {"rate_hz": 4_000, "bits": 8, "data_size": 72_000_000}
add("samples/5_hours", "5 hours, more than is held in memory", TooLong, sparse(72_000_044, wav(b"", **hours)))
many = {"rate_hz": 384_000, "bits": 8, "channels": 16, "data_size": 2**26}
add("samples/wide", "16 channels at 384 kHz", Sound(10.92, None), sparse(2**26 + 44, wav(b"", **many)))
add("samples/anti_phase", "stereo whose channels cancel", READ, lambda: stereo(TONE, -TONE))
add("samples/nearly_anti_phase", "stereo that cancels to 1 %", READ, lambda: stereo(TONE, -0.98 * TONE))
add("samples/one_side_empty", "an empty right channel", Sound(1.0, -15), lambda: stereo(TONE, 0 * TONE))
one_of_16 = np.outer(TONE, np.arange(16) == 11)
add("samples/one_of_16", "16 channels, of which one sounds", READ, lambda: float_wav(one_of_16, channels=16))
add("samples/silence", "digital silence", SILENCE, lambda: wav(b"\0" * 32_000))
add("samples/dc_alone", "a constant of 0.5", Sound(1.0, -6), lambda: float_wav(np.full(16_000, 0.5)))
add("samples/dc_and_tone", "a tone on a constant of 0.4", Sound(1.0, -5.5), lambda: float_wav(TONE + 0.4))
add("samples/clipped", "a tone clipped to a square", Sound(1, -0.5), lambda: float_wav(np.clip(20 * TONE, -1, 1)))


# -- FLAC ---------------------------------------------------------------------------------------------------
def flac_info(rate_hz=RATE_HZ, channels=1, bits=16, n_frames=RATE_HZ) -> bytes:
    """FLAC with the packed 64 bits of its stream information rewritten."""
    return patch(flac(), 18, u64(rate_hz << 44 | channels - 1 << 41 | bits - 1 << 36 | n_frames))


def flipped(data: bytes) -> bytes:
    return middle(data, bytes([data[len(data) // 2] ^ 1]))


cuts("flac", flac, {20: BROKEN, 50: BROKEN, 90: noted(0.768), 99: noted(0.768)})
add("flac/magic_alone", "the four letters fLaC and no more", BROKEN, lambda: b"fLaC")
add("flac/header_alone", "the stream information and no frame", BROKEN, lambda: flac()[:42])
add("flac/promise_doubled", "promises twice its samples", noted(), lambda: flac_info(n_frames=32_000))
add("flac/promise_halved", "promises half its samples", noted(), lambda: flac_info(n_frames=8_000))
add("flac/promise_endless", "promises 2**36 - 1 samples", TooLong, lambda: flac_info(n_frames=2**36 - 1))
add("flac/promise_none", "promises nothing, which the format allows", READ, lambda: flac_info(n_frames=0))
add("flac/rate_0", "the header says 0 Hz, each frame 16 kHz", noted(), lambda: flac_info(rate_hz=0))
add("flac/rate_1", "the header says 1 Hz, each frame 16 kHz", TooLong, lambda: flac_info(rate_hz=1))
add("flac/rate_1048575", "1,048,575 Hz, each frame 16 kHz", noted(), lambda: flac_info(rate_hz=2**20 - 1))
add("flac/rate_doubled", "32 kHz, each frame 16 kHz", noted(), lambda: flac_info(rate_hz=32_000))
add("flac/channels_8", "the header says 8 channels, each frame 1", READ, lambda: flac_info(channels=8))
each("flac/bits_{}", "the header says {} bits, each frame 16", BROKEN, (4, 24, 32), lambda bits: flac_info(bits=bits))
add("flac/checksum_wrong", "the MD5 of its samples is wrong, all frames right", READ, lambda: patch(flac(), 30, b"x"))
add("flac/checksum_none", "no MD5, which the format allows", READ, lambda: patch(flac(), 26, b"\0" * 16))
add("flac/bit_flipped", "one bit in the middle", noted(), lambda: flipped(flac()))
add("flac/hole", "500 zeros in the middle", noted(0.768), lambda: middle(flac(), b"\0" * 500))
add("flac/noise", "500 random bytes in the middle", noted(0.768, None), lambda: middle(flac(), noise(500)))
add("flac/piece_lost", "1,000 bytes lost", noted(1.0, -10), lambda: flac()[:4000] + flac()[5000:])
add("flac/piece_twice", "1,000 bytes repeated", noted(), lambda: flac()[:5000] + flac()[4000:])
add("flac/tail", "an ID3v1 tag behind the last frame", noted(), lambda: flac() + b"TAG" + b"\0" * 125)
add("flac/id3", "an ID3v2 tag before it", READ, lambda: id3(500) + flac())
add("flac/metadata_endless", "a metadata block of 16 MiB", BROKEN, lambda: patch(flac(), 43, b"\xff\xff\xff"))
add("flac/information_missing", "another metadata block first", BROKEN, lambda: patch(flac(), 4, b"\x04"))


# -- OGG ----------------------------------------------------------------------------------------------------
def pages_of(data: bytes, *numbers: int) -> bytes:
    found = pages(data)
    return b"".join(found[number] for number in numbers or range(len(found)))


n_pages = len(pages(ogg()))
cuts("ogg", ogg, {30: BROKEN, 50: BROKEN, 90: noted(10.136), 99: noted(10.136)})
cuts("opus", opus, {30: noted(2.97), 50: noted(4.97), 90: noted(9.97), 99: noted(10.97)})
add("ogg/cut_at_page", "the last page is missing", noted(10.136), lambda: pages_of(ogg(), *range(n_pages - 1)))
add("ogg/first_page_alone", "the first page and no more", BROKEN, lambda: pages(ogg())[0])
add("ogg/last_mark_missing", "no page is marked as the last", noted(12.0), lambda: repaged(ogg(), -1, 5, b"\0"))
add("ogg/bit_flipped", "one bit in the middle", noted(6.92), lambda: flipped(ogg()))
add("ogg/hole", "200 zeros in the middle", noted(6.92), lambda: middle(ogg(), b"\0" * 200))
add("ogg/page_lost", "a page is missing", noted(6.92), lambda: pages_of(ogg(), 0, 1, *range(3, n_pages)))
add("ogg/page_twice", "a page is there twice", noted(17.07), lambda: pages_of(ogg(), 0, 1, 2, *range(2, n_pages)))
swapped = (0, 1, 3, 2, *range(4, n_pages))
add("ogg/pages_swapped", "two pages have changed places", noted(11.99), lambda: pages_of(ogg(), *swapped))
between = pages(ogg())[0] + noise(99) + pages_of(ogg(), *range(1, n_pages))
add("ogg/noise_between", "random bytes between two pages", Sound(12.0), lambda: between)
add("ogg/zeros_behind", "zeros behind the last page", Sound(12.0), lambda: ogg() + b"\0" * 500)
add("ogg/zeros_before", "zeros before the first page", Sound(12.0), lambda: b"\0" * 500 + ogg())
add("ogg/eleven_minutes", "more than ten minutes", Sound(601.0), lambda: by_av("ogg", "flac", 8_000, seconds=601.0))
add("ogg/chained", "Opus behind Vorbis", noted(12.0), lambda: ogg() + opus())
add("ogg/stream_changed", "a page of another stream", BROKEN, lambda: repaged(ogg(), 2, 14, b"abcd"))
add("ogg/film", "a film (Theora) by its first page", BROKEN, lambda: repaged(ogg(), 0, 28, b"\x80theora"))
add("ogg/speex", "Speex by its first page", BROKEN, lambda: repaged(ogg(), 0, 28, b"Speex   "))
each("ogg/rate_{}", "a rate of {:,} Hz", BROKEN, (0, big), lambda rate: repaged(ogg(), 0, 40, u32(rate)))
add("ogg/rate_1", "a rate of 1 Hz", ODD, lambda: repaged(ogg(), 0, 40, u32(1)))
add("ogg/channels_0", "0 channels", BROKEN, lambda: repaged(ogg(), 0, 39, b"\0"))
add("ogg/channels_255", "255 channels", ODD, lambda: repaged(ogg(), 0, 39, b"\xff"))
add("ogg/blocks_senseless", "block sizes of 2**15 and 2**0", BROKEN, lambda: repaged(ogg(), 0, 56, b"\x0f"))
doubled = struct.pack("<q", 384_000)
add("ogg/promise_doubled", "the last page counts twice the samples", noted(12), lambda: repaged(ogg(), -1, 6, doubled))
far = struct.pack("<q", 2**62)
add("ogg/promise_endless", "the last page counts 2**62 samples", TooLong, lambda: repaged(ogg(), -1, 6, far))
early = struct.pack("<q", 9)
add("ogg/time_goes_back", "a page counts fewer samples", noted(12.0), lambda: repaged(ogg(), -2, 6, early))
add("opus/channels_0", "0 channels", BROKEN, lambda: repaged(opus(), 0, 37, b"\0"))
add("opus/family", "an unknown channel mapping", BROKEN, lambda: repaged(opus(), 0, 46, b"\xfe"))
add("opus/bit_flipped", "one bit in the middle", noted(12.0, -10), lambda: flipped(opus()))
twice = struct.pack("<q", 1_152_000)
add("opus/promise_doubled", "the last page counts twice", noted(12.0, None), lambda: repaged(opus(), -1, 6, twice))
skip = u16(65_535)
add("opus/all_skipped", "tells players to skip all of it", BROKEN, lambda: repaged(encoded("OGG", "OPUS"), 0, 38, skip))


# -- MP3 ----------------------------------------------------------------------------------------------------
def mp3_frames() -> list[bytes]:
    """The frames of the MP3, by their first two bytes, which its sound does not hold."""
    return [mp3()[:2] + part for part in mp3().split(mp3()[:2])[1:]]


def frames(start: int, stop: int | None = None) -> bytes:
    return b"".join(mp3_frames()[start:stop])


def xing(n_frames: int) -> bytes:
    return after(mp3(), b"Xing", 4, u32(n_frames, ">"))


cuts("mp3", mp3, {20: NotAudio, 50: BROKEN, 90: noted(0.975), 99: READ})
add("mp3/cut_at_frame", "10 frames of 30, the tag counts 30", BROKEN, lambda: frames(0, 11))
add("mp3/untagged_cut", "no tag, cut: nothing was promised", Sound(0.54), lambda: cut(frames(1), 0.505))
add("mp3/untagged_cut_at_frame", "no tag, cut between frames", Sound(0.72), lambda: frames(1, 21))
add("mp3/tag_doubled", "the tag counts twice the frames", BROKEN, lambda: xing(60))
add("mp3/tag_endless", "the tag counts 2**32 - 1 frames", TooLong, lambda: xing(2**32 - 1))
add("mp3/hole", "200 zeros in the middle", noted(0.759, -10), lambda: middle(mp3(), b"\0" * 200))
add("mp3/noise", "200 random bytes in the middle", noted(0.759, -10), lambda: middle(mp3(), noise(200)))
add("mp3/piece_lost", "100 bytes lost in the middle", noted(0.867, None), lambda: mp3()[:1000] + mp3()[1100:])
ninth = len(frames(0, 9))
add("mp3/sync_lost", "one frame's first byte is wrong", noted(0.939, None), lambda: patch(mp3(), ninth, b"\0"))
add("mp3/rate_changes", "another rate in the middle", noted(0.82, None), lambda: patch(mp3(), ninth + 2, b"\x84"))
add("mp3/rate_reserved", "the first frame, a tag, has a reserved rate", Sound(1.08), lambda: patch(mp3(), 2, b"\x8c"))
add("mp3/free_format", "the first frame, a tag, has no length", READ, lambda: patch(mp3(), 2, b"\x08"))
add("mp3/one_frame", "one frame of 36 ms", BROKEN, lambda: mp3_frames()[2])
add("mp3/id3_endless", "a tag that claims 256 MiB", NotAudio, lambda: id3(100, claimed=2**28 - 1) + mp3())
add("mp3/id3_alone", "an ID3v2 tag and no sound", NotAudio, lambda: id3(2000))
add("mp3/id3_before", "an ID3v2 tag before it", READ, lambda: id3(2000) + mp3())
add("mp3/id3_twice", "two ID3v2 tags before it", READ, lambda: id3(2000) + id3(300) + mp3())
add("mp3/id3_behind", "an ID3v1 tag behind it", READ, lambda: mp3() + b"TAG" + b"\0" * 125)
ape = b"APETAGEX" + struct.pack("<IIII", 2000, 47, 1, 1 << 31) + bytes(8)
add("mp3/ape_behind", "APE tags behind it", READ, lambda: mp3() + ape)
add("mp3/zeros_before", "zeros before the first frame", Sound(1.116), lambda: b"\0" * 1500 + mp3())
add("mp3/noise_behind", "random bytes behind it", noted(1.01), lambda: mp3() + noise(300))
add("mp3/picture_behind", "a picture behind it", noted(1.01), lambda: mp3() + b"\x89PNG\r\n\x1a\n" + noise(3000))
tiny = b"\xff\xf3\x14\xc4".ljust(24, b"\0")
add("mp3/frame_bomb", "20,000 frames of 24 bytes", Sound(480.0, -np.inf), lambda: tiny * 20_000)
add("mp3/tag_bomb", "600,000 empty ID3 tags behind it", noted(1.01), lambda: mp3() + id3(0) * 600_000)
other = by_av("mp3", "libmp3lame", 44_100)
add("mp3/two_joined", "two recordings of different rates", noted(2.1), lambda: mp3() + other)

# -- AIFF and CAF -------------------------------------------------------------------------------------------
cuts("aiff", aiff, {50: BROKEN, 99: noted(0.99)})
cuts("caf", caf, {50: BROKEN, 99: noted(0.99)})
add("aiff/promise_doubled", "promises twice its frames", noted(), lambda: aiff(n_frames=32_000))
add("aiff/promise_endless", "promises 2**32 - 1 frames", BROKEN, lambda: aiff(n_frames=2**32 - 1))
add("aiff/promise_none", "promises 0 frames and holds 1 s", READ, lambda: aiff(n_frames=0))
add("aiff/rate_0", "a rate of 0 Hz", BROKEN, lambda: aiff(rate=extended(0, 0)))
add("aiff/rate_1", "a rate of 1 Hz", ODD, lambda: aiff(rate=extended(1 << 63, 16383)))
add("aiff/rate_infinite", "an infinite rate", BROKEN, lambda: aiff(rate=extended(1 << 63, 0x7FFF)))
add("aiff/rate_negative", "a negative rate", BROKEN, lambda: aiff(rate=extended(RATE_HZ << 50, 0x8000 | 16396)))
add("aiff/channels_0", "0 channels", BROKEN, lambda: aiff(channels=0, n_frames=1))
add("aiff/channels_-1", "-1 channels", EmptyAudio, lambda: aiff(channels=-1, n_frames=1))
add("aiff/channels_17", "17 channels", ODD, lambda: aiff(channels=17, n_frames=1))
add("aiff/channels_32767", "32767 channels", EmptyAudio, lambda: aiff(channels=32_767, n_frames=0))
add("aiff/bits_12", "12 bits, in 16", READ, lambda: aiff(bits=12))
add("aiff/codec", "MACE by its header alone", Sound(12.0, None), lambda: aiff(codec=b"MAC6"))
add("aiff/offset", "the samples begin behind the file's end", EmptyAudio, lambda: aiff(offset=2**31))
add("aiff/no_description", "no description", BROKEN, lambda: aiff(order=("SSND",)))
add("aiff/no_sound", "no sound", EmptyAudio, lambda: aiff(order=("COMM",)))
add("aiff/sound_first", "the description behind the sound", READ, lambda: aiff(order=("SSND", "COMM")))
add("aiff/little_endian", "little-endian samples (sowt)", READ, lambda: aiff(PCM, codec=b"sowt"))
add("aiff/ima_cut", "IMA ADPCM, cut in half", BROKEN, lambda: cut(encoded("AIFF", "IMA_ADPCM"), 0.5))
add("caf/size_open", "a data size of -1, which means to the end", READ, lambda: caf(size=-1))
add("caf/size_negative", "a data size of -5, read to the end", READ, lambda: caf(size=-5))
add("caf/size_endless", "a data size of 2**62, read to the end", noted(), lambda: caf(size=2**62))
each("caf/rate_{}", "a rate of {} Hz", BROKEN, (0.0, -16_000.0, nan), lambda rate: caf(rate=rate))
each("caf/rate_{}", "a rate of {} Hz", ODD, (1e300, inf), lambda rate: caf(rate=rate))
add("caf/channels_0", "0 channels", BROKEN, lambda: caf(channels=0, packet=(0, 1)))
add("caf/channels_endless", "2**32 - 1 channels", BROKEN, lambda: caf(channels=2**32 - 1))
add("caf/packets", "packets of 3 bytes for one sample of 2", noted(1.0, None), lambda: caf(packet=(3, 1)))
add("caf/bits_12", "12 bits, in 16", READ, lambda: caf(bits=12))
add("caf/codec", "an unknown codec", ODD, lambda: caf(codec=b"abcd"))
add("caf/no_description", "no description", BROKEN, lambda: patch(caf(), 8, b"free"))
add("caf/ima_cut", "IMA ADPCM, cut in half", BROKEN, lambda: cut(caf_ima(), 0.5))
add("caf/ima_whole", "IMA ADPCM as telephones recorded it", READ, lambda: caf_ima())

# -- MPEG-4, 3GP, WebM, AMR ---------------------------------------------------------------------------------
cuts("m4a", m4a, {10: BROKEN, 50: BROKEN, 90: ODD, 99: Sound(1.02)})
cuts("3gp", three_gp, {10: BROKEN, 50: BROKEN, 90: ODD, 99: BROKEN})
cuts("webm", webm, {10: BROKEN, 50: BROKEN, 90: noted(0.91), 99: noted(0.99)})
add("m4a/index_first_cut", "index first, cut", noted(0.512), lambda: cut(m4a(movflags="+faststart"), 0.6))
pieces = {"seconds": 9.0, "movflags": "frag_keyframe+empty_moov"}
add("m4a/pieces_cut", "fragments, cut", noted(6.272, remark="promises"), lambda: cut(m4a(**pieces), 0.7))
add("m4a/type_alone", "the type box and no more", BROKEN, lambda: m4a()[:28])
add("m4a/hole", "zeros for half the sound", BROKEN, lambda: after(m4a(), b"mdat", 2000, b"\0" * 3000))
add("m4a/noise", "random bytes for half the sound", BROKEN, lambda: after(m4a(), b"mdat", 2000, noise(3000)))
box = m4a()[:28] + u32(1, ">") + b"free" + u64(2**63) + m4a()[28:]
add("m4a/box_endless", "a box of 2**63 bytes", BROKEN, lambda: box)
small = m4a()[:28] + u32(4, ">") + b"free" + m4a()[28:]
add("m4a/box_tiny", "a box of 4 bytes, less than its own header", BROKEN, lambda: small)
bomb = (u32(8, ">") + b"free") * 200_000
add("m4a/box_bomb", "200,000 empty boxes, which move the sound", BROKEN, lambda: m4a()[:28] + bomb + m4a()[28:])
whole_m4a = Sound(1.02)
add("m4a/encrypted", "called encrypted (enca), and is not", whole_m4a, lambda: m4a().replace(b"mp4a", b"enca"))
add("m4a/codec", "an unknown name of the codec", whole_m4a, lambda: m4a().replace(b"mp4a", b"abcd"))
ten = u32(160_000, ">")
add("m4a/promise_times_10", "its media box promises 10 s", whole_m4a, lambda: after(m4a(), b"mdhd", 16, ten))
add("m4a/promise_endless", "it promises 2**32 - 2", whole_m4a, lambda: after(m4a(), b"mdhd", 16, u32(2**32 - 2, ">")))
add("m4a/rate_1", "its entry says 1 Hz", whole_m4a, lambda: after(m4a(), b"mp4a", 24, struct.pack(">H", 1)))
add("m4a/film_alone", "a film without sound", ODD, film_alone)
no_data = b"\x7c" * 600
add("3gp/hole", "part of the sound is gone", noted(1.01, None), lambda: after(three_gp(), b"mdat", 100, no_data))
add("3gp/whole", "AMR as telephones recorded it", Sound(1.01, -10.5), lambda: three_gp())
add("webm/header_alone", "the first line and no more", BROKEN, lambda: webm()[:40])
add("webm/piped", "written into a pipe: no length", READ, lambda: by_av("webm", "libopus", 48_000, live="1"))
add("webm/noise", "random bytes in the sound", noted(0.73, None), lambda: patch(webm(), -3000, noise(2000)))
add("webm/codec", "an unknown codec", ODD, lambda: webm().replace(b"A_OPUS", b"A_ABCD"))
add("webm/no_tracks", "no list of tracks", ODD, lambda: webm().replace(b"\x16\x54\xae\x6b", b"\x16\x54\xae\x6c"))
add("amr/whole", "AMR as telephones recorded it", Sound(1.02, -10.5), lambda: amr())
add("amr/magic_alone", "the magic line and no frame", EmptyAudio, lambda: b"#!AMR\n")
add("amr/cut_50", "cut in half inside a frame", noted(0.5, -10.5), lambda: cut(amr(), 0.497))
add("amr/cut_99", "cut inside the last frame", noted(1.0, -10.5), lambda: cut(amr(), 0.987))
add("amr/frame_bomb", "300,000 frames that hold nothing", BROKEN, lambda: b"#!AMR\n" + b"\x7c" * 300_000)
add("amr/reserved", "a frame of a reserved type", noted(1.06, None), lambda: patch(amr(), 6 + 32 * 10, b"\x64"))
add("amr/noise", "random bytes behind the magic line", BROKEN, lambda: b"#!AMR\n" + noise(3000))


# -- films --------------------------------------------------------------------------------------------------
def late(kind: str) -> bytes:
    return written(*kind.split(), [tone(48_000)], 48_000, film=True, late=3.0)


def three_tracks(kind: str, n_silent: int) -> bytes:
    return written(*kind.split(), [tone() * (index >= n_silent) for index in range(3)])


begins = "its sound begins"
add("film/late_mp4", "sound that begins 3 s late", noted(1.024, remark=begins), lambda: late("mp4 aac"))
each("film/late_{}", begins, noted(remark=begins), ("matroska libopus", "mov pcm_s16le"), late)
for n_silent in range(3):
    for kind, seconds in {"mp4 aac": 1.024, "matroska flac": 1.0, "mpegts aac": 1.088}.items():
        found = noted(seconds, remark=f"it has 3 sound tracks: number {n_silent + 1}")
        what = f"three sound tracks, the first {n_silent} of them silent"
        add(f"film/{kind}_{n_silent}_silent", what, found, lambda k=kind, n=n_silent: three_tracks(k, n))
