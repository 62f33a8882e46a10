"""The dashboard: what it reads from the results table and the store, whom it answers, and the page in Chromium."""

from __future__ import annotations

import dataclasses
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime

import pytest

from lib import audio
from lib.events import EventChange
from temporal_workflow import dashboard, shared
from temporal_workflow.progress import StreamProgress
from temporal_workflow.settings import Settings
from tests.chaos.harness import outcome

NURSERY, HALL = "stream-nursery", "stream-hall"
CRY = EventChange(1, 3, "END", "crying", 14.4, 17.28, 0.93, False)
SCREAM = EventChange(2, 4, "START", "screaming", 27.36, 28.8, 0.88, False)
CLIPPED = EventChange(3, 5, "HEALTH", shared.CLIPPING, 20.0, 30.0, 0.0, False)
NO_SIGNAL = EventChange(1, 1, "HEALTH", shared.NO_SIGNAL, 0.0, 10.0, 0.0, False)


def stored(sequence: int, sha256: str, label: str = "normal") -> shared.ChunkOutcome:
    first = round(sequence * 10 / shared.HOP_SECONDS)
    rows = [(0.9, 0.1) if label == "crying" else (0.001 * sequence, 0.0)] * 21
    place = {"start_seconds": sequence * 10.0, "sent_seconds": time.time() - 1.4}
    chunk = shared.ChunkReference(sequence, sha256, 160_000, **place)
    frames = shared.FrameProbabilities.pack(rows, first_frame=first, n_final=19)
    return outcome(chunk, label, frames=frames, health=shared.ChunkHealth(-60.0, -23.4, 0.0))


@pytest.fixture
def board(tmp_path, tone) -> dashboard.Dashboard:
    """A running stream of three chunks with a cry, whose audio is kept, and an open scream; a finished one."""
    made = dashboard.Dashboard(Settings.below(tmp_path))
    for sequence, label in enumerate(("normal", "crying", "normal")):
        content = audio.encode_flac(tone(400 + sequence, 15 if sequence else 10))
        sha256 = made.store.put(content, stream_id=NURSERY, sequence=sequence)
        if label == "crying":
            made.store.keep(sha256, stream_id=NURSERY, sequence=sequence)
        else:
            made.store.release(sha256, stream_id=NURSERY, sequence=sequence)
        made.results.store(shared.StoreInput(NURSERY, stored(sequence, sha256, label), name="nursery"))
    started = [
        dataclasses.replace(CRY, change=1, kind="START", offset_seconds=15.84),
        dataclasses.replace(SCREAM, change=4),
    ]
    made.results.store(shared.StoreInput(NURSERY, changes=[*started, CRY, CLIPPED]))
    made.results.store(shared.StoreInput(HALL, stored(0, "ab" * 32), changes=[NO_SIGNAL]))
    finished = StreamProgress(shared.StreamSettings(name="<i>hall</i>"), shared.StreamState(end=0)).summary("stream")
    made.results.store(shared.StoreInput(HALL, summary=finished))
    return made


def test_streams_and_events_are_what_is_stored(board):
    state = board.state()
    by_id = {stream["stream_id"]: stream for stream in state["streams"]}
    nursery, hall = by_id[NURSERY], by_id[HALL]
    assert (nursery["state"], nursery["name"], nursery["n_chunks"]) == ("running", "nursery", 3)
    assert (nursery["problems"], nursery["level_db"]) == ([shared.CLIPPING], -23.4)
    assert nursery["lag_seconds"] == pytest.approx(1.4, abs=1)
    assert (hall["state"], hall["name"], hall["lag_seconds"]) == ("finished", "<i>hall</i>", None)
    assert [row[0] for row in nursery["frames"]] == sorted(round(i * 0.48, 2) for i in range(63))
    assert max(row[1] for row in nursery["frames"] if 10.08 <= row[0] < 20) == 0.9
    events = {(event["stream_id"], event["number"]): event for event in state["events"]}
    assert len(events) == 4
    assert (events[NURSERY, 1]["is_open"], events[NURSERY, 1]["offset_seconds"]) == (False, 17.28)
    assert [chunk["start_seconds"] for chunk in events[NURSERY, 1]["audio"]] == [10.0]
    assert (events[NURSERY, 2]["is_open"], events[NURSERY, 2]["audio"]) == (True, [])
    assert (events[HALL, 1]["is_open"], events[HALL, 1]["audio"]) == (False, [])


def test_a_refresh_reads_no_more_than_it_shows(board, monkeypatch):
    ended = StreamProgress(shared.StreamSettings(), shared.StreamState(end=0)).summary("stream")
    n_more = dashboard.N_STREAMS + dashboard.N_EVENTS
    for number in range(n_more):
        given = {"changes": [dataclasses.replace(NO_SIGNAL, kind="RESUMED")], "summary": ended}
        board.results.store(shared.StoreInput(f"stream-{number}", stored(0, "ab" * 32), **given))
    read, n_read = board.results.rows, []
    monkeypatch.setattr(board.results, "rows", lambda query: n_read.append(len(found := read(query))) or found)
    state = board.state()
    shown = {row["stream_id"] for row in (*state["streams"], *state["events"])}
    assert (len(state["streams"]), len(state["events"])) == (dashboard.N_STREAMS, dashboard.N_EVENTS)
    assert max(n_read) == len(shown) == dashboard.N_EVENTS < n_more


@pytest.fixture
def server(board) -> Iterator[dashboard.Server]:
    served = dashboard.Server(board, 0)
    yield served
    served.shutdown()


@pytest.mark.parametrize(
    ("path", "host", "code"),
    [("", "evil.example:80", 403), ("../secret", None, 404), ("audio/" + "0" * 64, None, 404), ("audio/x", None, 404)],
)
def test_foreign_names_and_paths_are_refused(server, path, host, code):
    request = urllib.request.Request(server.address + path, headers={"Host": host} if host else {})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    assert error.value.code == code


def test_it_listens_on_loopback_and_hands_out_json_and_audio(server, board):
    assert server.server_address[0] == "127.0.0.1"
    state = json.load(urllib.request.urlopen(server.address + "state.json"))
    assert datetime.fromisoformat(state["streams"][0]["stored_at"]).tzinfo
    (chunk,) = next(event["audio"] for event in state["events"] if event["audio"])
    answer = urllib.request.urlopen(server.address + "audio/" + chunk["sha256"])
    assert answer.read() == board.store.path(chunk["sha256"]).read_bytes()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_shows_streams_plays_kept_audio_and_follows(page_at, server, board, width, scheme):
    with page_at(server.address, width=width, scheme=scheme) as page:
        page.locator(".stream").nth(1).wait_for()
        assert "<i>hall</i>" in page.locator("#streams").inner_text()
        assert page.locator("tr.open").count() == 2
        scream = page.locator("tr.open", has_text="screaming")
        assert scream.count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.get_by_title("Play").click()
        for _ in range(200):
            if page.evaluate("document.querySelector('audio').currentTime") > 0:
                break
            page.wait_for_timeout(50)
        assert page.evaluate("document.querySelector('audio').currentTime") == pytest.approx(5 + 14.4 - 10 - 2, abs=2)
        board.results.store(shared.StoreInput(NURSERY, changes=[dataclasses.replace(SCREAM, change=6, kind="END")]))
        scream.wait_for(state="detached")
