"""A recording of hours as one page to look at and listen to; its events as tables.

`python -m lib.reporting.timeline night.m4a`. The page holds the stream detector's frames, the level, the events and
their sound, and asks for nothing from anywhere. The recording is decoded twice, in blocks: once for the detector, once
to cut the sound of its events. What stays in memory is some bytes for each frame of 0.48 s and the encoded sound, so a
day needs little more than an hour.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import jinja2
import numpy as np
from tqdm import tqdm

from lib import audio, config
from lib.detector import HOP_SECONDS, Detector
from lib.events import EVENT_LABELS, Event
from lib.inference import NO_SOUND, no_sound
from lib.reporting.players import encode_mp3
from lib.waveforms import equalise_level, level_range_db, levels_db

EXIT_BAD_INPUT = 2
PAD_SECONDS = 2.0  # before and after an event, in its player
LONGEST_PLAYER_SECONDS = 60.0  # of a longer event, its start
ALL_PLAYERS_SECONDS = 3600.0  # in one page, strongest events first: 19 MB
PROBABILITY_STEPS, LEVEL_STEPS_PER_DB, LOWEST_DB = 250, 2, -100.0  # a byte for each
TEMPLATES_DIR = Path(__file__).with_name("templates")  # with the style sheet that all pages share

RAVEN_HEADER = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Annotation",
    "Score",
)  # fmt: skip


@dataclass(frozen=True)
class Timeline:
    """What is in a recording: frames (n_frames, 2) as `EVENT_LABELS`, their levels (n_frames,) in dBFS, and events."""

    path: Path
    seconds: float
    frames: np.ndarray
    levels_db: np.ndarray
    events: list[Event]
    remarks: list[str]


def follow(path: Path, detector: Detector, *, on_seconds: Callable[[float], object] = lambda _: None) -> Timeline:
    """Run the detector over a recording of any length; `on_seconds` is told of each stretch that is done.

    Raises
    ------
    lib.audio.AudioError
        If the recording cannot be read.
    """
    stream, lengths, levels, ranges = audio.stream(path), list[int](), list[np.ndarray](), list[float]()

    def measured() -> Iterator[np.ndarray]:
        """Pass blocks on, and note the level of each frame."""
        hop, held = config.PATCH_HOP_SAMPLES, np.empty(0, dtype=np.float32)
        for block in stream:
            lengths.append(len(block))
            ranges.extend(level_range_db(block))
            held = np.concatenate([held, block])
            n_whole = len(held) // hop * hop
            levels.append(levels_db(held[:n_whole].reshape(-1, hop)))
            held = held[n_whole:]
            yield block
            on_seconds(len(block) / config.SAMPLE_RATE_HZ)
        levels.append(levels_db(held[None]) if len(held) else np.empty(0))

    found = detector.detect(measured())
    remarks = [*stream.remarks, *no_sound(ranges)]
    seconds = sum(lengths) / config.SAMPLE_RATE_HZ
    return Timeline(path, seconds, found.frames, np.concatenate(levels), found.events, remarks)


def players(timeline: Timeline) -> dict[int, tuple[float, bytes]]:
    """Return the sound of events, by place in `timeline.events`: where it starts in the recording, and MP3.

    It is brought to one level, so that faint events are audible.
    """
    spans: dict[int, tuple[float, float]] = {}
    n_left = ALL_PLAYERS_SECONDS
    for place in sorted(range(len(timeline.events)), key=lambda place: -timeline.events[place].peak_probability):
        event = timeline.events[place]
        start = max(0.0, event.onset_seconds - PAD_SECONDS)
        stop = min(event.offset_seconds + PAD_SECONDS, start + LONGEST_PLAYER_SECONDS, timeline.seconds)
        if stop - start <= n_left:
            spans[place], n_left = (start, stop), n_left - (stop - start)
    spans = dict(sorted(spans.items(), key=lambda item: item[1]))
    pieces = cut(audio.stream(timeline.path) if spans else [], [*spans.values()])
    return {
        place: (start, encode_mp3(equalise_level(piece)))
        for (place, (start, _)), piece in zip(spans.items(), pieces, strict=True)
    }


def cut(blocks: Iterable[np.ndarray], spans: Sequence[tuple[float, float]]) -> Iterator[np.ndarray]:
    """Yield the samples of spans (start, stop) in seconds, sorted by start; no more is held than the longest span."""
    bounds = [(round(start * config.SAMPLE_RATE_HZ), round(stop * config.SAMPLE_RATE_HZ)) for start, stop in spans]
    held, first = np.empty(0, dtype=np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block])
        while bounds and bounds[0][1] <= first + len(held):
            start, stop = bounds.pop(0)
            yield held[start - first : stop - first]
        if not bounds:
            return
        n_useless = min(max(bounds[0][0] - first, 0), len(held))
        held, first = held[n_useless:], first + n_useless


def html(timeline: Timeline, detector: Detector, *, started_at: datetime | None = None) -> str:
    """Return the page: self-contained, it may ask for nothing from anywhere.

    `started_at` is when the recording began; the page then shows the time of day.
    """
    sound = players(timeline)
    events = [asdict(event) for event in timeline.events]
    for place, (start, mp3) in sound.items():
        events[place] |= {"audio": base64.b64encode(mp3).decode(), "audio_seconds": start}
    settings = detector.settings
    data = {
        "seconds": timeline.seconds, "hop": HOP_SECONDS, "labels": EVENT_LABELS,
        "on": settings.events.on, "events": events, "lowest_db": LOWEST_DB,
        "started_at": started_at and started_at.isoformat(),
        **{label: _bytes(timeline.frames[:, i] * PROBABILITY_STEPS) for i, label in enumerate(EVENT_LABELS)},
        "level": _bytes((timeline.levels_db - LOWEST_DB) * LEVEL_STEPS_PER_DB),
    }  # fmt: skip
    name = audio.printable(timeline.path.name)  # it need not be valid text
    loader = jinja2.FileSystemLoader(TEMPLATES_DIR)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("timeline.html.j2").render(
        name=name,
        remarks=timeline.remarks,
        counts={label: [e for e in timeline.events if e.label == label] for label in EVENT_LABELS},
        n_without_player=len(events) - len(sound),
        settings=settings,
        style=(TEMPLATES_DIR / "style.css").read_text(encoding="utf-8"),
        tables={f"{name}{end}": base64.b64encode(t.encode()).decode() for end, t in tables(timeline.events).items()},
        data=data,
        steps={"probability": PROBABILITY_STEPS, "db": LEVEL_STEPS_PER_DB},
    )


def _bytes(values: np.ndarray) -> str:
    return base64.b64encode(np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()).decode()


def tables(events: Sequence[Event]) -> dict[str, str]:
    """Return events as tables for other programs, by what a file's name ends with.

    CSV; a label track of Audacity (File > Import > Labels), without header; and a selection table of Raven (File > Open
    Selection Table), over all frequencies that are used.
    """
    rows = [(f"{e.onset_seconds:.3f}", f"{e.offset_seconds:.3f}", e.label, e.peak_probability) for e in events]
    highest_hz = config.SAMPLE_RATE_HZ // 2
    raven = [
        (number, "Spectrogram 1", 1, start, stop, 0, highest_hz, label, f"{peak:.3f}")
        for number, (start, stop, label, peak) in enumerate(rows, start=1)
    ]
    plain = [(start, stop, label, f"{peak:.3f}") for start, stop, label, peak in rows]
    return {
        ".csv": _table([("onset_seconds", "offset_seconds", "label", "peak_probability"), *plain], delimiter=","),
        ".audacity.txt": _table([(start, stop, f"{label} {peak:.2f}") for start, stop, label, peak in rows]),
        ".raven.txt": _table([RAVEN_HEADER, *raven]),
    }


def _table(rows: Iterable[Sequence[object]], *, delimiter: str = "\t") -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 if any input was bad or no trained detector is there."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.no_page and not chosen.export:
        parser.error("--no-page leaves nothing to write: add --export DIR")
    faults: list[str] = []
    try:
        paths, skipped = audio.expand(chosen.paths)
        sys.stderr.write("".join(f"skipped: {line}\n" for line in skipped))
        faults += [] if paths else ["no audio files there"]
        detector = Detector.load(chosen.models)
        for path, name in zip(paths, _names(paths), strict=True):
            faults += _write(path, detector, chosen, name=name)
    except (FileNotFoundError, ValueError) as error:
        faults.append(str(error))
    for fault in faults:
        sys.stderr.write(f"error: {fault}\n")
    return EXIT_BAD_INPUT if faults else 0


def _names(paths: Sequence[Path]) -> list[str]:
    """Return what each recording's files are called: by its folders, too, where several have one name."""
    n_alike = Counter(path.name for path in paths)
    top = os.path.commonpath([path.absolute().parent for path in paths or [Path()]])
    taken = {path.name for path in paths if n_alike[path.name] == 1}
    found = []
    for path in paths:
        name = path.name if n_alike[path.name] == 1 else "-".join(path.absolute().relative_to(top).parts)
        while n_alike[path.name] > 1 and name in taken:  # a file of the folder above may be called like that
            name = f"_{name}"
        taken.add(name)
        found.append(name)
    return found


