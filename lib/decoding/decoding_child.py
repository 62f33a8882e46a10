"""The process in which libsndfile decodes compressed audio, so that a crash, hang or memory bomb ends here.

Run as a program by `lib.decoding.decoding_pool`. One JSON line in per recording; out come a JSON line (rate and channels, or
the error), blocks of float32 samples each behind its size in bytes, a size of 0, and a last JSON line. It ends with its
input.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
import sys
from typing import BinaryIO

import soundfile

BLOCK_FRAMES = 65_536
MEMORY_BYTES = 2**31
ERRORS = (soundfile.SoundFileError, RuntimeError, OSError, MemoryError, TypeError, ValueError)


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS knows some limits only by name
        resource.setrlimit(what, (soft, soft if hard is None else hard))


def _limit_seconds(seconds: float) -> None:
    """Allow `seconds` of CPU time from now on; the kernel ends the process when they are spent."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime + seconds) + 1, resource.RLIM_INFINITY)


def _say(out: BinaryIO, message: dict) -> None:
    out.write(json.dumps(message).encode() + b"\n")
    out.flush()


def _reason(error: Exception) -> str:
    return getattr(error, "error_string", "") or str(error) or type(error).__name__


def _send(out: BinaryIO, path: str, max_frames: int) -> None:
    try:
        sound = soundfile.SoundFile(os.fsencode(path))
    except ERRORS as error:
        _say(out, {"error": _reason(error)})
        return
    with sound:
        _say(out, {"sample_rate_hz": sound.samplerate, "channels": sound.channels})
        problem = _send_blocks(out, sound, max_frames)
    out.write(struct.pack("<I", 0))
    _say(out, problem)


def _send_blocks(out: BinaryIO, sound: soundfile.SoundFile, max_frames: int) -> dict:
    n_frames, frame_bytes = 0, 4 * sound.channels
    block = memoryview(bytearray(BLOCK_FRAMES * frame_bytes))
    try:
        while n_frames < max_frames:
            wanted = block[: min(BLOCK_FRAMES, max_frames - n_frames) * frame_bytes]
            n_read = sound.buffer_read_into(wanted, dtype="float32")
            if not n_read:
                break
            out.write(struct.pack("<I", n_read * frame_bytes))
            out.write(block[: n_read * frame_bytes])
            n_frames += n_read
    except ERRORS as error:
        return {"error": _reason(error)}
    return {}


def main() -> None:
    """Serve requests until the input ends."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    out = sys.stdout.buffer
    _say(out, {"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_seconds(request["cpu_seconds"])
        _send(out, request["path"], request["max_frames"])


if __name__ == "__main__":
    main()
