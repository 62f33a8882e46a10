"""Events in long recordings: found in a stream that comes in chunks, and scored against what is really there.

Time runs on one grid, counted from the first sample of the stream, so that it does not matter how the stream is cut:
patch i is 0.975 s long and starts at i times 0.48 s, frame i covers [i, i + 1) times 0.48 s. Two patches overlap a
frame by more than a few milliseconds, i - 1 and i; their centres lie 0.24 s before and after its own (7.5 ms aside),
so the mean of their probabilities is the frame's. The first and the last frame have one patch. A frame is known once
patch i has been heard, `LOOK_AHEAD_SECONDS` after the frame's end.

Three ways of counting are used. *Event F1* (Mesaros et al. 2016, Metrics for Polyphonic Sound Event Detection): an
event found and one of the reference list are a pair if their onsets differ by at most `COLLAR_SECONDS` and their
offsets by at most that or half the reference's length; every event is in one pair at most. *PSDS* (Bilen et al. 2020,
A Framework for the Robust Evaluation of Sound Event Detection): see `psds`. *Alarms*, what a listener would get: an
event raises one at its onset and another each `ALARM_SECONDS` that it goes on; an alarm is false if its stretch comes
no nearer than `COLLAR_SECONDS` to a reference event of its label, and a reference event is recalled if an event of its
label overlaps it.

Event F1 and PSDS are those of sed_eval 0.2.1 and sed_scores_eval 0.0.4, written out: both need dcase_util 0.2.20, which
installs a package called `tests` that hides this project's own, and the second fails under pandas 3 ("buffer source
array is read-only"). The tests hold the answers that the two gave, to compare with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse import csgraph

from lib import audio, config, evaluation
from lib.config import SAMPLE_RATE_HZ
from lib.events import EVENT_LABELS, Event, EventTracker, check_frames, frames_to_events
from lib.trust.findings import Findings
from lib.trust.soundscapes import BED_SUBTYPES, PREVALENCE, SNR_DB, Reference, Soundscape

PATCH_SAMPLES, HOP_SAMPLES = 15_600, 7_680  # lib.yamnet's; not imported, because that brings TensorFlow along
HOP_SECONDS = HOP_SAMPLES / SAMPLE_RATE_HZ  # 0.48
LOOK_AHEAD_SECONDS = PATCH_SAMPLES / SAMPLE_RATE_HZ - HOP_SECONDS  # 0.495
BLOCK_SECONDS = 60.0  # pushed at once when a soundscape is scored

COLLAR_SECONDS = 1.0  # two frames
OFFSET_SHARE = 0.5
ALARM_SECONDS = config.MAX_SEGMENT_SECONDS
SUSTAINED_SECONDS = 30.0  # the service's StreamSettings.sustained_seconds

# DCASE 2021 to 2023, task 4: PSDS1 asks for the right time, PSDS2 for the right class.
PSDS_PARAMETERS = {
    "psds1": {"dtc": 0.7, "gtc": 0.7, "cttc": None, "alpha_ct": 0.0, "alpha_st": 1.0, "max_per_hour": 100.0},
    "psds2": {"dtc": 0.1, "gtc": 0.1, "cttc": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0, "max_per_hour": 100.0},
}
N_THRESHOLDS = 300  # operating points of PSDS a label
CURVE_THRESHOLDS = (*np.linspace(0.05, 0.95, 19).round(2).tolist(), 0.97, 0.98, 0.99, 0.995, 0.999)

ON_GRID = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
OFF_SHARES = (0.4, 0.7, 1.0)  # off, as a share of on
MIN_SECONDS_GRID = (0.48, 0.96, 1.44)
MERGE_SECONDS_GRID = (0.96, 1.92)  # the reference list joins up to 2 s

EXAMPLE_SECONDS = 120.0

ScorePatches = Callable[[np.ndarray], np.ndarray]  # (n_patches, 15600) to probabilities (n_patches, 3)


@dataclass(frozen=True)
class DetectionSettings:
    """How frame probabilities become events; see `lib.events.EventTracker`."""

    on: Mapping[str, float]
    off: Mapping[str, float]
    min_seconds: float
    merge_seconds: float

    def tracker(self) -> EventTracker:
        """Return a tracker at the start of a stream."""
        return EventTracker(HOP_SECONDS, **vars(self))

    def events(self, probabilities: np.ndarray) -> list[Event]:
        """Return the events in the frames (n_frames, 3) of a whole recording."""
        return frames_to_events(probabilities, HOP_SECONDS, **vars(self))


class FrameStream:
    """Turn samples that come in chunks of any length into frame probabilities on the grid of the stream.

    Parameters
    ----------
    score_patches : callable
        Patches (n_patches, 15600) to probabilities (n_patches, 3); a patch's row must not depend on its neighbours.
    """

    def __init__(self, score_patches: ScorePatches) -> None:
        self._score_patches = score_patches
        self._held = np.empty(0, dtype=np.float32)  # from the start of the last patch scored; at first, of the stream
        self._n_patches = 0
        self._last = np.empty((0, len(config.CLASS_NAMES)))  # probabilities of the last patch: (0 or 1, 3)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples (n_samples,); return the frames (n_frames, 3) that are known now."""
        self._held = np.concatenate([self._held, np.asarray(samples, dtype=np.float32)])
        first = HOP_SAMPLES if self._n_patches else 0
        starts = range(first, len(self._held) - PATCH_SAMPLES + 1, HOP_SAMPLES)
        if not starts:
            return np.empty((0, len(config.CLASS_NAMES)))
        patches = np.stack([self._held[start : start + PATCH_SAMPLES] for start in starts])
        self._held = self._held[starts[-1] :]
        return self._frames(patches)

    def finish(self) -> np.ndarray:
        """End the stream; return its last frames.

        Samples that no patch has heard get one more patch that ends with the stream; a stream shorter than one patch
        is repeated until it fills one. `lib.yamnet.patch_windows` does the same.
        """
        if not self._n_patches and not len(self._held):
            return np.empty((0, len(config.CLASS_NAMES)))
        frames = []
        if not self._n_patches:
            frames = [self._frames(np.resize(self._held, (1, PATCH_SAMPLES)))]
        elif len(self._held) > PATCH_SAMPLES:
            frames = [self._frames(self._held[None, -PATCH_SAMPLES:])]
        return np.concatenate([*frames, self._last])

    def _frames(self, patches: np.ndarray) -> np.ndarray:
        rows = check_frames(self._score_patches(patches))
        before = np.concatenate([self._last if self._n_patches else rows[:1], rows[:-1]])
        self._n_patches += len(rows)
        self._last = rows[-1:]
        return (before + rows) / 2


