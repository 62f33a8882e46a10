"""Content-addressed store of audio: `<sha256[:2]>/<sha256>.flac`, written atomically, hashed again before every use.

Two chunks with the same samples (silence, say) are one file, so each chunk that needs a file leaves a claim beside it;
the file is deleted with its last claim. Claims and files change under a lock of their folder (`flock`, which also works
between machines on NFS 4).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

KEPT = ".kept"
MARK = ".mark"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OWNER = re.compile(r"[A-Za-z0-9_-]{1,80}")


class StoreError(ValueError):
    """A chunk reference cannot be used; the message says which and what to do."""


class ForeignReference(StoreError):  # noqa: N818 - named for what is wrong, like lib.audio's errors
    """A hash or stream id cannot belong to this store."""


class MissingChunk(StoreError):  # noqa: N818
    """The referenced audio is not in the store."""


class AlteredChunk(StoreError):  # noqa: N818
    """The file's content does not have the hash that names it."""


class ChunkStore:
    """A folder of audio files named by their content; several processes or machines may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def mark(self) -> str:
        """Return a random mark that the store keeps: processes that read the same one use the same store."""
        path = self.root / MARK

        def known() -> str:
            return path.read_text(encoding="ascii") if path.is_file() else ""

        if not known():  # another process may be about to write it
            with _locked(self.root):
                if not known():
                    path.write_text(os.urandom(4).hex(), encoding="ascii")
        return known()

    def put(self, content: bytes, *, stream_id: str, sequence: int) -> str:
        """Store audio for one chunk and return its SHA-256; doing it twice changes nothing.

        Raises
        ------
        ForeignReference
            If `stream_id` could not be a file name.
        OSError
            If the disk is full or read-only; nothing half-written stays behind.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        path, claim = self._path(sha256), self._claim(sha256, stream_id, sequence)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        with _locked(path.parent):
            claim.touch()  # first: `sweep` would never find a file without a claim
            if not path.is_file() or _sha256_of(path) != sha256:
                _write_durably(path, content)
        return sha256

    def path(self, sha256: str) -> Path:
        """Return the file behind a reference after checking that it is unaltered.

        Raises
        ------
        ForeignReference
            If `sha256` is not one.
        MissingChunk
            If there is no such file.
        AlteredChunk
            If its content has another hash.
        """
        path = self._path(sha256)
        try:
            found = _sha256_of(path)
        except FileNotFoundError:
            raise MissingChunk(f"chunk {sha256[:12]}… is not in the store: send it again.") from None
        if found != sha256:
            raise AlteredChunk(f"chunk {sha256[:12]}… was altered after it was stored: send it again.")
        return path

    def holds(self, sha256: str) -> bool:
        """Return whether some audio is there."""
        return self._path(sha256).is_file()

    def release(self, sha256: str, *, stream_id: str, sequence: int) -> None:
        """Remove one chunk's claim on a file and delete the file when no claim is left."""
        path = self._path(sha256)
        if not path.parent.is_dir():
            return
        with _locked(path.parent):
            self._claim(sha256, stream_id, sequence).unlink(missing_ok=True)
            if not any(claim.suffix in (".mark", KEPT) for claim in path.parent.glob(f"{sha256}.*")):
                path.unlink(missing_ok=True)

    def keep(self, sha256: str, *, stream_id: str, sequence: int) -> None:
        """Make one chunk's claim on a file permanent: neither `sweep` nor another chunk's release deletes the file."""
        claim = self._claim(sha256, stream_id, sequence)
        with contextlib.suppress(FileNotFoundError), _locked(claim.parent):
            claim.replace(claim.with_suffix(KEPT))

    def sweep(
        self, is_stored: Callable[[str, int], bool], *, older_than_seconds: float, orphans_seconds: float = math.inf
    ) -> int:
        """Release old claims of chunks whose result is stored (late duplicates, crashes); return how many.

        `is_stored` tells whether (stream_id, sequence) has a row. Claims younger than `older_than_seconds` stay: their
        chunk may be in progress. Those of `orphans_seconds` are removed even without a row, and so is what a killed
        process had half written.
        """
        n_released = 0
        for path in self.root.glob("??/*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if _age_seconds(path) >= orphans_seconds:
                    path.unlink()
        for claim in self.root.glob("??/*.mark"):
            sha256, stream_id, sequence, _ = claim.name.split(".")
            with contextlib.suppress(FileNotFoundError):
                age = _age_seconds(claim)
                done = age >= older_than_seconds and is_stored(stream_id, int(sequence))
                if done or age >= orphans_seconds:
                    self.release(sha256, stream_id=stream_id, sequence=int(sequence))
                    n_released += 1
        return n_released

    def _path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise ForeignReference(f"{sha256[:80]!r} is not a SHA-256: references come from the store alone.")
        return self.root / sha256[:2] / f"{sha256}.flac"

    def _claim(self, sha256: str, stream_id: str, sequence: int) -> Path:
        if not _OWNER.fullmatch(stream_id):
            raise ForeignReference(f"{stream_id[:80]!r} is not a stream id: use letters, digits, - and _.")
        return self.root / sha256[:2] / f"{sha256}.{stream_id}.{int(sequence)}.mark"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when a process is killed."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _age_seconds(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_durably(path: Path, content: bytes) -> None:
    """Write a temporary file, fsync, rename, fsync the folder: after a crash the file is whole or absent."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
