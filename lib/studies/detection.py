"""Events in long recordings, scored against what is really there.

*Event F1* (Mesaros et al. 2016, Metrics for Polyphonic Sound Event Detection): an event found and one of the reference
list are a pair if their onsets differ by at most `COLLAR_SECONDS` and their offsets by at most that or half the
reference's length; every event is in one pair at most. *Alarms*, what a listener would get: an event raises one at its
onset and another each `ALARM_SECONDS` that it goes on; an alarm is false if its stretch comes no nearer than
`COLLAR_SECONDS` to a reference event of its label, and a reference event is recalled if an event of its label overlaps
it. *Found whole*: one event covers `WHOLE_SHARE` of a long cry.

Event F1 is that of sed_eval 0.2.1, written out, because that needs dcase_util 0.2.20, which installs a package called
`tests` that hides this project's own. The tests hold the answers that it gave, to compare with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse import csgraph

from lib import config, evaluation
from lib.detector import HOP_SECONDS, Detector
from lib.events import EVENT_LABELS, Event, EventSettings, frames_to_events
from lib.studies.soundscapes import Soundscape

COLLAR_SECONDS = 1.0  # two frames
OFFSET_SHARE = 0.5
ALARM_SECONDS = config.MAX_SEGMENT_SECONDS
CLEAR_DB = 5.0  # signal-to-noise ratio from which on recall is a headline
WHOLE_SHARE = 0.9
EXAMPLE_SECONDS = 120.0
CURVE_THRESHOLDS = (*np.linspace(0.05, 0.95, 19).round(2).tolist(), 0.97, 0.98, 0.99, 0.995)


@dataclass(frozen=True)
class Scored(Soundscape):
    """A soundscape and what the detector makes of it: frames (n_frames, 2) and events."""

    frames: np.ndarray
    events: tuple[Event, ...]

    def reference_events(self, label: str) -> list[Event]:
        """Return the reference events of one label, by onset."""
        return sorted(item.event for item in self.references if item.event.label == label)

    def found(self, label: str) -> list[Event]:
        """Return the events found of one label, by onset."""
        return [event for event in self.events if event.label == label]


def score(made: Iterable[Soundscape], detector: Detector) -> list[Scored]:
    """Run the detector that is served over soundscapes, one at a time."""
    scored = []
    for scape in made:
        detection = detector.detect(scape.waveform())
        scored.append(Scored(**vars(scape), frames=detection.frames, events=tuple(detection.events)))
    return scored


def at(scored: Sequence[Scored], settings: EventSettings) -> list[Scored]:
    """Return the same frames with the events of other settings."""
    return [
        replace(scape, events=tuple(frames_to_events(scape.frames, settings, hop_seconds=HOP_SECONDS)))
        for scape in scored
    ]


def n_pairs(references: Sequence[Event], found: Sequence[Event]) -> int:
    """Return the largest number of pairs of events of one label within the collars of event F1."""
    (on, off), (found_on, found_off) = _times(references), _times(found)
    allowed = np.maximum(COLLAR_SECONDS, OFFSET_SHARE * (off - on))[:, None]
    near = np.abs(on[:, None] - found_on) <= COLLAR_SECONDS
    near &= np.abs(off[:, None] - found_off) <= allowed
    return int((csgraph.maximum_bipartite_matching(sparse.csr_array(near)) >= 0).sum())


def event_counts(scored: Sequence[Scored], label: str) -> np.ndarray:
    """Return pairs, events found and reference events of each soundscape: (n_soundscapes, 3)."""
    both = [(scape.reference_events(label), scape.found(label)) for scape in scored]
    return np.array([(n_pairs(*pair), len(pair[1]), len(pair[0])) for pair in both], dtype=float).reshape(-1, 3)


def event_f1(counts: np.ndarray) -> np.ndarray:
    """Return event F1 of counts (..., 3) of pairs, events found and reference events; NaN where there are neither."""
    return ratio(np.stack([2 * counts[..., 0], counts[..., 1] + counts[..., 2]], axis=-1))


def false_alarms(scape: Scored, label: str) -> list[Event]:
    """Return the stretches that raise a false alarm, of those of one alarm each that the events are cut into."""
    references, alarms = scape.reference_events(label), list[Event]()
    for event in scape.found(label):
        n_alarms = max(1, math.ceil(_seconds(event) / ALARM_SECONDS - 1e-9))
        starts = [event.onset_seconds + ALARM_SECONDS * number for number in range(n_alarms)]
        stops = [*starts[1:], event.offset_seconds]
        alarms += [Event(start, stop, label) for start, stop in zip(starts, stops, strict=True)]
    return [alarm for alarm in alarms if not any(overlap(alarm, one, COLLAR_SECONDS) for one in references)]


def alarm_counts(scored: Sequence[Scored], label: str) -> np.ndarray:
    """Return false alarms and hours of each soundscape: (n_soundscapes, 2)."""
    return np.array([(len(false_alarms(scape, label)), scape.seconds / 3600) for scape in scored], dtype=float)


def references(scored: Sequence[Scored]) -> pd.DataFrame:
    """Return one row for each reference event: where it is, how loud, whose, whether it is recalled or found whole."""
    rows = []
    for scape in scored:
        for item in scape.references:
            found = scape.found(item.event.label)
            overlapping = [event for event in found if overlap(event, item.event)]
            rows.append({
                "soundscape": scape.name, "background": scape.background, "label": item.event.label,
                "onset_seconds": item.event.onset_seconds, "offset_seconds": item.event.offset_seconds,
                "snr_db": item.snr_db, "group_id": item.group_id, "clip_ids": " ".join(item.clip_ids),
                "is_found": bool(overlapping),
                "is_whole": any(_share(item.event, event) >= WHOLE_SHARE for event in found),
                # To the end of the first overlapping event's first frame, at least 0.
                "delay_seconds": max(0.0, min(overlapping).onset_seconds + HOP_SECONDS - item.event.onset_seconds)
                if overlapping else math.nan,
            })  # fmt: skip
    return pd.DataFrame(rows)


def headline(scored: Sequence[Scored]) -> dict[str, dict]:
    """Return by label recall from `CLEAR_DB` on, recall of all, false alarms per hour and event F1.

    Intervals of recall are over groups. Those of F1 and false alarms are over soundscapes, each of which holds many
    groups that come again in others: they say how much other soundscapes of the same voices would differ. Every figure
    is value, low, high, n_events, n_groups (false alarms: n_events is alarms, n_groups clips of the background).
    """
    table = references(scored)
    result = {}
    for label in EVENT_LABELS:
        mine = table[table["label"] == label]
        alarms, events = alarm_counts(scored, label), event_counts(scored, label)
        result[label] = {
            "false_alarms_per_hour": evaluation.bootstrap(alarms, ratio)
            | {"n_events": int(alarms[:, 0].sum()), "n_groups": n_background_clips(scored)},
            "event_f1": evaluation.bootstrap(events, event_f1)
            | {"n_events": len(mine), "n_groups": int(mine["group_id"].nunique())},
            "recall_5db": share(mine[mine["snr_db"] >= CLEAR_DB], "is_found"),
            "recall": share(mine, "is_found"),
        }
    return result


def share(rows: pd.DataFrame, column: str) -> dict:
    """Return the share of rows in which a column is true, with its interval over groups and both counts."""
    by_group = rows.groupby("group_id")[column].agg(["sum", "size"]).to_numpy(float)
    counts = {"n_events": len(rows), "n_groups": len(by_group)}
    return evaluation.bootstrap(by_group, ratio) | counts


def recall_table(scored: Sequence[Scored], *, by: str) -> pd.DataFrame:
    """Return recall of each label by "snr_db" or "background": value, low, high, n_events, n_groups."""
    parts = references(scored).groupby([by, "label"])
    rows = [{by: key, "label": label} | share(part, "is_found") for (key, label), part in parts]
    return pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})


def alarm_table(scored: Sequence[Scored]) -> pd.DataFrame:
    """Return false alarms per hour by background and label: value, low, high, n_alarms, n_clips, hours."""
    rows = []
    for (background, here), label in itertools.product(by_background(scored).items(), EVENT_LABELS):
        counts = alarm_counts(here, label)
        what = {"background": background, "label": label} | evaluation.bootstrap(counts, ratio)
        n_alarms, hours = counts.sum(axis=0)
        rows.append(what | {"n_alarms": int(n_alarms), "n_clips": n_background_clips(here), "hours": float(hours)})
    return pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})


def by_background(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Return the soundscapes of each kind of background."""
    kinds = dict.fromkeys(scape.background for scape in scored)
    return {kind: [scape for scape in scored if scape.background == kind] for kind in kinds}