def at_one_level(score_patches: ScorePatches) -> ScorePatches:
    """Return a scorer that hears each patch at the level of `audio.equalise_level`.

    Training clips and what `inference.Classifier` is given are brought to that level clip by clip. In a stream there is
    no clip, and a level taken over a chunk would make events depend on the cutting; a patch's own level does not.
    """
    return lambda patches: score_patches(np.stack([audio.equalise_level(patch) for patch in patches]))


class StreamDetector:
    """Find events in a stream: the same ones however it is cut into chunks.

    Parameters
    ----------
    score_patches : callable
        As `FrameStream` takes it.
    settings : DetectionSettings
    """

    def __init__(self, score_patches: ScorePatches, settings: DetectionSettings) -> None:
        self._stream, self._tracker = FrameStream(score_patches), settings.tracker()

    def push(self, samples: np.ndarray) -> list[Event]:
        """Take the next samples (n_samples,), 16 kHz; return the events that nothing later can change."""
        return self._tracker.update(self._stream.push(samples))

    def finish(self) -> list[Event]:
        """End the stream; return the events that were still open."""
        return self._tracker.update(self._stream.finish()) + self._tracker.finish()


@dataclass(frozen=True)
class ScoredSoundscape:
    """What is in a soundscape and what a network says of it: frame probabilities (n_frames, 3)."""

    name: str
    bed_kind: str
    seconds: float
    references: tuple[Reference, ...]
    probabilities: np.ndarray

    def reference_events(self, label: str) -> list[Event]:
        """Return the reference events of one label, by onset."""
        return sorted(item.event for item in self.references if item.event.label == label)


def score_soundscapes(made: Iterable[Soundscape], score_patches: ScorePatches) -> list[ScoredSoundscape]:
    """Score soundscapes one at a time, `BLOCK_SECONDS` of samples at once."""
    return [
        ScoredSoundscape(
            scape.name, scape.bed_kind, scape.seconds, scape.references, frames(scape.waveform(), score_patches)
        )
        for scape in made
    ]


def frames(waveform: np.ndarray, score_patches: ScorePatches, *, chunk_seconds: float = BLOCK_SECONDS) -> np.ndarray:
    """Return the frame probabilities (n_frames, 3) of a whole recording, fed in chunks."""
    stream, n_chunk = FrameStream(score_patches), round(chunk_seconds * SAMPLE_RATE_HZ)
    parts = [stream.push(waveform[start : start + n_chunk]) for start in range(0, len(waveform), n_chunk)]
    return np.concatenate([*parts, stream.finish()])


