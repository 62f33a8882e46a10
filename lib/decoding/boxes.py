"""Read containers made of nested boxes without decoding them: MPEG-4 (m4a, mp4, 3gp) and Matroska (webm).

Sources: ISO 14496-12 (boxes), Apple QuickTime File Format, RFC 9559 (Matroska), RFC 8794 (EBML).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from lib.decoding.audio_errors import DamagedAudio, TruncatedAudio, UnsupportedFormat
from lib.decoding.containers import OPUS_RATE_HZ, Header, Source

MP4_CODECS = {b"samr": "AMR-NB", b"sawb": "AMR-WB", b"mp4a": "AAC", b"alac": "ALAC", b"Opus": "OPUS", b"fLaC": "FLAC"}
MP4_FOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"mvex")
MAX_BOXES = 100_000
MKV_SEGMENT, MKV_INFO, MKV_TRACKS, MKV_TRACK, MKV_CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0x1F43B675
MKV_SCALE, MKV_DURATION, MKV_TYPE, MKV_CODEC, MKV_AUDIO, MKV_RATE, MKV_CHANNELS = (
    *(0x2AD7B1, 0x4489),
    *(0x83, 0x86, 0xE1, 0xB5, 0x9F),
)
MKV_FOLDERS = (MKV_SEGMENT, MKV_INFO, MKV_TRACKS, MKV_TRACK, MKV_AUDIO)
MKV_CODECS = {b"A_OPUS": "OPUS", b"A_VORBIS": "VORBIS", b"A_AAC": "AAC", b"A_FLAC": "FLAC", b"A_PCM/INT/LIT": "PCM"}


def read_mp4(source: Source) -> Header:
    """Read the first sound track of an MPEG-4 container: m4a, mp4, 3gp.

    Raises
    ------
    TruncatedAudio, UnsupportedFormat
        A box runs over the end of the file or the index is missing; no sound track, or one encrypted or unknown.
    """
    track, has_index = {}, False
    for name, offset, n_bytes in _boxes(source, 0, source.n_bytes):
        has_index |= name == b"moov"
        if name == b"trak" and track.get("handler") != b"soun":
            track = {}
        elif track.get("handler") == b"soun" and "codec" in track:
            continue
        elif name == b"hdlr":
            track.setdefault("handler", source.take(offset + 8, 4))  # QuickTime adds a second one, of the data
        elif name == b"mdhd":
            track["length"] = _mp4_length(source, offset)
        elif name == b"stsd" and n_bytes >= 44:
            track["codec"] = source.take(offset + 12, 4)
            track["channels"], track["rate_hz"] = source.unpack(">H6xH", offset + 32)
    if not has_index:
        raise TruncatedAudio("it ends before its index", source.path)
    return _mp4_header(source, track)


def _mp4_header(source: Source, track: dict) -> Header:
    if track.get("handler") != b"soun" or track.get("codec") not in MP4_CODECS or "length" not in track:
        raise UnsupportedFormat(f"it has no sound track that can be read (codec {track.get('codec')!r})", source.path)
    n_units, units_per_second = track["length"]
    codec = MP4_CODECS[track["codec"]]
    rate_hz = {"AMR-NB": 8_000, "AMR-WB": 16_000, "OPUS": OPUS_RATE_HZ}.get(codec, track["rate_hz"])
    channels = 1 if codec.startswith("AMR") else track["channels"]
    n_frames = round(n_units * rate_hz / units_per_second) if units_per_second else 0
    return Header("MP4", codec, rate_hz, channels, n_frames or None, "ffmpeg", slack_frames=round(0.15 * rate_hz))


def _mp4_length(source: Source, offset: int) -> tuple[int, int]:
    is_long = source.take(offset, 1) == b"\x01"
    scale, n_units = source.unpack(">IQ" if is_long else ">II", offset + (20 if is_long else 12))
    return n_units, scale


def _boxes(source: Source, offset: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, offset of the content, its bytes), entering the boxes that hold others."""
    stops, n_boxes = [stop], 0
    while stops:
        if offset + 8 > stops[-1]:
            offset = stops.pop()
            continue
        n_bytes, name = source.unpack(">I4s", offset)
        n_head = 16 if n_bytes == 1 else 8
        n_bytes = source.unpack(">Q", offset + 8)[0] if n_bytes == 1 else n_bytes or stops[-1] - offset
        if n_bytes < n_head or (n_boxes := n_boxes + 1) > MAX_BOXES:
            raise DamagedAudio(f"its box {name!r} at byte {offset} claims {n_bytes} bytes", source.path)
        if offset + n_bytes > stops[-1]:
            raise TruncatedAudio(
                f"its box {name!r} runs over the end, by {offset + n_bytes - stops[-1]} bytes", source.path
            )
        yield name, offset + n_head, n_bytes - n_head
        if name in MP4_FOLDERS:
            stops.append(offset + n_bytes)
            offset += n_head
        else:
            offset += n_bytes


