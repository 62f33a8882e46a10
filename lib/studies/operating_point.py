"""Chooses the detector's thresholds and durations on what the networks without each corpus group make of it.

For each label, the settings win that maximise the mean of event F1 in soundscapes of the left-out corpora and of F1 of
"is there an event of this label in the clip" over their single clips, less `ALARM_COST` for each false alarm per hour.
The clips want faint and short events to be found, the hours want few false alarms. Both are of corpora that the network
in question was not trained on, and of train and validation groups alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from lib.detector import HOP_SECONDS
from lib.events import EVENT_LABELS, TOLERANCE_SECONDS, Event, EventSettings
from lib.studies import detection
from lib.studies.detection import Scored

ON = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
OFF_SHARES = (0.4, 0.6, 0.8)
MIN_SECONDS = {"crying": (0.48, 0.96, 1.44), "screaming": (0.48, 0.96)}
MERGE_SECONDS = (0.96, 1.92, 3.84)  # the reference list joins up to 2 s; a long cry has longer pauses
ALARM_COST = 0.005
START = EventSettings.create(on=0.5, off=0.25, min_seconds=0.48, merge_seconds=1.92)


def choose(
    scored: Sequence[Scored], clip_frames: Sequence[np.ndarray], clip_labels: Sequence[str]
) -> tuple[EventSettings, pd.DataFrame]:
    """Return the best settings of each label, and every try.

    Parameters
    ----------
    scored : sequence of Scored
        Soundscapes of left-out corpora.
    clip_frames : sequence of ndarray, each (n_frames, 2)
        Frames of single clips of left-out corpora.
    clip_labels : sequence of str
        Their true labels.

    Returns
    -------
    (EventSettings, DataFrame)
        The table has label, on, off, min_seconds, merge_seconds, event_f1, recall_5db, false_alarms_per_hour,
        clip_f1 and score.
    """
    labels = np.asarray(clip_labels)
    rows = [
        _try(scored, clip_frames, labels == label, label, values)
        for label in EVENT_LABELS
        for values in itertools.product(ON, OFF_SHARES, MIN_SECONDS[label], MERGE_SECONDS)
    ]
    tries = pd.DataFrame(rows)
    best = tries.sort_values(["score", "on"], ascending=False, kind="stable").groupby("label").first()
    names = ("on", "off", "min_seconds", "merge_seconds")
    return EventSettings.create(**{name: best[name].to_dict() for name in names}), tries


def _try(
    scored: Sequence[Scored],
    clip_frames: Sequence[np.ndarray],
    is_positive: np.ndarray,
    label: str,
    values: tuple[float, float, float, float],
) -> dict:
    on, off_share, min_seconds, merge_seconds = values
    given = {"on": on, "off": on * off_share, "min_seconds": min_seconds, "merge_seconds": merge_seconds}
    column = EVENT_LABELS.index(label)
    now = [replace(scape, events=tuple(events_of(scape.frames[:, column], label, **given))) for scape in scored]
    table = detection.references(now)
    clear = table[(table["label"] == label) & (table["snr_db"] >= detection.CLEAR_DB)]
    n_alarms, hours = detection.alarm_counts(now, label).sum(axis=0)
    event_f1 = float(detection.event_f1(detection.event_counts(now, label).sum(axis=0)))
    found = np.array([bool(events_of(frames[:, column], label, **given)) for frames in clip_frames])
    figures = {"event_f1": event_f1, "recall_5db": float(clear["is_found"].mean()), "clip_f1": f1(found, is_positive)}
    per_hour = float(n_alarms / hours)
    figures |= {"false_alarms_per_hour": per_hour}
    figures |= {"score": (event_f1 + figures["clip_f1"]) / 2 - ALARM_COST * per_hour}
    return {"label": label} | given | figures


def events_of(
    frames: np.ndarray, label: str, *, on: float, off: float, min_seconds: float, merge_seconds: float
) -> list[Event]:
    """Return the events of one label in its frame probabilities (n_frames,).

    They are those of `lib.events.EventTracker`, of which a test makes sure; only the frames that reach `off` are
    looked at, so that hundreds of settings can be tried.
    """
    runs: list[list[int]] = []
    for frame in np.flatnonzero(frames >= off).tolist():
        if runs and frame == runs[-1][1]:
            runs[-1][1] += 1
        elif frames[frame] >= on:
            gap = (frame - runs[-1][1]) * HOP_SECONDS if runs else np.inf
            if gap <= merge_seconds + TOLERANCE_SECONDS:
                runs[-1][1] = frame + 1
            else:
                runs.append([frame, frame + 1])
    return [
        Event(round(first * HOP_SECONDS, 6), round(stop * HOP_SECONDS, 6), label, float(frames[first:stop].max()))
        for first, stop in runs
        if (stop - first) * HOP_SECONDS + TOLERANCE_SECONDS >= min_seconds
    ]


def f1(found: np.ndarray, is_positive: np.ndarray) -> float:
    """Return F1 of booleans (n,) against booleans (n,)."""
    return float(2 * (found & is_positive).sum() / max(found.sum() + is_positive.sum(), 1))
