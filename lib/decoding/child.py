"""The process in which files are decoded, so that a crash, hang or memory bomb ends here.

Run as a program by `lib.decoding.pool`, which gives it a socket. One JSON message in per file; out come a message with
the head or the refusal, one message for each block of float32 samples, and a last one with the remarks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import av

from lib.decoding.errors import AudioError
from lib.decoding.track import Track

MEMORY_BYTES = 2**31
CPU_SECONDS = 3.0  # what a decoder may use until the first 10 s of sound are there, and for each further 10 s
STEP_SECONDS = 10.0  # FFmpeg needs about 0.03 s for them
ERRORS = (av.error.FFmpegError, RuntimeError, OSError, MemoryError, TypeError, LookupError, ValueError)


def _limit(what: int, soft: int, hard: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS knows some limits only by name
        resource.setrlimit(what, (soft, hard))


class Budget:
    """CPU time granted for a file: the kernel ends the process when it is spent."""

    def __init__(self, out: Connection) -> None:
        self._out, self._done_seconds = out, -STEP_SECONDS
        self.progress(0.0)

    def progress(self, seconds: float) -> None:
        """Grant more after each 10 s of sound, and tell the parent that all is well."""
        if not self._done_seconds <= seconds < self._done_seconds + STEP_SECONDS:  # lower: another track
            usage = resource.getrusage(resource.RUSAGE_SELF)
            granted = int(usage.ru_utime + usage.ru_stime + CPU_SECONDS) + 1
            _limit(resource.RLIMIT_CPU, granted, resource.RLIM_INFINITY)
            self._done_seconds = seconds
            self._out.send_bytes(b".")


def _serve(out: Connection, request: dict) -> dict:
    """Send what a file holds; return the last message."""
    n_frames, is_counted = 0, request["count_only"]
    try:
        with av.logging.Capture() as logs:
            track = Track(Path(request["path"]), logs, Budget(out).progress)
            head = track.open()
            head.check(track.path, max_seconds=request["max_seconds"])
            out.send_bytes(json.dumps({"head": dataclasses.asdict(head)}).encode())
            for block in track.blocks() if not is_counted or head.n_frames is None else ():
                n_frames += len(block)
                if not is_counted:
                    out.send_bytes(b"data" + block.tobytes())
    except AudioError as error:
        return {"error": type(error).__name__, "what": error.what}
    except ERRORS as error:
        return {"error": "DamagedAudio", "what": f"its decoder gives up ({error or type(error).__name__})"}
    return {"remarks": track.remarks, "n_frames": n_frames, "n_filled": track.n_filled}


def main() -> None:
    """Serve requests until the parent closes the socket."""
    for what, most in {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_AS: MEMORY_BYTES}.items():
        _limit(what, most, most)
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    connection = Connection(int(sys.argv[1]))
    connection.send_bytes(b"{}")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            request = json.loads(connection.recv_bytes())
            connection.send_bytes(json.dumps(_serve(connection, request)).encode())


if __name__ == "__main__":
    main()
