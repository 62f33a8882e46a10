"""Read container headers without decoding: what a file is, and how much audio it promises.

Pure Python over bounded reads, so that nothing here can crash, hang or allocate by a file's wish. This module knows the
containers that state their length in one place, `lib.decoding.streams` those made of packets, `lib.decoding.boxes` those of nested boxes.

Sources: Microsoft RIFF/WAVE (mmreg.h), Apple AIFF-C 1991, Apple Core Audio Format 1.0, RFC 9639 (FLAC).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib.decoding.audio_errors import DamagedAudio, TruncatedAudio, UnsupportedFormat

OPUS_RATE_HZ = 48_000  # Opus is always decoded, and its positions counted, at this rate: RFC 7845 section 4
MAX_CHUNKS = 4096  # more chunks than this is no recording
PLACEHOLDER_BYTES = 0x7FFF0000  # sizes from here up are what ffmpeg, sox and arecord write into a pipe
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # KSDATAFORMAT_SUBTYPE_*, after the two bytes of the tag
WAV_CODECS = {
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}
WAV_PACKED = {0x02: "MS_ADPCM", 0x11: "IMA_ADPCM", 0x31: "GSM610", 0x55: "MPEG_LAYER_III"}
AIFF_CODECS = {
    (b"NONE", 8): ("PCM_S8", "BIG"),
    (b"NONE", 16): ("PCM_16", "BIG"),
    (b"NONE", 24): ("PCM_24", "BIG"),
    (b"NONE", 32): ("PCM_32", "BIG"),
    (b"twos", 16): ("PCM_16", "BIG"),
    (b"sowt", 16): ("PCM_16", "LITTLE"),
    (b"raw ", 8): ("PCM_U8", "BIG"),
    (b"in24", 24): ("PCM_24", "BIG"),
    (b"in32", 32): ("PCM_32", "BIG"),
    (b"fl32", 32): ("FLOAT", "BIG"),
    (b"fl64", 64): ("DOUBLE", "BIG"),
    (b"alaw", 8): ("ALAW", "BIG"),
    (b"ulaw", 8): ("ULAW", "BIG"),
}
CAF_INTEGERS = {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32"}
CAF_FLOATS = {32: "FLOAT", 64: "DOUBLE"}
CAF_PACKED = {b"ima4": "IMA_ADPCM", b"alac": "ALAC", b"aac ": "AAC"}
FLAC_RATES_HZ = dict(  # RFC 9639, section 9.1.2
    enumerate((88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000), start=1)
)
SAMPLE_BYTES = {"PCM_U8": 1, "PCM_S8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


@dataclass(frozen=True)
class Header:
    """What a container promises.

    `n_frames` is the number of samples a channel, None where nothing is promised. `decoder` is "raw" (samples lie in
    the file as they are), "sndfile" or "ffmpeg"; `slack_frames` is how far its result may honestly differ.
    """

    container: str
    codec: str
    sample_rate_hz: float
    channels: int
    n_frames: int | None
    decoder: str
    slack_frames: int = 0
    data_offset: int = 0
    endian: str = "LITTLE"
    md5: bytes = b""
    bits: int = 0


class Source:
    """An open regular file, read in bounded pieces at any offset."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self.descriptor = descriptor
        self.path = path
        self.n_bytes = os.fstat(descriptor).st_size

    def peek(self, offset: int, n_bytes: int) -> bytes:
        """Return up to `n_bytes`; fewer at the end of the file."""
        return os.pread(self.descriptor, n_bytes, offset) if 0 <= offset < self.n_bytes else b""

    def take(self, offset: int, n_bytes: int) -> bytes:
        """Return exactly `n_bytes` or raise TruncatedAudio."""
        data = self.peek(offset, n_bytes)
        while 0 < len(data) < n_bytes and (more := self.peek(offset + len(data), n_bytes - len(data))):
            data += more  # one read returns at most 2 GiB
        if len(data) < n_bytes:
            raise TruncatedAudio(
                f"it ends at byte {self.n_bytes}, inside a part that needs {offset + n_bytes}", self.path
            )
        return data

    def unpack(self, layout: str, offset: int) -> tuple:
        """Return struct fields at an offset."""
        return struct.unpack(layout, self.take(offset, struct.calcsize(layout)))


def read_wav(source: Source) -> Header:
    """Read a RIFF/WAVE header.

    The data size must lie within the file. The one exception is the convention of programs that write into a pipe:
    RIFF and data sizes both 0, or both 0x7FFF0000 and more; then the data ends where the file ends.

    Raises
    ------
    TruncatedAudio, DamagedAudio, UnsupportedFormat
        Less data than promised; contradictory fields; a codec outside the allow-list.
    """
    (riff_bytes,) = source.unpack("<I", 4)
    layout, n_fact = None, None
    for name, offset, n_bytes in _chunks(source, "<4sI", 12):
        if name == b"fmt ":
            layout = _wav_layout(source, offset, n_bytes)
        elif name == b"fact" and n_bytes >= 4:
            (n_fact,) = source.unpack("<I", offset)
        elif name == b"data":
            if layout is None:
                raise DamagedAudio("its data comes before any description of it", source.path)
            is_piped = n_bytes == riff_bytes == 0 or min(n_bytes, riff_bytes) >= PLACEHOLDER_BYTES
            return _wav_header(source, layout, offset, None if is_piped else n_bytes, n_fact)
    raise TruncatedAudio("it ends before any sound data", source.path)


