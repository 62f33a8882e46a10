"""Broken surroundings, each with a stated outcome: disk, chunk, port, clock, database."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import functools
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from temporal_workflow import devserver, serve, shared
from temporal_workflow.sender import StreamSender, new_stream_id
from tests.chaos.audit import examined
from tests.chaos.harness import Service

Row = dict[str, Any]
STALL_SECONDS = 1.5 * shared.WORKFLOW_TASK_TIMEOUT.total_seconds()
LOCK_SECONDS = 6.0  # longer than SQLite's busy timeout of 5 s, so that the activity fails and is tried again
DAY_SECONDS = 86_400.0


async def _spoiled(service: Service, n_times: int, *, spoil: Callable[[Path], object], error: str) -> Row:
    """Spoil every other chunk's file; each must be rejected by name while the stream goes on."""
    stream_id = new_stream_id()
    chunks = service.put(stream_id, ["crying", "normal"] * n_times)
    for chunk in chunks[::2]:
        spoil(service.chunks.path(chunk.sha256))
    await service.send(stream_id, chunks)
    rows = service.results.chunks(stream_id)
    named = sum(row["reason"].startswith(error) for row in rows[::2])
    fine = sum(row["label"] == "normal" for row in rows[1::2])
    return {
        "held": min(named, fine),
        "outcome": f"rejected as {error}, the stream goes on",
        **await examined(service, stream_id, chunks),
    }


async def results_locked(service: Service, n_times: int) -> Row:
    """Another process holds the results database for longer than the busy timeout."""
    locked = functools.partial(_locked, service.settings.service_dir / "results.sqlite")
    row = await _sent_meanwhile(service, n_times, locked, seconds=LOCK_SECONDS)
    return {"outcome": "stored once the lock is gone", **row}


async def _sent_meanwhile(
    service: Service,
    n_times: int,
    broken: Callable[[], contextlib.AbstractContextManager[None]],
    *,
    seconds: float,
    refuses: Callable[[], bool] = lambda: True,
) -> Row:
    """Send each chunk while something is broken for some seconds; count those that are stored once it works again."""
    stream_id, held = new_stream_id(), 0
    chunks = service.put(stream_id, ["crying"] * n_times)
    sender = StreamSender(await service.client(), stream_id)
    for chunk in chunks:
        with broken():
            await sender.send(chunk)
            is_refused = refuses()
            await asyncio.sleep(seconds)
        held += is_refused and await _stored(service, stream_id, chunk.sequence + 1)
    await sender.finish(len(chunks))
    await sender.result()
    return {"held": held, **await examined(service, stream_id, chunks)}


async def clock_jump(service: Service, n_times: int) -> Row:
    """The sender's clock jumps by a day, forwards and backwards in turn."""
    stream_id = new_stream_id()
    chunks = [
        dataclasses.replace(chunk, sent_seconds=chunk.sent_seconds + DAY_SECONDS * (-1) ** chunk.sequence)
        for chunk in service.put(stream_id, ["crying"] * n_times)
    ]
    await service.send(stream_id, chunks)
    (event,) = service.results.events(stream_id)
    whole = event["offset_seconds"] - event["onset_seconds"] >= chunks[-1].stop_seconds
    rows = service.results.chunks(stream_id)
    return {
        "held": len(rows) if whole else 0,
        "outcome": "places in the stream come from the stream, not from clocks; lag is never negative",
        **await examined(service, stream_id, chunks),
    }


async def worker_stalled(service: Service, n_times: int) -> Row:
    """The orchestration worker stands still for longer than a workflow task may take, while chunks come and go."""
    stream_id = new_stream_id()
    chunks = service.put(stream_id, ["crying", "normal", "screaming"] * 10 * n_times)

    async def stall() -> None:
        for _ in range(n_times):
            await asyncio.sleep(1.0)
            process = service.children["orchestration"].process
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(STALL_SECONDS)
            process.send_signal(signal.SIGCONT)

    stalls, sender = asyncio.create_task(stall()), StreamSender(await service.client(), stream_id)
    for chunk in chunks:
        await sender.send(chunk)
        await sender.send(chunk)
        await sender.status()
    await stalls
    await sender.finish(len(chunks))
    await sender.result()
    found = await examined(service, stream_id, chunks)
    held = n_times if found["replayed"] == found["histories"] else 0
    return {"held": held, "outcome": "the stream goes on, and its history replays", **found}


