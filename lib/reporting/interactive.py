"""The pages to choose and to listen with: bodies of thresholds.html and listening.html, and the PDF's table.

They are made from curves.json and listening.json, which the study `product` writes to build/studies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lib import config, plots
from lib.config import read_json
from lib.detector import HOP_SECONDS
from lib.events import EVENT_LABELS
from lib.reporting import results
from lib.reporting.report import PAGE_FILES
from lib.waveforms import log_mel

PAGES = {"listening.html": "listen", "thresholds.html": "thresholds"}  # file: its place in the bar of pages


def bodies() -> dict[str, str]:
    """Return the bodies of the pages whose input is in build/studies, by file name."""
    curves, content = (read_json(config.STUDIES_DIR / name) for name in PAGE_FILES)
    made = {"thresholds.html": chooser_body(curves)} if curves else {}
    if curves and content:
        made["listening.html"] = listening_body(content, curves["settings"]["events"]["on"])
    return made


def chapter() -> str:
    """Return what the PDF shows in place of the sliders, empty where nothing was measured."""
    curves, content = (read_json(config.STUDIES_DIR / name) for name in PAGE_FILES)
    if not curves:
        return ""
    given = _tables(curves)
    for label, rows in given["tables"].items():  # both labels on one page
        given["tables"][label] = [
            row for row in rows if row["is_shipped"] or row["on"] > 0.9 or round(20 * row["on"]) % 2 == 0
        ]
    return results.render("thresholds_chapter.html.j2", **given, n_items=len(content["items"]) if content else 0)


def chooser_body(curves: Mapping[str, Any]) -> str:
    """Return the page with sliders for the content of curves.json."""
    hours = sum(next(iter(curves["sets"].values()))["hours"].values())
    return results.render("thresholds.html.j2", **_tables(curves), curves=curves, colours=plots.COLOURS, hours=hours)


def _tables(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Return rows by label and threshold for each set of soundscapes, and the sets, unseen corpora first."""
    from lib.studies.curves import by_threshold

    sets = [name for name in results.PLACES if name in curves["sets"]]
    tables = {}
    for label in curves["grids"]:
        by_set = {name: by_threshold(curves, name, label) for name in sets}
        shared = ({key: row[key] for key in ("on", "is_shipped")} for row in by_set[sets[0]])
        tables[label] = [row | {name: by_set[name][at] for name in sets} for at, row in enumerate(shared)]
    return {"tables": tables, "sets": sets, "set_titles": results.PLACES}


def listening_body(content: Mapping[str, Any], on: Mapping[str, float]) -> str:
    """Return the page with players for the content of listening.json; `on` are the thresholds by label."""
    items = [
        dict(item, title=_title(item), steps=_steps(item), section=f"{item['kind']}_{item['label']}")
        for item in content["items"]
    ]
    played = sorted({clip["source"] for item in items for clip in item["clips"]})
    shown = {"items": items, "played": played, "mel_ticks": _mel_ticks(), "on": on, "colours": plots.COLOURS}
    return results.render("listening.html.j2", **{**content, **shown}, labels=EVENT_LABELS)


def _title(item: Mapping[str, Any]) -> str:
    """Return what sounds: the kinds of the clips, and the background of a soundscape."""
    kinds = list(dict.fromkeys(clip["subtype"].replace("_", " ") for clip in item["clips"])) or ["room noise"]
    where = f", background {item['background']}" if item["place"].endswith("soundscape") else ""
    return f"{' + '.join(kinds).capitalize()}{where}"


def _steps(item: Mapping[str, Any]) -> dict[str, str]:
    """Return an SVG path by label: a step for each frame, in a box as wide as the seconds and 100 high."""
    paths = {}
    for label, values in zip(EVENT_LABELS, zip(*item["frames"], strict=True), strict=True):
        heights = [f"{97 - 94 * value:.1f}" for value in values]
        steps = (f"V{height}H{(place + 1) * HOP_SECONDS:.2f}" for place, height in enumerate(heights))
        paths[label] = f"M0 {heights[0]}" + "".join(steps)
    return paths


def _mel_ticks() -> list[tuple[str, float]]:
    """Return frequencies and how far from the top of a log-mel they are, 0 to 1."""
    centres = log_mel(np.zeros(config.SAMPLE_RATE_HZ, np.float32)).frequencies_hz
    places = (np.interp([4000, 1000], centres, np.arange(len(centres))) + 0.5) / len(centres)
    return [(text, 1 - float(place)) for text, place in zip(("4 kHz", "1 kHz"), places, strict=True)]
