"""Bring published files into a folder, from a mirror folder or over HTTP, and unpack archives.

Pooch compares SHA-256 (mandatory here), writes to a temporary file and gives it its final name only when its hash is
right; requests and urllib3 wait and try again. What a file in an archive is called is checked here.
"""

from __future__ import annotations

import functools
import logging
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

import pooch
import requests
from requests.adapters import HTTPAdapter
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

from lib.manifest import is_safe_path

OFFLINE_VARIABLE = "AUDIO_OFFLINE"
N_THREADS = 8
RESERVE_BYTES = 200_000_000  # what must stay free on the disk
TIMEOUT_SECONDS = (5, 20)  # to connect; between two pieces of a reply
LONGEST_WAIT_SECONDS = 60  # that a busy server may ask for
BUSY_STATUS = (408, 429, 500, 502, 503, 504)
N_RETRIES = 2  # after a broken connection or wrong bytes

Progress = Callable[[Iterable], Iterable]


class NotEnoughSpaceError(OSError):
    """The disk has no room for what would be fetched."""


@dataclass(frozen=True)
class Item:
    """A published file: where it is below the base, where it goes, and what it must be."""

    source: str
    path: str  # within its source, for messages
    remote: str  # below the mirror folder or base URL, not quoted
    target: Path
    sha256: str
    n_bytes: int = 0


@dataclass(frozen=True)
class Failure:
    """A file that is not available, and why."""

    source: str
    path: str
    reason: str


def is_offline() -> bool:
    """Tell whether AUDIO_OFFLINE (1, true, yes) forbids every connection."""
    return os.environ.get(OFFLINE_VARIABLE, "").lower() in ("1", "true", "yes")


def why_unreachable(base_url: str) -> str | None:
    """Ask a server once whether it replies at all; return why it does not, or None."""
    try:
        requests.head(f"{base_url}/", timeout=TIMEOUT_SECONDS[0], allow_redirects=False)
    except requests.RequestException as error:
        return _why(error)
    return None


def missing(items: Sequence[Item]) -> list[Item]:
    """Return the items that are not there, or not with the right hash."""

    def is_intact(item: Item) -> bool:
        return item.target.is_file() and pooch.file_hash(str(item.target)) == item.sha256

    with ThreadPoolExecutor(N_THREADS) as pool:
        intact = list(pool.map(is_intact, items))
    return [item for item, is_there in zip(items, intact, strict=True) if not is_there]


