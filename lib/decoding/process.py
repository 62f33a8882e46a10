"""Child processes in which files are decoded, so that a crash, hang or memory bomb ends there; a few wait for work.

One JSON request goes in per file. Out come a message with the head or the refusal, one for each block of float32
samples, and a last one with the remarks; "." in between says that all is well. The child runs this file as a program.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

START_SECONDS = 60.0  # to import numpy, soundfile and av on a busy machine
WALL_SECONDS = 60.0  # between two messages, by the clock of a busy machine
MAX_IDLE = 2
MEMORY_BYTES = 2**31
CPU_SECONDS = 3.0  # what a decoder may use until the first 10 s of sound are there, and for each further 10 s
STEP_SECONDS = 10.0  # FFmpeg needs about 0.03 s for them
PROJECT_DIR = Path(__file__).resolve().parents[2]

_idle: list[Decoder] = []


class Decoder:
    """One child, seen from the parent. TimeoutError or EOFError mean that it is gone: drop this object."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        search = os.pathsep.join(filter(None, (str(PROJECT_DIR), os.environ.get("PYTHONPATH"))))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lib.decoding.process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": search},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C goes to the program that asked, not to the decoder
            )
        self._connection = Connection(ours.detach())
        try:
            self._receive(START_SECONDS)
        except (TimeoutError, EOFError) as error:
            self.close()
            raise RuntimeError(f"The decoder process does not start ({error}): are av and soundfile there?") from error

    def messages(self, path: Path, *, max_seconds: float, head_only: bool) -> Iterator[dict | np.ndarray]:
        """Have a recording decoded: yield its head, blocks of float32 values, and a last message."""
        request = {"path": os.fspath(path.absolute()), "max_seconds": max_seconds, "head_only": head_only}
        with contextlib.suppress(BrokenPipeError):  # the answer will say that it crashed
            self._connection.send_bytes(json.dumps(request).encode())
        is_last = False
        while not is_last:
            data = self._receive(WALL_SECONDS)
            if data[:1] == b"{":
                message = json.loads(data)
                is_last = "head" not in message
                yield message
            elif data != b".":
                yield np.frombuffer(data, np.float32, offset=4)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self._connection.close()
        self.process.wait()

    def _receive(self, seconds: float) -> bytes:
        try:
            if not self._connection.poll(seconds):
                raise TimeoutError(f"no answer for {seconds:.0f} s")
            return self._connection.recv_bytes()
        except (EOFError, ConnectionError) as error:
            code = self.process.wait()
            raise (TimeoutError if code == -signal.SIGXCPU else EOFError)(f"exit code {code}") from error


@contextlib.contextmanager
def borrow_decoder() -> Iterator[Decoder]:
    """Lend a decoder process to this thread; one that failed or was left half-way is ended and not lent again."""
    try:
        decoder = _idle.pop()  # list.pop and append are atomic: no lock needed
    except IndexError:
        decoder = Decoder()
    try:
        yield decoder
    except BaseException:
        decoder.close()
        raise
    if len(_idle) < MAX_IDLE:
        _idle.append(decoder)
    else:
        decoder.close()


os.register_at_fork(after_in_child=_idle.clear)  # a forked process must not share its parent's sockets


def _limit(what: int, soft: int, hard: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS knows some limits only by name
        resource.setrlimit(what, (soft, hard))


class Budget:
    """CPU time granted for a file: the kernel ends the child when it is spent."""

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


def _serve(out: Connection, path: str, max_seconds: float, head_only: bool) -> dict:
    """Send what a file holds; return the last message."""
    import av

    from lib.decoding.errors import AudioError
    from lib.decoding.track import Track

    faults = (av.error.FFmpegError, RuntimeError, OSError, MemoryError, TypeError, LookupError, ValueError)
    try:
        with av.logging.Capture() as logs:
            track = Track(Path(path), logs, Budget(out).progress)
            head = track.open()
            head.check(track.path, max_seconds)
            if head_only and head.n_frames is None:
                head = dataclasses.replace(head, n_frames=sum(map(len, track.blocks())))
            out.send_bytes(json.dumps({"head": dataclasses.asdict(head)}).encode())
            for block in () if head_only else track.blocks():
                out.send_bytes(b"data" + block.tobytes())
    except AudioError as error:
        return {"error": type(error).__name__, "what": error.what}
    except faults as error:
        return {"error": "DamagedAudio", "what": f"its decoder gives up ({error or type(error).__name__})"}
    return {"remarks": track.remarks, "n_filled": track.n_filled}


def main() -> None:
    """Serve requests in the child until the parent closes the socket."""
    import av

    import lib.decoding.track  # noqa: F401 - before the parent is told that all is ready

    for what, most in {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_AS: MEMORY_BYTES}.items():
        _limit(what, most, most)
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    connection = Connection(int(sys.argv[1]))
    connection.send_bytes(b"{}")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            last = _serve(connection, **json.loads(connection.recv_bytes()))
            connection.send_bytes(json.dumps(last).encode())


if __name__ == "__main__":
    main()
