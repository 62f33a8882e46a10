"""Whether probabilities mean what they say: reliability, expected calibration error, Brier score and log loss.

Everything is chosen on validation clips and shown on others. An interval is a 95 % one from a bootstrap over groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib import config, ensemble, evaluation, manifest, plots
from lib.studies import decisions, drawing
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, interval_of

N_BINS = 15  # Guo et al. 2017, "On calibration of modern neural networks"
BINNINGS = ("width", "mass")  # equally wide, or with equally many clips
TOP = "top"  # reliability of the most probable class, whichever it is
TABLES = ("measures", "bins", "coverage_risk", "abstain", "thresholds", "costs")
N_CURVE_POINTS = 200  # of a coverage-risk curve in its table

Given = Mapping[str, tuple[pd.DataFrame, Mapping[str, np.ndarray]]]  # split: rows, and probabilities by model


def reliability(
    confidence: np.ndarray, correct: np.ndarray, *, binning: str = "width", n_bins: int = N_BINS
) -> pd.DataFrame:
    """Return the points of a reliability diagram.

    Parameters
    ----------
    confidence : ndarray, (n_clips,)
        A probability per clip.
    correct : ndarray of bool, (n_clips,)
        Whether the clip is what the probability is for.
    binning : str
        One of `BINNINGS`: bins of equal width between 0 and 1, or of equal mass (clips of equal confidence stay
        together).
    n_bins : int

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


