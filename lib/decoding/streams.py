"""Read containers made of packets without decoding them: OGG, MP3 and AMR.

Their headers promise little, so the packets themselves are walked: a page or frame that is missing, cut or fails its
checksum is found here, where decoders skip it in silence.

Sources: RFC 3533 (Ogg), RFC 7845 (Opus in Ogg), Vorbis I section 4.2.2, ISO 11172-3 and 13818-3 (MPEG audio), RFC 4867
section 5 (AMR files).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from lib.decoding.audio_errors import DamagedAudio, TooLong, TruncatedAudio, UnsupportedFormat
from lib.decoding.containers import OPUS_RATE_HZ, Header, Source

OGG_FIRST, OGG_LAST = 2, 4
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
MP3_KBPS = {  # by (version is MPEG-1, layer); layer I is not accepted: nobody uses it and noise resembles it
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MP3_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
AMR_FRAME_BYTES = {  # RFC 4867, by frame type; 15 is "no data"
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1),
}
MAX_PACKETS = 2**19  # pages or frames walked in one file: 3 hours of frames of 20 ms
MAX_BYTES = 2**28  # of a file that is walked


def _whole(source: Source) -> bytes:
    if source.n_bytes > MAX_BYTES:
        raise TooLong(f"the file has {source.n_bytes} bytes, the maximum is {MAX_BYTES}", source.path)
    return source.take(0, source.n_bytes)


def _check_walk(source: Source, n_packets: int) -> None:
    if n_packets > MAX_PACKETS:
        raise TooLong(f"it has more than {MAX_PACKETS} frames or tags", source.path)


def read_ogg(source: Source) -> Header:
    """Walk every OGG page: checksum, order, one stream, and the last page marked as the last.

    Raises
    ------
    TruncatedAudio, DamagedAudio, UnsupportedFormat
        No last page; a page lost or its checksum wrong; chained or mixed streams, or another codec.
    """
    data = _whole(source)
    codec, rate_hz, channels, n_skip = _ogg_codec(source, data[28:64] if len(data) > 27 and data[26] == 1 else b"")
    end, is_last, last_serial, expected = 0, False, data[14:18], 0
    for flags, position, serial, number in _ogg_pages(source, data):
        if serial != last_serial or (flags & OGG_FIRST and number):
            raise UnsupportedFormat("it holds several streams, chained or mixed", source.path)
        if number != expected or number > MAX_PACKETS:
            raise DamagedAudio(f"page {expected} of its stream is missing", source.path)
        if -1 < position < end:
            raise DamagedAudio(f"page {number} of its stream goes back in time", source.path)
        expected, is_last = number + 1, bool(flags & OGG_LAST)
        end = max(end, position)
    if not is_last:
        raise TruncatedAudio(f"it ends after page {expected} without the page marked as the last", source.path)
    return Header("OGG", codec, rate_hz, channels, max(end - n_skip, 0), "sndfile", slack_frames=960)


def _ogg_codec(source: Source, packet: bytes) -> tuple[str, int, int, int]:
    if packet.startswith(b"\x01vorbis") and len(packet) >= 16:
        channels, rate_hz = struct.unpack_from("<BI", packet, 11)
        return "VORBIS", rate_hz, channels, 0
    if packet.startswith(b"OpusHead") and len(packet) >= 12:
        channels, n_skip = struct.unpack_from("<BH", packet, 9)
        return "OPUS", OPUS_RATE_HZ, channels, n_skip
    raise UnsupportedFormat("its first stream is neither Vorbis nor Opus", source.path)


def _ogg_pages(source: Source, data: bytes) -> Iterator[tuple[int, int, bytes, int]]:
    """Yield (flags, position, serial, number) of each page whose checksum holds."""
    offset = 0
    while offset < len(data):
        if data[offset : offset + 4] != b"OggS":
            if not data[offset:].strip(b"\0"):
                return  # padding after the last page
            raise DamagedAudio(f"no page begins at byte {offset}", source.path)
        n_lacing = data[offset + 26] if offset + 27 <= len(data) else 0
        stop = offset + 27 + n_lacing + sum(data[offset + 27 : offset + 27 + n_lacing])
        if offset + 27 + n_lacing > len(data) or stop > len(data):
            raise TruncatedAudio(f"its page at byte {offset} is cut short", source.path)
        flags, position, serial, number, checksum = struct.unpack_from("<Bq4sII", data, offset + 5)
        if _ogg_checksum(data[offset : offset + 22] + b"\0\0\0\0" + data[offset + 26 : stop]) != checksum:
            raise DamagedAudio(f"the checksum of its page at byte {offset} is wrong", source.path)
        yield flags, position, serial, number
        offset = stop


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of RFC 3533: zlib's polynomial, bits mirrored, no inversion."""
    mirrored = zlib.crc32(page.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(MIRRORED), "big")


