"""One file at a time: copied from a mirror folder, or read over HTTP with limits, and resumed where it broke off."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

import requests
import urllib3

BLOCK_BYTES = 1 << 16
LONGEST_WAIT_SECONDS = 60.0  # a server that asks for more is given up
OFFLINE_VARIABLE = "AUDIO_OFFLINE"
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}


def is_offline() -> bool:
    """Tell whether AUDIO_OFFLINE (1, true, yes) forbids every connection."""
    return os.environ.get(OFFLINE_VARIABLE, "").lower() in ("1", "true", "yes")


class FetchError(OSError):
    """A file could not be had; its text is the reason. Trying again would not help."""


class OfflineError(FetchError):
    """The network would be needed, and offline mode forbids it."""


class WrongBytesError(FetchError):
    """What came is not what was published."""


class PassingFaultError(FetchError):
    """A fault that may be gone in a moment; `retry_after_seconds` None means: not worth the wait."""

    def __init__(self, reason: str, *, retry_after_seconds: float | None = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class NoAnswerError(PassingFaultError):
    """No connection came about, or it broke."""


@dataclass(frozen=True)
class Item:
    """A published file: where it lies below the base, where it goes, and what it must be."""

    source: str
    path: str  # within its source, for messages
    remote: str  # below the mirror folder or base URL, not quoted
    target: Path
    sha256: str
    n_bytes: int | None = None


@dataclass(frozen=True)
class Limits:
    """What a server may ask of us."""

    connect_seconds: float = 5.0
    silence_seconds: float = 20.0  # between two pieces of an answer
    grace_seconds: float = 30.0  # for any file, however slow
    slowest_bytes_per_second: float = 4_000.0  # beyond the grace
    n_redirects: int = 5
    max_bytes: int = 4_000_000_000  # where the size is not known beforehand


class MirrorTransport:
    """Files from a folder laid out like the server."""

    n_attempts = 1

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def url(self, item: Item) -> str:
        """Return the file's path in the mirror."""
        return str(self.root / item.remote)

    def download(self, item: Item, output_file: str) -> None:
        """Copy the item.

        Raises
        ------
        FetchError
            If it is not there, or is no plain file.
        WrongBytesError
            If its size is not the published one.
        """
        path = self.root / item.remote
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would hang, a device never end
                raise FetchError("no plain file in the mirror")
            _check_size(status.st_size, item)
            shutil.copyfile(path, output_file)
        except FileNotFoundError:
            raise FetchError("not in the mirror") from None