def confidence_in(probabilities: np.ndarray, class_ids: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and correctness (n_clips,) of the most probable class (`TOP`), or of one against the rest."""
    if what == TOP:
        return decisions.top_class(probabilities, class_ids)
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
    gaps = {
        name: _gaps(confidence_in(probabilities, class_ids, what), binning) for name, (what, binning) in kinds.items()
    }
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


def run(inputs: Inputs) -> Result:
    """Measure calibration before and after temperature scaling, abstaining, and thresholds by cost.

    Returns
    -------
    Result
        As `calibrate`: all is chosen on validation, and shown on the test split and on unseen corpora.
    """
    left_out, predictions = inputs.left_out("clip")
    given = {
        "validation": (inputs.rows("validation"), inputs.validation_predictions),
        "test": (inputs.rows("test"), inputs.test_predictions),
        "left_out": (left_out, predictions),
    }
    return calibrate(given, seed=SEED)


def calibrate(given: Given, *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0) -> Result:
    """Return calibration before and after temperature scaling, abstaining, and the thresholds by cost.

    Parameters
    ----------
    given : mapping of split to (rows, mapping of model to ndarray (n_clips, 3))
        "validation", which everything is chosen on, and the splits it is shown on: "test", "left_out". Rows have label
        and group_id. A model without probabilities for a split is left out there.
    n_bootstrap, seed : int

    Returns
    -------
    Result
        Tables, each with split and model:
        calibration_measures (`measures`, state: before or after the temperature of `ensemble.fit_temperature`),
        calibration_bins (`reliability` of the most probable class and of each, both binnings),
        calibration_coverage_risk (the curve, `N_CURVE_POINTS` points at most), calibration_abstain
        (`decisions.abstain`), calibration_thresholds (`decisions.alarm_rates`) and calibration_costs
        (`decisions.costs`). Abstain and costs take probabilities as they are, before the temperature: so their
        thresholds fit the service.
    """
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    rows, fitted = given["validation"]
    temperatures = {name: ensemble.fit_temperature(values, manifest.class_ids(rows)) for name, values in fitted.items()}
    tables: dict[str, list] = {name: [] for name in TABLES}
    for split, model, part, values in _walk(given, fitted):
        tag, ids, groups = {"split": split, "model": model}, manifest.class_ids(part), part["group_id"].to_numpy()
        for state, scaled in _states(values, temperatures[model]).items():
            here = tag | {"state": state, "temperature": temperatures[model] if state == "after" else 1.0}
            size = {"n_clips": len(part), "n_groups": part["group_id"].nunique()}
            tables["measures"].append(measures(scaled, ids, groups, **options).assign(**here, **size))
            tables["bins"].append(_all_bins(scaled, ids).assign(**here))
        tables["coverage_risk"].append(_thinned(decisions.coverage_risk(values, ids)).assign(**tag))
        rates = [decisions.alarm_rates(values, ids, alarm=alarm).assign(alarm=alarm) for alarm in decisions.PREVALENCE]
        tables["thresholds"].append(pd.concat(rates).assign(**tag))
        chosen_on = (fitted[model], manifest.class_ids(rows))
        for name, choose in (("abstain", decisions.abstain), ("costs", decisions.costs)):
            tables[name].append(choose(values, ids, groups, chosen_on=chosen_on, **options).assign(**tag))
    joined = {f"calibration_{name}": _front(pd.concat(parts, ignore_index=True)) for name, parts in tables.items()}
    return Result(_figures(joined, temperatures), joined)


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw the ensemble's reliability, its errors by coverage, and its misses by false alarms."""
    of = {name: tables[f"calibration_{name}"].query("model == 'ensemble'") for name in TABLES}
    bins = of["bins"].query("what == @TOP and binning == 'width'")
    reliable, axes = plots.subplots(1, 2, height_inches=3.2)
    for ax, (split, title) in zip(axes, drawing.SPLIT_TITLES.items(), strict=True):
        draw_reliability(ax, bins[bins["split"] == split])
        ax.set_title(title)
    shown = {name: table[table["split"].isin(drawing.SPLIT_TITLES)] for name, table in of.items()}
    decided, (left, right) = plots.subplots(1, 2, height_inches=3.2)
    draw_coverage_risk(left, shown["coverage_risk"], by="split", abstain=shown["abstain"].query("target_risk == 0.02"))
    either = [shown[name].query("alarm == 'either'") for name in ("thresholds", "costs")]
    draw_alarm_trade(right, either[0], by="split", chosen=either[1])
    return {"reliability": reliable, "abstain_and_costs": decided}


def draw_reliability(ax: Axes, table: pd.DataFrame, *, by: str = "state") -> None:
    """Draw accuracy over confidence, one line per series, each point as large as its bin has clips.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    table : DataFrame
        Rows of calibration_bins for one split, model, `what` and binning.
    by : str
        Column that tells the series apart: "state" (before, after), or "model".
    """
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="perfect")
    for look, name, part in drawing.series(table, by):
        label = f"{name} (n = {int(part['n'].sum()):,})"
        ax.plot(part["confidence"], part["accuracy"], label=label, color=look["color"], linestyle=look["linestyle"])
        sizes = 8 + 70 * np.sqrt(part["n"] / part["n"].sum())
        ax.scatter(part["confidence"], part["accuracy"], s=sizes, color=look["color"], marker=look["marker"])
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xlabel="Confidence (mean of the bin)", ylabel="Share correct")
    ax.set_aspect("equal")
    ax.legend(loc="lower right")