def _on_small_disk(
    folder: Path,
    n_times: int,
    *,
    broken: Callable[[Path], contextlib.AbstractContextManager[None]],
    number: int,
    holds_results: bool,
) -> Row:
    """The disk of the chunk store, and of the results perhaps, breaks while a chunk is under way.

    Sender: a named error, nothing half-written. Worker: waits, and goes on once the disk works again.
    """
    disk = folder / "disk"
    results_url = f"sqlite:///{(disk if holds_results else folder) / 'results.sqlite'}"
    with small_disk(disk), Service(folder, chunks_dir=disk / "chunks", results_url=results_url) as service:
        given = {"seconds": 1.5, "refuses": lambda: _refuses(service, number)}
        row = asyncio.run(_sent_meanwhile(service, n_times, lambda: broken(disk), **given))
        if any(disk.rglob("*.tmp")):
            row["held"] = 0
    return {"outcome": "sender: named error, nothing half-written; worker: waits, then stores", **row}


def port_taken(folder: Path, n_times: int) -> Row:
    """Something else listens where the server should."""
    folder.mkdir(parents=True, exist_ok=True)
    held = 0
    port = devserver.free_port()
    other = devserver.start(folder / "t.sqlite", port=port, ui_port=None, log_path=folder / "t.log")
    for _ in range(n_times):
        code = serve.main(["--port", str(port), "--headless", "--metrics-port", "0"])
        held += code == serve.EX_UNAVAILABLE and devserver.is_listening(port)
    devserver.stop(other)
    return {"held": held, "outcome": "exit code 69, the message names the port, the other process is left alone"}


async def _stored(service: Service, stream_id: str, n_chunks: int) -> bool:
    deadline = time.monotonic() + 30
    while (n_stored := len(service.results.chunks(stream_id))) < n_chunks and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return n_stored == n_chunks


@contextlib.contextmanager
def _locked(database: Path) -> Iterator[None]:
    connection = sqlite3.connect(database, isolation_level=None, timeout=30)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def can_mount() -> bool:
    """Return whether small disks can be made here (root, and not in an unprivileged container)."""
    with contextlib.suppress(subprocess.CalledProcessError, OSError, PermissionError), small_disk(Path("/tmp/.chaos")):
        return True
    return False


@contextlib.contextmanager
def small_disk(path: Path, *, n_bytes: int = 8 * 2**20) -> Iterator[None]:
    """Mount a small file system in memory at `path`."""
    path.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(path))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
        shutil.rmtree(path, ignore_errors=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def _filled(disk: Path) -> Iterator[None]:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    yield
    (disk / "filler").unlink()


@contextlib.contextmanager
def _read_only(disk: Path) -> Iterator[None]:
    _mount("-o", "remount,ro", str(disk))
    yield
    _mount("-o", "remount,rw", str(disk))


def _refuses(service: Service, number: int) -> bool:
    """Return whether putting another chunk fails by name."""
    try:
        service.chunks.put(np.random.default_rng(1).bytes(200_000), stream_id="other", sequence=0)
    except OSError as error:
        return error.errno == number
    return False


ON_A_SERVICE: dict[str, Callable[[Service, int], Coroutine[Any, Any, Row]]] = {
    "chunk missing": functools.partial(_spoiled, spoil=Path.unlink, error="MissingChunk"),
    "chunk altered": functools.partial(
        _spoiled, spoil=lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0\1"), error="AlteredChunk"
    ),
    "clock jump": clock_jump,
    "results database locked": results_locked,
    "worker stalled": worker_stalled,
}
IN_A_FOLDER: dict[str, Callable[[Path, int], Row]] = {
    "disk full": functools.partial(_on_small_disk, broken=_filled, number=errno.ENOSPC, holds_results=True),
    "read-only store": functools.partial(_on_small_disk, broken=_read_only, number=errno.EROFS, holds_results=False),
    "port taken": port_taken,
}
