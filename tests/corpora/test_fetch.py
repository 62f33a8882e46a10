"""Files come whole and right, or not at all and with a reason: against a server that misbehaves on demand."""

import hashlib
import os
import shutil
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from misbehaving_server import serving

from lib.corpora import fetch, transfer

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
NAME = "owner/repo/commit/a folder/é [1]+#?%20.wav"
QUICK = transfer.Limits(connect_seconds=1, silence_seconds=0.5, grace_seconds=0.6, slowest_bytes_per_second=1e6)


@pytest.fixture
def server():
    with serving({NAME: CONTENT}) as server:
        yield server


@pytest.fixture
def waits(monkeypatch):
    """The waits between attempts, noted instead of slept."""
    noted = []
    monkeypatch.setattr(fetch, "time", SimpleNamespace(sleep=noted.append))
    return noted


def item_of(folder, *, content=CONTENT, name=NAME, n_bytes=True, source="corpus"):
    return fetch.Item(
        source=source,
        path=name.rpartition("/")[2],
        remote=name,
        target=folder / "raw" / source / name,
        sha256=hashlib.sha256(content).hexdigest(),
        n_bytes=len(content) if n_bytes else None,
    )


def http(server, folder, **kwargs):
    return transfer.HttpTransport(server.url, parts_dir=folder / "parts", limits=QUICK, **kwargs)


def bring(server, folder, **kwargs):
    item = item_of(folder, **kwargs)
    failures = fetch.fetch([item], http(server, folder), folder=folder / "raw")
    return item, failures


def gets(server):
    return [request for request in server.requests if request[0] == "GET"]


def assert_whole(item, failures):
    assert failures == []
    assert item.target.read_bytes() == CONTENT


def assert_nothing(item, failures, reason):
    assert [failure.reason for failure in failures] == [reason] or reason in failures[0].reason
    assert (failures[0].source, failures[0].path) == (item.source, item.path)
    assert not item.target.exists()
    assert [path.name for path in item.target.parent.iterdir()] == []  # no temporary file is left either


def test_a_file_with_an_awkward_name_comes_whole(server, tmp_path):
    item, failures = bring(server, tmp_path)
    assert_whole(item, failures)
    assert gets(server) == [("GET", NAME, None)]


def test_what_is_there_is_not_asked_for_again(server, tmp_path):
    bring(server, tmp_path)
    item, failures = bring(server, tmp_path)
    assert_whole(item, failures)
    assert len(gets(server)) == 1


def test_a_changed_file_is_fetched_anew(server, tmp_path):
    item, _ = bring(server, tmp_path)
    item.target.write_bytes(CONTENT[:-1])
    assert_whole(*bring(server, tmp_path))
    assert len(gets(server)) == 2


@pytest.mark.parametrize("fault", ["500", "429 0", "cut", "hang", "drip", "416", "other range"])
def test_a_passing_fault_is_overcome(fault, server, waits, tmp_path):
    server.faults[NAME] = ["cut", fault] if fault in ("416", "other range") else [fault]
    assert_whole(*bring(server, tmp_path))
    assert len(waits) >= 1


def test_a_broken_transfer_goes_on_where_it_broke(server, waits, tmp_path):
    server.faults[NAME] = ["cut", "cut"]
    assert_whole(*bring(server, tmp_path))
    ranges = [request[2] for request in gets(server)]
    assert ranges == [None, f"bytes={len(CONTENT) // 2}-", f"bytes={len(CONTENT) * 3 // 4}-"]


def test_a_later_run_goes_on_too(server, waits, tmp_path):
    server.faults[NAME] = ["cut", "404"]
    _, failures = bring(server, tmp_path)
    assert failures[0].reason == "HTTP 404"
    assert_whole(*bring(server, tmp_path))
    assert gets(server)[-1][2] == f"bytes={len(CONTENT) // 2}-"


def test_a_slow_drip_is_cut_and_gone_on_with(server, waits, tmp_path):
    server.faults[NAME] = ["drip", "always"]
    started = time.monotonic()
    item, failures = bring(server, tmp_path)  # 4,000 bytes a second: four attempts of 0.6 s bring most of it
    assert time.monotonic() - started < 5
    assert failures == [] or "too slow" in failures[0].reason
    assert len(gets(server)) > 2
    assert all(later[2] for later in gets(server)[1:])


def test_a_server_that_sends_all_again_is_understood(server, waits, tmp_path):
    server.faults[NAME] = ["cut", "no range"]
    assert_whole(*bring(server, tmp_path))


@pytest.mark.parametrize(
    ("fault", "reason", "n_requests"),
    [
        ("404", "HTTP 404", 1),
        ("loop", "redirected more than 5 times", 6),
        ("wrong", "SHA-256 differs", 1),
        ("long", "longer than the published 10,240 bytes", 1),
        ("500", "HTTP 500", 4),
        ("hang", "timed out", 4),
        ("short", "broke off after 10,233 of 10,240 bytes", 4),
        ("429 3600", "HTTP 429", 1),
    ],
)
def test_a_lasting_fault_is_told_and_leaves_nothing(fault, reason, n_requests, server, waits, tmp_path):
    server.faults[NAME] = [fault, "always"]
    assert_nothing(*bring(server, tmp_path), reason)
    assert len(gets(server)) == n_requests


def test_wrong_bytes_are_not_kept_for_resuming(server, waits, tmp_path):
    server.faults[NAME] = ["wrong"]
    bring(server, tmp_path)
    assert_whole(*bring(server, tmp_path))
    assert gets(server)[-1][2] is None


