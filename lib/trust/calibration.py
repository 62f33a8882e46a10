"""Whether probabilities mean what they say, when to answer "unsure", and which threshold suits which cost.

Everything is chosen on validation clips and shown on others. An interval is a 95 % one from a bootstrap over groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import special, stats

from lib import config, ensemble, evaluation
from lib.trust.findings import Findings

N_BINS = 15  # Guo et al. 2017, "On calibration of modern neural networks"
BINNINGS = ("width", "mass")  # equally wide, or with equally many clips
TOP = "top"  # reliability of the most probable class, whichever it is
TARGET_RISKS = (0.01, 0.02, 0.05)  # share of errors among the answers given

CHUNKS_AN_HOUR = 720  # chunks of 5 s
# Assumed share of chunks that hold what the alarm is for: 1.5 % a cry or a scream; for one of them alone half of it.
PREVALENCE = {"either": 0.015, "crying": 0.0075, "screaming": 0.0075}
COST_RATIOS = (1, 10, 100)  # false alarms that a miss is worth
THRESHOLDS = special.expit(np.linspace(-7, 7, 141))  # 0.001 to 0.999, even in log-odds, 0.5 among them

NO_CLIP, BY_BOOTSTRAP, BY_BOUND, NO_INTERVAL = "no clip", "bootstrap over groups", "exact over groups", "too few groups"
N_CURVE_POINTS = 200  # of a coverage-risk curve in its table

Given = Mapping[str, tuple[pd.DataFrame, Mapping[str, np.ndarray]]]  # split: rows, and probabilities by model


def rate(
    hits: np.ndarray, groups: Sequence[str], *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0
) -> dict[str, object]:
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
        n_clips, n_groups; wilson_low, wilson_high: Wilson's interval (1927), which takes clips for independent.
    """
    hits = np.asarray(hits, dtype=bool)
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    result = {"value": None, "low": None, "high": None, "interval": NO_CLIP, "n_clips": len(hits)}
    result |= {"n_groups": len(names), "wilson_low": None, "wilson_high": None}
    if not len(hits):
        return result
    wilson = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    result |= {"value": float(hits.mean()), "wilson_low": float(wilson.low), "wilson_high": float(wilson.high)}
    low, high, result["interval"] = _over_groups(hits, place, len(names), n_bootstrap=n_bootstrap, seed=seed)
    return result | {"low": low, "high": high}


def _over_groups(
    hits: np.ndarray, place: np.ndarray, n_groups: int, *, n_bootstrap: int, seed: int
) -> tuple[float | None, float | None, str]:
    if n_groups < evaluation.MIN_GROUPS:
        return None, None, NO_INTERVAL
    if hits.all() or not hits.any():
        bound = stats.binomtest(n_groups if hits.all() else 0, n_groups).proportion_ci(method="exact")
        return float(bound.low), float(bound.high), BY_BOUND
    draws = evaluation._group_draws(n_groups, n_bootstrap, seed)
    spread = (draws @ np.bincount(place, hits, n_groups)) / (draws @ np.bincount(place, minlength=n_groups))
    tail = (100 - evaluation.INTERVAL_PERCENT) / 2
    low, high = np.percentile(spread, [tail, 100 - tail])
    return float(low), float(high), BY_BOOTSTRAP


def reliability(
    confidence: np.ndarray, correct: np.ndarray, *, binning: str = "width", n_bins: int = N_BINS
) -> pd.DataFrame:
    """Return the points of a reliability diagram.

    Parameters
    ----------
    confidence : ndarray, (n_clips,)
        A probability a clip.
    correct : ndarray of bool, (n_clips,)
        Whether what it was given for is so.
    binning : str
        One of `BINNINGS`: bins of equal width between 0 and 1, or of equal mass (clips of equal confidence stay
        together).
    n_bins : int

    Returns
    -------
    DataFrame
        A row a bin that holds clips: low, high (its edges), n, confidence (mean) and accuracy (share correct).
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    edges = _edges(confidence, binning, n_bins)
    place = _bins(confidence, edges)
    n = np.bincount(place, minlength=len(edges) - 1)
    sums = [np.bincount(place, values, len(n)) for values in (confidence, correct)]
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n": n})
    table["confidence"], table["accuracy"] = (np.divide(part, n, out=np.zeros(len(n)), where=n > 0) for part in sums)
    return table[table["n"] > 0].reset_index(drop=True)


def ece(confidence: np.ndarray, correct: np.ndarray, *, binning: str = "width", n_bins: int = N_BINS) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy over the bins, by clips.

    Source: Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning".
    """
    bins = reliability(confidence, correct, binning=binning, n_bins=n_bins)
    return float(np.average((bins["confidence"] - bins["accuracy"]).abs(), weights=bins["n"]))