def _wav_layout(source: Source, offset: int, n_bytes: int) -> tuple[int, int, int, int, int]:
    if n_bytes < 16:
        raise DamagedAudio(f"its format chunk has {n_bytes} bytes, needs 16", source.path)
    tag, channels, rate_hz, byte_rate, block, bits = source.unpack("<HHIIHH", offset)
    if tag == 0xFFFE:
        if n_bytes < 40:
            raise DamagedAudio(f"its extensible format chunk has {n_bytes} bytes, needs 40", source.path)
        tag, tail = source.unpack("<H14s", offset + 24)
        if tail != GUID_TAIL:
            raise UnsupportedFormat("its extensible format names an unknown codec", source.path)
    if tag not in WAV_PACKED:
        _check_wav_arithmetic(source, (tag, bits), channels, rate_hz, byte_rate, block)
    return tag, channels, rate_hz, block, bits


def _check_wav_arithmetic(
    source: Source, codec: tuple, channels: int, rate_hz: int, byte_rate: int, block: int
) -> None:
    if codec not in WAV_CODECS:
        raise UnsupportedFormat(f"WAV codec 0x{codec[0]:04x} with {codec[1]} bits is not supported", source.path)
    if block != channels * codec[1] // 8:
        raise DamagedAudio(f"{channels} channels of {codec[1]} bits cannot make frames of {block} bytes", source.path)
    if byte_rate not in (0, rate_hz * block):
        raise DamagedAudio(
            f"{rate_hz} Hz in frames of {block} bytes cannot make {byte_rate} bytes a second", source.path
        )


def _wav_header(source: Source, layout: tuple, offset: int, n_bytes: int | None, n_fact: int | None) -> Header:
    tag, channels, rate_hz, block, bits = layout
    n_present = source.n_bytes - offset
    n_bytes = n_present if n_bytes is None else n_bytes
    if n_bytes > n_present:
        raise TruncatedAudio(f"it promises {n_bytes} bytes of sound and holds {n_present}", source.path)
    if tag in WAV_PACKED:
        return Header("WAV", WAV_PACKED[tag], rate_hz, channels, n_fact, "sndfile", slack_frames=4608)
    n_frames = n_bytes // block if block else 0
    return Header("WAV", WAV_CODECS[tag, bits], rate_hz, channels, n_frames, "raw", data_offset=offset)


def read_aiff(source: Source) -> Header:
    """Read an AIFF or AIFF-C header; the sound chunk must hold the frames that the common chunk promises."""
    is_aifc = source.take(8, 4) == b"AIFC"
    common, sound = None, None
    for name, offset, n_bytes in _chunks(source, ">4sI", 12):
        if name == b"COMM":
            codec = source.take(offset + 18, 4) if is_aifc else b"NONE"
            common = (*source.unpack(">hIh", offset), _extended(source.take(offset + 8, 10)), codec)
        elif name == b"SSND":
            sound = offset + 8 + source.unpack(">I", offset)[0], n_bytes - 8 - source.unpack(">I", offset)[0]
        if common and sound:
            return _aiff_header(source, common, sound)
    raise TruncatedAudio("it ends before its description and its sound are complete", source.path)


def _aiff_header(source: Source, common: tuple, sound: tuple[int, int]) -> Header:
    channels, n_frames, bits, rate_hz, name = common
    name = name if name == b"NONE" else name.lower()
    if name == b"ima4":
        return Header("AIFF", "IMA_ADPCM", rate_hz, channels, n_frames * 64, "sndfile")
    bits = {b"alaw": 8, b"ulaw": 8, b"fl32": 32, b"fl64": 64}.get(name, bits)
    if (name, bits) not in AIFF_CODECS:
        raise UnsupportedFormat(f"AIFF codec {name!r} with {bits} bits is not supported", source.path)
    codec, endian = AIFF_CODECS[name, bits]
    n_present = min(sound[1], source.n_bytes - sound[0])
    if n_frames * channels * bits // 8 > n_present:
        raise TruncatedAudio(
            f"it promises {n_frames * channels * bits // 8} bytes of sound and holds {n_present}", source.path
        )
    return Header("AIFF", codec, rate_hz, channels, n_frames, "raw", data_offset=sound[0], endian=endian)


