"""Read plain PCM in RIFF/WAVE, whatever its size fields say: recorders that died leave them wrong.

Pure Python over bounded reads. Everything else in WAV (ADPCM, MP3, ...) is left to FFmpeg. Source: Microsoft mmreg.h.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from lib.decoding.errors import DamagedAudio, EmptyAudio, TruncatedAudio
from lib.decoding.head import Head

CODECS = {
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}
EXTENSIBLE = 0xFFFE
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # KSDATAFORMAT_SUBTYPE_*, after the two bytes of the tag
OPEN_BYTES = 0x7FFF0000  # sizes from here up are what ffmpeg, sox and arecord write into a pipe
MAX_CHUNKS = 4096
BLOCK_BYTES = 2**20
STRAY_SECONDS = 0.1  # less than this behind the sound is a tag or padding
TAGS = (b"TAG", b"ID3", b"APET", b"LIST", b"bext", b"id3 ", b"cue ", b"iXML", b"_PMX")


@dataclass
class Wav:
    """One layout and the parts of the file, (offset, bytes), that hold sound in it."""

    codec: str
    order: str
    sample_rate_hz: int
    channels: int
    frame_bytes: int
    parts: list[tuple[int, int]] = field(default_factory=list)
    n_promised: int | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def head(self) -> Head:
        """What the header promises; where it gives no length, what the file holds."""
        n_frames = sum(n_bytes for _, n_bytes in self.parts) // max(self.frame_bytes, 1)
        n_frames = n_frames if self.n_promised is None else self.n_promised
        return Head("WAV", self.codec, self.sample_rate_hz, self.channels, n_frames, is_exact=True)

    def blocks(self, descriptor: int) -> Iterator[np.ndarray]:
        """Yield float32 (n_samples, n_channels)."""
        step = max(BLOCK_BYTES // self.frame_bytes, 1) * self.frame_bytes
        endian = "LITTLE" if self.order == "<" else "BIG"
        for offset, n_bytes in self.parts:
            stop = offset + n_bytes - n_bytes % self.frame_bytes
            for start in range(offset, stop, step):
                data = io.BytesIO(os.pread(descriptor, min(step, stop - start), start))
                layout = {"samplerate": 48_000, "channels": self.channels, "subtype": self.codec, "endian": endian}
                yield soundfile.read(data, dtype="float32", always_2d=True, format="RAW", **layout)[0]


def read_wav(descriptor: int, path: Path) -> Wav | None:
    """Find the sound of a WAV file; None where it is none, or where its codec is not plain.

    Read to the end of the file: sound whose size is given as 0 or as 2 GiB and more. Read on: into a second data chunk,
    a second recording behind the first, and sound behind a size that is too small. Each leaves a remark.

    Raises
    ------
    TruncatedAudio, DamagedAudio, EmptyAudio
        It ends before any sound; its sound comes before its description; there is none.
    """
    n_file = os.fstat(descriptor).st_size
    if not (order := _riff(descriptor, 0)):
        return None
    wav, offset = None, 12
    for _ in range(MAX_CHUNKS):
        head = os.pread(descriptor, 8, offset)
        if len(head) < 8:
            raise TruncatedAudio("it ends before any sound data", path)
        name, n_bytes = struct.unpack(order + "4sI", head)
        offset += 8
        if name == b"data":
            break
        if name == b"fmt ":
            wav = _layout(os.pread(descriptor, min(n_bytes, 40), offset), order)
            if wav is None:
                return None
        offset += n_bytes + (n_bytes & 1)
    else:
        raise DamagedAudio(f"it has more than {MAX_CHUNKS} chunks before its sound", path)
    if wav is None:
        raise DamagedAudio("its data comes before any description of it", path)
    _find_sound(wav, descriptor, (offset, n_bytes, n_file), path)
    return wav


def _riff(descriptor: int, offset: int) -> str:
    head = os.pread(descriptor, 12, offset)
    return {b"RIFF": "<", b"RIFX": ">"}.get(head[:4], "") if head[8:12] == b"WAVE" else ""


def _layout(data: bytes, order: str) -> Wav | None:
    if len(data) < 16:
        return None
    tag, channels, rate_hz, byte_rate, block, bits = struct.unpack_from(order + "HHIIHH", data)
    if tag == EXTENSIBLE and len(data) == 40 and data[26:40] == GUID_TAIL:
        (tag,) = struct.unpack_from(order + "H", data, 24)
    if (tag, bits) not in CODECS:
        return None
    frame_bytes = channels * bits // 8
    wav = Wav(CODECS[tag, bits], order, rate_hz, channels, frame_bytes)
    if block != frame_bytes or byte_rate not in (0, rate_hz * frame_bytes):
        said = f"{block} bytes to a frame and {byte_rate} to a second"
        wav.remarks.append(f"its header contradicts itself ({said}): read as {wav.head.describe()}")
    return wav


def _find_sound(wav: Wav, descriptor: int, place: tuple[int, int, int], path: Path) -> None:
    offset, n_bytes, n_file = place
    n_present = n_file - offset
    if n_bytes == 0 and _only_chunks(descriptor, offset, n_file, wav.order):
        raise EmptyAudio("it holds no samples", path)
    if n_bytes == 0 or (n_bytes >= OPEN_BYTES and n_bytes > n_present):
        wav.parts = [(offset, n_present)]
        wav.remarks.append(f"its header gives no length of the sound ({n_bytes:#x} bytes): read to the end of the file")
        return
    wav.parts = [(offset, min(n_bytes, n_present))]
    wav.n_promised = n_bytes // wav.frame_bytes if wav.frame_bytes else 0
    if n_bytes < n_present and wav.frame_bytes:
        _read_on(wav, descriptor, offset + n_bytes, n_file)


def _only_chunks(descriptor: int, offset: int, n_file: int, order: str) -> bool:
    """Whether nothing but whole chunks follows, so that a data size of 0 is true."""
    for _ in range(MAX_CHUNKS):
        if offset >= n_file:
            return True
        if (found := _chunk(descriptor, offset, n_file, order)) is None:
            return False
        offset = found[1] + found[2] + (found[2] & 1)
    return False


def _chunk(descriptor: int, offset: int, n_file: int, order: str) -> tuple[bytes, int, int] | None:
    """Return (name, offset of the content, its bytes) of a chunk that lies here and within the file."""
    head = os.pread(descriptor, 8, offset)
    if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
        return None
    name, n_bytes = struct.unpack(order + "4sI", head)
    n_present = n_file - offset - 8
    if name == b"data":  # the last one may be cut short
        n_bytes = min(n_bytes, n_present)
    return (name, offset + 8, n_bytes) if n_bytes <= n_present + 1 else None


def _read_on(wav: Wav, descriptor: int, offset: int, n_file: int) -> None:
    """Look behind the first data chunk for more sound."""
    n_joined = n_more = 0
    for _ in range(MAX_CHUNKS):
        if _riff(descriptor, offset):
            n_joined, offset = n_joined + 1, offset + 12
            continue
        padded = offset + 1  # chunks of odd length should be padded, and often are not
        found = _chunk(descriptor, offset, n_file, wav.order) or _chunk(descriptor, padded, n_file, wav.order)
        if found is None:
            n_more = _stray(wav, os.pread(descriptor, 8, offset), offset, n_file)
            break
        name, offset, n_bytes = found
        if name == b"fmt " and (other := _layout(os.pread(descriptor, min(n_bytes, 40), offset), wav.order)):
            if (other.codec, other.channels, other.sample_rate_hz) != (wav.codec, wav.channels, wav.sample_rate_hz):
                wav.remarks.append(f"a second recording in it, {other.head.describe()}, is not read")
                break
        if name == b"data":
            wav.parts.append((offset, n_bytes))
        offset += n_bytes
    _remark_on_more(wav, n_joined, n_more)


def _stray(wav: Wav, head: bytes, offset: int, n_file: int) -> int:
    """Take what follows for sound where it is long and no tag; return its bytes."""
    n_bytes = n_file - offset
    if head.startswith(TAGS) or n_bytes < STRAY_SECONDS * wav.sample_rate_hz * wav.frame_bytes:
        return 0
    wav.parts.append((offset, n_bytes))
    return n_bytes


def _remark_on_more(wav: Wav, n_joined: int, n_more: int) -> None:
    if len(wav.parts) == 1:
        return
    kinds = {f"{1 + n_joined} recordings, one behind the other": n_joined, "more sound than its header says": n_more}
    what = next((kind for kind, found in kinds.items() if found), f"{len(wav.parts)} data chunks")
    n_frames = sum(n_bytes // wav.frame_bytes for _, n_bytes in wav.parts)
    first, total = wav.n_promised / wav.sample_rate_hz, n_frames / wav.sample_rate_hz
    wav.remarks.append(f"it holds {what}: all {total:.3f} s are read, not {first:.3f} s alone")
    wav.n_promised = n_frames
