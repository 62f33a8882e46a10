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
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import numpy as np

START_SECONDS = 60.0  # to import numpy and av on a busy machine
WALL_SECONDS = 30.0  # between two messages, by the clock of a busy machine: FFmpeg needs less than 0.1 s
MAX_IDLE = 2
MEMORY_BYTES = 2**31
PROJECT_DIR = Path(__file__).resolve().parents[2]

_idle: list[Decoder] = []


class Decoder:
    """One child, seen from the parent. TimeoutError or EOFError mean that it is gone: drop this object."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
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
        try:
            self._receive(START_SECONDS)
        except (TimeoutError, EOFError) as error:
            self.close()
            raise RuntimeError(f"The decoder process does not start ({error}): is av there?") from error

    def messages(self, path: Path, *, head_only: bool) -> Iterator[dict | np.ndarray]:
        """Have a recording decoded: yield its head, blocks of float32 values, and a last message."""
        with contextlib.suppress(BrokenPipeError):  # the answer will say that it crashed
            self._connection.send_bytes(json.dumps([os.fspath(path.absolute()), head_only]).encode())
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
            raise EOFError(f"exit code {self.process.wait()}") from error


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


def _serve(out: Connection, path: str, *, head_only: bool) -> dict:
    """Send what a file holds; return the last message."""
    import av

    from lib.decoding.errors import AudioError
    from lib.decoding.track import choose

    try:
        with av.logging.Capture() as logs:
            track = choose(Path(path), logs, lambda: out.send_bytes(b"."))
            out.send_bytes(json.dumps({"head": dataclasses.asdict(track.open())}).encode())
            for block in () if head_only else track.blocks():
                out.send_bytes(b"data" + block.tobytes())
    except AudioError as error:
        return {"error": type(error).__name__, "what": error.what}
    except Exception as error:
        return {"error": "DamagedAudio", "what": f"its decoder gives up ({error or type(error).__name__})"}
    return {"remarks": track.remarks, "n_filled": track.n_filled}


def main() -> None:
    """Serve requests in the child until the parent closes the socket."""
    import av

    import lib.decoding.track  # noqa: F401 - before the parent is told that all is ready

    for what, most in {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_AS: MEMORY_BYTES}.items():
        with contextlib.suppress(ValueError, OSError):  # macOS knows some limits only by name
            resource.setrlimit(what, (most, most))
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    connection = Connection(int(sys.argv[1]))
    connection.send_bytes(b"{}")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            path, head_only = json.loads(connection.recv_bytes())
            connection.send_bytes(json.dumps(_serve(connection, path, head_only=head_only)).encode())


if __name__ == "__main__":
    main()
