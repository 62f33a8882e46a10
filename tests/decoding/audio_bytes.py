"""Build sound files byte by byte, so that any field can lie. The good ones hold a 440 Hz tone of 1 s at 16 kHz."""

from __future__ import annotations

import io
import struct
import tempfile
from fractions import Fraction
from functools import lru_cache, partial

import av
import numpy as np
import soundfile

RATE_HZ = 16_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)).astype(np.float32)
PCM = (TONE * 32767).astype("<i2").tobytes()
FLOATS = TONE.astype("<f4").tobytes()
FLOAT = {"tag": 3, "bits": 32}
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def chunk(name: bytes, content: bytes, *, size: int | None = None, order: str = "<") -> bytes:
    """A RIFF or (order ">") IFF chunk, padded to an even length."""
    n_bytes = len(content) if size is None else size
    return name + struct.pack(order + "I", n_bytes) + content + b"\0" * (len(content) & 1)


def wav_format(*, tag=1, channels=1, rate_hz=RATE_HZ, bits=16, block=None, byte_rate=None, tail=b"") -> bytes:
    block = (channels * bits // 8) & 0xFFFF if block is None else block
    byte_rate = (rate_hz * block) & 0xFFFFFFFF if byte_rate is None else byte_rate
    return struct.pack("<HHIIHH", tag, channels, rate_hz, byte_rate, block, bits) + tail


def wav(data=PCM, *, data_size=None, riff_size=None, before=b"", after=b"", **layout) -> bytes:
    """A WAV file; `data_size` and `riff_size` may contradict what is there."""
    body = chunk(b"fmt ", wav_format(**layout)) + before + chunk(b"data", data, size=data_size) + after
    return riff(body, riff_size)


def riff(body: bytes, riff_size=None) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 4 if riff_size is None else riff_size) + b"WAVE" + body


def extensible(tag=1, *, valid_bits=16, guid_tail=GUID_TAIL) -> bytes:
    return struct.pack("<HHIH", 22, valid_bits, 4, tag) + guid_tail


def float_wav(samples, **layout) -> bytes:
    return wav(np.asarray(samples, "<f4").tobytes(), tag=3, bits=32, **layout)


def spoiled(position: int, value: float) -> np.ndarray:
    """The tone with one sample replaced."""
    samples = TONE.copy()
    samples[position] = value
    return samples


def extended(mantissa: int, exponent: int) -> bytes:
    return struct.pack(">HQ", exponent, mantissa)


RATE_EXTENDED = extended(RATE_HZ << 50, 16383 + 13)


def aiff(
    data=None,
    *,
    channels=1,
    n_frames=RATE_HZ,
    bits=16,
    rate=RATE_EXTENDED,
    codec=None,
    offset=0,
    order=("COMM", "SSND"),
):
    """An AIFF file, or AIFF-C with a codec."""
    data = (TONE * 32767).astype(">i2").tobytes() if data is None else data
    common = struct.pack(">hIh", channels, n_frames, bits) + rate + (codec + b"\0\0" if codec else b"")
    parts = {
        "COMM": chunk(b"COMM", common, order=">"),
        "SSND": chunk(b"SSND", struct.pack(">II", offset, 0) + data, order=">"),
    }
    body = b"".join(parts[name] for name in order)
    return b"FORM" + struct.pack(">I", len(body) + 4) + (b"AIFC" if codec else b"AIFF") + body


def caf(
    data=PCM, *, rate=float(RATE_HZ), codec=b"lpcm", flags=2, packet=(2, 1), channels=1, bits=16, size=None
) -> bytes:
    """A CAF file; flags 1 is float, 2 little-endian."""
    description = struct.pack(">d4sIIIII", rate, codec, flags, *packet, channels, bits)
    size = len(data) + 4 if size is None else size
    head = b"caff\0\1\0\0desc" + struct.pack(">q", 32) + description
    return head + b"data" + struct.pack(">q", size) + b"\0\0\0\0" + data


@lru_cache
def encoded(container: str, codec: str, seconds: float = 1.0, endian: str = "FILE") -> bytes:
    """The tone as libsndfile writes it."""
    buffer = io.BytesIO()
    samples = np.resize(TONE, round(seconds * RATE_HZ))
    soundfile.write(buffer, samples, RATE_HZ, format=container, subtype=codec, endian=endian)
    return buffer.getvalue()