def sustained(events: Iterable[Event]) -> list[Event]:
    """Return the cries that raise the service's sustained-cry alert: crying that goes on for `SUSTAINED_SECONDS`."""
    return [e for e in events if e.label == "crying" and e.offset_seconds - e.onset_seconds >= SUSTAINED_SECONDS]


def n_pairs(references: Sequence[Event], found: Sequence[Event]) -> int:
    """Return the largest number of pairs of events of one label within the collars of event F1."""
    if not references or not found:
        return 0
    (on, off), (found_on, found_off) = _times(references), _times(found)
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
    it `min_seconds` long; it is 0 where that frame ended before. `LOOK_AHEAD_SECONDS` and computing come on top.
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


def psds(
    scored: Sequence[ScoredSoundscape],
    *,
    dtc: float,
    gtc: float,
    cttc: float | None,
    alpha_ct: float,
    alpha_st: float,
    max_per_hour: float,
    n_thresholds: int = N_THRESHOLDS,
) -> dict[str, float]:
    """Return the polyphonic sound detection score of frame probabilities, by label and (key "all") together.

    At a threshold each run of frames that reach it is a detection. It counts if references of its label cover the
    share `dtc` of it, and is false otherwise; false and covered to `cttc` by the other label, it is a cross trigger
    too. A reference is found if detections that count cover the share `gtc` of it. Recall is drawn over false
    detections an hour plus `alpha_ct` times cross triggers an hour of the other label; the score is the area under the
    mean over labels less `alpha_st` standard deviations, up to `max_per_hour`, divided by that (Bilen et al. 2020,
    equations 3 to 9; the staircase between thresholds as sed_scores_eval has it).

    Parameters
    ----------
    scored : sequence of ScoredSoundscape
    dtc, gtc, cttc, alpha_ct, alpha_st, max_per_hour
        See above and `PSDS_PARAMETERS`.
    n_thresholds : int
        At most so many, spread evenly over the logarithm of the share of frames that reach them.
    """
    times = _Timeline(scored)
    options = {"dtc": dtc, "gtc": gtc, "cttc": cttc, "alpha_ct": alpha_ct}
    curves = {
        label: _psd_roc(times, label, n_thresholds=n_thresholds, **options)
        for label in EVENT_LABELS
        if len(times.onsets[label])
    }
    result = {label: _staircase_area(x, y, max_per_hour) for label, (x, y) in curves.items()}
    if curves:
        grid = np.unique(np.concatenate([x for x, _ in curves.values()]))
        recalls = np.stack([y[np.searchsorted(x, grid, side="right") - 1] for x, y in curves.values()])
        together = np.maximum(recalls.mean(axis=0) - alpha_st * recalls.std(axis=0), 0)
        result["all"] = _staircase_area(grid, together, max_per_hour)
    return result


def recall_table(
    scored: Sequence[ScoredSoundscape],
    found: Sequence[Sequence[Event]],
    *,
    by: str,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Return recall of each label by "snr_db" or "bed_kind", with intervals from a bootstrap over groups.

    Returns
    -------
    DataFrame
        `by`, label, value, low, high, n_events, n_groups.
    """
    events = reference_table(scored, found)
    rows = []
    for (key, label), part in events.groupby([by, "label"]):
        counts = part.groupby("group_id")["is_found"].agg(["sum", "size"]).to_numpy(float)
        figure = _bootstrap(counts, _ratio, n_bootstrap=n_bootstrap, seed=seed)
        rows.append({by: key, "label": label} | figure | {"n_events": len(part), "n_groups": len(counts)})
    return pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})


def reference_table(scored: Sequence[ScoredSoundscape], found: Sequence[Sequence[Event]]) -> pd.DataFrame:
    """Return one row a reference event, with where it is, how loud, whose, and whether it is recalled."""
    return pd.DataFrame(
        {
            "soundscape": scape.name,
            "bed_kind": scape.bed_kind,
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
) -> Findings:
    """Return the section: event F1, PSDS, false alarms an hour, recall, delay and the sustained-cry alert.

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
        "soundscape_recall_by_bed": recall_table(scored, found, by="bed_kind", **options),
        "soundscape_example": example(scored, found),
    }
    if tries is not None:
        tables["soundscape_tuning"] = tries
    figures = _description(scored, references) | {"settings": asdict(settings), "rules": _rules()}
    figures |= _event_figures(scored, found, options) | _alarm_figures(scored, found, references, options)
    figures["delay_seconds"] = _delay_figures(delays(scored, found, settings))
    figures["sustained_cry"] = _sustained_figures(scored, found)
    figures["psds"] = {name: psds(scored, **parameters) for name, parameters in PSDS_PARAMETERS.items()}
    return Findings(figures, tables)