def draw_coverage_risk(
    ax: Axes, table: pd.DataFrame, *, by: str = "model", abstain: pd.DataFrame | None = None
) -> None:
    """Draw the share of errors over the share of clips kept, one line per series.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    table : DataFrame
        Rows of calibration_coverage_risk for one split (`by` "model") or one model (`by` "split").
    by : str
        Column that tells the series apart.
    abstain : DataFrame, optional
        Rows of calibration_abstain for one target risk: each is marked on the line of its series.
    """
    for look, name, part in drawing.series(table, by):
        ax.plot(
            part["coverage"], part["risk"], label=str(name).replace("_", " "), drawstyle="steps-post",
            color=look["color"], linestyle=look["linestyle"],
        )  # fmt: skip
        if abstain is not None:
            row = abstain[abstain[by] == name]
            ax.plot(row["coverage"], row["risk"], color=look["color"], marker=look["marker"], linestyle="none")
    ax.set(xlim=(0, 1.02), xlabel="Coverage (share of clips kept)", ylabel="Risk (errors among predictions kept)")
    ax.set_ylim(bottom=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper left")


def draw_alarm_trade(ax: Axes, table: pd.DataFrame, *, by: str = "model", chosen: pd.DataFrame | None = None) -> None:
    """Draw misses over false alarms per hour for every threshold, one line per series.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    table : DataFrame
        Rows of calibration_thresholds for one alarm, and one split or one model.
    by : str
        Column that tells the series apart: "model" or "split".
    chosen : DataFrame, optional
        Rows of calibration_costs of the same alarm: each is marked, with what a miss costs beside it.
    """
    for look, name, part in drawing.series(table, by):
        x, y = part["false_alarms_per_hour"], part["miss_rate"]
        ax.plot(x, y, label=str(name).replace("_", " "), color=look["color"], linestyle=look["linestyle"])
        for row in () if chosen is None else chosen[chosen[by] == name].itertuples():
            place = row.false_alarms_per_hour, row.miss_rate
            ax.plot(*place, marker=look["marker"], color=look["color"], linestyle="none", markersize=4.5)
            ax.annotate(f"{row.miss_costs}", place, xytext=(3, 3), textcoords="offset points", fontsize=7)
    ax.set_xscale("symlog", linthresh=5, linscale=0.6)
    ax.set_xticks([0, 5, 10, 50, 100, 500], ["0", "5", "10", "50", "100", "500"])
    ax.minorticks_off()
    ax.set(
        xlim=(0, 720), ylim=(-0.02, 1.02), xlabel="False alarms per hour", ylabel="Misses (share of cries and screams)"
    )
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="upper right")


def _walk(given: Given, fitted: Mapping[str, np.ndarray]) -> list[tuple[str, str, pd.DataFrame, np.ndarray]]:
    return [
        (split, model, rows, np.asarray(predictions[model], dtype=float))
        for split, (rows, predictions) in given.items()
        for model in fitted
        if model in predictions
    ]


def _states(values: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    return {"before": values, "after": ensemble.apply_temperature(values, temperature)}


def _all_bins(values: np.ndarray, ids: np.ndarray) -> pd.DataFrame:
    parts = [
        reliability(*confidence_in(values, ids, what), binning=binning).assign(what=what, binning=binning)
        for what in (TOP, *config.CLASS_NAMES)
        for binning in BINNINGS
    ]
    return pd.concat(parts)


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    return curve.iloc[np.unique(np.linspace(0, len(curve) - 1, N_CURVE_POINTS).round().astype(int))]


def _front(table: pd.DataFrame) -> pd.DataFrame:
    first = [name for name in ("split", "model", "state", "temperature", "what", "binning", "alarm") if name in table]
    return table[[*first, *(name for name in table if name not in first)]]


def _figures(tables: Mapping[str, pd.DataFrame], temperatures: Mapping[str, float]) -> dict[str, object]:
    """Return what the report quotes: temperatures, the measures and the assumptions behind figures per hour."""
    found: dict[str, dict] = {}
    for (split, model, state), part in tables["calibration_measures"].groupby(["split", "model", "state"], sort=False):
        figures = {row["measure"]: interval_of(row) for row in part.to_dict("records")}
        size = {name: int(part[name].iloc[0]) for name in ("n_clips", "n_groups")}
        found.setdefault(split, {}).setdefault(model, size)[state] = figures
    return {
        "temperatures": dict(temperatures),
        "temperatures_searched": list(ensemble.TEMPERATURES),
        "measures": found,
        "n_bins": N_BINS,
        "chunks_per_hour": decisions.CHUNKS_PER_HOUR,
        "prevalence_assumed": dict(decisions.PREVALENCE),
    }
