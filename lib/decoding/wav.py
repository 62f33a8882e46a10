"""Read plain PCM in RIFF/WAVE, whatever its size fields say: recorders that died leave them wrong.

Pure Python over bounded reads. All else in WAV (ADPCM, MP3, ...) is left to FFmpeg. Source: Microsoft mmreg.h.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile

from lib.decoding.errors import DamagedAudio, Head

INTEGERS, FLOATS = {8: "PCM_U8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32"}, {32: "FLOAT", 64: "DOUBLE"}
CODECS = {1: INTEGERS, 3: FLOATS, 6: {8: "ALAW"}, 7: {8: "ULAW"}}
EXTENSIBLE, GUID_TAIL = 0xFFFE, bytes.fromhex("000000001000800000aa00389b71")  # KSDATAFORMAT_SUBTYPE_*
ORDERS = {b"RIFF": "<", b"RIFX": ">"}  # FFmpeg reads RIFX as noise
OPEN_BYTES = 0x7FFF0000  # sizes from here up are what ffmpeg, sox and arecord write into a pipe
MAX_CHUNKS = 4096
STRAY_SECONDS = 0.1  # less than this behind the sound is a tag or padding
TAGS = (b"TAG", b"ID3", b"APET", b"LIST", b"bext", b"id3 ", b"cue ", b"iXML", b"_PMX", b"RIF")


@dataclass
class Wav:
    """A description of sound, and the parts of the file, (offset, bytes), that hold sound of this kind."""

    head: Head
    endian: str
    frame_bytes: int
    remarks: list[str]
    parts: list[tuple[int, int]] = field(default_factory=list)

    def blocks(self, descriptor: int) -> Iterator[np.ndarray]:
        """Yield float32 (n_samples, n_channels)."""
        raw = {"format": "RAW", "subtype": self.head.codec, "channels": self.head.channels, "endian": self.endian}
        step = self.head.n_window * self.frame_bytes
        for offset, n_bytes in self.parts:
            stop = offset + n_bytes - n_bytes % self.frame_bytes
            for start in range(offset, stop, step):
                data = io.BytesIO(os.pread(descriptor, min(step, stop - start), start))
                yield soundfile.read(data, dtype="float32", always_2d=True, samplerate=48_000, **raw)[0]


def read_wav(descriptor: int, path: Path) -> Wav | None:
    """Find the sound of a WAV file; None where it is none, or where its codec is not plain.

    Read to the end of the file: sound whose size is given as 2 GiB and more. Read on: into a second data chunk, a
    second recording behind the first, and sound behind a size that is 0 or too small. Each leaves a remark. Raise
    DamagedAudio where no sound is found, UnsupportedFormat where rate or channels make no sense.
    """
    head, n_file = os.pread(descriptor, 12, 0), os.fstat(descriptor).st_size
    if head[:4] not in ORDERS or head[8:] != b"WAVE":
        return None
    wav, order, sizes = None, ORDERS[head[:4]], list[int]()
    for name, offset, n_bytes in _chunks(descriptor, order, n_file):
        if name == b"fmt ":
            other = _layout(os.pread(descriptor, min(n_bytes, 40), offset), order)
            if (wav := wav or other) is None:
                return None
            if other is None or other.head != wav.head:
                wav.remarks.append("a second recording in it, of another format, is not read")
                break
            wav.head.check(path)
        elif wav:
            is_long = n_bytes >= STRAY_SECONDS * wav.head.sample_rate_hz * wav.frame_bytes
            is_sound = not name and is_long and not os.pread(descriptor, 4, offset).startswith(TAGS)
            if name == b"data" or is_sound:
                sizes.append(n_bytes)
                wav.parts.append((offset, min(n_bytes, n_file - offset)))
    if wav is None or not sizes:
        raise DamagedAudio("no sound data is found in it", path)
    n_frames, n_said = sum(n_bytes // wav.frame_bytes for _, n_bytes in wav.parts), sizes[0] // wav.frame_bytes
    if is_wrong := len(sizes) > 1 or (sizes[0] >= OPEN_BYTES and sizes[0] > wav.parts[0][1]):
        said, held = n_said / wav.head.sample_rate_hz, n_frames / wav.head.sample_rate_hz
        wav.remarks.append(f"its header says {said:.3f} s of sound, and all {held:.3f} s that it holds are read")
    wav.head = replace(wav.head, n_frames=n_frames if is_wrong else n_said)
    return wav


def _chunks(descriptor: int, order: str, n_file: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, offset of the content, its bytes) of each chunk, without a name for a rest that is none.

    A recording is entered, data may be cut short. Chunks of odd length should be padded, and often are not.
    """
    offset = 0
    for _ in range(MAX_CHUNKS):
        for start in (offset, offset + 1):
            head = os.pread(descriptor, 12, start)
            name, n_bytes = struct.unpack_from(order + "4sI", head.ljust(8, b"\0"))
            if name in ORDERS and head[8:] == b"WAVE":
                n_bytes = 4
            is_name = len(head) >= 8 and all(32 <= byte < 127 for byte in name)
            if is_name and (name == b"data" or start + 8 + n_bytes <= n_file + 1):
                yield name, start + 8, n_bytes
                break
        else:
            yield b"", offset, n_file - offset
            return
        offset = start + 8 + n_bytes


def _layout(data: bytes, order: str) -> Wav | None:
    fields = struct.unpack(order + "HHIIHH8xH14s", data.ljust(40, b"\0"))
    tag, channels, rate_hz, byte_rate, block, bits, kind, guid = fields
    is_extensible = tag == EXTENSIBLE and guid == GUID_TAIL
    if (codec := CODECS.get(kind if is_extensible else tag, {}).get(bits)) is None:
        return None
    head, frame_bytes = Head("WAV", codec, rate_hz, channels), channels * bits // 8
    is_odd = block != frame_bytes or byte_rate not in (0, rate_hz * frame_bytes)
    remarks = [f"its header contradicts itself: read as {head}"] if is_odd else []
    return Wav(head, "LITTLE" if order == "<" else "BIG", frame_bytes, remarks)
