"""Whether probabilities mean what they say: reliability, expected calibration error, Brier score, log loss, abstaining.

Everything is chosen on validation clips and shown on others. An interval is a 95 % one from a bootstrap over groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib import config, ensemble, evaluation, manifest, plots
from lib.studies import drawing, shares
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, columns, interval_of

N_BINS = 15  # Guo et al. 2017, "On calibration of modern neural networks"
BINNINGS = ("width", "mass")  # equally wide, or with equally many clips
TABLES = ("measures", "bins", "coverage_risk", "abstain")
TARGET_RISKS = (0.01, 0.02, 0.05)  # share of errors among the predictions kept
N_CURVE_POINTS = 200  # of a coverage-risk curve in its table

Given = Mapping[str, tuple[pd.DataFrame, Mapping[str, np.ndarray]]]  # split: rows, and probabilities by model


def reliability(
    confidence: np.ndarray, correct: np.ndarray, *, binning: str = "width", n_bins: int = N_BINS
) -> pd.DataFrame:
    """Return the points of a reliability diagram of probabilities (n_clips,) that are right or not (n_clips,).

    `binning` is one of `BINNINGS`; in bins of equal mass clips of equal confidence stay together.

    Returns
    -------
    DataFrame
        A row per bin that holds clips: low, high (its edges), n, confidence (mean) and accuracy (share correct).
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    edges = _edges(confidence, binning, n_bins)
    place = _bins(confidence, edges)
    n = np.bincount(place, minlength=len(edges) - 1)
    sums = [np.bincount(place, values, len(n)) for values in (confidence, correct)]
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n": n})
    table["confidence"], table["accuracy"] = (np.divide(part, n, out=np.zeros(len(n)), where=n > 0) for part in sums)
    return table[table["n"] > 0].reset_index(drop=True)


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


