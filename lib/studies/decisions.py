"""When to abstain, and which threshold suits which cost: shares of errors and of alarms, with intervals.

Everything is chosen on validation clips and shown on others. An interval is a 95 % one from a bootstrap over groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from lib import config, evaluation
from lib.studies.result import columns

TARGET_RISKS = (0.01, 0.02, 0.05)  # share of errors among the predictions kept

CHUNKS_PER_HOUR = 720  # chunks of 5 s
# Assumed share of chunks that hold what the alarm is for: 1.5 % a cry or a scream; for one of them alone half of it.
PREVALENCE = {"either": 0.015, "crying": 0.0075, "screaming": 0.0075}
COST_RATIOS = (1, 10, 100)  # false alarms that a miss is worth
THRESHOLDS = special.expit(np.linspace(-7, 7, 141))  # 0.001 to 0.999, even in log-odds, 0.5 among them

NO_CLIP, BY_BOOTSTRAP, BY_BOUND, NO_INTERVAL = "no clip", "bootstrap over groups", "exact over groups", "too few groups"


def rate(
    hits: np.ndarray, groups: Sequence[str] | np.ndarray, *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0
) -> dict[str, Any]:
    """Return the share of clips that are hits, with a 95 % interval over groups.

    A bootstrap of nothing but zeros (or ones) gives an interval of no width, which claims too much. There the exact
    bound of Clopper and Pearson (1934) over groups is given: 0 of 20 groups leaves up to 17 %.

    Parameters
    ----------
    hits : ndarray of bool, shape (n_clips,)
    groups : sequence of str, length n_clips
    n_bootstrap, seed : int

    Returns
    -------
    dict
        value, low, high; interval: how they were found (no interval with fewer than `evaluation.MIN_GROUPS` groups);
        n_clips, n_groups.
    """
    hits = np.asarray(hits, dtype=bool)
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    result: dict[str, Any] = {"value": None, "low": None, "high": None, "interval": NO_CLIP, "n_clips": len(hits)}
    result["n_groups"] = len(names)
    if not len(hits):
        return result
    result["value"] = float(hits.mean())
    low, high, result["interval"] = _over_groups(hits, place, len(names), n_bootstrap=n_bootstrap, seed=seed)
    return result | {"low": low, "high": high}


def exact_bound(n_groups: int, *, is_hit: bool) -> tuple[float, float]:
    """Return the 95 % interval of a share that all groups agree on: all hits, or none (Clopper and Pearson 1934)."""
    bound = stats.binomtest(n_groups if is_hit else 0, n_groups).proportion_ci(method="exact")
    return float(bound.low), float(bound.high)


def _over_groups(
    hits: np.ndarray, place: np.ndarray, n_groups: int, *, n_bootstrap: int, seed: int
) -> tuple[float | None, float | None, str]:
    if n_groups < evaluation.MIN_GROUPS:
        return None, None, NO_INTERVAL
    if hits.all() or not hits.any():
        return *exact_bound(n_groups, is_hit=bool(hits.all())), BY_BOUND
    by_group = np.stack([np.bincount(place, hits, n_groups), np.bincount(place, minlength=n_groups)], axis=1)
    figure = evaluation.bootstrap(by_group, lambda sums: sums[:, 0] / sums[:, 1], n_bootstrap=n_bootstrap, seed=seed)
    return figure["low"], figure["high"], BY_BOOTSTRAP


def top_class(probabilities: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and correctness (n_clips,) of the most probable class."""
    probabilities = np.asarray(probabilities, dtype=float)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(class_ids)


