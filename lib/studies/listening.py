"""What the report's listening page plays: misses, false alarms, right answers and hard negatives, in listening.json.

Items come from test clips and test soundscapes, run through the detector that ships, and from clips and soundscapes of
corpora that the detector in question was not trained on. Misses and false alarms are those in which the detector is
most wrong, hard negatives those that come nearest to an alarm; what was found is drawn by a hash of its name. Within a
kind the places take turns, and no infant, voice or recording comes twice. Only sound whose licence allows to pass it
on is played, with every clip that sounds in an excerpt; of the rest, single clips are listed by address.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib
import numpy as np
import pandas as pd

from lib import config, waveforms
from lib.config import PATCH_HOP_SAMPLES, SAMPLE_RATE_HZ
from lib.corpora import acquisition, optional
from lib.detector import HOP_SECONDS, Detection
from lib.events import EVENT_LABELS, Event
from lib.reporting.players import address, encode_mp3
from lib.studies.detection import COLLAR_SECONDS, Scored, overlap
from lib.studies.soundscapes import Reference

FILE_NAME = "listening.json"
KINDS = ("missed", "false_alarm", "found", "left_alone")
PLACES = ("test_clip", "test_soundscape", "left_out_clip", "left_out_soundscape")
N_PER_KIND, N_LISTED = 11, 8  # of each kind and label
TOLD = ("title", "url", "licence", "citation")  # of a source
N_FRAMES = 12  # of an excerpt, 5.76 s
N_COLUMNS, N_COLOURS = 192, 24  # of the drawings
_FREE = re.compile(r"\bCC0\b|\bCC BY(-SA)? \d|\bODbL\b|\bMIT\b|public domain")
_BARRED = re.compile(r"\bNC\b|\bND\b|not stated|none stated|unknown|belongs|terms")


@dataclass(frozen=True)
class Recording(Scored):
    """A soundscape, or a clip by itself (its background: the subtype), and which of `PLACES` it comes from."""

    place: str


@dataclass(frozen=True)
class Candidate:
    """A stretch of a recording that can be shown: why, where its middle is, and what comes first."""

    kind: str
    label: str
    recording: Recording
    first_frame: int
    score: float
    clip_ids: tuple[str, ...]  # all that sound in it


def of_clip(place: str, row: Mapping[str, Any], waveform: np.ndarray, found: Detection) -> Recording:
    """Return a clip by itself as a recording; a cry or a scream is taken to fill it."""
    name, seconds = row["clip_id"], len(waveform) / SAMPLE_RATE_HZ
    reference = Reference(Event(0.0, seconds, row["label"]), math.inf, row["group_id"], (name,))
    what = (reference,) if row["label"] in EVENT_LABELS else (), (), ((name, 0.0, seconds),), lambda: waveform
    return Recording(name, row["subtype"], seconds, *what, found.frames, tuple(found.events), place)


def of_soundscape(place: str, scored: Scored) -> Recording:
    """Return a soundscape as a recording."""
    return Recording(**vars(scored), place=place)


def may_be_passed_on(row: Mapping[str, Any]) -> bool:
    """Tell from a manifest row's licence whether a page may carry the clip.

    CC0, CC BY, CC BY-SA, ODbL, MIT and public domain allow it, unless something in the same line takes it back. Of
    wilhelmsfx, only clips from Freesound are surely CC0.
    """
    free = _FREE.search(row["licence"]) and not _BARRED.search(row["licence"])
    return bool(free) and (row["source"] != "wilhelmsfx" or row["group_id"].startswith("fs:"))


def candidates(recording: Recording) -> Iterator[Candidate]:
    """Yield what can be shown of a recording."""
    for label in EVENT_LABELS:
        events, references = recording.found(label), recording.reference_events(label)
        for event in references:
            is_found = any(overlap(event, other) for other in events)
            yield _candidate("found" if is_found else "missed", event, recording)
        for event in events:
            if not any(overlap(event, other, COLLAR_SECONDS) for other in references):
                yield _candidate("false_alarm", event, recording)
    if recording.place.endswith("clip") and not recording.references and not recording.events:
        frame, column = np.unravel_index(np.argmax(recording.frames), recording.frames.shape)
        at = float(frame) * HOP_SECONDS
        yield _candidate("left_alone", Event(at, at + HOP_SECONDS, EVENT_LABELS[int(column)]), recording)


def _candidate(kind: str, event: Event, recording: Recording) -> Candidate:
    middle = (event.onset_seconds + event.offset_seconds) / 2
    last = max(len(recording.frames) - N_FRAMES, 0)
    first = min(max(round(middle / HOP_SECONDS) - N_FRAMES // 2, 0), last)
    start, stop = first * HOP_SECONDS, (first + N_FRAMES) * HOP_SECONDS
    clip_ids = tuple(dict.fromkeys(name for name, on, off in recording.sounding if on < stop and off > start))
    inside = slice(int(event.onset_seconds / HOP_SECONDS), max(round(event.offset_seconds / HOP_SECONDS), 1))
    highest = float(recording.frames[inside, EVENT_LABELS.index(event.label)].max(initial=0))
    draw = int(hashlib.sha256(f"{recording.name} {start:.2f}".encode()).hexdigest()[:8], 16)
    score = {"missed": 1 - highest, "found": draw / 16**8}.get(kind, highest)
    return Candidate(kind, event.label, recording, first, score, clip_ids)


def choose(
    found: Iterable[Candidate], *, groups: Mapping[str, str], n_per_kind: int = N_PER_KIND
) -> Iterator[Candidate]:
    """Yield up to `n_per_kind` of each kind and label: best score first, places in turns, each group once.

    `groups` maps a clip to its group.
    """
    ordered = sorted(found, key=lambda item: (-item.score, item.recording.name, item.first_frame))
    for kind, label in itertools.product(KINDS, EVENT_LABELS):
        mine = [item for item in ordered if (item.kind, item.label) == (kind, label)]
        queues = [[item for item in mine if item.recording.place == place] for place in PLACES]
        turns = [item for turn in itertools.zip_longest(*queues) for item in turn if item is not None]
        used: set[str] = set()
        n_chosen = 0
        for item in turns:
            own = {groups[name] for name in item.clip_ids}
            if n_chosen < n_per_kind and not own & used:
                used, n_chosen = used | own, n_chosen + 1
                yield item


def item(candidate: Candidate, rows: pd.DataFrame) -> dict[str, Any]:
    """Return what the page shows of a candidate, with its sound and drawings; `rows` are indexed by clip."""
    first, frames = candidate.first_frame, candidate.recording.frames
    references = [reference.event for reference in candidate.recording.references]
    start = first * PATCH_HOP_SAMPLES
    sound = candidate.recording.waveform()[start : start + N_FRAMES * PATCH_HOP_SAMPLES]
    shown, gain_db = _loud(sound)
    seconds = len(sound) / SAMPLE_RATE_HZ
    return _words(candidate, rows) | {
        "seconds": round(seconds, 3),
        "gain_db": round(gain_db),
        "audio": address("audio/mpeg", encode_mp3(shown)),
        "mel": address("image/png", log_mel_png(sound)),
        "wave": wave_path(shown),
        "frames": frames[first : first + N_FRAMES].round(3).tolist(),
        **{
            name: [
                [round(max(event.onset_seconds - first * HOP_SECONDS, 0), 2),
                 round(min(event.offset_seconds - first * HOP_SECONDS, seconds), 2), event.label]
                for event in listed
                if overlap(event, Event(first * HOP_SECONDS, first * HOP_SECONDS + seconds, ""))
            ]
            for name, listed in (("references", references), ("events", candidate.recording.events))
        },
    }  # fmt: skip


def _words(candidate: Candidate, rows: pd.DataFrame) -> dict[str, Any]:
    recording = candidate.recording
    clips = rows.loc[list(candidate.clip_ids), ["source", "subtype"]].reset_index().to_dict("records")
    inside = recording.frames[candidate.first_frame : candidate.first_frame + N_FRAMES]
    return {
        "kind": candidate.kind,
        "label": candidate.label,
        "place": recording.place,
        "background": recording.background,
        "start_seconds": round(candidate.first_frame * HOP_SECONDS, 2),
        "highest": round(float(inside[:, EVENT_LABELS.index(candidate.label)].max(initial=0)), 3),
        "clips": [clip | {"address": _address_of(clip["clip_id"], clip["source"])} for clip in clips],
    }


def _loud(sound: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a sound with its peak at 0.9, and the gain in dB; at most 40 dB."""
    gain = min(0.9 / max(float(np.abs(sound).max(initial=0)), 1e-9), 100.0)
    return sound * np.float32(gain), 20 * np.log10(gain)


