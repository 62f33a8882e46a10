"""The pages to choose and to listen with, in the system's Chromium: sliders, settings, players, the PDF's table."""

from __future__ import annotations

import io
import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from lib import config
from lib.detector import HOP_SECONDS, Detection, Detector
from lib.events import EVENT_LABELS, Event
from lib.reporting import interactive, pdf, report, steps
from lib.studies import curves, listening
from lib.studies.detection import Scored
from lib.studies.soundscapes import Reference
from tests.reporting import reports

SETTINGS = json.loads((config.MODELS_DIR / "detector" / "settings.json").read_text(encoding="utf-8"))
MAX_PAGES_BYTES, FEWEST_PLAYERS = 15e6, 60


def soundscape(place, *, background="speech"):
    """Ten minutes with a cry and a scream each half minute, the later the fainter, and one false alarm of each."""
    frames, references = np.zeros((1250, 2)), []
    for number in range(18):
        label, onset = EVENT_LABELS[number % 2], 30.0 * (number + 1)
        first = round(onset / HOP_SECONDS)
        frames[first : first + 10, number % 2] = 0.98 - 0.05 * number
        references.append(Reference(Event(onset, onset + 4.8, label), (0.0, 10.0)[number // 2 % 2], "g", ("c",)))
    frames[:4] = 0.9 - 0.1 * place
    return Scored(f"s{place}", background, 600.0, tuple(references), (), (), None, frames, ())


def clip(name, label, peak):
    frames = np.full((10, 2), 0.05)
    frames[4:7, 0] = peak
    events = [Event(1.92, 3.36, "crying", peak)] if peak > 0.6 else []
    row = {"clip_id": name, "label": label, "subtype": "infant_cry", "source": "donateacry", "group_id": name}
    row["licence"] = "ODbL 1.0 / DbCL 1.0"
    sound = 0.2 * np.sin(np.arange(round(10 * HOP_SECONDS * 16000)) * 0.2).astype(np.float32)
    return row, listening.of_clip("test_clip", row, sound, Detection(frames, events))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A full report's folder made from curves.json and listening.json alone."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        reports.move(patch, root)
        reports.write(config.report_dir("full"), studies=False)
        sets = {"test": [soundscape(0)], "left_out": [soundscape(1), soundscape(2, background="quiet")]}
        curves.write(config.STUDIES_DIR / curves.FILE_NAME, sets, SETTINGS)
        pairs = [clip("donateacry-1", "crying", 0.3), clip("donateacry-2", "crying", 0.9), clip("x", "normal", 0.8)]
        rows = pd.DataFrame([row for row, _ in pairs])
        recordings = [recording for _, recording in pairs]
        listening.write(config.STUDIES_DIR / listening.FILE_NAME, recordings, rows, SETTINGS["version"])
        report.write_pages(steps.Plan("full"), reports.INFO)
        (root / "chapter.html").write_text(interactive.chapter(), encoding="utf-8")
    return root / "reports" / "full"


def shown(page, label, number):
    return page.inner_text(f"[data-label={label}] [data-number={number}]")


def slide(page, label, name, *keys):
    page.focus(f"[data-label={label}] [data-name={name}]")
    for key in keys:
        page.keyboard.press(key)


def test_sliders_move_the_numbers_by_keyboard_and_the_shipped_ones_are_marked(folder, page_at):
    content = json.loads((folder.parents[1] / "build" / "studies" / "curves.json").read_text(encoding="utf-8"))
    rows = curves.by_threshold(content, "left_out", "screaming")
    at = next(place for place, row in enumerate(rows) if row["is_shipped"])
    with page_at((folder / "thresholds.html").as_uri()) as page:
        before = [shown(page, "screaming", name) for name in ("recall", "alarms", "misses")]
        assert before[0] == f"{100 * rows[at]['recall_5db']:.0f} %"
        assert page.locator(".track span", has_text="shipped").count() == 6
        slide(page, "screaming", "on", *["ArrowLeft"] * 5)
        assert shown(page, "screaming", "recall") == f"{100 * rows[at - 5]['recall_5db']:.0f} %" != before[0]
        assert shown(page, "screaming", "misses") == f"{rows[at - 5]['misses_per_hour']:.0f}" != before[2]
        assert shown(page, "crying", "alarms") == f"{2 / (1200 / 3600):.1f}"
        slide(page, "crying", "min_seconds", "End")
        assert shown(page, "crying", "alarms") == "0.0"  # the false alarm lasts 1.92 s
        page.check("[value=test]")
        assert page.locator("[data-label=crying] [data-chart=alarms] tr").count() == 1
        page.click("[type=reset]")
        version = json.dumps(SETTINGS["version"])
        page.wait_for_function(f"document.getElementById('settings').textContent.includes('{version}')")
        assert json.loads(page.inner_text("#settings")) == SETTINGS


def test_the_loader_of_the_service_takes_the_printed_settings(folder, page_at, tmp_path):
    with page_at((folder / "thresholds.html").as_uri(), width=390, scheme="dark") as page:
        slide(page, "crying", "on", "Home")
        slide(page, "screaming", "merge_seconds", "End")
        printed = page.inner_text("#settings")
    shutil.copytree(config.MODELS_DIR / "detector", tmp_path / "detector")
    (tmp_path / "detector" / "settings.json").write_text(printed, encoding="utf-8")
    loaded = Detector.load(tmp_path, embed=lambda patches: np.zeros((len(patches), 1024))).settings
    assert loaded.events.on == SETTINGS["events"]["on"] | {"crying": curves.ON[0]}
    assert loaded.events.off["crying"] < curves.ON[0]
    assert loaded.events.merge_seconds["screaming"] == curves.MERGE_SECONDS[-1]
    assert re.fullmatch(SETTINGS["version"] + "-[0-9a-f]{8}", loaded.version)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index", "thresholds", "listening"])
def test_pages_fit_and_follow_the_scheme(folder, page_at, name, scheme, width):
    with page_at((folder / f"{name}.html").as_uri(), width=width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper)[:3])) > 380) == (scheme == "light")
        assert page.get_by_role("link", name="listen").count()


