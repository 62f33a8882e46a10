"""Whether probabilities mean what they say: reliability, expected calibration error, Brier score, log loss, abstaining.

Everything is chosen on validation clips and shown on others. An interval is a 95 % one from a bootstrap over groups.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib import config, ensemble, evaluation, manifest, plots
from lib.studies import shares
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, columns

N_BINS = 15  # equally wide; Guo et al. 2017, "On calibration of modern neural networks"
TARGET_RISKS = (0.01, 0.02, 0.05)  # share of errors among the predictions kept
N_CURVE_POINTS = 200  # of a coverage-risk curve in its table
N_PERFECT = 500  # draws of labels from the probabilities
MARKED_RISK = 0.02  # whose threshold the figure marks
SPLIT_TITLES = {"test": "Test split", "left_out": "Unseen corpora"}
MARKERS, STYLES, COLOURS = "os", ("-", "--"), ("#000000", plots.SERIES_COLOURS[0])  # told apart in grey too


def top_class(probabilities: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and correctness (n_clips,) of the most probable class."""
    probabilities = np.asarray(probabilities, dtype=float)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(class_ids)


def reliability(confidence: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Return the points of a reliability diagram of probabilities (n_clips,) that are right or not (n_clips,).

    Returns
    -------
    DataFrame
        A row per bin (low, high] that holds clips: low, high, n, confidence (mean) and accuracy (share correct).
    """
    clips = pd.DataFrame({"bin": _bins(confidence), "confidence": confidence, "accuracy": np.asarray(correct, float)})
    found = clips.groupby("bin").agg(
        n=("accuracy", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    found.insert(0, "low", found.index / N_BINS)
    found.insert(1, "high", (found.index + 1) / N_BINS)
    return found.reset_index(drop=True)


def _bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each value; 0 belongs to the first."""
    return np.clip(np.searchsorted(np.linspace(0, 1, N_BINS + 1), confidence, side="left") - 1, 0, N_BINS - 1)


def measures(probabilities: np.ndarray, class_ids: np.ndarray, groups: Sequence[str] | np.ndarray) -> pd.DataFrame:
    """Return how well the probabilities (n_clips, 3) are calibrated, each measure with its interval.

    Returns
    -------
    DataFrame
        Columns measure, value, low, high and perfect: what 95 of 100 perfectly calibrated classifiers with these very
        probabilities stay below (labels drawn from them, clips independent), for few clips leave gaps by chance.
        Measures: ece of the most probable class (Naeini et al. 2015, "Obtaining well calibrated probabilities using
        Bayesian binning"); brier, the squared error summed over the three classes (Brier 1950; 0 to 2); log_loss in
        nats. Resampling adds noise, which can only widen gaps; so the interval of the ECE is shifted by the resamples'
        mean excess, and cut at 0.
    """
    probabilities, class_ids = np.asarray(probabilities, dtype=float), np.asarray(class_ids)
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    truth, (confidence, correct) = np.eye(len(config.CLASS_NAMES))[class_ids], top_class(probabilities, class_ids)
    by_group = np.zeros((len(names), N_BINS + 1))
    np.add.at(by_group, (place, _bins(confidence)), correct - confidence)
    by_group[:, -1] = np.bincount(place)
    whole, resampled = evaluation.resample_groups(by_group, seed=SEED)
    value, spread = float(_error(whole)), _error(resampled)
    shifted = np.maximum(spread - spread.mean() + value, 0)
    ece = evaluation.interval(value, shifted, n_groups=len(names))
    rows = [{"measure": "ece", **ece, "perfect": _perfect(confidence)}]
    losses = {
        "brier": ((probabilities - truth) ** 2).sum(axis=1),
        "log_loss": -np.log(np.clip((probabilities * truth).sum(axis=1), ensemble.SMALLEST_PROBABILITY, 1)),
    }
    for name, loss in losses.items():
        sums = np.stack([np.bincount(place, loss), np.bincount(place)], axis=1)
        figure = evaluation.bootstrap(sums, lambda n: n[:, 0] / n[:, 1], seed=SEED)
        rows.append({"measure": name, **figure})
    return pd.DataFrame(rows)


def _error(sums: np.ndarray) -> np.ndarray:
    """Return the calibration error of summed gaps by bin and, last, the number of clips: (..., N_BINS + 1)."""
    return np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]


def _perfect(confidence: np.ndarray) -> float:
    rng, bins = np.random.default_rng(SEED), _bins(confidence)
    gaps = ((rng.random(len(confidence)) < confidence) - confidence for _ in range(N_PERFECT))
    return float(np.percentile([np.abs(np.bincount(bins, gap)).sum() / len(gap) for gap in gaps], 95))


