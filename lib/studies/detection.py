"""Events in long recordings, scored against what is really there.

Two ways of counting are used. *Event F1* (Mesaros et al. 2016, Metrics for Polyphonic Sound Event Detection): an
event found and one of the reference list are a pair if their onsets differ by at most `COLLAR_SECONDS` and their
offsets by at most that or half the reference's length; every event is in one pair at most. *Alarms*, what a listener
would get: an event raises one at its onset and another each `ALARM_SECONDS` that it goes on; an alarm is false if its
stretch comes no nearer than `COLLAR_SECONDS` to a reference event of its label, and a reference event is recalled if an
event of its label overlaps it.

Event F1 is that of sed_eval 0.2.1, written out, because that needs dcase_util 0.2.20, which installs a package called
`tests` that hides this project's own. The tests hold the answers that it gave, to compare with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse import csgraph

from lib import config, evaluation
from lib.events import EVENT_LABELS, Event
from lib.studies.result import Result
from lib.studies.soundscapes import BACKGROUND_SUBTYPES, PREVALENCE, SNR_DB
from lib.studies.stream import HOP_SECONDS, DetectionSettings, ScoredSoundscape, onsets_and_offsets

COLLAR_SECONDS = 1.0  # two frames
OFFSET_SHARE = 0.5
ALARM_SECONDS = config.MAX_SEGMENT_SECONDS
SUSTAINED_SECONDS = 30.0  # the service's StreamSettings.sustained_seconds

CURVE_THRESHOLDS = (*np.linspace(0.05, 0.95, 19).round(2).tolist(), 0.97, 0.98, 0.99, 0.995, 0.999)

ON_GRID = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
OFF_SHARES = (0.4, 0.7, 1.0)  # off, as a share of on
MIN_SECONDS_GRID = (0.48, 0.96, 1.44)
MERGE_SECONDS_GRID = (0.96, 1.92)  # the reference list joins up to 2 s

EXAMPLE_SECONDS = 120.0


def sustained(events: Iterable[Event]) -> list[Event]:
    """Return the cries that raise the service's sustained-cry alert: crying that goes on for `SUSTAINED_SECONDS`."""
    return [e for e in events if e.label == "crying" and e.offset_seconds - e.onset_seconds >= SUSTAINED_SECONDS]


def n_pairs(references: Sequence[Event], found: Sequence[Event]) -> int:
    """Return the largest number of pairs of events of one label within the collars of event F1."""
    if not references or not found:
        return 0
    (on, off), (found_on, found_off) = onsets_and_offsets(references), onsets_and_offsets(found)
    allowed = np.maximum(COLLAR_SECONDS, OFFSET_SHARE * (off - on))[:, None]
    near = np.abs(on[:, None] - found_on) <= COLLAR_SECONDS
    near &= np.abs(off[:, None] - found_off) <= allowed
    return int((csgraph.maximum_bipartite_matching(sparse.csr_array(near)) >= 0).sum())


def event_counts(scored: Sequence[ScoredSoundscape], found: Sequence[Sequence[Event]]) -> np.ndarray:
    """Return pairs, events found and reference events: counts (n_soundscapes, 2 labels, 3)."""
    counts = np.zeros((len(scored), len(EVENT_LABELS), 3))
    for place, (scape, events) in enumerate(zip(scored, found, strict=True)):
        for column, label in enumerate(EVENT_LABELS):
            references, mine = scape.reference_events(label), _of(events, label)
            counts[place, column] = n_pairs(references, mine), len(mine), len(references)
    return counts


def event_f1(counts: np.ndarray) -> np.ndarray:
    """Return event F1 of counts (..., 3) of pairs, events found and reference events; NaN where there are neither."""
    return _ratio(np.stack([2 * counts[..., 0], counts[..., 1] + counts[..., 2]], axis=-1))


def alarm_counts(scored: Sequence[ScoredSoundscape], found: Sequence[Sequence[Event]]) -> np.ndarray:
    """Return reference events recalled, reference events and false alarms: counts (n_soundscapes, 2 labels, 3)."""
    counts = np.zeros((len(scored), len(EVENT_LABELS), 3))
    for place, (scape, events) in enumerate(zip(scored, found, strict=True)):
        for column, label in enumerate(EVENT_LABELS):
            references, mine = scape.reference_events(label), _of(events, label)
            is_false = ~_overlaps(_alarms(mine), references, COLLAR_SECONDS)
            counts[place, column] = _overlaps(references, mine).sum(), len(references), is_false.sum()
    return counts


