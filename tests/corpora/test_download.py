"""Files come whole and right, or not at all and with a reason; archives stay inside their folder."""

import gzip
import hashlib
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from corpus_files import tar_of, zip_of
from file_server import serving

from lib.corpora import download

CONTENT = bytes(range(256)) * 40
NAME = "owner/repo/commit/a folder/é [1]+#?%20.wav"


@pytest.fixture
def server():
    with serving({NAME: CONTENT}) as server:
        yield server


def item_of(folder, *, content=CONTENT, name=NAME, source="corpus"):
    return download.Item(
        source=source,
        path=name.rpartition("/")[2],
        remote=name,
        target=folder / "raw" / source / name,
        sha256=hashlib.sha256(content).hexdigest(),
        n_bytes=len(content),
    )


def bring(base, folder):
    item = item_of(folder)
    return item, download.fetch([item], base, folder=folder / "raw")


def assert_whole(item, failures):
    assert failures == []
    assert item.target.read_bytes() == CONTENT


def assert_nothing(item, failures, reason):
    assert [(failure.source, failure.path) for failure in failures] == [(item.source, item.path)]
    assert reason in failures[0].reason
    assert list(item.target.parent.iterdir()) == []  # no temporary file is left either


def test_a_file_comes_whole_once_and_a_changed_one_is_fetched_anew(server, tmp_path):
    item, failures = bring(server.url, tmp_path)
    assert_whole(item, failures)
    bring(server.url, tmp_path)
    assert server.requests == [NAME]
    item.target.write_bytes(CONTENT[:-1])
    assert_whole(*bring(server.url, tmp_path))
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", ["500", "429 0", "cut", "wrong"])
def test_a_passing_fault_is_overcome(fault, server, waits, tmp_path):
    server.faults[NAME] = [fault]
    assert_whole(*bring(server.url, tmp_path))
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "reason", "n_requests"),
    [("404", "HTTP 404", 1), ("500", "HTTP 500", 4), ("wrong", "SHA-256 differs", 3), ("cut", "ChunkedEncoding", 3)],
)
def test_a_lasting_fault_is_reported_and_leaves_nothing(fault, reason, n_requests, server, waits, tmp_path):
    server.faults[NAME] = [fault, "always"]
    assert_nothing(*bring(server.url, tmp_path), reason)
    assert len(server.requests) == n_requests


def test_a_busy_server_is_given_the_time_it_asks_for_but_not_an_hour(server, waits, tmp_path):
    server.faults[NAME] = ["429 7", "429 3600"]
    assert_whole(*bring(server.url, tmp_path))
    assert waits == [7, download.LONGEST_WAIT_SECONDS]


def test_an_interrupted_download_leaves_nothing_under_the_final_name(server, tmp_path, monkeypatch):
    def interrupted(session, url, output_file, store):
        Path(output_file).write_bytes(CONTENT[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bring(server.url, tmp_path)
    assert not item_of(tmp_path).target.exists()


def test_whether_a_server_replies_is_asked_once(server):
    assert download.why_unreachable(server.url) is None
    assert download.why_unreachable("http://127.0.0.1:9") == "connection refused"


def test_a_full_disk_is_seen_before_anything_is_asked(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(download.NotEnoughSpaceError, match="AUDIO_OUTPUT_DIR"):
        bring(server.url, tmp_path)
    assert server.requests == []
    assert not (tmp_path / "raw").exists()


def test_a_mirror_gives_the_same_with_the_same_checks(tmp_path):
    published = tmp_path / "mirror" / NAME
    published.parent.mkdir(parents=True)
    assert_nothing(*bring(tmp_path / "mirror", tmp_path), "not in the mirror")
    os.mkfifo(published)  # would hang
    assert_nothing(*bring(tmp_path / "mirror", tmp_path), "not in the mirror")
    published.unlink()
    published.write_bytes(CONTENT[::-1])
    assert_nothing(*bring(tmp_path / "mirror", tmp_path), "SHA-256 differs")
    published.write_bytes(CONTENT)
    assert_whole(*bring(tmp_path / "mirror", tmp_path))


def test_many_files_in_one_new_folder_come_at_once(tmp_path):
    files = {f"a/b/{i % 7}/{i}": os.urandom(100) for i in range(300)}
    items = [item_of(tmp_path, content=content, name=name) for name, content in files.items()]
    seen = []
    progress = lambda results: (seen.append(result) or result for result in results)  # noqa: E731
    with serving(files) as server:
        assert download.fetch(items, server.url, folder=tmp_path / "raw", progress=progress) == []
    assert len(seen) == 300
    assert download.missing(items) == []


LINKS = [("a.wav", b"", {"type": kind, "linkname": "../x"}) for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)]
HOSTILE = {
    "zip: climbs out": lambda: zip_of(("a.wav", CONTENT), ("../evil.wav", CONTENT)),
    "zip: wrong checksum": lambda: zip_of(("a.wav", CONTENT)).replace(
        zipfile.crc32(CONTENT).to_bytes(4, "little"), b"oops"
    ),
    "tar: absolute": lambda: tar_of(("/tmp/evil.wav", CONTENT)),
    "tar: nothing but links": lambda: tar_of(*LINKS),
    "tar.gz: cut off": lambda: gzip.compress(tar_of(("a.wav", os.urandom(50_000))))[:30_000],
    "no archive": lambda: CONTENT,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(name, tmp_path):
    (tmp_path / "archive").write_bytes(HOSTILE[name]())
    with pytest.raises(ValueError, match="archive: "):
        download.extract(tmp_path / "archive", tmp_path / "out" / "corpus")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["archive", "out"]


@pytest.mark.parametrize("pack", [zip_of, tar_of, lambda *entries: gzip.compress(tar_of(*entries))])
def test_a_sound_archive_comes_out_as_it_was_where_nothing_is_yet(pack, tmp_path):
    files = {"d/a.wav": CONTENT, "d/é b.WAV": b"x", "d/spk2age": b"1 9"}
    (tmp_path / "archive").write_bytes(pack(*files.items()))
    download.extract(tmp_path / "archive", tmp_path / "corpus")
    found = {name: (tmp_path / "corpus" / name).read_bytes() for name in files}
    assert found == files
    with pytest.raises(OSError, match="not empty"):
        download.extract(tmp_path / "archive", tmp_path / "corpus")