def coverage_risk(probabilities: np.ndarray, class_ids: np.ndarray) -> pd.DataFrame:
    """Return the share of errors among the most confident predictions, from few of them to all.

    Parameters
    ----------
    probabilities : ndarray, (n_clips, 3)
    class_ids : ndarray of int, (n_clips,)

    Returns
    -------
    DataFrame
        threshold (clips whose largest probability is this or more are kept), coverage (their share), risk (share
        of errors among them). Clips of equal confidence are kept together.
    """
    confidence, correct = top_class(probabilities, class_ids)
    order = np.argsort(-confidence, kind="stable")
    ends = _tie_ends(confidence[order])
    so_far = np.arange(1, len(order) + 1)
    risk = np.cumsum(~correct[order]) / so_far
    columns = {"threshold": confidence[order], "coverage": so_far / len(order), "risk": risk}
    return pd.DataFrame(columns).iloc[ends].reset_index(drop=True)


def _tie_ends(ordered: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.append(np.diff(ordered) != 0, True))


def abstain_threshold(probabilities: np.ndarray, class_ids: np.ndarray, *, risk: float) -> float:
    """Return the confidence below which to abstain, so that of the predictions kept at most `risk` are wrong.

    Of all thresholds that do, the one that keeps most: 0 where everything may be kept, above 1 where nothing.
    """
    curve = coverage_risk(probabilities, class_ids)
    fits = np.flatnonzero(curve["risk"] <= risk)
    if not len(fits):
        return float(np.nextafter(1, 2))
    return 0.0 if fits[-1] == len(curve) - 1 else float(curve["threshold"].iloc[fits[-1]])


