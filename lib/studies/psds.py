"""The polyphonic sound detection score of long recordings: see `psds`.

Source: Bilen et al. 2020, A Framework for the Robust Evaluation of Sound Event Detection. It is that of
sed_scores_eval 0.0.4, written out: this needs dcase_util 0.2.20, which installs a package called `tests` that hides
this project's own, and it fails under pandas 3 ("buffer source array is read-only"). The tests hold the answers that it
gave, to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lib import config
from lib.events import EVENT_LABELS
from lib.studies.stream import HOP_SECONDS, ScoredSoundscape, onsets_and_offsets

# DCASE 2021 to 2023, task 4: PSDS1 asks for the right time, PSDS2 for the right class.
PSDS_PARAMETERS = {
    "psds1": {"dtc": 0.7, "gtc": 0.7, "cttc": None, "alpha_ct": 0.0, "alpha_st": 1.0, "max_per_hour": 100.0},
    "psds2": {"dtc": 0.1, "gtc": 0.1, "cttc": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0, "max_per_hour": 100.0},
}
N_THRESHOLDS = 300  # operating points of PSDS a label


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


class _Timeline:
    """All soundscapes one after the other on one axis of frames, with a frame between that reaches no threshold."""

    def __init__(self, scored: Sequence[ScoredSoundscape]) -> None:
        gap = np.full((1, len(config.CLASS_NAMES)), -1.0)
        self.probabilities = np.concatenate([part for scape in scored for part in (scape.probabilities, gap)])
        self.hours = sum(scape.seconds for scape in scored) / 3600
        lengths = [len(scape.probabilities) + 1 for scape in scored]
        bases = np.cumsum([0, *lengths[:-1]]) * HOP_SECONDS
        times = {
            label: [
                onsets_and_offsets(scape.reference_events(label)) + base
                for scape, base in zip(scored, bases, strict=True)
            ]
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