def _description(scored: Sequence[ScoredSoundscape], references: pd.DataFrame) -> dict:
    hours = sum(scape.seconds for scape in scored) / 3600
    seconds = (references["offset_seconds"] - references["onset_seconds"]).sum()
    by_label = references.groupby("label")
    clips = references.assign(clip_id=references["clip_ids"].str.split()).explode("clip_id").groupby("label")["clip_id"]
    return {
        "hours": hours,
        "n_soundscapes": len(scored),
        "n_soundscapes_by_bed": pd.Series([scape.bed_kind for scape in scored]).value_counts().to_dict(),
        "prevalence": float(seconds / (hours * 3600)),
        "n_events": by_label.size().to_dict(),
        "n_clips": clips.nunique().to_dict(),
        "n_groups": by_label["group_id"].nunique().to_dict(),
    }


def _rules() -> dict:
    return {
        "beds": {kind: list(subtypes) for kind, subtypes in BED_SUBTYPES.items()},
        "music": "none: the sources hold no recording of music",
        "prevalence_drawn": list(PREVALENCE),
        "snr_db": list(SNR_DB),
        "collar_seconds": COLLAR_SECONDS,
        "offset_share": OFFSET_SHARE,
        "alarm_seconds": ALARM_SECONDS,
        "sustained_seconds": SUSTAINED_SECONDS,
        "look_ahead_seconds": LOOK_AHEAD_SECONDS,
        "psds": PSDS_PARAMETERS,
    }


def _event_figures(
    scored: Sequence[ScoredSoundscape], found: Sequence[Sequence[Event]], options: Mapping[str, int]
) -> dict:
    counts = event_counts(scored, found)
    by_label = {
        label: _bootstrap(counts[:, column], event_f1, **options) | {"n_found": int(counts[:, column, 1].sum())}
        for column, label in enumerate(EVENT_LABELS)
    }
    mean = _bootstrap(counts, lambda total: np.nanmean(event_f1(total), axis=-1), **options)
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
        recall[label] = _bootstrap(groups.to_numpy(float), _ratio, **options)
        alarms[label] = _bootstrap(np.hstack([counts[:, column, 2:], hours]), _ratio, **options)
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