def test_without_a_known_size_the_hash_still_decides(server, waits, tmp_path):
    server.faults[NAME] = ["short"]
    assert_nothing(*bring(server, tmp_path, n_bytes=False), "SHA-256 differs")
    assert_whole(*bring(server, tmp_path, n_bytes=False))


def test_retry_after_is_kept_and_jitter_added(server, waits, tmp_path):
    server.faults[NAME] = ["429 7"]
    assert_whole(*bring(server, tmp_path))
    assert len(waits) == 1
    assert 7 <= waits[0] <= 7.5


@pytest.mark.parametrize(
    ("text", "low", "high"), [("0", 0, 0), ("12", 12, 12), ("soon", 0, 0), ("-3", 0, 0), ("1e9", 0, 0)]
)
def test_retry_after_is_read_with_sense(text, low, high):
    assert low <= transfer._retry_after(SimpleNamespace(headers={"Retry-After": text})) <= high


def test_retry_after_may_be_a_date_and_too_far_away():
    def read(seconds):
        return transfer._retry_after(SimpleNamespace(headers={"Retry-After": formatdate(time.time() + seconds)}))

    assert 8 <= read(10) <= 10
    assert read(-100) == 0
    assert read(4000) is None


def test_waits_grow_and_differ():
    for attempt in range(8):
        drawn = {fetch.wait_seconds(attempt, 0) for _ in range(20)}
        assert len(drawn) > 10
        assert 0 <= min(drawn) <= max(drawn) <= min(8, 0.5 * 2**attempt)


def test_a_failing_source_is_left_alone_and_others_are_not(tmp_path, waits, monkeypatch):
    monkeypatch.setattr(fetch, "N_THREADS", 1)
    good = {f"good/{i}": b"%d" % i for i in range(4)}
    items = [item_of(tmp_path, content=b"x", name=f"bad/{i}", source="bad") for i in range(30)]
    items += [item_of(tmp_path, content=content, name=name, source="good") for name, content in good.items()]
    with serving(good) as server:
        failures = fetch.fetch(items, http(server, tmp_path), folder=tmp_path / "raw")
    reasons = [failure.reason for failure in failures]
    assert reasons == ["HTTP 404"] * 5 + ["not tried: 5 files of this source in a row failed"] * 25
    assert all(item.target.is_file() for item in items[30:])


def test_a_dead_server_is_given_up_soon(tmp_path, waits):
    with serving({}) as server:
        url = server.url
    transport = transfer.HttpTransport(url, parts_dir=tmp_path / "parts", limits=QUICK)
    items = [item_of(tmp_path, name=f"a/{i}", source=f"s{i}") for i in range(100)]
    started = time.monotonic()
    failures = fetch.fetch(items, transport, folder=tmp_path / "raw")
    assert time.monotonic() - started < 10
    assert len(failures) == 100
    assert sum("connections in a row failed" in failure.reason for failure in failures) >= 80


def test_the_probe_tells_in_time(server, tmp_path, monkeypatch):
    assert http(server, tmp_path).probe() is None
    assert "refused" in transfer.HttpTransport("http://127.0.0.1:9", parts_dir=tmp_path).probe()
    monkeypatch.setattr(transfer.requests.Session, "head", lambda *args, **kwargs: time.sleep(3))
    started = time.monotonic()
    assert "hangs" in http(server, tmp_path).probe(seconds=0.3)
    assert time.monotonic() - started < 2


def test_offline_mode_refuses(server, tmp_path):
    item = item_of(tmp_path)
    transport = http(server, tmp_path, offline=True)
    assert "offline" in transport.probe()
    failures = fetch.fetch([item], transport, folder=tmp_path / "raw")
    assert_nothing(item, failures, "offline")
    assert server.requests == []


def test_a_full_disk_is_seen_before_anything_is_asked(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(fetch.NotEnoughSpaceError, match="AUDIO_OUTPUT_DIR"):
        bring(server, tmp_path)
    assert server.requests == []
    assert not (tmp_path / "raw").exists()


def test_a_mirror_gives_the_same_with_the_same_checks(tmp_path):
    mirror, item = tmp_path / "mirror", item_of(tmp_path)
    transport = transfer.MirrorTransport(mirror)
    published = mirror / item.remote
    published.parent.mkdir(parents=True)
    expected = {
        "not in the mirror": lambda: None,
        "9,999 bytes, published with 10,240": lambda: published.write_bytes(CONTENT[:9999]),
        "SHA-256 differs": lambda: published.write_bytes(CONTENT[::-1]),
    }
    for reason, prepare in expected.items():
        prepare()
        assert_nothing(item, fetch.fetch([item], transport, folder=tmp_path / "raw"), reason)
    published.write_bytes(CONTENT)
    assert_whole(item, fetch.fetch([item], transport, folder=tmp_path / "raw"))


def test_a_pipe_in_the_mirror_does_not_hang(tmp_path):
    item = item_of(tmp_path)
    (tmp_path / "mirror" / item.remote).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / "mirror" / item.remote)
    failures = fetch.fetch([item], transfer.MirrorTransport(tmp_path / "mirror"), folder=tmp_path / "raw")
    assert_nothing(item, failures, "no plain file")


def test_many_files_in_one_new_folder_come_at_once(tmp_path):
    files = {f"a/b/{i % 7}/{i}": os.urandom(100) for i in range(300)}
    items = [item_of(tmp_path, content=content, name=name) for name, content in files.items()]
    seen = []
    with serving(files) as server:
        transport = http(server, tmp_path)
        progress = lambda results: (seen.append(result) or result for result in results)  # noqa: E731
        assert fetch.fetch(items, transport, folder=tmp_path / "raw", progress=progress) == []
    assert len(seen) == 300
    assert fetch.missing(items) == []