def _write(path: Path, detector: Detector, chosen: argparse.Namespace, *, name: str) -> list[str]:
    """Write what is asked for of one recording, and name it on standard output; return what is wrong with it."""
    pages_dir, texts = None if chosen.no_page else chosen.out or path.parent, dict[Path, str]()
    try:
        for folder in filter(None, (pages_dir, chosen.export)):  # before hours of work
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(f"{folder} cannot be written to: choose another folder with --out or --export")
        seconds = audio.inspect(path).duration_seconds
        with tqdm(total=round(seconds), unit="s", unit_scale=True, desc=audio.printable(path.name)) as bar:
            timeline = follow(path, detector, on_seconds=lambda done: bar.update(min(done, bar.total - bar.n)))
        if pages_dir:
            texts[pages_dir / f"{name}.html"] = html(timeline, detector, started_at=chosen.started_at)
        if chosen.export:
            texts |= {chosen.export / f"{name}{end}": text for end, text in tables(timeline.events).items()}
        for file, text in texts.items():
            file.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{audio.printable(file)}\n")
    except (audio.AudioError, OSError) as error:
        return [str(error)]
    return [f"{audio.printable(path)}: {NO_SOUND}"] if NO_SOUND in timeline.remarks else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lib.reporting.timeline", description=__doc__)
    parser.add_argument("paths", nargs="+", metavar="FILE_OR_FOLDER", help="recordings, or folders of recordings")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where pages go (default: beside each recording)")
    parser.add_argument("--export", type=Path, metavar="DIR", help="write CSV, Audacity labels and Raven selections")
    parser.add_argument("--no-page", action="store_true", help="write no page")
    parser.add_argument(
        "--started-at", type=datetime.fromisoformat, metavar="TIME", help="when it began, such as 2026-11-28T21:30"
    )
    parser.add_argument("--models", type=Path, default=config.MODELS_DIR, help="folder of the trained models")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