def read_caf(source: Source) -> Header:
    """Read a Core Audio Format header; a data size of -1 means up to the end of the file, as the format says."""
    description, n_valid = None, None
    for name, offset, n_bytes in _chunks(source, ">4sq", 8):
        if name == b"desc":
            description = source.unpack(">d4sIIIII", offset)
        elif name == b"pakt":
            (n_valid,) = source.unpack(">q", offset + 8)
        elif name == b"data" and description:
            n_present = source.n_bytes - offset
            if n_bytes < -1:
                raise DamagedAudio(f"it promises {n_bytes} bytes of sound", source.path)
            if n_bytes > n_present:
                raise TruncatedAudio(f"it promises {n_bytes} bytes of sound and holds {n_present}", source.path)
            n_data = (n_present if n_bytes == -1 else n_bytes) - 4  # an edit count precedes the samples
            return _caf_header(source, description, offset + 4, n_data, n_valid)
    raise TruncatedAudio("it ends before its description and its sound are complete", source.path)


def _caf_header(source: Source, description: tuple, offset: int, n_data: int, n_valid: int | None) -> Header:
    rate_hz, name, flags, packet_bytes, packet_frames, channels, bits = description
    if name in CAF_PACKED:
        n_frames = n_data // packet_bytes * packet_frames if packet_bytes and n_data > 0 else n_valid
        return Header("CAF", CAF_PACKED[name], rate_hz, channels, n_frames, "ffmpeg", slack_frames=4096)
    codec = (CAF_FLOATS if flags & 1 else CAF_INTEGERS).get(bits) if name == b"lpcm" else None
    codec = {b"alaw": "ALAW", b"ulaw": "ULAW"}.get(name, codec)
    if codec is None:
        raise UnsupportedFormat(f"CAF codec {name!r} with {bits} bits is not supported", source.path)
    block = channels * SAMPLE_BYTES.get(codec, 1)
    if packet_frames != 1 or packet_bytes != block:
        raise DamagedAudio(f"{channels} channels of {codec} cannot make packets of {packet_bytes} bytes", source.path)
    endian = "LITTLE" if flags & 2 else "BIG"
    n_frames = max(n_data, 0) // block if block else 0
    return Header("CAF", codec, rate_hz, channels, n_frames, "raw", data_offset=offset, endian=endian)


def read_flac(source: Source, offset: int) -> Header:
    """Read FLAC's STREAMINFO (RFC 9639, section 8.2) and hold the first frame's rate to it.

    A stream of unstated length goes to ffmpeg, because libsndfile cannot read it to its end.
    """
    kind, size = source.unpack(">B3s", offset + 4)
    if kind & 0x7F or size != b"\x00\x00\x22":
        raise DamagedAudio("it does not begin with the stream information", source.path)
    packed = int.from_bytes(source.take(offset + 18, 8), "big")  # 20 bits rate, 3 channels, 5 bits depth, 36 length
    rate_hz, channels, bits, n_frames = (
        packed >> 44,
        (packed >> 41 & 7) + 1,
        (packed >> 36 & 31) + 1,
        packed & 2**36 - 1,
    )
    md5 = source.take(offset + 26, 16)
    if bits > 24:
        raise UnsupportedFormat(f"FLAC with {bits} bits is not supported", source.path)
    frame_rate_hz = _flac_frame_rate(source, offset + 4)
    if frame_rate_hz not in (None, rate_hz):
        raise DamagedAudio(f"its header says {rate_hz} Hz, its first frame {frame_rate_hz} Hz", source.path)
    decoder = "sndfile" if n_frames else "ffmpeg"
    return Header(
        "FLAC", f"PCM_{bits}", rate_hz, channels, n_frames or None, decoder, md5=md5 if any(md5) else b"", bits=bits
    )


def _flac_frame_rate(source: Source, offset: int) -> int | None:
    """Step over the metadata and return the rate in the first frame, None where it refers to the header."""
    for _ in range(MAX_CHUNKS):
        kind, high, low = source.unpack(">BBH", offset)
        offset += 4 + (high << 16 | low)
        if kind & 0x80:
            break
    sync, codes = source.unpack(">HB", offset)
    if sync & 0xFFFE != 0xFFF8:
        raise DamagedAudio(f"no frame begins at byte {offset}", source.path)
    return FLAC_RATES_HZ.get(codes & 15)


def _chunks(source: Source, layout: str, offset: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, offset of the content, its bytes); AIFF and RIFF pad chunks to even lengths, CAF does not."""
    n_head = struct.calcsize(layout)
    for _ in range(MAX_CHUNKS):
        head = source.peek(offset, n_head)
        if len(head) < n_head:
            return
        name, n_bytes = struct.unpack(layout, head)
        yield name, offset + n_head, n_bytes
        if n_bytes < 0:
            raise DamagedAudio(f"its chunk {name!r} claims {n_bytes} bytes", source.path)
        offset += n_head + n_bytes + (n_bytes & 1 if n_head == 8 else 0)
    raise DamagedAudio(f"it has more than {MAX_CHUNKS} chunks", source.path)


def _extended(data: bytes) -> float:
    """Read an 80-bit IEEE 754 extended number, which AIFF uses for its rate; nonsense becomes 0."""
    exponent, mantissa = struct.unpack(">HQ", data)
    return math.ldexp(mantissa, exponent - 16383 - 63) if 16383 <= exponent < 16383 + 32 else 0.0
