"""Chooses the detector's thresholds and durations on what the networks without each corpus group make of it.

For each label, the settings win that maximise the mean of some figures, less `ALARM_COST` for each false alarm per
hour: event F1 in soundscapes of the left-out corpora; F1 of "is there an event of this label in the clip" over their
single clips; the share found of brief sounds, cries of a second between zeros and screams of a second in room noise;
of cries also the share of those of half a minute that are found whole. The hours want few false alarms, the others
that faint, short and long events are found. All are of corpora that the network in question was not trained on, and
of train and validation groups alone. A released detector's settings stay where they are within `NOISE` of the best:
among so many tries, another training would change them by chance.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lib.detector import HOP_SECONDS
from lib.events import EVENT_LABELS, SUSTAINED_LABEL, TOLERANCE_SECONDS, Event, EventSettings
from lib.studies import detection
from lib.studies.detection import Scored

ON = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
OFF_SHARES = (0.4, 0.6)
MIN_SECONDS = {"crying": (0.48, 0.96, 1.44), "screaming": (0.48, 0.96)}
MERGE_SECONDS = {
    "crying": (3.84, 6.24, 9.6),
    "screaming": (1.92,),
}  # the reference list joins up to 2 s; long cries pause
ALARM_COST = 0.02
NOISE = 0.01  # of the score
NAMES = ("on", "off", "min_seconds", "merge_seconds")
START = EventSettings.create(on=0.5, off=0.25, min_seconds=0.48, merge_seconds=1.92)


@dataclass(frozen=True)
class LeftOut:
    """What networks make of the corpora that they were not trained on.

    Parameters
    ----------
    scored, lasting : sequence of Scored
        Soundscapes, and minutes with one long cry each.
    clip_frames, clip_labels : sequence of ndarray (n_frames, 2), of str
        Frames and true labels of single clips.
    brief_frames : mapping of str to sequence of ndarray, each (n_frames, 2)
        By label, frames of recordings with one second of it.
    """

    scored: Sequence[Scored]
    lasting: Sequence[Scored]
    clip_frames: Sequence[np.ndarray]
    clip_labels: Sequence[str]
    brief_frames: Mapping[str, Sequence[np.ndarray]]


def choose(left_out: LeftOut, released: EventSettings | None = None) -> tuple[EventSettings, pd.DataFrame]:
    """Return the best settings of each label, or the released ones where they are nearly as good; and every try.

    The table has label, on, off, min_seconds, merge_seconds, event_f1, recall_5db, false_alarms_per_hour,
    clip_f1, brief, whole (of crying) and score.
    """
    tries = pd.DataFrame([
        _try(left_out, label, dict(zip(NAMES, (on, on * share, *rest), strict=True)))
        for label in EVENT_LABELS
        for on, share, *rest in itertools.product(ON, OFF_SHARES, MIN_SECONDS[label], MERGE_SECONDS[label])
    ])  # fmt: skip
    by_score = tries.sort_values(["score", "on"], ascending=False, kind="stable")
    best = {str(label): _chosen(of_label, str(label), released) for label, of_label in by_score.groupby("label")}
    chosen: dict[str, Any] = {name: {label: float(row[name]) for label, row in best.items()} for name in NAMES}
    return EventSettings.create(**chosen), tries


def _chosen(tries: pd.DataFrame, label: str, released: EventSettings | None) -> pd.Series:
    """Return the try that wins, of those of one label in falling order of their scores."""
    best = tries.iloc[0]
    if released is None:
        return best
    is_released = np.all([np.isclose(tries[name], getattr(released, name)[label]) for name in NAMES], axis=0)
    kept = tries[is_released & (tries["score"] >= best["score"] - NOISE)]
    return kept.iloc[0] if len(kept) else best


def _try(left_out: LeftOut, label: str, given: dict[str, float]) -> dict:
    column = EVENT_LABELS.index(label)

    def found_in(frames: np.ndarray) -> tuple[Event, ...]:
        return tuple(events_of(frames[:, column], label, **given))

    now, lasting = (
        [replace(s, events=found_in(s.frames)) for s in part] for part in (left_out.scored, left_out.lasting)
    )
    table, n_alarms_hours = detection.references(now), detection.alarm_counts(now, label).sum(axis=0)
    clear = table[(table["label"] == label) & (table["snr_db"] >= detection.CLEAR_DB)]
    figures = {
        "event_f1": float(detection.event_f1(detection.event_counts(now, label).sum(axis=0))),
        "clip_f1": f1(
            np.array([bool(found_in(frames)) for frames in left_out.clip_frames]),
            np.asarray(left_out.clip_labels) == label,
        ),
        "brief": float(np.mean([bool(found_in(frames)) for frames in left_out.brief_frames[label]])),
    }
    if label == SUSTAINED_LABEL:
        figures["whole"] = detection.sustained_figures(lasting, START)["found_whole"]["value"]
    per_hour = float(n_alarms_hours[0] / n_alarms_hours[1])
    score = float(np.mean(list(figures.values()))) - ALARM_COST * per_hour
    clear_recall = float(clear["is_found"].mean())
    return {"label": label} | given | figures | {
        "recall_5db": clear_recall, "false_alarms_per_hour": per_hour, "score": score,
    }  # fmt: skip


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