def _edges(confidence: np.ndarray, binning: str, n_bins: int) -> np.ndarray:
    if binning not in BINNINGS:
        raise ValueError(f"binning is {binning!r}, expected one of {BINNINGS}.")
    if binning == "width":
        return np.linspace(0, 1, n_bins + 1)
    inner = np.quantile(confidence, np.arange(1, n_bins) / n_bins, method="inverted_cdf")
    return np.unique(np.concatenate([[0.0], inner, [1.0]]))


def _bins(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the bin (low, high] of each value; 0 belongs to the first."""
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)


def events_of(probabilities: np.ndarray, class_ids: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and correctness (n_clips,) of the most probable class (`TOP`), or of one against the rest."""
    probabilities, class_ids = np.asarray(probabilities, dtype=float), np.asarray(class_ids)
    if what == TOP:
        return probabilities.max(axis=1), probabilities.argmax(axis=1) == class_ids
    return probabilities[:, config.CLASS_ID[what]], class_ids == config.CLASS_ID[what]


def measures(
    probabilities: np.ndarray,
    class_ids: np.ndarray,
    groups: Sequence[str],
    *,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how well probabilities are calibrated, each measure with its interval.

    Parameters
    ----------
    probabilities : ndarray, (n_clips, 3)
    class_ids : ndarray of int, (n_clips,)
    groups : sequence of str, length n_clips
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        Columns measure, value, low, high and perfect: what 95 of 100 perfectly calibrated classifiers with these very
        probabilities stay below (labels drawn from them, clips independent), for few clips leave gaps by chance.
        Measures: ece_width and ece_mass of the most probable class, ece_<label> of each class against the rest (equal
        width) and ece_classwise, their mean; brier, the squared error summed over the three classes (Brier 1950; 0 to
        2); log_loss in nats. Resampling adds noise, which can only widen gaps; so the interval of an ECE is shifted
        by the resamples' mean excess, and cut at 0.
    """
    probabilities, class_ids = np.asarray(probabilities, dtype=float), np.asarray(class_ids)
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    draws = evaluation._group_draws(len(names), n_bootstrap, seed)
    truth = np.eye(len(config.CLASS_NAMES))[class_ids]
    losses = {
        "brier": ((probabilities - truth) ** 2).sum(axis=1),
        "log_loss": -np.log(np.clip((probabilities * truth).sum(axis=1), ensemble.SMALLEST_PROBABILITY, 1)),
    }
    kinds = {"ece_width": (TOP, "width"), "ece_mass": (TOP, "mass")}
    kinds |= {f"ece_{label}": (label, "width") for label in config.CLASS_NAMES}
    gaps = {name: _gaps(events_of(probabilities, class_ids, what), binning) for name, (what, binning) in kinds.items()}
    spreads = {name: _resampled_ece(found[0], place, draws) for name, found in gaps.items()}
    values = {name: float(np.abs(found[0].sum(axis=0)).sum() / len(class_ids)) for name, found in gaps.items()}
    labels = [f"ece_{label}" for label in config.CLASS_NAMES]
    values["ece_classwise"] = float(np.mean([values[name] for name in labels]))
    spreads["ece_classwise"] = np.mean([spreads[name] for name in labels], axis=0)
    rows = []
    for name, value in values.items():
        shifted = np.maximum(spreads[name] - spreads[name].mean() + value, 0)
        row = evaluation._interval(value, shifted, n_groups=len(names))
        perfect = None if name == "ece_classwise" else _perfect(*gaps[name][1:], n_draws=n_bootstrap, seed=seed)
        rows.append({"measure": name} | row | {"perfect": perfect})
    size = np.bincount(place)
    for name, loss in losses.items():
        spread = (draws @ np.bincount(place, loss)) / (draws @ size)
        row = evaluation._interval(float(loss.mean()), spread, n_groups=len(names))
        rows.append({"measure": name} | row | {"perfect": None})
    return pd.DataFrame(rows)


def _gaps(event: tuple[np.ndarray, np.ndarray], binning: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return correct less confidence in each clip's bin (n_clips, n_bins), the confidences and their bins."""
    confidence, correct = event
    edges = _edges(confidence, binning, N_BINS)
    place = _bins(confidence, edges)
    gaps = np.zeros((len(place), len(edges) - 1))
    gaps[np.arange(len(place)), place] = correct - confidence
    return gaps, confidence, place


def _resampled_ece(gaps: np.ndarray, place: np.ndarray, draws: np.ndarray) -> np.ndarray:
    by_group = np.zeros((draws.shape[1], gaps.shape[1]))
    np.add.at(by_group, place, gaps)
    return np.abs(draws @ by_group).sum(axis=1) / (draws @ np.bincount(place))


def _perfect(confidence: np.ndarray, bins: np.ndarray, *, n_draws: int, seed: int) -> float:
    rng, n = np.random.default_rng(seed), len(confidence)
    found = []
    for _ in range(min(n_draws, 500)):
        gap = (rng.random(n) < confidence) - confidence
        found.append(np.abs(np.bincount(bins, gap)).sum() / n)
    return float(np.percentile(found, 95))


def coverage_risk(probabilities: np.ndarray, class_ids: np.ndarray) -> pd.DataFrame:
    """Return the share of errors among the surest answers, from few of them to all.

    Parameters
    ----------
    probabilities : ndarray, (n_clips, 3)
    class_ids : ndarray of int, (n_clips,)

    Returns
    -------
    DataFrame
        threshold (clips whose largest probability is this or more are answered), coverage (their share), risk (share
        of errors among them). Clips of equal confidence are answered together.
    """
    confidence, correct = events_of(probabilities, class_ids, TOP)
    order = np.argsort(-confidence, kind="stable")
    ends = _tie_ends(confidence[order])
    answered = np.arange(1, len(order) + 1)
    risk = np.cumsum(~correct[order]) / answered
    columns = {"threshold": confidence[order], "coverage": answered / len(order), "risk": risk}
    return pd.DataFrame(columns).iloc[ends].reset_index(drop=True)


def aurc(
    probabilities: np.ndarray,
    class_ids: np.ndarray,
    groups: Sequence[str],
    *,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> evaluation.Interval:
    """Return the area under the coverage-risk curve, the mean risk over all coverages, with its interval.

    Source: Geifman and El-Yaniv 2017, "Selective classification for deep neural networks".
    """
    confidence, correct = events_of(probabilities, class_ids, TOP)
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    order = np.argsort(-confidence, kind="stable")
    ends, wrong = _tie_ends(confidence[order]), ~correct[order]
    draws = np.vstack([np.ones(len(names)), evaluation._group_draws(len(names), n_bootstrap, seed)])
    weights = draws[:, place[order]]  # (n_bootstrap + 1, n_clips), the first row is the sample itself
    answered, errors = (np.cumsum(part, axis=1)[:, ends] for part in (weights, weights * wrong))
    risk = np.divide(errors, answered, out=np.zeros_like(errors), where=answered > 0)
    areas = (risk * np.diff(answered, axis=1, prepend=0)).sum(axis=1) / answered[:, -1]
    return evaluation._interval(float(areas[0]), areas[1:], n_groups=len(names))


def _tie_ends(ordered: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.append(np.diff(ordered) != 0, True))


def unsure_threshold(probabilities: np.ndarray, class_ids: np.ndarray, *, risk: float) -> float:
    """Return the confidence below which to answer "unsure", so that of the answers at most `risk` are wrong.

    Of all thresholds that do, the one that answers most: 0 where everything may be answered, above 1 where nothing.
    """
    curve = coverage_risk(probabilities, class_ids)
    fits = np.flatnonzero(curve["risk"] <= risk)
    if not len(fits):
        return float(np.nextafter(1, 2))
    return 0.0 if fits[-1] == len(curve) - 1 else float(curve["threshold"].iloc[fits[-1]])


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
        `CHUNKS_AN_HOUR` and `PREVALENCE` false_alarms_an_hour and misses_an_hour: every chunk counts by itself, and
        the normal chunks of an hour are as hard as the normal clips.
    """
    scores, (wanted, normal) = alarm_scores(probabilities, alarm), _sides(class_ids, alarm)
    raised = scores[:, None] >= THRESHOLDS  # (n_clips, n_thresholds)
    table = pd.DataFrame({"threshold": THRESHOLDS, "false_alarm_rate": raised[normal].mean(axis=0)})
    table["miss_rate"] = 1 - raised[wanted].mean(axis=0)
    table["false_alarms_an_hour"] = table["false_alarm_rate"] * _an_hour(alarm)[0]
    table["misses_an_hour"] = table["miss_rate"] * _an_hour(alarm)[1]
    return table


def choose_threshold(rates: pd.DataFrame, *, ratio: float) -> float:
    """Return the threshold of least cost an hour, false alarms plus `ratio` times misses; of equals nearest to 0.5."""
    cost = (rates["false_alarms_an_hour"] + ratio * rates["misses_an_hour"]).round(9)
    best = rates.loc[cost == cost.min(), "threshold"]
    return float(best.iloc[int(np.abs(special.logit(best.to_numpy())).argmin())])


def _sides(class_ids: np.ndarray, alarm: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which clips the alarm is for, and which are normal; the other alarm's clips are neither."""
    class_ids, normal = np.asarray(class_ids), config.CLASS_ID["normal"]
    wanted = class_ids != normal if alarm == "either" else class_ids == config.CLASS_ID[alarm]
    return wanted, class_ids == normal


def _an_hour(alarm: str) -> tuple[float, float]:
    """Return the chunks of an hour that are normal, and those that hold what the alarm is for."""
    share = PREVALENCE[alarm]
    return CHUNKS_AN_HOUR * (1 - share), CHUNKS_AN_HOUR * share


def section(given: Given, *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0) -> Findings:
    """Return calibration before and after temperature scaling, the unsure answer and the thresholds by cost.

    Parameters
    ----------
    given : mapping of split to (rows, mapping of model to ndarray (n_clips, 3))
        "validation", which everything is chosen on, and the splits it is shown on: "test", "left_out". Rows have label
        and group_id. A model without probabilities for a split is left out there.
    n_bootstrap, seed : int

    Returns
    -------
    Findings
        Tables, each with split and model:
        calibration_measures (`measures`, state: before or after the temperature of `ensemble.fit_temperature`),
        calibration_bins (`reliability` of the most probable class and of each, both binnings),
        calibration_coverage_risk (the curve, `N_CURVE_POINTS` points at most), calibration_unsure (coverage and risk
        at the thresholds for `TARGET_RISKS`), calibration_thresholds (`alarm_rates`) and calibration_costs (at the
        thresholds chosen for `COST_RATIOS`). Unsure and costs take probabilities as they are, before the temperature:
        so their thresholds fit the service.
    """
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    rows, fitted = given["validation"]
    temperatures = {name: ensemble.fit_temperature(values, _ids(rows)) for name, values in fitted.items()}
    tables = {name: [] for name in ("measures", "bins", "coverage_risk", "unsure", "thresholds", "costs")}
    areas: dict[str, dict] = {}
    for split, model, part, values in _walk(given, fitted):
        tag, ids, groups = {"split": split, "model": model}, _ids(part), part["group_id"].to_numpy()
        for state, version in _states(values, temperatures[model]).items():
            here = tag | {"state": state, "temperature": temperatures[model] if state == "after" else 1.0}
            size = {"n_clips": len(part), "n_groups": part["group_id"].nunique()}
            tables["measures"].append(measures(version, ids, groups, **options).assign(**here, **size))
            tables["bins"].append(_all_bins(version, ids).assign(**here))
        areas.setdefault(split, {})[model] = aurc(values, ids, groups, **options)
        tables["coverage_risk"].append(_thinned(coverage_risk(values, ids)).assign(**tag))
        tables["unsure"].append(_unsure(values, part, chosen_on=(fitted[model], _ids(rows)), **options).assign(**tag))
        rates = pd.concat([alarm_rates(values, ids, alarm=alarm).assign(alarm=alarm) for alarm in PREVALENCE])
        tables["thresholds"].append(rates.assign(**tag))
        tables["costs"].append(_costs(values, part, chosen_on=(fitted[model], _ids(rows)), **options).assign(**tag))
    joined = {f"calibration_{name}": _front(pd.concat(parts, ignore_index=True)) for name, parts in tables.items()}
    return Findings(_figures(joined, temperatures, areas), joined)


def _walk(given: Given, fitted: Mapping[str, np.ndarray]) -> list[tuple[str, str, pd.DataFrame, np.ndarray]]:
    return [
        (split, model, rows, np.asarray(answers[model], dtype=float))
        for split, (rows, answers) in given.items()
        for model in fitted
        if model in answers
    ]


def _states(values: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    return {"before": values, "after": ensemble.temper(values, temperature)}


def _ids(rows: pd.DataFrame) -> np.ndarray:
    return rows["label"].map(config.CLASS_ID).to_numpy()


def _all_bins(values: np.ndarray, ids: np.ndarray) -> pd.DataFrame:
    parts = [
        reliability(*events_of(values, ids, what), binning=binning).assign(what=what, binning=binning)
        for what in (TOP, *config.CLASS_NAMES)
        for binning in BINNINGS
    ]
    return pd.concat(parts)


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    return curve.iloc[np.unique(np.linspace(0, len(curve) - 1, N_CURVE_POINTS).round().astype(int))]


def _unsure(
    values: np.ndarray, rows: pd.DataFrame, *, chosen_on: tuple[np.ndarray, np.ndarray], n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Return coverage and risk of `rows` at the thresholds that keep each target risk where they are chosen."""
    confidence, correct = events_of(values, _ids(rows), TOP)
    groups, table = rows["group_id"].to_numpy(), []
    for risk in TARGET_RISKS:
        threshold = unsure_threshold(*chosen_on, risk=risk)
        kept = confidence >= threshold
        coverage = rate(kept, groups, n_bootstrap=n_bootstrap, seed=seed)
        if threshold == 0:  # everything is answered, whatever the clips
            coverage |= {"low": 1.0, "high": 1.0}
        errors = rate(~correct[kept], groups[kept], n_bootstrap=n_bootstrap, seed=seed)
        row = {"target_risk": risk, "threshold": threshold, "n_answered": int(kept.sum())}
        row |= _named("coverage", coverage) | _named("risk", errors)
        unanswered = float((~correct[~kept]).mean()) if (~kept).any() else None
        table.append(row | {"risk_of_unsure": unanswered, "n_clips": len(rows), "n_groups": coverage["n_groups"]})
    return pd.DataFrame(table)


def _costs(
    values: np.ndarray, rows: pd.DataFrame, *, chosen_on: tuple[np.ndarray, np.ndarray], n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Return false alarms and misses of `rows` at the thresholds of least cost on the clips they are chosen on."""
    table, groups, options = [], rows["group_id"].to_numpy(), {"n_bootstrap": n_bootstrap, "seed": seed}
    for alarm in PREVALENCE:
        rates = alarm_rates(*chosen_on, alarm=alarm)
        scores, (wanted, normal) = alarm_scores(values, alarm), _sides(_ids(rows), alarm)
        for ratio in COST_RATIOS:
            threshold = choose_threshold(rates, ratio=ratio)
            false = rate(scores[normal] >= threshold, groups[normal], **options)
            missed = rate(scores[wanted] < threshold, groups[wanted], **options)
            row = {"alarm": alarm, "miss_costs": ratio, "threshold": threshold}
            row |= _named("false_alarm_rate", false) | _named("miss_rate", missed)
            row |= _named("false_alarms_an_hour", false, times=_an_hour(alarm)[0])
            row |= {"n_normal": false["n_clips"], "n_wanted": missed["n_clips"]}
            row |= {"n_groups_normal": false["n_groups"], "n_groups_wanted": missed["n_groups"]}
            table.append(row)
    return pd.DataFrame(table)


def _named(name: str, figure: Mapping[str, object], *, times: float = 1.0) -> dict[str, float | None]:
    ends = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    return {key: None if figure[end] is None else figure[end] * times for key, end in ends.items()}


def _front(table: pd.DataFrame) -> pd.DataFrame:
    first = [name for name in ("split", "model", "state", "temperature", "what", "binning", "alarm") if name in table]
    return table[[*first, *(name for name in table if name not in first)]]


def _figures(tables: Mapping[str, pd.DataFrame], temperatures: Mapping[str, float], areas: dict) -> dict[str, object]:
    """Return what the report quotes: temperatures, the measures, AURC and the assumptions behind an hour."""
    found: dict[str, dict] = {}
    for (split, model, state), part in tables["calibration_measures"].groupby(["split", "model", "state"], sort=False):
        plain = part.set_index("measure")[["value", "low", "high"]].astype(float)
        figures = {name: {k: None if pd.isna(v) else v for k, v in row.items()} for name, row in plain.T.items()}
        size = {name: int(part[name].iloc[0]) for name in ("n_clips", "n_groups")}
        found.setdefault(split, {}).setdefault(model, size)[state] = figures
    return {
        "temperatures": dict(temperatures),
        "temperatures_searched": list(ensemble.TEMPERATURES),
        "measures": found,
        "aurc": areas,
        "ece": f"{N_BINS} bins of equal width (ece_width) or equal mass (ece_mass), weighted by clips",
        "chunks_an_hour": CHUNKS_AN_HOUR,
        "prevalence_assumed": dict(PREVALENCE),
    }
