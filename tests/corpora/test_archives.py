"""Hostile archives are refused, and nothing of them is left anywhere; sound ones come out byte for byte."""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from lib.corpora import archives

CONTENT = b"RIFF" + bytes(range(256)) * 40
SMALL = archives.Bounds(max_files=50, max_bytes=2_000_000, max_file_bytes=500_000, free_bytes=20_000)


def zip_of(*entries, compression=zipfile.ZIP_DEFLATED):
    """Entries are (name, content) or (ZipInfo, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


def tar_of(*entries, format=tarfile.PAX_FORMAT):
    """Entries are (name, content) or (TarInfo, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as file:
        for info, content in entries:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_member(name, kind, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def zip_member(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.create_system = 3
    return info


def encrypted_zip():
    data = bytearray(zip_of(("a.wav", CONTENT)))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


def lying_zip(claimed):
    """A zip whose entry claims another unpacked size, in both headers."""
    data = bytearray(zip_of(("a.wav", CONTENT)))
    struct.pack_into("<I", data, data.index(b"PK\x03\x04") + 22, claimed)
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, claimed)
    return bytes(data)


def zip_with_nul():
    return zip_of(("aXb.wav", CONTENT)).replace(b"aXb.wav", b"a\x00b.wav")


def unknown_compression():
    data = bytearray(zip_of(("a.wav", CONTENT)))
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.index(signature) + offset, 99)
    return bytes(data)


def overlapping_zip(n=200):
    """Many entries of the directory that all share one body (Fifield 2019, A better zip bomb)."""
    body = zip_of(("a.wav", bytes(400_000)))
    start = body.index(b"PK\x01\x02")
    end = body.index(b"PK\x05\x06")
    directory = b"".join(body[start:end].replace(b"a.wav", b"%c.wav" % (0x61 + i % 26)) for i in range(n))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, n, n, len(directory), start, 0)
    return body[:start] + directory + tail


def pax_bomb():
    """A header record of 300 MB, packed to 300 kB: a reader that trusts it fills the memory."""
    info = tarfile.TarInfo("a.wav")
    info.type, info.size = tarfile.XHDTYPE, 300_000_000
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb", 1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(300):
            file.write(bytes(1_000_000))
    return buffer.getvalue()


def sparse_tar():
    """A GNU sparse file (old format) that claims 400 MB and stores nothing."""
    info = tarfile.TarInfo("a.wav")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"%011o\0" % 400_000_000
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def truncated(data, share=0.6):
    return data[: int(len(data) * share)]