def delays(
    scored: Sequence[ScoredSoundscape], found: Sequence[Sequence[Event]], settings: DetectionSettings
) -> pd.DataFrame:
    """Return label and delay_seconds of each reference event recalled.

    The delay runs from the onset of the reference event to the end of the frame that makes the first event overlapping
    it `min_seconds` long; it is 0 where that frame ended before. the scorer's look-ahead and computing come on top.
    """
    n_frames = max(1, math.ceil(settings.min_seconds / HOP_SECONDS - 1e-9))
    rows = []
    for scape, events in zip(scored, found, strict=True):
        for item in scape.references:
            overlapping = [e for e in _of(events, item.event.label) if _overlaps([item.event], [e]).any()]
            if overlapping:
                known = min(overlapping).onset_seconds + n_frames * HOP_SECONDS
                rows.append((item.event.label, max(0.0, known - item.event.onset_seconds)))
    return pd.DataFrame(rows, columns=["label", "delay_seconds"])


def tune(
    scored: Sequence[ScoredSoundscape],
    *,
    max_false_alarms_per_hour: float | None = None,
) -> tuple[DetectionSettings, pd.DataFrame]:
    """Choose thresholds and lengths on soundscapes of validation groups.

    Parameters
    ----------
    scored : sequence of ScoredSoundscape
        Never those that are reported.
    max_false_alarms_per_hour : float, optional
        Of each label: settings with more are left aside, unless all have more; then the fewest win.

    Returns
    -------
    tuple
        The settings whose thresholds maximise event F1 of each label, and whose lengths maximise its mean; and every
        try: min_seconds, merge_seconds, label, on, off, event_f1, recall, false_alarms_per_hour.
    """
    grid = itertools.product(MIN_SECONDS_GRID, MERGE_SECONDS_GRID, ON_GRID, OFF_SHARES)
    tries = pd.DataFrame([row for values in grid for row in _try(scored, *values)])
    ranked = tries.assign(excess=0.0)
    if max_false_alarms_per_hour is not None:
        ranked["excess"] = (tries["false_alarms_per_hour"] - max_false_alarms_per_hour).clip(lower=0)
    ranked = ranked.sort_values(["excess", "event_f1", "on"], ascending=[True, False, False], kind="stable")
    best = ranked.groupby(["min_seconds", "merge_seconds", "label"], as_index=False).first()
    pairs = best.groupby(["min_seconds", "merge_seconds"]).agg(excess=("excess", "sum"), f1=("event_f1", "mean"))
    min_seconds, merge_seconds = pairs.sort_values(["excess", "f1"], ascending=[True, False], kind="stable").index[0]
    chosen = best[(best["min_seconds"] == min_seconds) & (best["merge_seconds"] == merge_seconds)].set_index("label")
    on, off = chosen["on"].to_dict(), chosen["off"].to_dict()
    return DetectionSettings(on, off, float(min_seconds), float(merge_seconds)), tries


def curve(
    scored: Sequence[ScoredSoundscape],
    settings: DetectionSettings,
    *,
    thresholds: Sequence[float] = CURVE_THRESHOLDS,
) -> pd.DataFrame:
    """Return recall and false alarms an hour of each label by threshold; off keeps its share of on."""
    shares = {label: settings.off[label] / settings.on[label] for label in EVENT_LABELS}
    rows = []
    for on in thresholds:
        at = replace(settings, on=dict.fromkeys(EVENT_LABELS, on), off={k: on * v for k, v in shares.items()})
        rows += [{"threshold": on} | row for row in _label_figures(scored, at)]
    return pd.DataFrame(rows).sort_values(["label", "threshold"], ignore_index=True)