def read_mp3(source: Source, offset: int) -> Header:
    """Walk every MPEG audio frame: none may be lost, cut short, or missing by the count of a Xing tag.

    Recordings without that tag go to ffmpeg: libsndfile guesses their length from the first frame and stops there,
    which lost nine tenths of a variable-rate recording.
    """
    data = _whole(source)
    rate_hz, channels, layer, samples = _mp3_first(source, data, offset)
    n_tagged, n_silent = _xing_tag(data[offset : offset + 256])
    n_frames, n_tags = 0, 0
    while offset < len(data):
        frame = mp3_frame(data[offset : offset + 4])
        if frame is None or frame[1:] != (rate_hz, layer, samples):
            if (n_tag := mp3_tag_bytes(data[offset : offset + 32])) or not data[offset:].strip(b"\0"):
                offset, n_tags = offset + (n_tag or len(data)), n_tags + 1
                _check_walk(source, n_tags)
                continue
            raise DamagedAudio(f"no frame begins at byte {offset}, after {n_frames} frames", source.path)
        if offset + frame[0] > len(data):
            raise TruncatedAudio(f"its last frame, at byte {offset}, is cut short", source.path)
        offset += frame[0]
        n_frames += 1
        _check_walk(source, n_frames)
    n_audio = n_frames - (n_tagged is not None)  # the frame that carries the tag is not sound
    if n_tagged and n_audio < n_tagged:
        raise TruncatedAudio(f"it promises {n_tagged} frames and holds {n_audio}", source.path)
    n_samples, decoder = max(n_audio * samples - n_silent, 0), "sndfile" if n_tagged else "ffmpeg"
    return Header("MP3", f"MPEG_LAYER_{'I' * layer}", rate_hz, channels, n_samples, decoder, slack_frames=2 * samples)


def mp3_tag_bytes(head: bytes) -> int:
    """Return the size of the ID3v1, ID3v2 or APE tag that begins here, 0 where none does."""
    if head.startswith(b"TAG"):
        return 128
    if head.startswith(b"ID3") and len(head) >= 10:
        return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    if head.startswith(b"APETAGEX") and len(head) == 32:
        size, _, flags = struct.unpack_from("<III", head, 12)
        return size + 32 if flags & 1 << 29 else 32
    return 0


def mp3_frame(head: bytes) -> tuple[int, int, int, int] | None:
    """Return (bytes, rate_hz, layer, samples) of an MPEG audio frame from its four header bytes, or None."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate_index, kbps_index, padding = head[2] >> 2 & 3, head[2] >> 4, head[2] >> 1 & 1
    if version == 1 or layer not in (2, 3) or rate_index == 3 or not 0 < kbps_index < 15:
        return None
    rate_hz, kbps = MP3_RATES_HZ[version][rate_index], MP3_KBPS[version == 3, layer][kbps_index - 1]
    samples = 576 if layer == 3 and version != 3 else 1152
    return samples * 125 * kbps // rate_hz + padding, rate_hz, layer, samples


def _mp3_first(source: Source, data: bytes, offset: int) -> tuple[int, int, int, int]:
    frame = mp3_frame(data[offset : offset + 4])
    if frame is None:
        raise DamagedAudio(f"no frame begins at byte {offset}", source.path)
    return frame[1], 1 if data[offset + 3] >> 6 == 3 else 2, frame[2], frame[3]


def _xing_tag(frame: bytes) -> tuple[int | None, int]:
    """Return the frames that a Xing or Info tag counts (0 if none, None without a tag) and the samples of padding.

    LAME writes the encoder's delay and padding, 12 bits each, 141 bytes into a tag that has all its fields.
    """
    at = max(frame.find(b"Xing", 4, 44), frame.find(b"Info", 4, 44))
    if at < 0 or len(frame) < at + 144:
        return None, 0
    flags, n_frames = struct.unpack_from(">II", frame, at + 4)
    is_lame = flags & 15 == 15 and frame[at + 120 : at + 124].isalnum()
    delays = int.from_bytes(frame[at + 141 : at + 144], "big") if is_lame else 0
    return n_frames if flags & 1 else 0, (delays >> 12) + (delays & 0xFFF)


def read_amr(source: Source, magic: bytes) -> Header:
    """Walk every AMR frame of 20 ms (RFC 4867, section 5.3)."""
    data, sizes = _whole(source), AMR_FRAME_BYTES[magic]
    offset, n_frames = len(magic), 0
    while offset < len(data):
        size = sizes[data[offset] >> 3 & 15]
        if not size or data[offset] & 0x83:
            raise DamagedAudio(f"no frame begins at byte {offset}, after {n_frames} frames", source.path)
        if offset + size > len(data):
            raise TruncatedAudio(f"its last frame, at byte {offset}, is cut short", source.path)
        offset, n_frames = offset + size, n_frames + 1
        _check_walk(source, n_frames)
    rate_hz = 8_000 if magic == b"#!AMR\n" else 16_000
    return Header(
        "AMR", "AMR-NB" if rate_hz == 8_000 else "AMR-WB", rate_hz, 1, n_frames * rate_hz // 50, "ffmpeg", 640
    )