def curve(scored: Sequence[Scored], settings: EventSettings) -> pd.DataFrame:
    """Return recall and false alarms per hour of each label by threshold; off keeps its share of on."""
    rows = []
    for on in CURVE_THRESHOLDS:
        offs = {label: on * settings.off[label] / settings.on[label] for label in EVENT_LABELS}
        now = at(scored, replace(settings, on=dict.fromkeys(EVENT_LABELS, on), off=offs))
        table = references(now)
        for label in EVENT_LABELS:
            mine, (n_alarms, hours) = table[table["label"] == label], alarm_counts(now, label).sum(axis=0)
            rows.append({
                "threshold": on, "label": label, "recall": float(mine["is_found"].mean()), "hours": float(hours),
                "recall_5db": float(mine["is_found"][mine["snr_db"] >= CLEAR_DB].mean()), "n_events": len(mine),
                "false_alarms_per_hour": float(n_alarms / hours),
                "event_f1": float(event_f1(event_counts(now, label).sum(axis=0))),
            })  # fmt: skip
    return pd.DataFrame(rows).sort_values(["label", "threshold"], ignore_index=True)


def example(scored: Sequence[Scored]) -> pd.DataFrame:
    """Return `EXAMPLE_SECONDS` that hold the most reference events: frames, reference events and those found.

    Columns: soundscape, kind ("frame", "reference", "found"), label, onset_seconds, offset_seconds, probability.
    """
    windows = [(place, item.event.onset_seconds - 10) for place, s in enumerate(scored) for item in s.references]
    place, start = max(windows, key=lambda window: _richness(scored[window[0]], window[1]))
    scape, start = scored[place], max(0.0, start)
    listed = [("reference", item.event) for item in scape.references] + [("found", event) for event in scape.events]
    rows = [{"kind": kind, **asdict(event)} for kind, event in listed]
    rows += [
        {"kind": "frame", "label": label, "onset_seconds": i * HOP_SECONDS, "offset_seconds": (i + 1) * HOP_SECONDS}
        | {"probability": float(value)}
        for i, row in enumerate(scape.frames)
        for label, value in zip(EVENT_LABELS, row, strict=True)
    ]
    table = pd.DataFrame(rows)
    shown = (table["offset_seconds"] > start) & (table["onset_seconds"] < start + EXAMPLE_SECONDS)
    columns = ["soundscape", "kind", "label", "onset_seconds", "offset_seconds", "probability"]
    return table[shown].assign(soundscape=scape.name)[columns].reset_index(drop=True)