def check_space(folder: Path, n_bytes: int) -> None:
    """Raise NotEnoughSpaceError if fewer than `n_bytes` and a reserve are free where `folder` is or will be."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < n_bytes + RESERVE_BYTES:
        raise NotEnoughSpaceError(
            f"{place} has {free / 1e6:,.0f} MB free; {n_bytes / 1e6:,.0f} MB and a reserve of "
            f"{RESERVE_BYTES / 1e6:,.0f} MB are needed: free some, or set AUDIO_OUTPUT_DIR to another disk."
        )


def fetch(items: Sequence[Item], base: str | Path, *, folder: Path, progress: Progress | None = None) -> list[Failure]:
    """Bring every item to its target; what is there with the right hash is left alone.

    Parameters
    ----------
    items : sequence of Item
        What is wanted; every target is in `folder`.
    base : str or Path
        A URL (str) or a mirror folder (Path).
    folder : Path
        Root of the targets.
    progress : callable, optional
        Wraps the iterable of finished items, e.g. ``functools.partial(tqdm, total=n)``.

    Returns
    -------
    list of Failure
        One for each item that is not available, in the items' order.

    Raises
    ------
    NotEnoughSpaceError
        Before anything is written, if the disk is too small.
    """
    wanted = missing(items)
    if not wanted:
        return []
    check_space(folder, sum(item.n_bytes for item in wanted))
    pooch.get_logger().setLevel(logging.WARNING)  # a line per file is too much
    for parent in {item.target.parent for item in wanted}:
        parent.mkdir(parents=True, exist_ok=True)  # pooch makes them too, and fails when two threads do so at once
    is_mirror = isinstance(base, Path)  # joined as a path, not quoted
    by_name = {item.target.relative_to(folder).as_posix(): item for item in wanted}
    store = pooch.create(
        path=folder,
        base_url="",
        registry={name: f"sha256:{item.sha256}" for name, item in by_name.items()},
        urls={name: f"{base}/{item.remote if is_mirror else quote(item.remote)}" for name, item in by_name.items()},
        retry_if_failed=0 if is_mirror else N_RETRIES,
    )
    downloader = _copy if is_mirror else functools.partial(_download, _session())
    with ThreadPoolExecutor(N_THREADS) as pool:
        results = pool.map(functools.partial(_fetch_one, store, downloader), by_name, by_name.values())
        return [failure for failure in (progress or iter)(results) if failure]


def extract(archive: Path, folder: Path) -> None:
    """Unpack the plain files of a zip or tar file into a new folder, which appears whole or not at all.

    Not extractall: tarfile's data filter came with Python 3.11.4, and Debian 12 has 3.11.2.

    Raises
    ------
    ValueError
        If the archive is damaged, holds no file, or a name leaves the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        staged = Path(temporary) / "files"
        try:
            for name, content in _files_in(archive):
                if not is_safe_path(name):
                    raise ValueError(f"{archive.name}: an entry does not stay inside the folder: {name!r}.")
                (staged / name).parent.mkdir(parents=True, exist_ok=True)
                with content, (staged / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
        except (EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"{archive.name}: damaged or no archive ({error}).") from error
        if not staged.is_dir():
            raise ValueError(f"{archive.name}: no file in it.")
        staged.rename(folder)


def _files_in(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of each plain file of a zip or tar file."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield from ((entry.filename, packed.open(entry)) for entry in packed.infolist() if not entry.is_dir())
    else:
        with tarfile.open(archive) as packed:
            yield from ((m.name, content) for m in packed if m.isreg() and (content := packed.extractfile(m)))


class _Retry(Retry):
    """Waits as long as a busy server asks for, but no longer than `LONGEST_WAIT_SECONDS`."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:  # retry_after_max is not in Colab's urllib3
        seconds = super().get_retry_after(response)
        return seconds and min(seconds, LONGEST_WAIT_SECONDS)


def _session() -> requests.Session:
    """Return a session that tries again where a server is busy; broken connections are for pooch to try again."""
    retry = _Retry(3, connect=0, read=0, status_forcelist=BUSY_STATUS, backoff_factor=0.5, raise_on_status=False)
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=N_THREADS))
    return session


def _fetch_one(store: pooch.Pooch, downloader: Callable, /, name: str, item: Item) -> Failure | None:
    try:
        store.fetch(name, downloader=downloader)
    except ValueError:  # pooch: the hash is another
        return Failure(item.source, item.path, "the bytes are not those that were published (SHA-256 differs)")
    except OSError as error:
        return Failure(item.source, item.path, _why(error))
    return None


def _copy(path: str, output_file: str, _store: pooch.Pooch) -> None:
    if not Path(path).is_file():  # a pipe would hang, a device never end
        raise FileNotFoundError("not in the mirror")
    shutil.copyfile(path, output_file)


def _download(session: requests.Session, url: str, output_file: str, _store: pooch.Pooch) -> None:
    with session.get(url, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code != 200:
            raise OSError(f"HTTP {response.status_code}")
        with Path(output_file).open("wb") as file:
            for block in response.iter_content(1 << 16):
                file.write(block)


def _why(error: OSError) -> str:
    """Return one short line; requests wraps the reason in several layers that name objects, not causes."""
    if not isinstance(error, requests.RequestException):
        return str(error)
    reasons = {"resolve": "its name cannot be resolved", "timed out": "timed out", "refused": "connection refused"}
    return next((reason for sign, reason in reasons.items() if sign in str(error)), type(error).__name__)