def recall_table(
    scored: Sequence[ScoredSoundscape],
    found: Sequence[Sequence[Event]],
    *,
    by: str,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Return recall of each label by "snr_db" or "background", with intervals from a bootstrap over groups.

    Returns
    -------
    DataFrame
        `by`, label, value, low, high, n_events, n_groups.
    """
    events = reference_table(scored, found)
    rows = []
    for (key, label), part in events.groupby([by, "label"]):
        counts = part.groupby("group_id")["is_found"].agg(["sum", "size"]).to_numpy(float)
        figure = evaluation.bootstrap(counts, _ratio, n_bootstrap=n_bootstrap, seed=seed)
        rows.append({by: key, "label": label} | figure | {"n_events": len(part), "n_groups": len(counts)})
    return pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})


def reference_table(scored: Sequence[ScoredSoundscape], found: Sequence[Sequence[Event]]) -> pd.DataFrame:
    """Return one row a reference event, with where it is, how loud, whose, and whether it is recalled."""
    return pd.DataFrame(
        {
            "soundscape": scape.name,
            "background": scape.background,
            **asdict(item.event),
            "snr_db": item.snr_db,
            "group_id": item.group_id,
            "clip_ids": " ".join(item.clip_ids),
            "is_found": bool(_overlaps([item.event], _of(events, item.event.label)).any()),
        }
        for scape, events in zip(scored, found, strict=True)
        for item in scape.references
    )


def example(scored: Sequence[ScoredSoundscape], found: Sequence[Sequence[Event]]) -> pd.DataFrame:
    """Return `EXAMPLE_SECONDS` that hold the most reference events: frames, reference events and those found.

    Returns
    -------
    DataFrame
        soundscape, kind ("frame", "reference" or "found"), label, onset_seconds, offset_seconds, probability.
    """
    windows = [(place, item.event.onset_seconds - 10) for place, s in enumerate(scored) for item in s.references]
    place, start = max(windows, key=lambda window: _richness(scored[window[0]], window[1]))
    scape, start = scored[place], max(0.0, start)
    listed = [("reference", item.event) for item in scape.references] + [("found", event) for event in found[place]]
    rows = [{"kind": kind, **asdict(event)} for kind, event in listed]
    rows += [
        {"kind": "frame", "label": label, "onset_seconds": i * HOP_SECONDS, "offset_seconds": (i + 1) * HOP_SECONDS}
        | {"probability": float(row[config.CLASS_ID[label]])}
        for i, row in enumerate(scape.probabilities)
        for label in EVENT_LABELS
    ]
    table = pd.DataFrame(rows)
    shown = (table["offset_seconds"] > start) & (table["onset_seconds"] < start + EXAMPLE_SECONDS)
    columns = ["soundscape", "kind", "label", "onset_seconds", "offset_seconds", "probability"]
    return table[shown].assign(soundscape=scape.name)[columns].reset_index(drop=True)


def findings(
    scored: Sequence[ScoredSoundscape],
    settings: DetectionSettings,
    *,
    tries: pd.DataFrame | None = None,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> Result:
    """Return the section: event F1, false alarms an hour, recall, delay and the sustained-cry alert.

    Intervals of F1 and false alarms are from a bootstrap over soundscapes, each of which holds many groups, and groups
    come again in other soundscapes: they say how much other soundscapes of the same voices would differ, not other
    voices. Those of recall are over groups.

    Parameters
    ----------
    scored : sequence of ScoredSoundscape
        Of test groups.
    settings : DetectionSettings
        From `tune`, on soundscapes of validation groups.
    tries : DataFrame, optional
        The second answer of `tune`, kept as a table.
    n_bootstrap : int
    seed : int
    """
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    found = [settings.events(scape.probabilities) for scape in scored]
    references = reference_table(scored, found)
    tables = {
        "soundscape_references": references,
        "soundscape_curve": curve(scored, settings),
        "soundscape_recall_by_snr": recall_table(scored, found, by="snr_db", **options),
        "soundscape_recall_by_background": recall_table(scored, found, by="background", **options),
        "soundscape_example": example(scored, found),
    }
    if tries is not None:
        tables["soundscape_tuning"] = tries
    figures = _description(scored, references) | {"settings": asdict(settings), "rules": _rules()}
    figures |= _event_figures(scored, found, options) | _alarm_figures(scored, found, references, options)
    figures["delay_seconds"] = _delay_figures(delays(scored, found, settings))
    figures["sustained_cry"] = _sustained_figures(scored, found)
    return Result(figures, tables)


def _description(scored: Sequence[ScoredSoundscape], references: pd.DataFrame) -> dict:
    hours = sum(scape.seconds for scape in scored) / 3600
    seconds = (references["offset_seconds"] - references["onset_seconds"]).sum()
    by_label = references.groupby("label")
    clips = references.assign(clip_id=references["clip_ids"].str.split()).explode("clip_id").groupby("label")["clip_id"]
    return {
        "hours": hours,
        "n_soundscapes": len(scored),
        "n_soundscapes_by_background": pd.Series([scape.background for scape in scored]).value_counts().to_dict(),
        "prevalence": float(seconds / (hours * 3600)),
        "n_events": by_label.size().to_dict(),
        "n_clips": clips.nunique().to_dict(),
        "n_groups": by_label["group_id"].nunique().to_dict(),
    }


def _rules() -> dict:
    return {
        "backgrounds": {kind: list(subtypes) for kind, subtypes in BACKGROUND_SUBTYPES.items()},
        "prevalence_drawn": list(PREVALENCE),
        "snr_db": list(SNR_DB),
        "collar_seconds": COLLAR_SECONDS,
        "offset_share": OFFSET_SHARE,
        "alarm_seconds": ALARM_SECONDS,
        "sustained_seconds": SUSTAINED_SECONDS,
    }


def _event_figures(
    scored: Sequence[ScoredSoundscape], found: Sequence[Sequence[Event]], options: Mapping[str, int]
) -> dict:
    counts = event_counts(scored, found)
    by_label = {
        label: evaluation.bootstrap(counts[:, column], event_f1, **options)
        | {"n_found": int(counts[:, column, 1].sum())}
        for column, label in enumerate(EVENT_LABELS)
    }
    mean = evaluation.bootstrap(counts, lambda total: np.nanmean(event_f1(total), axis=-1), **options)
    return {"event_f1": by_label | {"mean": mean}}


def _alarm_figures(
    scored: Sequence[ScoredSoundscape],
    found: Sequence[Sequence[Event]],
    references: pd.DataFrame,
    options: Mapping[str, int],
) -> dict:
    counts = alarm_counts(scored, found)
    hours = np.array([scape.seconds for scape in scored])[:, None] / 3600
    recall, alarms = {}, {}
    for column, label in enumerate(EVENT_LABELS):
        groups = references[references["label"] == label].groupby("group_id")["is_found"].agg(["sum", "size"])
        recall[label] = evaluation.bootstrap(groups.to_numpy(float), _ratio, **options)
        alarms[label] = evaluation.bootstrap(np.hstack([counts[:, column, 2:], hours]), _ratio, **options)
    return {"recall": recall, "false_alarms_per_hour": alarms}


def _delay_figures(table: pd.DataFrame) -> dict:
    return {
        label: {"median": float(part.median()), "p95": float(part.quantile(0.95)), "n_events": len(part)}
        for label, part in table.groupby("label")["delay_seconds"]
    }


def _sustained_figures(scored: Sequence[ScoredSoundscape], found: Sequence[Sequence[Event]]) -> dict:
    n_references = n_recalled = n_false = 0
    for scape, events in zip(scored, found, strict=True):
        references, alerts = sustained(scape.reference_events("crying")), sustained(events)
        n_references += len(references)
        n_recalled += int(_overlaps(references, alerts).sum())
        n_false += int((~_overlaps(alerts, references)).sum())
    return {"n_references": n_references, "n_recalled": n_recalled, "n_false": n_false}


def _try(
    scored: Sequence[ScoredSoundscape], min_seconds: float, merge_seconds: float, on: float, off_share: float
) -> list[dict]:
    both = dict.fromkeys(EVENT_LABELS, on), dict.fromkeys(EVENT_LABELS, on * off_share)
    settings = DetectionSettings(*both, min_seconds, merge_seconds)
    lengths = {"min_seconds": min_seconds, "merge_seconds": merge_seconds}
    return [lengths | {"on": on, "off": on * off_share} | row for row in _label_figures(scored, settings)]


def _label_figures(scored: Sequence[ScoredSoundscape], settings: DetectionSettings) -> list[dict]:
    """Return label, event_f1, recall, false_alarms_per_hour, n_events and hours of each label."""
    found = [settings.events(scape.probabilities) for scape in scored]
    f1 = event_f1(event_counts(scored, found).sum(axis=0))
    counts = alarm_counts(scored, found).sum(axis=0)
    hours = sum(scape.seconds for scape in scored) / 3600
    return [
        {
            "label": label,
            "event_f1": float(f1[column]),
            "recall": float(counts[column, 0] / counts[column, 1]) if counts[column, 1] else np.nan,
            "false_alarms_per_hour": float(counts[column, 2] / hours),
            "n_events": int(counts[column, 1]),
            "hours": hours,
        }
        for column, label in enumerate(EVENT_LABELS)
    ]


def _alarms(events: Sequence[Event]) -> list[Event]:
    """Cut events into the stretches that raise one alarm each."""
    alarms = []
    for event in events:
        n_alarms = max(1, math.ceil((event.offset_seconds - event.onset_seconds) / ALARM_SECONDS - 1e-9))
        starts = [event.onset_seconds + ALARM_SECONDS * number for number in range(n_alarms)]
        stops = [*starts[1:], event.offset_seconds]
        alarms += [Event(start, stop, event.label) for start, stop in zip(starts, stops, strict=True)]
    return alarms


def _overlaps(events: Sequence[Event], others: Sequence[Event], collar: float = 0.0) -> np.ndarray:
    """Tell for each event whether it comes nearer than `collar` to one of the others, or overlaps it: (n_events,)."""
    (on, off), (others_on, others_off) = onsets_and_offsets(events), onsets_and_offsets(others)
    near = (on[:, None] < others_off + collar) & (off[:, None] > others_on - collar)
    return near.any(axis=1)


def _of(events: Iterable[Event], label: str) -> list[Event]:
    return [event for event in events if event.label == label]


def _richness(scape: ScoredSoundscape, start: float) -> tuple[int, int]:
    inside = [i.event for i in scape.references if 0 <= i.event.onset_seconds - start <= EXAMPLE_SECONDS - 10]
    return len({event.label for event in inside}), len(inside)


def _ratio(counts: np.ndarray) -> np.ndarray:
    """Return the first of counts (..., 2) over the second; NaN over 0."""
    over = counts[..., 1]
    return np.divide(counts[..., 0], over, out=np.full(over.shape, np.nan), where=over > 0)