def top_class(probabilities: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and correctness (n_clips,) of the most probable class."""
    probabilities = np.asarray(probabilities, dtype=float)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(class_ids)


def measures(
    probabilities: np.ndarray,
    class_ids: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how well the probabilities (n_clips, 3) are calibrated, each measure with its interval.

    Returns
    -------
    DataFrame
        Columns measure, value, low, high and perfect: what 95 of 100 perfectly calibrated classifiers with these very
        probabilities stay below (labels drawn from them, clips independent), for few clips leave gaps by chance.
        Measures: ece_width and ece_mass of the most probable class; brier, the squared error summed over the three
        classes (Brier 1950; 0 to 2); log_loss in nats. ECE: Naeini et al. 2015, "Obtaining well calibrated
        probabilities using Bayesian binning". Resampling adds noise, which can only widen gaps; so the
        interval of an ECE is shifted by the resamples' mean excess, and cut at 0.
    """
    probabilities, class_ids = np.asarray(probabilities, dtype=float), np.asarray(class_ids)
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    draws, size = evaluation.group_draws(len(names), n_bootstrap, seed), np.bincount(place)
    truth = np.eye(len(config.CLASS_NAMES))[class_ids]
    rows = []
    for binning in BINNINGS:
        confidence, correct = top_class(probabilities, class_ids)
        edges = _edges(confidence, binning, N_BINS)
        bins = _bins(confidence, edges)
        gaps = np.zeros((len(bins), len(edges) - 1))
        gaps[np.arange(len(bins)), bins] = correct - confidence
        value = float(np.abs(gaps.sum(axis=0)).sum() / len(class_ids))
        by_group = np.zeros((len(names), gaps.shape[1]))
        np.add.at(by_group, place, gaps)
        spread = np.abs(draws @ by_group).sum(axis=1) / (draws @ size)
        shifted = np.maximum(spread - spread.mean() + value, 0)
        perfect = _perfect(confidence, bins, n_draws=n_bootstrap, seed=seed)
        found = evaluation.interval(value, shifted, n_groups=len(names))
        rows.append({"measure": f"ece_{binning}", **found, "perfect": perfect})
    losses = {
        "brier": ((probabilities - truth) ** 2).sum(axis=1),
        "log_loss": -np.log(np.clip((probabilities * truth).sum(axis=1), ensemble.SMALLEST_PROBABILITY, 1)),
    }
    for name, loss in losses.items():
        spread = (draws @ np.bincount(place, loss)) / (draws @ size)
        rows.append({"measure": name, **evaluation.interval(float(loss.mean()), spread, n_groups=len(names))})
    return pd.DataFrame(rows)


def _perfect(confidence: np.ndarray, bins: np.ndarray, *, n_draws: int, seed: int) -> float:
    rng, n = np.random.default_rng(seed), len(confidence)
    found = []
    for _ in range(min(n_draws, 500)):
        gap = (rng.random(n) < confidence) - confidence
        found.append(np.abs(np.bincount(bins, gap)).sum() / n)
    return float(np.percentile(found, 95))


def coverage_risk(probabilities: np.ndarray, class_ids: np.ndarray) -> pd.DataFrame:
    """Return the share of errors among the most confident of predictions (n_clips, 3), from few of them to all.

    Returns
    -------
    DataFrame
        threshold (clips whose largest probability is this or more are kept), coverage (their share), risk (share
        of errors among them). Clips of equal confidence are kept together.
    """
    confidence, correct = top_class(probabilities, class_ids)
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))  # of ties
    so_far = np.arange(1, len(order) + 1)
    risk = np.cumsum(~correct[order]) / so_far
    found = {"threshold": confidence[order], "coverage": so_far / len(order), "risk": risk}
    return pd.DataFrame(found).iloc[ends].reset_index(drop=True)


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
    """Return coverage and risk of clips (n_clips, 3) at the thresholds that keep each target risk on others.

    Thresholds are chosen on the probabilities and class ids `chosen_on`.

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
        coverage = shares.rate(kept, groups, n_bootstrap=n_bootstrap, seed=seed)
        if threshold == 0:  # everything is kept, whatever the clips
            coverage |= {"low": 1.0, "high": 1.0}
        errors = shares.rate(~correct[kept], names[kept], n_bootstrap=n_bootstrap, seed=seed)
        row: dict[str, Any] = {"target_risk": risk, "threshold": threshold, "n_kept": int(kept.sum())}
        row |= columns("coverage", coverage) | columns("risk", errors)
        of_abstained = float((~correct[~kept]).mean()) if (~kept).any() else None
        row |= {"risk_of_abstained": of_abstained, "n_clips": len(groups), "n_groups": coverage["n_groups"]}
        table.append(row)
    return pd.DataFrame(table)


def run(inputs: Inputs) -> Result:
    """Measure calibration before and after temperature scaling, and abstaining, as `calibrate`."""
    given = {
        "validation": (inputs.rows("validation"), inputs.validation_predictions),
        "test": (inputs.rows("test"), inputs.test_predictions),
        "left_out": inputs.left_out("clip"),
    }
    return calibrate(given, seed=SEED)


def calibrate(given: Given, *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0) -> Result:
    """Return calibration before and after temperature scaling, and what abstaining does.

    Given, by split, are rows (label, group_id) and by model probabilities (n_clips, 3): of "validation", which
    everything is chosen on, and of the splits it is shown on, "test" and "left_out". A model without probabilities for
    a split is left out there.

    Returns
    -------
    Result
        Tables, each with split and model: calibration_measures (`measures`, state: before or after the temperature of
        `ensemble.fit_temperature`), calibration_bins (`reliability`, both binnings), calibration_coverage_risk (the
        curve, `N_CURVE_POINTS` points at most) and calibration_abstain (`abstain`). The last two take probabilities as
        they are, before the temperature: so their thresholds fit the service.
    """
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    rows, fitted = given["validation"]
    chosen_ids = manifest.class_ids(rows)
    temperatures = {name: ensemble.fit_temperature(values, chosen_ids) for name, values in fitted.items()}
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    shown_on = [(split, model) for split, (_, predictions) in given.items() for model in fitted if model in predictions]
    for split, model in shown_on:
        part, values = given[split][0], np.asarray(given[split][1][model], dtype=float)
        tag, ids, groups = {"split": split, "model": model}, manifest.class_ids(part), part["group_id"].to_numpy()
        size = {"n_clips": len(part), "n_groups": part["group_id"].nunique()}
        scaled = ensemble.apply_temperature(values, temperatures[model])
        for state, shown in {"before": values, "after": scaled}.items():
            here = tag | {"state": state, "temperature": temperatures[model] if state == "after" else 1.0}
            tables["measures"].append(measures(shown, ids, groups, **options).assign(**here, **size))
            for binning in BINNINGS:
                bins = reliability(*top_class(shown, ids), binning=binning)
                tables["bins"].append(bins.assign(**here, binning=binning))
        curve = coverage_risk(values, ids)
        kept = np.unique(np.linspace(0, len(curve) - 1, N_CURVE_POINTS).round().astype(int))
        tables["coverage_risk"].append(curve.iloc[kept].assign(**tag))
        chosen_on = (fitted[model], chosen_ids)
        tables["abstain"].append(abstain(values, ids, groups, chosen_on=chosen_on, **options).assign(**tag))
    joined = {f"calibration_{name}": pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    return Result(_figures(joined["calibration_measures"], temperatures), joined)


def _figures(table: pd.DataFrame, temperatures: Mapping[str, float]) -> dict[str, object]:
    """Return what the report quotes: temperatures and the measures."""
    found: dict[str, dict] = {}
    for (split, model, state), part in table.groupby(["split", "model", "state"], sort=False):
        size = {name: int(part[name].iloc[0]) for name in ("n_clips", "n_groups")}
        figures = {row["measure"]: interval_of(row) for row in part.to_dict("records")}
        found.setdefault(split, {}).setdefault(model, size)[state] = figures
    return {"temperatures": dict(temperatures), "measures": found, "n_bins": N_BINS}


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw the ensemble's reliability, and its errors by coverage."""
    of = {name: tables[f"calibration_{name}"].query("model == 'ensemble'") for name in TABLES}
    bins = of["bins"].query("binning == 'width'")
    reliable, axes = plots.subplots(1, 2, height_inches=3.2)
    for ax, (split, title) in zip(axes, drawing.SPLIT_TITLES.items(), strict=True):
        _draw_reliability(ax, bins[bins["split"] == split])
        ax.set_title(title)
    shown = {name: table[table["split"].isin(list(drawing.SPLIT_TITLES))] for name, table in of.items()}
    abstaining, ax = plots.subplots(height_inches=3.0)
    _draw_coverage_risk(ax, shown["coverage_risk"], shown["abstain"].query("target_risk == 0.02"))
    return {"reliability": reliable, "abstain": abstaining}


