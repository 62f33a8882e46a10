"""The demo: what is known of a microphone and when; the page in Chromium, whose microphone plays a cry and a scream."""

from __future__ import annotations

import base64
import os
import socket

import numpy as np
import pytest
import soundfile

from lib import audio, config, waveforms
from lib.detector import Detector
from lib.events import frames_to_events
from lib.reporting import demo

RATE_HZ = 48_000
DATA_DIR = config.PROJECT_DIR / "tests" / "data"
CRY_AT, SCREAM_AT = 2.0, 10.0


@pytest.fixture(scope="module")
def detector():
    return Detector.load()


@pytest.fixture(scope="module")
def sound():
    """At 16 kHz: faint noise of 14 s, with a real cry of 6 s at 2 s and a real scream of 2 s at 10 s."""
    mixed = np.random.default_rng(0).normal(0, 1e-3, 14 * config.SAMPLE_RATE_HZ).astype(np.float32)
    clips = {CRY_AT: DATA_DIR / "no_eos.opus", SCREAM_AT: DATA_DIR / "cases" / "scream_2s_alone.wav"}
    for at, path in clips.items():
        clip = audio.load(path)
        mixed[round(at * config.SAMPLE_RATE_HZ) :][: len(clip)] += clip
    return waveforms.within_full_scale(mixed)


@pytest.fixture(scope="module")
def recorded(sound):
    return np.rint(waveforms.resample(sound, config.SAMPLE_RATE_HZ, RATE_HZ) * 32767).clip(-32768, 32767).astype("<i2")


def test_the_label_comes_within_two_seconds_of_the_sound(detector, recorded):
    microphone, known_at = demo.Microphone(detector, RATE_HZ), {}
    piece = RATE_HZ * 12 // 100
    for stop in range(piece, len(recorded), piece):
        told = microphone.push(recorded[stop - piece : stop])
        known_at.setdefault(told["label"], stop / RATE_HZ)
    assert CRY_AT < known_at["crying"] < CRY_AT + 2
    assert SCREAM_AT < known_at["screaming"] < SCREAM_AT + 2


def test_pieces_give_what_the_whole_recording_gives(detector, recorded):
    microphones, frames = demo.Microphones(detector), []
    bounds = [0, 1_000, 60_000, 61_234, 500_000, len(recorded)]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        sent = base64.b64encode(recorded[start:stop].tobytes()).decode()
        told = microphones.push({"name": "a", "rate_hz": RATE_HZ, "sound": sent, "is_last": stop == len(recorded)})
        assert told["first_frame"] == len(frames)
        frames += told["frames"]
    whole = demo.Microphone(detector, RATE_HZ).push(recorded, is_last=True)
    assert frames == whole["frames"]
    expected = frames_to_events(np.array(frames), detector.settings.events, hop_seconds=0.48)
    found = [(event["label"], event["onset_seconds"], event["kind"]) for event in told["events"]]
    assert sorted(found) == sorted((event.label, event.onset_seconds, "END") for event in expected)


def test_a_file_that_is_no_sound_is_named(detector, tmp_path):
    (tmp_path / "a<b.wav").write_bytes(b"no sound")
    assert "a&amp;lt;b.wav" in demo.file_page(str(tmp_path / "a<b.wav"), detector)
    assert demo.file_page(None, detector) == ""


@pytest.mark.slow
def test_in_a_browser_a_cry_and_a_scream_are_labelled(
    page_at, chromium, chromium_program, detector, recorded, tmp_path, monkeypatch
):
    soundfile.write(tmp_path / "microphone.wav", recorded, RATE_HZ, subtype="PCM_16")
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # `launch` sets them: put back afterwards
    served = demo.launch(detector, folder=str(tmp_path))
    flags = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags += [f"--use-file-for-fake-audio-capture={tmp_path / 'microphone.wav'}%noloop"]
    browser = chromium.browser_type.launch(executable_path=chromium_program, args=flags)
    try:
        with page_at(served.local_url, width=390, browser=browser) as page:
            page.get_by_role("button", name="Start").click()
            scream = page.locator("table.events tr[data-label=screaming]")
            scream.first.wait_for(timeout=90_000)
            assert page.locator("table.events tr[data-label=crying]").count() >= 1
            slowness = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
            assert float(page.locator(".now").get_attribute("data-after")) < 2 * slowness
            assert page.evaluate("document.documentElement.scrollWidth") == 390
            page.get_by_role("tab", name="File").click()
            page.set_input_files("input[type=file]", tmp_path / "microphone.wav")
            rows = page.frame_locator("iframe.file").locator("#events tbody tr")
            rows.first.wait_for(timeout=90_000)
            assert {"crying", "screaming"} <= {label for row in rows.all_inner_texts() for label in row.split()}
    finally:
        browser.close()
        served.close()


def test_a_port_that_cannot_be_used_is_named(monkeypatch, capsys):
    gr = pytest.importorskip("gradio")
    monkeypatch.setattr(demo.Detector, "load", lambda _: None)
    with gr.Blocks() as page:
        gr.Markdown("page")
    monkeypatch.setattr(demo, "build", lambda _: page)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (99_999, taken.getsockname()[1]):
            with pytest.raises(SystemExit) as left:
                demo.main(["--port", str(port)])
            assert left.value.code == 2
            assert f"port {port} on 127.0.0.1 cannot be used" in capsys.readouterr().err
