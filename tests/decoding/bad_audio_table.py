"""Tabulate how this project, soundfile and librosa treat each case of bad_audio, each reader in a limited process."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from bad_audio import CASES

READERS = ("ours", "soundfile", "librosa")
LIMIT_SECONDS = 3.0  # of computing, or of waiting without any; more is a hang
START_SECONDS = 120.0
MEMORY_BYTES = 4 * 2**30


def reader(name: str):
    """Return a function from a path to (samples, rate_hz)."""
    if name == "ours":
        from lib import audio

        return lambda path: (audio.load(path), 16_000)
    if name == "soundfile":
        import soundfile

        return soundfile.read
    import librosa

    librosa.load(_silence(), sr=16_000)  # it imports its parts when they are first used
    return lambda path: librosa.load(path, sr=16_000)


def _silence() -> Path:
    import soundfile

    path = Path(tempfile.gettempdir(), f"silence-{os.getpid()}.wav")
    soundfile.write(path, np.zeros(8_000), 8_000)
    return path


def describe(samples: np.ndarray, rate_hz: float) -> str:
    """Say what a reader returned, in a few words."""
    if not samples.size:
        return "returns 0 samples"
    kind = "sound"
    if not np.isfinite(samples).all():
        kind = "sound with NaN or infinity"
    elif np.abs(samples).max() < 1e-9:
        kind = "silence"
    elif np.abs(samples).max() > 1.01:
        kind = f"sound up to {np.abs(samples).max():.3g}"
    channels = f", {samples.shape[1]} channels" if samples.ndim > 1 else ""
    return f"{len(samples) / rate_hz:.2f} s of {kind}{channels}"


def serve(name: str) -> None:
    """Read the paths that come in; each is tried by a fork, so that a crash or hang costs no new start."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    read = reader(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        process_id = 0 if name == "ours" else os.fork()  # ours has processes of its own
        if process_id == 0:
            print(json.dumps(attempt(name, read, Path(json.loads(line)))), file=answers, flush=True)
            if name != "ours":
                os._exit(0)
        print(json.dumps(process_id), file=answers, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]) if process_id else 0
        if status:
            print(json.dumps(f"CRASHES ({signal.Signals(-status).name})"), file=answers, flush=True)


def attempt(name: str, read, path: Path) -> str:
    """Say what a reader makes of a path."""
    try:
        return describe(*read(path))
    except Exception as error:  # noqa: BLE001 - whatever a reader raises is its row
        if name == "ours":
            return type(error).__name__
        reason = getattr(error, "error_string", getattr(error, "strerror", None)) or str(error)
        reason = reason.replace("Internal error : ", "").replace("Error : ", "").rstrip(".")
        return type(error).__name__ + (f": {reason[:60]}" if reason else "")


class Reader:
    """A reader's process."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-W", "ignore", __file__, "--serve", name]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, **pipes, bufsize=0, start_new_session=True, env=environment)
        assert self._line(START_SECONDS) == "ready", f"{name} does not start"

    def _line(self, seconds: float) -> str | int | None:
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return json.loads(self.process.stdout.readline()) if ready else None

    def read(self, path: Path) -> str:
        self.process.stdin.write(json.dumps(str(path)).encode() + b"\n")
        first, second = self._line(START_SECONDS), None
        if isinstance(first, str):  # the fork was faster than the line that announces it
            assert isinstance(self._line(START_SECONDS), int)
            return first
        for _ in range(round(START_SECONDS / LIMIT_SECONDS)):
            second = self._line(LIMIT_SECONDS)
            if second is not None:
                return second
            if not 0.1 < computed_seconds(first) < LIMIT_SECONDS:  # a busy machine's other work does not count
                break
        os.kill(first, signal.SIGKILL)
        self._line(START_SECONDS)
        return f"HANGS (over {LIMIT_SECONDS:.0f} s)"

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def computed_seconds(process_id: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _answers(name: str, sources: list[Path]) -> list[str]:
    each = Reader(name)
    try:
        return [each.read(source) for source in sources]
    finally:
        each.close()


def tabulate(path: Path) -> list[dict[str, str]]:
    """Write the table and return its rows."""
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(len(READERS)) as pool:
        sources = []
        for index, case in enumerate(CASES):
            folder = Path(root, str(index))
            folder.mkdir()
            sources.append(case.build(folder))
        columns = pool.map(lambda name: _answers(name, sources), READERS)
        rows = [
            {"name": case.name, "what_is_wrong": case.what_is_wrong, "expected": case.expectation}
            | dict(zip(READERS, answers, strict=True))
            for case, *answers in zip(CASES, *columns, strict=True)
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _is_sound(result: str, seconds: float) -> bool:
    words = result.split()
    return [word.rstrip(",") for word in words[1:4]] == ["s", "of", "sound"] and abs(float(words[0]) - seconds) < 0.1


def summary(rows: list[dict[str, str]]) -> str:
    """Count, for each reader, the cases where sound came out although an error was due, and what hung or crashed."""
    wrong = [row for row in rows if " of " not in row["expected"] and not row["name"].startswith("other/")]
    right = [row for row in rows if row["expected"].endswith("s of sound")]
    lines = [f"{len(rows)} cases; in {len(wrong)} something is wrong that nobody should let through,"]
    lines += [f"in {len(right)} something is odd and the sound whole"]
    for name in READERS:
        let_through = sum(" s of " in row[name] for row in wrong)
        lost = sum(not _is_sound(row[name], float(row["expected"].split()[0])) for row in right)
        hangs = sum(row[name].startswith("HANGS") for row in rows)
        crashes = sum(row[name].startswith("CRASHES") for row in rows)
        lines.append(
            f"{name}: {let_through} let through, {lost} sound ones lost or shortened, {hangs} hangs, {crashes} crashes"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--table", type=Path, help="CSV to write")
    choice.add_argument("--serve", choices=READERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    else:
        print(summary(tabulate(arguments.table)))  # noqa: T201 - a program's answer


if __name__ == "__main__":
    main()
