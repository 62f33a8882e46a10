"""Unpack zip and tar files of strangers: bounded, without links, into a folder of their own or not at all."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".caf", ".3gp", ".aif", ".aiff", ".webm")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".md")
BLOCK_BYTES = 1 << 18
LARGEST_READ_BYTES = 1 << 20  # a longer single read is a header that claims to be huge
Refuse = Callable[..., NoReturn]
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_DAMAGE = (EOFError, OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, UnicodeError)


class ArchiveError(ValueError):
    """An archive is damaged, or is not one that a publisher of recordings would make. Nothing of it was kept."""


@dataclass(frozen=True)
class Bounds:
    """What an archive may hold."""

    max_files: int = 100_000
    max_bytes: int = 20_000_000_000  # unpacked, all together
    max_file_bytes: int = 1_000_000_000
    max_ratio: float = 100.0  # unpacked to packed; speech as FLAC or WAV stays under 10
    free_bytes: int = 10_000_000  # below this the ratio does not matter


@dataclass
class _Entry:
    name: str
    n_bytes: int
    file: BinaryIO


def extract(
    archive: Path, directory: Path, *, suffixes: Collection[str] = AUDIO_SUFFIXES, bounds: Bounds | None = None
) -> list[Path]:
    """Unpack an archive into a new folder.

    Parameters
    ----------
    archive : Path
        A zip, tar, tar.gz, tar.bz2 or tar.xz file; its content decides, not its name.
    directory : Path
        Made by this; it must not exist yet, or be empty.
    suffixes : collection of str
        Files with other endings are checked like the rest, and left out.
    bounds : Bounds, optional
        Sizes and counts.

    Returns
    -------
    list of Path
        The files written, sorted.

    Raises
    ------
    ArchiveError
        At the first entry that is a link, a device or encrypted, that leaves the folder, that has a name other
        systems cannot hold or that is there already, that passes a bound or is damaged. Nothing is kept then.
    FileExistsError
        If `directory` holds something.
    """
    archive, directory = Path(archive), Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty: remove it, or unpack elsewhere.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _unpack(archive, staging, frozenset(suffixes), bounds or Bounds())
        if directory.exists():
            directory.rmdir()
        staging.rename(directory)
    except _DAMAGE as error:
        raise ArchiveError(f"{archive.name}: damaged or no archive ({type(error).__name__}: {error}).") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _unpack(archive: Path, staging: Path, suffixes: frozenset[str], bounds: Bounds) -> None:
    n_packed, n_files, n_bytes, seen = archive.stat().st_size, 0, 0, set()

    def refuse(what: str, name: str = "") -> NoReturn:
        raise ArchiveError(f"{archive.name}: {what}{f': {name!r}' if name else ''}. Nothing was unpacked.")

    for entry in _entries(archive, bounds, refuse):
        n_files, n_bytes = n_files + 1, n_bytes + entry.n_bytes
        key = _check_name(entry.name, refuse)
        if n_files > bounds.max_files:
            refuse(f"more than {bounds.max_files} files")
        if key in seen or any(str(parent) in seen for parent in PurePosixPath(key).parents):
            refuse("two entries for one name", entry.name)
        seen.add(key)
        if entry.n_bytes > bounds.max_file_bytes or n_bytes > bounds.max_bytes:
            refuse("too large", entry.name)
        if n_bytes > bounds.free_bytes and n_bytes > bounds.max_ratio * n_packed:
            refuse(f"unpacks to more than {bounds.max_ratio:.0f} times its size", entry.name)
        if PurePosixPath(entry.name).suffix.lower() in suffixes:
            _copy(entry, staging / entry.name, refuse)
    if not seen:
        refuse("no files in it")


def _check_name(name: str, refuse: Refuse) -> str:
    """Refuse a name that leaves its folder or that some system cannot hold; return it as case-blind systems see it."""
    pure = PurePosixPath(name)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or _FORBIDDEN.search(name):
        refuse("an entry that does not stay inside the folder, or has forbidden characters", name)
    try:
        longest = max(len(part.encode()) for part in pure.parts)
    except UnicodeEncodeError:
        refuse("a name that is no text", name)
    if longest > 200 or len(name) > 800 or len(pure.parts) > 16:
        refuse("a name too long or too deep", name[:80])
    if any(part != part.rstrip(" .") for part in pure.parts):
        refuse("a name that ends in a dot or space", name)
    return unicodedata.normalize("NFC", str(pure)).casefold()


def _copy(entry: _Entry, target: Path, refuse: Refuse) -> None:
    """Write at most as many bytes as the entry claims."""
    target.parent.mkdir(parents=True, exist_ok=True)
    n_written = 0
    with target.open("xb") as file:
        while block := entry.file.read(BLOCK_BYTES):
            n_written += len(block)
            if n_written > entry.n_bytes:
                refuse("longer than it claims", entry.name)
            file.write(block)
    if n_written != entry.n_bytes:
        refuse("shorter than it claims", entry.name)


def _entries(archive: Path, bounds: Bounds, refuse: Refuse) -> Iterator[_Entry]:
    """Yield the plain files one after the other, each open for reading; refuse all that is neither file nor folder."""
    if not stat.S_ISREG(archive.stat().st_mode):
        refuse("no plain file")
    if zipfile.is_zipfile(archive):
        yield from _zip_entries(archive, refuse)
    else:
        yield from _tar_entries(archive, bounds, refuse)


def _zip_entries(archive: Path, refuse: Refuse) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 0x1:
                refuse("encrypted", info.filename)
            if info.orig_filename != info.filename:  # zipfile itself cuts a name at a NUL
                refuse("a name that hides another", info.filename)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                refuse("a link or device", info.filename)
            if info.is_dir():
                _check_name(info.filename, refuse)
                continue
            try:
                content = file.open(info)
            except (NotImplementedError, RuntimeError) as error:
                refuse(f"cannot be read ({error})", info.filename)
            with content:
                yield _Entry(info.filename, info.file_size, content)


def _tar_entries(archive: Path, bounds: Bounds, refuse: Refuse) -> Iterator[_Entry]:
    with archive.open("rb") as raw, _decompressed(raw) as plain:
        file = tarfile.TarFile(fileobj=_Bounded(plain, bounds.max_bytes))
        for info in file:
            _check_name(info.name, refuse)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                refuse("a link, device or sparse file", info.name)
            try:
                tarfile.data_filter(info, str(archive.parent))  # the standard library's own opinion
            except tarfile.FilterError as error:
                refuse(str(error), info.name)
            yield _Entry(info.name, info.size, file.extractfile(info))


def _decompressed(raw: BinaryIO) -> BinaryIO:
    head = raw.peek(6)[:6]
    for magic, open_stream in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open)):
        if head.startswith(magic):
            return open_stream(raw)
    return raw


class _Bounded(io.RawIOBase):
    """A stream that ends with an error where a header asks for more than it may."""

    def __init__(self, stream: BinaryIO, max_bytes: int) -> None:
        super().__init__()
        self._stream, self._max_bytes = stream, max_bytes

    def read(self, n_bytes: int = -1) -> bytes:
        if not 0 <= n_bytes <= LARGEST_READ_BYTES:
            raise tarfile.ReadError("a header claims to be huge")
        return self._stream.read(n_bytes)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > 2 * self._max_bytes:
            raise tarfile.ReadError("an entry claims to be huge")
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()
