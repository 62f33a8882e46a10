"""Plain words: what DESIGN's table says not to write is nowhere in prose, code, notebooks or templates.

The table's words have innocent uses too (game voices, a family of fonts): a pattern names the use that is meant.
"""

from __future__ import annotations

import json
import re

import pytest

from lib import config

NETWORK = r"(?:networks?|models?|detectors?|ensembles?|classifiers?|YAMNet|Wav2Vec2)"
WORDS = {  # what is not written: what is
    r"never met|(?<![;:.] )\belsewhere\b(?!:)|\bstrangers?\b": "unseen corpora",
    r"\bfamil(?:y|ies)\b|by_family|families\b": "corpus group",
    r"\btwins?\b|_twins?\b|\btwin_": "random-split baseline, control",
    r"changed[ _]cop(?:y|ies)|changed versions?|versions? of (?:a|each|every|the) clips?": "augmented copies",
    r"AudioSet voices|YAMNet's voices|voices of YAMNet|\w_voices\b|\bvoices_\w": "AudioSet class scores",
    rf"{NETWORK} (?:hears?|heard|answers?|answered|says?|said|gives?|gave)\b|\bheard\b|_answers\b|\banswers_\w": (
        "is given, predicts, predictions"
    ),
    r"\bflatter": "is optimistic, optimistic bias",
    r"\bearns? (?:its|a|their) place": "is significantly better on validation",
    r"\bduels?\b": "pairwise comparisons",
    r"\bthaw|\bsettl(?:e|es|ed|ing)\b|\btemper\b|_temper\b": "unfreeze, interpolate weights, smoothing exponent",
    r"\w+s an hour\b|_an_hour\b|\d an hour|(?:rows?|times|once) a clip\b": "per clip, per hour",
    r"dB below the clip": "dB SNR",
    r"band[ _]edges?": "bandwidth",
    r"(?<!on )\btheir[ _]way\b|usual recipes?": "common evaluation mistakes",
    r"\bbetray|\bgiv(?:e|es|ing|en)(?: \w+){0,3} away\b|gives_\w*away": "predicts, leaks",
    r"can(?:not)? be had|\b(?:at|had|to) hand\b|passed[ _]over|\bvouch|\bmend(?:s|ed|ing)?\b|\blies? in\b": (
        "available, skipped, supply a checksum, fix, is in"
    ),
    r"\bmisordered\b|\bdoubled\b": "lost, duplicated, out of order",
    r"\bunsure\b|unsure_": "abstain",
    r"\bbeds?\b|_beds?\b|\bbeds?_": "background",
}
SUFFIXES = (".py", ".md", ".j2", ".ipynb", ".yaml")
PLACES = ("README.md", "CHANGELOG.md", "docs", "lib", "temporal_workflow", "notebooks", "params")
FILES = [
    path
    for place in map(config.PROJECT_DIR.joinpath, PLACES)
    for path in [place, *sorted(place.rglob("*"))]
    if path.suffix in SUFFIXES
]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(config.PROJECT_DIR)) for path in FILES])
def test_plain_words(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    found = [
        f"{path}: {line.strip()[:160]!r}: write {instead}"
        for line in text.splitlines()
        for pattern, instead in WORDS.items()
        if re.search(pattern, line, flags=re.IGNORECASE)
    ]
    assert found == [], "\n".join(found)
