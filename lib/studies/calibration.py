"""Whether probabilities mean what they say: reliability, expected calibration error, Brier score and log loss.

Everything is chosen on validation clips and shown on others. An interval is a 95 % one from a bootstrap over groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lib import config, ensemble, evaluation, manifest
from lib.studies import decisions
from lib.studies.findings import Findings

N_BINS = 15  # Guo et al. 2017, "On calibration of modern neural networks"
BINNINGS = ("width", "mass")  # equally wide, or with equally many clips
TOP = "top"  # reliability of the most probable class, whichever it is
N_CURVE_POINTS = 200  # of a coverage-risk curve in its table

Given = Mapping[str, tuple[pd.DataFrame, Mapping[str, np.ndarray]]]  # split: rows, and probabilities by model


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
    if what == TOP:
        return decisions.answers(probabilities, class_ids)
    class_id = config.CLASS_ID[what]
    return np.asarray(probabilities, dtype=float)[:, class_id], np.asarray(class_ids) == class_id


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
    draws = evaluation.group_draws(len(names), n_bootstrap, seed)
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
        row = evaluation.interval(value, shifted, n_groups=len(names))
        perfect = None if name == "ece_classwise" else _perfect(*gaps[name][1:], n_draws=n_bootstrap, seed=seed)
        rows.append({"measure": name} | row | {"perfect": perfect})
    size = np.bincount(place)
    for name, loss in losses.items():
        spread = (draws @ np.bincount(place, loss)) / (draws @ size)
        row = evaluation.interval(float(loss.mean()), spread, n_groups=len(names))
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
        calibration_coverage_risk (the curve, `N_CURVE_POINTS` points at most), calibration_unsure (`decisions.unsure`:
        coverage and risk at the thresholds for `decisions.TARGET_RISKS`), calibration_thresholds
        (`decisions.alarm_rates`) and calibration_costs (`decisions.costs`: at the thresholds chosen for
        `decisions.COST_RATIOS`). Unsure and costs take probabilities as they are, before the temperature: so their
        thresholds fit the service.
    """
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    rows, fitted = given["validation"]
    temperatures = {name: ensemble.fit_temperature(values, manifest.class_ids(rows)) for name, values in fitted.items()}
    tables = {name: [] for name in ("measures", "bins", "coverage_risk", "unsure", "thresholds", "costs")}
    areas: dict[str, dict] = {}
    for split, model, part, values in _walk(given, fitted):
        tag, ids, groups = {"split": split, "model": model}, manifest.class_ids(part), part["group_id"].to_numpy()
        for state, version in _states(values, temperatures[model]).items():
            here = tag | {"state": state, "temperature": temperatures[model] if state == "after" else 1.0}
            size = {"n_clips": len(part), "n_groups": part["group_id"].nunique()}
            tables["measures"].append(measures(version, ids, groups, **options).assign(**here, **size))
            tables["bins"].append(_all_bins(version, ids).assign(**here))
        areas.setdefault(split, {})[model] = decisions.aurc(values, ids, groups, **options)
        tables["coverage_risk"].append(_thinned(decisions.coverage_risk(values, ids)).assign(**tag))
        unsure = decisions.unsure(values, ids, groups, chosen_on=(fitted[model], manifest.class_ids(rows)), **options)
        tables["unsure"].append(unsure.assign(**tag))
        rates = [decisions.alarm_rates(values, ids, alarm=alarm).assign(alarm=alarm) for alarm in decisions.PREVALENCE]
        tables["thresholds"].append(pd.concat(rates).assign(**tag))
        costs = decisions.costs(values, ids, groups, chosen_on=(fitted[model], manifest.class_ids(rows)), **options)
        tables["costs"].append(costs.assign(**tag))
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
    return {"before": values, "after": ensemble.apply_temperature(values, temperature)}


def _all_bins(values: np.ndarray, ids: np.ndarray) -> pd.DataFrame:
    parts = [
        reliability(*events_of(values, ids, what), binning=binning).assign(what=what, binning=binning)
        for what in (TOP, *config.CLASS_NAMES)
        for binning in BINNINGS
    ]
    return pd.concat(parts)


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    return curve.iloc[np.unique(np.linspace(0, len(curve) - 1, N_CURVE_POINTS).round().astype(int))]


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
        "chunks_an_hour": decisions.CHUNKS_AN_HOUR,
        "prevalence_assumed": dict(decisions.PREVALENCE),
    }
