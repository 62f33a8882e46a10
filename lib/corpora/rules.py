"""How labels and groups are read from the files of optional corpora: one small function per corpus."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

PER_SPEAKER = 3  # utterances: more of one voice teaches little, and speech must not outnumber the rest
CHILD_YEARS = 16
# AudioSet's own identifiers: https://research.google.com/audioset/ontology
AUDIOSET_KINDS = {  # the first that a segment has decides
    "/m/0463cq4": ("crying", "cry"),  # Crying, sobbing
    "/t/dd00002": ("crying", "cry"),  # Baby cry, infant cry
    "/m/03qc9zr": ("screaming", "scream"),
    "/m/0ytgt": ("normal", "speech_child"),
}
ESC50_CRYING, ESC50_LAUGHING, ESC50_SIRENS = 20, 26, {42, 43}  # class numbers; 43 is the car horn
ESC50_TENS = ("animal", "outdoor", "body", "household", "outdoor")  # its five major categories


@dataclass(frozen=True)
class Labelled:
    """A recording with its label and group, as its corpus states them."""

    path: Path
    label: str
    subtype: str
    group_id: str


def esc50(folder: Path) -> list[Labelled]:
    """Read ``audio/<fold>-<Freesound number>-<take>-<class>.wav``."""
    named = ((path, re.fullmatch(r"\d-(\d+)-[A-Z]-(\d+)", path.stem)) for path in sorted(folder.rglob("*.wav")))
    return [Labelled(path, *_esc50_label(int(name[2])), f"fs:{name[1]}") for path, name in named if name]


def _esc50_label(number: int) -> tuple[str, str]:
    if number == ESC50_CRYING:
        return "crying", "infant_cry"
    if number == ESC50_LAUGHING:
        return "normal", "laugh"
    return "normal", "siren" if number in ESC50_SIRENS else ESC50_TENS[number // 10]


def librispeech(folder: Path) -> list[Labelled]:
    """Read ``LibriSpeech/dev-clean/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac``."""
    paths = sorted(folder.rglob("*.flac"))
    return _speech((path, path.stem.partition("-")[0], "speech_adult") for path in paths)


def speechocean762(folder: Path) -> list[Labelled]:
    """Read ``WAVE/SPEAKER<number>/*.WAV`` and the ages in ``*/spk2age``."""
    ages: dict[str, int] = {}
    for table in folder.rglob("spk2age*"):
        pairs = (line.split() for line in table.read_text(encoding="utf-8").splitlines())
        ages |= {pair[0].lstrip("0"): int(pair[1]) for pair in pairs if len(pair) == 2}
    voices = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".wav"):
        speaker = path.parent.name.removeprefix("SPEAKER")
        child = ages.get(speaker.lstrip("0"), CHILD_YEARS) < CHILD_YEARS
        voices.append((path, speaker, "speech_child" if child else "speech_adult"))
    return _speech(voices, prefix="so762")


def common_voice(folder: Path) -> list[Labelled]:
    """Read ``validated.tsv``, which names clip and speaker."""
    voices = []
    for table in sorted(folder.rglob("validated.tsv")):
        for row in _rows(table):
            path = table.parent / "clips" / Path(row["path"]).name
            if path.is_file():
                voices.append((path, row["client_id"][:32], "speech_adult"))
    return _speech(voices, prefix="cv")


def _speech(voices: Iterable[tuple[Path, str, str]], *, prefix: str = "librispeech") -> list[Labelled]:
    """Keep the first utterances of each speaker; all are normal."""
    frame = pd.DataFrame(voices, columns=["path", "speaker", "subtype"])
    kept = frame[frame.groupby("speaker").cumcount() < PER_SPEAKER]
    return [Labelled(row.path, "normal", row.subtype, f"{prefix}:{row.speaker}") for row in kept.itertuples()]


def audioset(folder: Path) -> list[Labelled]:
    """Read Google's list of segments; one of the wanted kinds counts where its recording is there."""
    there = {path.stem: path for path in sorted(folder.rglob("*.flac"))}
    found = []
    for table in sorted(folder.rglob("*segments.csv")):
        segments = pd.read_csv(table, comment="#", header=None, usecols=[0, 3], skipinitialspace=True, dtype=str)
        for video, labels in segments.itertuples(index=False):
            kind = next((kind for name, kind in AUDIOSET_KINDS.items() if name in labels.split(",")), None)
            if kind and video in there:
                found.append(Labelled(there[video], *kind, f"yt:{video}"))
    return found


def kaggle_screaming(folder: Path) -> list[Labelled]:
    """Read the folders Screaming and NotScreaming."""
    kinds = {"Screaming": ("screaming", "scream"), "NotScreaming": ("normal", "other")}
    paths = (path for path in sorted(folder.rglob("*.wav")) if path.parent.name in kinds)
    return [Labelled(path, *kinds[path.parent.name], f"kscream:{_without_number(path.stem)}") for path in paths]


def icsd(folder: Path) -> list[Labelled]:
    """Read the tables ``filename, onset, offset, event_label``; one infant cry makes a clip a cry."""
    events: dict[str, set[str]] = {}
    for table in sorted(folder.rglob("*.tsv")):
        for row in _rows(table):
            labels = row.get("event_label") or row.get("event_labels") or ""
            events.setdefault(Path(row.get("filename", "")).name, set()).add(labels.lower())
    found = []
    for path in sorted(folder.rglob("*.wav")):
        labels = " ".join(sorted(events.get(path.name, ())))
        kind = ("crying", "infant_cry") if "cry" in labels else ("normal", "body") if "snor" in labels else None
        if kind:
            found.append(Labelled(path, *kind, f"icsd:{_without_number(path.stem)}"))
    return found


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _without_number(stem: str) -> str:
    return re.sub(r"[-_ (\d)]+$", "", stem) or stem


RULES: dict[str, Callable[[Path], list[Labelled]]] = {
    "esc50": esc50,
    "librispeech": librispeech,
    "speechocean762_all": speechocean762,
    "audioset": audioset,
    "kaggle_screaming": kaggle_screaming,
    "icsd": icsd,
    "common_voice": common_voice,
}