class _Timeline:
    """All soundscapes one after the other on one axis of frames, with a frame between that reaches no threshold."""

    def __init__(self, scored: Sequence[ScoredSoundscape]) -> None:
        gap = np.full((1, len(config.CLASS_NAMES)), -1.0)
        self.probabilities = np.concatenate([part for scape in scored for part in (scape.probabilities, gap)])
        self.hours = sum(scape.seconds for scape in scored) / 3600
        lengths = [len(scape.probabilities) + 1 for scape in scored]
        bases = np.cumsum([0, *lengths[:-1]]) * HOP_SECONDS
        times = {
            label: [_times(scape.reference_events(label)) + base for scape, base in zip(scored, bases, strict=True)]
            for label in EVENT_LABELS
        }
        self.onsets = {label: np.concatenate(parts, axis=1)[0] for label, parts in times.items()}
        self.offsets = {label: np.concatenate(parts, axis=1)[1] for label, parts in times.items()}

    def runs(self, label: str, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Return onsets and offsets of the runs of frames that reach a threshold."""
        active = np.concatenate([[False], self.probabilities[:, config.CLASS_ID[label]] >= threshold])
        changes = np.flatnonzero(active[1:] != active[:-1]) * HOP_SECONDS  # the last frame is a gap: never active
        return changes[::2], changes[1::2]

    def thresholds(self, label: str, n_thresholds: int) -> np.ndarray:
        """Return at most so many probabilities, spread evenly over the logarithm of the share that reach them."""
        values = np.sort(self.probabilities[:, config.CLASS_ID[label]])[::-1]
        values = values[values >= 0]
        distinct = np.unique(values)
        if len(distinct) <= n_thresholds:
            return distinct
        return np.unique(values[np.geomspace(1, len(values), n_thresholds).astype(int) - 1])


def _psd_roc(
    times: _Timeline,
    label: str,
    *,
    n_thresholds: int,
    dtc: float,
    gtc: float,
    cttc: float | None,
    alpha_ct: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return effective false detections an hour, rising, and recall: both (n_points,), from (0, ...) on."""
    onsets, offsets = times.onsets[label], times.offsets[label]
    others = [other for other in EVENT_LABELS if other != label]
    points = [(0.0, 0.0)]
    for threshold in times.thresholds(label, n_thresholds):
        on, off = times.runs(label, threshold)
        counts = _reaches(_covered(on, off, onsets, offsets), dtc * (off - on))
        recall = _reaches(_covered(onsets, offsets, on[counts], off[counts]), gtc * (offsets - onsets)).mean()
        rate = (~counts).sum() / times.hours
        if alpha_ct:
            crossed = [_cross_triggers_per_hour(times, other, on[~counts], off[~counts], cttc) for other in others]
            rate += alpha_ct * np.mean(crossed)
        points.append((rate, recall))
    rates, recalls = np.array(sorted(points)).T
    recalls = np.maximum.accumulate(recalls)
    last = np.r_[rates[1:] != rates[:-1], True]  # of equal rates the best
    return rates[last], recalls[last]


def _cross_triggers_per_hour(times: _Timeline, other: str, on: np.ndarray, off: np.ndarray, cttc: float) -> float:
    other_hours = (times.offsets[other] - times.onsets[other]).sum() / 3600
    covered = _covered(on, off, times.onsets[other], times.offsets[other])
    return float(_reaches(covered, cttc * (off - on)).sum() / other_hours) if other_hours else 0.0


def _covered(on: np.ndarray, off: np.ndarray, others_on: np.ndarray, others_off: np.ndarray) -> np.ndarray:
    """Return for each stretch the seconds of it that other stretches, sorted and apart, cover."""
    if not len(others_on):
        return np.zeros(len(on))
    edges = np.stack([others_on, others_off], axis=1).ravel()
    lengths = np.cumsum(others_off - others_on)
    seconds = np.stack([np.concatenate([[0], lengths[:-1]]), lengths], axis=1).ravel()  # covered up to each edge
    return np.interp(off, edges, seconds) - np.interp(on, edges, seconds)


def _reaches(seconds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.round(seconds, 6) >= np.round(wanted, 6)


def _staircase_area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Return the mean height up to `limit` of a staircase that rises at each x."""
    kept = x < limit
    return float((y[kept] * np.diff(np.append(x[kept], limit))).sum() / limit)


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
    (on, off), (others_on, others_off) = _times(events), _times(others)
    near = (on[:, None] < others_off + collar) & (off[:, None] > others_on - collar)
    return near.any(axis=1)


def _of(events: Iterable[Event], label: str) -> list[Event]:
    return [event for event in events if event.label == label]


def _times(events: Sequence[Event]) -> np.ndarray:
    """Return onsets and offsets (2, n_events)."""
    return np.array([(event.onset_seconds, event.offset_seconds) for event in events]).reshape(-1, 2).T


def _richness(scape: ScoredSoundscape, start: float) -> tuple[int, int]:
    inside = [i.event for i in scape.references if 0 <= i.event.onset_seconds - start <= EXAMPLE_SECONDS - 10]
    return len({event.label for event in inside}), len(inside)


def _ratio(counts: np.ndarray) -> np.ndarray:
    """Return the first of counts (..., 2) over the second; NaN over 0."""
    over = counts[..., 1]
    return np.divide(counts[..., 0], over, out=np.full(over.shape, np.nan), where=over > 0)


def _bootstrap(
    counts: np.ndarray, figure: Callable[[np.ndarray], np.ndarray], *, n_bootstrap: int, seed: int
) -> evaluation.Interval:
    """Return a figure of summed counts (n_units, ...) with its percentile interval over units drawn with replacement.

    With fewer than `evaluation.MIN_GROUPS` units low and high are None.
    """
    n_units, tail = len(counts), (100 - evaluation.INTERVAL_PERCENT) / 2
    value = float(figure(counts.sum(axis=0)))
    low, high = None, None
    if n_units >= evaluation.MIN_GROUPS and not np.isnan(value):
        drawn = np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), size=n_bootstrap)
        spread = figure(np.tensordot(drawn, counts, axes=1))
        low, high = (float(edge) for edge in np.nanpercentile(spread, [tail, 100 - tail]))
    return {"value": None if np.isnan(value) else value, "low": low, "high": high}