def log_mel_png(sound: np.ndarray) -> bytes:
    """Return the log-mel of a sound as a small PNG, `N_COLUMNS` wide, the highest mel on top."""
    from PIL import Image

    power_db = waveforms.log_mel(sound).power_db
    edges = np.linspace(0, power_db.shape[1], N_COLUMNS + 1).astype(int)[:-1]
    columns = np.maximum.reduceat(power_db, np.minimum(edges, power_db.shape[1] - 1), axis=1)[::-1]
    levels = np.clip((columns + 80) / 80 * N_COLOURS, 0, N_COLOURS - 1).astype(np.uint8)
    image = Image.fromarray(levels).convert("P")
    colours = matplotlib.colormaps["magma"](np.linspace(0, 1, N_COLOURS))[:, :3]
    image.putpalette((colours * 255).astype(np.uint8).ravel().tolist())
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


def wave_path(sound: np.ndarray) -> str:
    """Return an SVG path of a sound's smallest and largest sample in each of `N_COLUMNS`, in a box 100 high."""
    parts = np.array_split(sound, N_COLUMNS)
    ends = [(part.min(initial=0), part.max(initial=0)) for part in parts]
    return "".join(f"M{x} {50 - 50 * high:.0f}V{50 - 50 * low + 1:.0f}" for x, (low, high) in enumerate(ends))