def tone(rate_hz: int = RATE_HZ, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    """The tone at any rate: float32 (n_channels, n_samples)."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.tile((0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32), (channels, 1))


@lru_cache
def by_av(
    container: str, codec: str, rate_hz: int = RATE_HZ, layout: str = "mono", seconds: float = 1.0, **how
) -> bytes:
    """The tone as FFmpeg's libraries write it; `how`: bit_rate, film=True, options of container or codec."""
    channels = av.AudioLayout(layout).nb_channels
    return written(container, codec, [tone(rate_hz, seconds, channels)], rate_hz, layout, **how)


def written(
    container, codec, tracks, rate_hz=RATE_HZ, layout="mono", *, bit_rate=None, film=False, late=0.0, **options
):
    """Samples (n_channels, n_samples), one array for each track, in a container; `late` seconds after its start."""
    file = tempfile.NamedTemporaryFile(suffix=".part")  # noqa: SIM115 - MP4 writers open it again
    with av.open(file.name, "w", format=container, container_options=options) as out:
        streams = [out.add_stream(codec, rate=rate_hz, layout=layout, options=options) for _ in tracks]
        for stream in streams if bit_rate else ():
            stream.bit_rate = bit_rate
        if film:
            _add_film(out, late + tracks[0].shape[1] / rate_hz)
        for stream, samples in zip(streams, tracks, strict=True):
            packed = np.ascontiguousarray(samples.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, round(late * rate_hz), Fraction(1, rate_hz)
            out.mux([*stream.encode(frame), *stream.encode(None)])
    with file:
        return file.read()


def _add_film(out: av.container.OutputContainer, seconds: float) -> None:
    film = out.add_stream("mpeg4", rate=25)
    film.width, film.height = 32, 32
    for _ in range(round(25 * seconds)):
        out.mux(film.encode(av.VideoFrame(32, 32, "yuv420p")))
    out.mux(film.encode(None))


def film_alone(container: str = "mp4") -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        _add_film(out, 1.0)
    return file.getvalue()


flac = partial(encoded, "FLAC", "PCM_16")
ogg = partial(encoded, "OGG", "VORBIS", 12.0)  # long enough for several pages
opus = partial(encoded, "OGG", "OPUS", 12.0)
mp3 = partial(encoded, "MP3", "MPEG_LAYER_III")
m4a = partial(by_av, "ipod", "aac")
three_gp = partial(by_av, "3gp", "libopencore_amrnb", 8_000, bit_rate=12_200)
amr = partial(by_av, "amr", "libopencore_amrnb", 8_000, bit_rate=12_200)
webm = partial(by_av, "webm", "libopus", 48_000)
caf_ima = partial(by_av, "caf", "adpcm_ima_qt")


def cut(data: bytes, share: float) -> bytes:
    """The first part of a file."""
    return data[: round(len(data) * share)]


def patch(data: bytes, offset: int, new: bytes) -> bytes:
    """Bytes overwritten at an offset; negative counts from the end."""
    offset = offset if offset >= 0 else len(data) + offset
    return data[:offset] + new + data[offset + len(new) :]


def after(data: bytes, name: bytes, offset: int, new: bytes) -> bytes:
    """Bytes overwritten `offset` bytes after the first occurrence of a name."""
    return patch(data, data.index(name) + len(name) + offset, new)


def middle(data: bytes, new: bytes) -> bytes:
    return patch(data, len(data) // 2, new)


def noise(n_bytes: int, seed: int = 7) -> bytes:
    return np.random.default_rng(seed).bytes(n_bytes)


def pages(data: bytes) -> list[bytes]:
    """The pages of an OGG file."""
    found = []
    while data:
        n_lacing = data[26]
        n_bytes = 27 + n_lacing + sum(data[27 : 27 + n_lacing])
        found.append(data[:n_bytes])
        data = data[n_bytes:]
    return found


def sealed(page: bytes) -> bytes:
    """An OGG page with the right checksum: CRC-32 of RFC 3533, bit by bit."""
    page = patch(page, 22, b"\0\0\0\0")
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return patch(page, 22, struct.pack("<I", crc))


def repaged(data: bytes, index: int, offset: int, new: bytes) -> bytes:
    """An OGG file with bytes of one page overwritten and its checksum put right."""
    found = pages(data)
    found[index] = sealed(patch(found[index], offset, new))
    return b"".join(found)


def pcm24() -> bytes:
    return b"".join(b"\0" + PCM[index : index + 2] for index in range(0, len(PCM), 2))


def id3(n_bytes: int, *, claimed: int | None = None) -> bytes:
    n_claimed = n_bytes if claimed is None else claimed
    return b"ID3\x04\0\0" + bytes(n_claimed >> shift & 127 for shift in (21, 14, 7, 0)) + b"\0" * n_bytes