def ratio(counts: np.ndarray) -> np.ndarray:
    """Return the first of counts (..., 2) over the second; NaN over 0."""
    over = counts[..., 1]
    return np.divide(counts[..., 0], over, out=np.full(over.shape, np.nan), where=over > 0)


def sustained_figures(scored: Sequence[Scored], settings: EventSettings) -> dict:
    """Return how many long cries are found whole, and how many raise the sustained-cry alert."""
    table = references(scored)
    long = table[table["offset_seconds"] - table["onset_seconds"] >= settings.sustained_seconds]
    raised = {s.name for s in scored if any(_seconds(e) >= settings.sustained_seconds for e in s.found("crying"))}
    return {
        "found_whole": share(long, "is_whole"),
        "alert_raised": share(long.assign(is_raised=long["soundscape"].isin(raised)), "is_raised"),
    }


def delay_figures(scored: Sequence[Scored]) -> dict[str, dict[str, float]]:
    """Return by label median and 95th percentile of the time from onset to detection, without the look-ahead."""
    table = references(scored)
    found = table[table["is_found"]]
    return {
        label: {"median": float(part.median()), "p95": float(part.quantile(0.95)), "n_events": len(part)}
        for label, part in found.groupby("label")["delay_seconds"]
    }


def description(scored: Sequence[Scored]) -> Mapping[str, object]:
    """Return hours, soundscapes by background, share of time with events, and how many clips and groups there are."""
    table, hours = references(scored), sum(scape.seconds for scape in scored) / 3600
    seconds = (table["offset_seconds"] - table["onset_seconds"]).sum()
    return {
        "hours": hours,
        "n_soundscapes": pd.Series([scape.background for scape in scored]).value_counts().to_dict(),
        "prevalence": float(seconds / (hours * 3600)),
        "n_events": table.groupby("label").size().to_dict(),
        "n_groups": table.groupby("label")["group_id"].nunique().to_dict(),
        "n_background_clips": n_background_clips(scored),
    }


def n_background_clips(scored: Sequence[Scored]) -> int:
    """Return how many clips are in the backgrounds."""
    return len({name for scape in scored for name in scape.background_clip_ids})


def overlap(one: Event, other: Event, collar_seconds: float = 0.0) -> bool:
    """Tell whether two events overlap, or come nearer than a collar."""
    return (
        one.onset_seconds < other.offset_seconds + collar_seconds
        and one.offset_seconds > other.onset_seconds - collar_seconds
    )


def _share(reference: Event, event: Event) -> float:
    shared = min(reference.offset_seconds, event.offset_seconds) - max(reference.onset_seconds, event.onset_seconds)
    return shared / _seconds(reference)


def _seconds(event: Event) -> float:
    return event.offset_seconds - event.onset_seconds


def _times(events: Sequence[Event]) -> np.ndarray:
    return np.array([(event.onset_seconds, event.offset_seconds) for event in events]).reshape(-1, 2).T


def _richness(scape: Scored, start: float) -> tuple[int, int]:
    inside = [i.event for i in scape.references if 0 <= i.event.onset_seconds - start <= EXAMPLE_SECONDS - 10]
    return len({event.label for event in inside}), len(inside)
