"""The timeline of a recording: frames and levels, pieces of sound, tables, the command, and the page in Chromium."""

from __future__ import annotations

import csv
import io
import os
import shutil

import numpy as np
import pytest

from lib import audio, config
from lib.config import PATCH_HOP_SAMPLES, SAMPLE_RATE_HZ
from lib.detector import Detection
from lib.events import Event, frames_to_events
from lib.reporting import timeline
from lib.waveforms import levels_db
from temporal_workflow.pitch_classifier import PitchDetector

EVENTS = [Event(3.36, 5.28, "crying", 0.912), Event(3700.8, 3702.24, "screaming", 0.7649)]


class Pitch(PitchDetector):
    """Cries where the pitch is 350 to 900 Hz, screams above."""

    def detect(self, blocks):
        frames = self.frames(np.concatenate(list(blocks)), first_sample=0, is_last=True)[1]
        return Detection(frames, frames_to_events(frames, self.settings.events, hop_seconds=0.48))


@pytest.fixture
def night(tmp_path, tone):
    """Silence of 40 s, but for a cry at 12 s and a scream at 30 s."""
    waveform = np.zeros(40 * SAMPLE_RATE_HZ, np.float32)
    for start, frequency_hz, seconds in ((12, 500, 3.0), (30, 2_000, 1.5)):
        sound = tone(frequency_hz, seconds, amplitude=0.1)
        waveform[start * SAMPLE_RATE_HZ :][: len(sound)] = sound
    audio.write_pcm16(tmp_path / "night.wav", waveform)
    return tmp_path / "night.wav"


def test_tables_hold_the_events_for_other_programs():
    made = timeline.tables(EVENTS)
    rows = list(csv.DictReader(io.StringIO(made[".csv"])))
    assert [(float(row["onset_seconds"]), float(row["offset_seconds"]), row["label"]) for row in rows] == [
        (3.36, 5.28, "crying"),
        (3700.8, 3702.24, "screaming"),
    ]
    assert [row["peak_probability"] for row in rows] == ["0.912", "0.765"]
    assert made[".audacity.txt"] == "3.360\t5.280\tcrying 0.91\n3700.800\t3702.240\tscreaming 0.76\n"
    raven = list(csv.DictReader(io.StringIO(made[".raven.txt"]), delimiter="\t"))
    assert [(row["Selection"], row["Channel"], row["High Freq (Hz)"]) for row in raven] == [
        ("1", "1", "8000"),
        ("2", "1", "8000"),
    ]
    assert float(raven[1]["End Time (s)"]) - float(raven[1]["Begin Time (s)"]) == pytest.approx(1.44)
    assert raven[0]["Annotation"] == "crying"


@pytest.mark.parametrize("n_block", [1_000, 16_000, 77_777, 10**6])
def test_pieces_do_not_depend_on_the_blocks(rng, n_block):
    waveform = rng.normal(size=10 * SAMPLE_RATE_HZ).astype(np.float32)
    spans = [(0.0, 2.0), (1.0, 9.5), (1.5, 3.0), (9.0, 10.0)]
    pieces = list(timeline.cut((waveform[at : at + n_block] for at in range(0, len(waveform), n_block)), spans))
    for (start, stop), piece in zip(spans, pieces, strict=True):
        np.testing.assert_array_equal(piece, waveform[int(start * SAMPLE_RATE_HZ) : int(stop * SAMPLE_RATE_HZ)])