def _draw_reliability(ax: Axes, table: pd.DataFrame) -> None:
    """Draw accuracy over confidence before and after, each point as large as its bin has clips."""
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="perfect")
    for look, name, part in drawing.series(table, "state"):
        label = f"{name} (n = {int(part['n'].sum()):,})"
        ax.plot(part["confidence"], part["accuracy"], label=label, color=look["color"], linestyle=look["linestyle"])
        sizes = 8 + 70 * np.sqrt(part["n"] / part["n"].sum())
        ax.scatter(part["confidence"], part["accuracy"], s=sizes, color=look["color"], marker=look["marker"])
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xlabel="Confidence (mean of the bin)", ylabel="Share correct")
    ax.set_aspect("equal")
    ax.legend(loc="lower right")


def _draw_coverage_risk(ax: Axes, table: pd.DataFrame, abstain: pd.DataFrame) -> None:
    """Draw errors over clips kept, one line per split, with a mark where one target risk is kept."""
    for look, name, part in drawing.series(table, "split"):
        line = {"drawstyle": "steps-post", "color": look["color"], "linestyle": look["linestyle"]}
        ax.plot(part["coverage"], part["risk"], label=str(name).replace("_", " "), **line)
        row = abstain[abstain["split"] == name]
        ax.plot(row["coverage"], row["risk"], color=look["color"], marker=look["marker"], linestyle="none")
    ax.set(xlim=(0, 1.02), xlabel="Coverage (share of clips kept)", ylabel="Risk (errors among predictions kept)")
    ax.set_ylim(bottom=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left")
