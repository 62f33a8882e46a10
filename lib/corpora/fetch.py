"""Bring published files into a folder: from a mirror folder or over HTTP, with one and the same checks.

Pooch holds the registry (SHA-256 is mandatory), compares what is there, and moves a file into place only when its hash
is right. What it lacks is here: resuming, waiting with jitter, giving up in time, many files at once.
"""

from __future__ import annotations

import functools
import logging
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pooch

from lib.corpora.transfer import FetchError, Item, NoAnswerError, PassingFaultError, WrongBytesError

PARTS_DIR = ".unfinished"  # beside the sources: what a later run goes on with
N_THREADS = 8
RESERVE_BYTES = 200_000_000  # what must stay free on the disk
FAILURES_IN_A_ROW = 5  # after which a source, or the network, is left alone

Progress = Callable[[Iterable], Iterable]


class NotEnoughSpaceError(OSError):
    """The disk has no room for what would be fetched."""


@dataclass(frozen=True)
class Failure:
    """A file that could not be had, and why."""

    source: str
    path: str
    reason: str


class Transport(Protocol):
    """Where files come from."""

    n_attempts: int

    def url(self, item: Item) -> str:
        """Return where the item lies, for people and for pooch."""

    def download(self, item: Item, output_file: str) -> None:
        """Write the item's bytes; raise FetchError where that fails."""


@dataclass
class _Breaker:
    """Counts failures in a row by source, and connections in a row that never came about."""

    limit: int
    counts: Counter = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reason(self, source: str) -> str | None:
        with self.lock:
            if self.counts["no answer"] >= self.limit:
                return f"not tried: {self.limit} connections in a row failed"
            if self.counts[f"source {source}"] >= self.limit:
                return f"not tried: {self.limit} files of this source in a row failed"
            return None

    def record(self, source: str, error: FetchError | None) -> None:
        keys = {f"source {source}": error is not None, "no answer": isinstance(error, NoAnswerError)}
        with self.lock:
            for key, failed in keys.items():
                self.counts[key] = self.counts[key] + 1 if failed else 0


def is_intact(item: Item) -> bool:
    """Tell whether the item lies at its target with the right hash."""
    return item.target.is_file() and pooch.file_hash(str(item.target)) == item.sha256


def missing(items: Sequence[Item]) -> list[Item]:
    """Return the items that are not there, or not with the right hash."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        intact = list(pool.map(is_intact, items))
    return [item for item, is_there in zip(items, intact, strict=True) if not is_there]


def check_space(folder: Path, n_bytes: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises
    ------
    NotEnoughSpaceError
        If fewer than `n_bytes` and a reserve are free where `folder` is or will be.
    """
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < n_bytes + RESERVE_BYTES:
        raise NotEnoughSpaceError(
            f"{place} has {free / 1e6:,.0f} MB free; {n_bytes / 1e6:,.0f} MB and a reserve of "
            f"{RESERVE_BYTES / 1e6:,.0f} MB are needed: free some, or set AUDIO_OUTPUT_DIR to another disk."
        )


def fetch(
    items: Sequence[Item], transport: Transport, *, folder: Path, progress: Progress | None = None
) -> list[Failure]:
    """Bring every item to its target; what is there with the right hash is left alone.

    Parameters
    ----------
    items : sequence of Item
        What is wanted; every target lies under `folder`.
    transport : Transport
        `MirrorTransport` or `HttpTransport`.
    folder : Path
        Root of the targets.
    progress : callable, optional
        Wraps the iterable of finished items, e.g. ``functools.partial(tqdm, total=n)``.

    Returns
    -------
    list of Failure
        One for each item that could not be had, in the items' order.

    Raises
    ------
    NotEnoughSpaceError
        Before anything is written, if the disk is too small.
    """
    wanted = missing(items)
    if not wanted:
        return []
    check_space(folder, sum(item.n_bytes or 0 for item in wanted))
    pooch.get_logger().setLevel(logging.WARNING)  # a line a file is too much
    for parent in {item.target.parent for item in wanted}:
        parent.mkdir(parents=True, exist_ok=True)  # pooch makes them too, and fails when two threads do so at once
    store = pooch.create(
        path=folder,
        base_url="",
        registry={_name(item, folder): f"sha256:{item.sha256}" for item in wanted},
        urls={_name(item, folder): transport.url(item) for item in wanted},
    )
    breaker = _Breaker(FAILURES_IN_A_ROW if transport.n_attempts > 1 else len(items) + 1)
    with ThreadPoolExecutor(N_THREADS) as pool:
        results = pool.map(functools.partial(_fetch_one, transport=transport, store=store, breaker=breaker), wanted)
        return [failure for failure in (progress or iter)(results) if failure]


def _name(item: Item, folder: Path) -> str:
    return item.target.relative_to(folder).as_posix()


def _fetch_one(item: Item, *, transport: Transport, store: pooch.Pooch, breaker: _Breaker) -> Failure | None:
    """Fetch one item, trying again after passing faults only."""
    reason = breaker.reason(item.source)
    if reason:
        return Failure(item.source, item.path, reason)
    error: FetchError | None = None
    for attempt in range(transport.n_attempts):
        error = _try_once(item, transport=transport, store=store)
        if not isinstance(error, PassingFaultError) or error.retry_after_seconds is None:
            break
        if attempt + 1 < transport.n_attempts:
            time.sleep(wait_seconds(attempt, error.retry_after_seconds))
    breaker.record(item.source, error)
    return Failure(item.source, item.path, str(error)) if error else None


def _try_once(item: Item, *, transport: Transport, store: pooch.Pooch) -> FetchError | None:
    def download(_url: str, output_file: str, _store: pooch.Pooch) -> None:
        transport.download(item, output_file)

    try:
        store.fetch(_name(item, Path(store.path)), downloader=download)
    except FetchError as error:
        return error
    except ValueError:  # pooch: the hash is another
        return WrongBytesError("the bytes are not those that were published (SHA-256 differs)")
    except OSError as error:
        return FetchError(f"cannot be written: {os.strerror(error.errno) if error.errno else error}")
    return None


def wait_seconds(attempt: int, retry_after_seconds: float) -> float:
    """Return how long to wait after an attempt (0 is the first): what the server asked for, and jitter on top.

    "Full jitter": uniform between 0 and a bound that doubles (Brooker 2015, AWS Architecture Blog, Exponential Backoff
    and Jitter), so that many clients do not come back at the same moment.
    """
    return retry_after_seconds + random.uniform(0, min(8.0, 0.5 * 2**attempt))