def test_a_recording_is_followed_and_its_events_are_cut(night, tmp_path):
    told = []
    found = timeline.follow(night, Pitch(), on_seconds=told.append)
    assert sum(told) == found.seconds == 40
    assert [event.label for event in found.events] == ["crying", "screaming"]
    assert found.events[0].onset_seconds == pytest.approx(12, abs=0.48)
    whole = audio.load(night)[: 83 * PATCH_HOP_SAMPLES].reshape(83, PATCH_HOP_SAMPLES)
    assert len(found.levels_db) == len(found.frames) == 84
    np.testing.assert_allclose(found.levels_db[:83], levels_db(whole))
    start, mp3 = timeline.players(found)[0]
    (tmp_path / "cry.mp3").write_bytes(mp3)
    cry = audio.load(tmp_path / "cry.mp3")
    event = found.events[0]
    assert start == event.onset_seconds - 2
    assert len(cry) / SAMPLE_RATE_HZ == pytest.approx(event.offset_seconds + 2 - start, abs=0.15)
    assert np.argmax(np.abs(np.fft.rfft(cry))) * SAMPLE_RATE_HZ / len(cry) == pytest.approx(500, abs=2)


def test_the_strongest_events_have_players_where_there_are_too_many(night, monkeypatch):
    found = timeline.Timeline(night, 40.0, np.zeros((84, 2)), np.zeros(84), EVENTS[:1], [])
    events = [Event(float(at), at + 2.0, "crying", at / 40) for at in range(2, 36, 4)]
    monkeypatch.setattr(timeline, "ALL_PLAYERS_SECONDS", 13.0)
    assert sorted(timeline.players(timeline.Timeline(**{**vars(found), "events": events}))) == [7, 8]
    monkeypatch.setattr(timeline, "LONGEST_PLAYER_SECONDS", 3.0)
    assert sorted(timeline.players(timeline.Timeline(**{**vars(found), "events": events}))) == [5, 6, 7, 8]


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setattr(timeline.Detector, "load", classmethod(lambda cls, models_dir: Pitch()))


def test_the_command_writes_page_and_tables(night, loaded, capsys, tmp_path):
    (tmp_path / "broken.m4a").write_bytes(b"no sound")
    arguments = [str(tmp_path), "--out", str(tmp_path / "pages"), "--export", str(tmp_path / "tables")]
    assert timeline.main(arguments) == timeline.EXIT_BAD_INPUT
    output = capsys.readouterr()
    assert "broken.m4a" in output.err and "night.wav: 100%" in output.err
    written = sorted(path.name for folder in ("pages", "tables") for path in (tmp_path / folder).iterdir())
    assert written == ["night.wav.audacity.txt", "night.wav.csv", "night.wav.html", "night.wav.raven.txt"]
    assert len(output.out.splitlines()) == 4
    assert (tmp_path / "tables" / "night.wav.csv").read_text().count("\n") == 3


def test_only_tables_on_request_and_a_time_that_is_none_is_refused(night, loaded, capsys, tmp_path):
    assert timeline.main([str(night), "--no-page", "--export", str(tmp_path / "t")]) == 0
    assert not list(tmp_path.glob("*.html"))
    for wrong in (["--started-at", "yesterday"], ["--no-page"]):
        with pytest.raises(SystemExit):
            timeline.main([str(night), *wrong])