def abstain(
    probabilities: np.ndarray,
    class_ids: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    chosen_on: tuple[np.ndarray, np.ndarray],
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Return coverage and risk of clips at the thresholds that keep each target risk where they are chosen.

    Parameters
    ----------
    probabilities : ndarray, (n_clips, 3)
    class_ids : ndarray of int, (n_clips,)
    groups : sequence of str, length n_clips
    chosen_on : tuple
        Probabilities and class ids of the clips that thresholds are chosen on.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        A row for each of `TARGET_RISKS`: target_risk, threshold, n_kept, coverage and risk with low and high,
        risk_of_abstained (share of errors among the clips abstained from), n_clips, n_groups.
    """
    confidence, correct = top_class(probabilities, class_ids)
    names, table = np.asarray(groups), []
    for risk in TARGET_RISKS:
        threshold = abstain_threshold(*chosen_on, risk=risk)
        kept = confidence >= threshold
        coverage = rate(kept, groups, n_bootstrap=n_bootstrap, seed=seed)
        if threshold == 0:  # everything is kept, whatever the clips
            coverage |= {"low": 1.0, "high": 1.0}
        errors = rate(~correct[kept], names[kept], n_bootstrap=n_bootstrap, seed=seed)
        row: dict[str, Any] = {"target_risk": risk, "threshold": threshold, "n_kept": int(kept.sum())}
        row |= columns("coverage", coverage) | columns("risk", errors)
        of_abstained = float((~correct[~kept]).mean()) if (~kept).any() else None
        table.append(
            row | {"risk_of_abstained": of_abstained, "n_clips": len(groups), "n_groups": coverage["n_groups"]}
        )
    return pd.DataFrame(table)


def alarm_scores(probabilities: np.ndarray, alarm: str) -> np.ndarray:
    """Return what is compared with the threshold (n_clips,): p(crying) + p(screaming) for "either", or one of them."""
    labels = ("crying", "screaming") if alarm == "either" else (alarm,)
    return np.asarray(probabilities, dtype=float)[:, [config.CLASS_ID[label] for label in labels]].sum(axis=1)


def alarm_rates(probabilities: np.ndarray, class_ids: np.ndarray, *, alarm: str = "either") -> pd.DataFrame:
    """Return false alarms and misses at every threshold.

    Parameters
    ----------
    probabilities : ndarray, (n_clips, 3)
    class_ids : ndarray of int, (n_clips,)
        Normal clips give the false alarms, clips of what the alarm is for the misses.
    alarm : str
        One of `PREVALENCE`.

    Returns
    -------
    DataFrame
        threshold (of `THRESHOLDS`; an alarm is a score of this or more), false_alarm_rate, miss_rate, and by
        `CHUNKS_PER_HOUR` and `PREVALENCE` false_alarms_per_hour and misses_per_hour: every chunk counts by itself, and
        the normal chunks of an hour are as hard as the normal clips.
    """
    scores, (wanted, normal) = alarm_scores(probabilities, alarm), _sides(class_ids, alarm)
    raised = scores[:, None] >= THRESHOLDS  # (n_clips, n_thresholds)
    table = pd.DataFrame({"threshold": THRESHOLDS, "false_alarm_rate": raised[normal].mean(axis=0)})
    table["miss_rate"] = 1 - raised[wanted].mean(axis=0)
    table["false_alarms_per_hour"] = table["false_alarm_rate"] * _per_hour(alarm)[0]
    table["misses_per_hour"] = table["miss_rate"] * _per_hour(alarm)[1]
    return table


def choose_threshold(rates: pd.DataFrame, *, ratio: float) -> float:
    """Return the threshold of least cost per hour, false alarms plus `ratio` times misses; of equals nearest to 0.5."""
    cost = (rates["false_alarms_per_hour"] + ratio * rates["misses_per_hour"]).round(9)
    best = rates.loc[cost == cost.min(), "threshold"]
    return float(best.iloc[int(np.abs(special.logit(best.to_numpy())).argmin())])


def costs(
    probabilities: np.ndarray,
    class_ids: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    chosen_on: tuple[np.ndarray, np.ndarray],
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Return false alarms and misses of clips at the thresholds of least cost on the clips they are chosen on.

    Parameters
    ----------
    probabilities, class_ids, groups, chosen_on, n_bootstrap, seed
        As in `abstain`.

    Returns
    -------
    DataFrame
        A row for each of `PREVALENCE` and `COST_RATIOS`: alarm, miss_costs, threshold, false_alarm_rate, miss_rate and
        false_alarms_per_hour with low and high; n_normal, n_wanted, n_groups_normal, n_groups_wanted.
    """
    table, names, options = [], np.asarray(groups), {"n_bootstrap": n_bootstrap, "seed": seed}
    for alarm in PREVALENCE:
        rates = alarm_rates(*chosen_on, alarm=alarm)
        scores, (wanted, normal) = alarm_scores(probabilities, alarm), _sides(class_ids, alarm)
        for ratio in COST_RATIOS:
            threshold = choose_threshold(rates, ratio=ratio)
            false = rate(scores[normal] >= threshold, names[normal], **options)
            missed = rate(scores[wanted] < threshold, names[wanted], **options)
            row = {"alarm": alarm, "miss_costs": ratio, "threshold": threshold}
            row |= columns("false_alarm_rate", false) | columns("miss_rate", missed)
            ends = (false[end] for end in ("value", "low", "high"))
            hourly = [None if end is None else end * _per_hour(alarm)[0] for end in ends]
            row |= columns("false_alarms_per_hour", dict(zip(("value", "low", "high"), hourly, strict=True)))
            row |= {"n_normal": false["n_clips"], "n_wanted": missed["n_clips"]}
            row |= {"n_groups_normal": false["n_groups"], "n_groups_wanted": missed["n_groups"]}
            table.append(row)
    return pd.DataFrame(table)


def _sides(class_ids: np.ndarray, alarm: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which clips the alarm is for, and which are normal; the other alarm's clips are neither."""
    class_ids, normal = np.asarray(class_ids), config.CLASS_ID["normal"]
    wanted = class_ids != normal if alarm == "either" else class_ids == config.CLASS_ID[alarm]
    return wanted, class_ids == normal


def _per_hour(alarm: str) -> tuple[float, float]:
    """Return the chunks of an hour that are normal, and those that hold what the alarm is for."""
    share = PREVALENCE[alarm]
    return CHUNKS_PER_HOUR * (1 - share), CHUNKS_PER_HOUR * share