class HttpTransport:
    """Files below a base URL.

    Parameters
    ----------
    base_url : str
        What stands before `Item.remote`.
    parts_dir : Path
        Where unfinished files are kept, by hash, so that a later run goes on from there.
    limits : Limits
    offline : bool
        Refuse every request; no socket is opened.
    """

    n_attempts = 4

    def __init__(self, base_url: str, *, parts_dir: Path, limits: Limits | None = None, offline: bool = False) -> None:
        self.base_url = base_url.rstrip("/")
        self.parts_dir = Path(parts_dir)
        self.limits = limits or Limits()
        self.offline = offline
        self._threads = threading.local()  # a requests.Session is not made for several threads

    def url(self, item: Item) -> str:
        """Return the item's address, quoted."""
        return f"{self.base_url}/{quote(item.remote)}"

    def probe(self, *, seconds: float = 4.0) -> str | None:
        """Ask once whether the server answers at all, and say within `seconds` why not; None means that it does."""
        if self.offline:
            return f"offline mode ({OFFLINE_VARIABLE})"
        answer = ["no answer (the name lookup hangs)"]

        def ask() -> None:
            try:
                self._session().head(f"{self.base_url}/", timeout=seconds * 0.75, allow_redirects=False)
                answer[0] = ""
            except (requests.RequestException, OSError) as error:
                answer[0] = _why(error)

        # A name lookup knows no timeout: it is left behind in a thread that does not hold up the process.
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(seconds)
        return answer[0] or None

    def download(self, item: Item, output_file: str) -> None:
        """Read the item, from where an earlier attempt broke off if the server allows it.

        Raises
        ------
        OfflineError
            In offline mode.
        PassingFaultError, NoAnswerError
            If trying again may help; what came is kept for that.
        FetchError, WrongBytesError
            If it would not.
        """
        if self.offline:
            raise OfflineError("needs the network, and offline mode is set")
        part = self.parts_dir / f"{item.sha256}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        n_there = part.stat().st_size if part.exists() else 0
        try:
            if n_there == 0 or n_there != item.n_bytes:
                self._read(item, part, n_there)
            _check_size(part.stat().st_size, item)
        except WrongBytesError:
            part.unlink(missing_ok=True)
            raise
        part.replace(output_file)

    def _session(self) -> requests.Session:
        if not hasattr(self._threads, "session"):
            session = requests.Session()
            session.max_redirects = self.limits.n_redirects
            session.headers["Accept-Encoding"] = "identity"  # sizes and ranges count the file's own bytes
            self._threads.session = session
        return self._threads.session

    def _read(self, item: Item, part: Path, n_there: int) -> None:
        headers = {"Range": f"bytes={n_there}-"} if n_there else {}
        timeout = (self.limits.connect_seconds, self.limits.silence_seconds)
        try:
            with self._session().get(self.url(item), headers=headers, stream=True, timeout=timeout) as response:
                _check_status(response, part)
                goes_on = _continues(response, n_there)
                self._copy(response, part, n_there if goes_on else 0, item)
        except requests.TooManyRedirects:
            raise FetchError(f"redirected more than {self.limits.n_redirects} times") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise NoAnswerError(_why(error)) from None

    def _copy(self, response: requests.Response, part: Path, n_there: int, item: Item) -> None:
        """Write what comes, watching size and pace."""
        most = item.n_bytes or self.limits.max_bytes
        started, n_new = time.monotonic(), 0
        with part.open("ab" if n_there else "wb") as file:
            while block := response.raw.read1(BLOCK_BYTES, decode_content=False):
                n_new += len(block)
                if n_there + n_new > most:
                    raise WrongBytesError(f"longer than the published {most:,} bytes")
                file.write(block)
                patience = self.limits.grace_seconds + n_new / self.limits.slowest_bytes_per_second
                if time.monotonic() - started > patience:
                    raise PassingFaultError(f"too slow: {n_new:,} bytes in {patience:.0f} s")
        if item.n_bytes and n_there + n_new < item.n_bytes:
            raise NoAnswerError(f"broke off after {n_there + n_new:,} of {item.n_bytes:,} bytes")


def _check_size(n_bytes: int, item: Item) -> None:
    if item.n_bytes and n_bytes != item.n_bytes:
        raise WrongBytesError(f"{n_bytes:,} bytes, published with {item.n_bytes:,}")


def _check_status(response: requests.Response, part: Path) -> None:
    status = response.status_code
    if status == 416:  # what we have is not part of what lies there now
        part.unlink(missing_ok=True)
        raise PassingFaultError("HTTP 416: the kept beginning does not fit")
    if status in PASSING_STATUS:
        raise PassingFaultError(f"HTTP {status}", retry_after_seconds=_retry_after(response))
    if status not in (200, 206):
        raise FetchError(f"HTTP {status}")


def _retry_after(response: requests.Response) -> float | None:
    """Return the seconds that the server asks us to wait, 0 where it does not say, None where that is too long."""
    text = response.headers.get("Retry-After", "0").strip()
    seconds = 0.0
    if text.isdigit():
        seconds = float(text)
    else:
        with contextlib.suppress(ValueError, TypeError):
            seconds = max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return seconds if seconds <= LONGEST_WAIT_SECONDS else None


def _continues(response: requests.Response, n_there: int) -> bool:
    """Tell whether the answer begins where our part ends; a server may also send the whole file again."""
    if response.status_code == 200:
        return False
    begins = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if begins != str(n_there):
        raise PassingFaultError("the server answered with another range")
    return n_there > 0


def _why(error: BaseException) -> str:
    """Return one short line; requests wraps the reason in several layers that name objects, not causes."""
    text = str(error)
    for sign, reason in {
        "Failed to resolve": "the server's name cannot be resolved",
        "getaddrinfo": "the server's name cannot be resolved",
        "timed out": "timed out",
        "refused": "connection refused",
        "unreachable": "network unreachable",
        "SSL": "no trusted TLS connection",
        "IncompleteRead": "broke off",
        "reset": "connection reset",
        "Proxy": "the proxy refuses",
    }.items():
        if sign in text:
            return reason
    return type(error).__name__