HOSTILE = {
    "zip: climbs out": lambda: zip_of(("../evil.wav", CONTENT)),
    "zip: climbs out in the middle": lambda: zip_of(("a/../../evil.wav", CONTENT)),
    "zip: absolute": lambda: zip_of(("/tmp/evil.wav", CONTENT)),
    "zip: Windows drive": lambda: zip_of(("C:evil.wav", CONTENT)),
    "zip: backslashes": lambda: zip_of(("..\\evil.wav", CONTENT)),
    "zip: link": lambda: zip_of((zip_member("a.wav", 0o120777), "/etc/passwd")),
    "zip: device": lambda: zip_of((zip_member("a.wav", 0o060666), b"")),
    "zip: pipe": lambda: zip_of((zip_member("a.wav", 0o010666), b"")),
    "zip: one name twice": lambda: zip_of(("a.wav", CONTENT), ("A.WAV", CONTENT)),
    "zip: file where a folder is": lambda: zip_of(("a.wav", CONTENT), ("a.wav/b.wav", CONTENT)),
    "zip: control character": lambda: zip_of(("a\nb.wav", CONTENT)),
    "zip: NUL in the name": zip_with_nul,
    "zip: second stream of a name": lambda: zip_of(("a.txt:b.wav", CONTENT)),
    "zip: trailing dot": lambda: zip_of(("a./b.wav", CONTENT)),
    "zip: name of 300 characters": lambda: zip_of(("a" * 300 + ".wav", CONTENT)),
    "zip: 40 folders deep": lambda: zip_of(("a/" * 40 + "b.wav", CONTENT)),
    "zip: encrypted": encrypted_zip,
    "zip: unknown compression": unknown_compression,
    "zip: claims less than it holds": lambda: lying_zip(100),
    "zip: claims more than it holds": lambda: lying_zip(400_000),
    "zip: claims a little more": lambda: lying_zip(len(CONTENT) + 5_000),
    "zip: claims 4 GB": lambda: lying_zip(0xFFFFFFFE),
    "zip: bomb by ratio": lambda: zip_of(("a.wav", bytes(490_000))),
    "zip: bomb by overlap": overlapping_zip,
    "zip: bomb in what is left out": lambda: zip_of(("a.bin", bytes(490_000))),
    "zip: too many files": lambda: zip_of(*((f"{i}.wav", b"x") for i in range(51))),
    "zip: cut off": lambda: truncated(zip_of(("a.wav", os.urandom(50_000)))),
    "zip: wrong checksum": lambda: zip_of(("a.wav", CONTENT), compression=0).replace(
        CONTENT[:20], b"J" + CONTENT[1:20]
    ),
    "tar: climbs out": lambda: tar_of(("../evil.wav", CONTENT)),
    "tar: absolute": lambda: tar_of(("/tmp/evil.wav", CONTENT)),
    "tar: symbolic link": lambda: tar_of((tar_member("a.wav", tarfile.SYMTYPE, linkname="/etc/passwd"), b"")),
    "tar: link, then through it": lambda: tar_of(
        (tar_member("a", tarfile.SYMTYPE, linkname=".."), b""), ("a/evil.wav", CONTENT)
    ),
    "tar: hard link": lambda: tar_of((tar_member("a.wav", tarfile.LNKTYPE, linkname="../x"), b"")),
    "tar: character device": lambda: tar_of((tar_member("a.wav", tarfile.CHRTYPE, devmajor=1, devminor=5), b"")),
    "tar: block device": lambda: tar_of((tar_member("a.wav", tarfile.BLKTYPE, devmajor=8), b"")),
    "tar: pipe": lambda: tar_of((tar_member("a.wav", tarfile.FIFOTYPE), b"")),
    "tar: sparse file": sparse_tar,
    "tar: folder outside": lambda: tar_of((tar_member("../out", tarfile.DIRTYPE), b"")),
    "tar: one name twice": lambda: tar_of(("a.wav", CONTENT), ("a.wav", CONTENT)),
    "tar: long name climbs out": lambda: tar_of(("d/" * 60 + "../" * 61 + "evil.wav", b""), format=tarfile.GNU_FORMAT),
    "tar: name that is no text": lambda: tar_of(("a\udcff.wav", CONTENT), format=tarfile.GNU_FORMAT),
    "tar.gz: bomb by ratio": lambda: gzip.compress(tar_of(("a.wav", bytes(490_000)))),
    "tar.bz2: bomb by ratio": lambda: bz2.compress(tar_of(("a.wav", bytes(490_000)))),
    "tar.xz: bomb by ratio": lambda: lzma.compress(tar_of(("a.wav", bytes(490_000)))),
    "tar.gz: bomb in a header": pax_bomb,
    "tar.gz: cut off": lambda: truncated(gzip.compress(tar_of(("a.wav", os.urandom(50_000))))),
    "tar: cut off": lambda: truncated(tar_of(("a.wav", os.urandom(50_000)))),
    "tar: too large a file": lambda: tar_of(("a.wav", bytes(500_001))),
    "no archive": lambda: CONTENT,
    "empty file": lambda: b"",
    "empty zip": lambda: zip_of(),
}


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_there_are_more_than_thirty():
    assert len(HOSTILE) >= 30


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archive_is_refused_and_leaves_nothing(name, tmp_path):
    archive = tmp_path / "archive"
    archive.write_bytes(HOSTILE[name]())
    with pytest.raises(archives.ArchiveError, match="archive"):
        archives.extract(archive, tmp_path / "out" / "corpus", bounds=SMALL)
    assert [path for path in files_below(tmp_path) if path not in ("archive", "out")] == []
    assert not Path("/tmp/evil.wav").exists()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_sound_tar_comes_out_as_it_was(pack, tmp_path):
    archive = tmp_path / "archive"
    folder = tar_member("d", tarfile.DIRTYPE)
    archive.write_bytes(pack(tar_of((folder, b""), ("d/a.wav", CONTENT), ("d/é b.FLAC", b"x"), ("README.sh", b"rm"))))
    paths = archives.extract(archive, tmp_path / "corpus", bounds=SMALL)
    assert files_below(tmp_path / "corpus") == ["d", "d/a.wav", "d/é b.FLAC"]
    assert paths == [tmp_path / "corpus/d/a.wav", tmp_path / "corpus/d/é b.FLAC"]
    assert paths[0].read_bytes() == CONTENT


def test_sound_zip_comes_out_as_it_was_and_only_the_wanted_kinds(tmp_path):
    archive = tmp_path / "archive"
    archive.write_bytes(zip_of(("d/", b""), ("d/a.wav", CONTENT), ("d/meta.csv", b"a,b\n"), ("x.exe", b"MZ")))
    archives.extract(archive, tmp_path / "corpus", suffixes={".wav", ".csv"}, bounds=SMALL)
    assert files_below(tmp_path / "corpus") == ["d", "d/a.wav", "d/meta.csv"]
    assert (tmp_path / "corpus/d/a.wav").read_bytes() == CONTENT


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    archive = tmp_path / "archive"
    archive.write_bytes(zip_of(("a.wav", CONTENT)))
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/mine.wav").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="not empty"):
        archives.extract(archive, tmp_path / "corpus")
    assert files_below(tmp_path / "corpus") == ["mine.wav"]


def test_a_link_as_the_archive_itself_or_a_pipe_is_no_trap(tmp_path):
    os.mkfifo(tmp_path / "archive")
    with pytest.raises(archives.ArchiveError, match="no plain file"):
        archives.extract(tmp_path / "archive", tmp_path / "corpus")