def test_recordings_of_one_name_and_names_that_are_no_text_all_get_a_page(night, loaded, capfd, tmp_path):
    for folder in ("monday", "tuesday", "other/tuesday"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(night, tmp_path / folder / "1.wav")
    shutil.copy(night, tmp_path / "monday-1.wav")
    shutil.move(night, tmp_path / "<img src=x>.wav")
    shutil.copy(tmp_path / "<img src=x>.wav", os.fsencode(tmp_path) + b"/\xff.wav")
    assert timeline.main([str(tmp_path), "--out", str(tmp_path / "pages"), "--export", str(tmp_path / "pages")]) == 0
    pages = {os.fsencode(page.name): page.read_text() for page in (tmp_path / "pages").glob("*.html")}
    names = {
        b"monday-1.wav.html",
        b"_monday-1.wav.html",
        b"tuesday-1.wav.html",
        b"other-tuesday-1.wav.html",
        b"<img src=x>.wav.html",
    }
    assert set(pages) == names | {b"\xff.wav.html"}
    assert "<img" not in pages[b"<img src=x>.wav.html"] and all("</html>" in page for page in pages.values())


def test_what_cannot_be_written_is_told_before_the_work_and_no_sound_is_no_calm(night, loaded, capsys, monkeypatch):
    audio.write_pcm16(night.parent / "off.wav", np.zeros(30 * SAMPLE_RATE_HZ, np.float32))
    assert timeline.main([str(night.parent / "off.wav")]) == timeline.EXIT_BAD_INPUT
    assert timeline.NO_SOUND in capsys.readouterr().err
    assert timeline.NO_SOUND in (night.parent / "off.wav.html").read_text()
    monkeypatch.setattr(timeline, "follow", None)
    assert timeline.main([str(night), "--export", str(night)]) == timeline.EXIT_BAD_INPUT
    monkeypatch.setattr(timeline.os, "access", lambda path, mode: path != night.parent)
    assert timeline.main([str(night)]) == timeline.EXIT_BAD_INPUT
    assert "cannot be written to" in capsys.readouterr().err


def test_a_folder_without_models_says_how_to_train(night, capsys, tmp_path):
    assert timeline.main([str(night), "--models", str(tmp_path)]) == timeline.EXIT_BAD_INPUT
    assert "run_all.sh" in capsys.readouterr().err


@pytest.fixture
def url(night, loaded):
    assert timeline.main([str(night), "--started-at", "2026-11-28T23:59:50"]) == 0
    return f"file://{night}.html"


def window(page):
    return [float(page.evaluate(f"document.body.dataset.{name}")) for name in ("from", "to")]


def wait_until(page, expression):
    """As page.wait_for_function, which needs `eval`: the page forbids it."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"not within 10 s: {expression}")


def test_keyboard_wheel_and_touch_zoom(page_at, url):
    with page_at(url) as page:
        assert window(page) == [0, 40]
        page.keyboard.press("+")
        assert window(page) == [10, 30]
        page.keyboard.press("ArrowRight")
        assert window(page) == [14, 34]
        page.keyboard.press("0")
        box = page.locator("#zoom").bounding_box()
        left, middle = box["x"], box["y"] + box["height"] / 2
        page.mouse.move(left + box["width"] * 0.75, middle)
        page.mouse.wheel(0, -240)
        wait_until(page, "document.body.dataset.to < 38")
        start, stop = window(page)
        assert start + 0.75 * (stop - start) == pytest.approx(30, abs=0.1)
        touch = page.context.new_cdp_session(page)
        for kind, places in (("touchStart", (400, 500)), ("touchMove", (300, 600)), ("touchEnd", ())):
            points = [{"x": left + x, "y": middle, "id": number} for number, x in enumerate(places)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        wait_until(page, f"document.body.dataset.to - document.body.dataset.from < {0.6 * (stop - start)}")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_shows_plays_and_hands_out_the_events(page_at, url, tmp_path, width, scheme):
    with page_at(url, width=width, scheme=scheme) as page:
        rows = page.locator("#events tbody tr")
        assert rows.count() == 2
        assert "00:00:0" in rows.nth(0).inner_text()  # 12 s after 23:59:50
        assert page.evaluate("document.documentElement.scrollWidth") == width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(253, 253, 251)", "dark": "rgb(20, 24, 31)"}[scheme]
        rows.nth(1).get_by_role("button").click()
        wait_until(page, "document.querySelector('audio').currentTime > 0.3")
        wait_until(page, "document.body.dataset.spectrum === '1'")
        assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(1.92 + 4, abs=0.5)
        page.keyboard.press("p")
        assert "crying" in page.locator("#which").inner_text()
        page.locator("input[value=screaming]").uncheck()
        assert rows.count() == 1
        with page.expect_download() as download:
            page.get_by_text("CSV").click()
        text = download.value.path().read_text()
        assert download.value.suggested_filename == "night.wav.csv"
        assert [row["label"] for row in csv.DictReader(io.StringIO(text))] == list(config.CLASS_NAMES[:2])