@functools.cache
def _index() -> tuple[dict[str, str], dict[str, dict]]:
    """Return the path of each recording by clip, and the row of each source."""
    recordings = acquisition.clips()
    sources = optional.table().fillna("").set_index("source").to_dict("index")
    return dict(zip(recordings["clip_id"], recordings["path"], strict=True)), sources


def _address_of(clip_id: str, source: str) -> str:
    """Return where a clip's recording is on the web: its file where the source keeps single files."""
    paths, sources = _index()
    path = paths.get(clip_id) or paths.get(clip_id.rpartition("-")[0], "")
    found = sources.get(source, {"kind": "", "url": ""})
    is_file = bool(path) and found["kind"] == "files"
    return f"{found['url']}/blob/{found['commit']}/{quote(path)}" if is_file else found["url"]


def write(path: Path, recordings: Iterable[Recording], rows: pd.DataFrame, version: str) -> None:
    """Write listening.json: items, single clips listed by address, the sources of both, and the detector's version.

    Parameters
    ----------
    path : Path
    recordings : iterable of Recording
    rows : DataFrame
        Manifest rows of every clip that sounds in them.
    version : str
        Of the detector that ships; its settings are in curves.json.
    """
    free = {row["clip_id"]: may_be_passed_on(row) for row in rows.to_dict("records")}
    groups = dict(zip(rows["clip_id"], rows["group_id"], strict=True))
    found = [each for recording in recordings for each in candidates(recording)]
    playable = [each for each in found if all(free[name] for name in each.clip_ids)]
    barred = [each for each in found if each.recording.place.endswith("clip") and not free[each.clip_ids[0]]]
    indexed = rows.set_index("clip_id")
    items = [item(each, indexed) for each in choose(playable, groups=groups)]
    listed = [_words(each, indexed) for each in choose(barred, groups=groups, n_per_kind=N_LISTED)]
    names, sources = {clip["source"] for each in [*items, *listed] for clip in each["clips"]}, _index()[1]
    told = {name: {key: sources[name][key] for key in TOLD} for name in sorted(names & set(sources))}
    content = {"version": version, "items": items, "listed": listed, "sources": told}
    config.write_whole(path, f"{json.dumps(content, separators=(',', ':'))}\n".encode())