def test_every_player_has_sound_and_a_cursor_that_moves(folder, page_at):
    with page_at((folder / "listening.html").as_uri()) as page:
        assert page.locator(".item").count() == 3 == page.locator("audio[src^='data:audio/mpeg']").count()
        page.locator(".plot").first.click(position={"x": 20, "y": 20})
        page.wait_for_function("parseFloat(document.querySelector('.cursor').style.left) > 15", timeout=20_000)
        assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(4.8, abs=0.05)
        page.locator("audio").nth(1).evaluate("player => player.play()")
        page.wait_for_function("document.querySelector('audio').paused")  # one at a time
        wave, mel = (page.locator(name).first.bounding_box() for name in ("svg.wave", "img.mel"))
        assert (
            wave["x"] == mel["x"]
            and wave["width"] == mel["width"] == page.locator("svg.steps").first.bounding_box()["width"]
        )


def test_the_pdf_has_the_table(folder, tmp_path):
    source = pdf.chapter((folder.parents[1] / "chapter.html").read_text(encoding="utf-8"), tmp_path)
    assert source.count("(shipped)") == 2 and "Thresholds to choose from" in source


def test_what_is_missing_is_said_and_a_committed_page_stays(tmp_path, monkeypatch):
    reports.move(monkeypatch, tmp_path)
    assert interactive.bodies() == {} and interactive.chapter() == ""
    reports.write(config.report_dir("full"), studies=False)
    assert report.index_body(steps.Plan("full"), reports.INFO).count("not in this build") == 2
    (config.report_dir("full") / "listening.html").write_text("kept", encoding="utf-8")
    index = report.write_pages(steps.Plan("full"), reports.INFO).read_text(encoding="utf-8")
    assert (config.report_dir("full") / "listening.html").read_text(encoding="utf-8") == "kept"
    assert 'href="listening.html"' in index and 'href="thresholds.html"' not in index


def test_the_committed_report_has_players_enough_and_stays_small():
    folder = config.PROJECT_DIR / "reports" / "full"
    assert (folder / "listening.html").read_text(encoding="utf-8").count("<audio") >= FEWEST_PLAYERS
    assert sum(path.stat().st_size for path in folder.glob("*.*") if path.suffix in (".html", ".pdf")) < MAX_PAGES_BYTES


def test_the_readme_shows_the_chooser_of_the_released_detector(request):
    """With UPDATE_GOLDEN=1 the picture is taken again, of the committed report."""
    path = config.PROJECT_DIR / "docs" / "images" / "thresholds.png"
    if os.environ.get("UPDATE_GOLDEN"):
        url = (config.PROJECT_DIR / "reports" / "full" / "thresholds.html").as_uri()
        with request.getfixturevalue("page_at")(url, width=1000) as page:
            slider = page.get_by_label("Threshold, screaming")
            slider.fill(str(int(slider.input_value()) + 4))
            slider.blur()
            taken = Image.open(io.BytesIO(page.locator(".two").screenshot()))
        note = PngImagePlugin.PngInfo()
        note.add_text("detector", SETTINGS["version"])
        taken.quantize().save(path, pnginfo=note)
    assert Image.open(path).info.get("detector") == SETTINGS["version"]
