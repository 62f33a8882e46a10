"""`./run_all.sh demo`: a local page that follows the microphone, or shows a file's timeline, with the stream detector.

It stands here and not in the lesson: it makes a page, and needs Gradio, which nothing that is taught does. Nothing
leaves the machine: the page is served on loopback and asks for nothing from anywhere.

Gradio's own microphone (`gr.Audio(streaming=True)`) was tried: a piece that comes while the one before is classified
takes the place of any other that waits (/stream/{event_id} in its routes.py), so sound is lost on a busy machine; each
is a file on disk; and the browser removes "noise" from it. Here the page's own script records, and sends piece after
piece to a server function.
"""

from __future__ import annotations

import argparse
import base64
import functools
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from lib import audio, config
from lib.detector import HOP_SECONDS, Detector, FrameStream
from lib.events import EventChange, EventTracker, frame_spans
from lib.reporting import timeline
from lib.reporting.timeline import TEMPLATES_DIR

SERVER = "127.0.0.1"
MAX_MICROPHONES = 4  # at a time; the one that was opened first is forgotten


class Microphone:
    """One microphone's stream, and the events in it so far."""

    def __init__(self, detector: Detector, rate_hz: int) -> None:
        self.resampler = soxr.ResampleStream(rate_hz, config.SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
        self.stream, self.tracker = FrameStream(detector), EventTracker(detector.settings.events)
        self.events: dict[int, EventChange] = {}
        self.n_frames = 0

    def push(self, samples: np.ndarray, *, is_last: bool = False) -> dict[str, Any]:
        """Take the next samples, int16 (n_samples,); return what is known now, ready for JSON.

        Returns
        -------
        dict
            `first_frame` and `frames`, the new ones; `events`, all so far; `label`, of the newest frame, and `onset`,
            the start of the sound that has it.
        """
        waveform = self.resampler.resample_chunk(samples.astype(np.float32) / audio.PCM16_SCALE, last=is_last)
        known = self.stream.push(np.clip(waveform, -1, 1))
        known = np.concatenate([known, self.stream.finish()]) if is_last else known
        spans = frame_spans(known, hop_seconds=HOP_SECONDS, first_frame=self.n_frames)
        changes = self.tracker.advance(spans) + (self.tracker.finish() if is_last else [])
        self.events |= {change.number: change for change in changes}
        first, self.n_frames = self.n_frames, self.n_frames + len(known)
        events = [asdict(change) for change in self.events.values()]
        return {"first_frame": first, "frames": known.tolist(), **self._label(), "events": events}

    def _label(self) -> dict[str, Any]:
        """Return the label of the newest frame: that of the strongest sound that goes on, reported yet or not."""
        active = {label: event for label, event in self.tracker.state.open.items() if event.is_active}
        label = max(active, key=lambda name: active[name].peak_probability, default="normal")
        return {"label": label, "onset": active[label].onset_seconds if active else None}


class Microphones:
    """The microphones of the open pages, by a name that each page chooses."""

    def __init__(self, detector: Detector) -> None:
        self.detector, self._open = detector, dict[str, Microphone]()

    def push(self, message: dict[str, Any]) -> dict[str, Any]:
        """Take a page's message: `name`, `rate_hz`, `sound` (base64 of int16), `is_last`; see `Microphone.push`."""
        name = str(message["name"])
        microphone = self._open.pop(name, None) or Microphone(self.detector, int(message["rate_hz"]))
        told = microphone.push(np.frombuffer(base64.b64decode(message["sound"]), "<i2"), is_last=message["is_last"])
        if not message["is_last"]:
            self._open[name] = microphone
        for oldest in list(self._open)[:-MAX_MICROPHONES]:
            self._open.pop(oldest, None)
        return told


def file_page(path: str | None, detector: Detector) -> str:
    """Return the timeline of a file in a frame that may run its own script alone; what is wrong with it, as text."""
    if not path:
        return ""
    try:
        page = timeline.html(timeline.follow(Path(path), detector), detector)
    except audio.AudioError as error:
        page = escape(str(error))
    allowed = "allow-scripts allow-downloads"
    return f'<iframe class="file" sandbox="{allowed}" title="Timeline" srcdoc="{escape(page)}"></iframe>'


def build(detector: Detector) -> Any:
    """Return the Gradio page."""
    import gradio as gr

    def follow(message: dict[str, Any]) -> dict[str, Any]:
        return microphones.push(message)

    microphones = Microphones(detector)
    detector.detect(np.zeros(config.SAMPLE_RATE_HZ, np.float32) + np.float32(0.01))  # the first time takes longer
    with gr.Blocks(title="Crying, screaming or normal", analytics_enabled=False, delete_cache=(60, 60)) as page:
        gr.Markdown("# Crying, screaming or normal\nThe stream detector on your own sound. It is not a safety device.")
        with gr.Tab("Microphone"):
            gr.HTML(
                html_template=_text("demo.html"),
                js_on_load=_text("demo.js"),
                server_functions=[follow],
                on=detector.settings.events.on,
            )
        with gr.Tab("File"):
            given = gr.File(label="A recording of any length", type="filepath")
            given.change(functools.partial(file_page, detector=detector), given, gr.HTML())
    return page


def _text(name: str) -> str:
    return (TEMPLATES_DIR / name).read_text(encoding="utf-8")


def launch(detector: Detector, *, port: int | None = None, folder: str) -> Any:
    """Serve the page on loopback, beside what goes on here; return it, with its address in `local_url`."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "HF_HUB_OFFLINE": "1"}
    import gradio as gr

    page = build(detector)
    page.launch(
        server_name=SERVER,
        server_port=port,
        share=False,
        quiet=True,  # Gradio's own message advises a public link
        prevent_thread_lock=True,
        footer_links=[],
        run_history=False,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=_text("demo.css"),
    )
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo until Ctrl+C."""
    parser = argparse.ArgumentParser(prog="./run_all.sh demo", description="The stream detector on your own sound.")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--models", type=Path, default=config.MODELS_DIR, help="folder of the trained models")
    chosen = parser.parse_args(arguments)
    detector = Detector.load(chosen.models)
    with tempfile.TemporaryDirectory(prefix="cry-scream-demo-") as folder:  # what is uploaded goes with it
        try:
            page = launch(detector, port=chosen.port, folder=folder)
        except (OSError, OverflowError):  # Gradio's own message names a variable of Gradio's
            parser.error(f"port {chosen.port or 'from 7860 on'} on {SERVER} cannot be used: choose another --port.")
        sys.stdout.write(f"Demo: {page.local_url} Stop: Ctrl+C\n")
        sys.stdout.flush()
        page.block_thread()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