def coverage_risk(probabilities: np.ndarray, class_ids: np.ndarray) -> pd.DataFrame:
    """Return the share of errors among the most confident of predictions (n_clips, 3), from few of them to all.

    Returns
    -------
    DataFrame
        threshold (clips whose largest probability is this or more are kept), coverage (their share), risk (share
        of errors among them). Clips of equal confidence are kept together.
    """
    confidence, correct = top_class(probabilities, class_ids)
    clips = pd.DataFrame({"threshold": confidence, "n": 1, "n_wrong": ~correct})
    kept = clips.groupby("threshold", as_index=False).sum().sort_values("threshold", ascending=False, ignore_index=True)
    so_far = kept[["n", "n_wrong"]].cumsum()
    return kept[["threshold"]].assign(coverage=so_far["n"] / len(clips), risk=so_far["n_wrong"] / so_far["n"])


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
        coverage = shares.rate(kept, groups)
        if threshold == 0:  # everything is kept, whatever the clips
            coverage |= {"low": 1.0, "high": 1.0}
        errors = shares.rate(~correct[kept], names[kept])
        row: dict[str, Any] = {"target_risk": risk, "threshold": threshold, "n_kept": int(kept.sum())}
        row |= columns("coverage", coverage) | columns("risk", errors)
        of_abstained = float((~correct[~kept]).mean()) if (~kept).any() else None
        row |= {"risk_of_abstained": of_abstained, "n_clips": len(groups), "n_groups": coverage["n_groups"]}
        table.append(row)
    return pd.DataFrame(table)


def run(inputs: Inputs) -> Result:
    """Return calibration before and after temperature scaling, and what abstaining does, both chosen on validation.

    Returns
    -------
    Result
        Tables, each with split and model: calibration_measures (`measures`, state: before or after the temperature of
        `ensemble.fit_temperature`), calibration_bins (`reliability`), calibration_coverage_risk (the curve,
        `N_CURVE_POINTS` points at most) and calibration_abstain (`abstain`). The last two take probabilities as they
        are, before the temperature: so their thresholds fit the service.
    """
    fitted, chosen_ids = inputs.validation_predictions, manifest.class_ids(inputs.rows("validation"))
    given = {
        "validation": (inputs.rows("validation"), fitted),
        "test": (inputs.rows("test"), inputs.test_predictions),
        "left_out": inputs.left_out("clip"),
    }
    temperatures = {name: ensemble.fit_temperature(values, chosen_ids) for name, values in fitted.items()}
    tables = defaultdict[str, list[pd.DataFrame]](list)
    for (split, (part, predictions)), model in itertools.product(given.items(), fitted):
        tag, values = {"split": split, "model": model}, np.asarray(predictions[model], dtype=float)
        ids, groups = manifest.class_ids(part), part["group_id"].to_numpy()
        size = {"n_clips": len(part), "n_groups": part["group_id"].nunique()}
        scaled = ensemble.apply_temperature(values, temperatures[model])
        for state, temperature, shown in (("before", 1.0, values), ("after", temperatures[model], scaled)):
            here = {"state": state, "temperature": temperature}
            tables["measures"].append(measures(shown, ids, groups).assign(**tag, **here, **size))
            tables["bins"].append(reliability(*top_class(shown, ids)).assign(**tag, **here))
        curve = coverage_risk(values, ids)
        kept = np.unique(np.linspace(0, len(curve) - 1, N_CURVE_POINTS).round().astype(int))
        tables["coverage_risk"].append(curve.iloc[kept].assign(**tag))
        chosen_on = (fitted[model], chosen_ids)
        tables["abstain"].append(abstain(values, ids, groups, chosen_on=chosen_on).assign(**tag))
    joined = {f"calibration_{name}": pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    return Result({"temperatures": temperatures, "n_bins": N_BINS}, joined)


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw the ensemble's reliability, and its errors by coverage."""
    reliable, axes = plots.subplots(1, 2, height_inches=3.2)
    abstaining, ax = plots.subplots(height_inches=3.0)
    for number, (split, title) in enumerate(SPLIT_TITLES.items()):
        every = (tables[f"calibration_{name}"] for name in ("bins", "coverage_risk", "abstain"))
        bins, curve, marked = (table[(table["model"] == "ensemble") & (table["split"] == split)] for table in every)
        _draw_reliability(axes[number], bins)
        axes[number].set_title(title)
        look = {"color": COLOURS[number], "linestyle": STYLES[number]}
        marked = marked[marked["target_risk"] == MARKED_RISK]
        ax.plot(curve["coverage"], curve["risk"], label=title, drawstyle="steps-post", **look)
        ax.plot(marked["coverage"], marked["risk"], color=COLOURS[number], marker=MARKERS[number], linestyle="none")
    ax.set(xlim=(0, 1.02), xlabel="Coverage (share of clips kept)", ylabel="Risk (errors among predictions kept)")
    ax.set_ylim(bottom=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left")
    return {"reliability": reliable, "abstain": abstaining}


def _draw_reliability(ax: Axes, table: pd.DataFrame) -> None:
    """Draw accuracy over confidence before and after, each point as large as its bin has clips."""
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="perfect")
    for number, (name, part) in enumerate(table.groupby("state", sort=False)):
        look = {"color": COLOURS[number], "linestyle": STYLES[number]}
        ax.plot(part["confidence"], part["accuracy"], label=f"{name} (n = {int(part['n'].sum()):,})", **look)
        sizes = 8 + 70 * np.sqrt(part["n"] / part["n"].sum())
        ax.scatter(part["confidence"], part["accuracy"], s=sizes, color=COLOURS[number], marker=MARKERS[number])
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xlabel="Confidence (mean of the bin)", ylabel="Share correct")
    ax.set_aspect("equal")
    ax.legend(loc="lower right")