def read_matroska(source: Source) -> Header:
    """Read the first sound track of a Matroska or WebM container; a length is promised only by some writers."""
    fields: dict[int, bytes] = {}
    for name, offset, n_bytes in _elements(source):
        if name == MKV_TRACK and fields.get(MKV_TYPE) != b"\x02":
            fields = {key: fields[key] for key in (MKV_SCALE, MKV_DURATION) if key in fields}
        elif name not in MKV_FOLDERS and n_bytes <= 64 and name not in fields:
            fields[name] = source.take(offset, n_bytes)
    codec = MKV_CODECS.get(fields.get(MKV_CODEC, b"").strip(b"\0").split(b"/MPEG")[0])
    if fields.get(MKV_TYPE) != b"\x02" or codec is None:
        raise UnsupportedFormat(f"it has no sound track that can be read ({fields.get(MKV_CODEC)!r})", source.path)
    rate_hz = OPUS_RATE_HZ if codec == "OPUS" else _ebml_float(fields.get(MKV_RATE), 8000.0)
    seconds = (
        _ebml_float(fields.get(MKV_DURATION), 0.0) * int.from_bytes(fields.get(MKV_SCALE, b"\x0f\x42\x40"), "big") / 1e9
    )
    n_frames = round(seconds * rate_hz) if 0 < seconds < 1e9 and 0 < rate_hz < 1e9 else None
    channels = int.from_bytes(fields.get(MKV_CHANNELS, b"\x01"), "big")
    return Header(
        "MATROSKA", codec, rate_hz, channels, n_frames, "ffmpeg", slack_frames=round(0.15 * rate_hz) if n_frames else 0
    )


def _elements(source: Source) -> Iterator[tuple[int, int, int]]:
    """Yield (name, offset of the content, its bytes) up to the first cluster of sound, entering the folders we need."""
    offset = 0
    for _ in range(MAX_BOXES):
        head = source.peek(offset, 12)
        if not head:
            return
        name, n_name = _ebml_number(head, keep_marker=True)
        n_bytes, n_size = _ebml_number(head[n_name:], keep_marker=False)
        is_open = n_bytes == (1 << 7 * n_size) - 1  # "unknown size", which live recorders write
        start = offset + n_name + n_size
        if not n_name or not n_size:
            raise (TruncatedAudio if len(head) < 12 else DamagedAudio)(
                f"no element begins at byte {offset}", source.path
            )
        if not is_open and start + n_bytes > source.n_bytes:
            raise TruncatedAudio(f"it promises {start + n_bytes} bytes and holds {source.n_bytes}", source.path)
        if name == MKV_CLUSTER:
            return
        yield name, start, 0 if is_open else n_bytes
        offset = start if name in MKV_FOLDERS else start + n_bytes
    raise DamagedAudio("it has too many elements", source.path)


def _ebml_number(data: bytes, *, keep_marker: bool) -> tuple[int, int]:
    """Return an EBML variable-length number and its bytes; (0, 0) where there is none."""
    n_bytes = 9 - data[0].bit_length() if data else 0
    if not 1 <= n_bytes <= min(8, len(data)):
        return 0, 0
    value = int.from_bytes(data[:n_bytes], "big")
    return value if keep_marker else value & (1 << 7 * n_bytes) - 1, n_bytes


def _ebml_float(data: bytes | None, default: float) -> float:
    layout = {4: ">f", 8: ">d"}.get(len(data or b""))
    return struct.unpack(layout, data)[0] if layout else default
