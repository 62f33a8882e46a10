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

from lib.decoding.errors import DamagedAudio, TruncatedAudio
from lib.decoding.head import Head

INTEGERS, FLOATS = {8: "PCM_U8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32"}, {32: "FLOAT", 64: "DOUBLE"}
CODECS = {1: INTEGERS, 3: FLOATS, 6: {8: "ALAW"}, 7: {8: "ULAW"}}
EXTENSIBLE, GUID_TAIL = 0xFFFE, bytes.fromhex("000000001000800000aa00389b71")  # KSDATAFORMAT_SUBTYPE_*
OPEN_BYTES = 0x7FFF0000  # sizes from here up are what ffmpeg, sox and arecord write into a pipe
MAX_CHUNKS = 4096
BLOCK_BYTES = 2**20
STRAY_SECONDS = 0.1  # less than this behind the sound is a tag or padding
TAGS = (b"TAG", b"ID3", b"APET", b"LIST", b"bext", b"id3 ", b"cue ", b"iXML", b"_PMX")


@dataclass
class Wav:
    """One layout, and the parts of the file, (offset, bytes), that hold sound in it."""

    layout: dict
    sample_rate_hz: int
    frame_bytes: int
    parts: list[tuple[int, int]] = field(default_factory=list)
    n_promised: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def head(self) -> Head:
        """What is promised, by the header or by what the file holds."""
        return Head("WAV", self.layout["subtype"], self.sample_rate_hz, self.layout["channels"], self.n_promised)

    @property
    def n_held(self) -> int:
        """Samples per channel that the file holds."""
        return sum(n_bytes // self.frame_bytes for _, n_bytes in self.parts) if self.frame_bytes else 0

    def blocks(self, descriptor: int) -> Iterator[np.ndarray]:
        """Yield float32 (n_samples, n_channels)."""
        step = max(BLOCK_BYTES // self.frame_bytes, 1) * self.frame_bytes
        for offset, n_bytes in self.parts:
            stop = offset + n_bytes - n_bytes % self.frame_bytes
            for start in range(offset, stop, step):
                data = io.BytesIO(os.pread(descriptor, min(step, stop - start), start))
                yield soundfile.read(data, dtype="float32", always_2d=True, format="RAW", **self.layout)[0]


def read_wav(descriptor: int, path: Path) -> Wav | None:
    """Find the sound of a WAV file; None where it is none, or where its codec is not plain.

    Read to the end of the file: sound whose size is given as 2 GiB and more. Read on: into a second data chunk, a
    second recording behind the first, and sound behind a size that is 0 or too small. Each leaves a remark. Raise
    TruncatedAudio where it ends before any sound, DamagedAudio where its sound comes before its description.
    """
    if not (order := _order(descriptor, 0)):
        return None
    wav, offset = None, 12
    for _ in range(MAX_CHUNKS):
        head = os.pread(descriptor, 8, offset)
        if len(head) < 8:
            raise TruncatedAudio("it ends before any sound data", path)
        name, n_bytes = struct.unpack(order + "4sI", head)
        if name == b"fmt " and (wav := _layout(os.pread(descriptor, min(n_bytes, 40), offset + 8), order)) is None:
            return None
        if name == b"data":
            break
        offset += 8 + n_bytes + (n_bytes & 1)
    else:
        raise DamagedAudio(f"it has more than {MAX_CHUNKS} chunks before its sound", path)
    if wav is None:
        raise DamagedAudio("its data comes before any description of it", path)
    _find_sound(wav, descriptor, order, offset + 8, n_bytes)
    return wav


def _order(descriptor: int, offset: int) -> str:
    head = os.pread(descriptor, 12, offset)
    return {b"RIFF": "<", b"RIFX": ">"}.get(head[:4], "") if head[8:12] == b"WAVE" else ""


def _layout(data: bytes, order: str) -> Wav | None:
    if len(data) < 16:
        return None
    tag, channels, rate_hz, byte_rate, block, bits = struct.unpack_from(order + "HHIIHH", data)
    if tag == EXTENSIBLE and data[26:] == GUID_TAIL:
        (tag,) = struct.unpack_from(order + "H", data, 24)
    if (codec := CODECS.get(tag, {}).get(bits)) is None:
        return None
    endian, frame_bytes = "LITTLE" if order == "<" else "BIG", channels * bits // 8
    layout = {"subtype": codec, "channels": channels, "endian": endian, "samplerate": 48_000}
    wav = Wav(layout, rate_hz, frame_bytes)
    if block != frame_bytes or byte_rate not in (0, rate_hz * frame_bytes):
        wav.remarks.append(f"its header contradicts itself: read as {wav.head}")
    return wav


def _find_sound(wav: Wav, descriptor: int, order: str, offset: int, n_bytes: int) -> None:
    n_file = os.fstat(descriptor).st_size
    wav.parts = [(offset, min(n_bytes, n_file - offset))]
    if n_bytes >= OPEN_BYTES and n_bytes > n_file - offset:
        wav.n_promised = wav.n_held
        wav.remarks.append("its header gives no length of the sound: read to the end of the file")
        return
    wav.n_promised = n_bytes // max(wav.frame_bytes, 1)
    if wav.frame_bytes and offset + n_bytes < n_file:
        _read_on(wav, descriptor, order, offset + n_bytes)
    if len(wav.parts) > 1 and wav.sample_rate_hz:
        says = f"its header says {wav.n_promised / wav.sample_rate_hz:.3f} s of sound"
        wav.n_promised = wav.n_held
        wav.remarks.append(f"{says}, and all {wav.n_held / wav.sample_rate_hz:.3f} s that it holds are read")


def _read_on(wav: Wav, descriptor: int, order: str, offset: int) -> None:
    """Look behind the first data chunk for more sound."""
    n_file = os.fstat(descriptor).st_size
    for _ in range(MAX_CHUNKS):
        if _order(descriptor, offset) == order:  # another recording
            offset += 12
            continue
        padded = offset + 1  # chunks of odd length should be padded, and often are not
        found = _chunk(descriptor, order, offset, n_file) or _chunk(descriptor, order, padded, n_file)
        if found is None:
            is_long = n_file - offset >= STRAY_SECONDS * wav.sample_rate_hz * wav.frame_bytes
            if is_long and not os.pread(descriptor, 4, offset).startswith(TAGS):
                wav.parts.append((offset, n_file - offset))
            return
        name, offset, n_bytes = found
        if name == b"fmt ":
            other = _layout(os.pread(descriptor, min(n_bytes, 40), offset), order)
            if other is None or (other.layout, other.sample_rate_hz) != (wav.layout, wav.sample_rate_hz):
                wav.remarks.append("a second recording in it, of another format, is not read")
                return
        if name == b"data":
            wav.parts.append((offset, n_bytes))
        offset += n_bytes


def _chunk(descriptor: int, order: str, offset: int, n_file: int) -> tuple[bytes, int, int] | None:
    """Return (name, offset of the content, its bytes) of a chunk that begins here and ends within the file."""
    head = os.pread(descriptor, 8, offset)
    if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
        return None
    name, n_bytes = struct.unpack(order + "4sI", head)
    n_present = n_file - offset - 8
    if name == b"data":  # the last one may be cut short
        n_bytes = min(n_bytes, n_present)
    return (name, offset + 8, n_bytes) if n_bytes <= n_present + 1 else None
