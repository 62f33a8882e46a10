"""What the report's threshold chooser moves along: counts for every setting of each label, in curves.json.

Crying and screaming are independent of each other, so the settings of one label are tried without the other's. `off`
keeps its share of `on`. Definitions of found and of false alarms are those of `lib.studies.detection`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib import config
from lib.events import EVENT_LABELS
from lib.studies import detection
from lib.studies.detection import Scored, overlap
from lib.studies.operating_point import events_of
from lib.studies.result import plain

FILE_NAME = "curves.json"
ON = (*(round(0.05 * step, 2) for step in range(2, 20)), 0.97, 0.98, 0.99)
MIN_SECONDS = (0.48, 0.96, 1.44, 1.92, 2.88)
MERGE_SECONDS = (0.0, 0.96, 1.92, 3.84, 5.76)
_GRID = {"on": ON, "min_seconds": MIN_SECONDS, "merge_seconds": MERGE_SECONDS}


def write(path: Path, sets: Mapping[str, Sequence[Scored]], settings: Mapping[str, Any]) -> None:
    """Write curves.json.

    Parameters
    ----------
    path : Path
    sets : mapping of str to sequence of Scored
        "test" and "left_out": soundscapes with their frames.
    settings : mapping
        Content of the shipped settings.json. What it has is tried too where the grids lack it.
    """
    grids = {label: grid(settings["events"], label) for label in EVENT_LABELS}
    found = {name: counts(scored, grids) for name, scored in sets.items()}
    text = json.dumps(plain({"settings": settings, "grids": grids, "sets": found}), separators=(",", ":"))
    config.write_whole(path, f"{text}\n".encode())


def grid(events: Mapping[str, Mapping[str, float]], label: str) -> dict[str, Any]:
    """Return the values tried of one label (on, min_seconds, merge_seconds), and `off` as a share of `on`."""
    values = {name: sorted({*usual, events[name][label]}) for name, usual in _GRID.items()}
    return {**values, "off_share": round(events["off"][label] / events["on"][label], 4)}


def counts(scored: Sequence[Scored], grids: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what some soundscapes hold, and for each setting of each label what is found.

    Returns
    -------
    dict
        hours by background; snr_db; by label n_by_snr, n_by_background, and tries: a list of counts for each of on x
        min_seconds x merge_seconds, in that order: found by snr_db, found and false alarms by background.
    """
    backgrounds = sorted({scape.background for scape in scored})
    ratios = sorted({item.snr_db for scape in scored for item in scape.references})
    hours = {name: sum(scape.seconds for scape in scored if scape.background == name) / 3600 for name in backgrounds}
    result: dict[str, Any] = {"hours": hours, "snr_db": ratios, "labels": {}}
    for label, values in grids.items():
        places = [
            (scape.background, item) for scape in scored for item in scape.references if item.event.label == label
        ]
        result["labels"][label] = {
            "n_by_snr": [sum(item.snr_db == ratio for _, item in places) for ratio in ratios],
            "n_by_background": [sum(place == name for place, _ in places) for name in backgrounds],
            "tries": [
                _try(scored, label, dict(zip(_GRID, setting, strict=True)), values["off_share"], ratios, backgrounds)
                for setting in itertools.product(*(values[name] for name in _GRID))
            ],
        }
    return result


def _try(
    scored: Sequence[Scored],
    label: str,
    setting: Mapping[str, float],
    off_share: float,
    ratios: Sequence[float],
    backgrounds: Sequence[str],
) -> list[int]:
    by_snr, by_background = dict.fromkeys(ratios, 0), dict.fromkeys(backgrounds, 0)
    alarms, column = dict.fromkeys(backgrounds, 0), EVENT_LABELS.index(label)
    for scape in scored:
        events = events_of(scape.frames[:, column], label, off=setting["on"] * off_share, **setting)
        for item in scape.references:
            if item.event.label == label and any(overlap(item.event, event) for event in events):
                by_snr[item.snr_db] += 1
                by_background[scape.background] += 1
        if events:
            alarms[scape.background] += len(detection.false_alarms(replace(scape, events=tuple(events)), label))
    return [*by_snr.values(), *by_background.values(), *alarms.values()]


def by_threshold(curves: Mapping[str, Any], name: str, label: str) -> list[dict[str, Any]]:
    """Return a row for each threshold at the shipped durations: on, is_shipped, recall, recall_5db, per hour."""
    values, events, where = curves["grids"][label], curves["settings"]["events"], curves["sets"][name]
    found, hours = where["labels"][label], sum(where["hours"].values())
    n_snr, n_backgrounds = len(where["snr_db"]), len(where["hours"])
    clear = [place for place, ratio in enumerate(where["snr_db"]) if ratio >= detection.CLEAR_DB]
    tries = dict(zip(itertools.product(*(values[name] for name in _GRID)), found["tries"], strict=True))
    rows = []
    for on in values["on"]:
        tried = tries[on, events["min_seconds"][label], events["merge_seconds"][label]]
        n_events, n_clear = sum(found["n_by_snr"]), sum(found["n_by_snr"][at] for at in clear)
        rows.append({
            "on": on, "is_shipped": on == events["on"][label],
            "recall": sum(tried[:n_snr]) / max(n_events, 1),
            "recall_5db": sum(tried[at] for at in clear) / max(n_clear, 1),
            "false_alarms_per_hour": sum(tried[n_snr + n_backgrounds :]) / hours,
            "misses_per_hour": (n_events - sum(tried[:n_snr])) / hours,
        })  # fmt: skip
    return rows
