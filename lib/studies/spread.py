"""How much a result owes to the seed: the same training repeated, beside the interval over groups.

Two things make a score uncertain. Other test groups would give another figure: the bootstrap over groups says how far.
Another seed would train another network: the standard deviation over seeds says how far (Bouthillier et al. 2021,
Accounting for variance in machine learning benchmarks). Seeds are few, so the 95 % interval of their mean is Student's
(1908, The probable error of a mean), and wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from lib import config, ensemble, evaluation, manifest, plots
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, columns

BySeed = Mapping[int, np.ndarray]
MEASURES = ("macro F1", *(f"F1 {label}" for label in config.CLASS_NAMES))
MIN_SEEDS = 2  # one run has no spread


@dataclass(frozen=True)
class Truth:
    """What the test rows are: class_ids (n_clips,) and groups (n_clips,), with the draws that all models share."""

    class_ids: np.ndarray
    groups: np.ndarray
    n_bootstrap: int = evaluation.N_BOOTSTRAP
    seed: int = 0

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(np.unique(self.groups))


def run(inputs: Inputs) -> Result:
    """Compare the trainings of the study seeds, which differ in their seed alone.

    Returns
    -------
    Result
        Tables spread (`over_seeds`) and spread_differences (`differences`).
    """
    table, rows = pd.read_csv(config.STUDIES_DIR / "tables" / "seeds.csv"), inputs.rows("test")
    by_model: dict[str, dict[int, np.ndarray]] = {name: {} for name in ensemble.MODEL_NAMES}
    for (name, seed), part in table[table["model"].isin(by_model)].groupby(["model", "seed"]):
        by_model[name][int(seed)] = part.set_index("clip_id").loc[rows["clip_id"], list(config.CLASS_NAMES)].to_numpy()
    by_model["ensemble"] = {
        seed: inputs.combine({name: by_model[name][seed] for name in ensemble.MODEL_NAMES})["ensemble"]
        for seed in by_model["yamnet"]
    }
    truth = Truth(manifest.class_ids(rows), rows["group_id"].to_numpy(), seed=SEED)
    tables = {"spread": over_seeds(by_model, truth), "spread_differences": differences(by_model, truth)}
    seeds = {model: list(by_seed) for model, by_seed in by_model.items()}
    return Result({"seeds": seeds, "n_clips": len(truth.class_ids), "n_groups": truth.n_groups}, tables)


def over_seeds(models: Mapping[str, BySeed], truth: Truth) -> pd.DataFrame:
    """Return mean and standard deviation over seeds beside the intervals over groups.

    Parameters
    ----------
    models : mapping of str to mapping of int to ndarray
        Model to seed to probabilities (n_clips, 3), all on the same rows. The first seed is the one of the report.
    truth : Truth

    Returns
    -------
    DataFrame
        One row per model and measure: mean, sd (n - 1 in the denominator), seeds_low and seeds_high (95 % of the mean
        over seeds, Student's t), n_seeds; first, first_low, first_high (the first seed's figure over groups); groups,
        groups_low, groups_high (the mean over these seeds, over groups); sd_groups (of one seed's figure, over groups),
        share_of_seeds (seed variance / (seed variance + group variance)); n_clips, n_groups.

    Raises
    ------
    ValueError
        If a model has fewer than `MIN_SEEDS` seeds, or its rows do not fit.
    """
    rows = []
    for model, by_seed in models.items():
        values, resampled = _figures(by_seed, truth, model)
        for k, measure in enumerate(MEASURES):
            rows.append({"model": model, "measure": measure} | _row(values[:, k], resampled[:, :, k], truth))
    return pd.DataFrame(rows)


def differences(models: Mapping[str, BySeed], truth: Truth) -> pd.DataFrame:
    """Return macro F1 of each model less that of every later one, and whether it exceeds the seeds' spread.

    Returns
    -------
    DataFrame
        One row per pair: first_model, second_model, mean, sd (of the differences of the seeds that both have),
        seeds_low, seeds_high (95 %, Student's t), groups_low, groups_high (over groups, both models on the same
        resample), exceeds_seeds and exceeds_groups (the interval holds no 0), n_seeds, n_clips, n_groups.

    Raises
    ------
    ValueError
        If two models share fewer than `MIN_SEEDS` seeds.
    """
    rows = []
    for first, second in combinations(models, 2):
        shared = [seed for seed in models[first] if seed in models[second]]
        sides = [_figures({seed: models[name][seed] for seed in shared}, truth, name) for name in (first, second)]
        values = sides[0][0][:, 0] - sides[1][0][:, 0]
        row = _row(values, sides[0][1][:, :, 0] - sides[1][1][:, :, 0], truth)
        kept = ("mean", "sd", "seeds_low", "seeds_high", "groups_low", "groups_high", "n_seeds", "n_clips", "n_groups")
        exceeds = {f"exceeds_{name}": _leaves_out_zero(row, name) for name in ("seeds", "groups")}
        rows.append({"first_model": first, "second_model": second} | {name: row[name] for name in kept} | exceeds)
    return pd.DataFrame(rows)


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw macro F1 over seeds and over groups."""
    table = tables["spread"]
    figure, ax = plots.subplots(height_inches=0.45 * table["model"].nunique() + 1.2)
    draw_spread(ax, table)
    return {"spread": figure}


def draw_spread(ax: Axes, table: pd.DataFrame) -> None:
    """Draw macro F1 by model: mean and standard deviation over seeds, and the first seed's interval over groups."""
    rows = table[table["measure"] == MEASURES[0]].reset_index(drop=True)
    seeds, groups = {"color": plots.SERIES_COLOURS[1], "marker": "s"}, {"color": "black", "marker": "o"}
    for place, row in rows.iterrows():
        ax.errorbar(row["mean"], place + 0.15, xerr=row["sd"], capsize=3, markersize=4, **seeds)
        ax.plot([row["first_low"], row["first_high"]], [place - 0.15] * 2, color="black", linewidth=1.1)
        ax.plot(row["first"], place - 0.15, markersize=4, **groups)
    names = [
        f"{row.model}\n{row.n_seeds} seeds, n = {row.n_clips:,} / {row.n_groups:,}"
        for row in rows.itertuples()
    ]  # fmt: skip
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel="Macro F1 (n in clips / groups)")
    ax.grid(visible=False, axis="y")
    handles = [
        Line2D([], [], label="first seed, 95 % over groups", **groups),
        Line2D([], [], label="mean and standard deviation over seeds", **seeds),
    ]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def _figures(by_seed: BySeed, truth: Truth, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Return `MEASURES` of each seed (n_seeds, 4) and of each resample of groups (n_bootstrap, n_seeds, 4)."""
    if len(by_seed) < MIN_SEEDS:
        raise ValueError(f"{model} has {len(by_seed)} seed(s): a spread needs {MIN_SEEDS}.")
    values, resampled = [], []
    for probabilities in by_seed.values():
        by_group = evaluation.confusion_by_group(probabilities, truth.class_ids, truth.groups)
        whole, drawn = evaluation.resample_groups(by_group, n_bootstrap=truth.n_bootstrap, seed=truth.seed)
        values.append(_measures(whole[None])[0])
        resampled.append(_measures(drawn))
    return np.stack(values), np.stack(resampled, axis=1)


def _measures(counts: np.ndarray) -> np.ndarray:
    figures = evaluation.figures(counts)
    return np.column_stack([figures["macro_f1"], figures["f1"]])


def _row(values: np.ndarray, resampled: np.ndarray, truth: Truth) -> dict:
    """Describe one figure by seed (n_seeds,) and by resample and seed (n_bootstrap, n_seeds)."""
    n_seeds, n_groups = len(values), truth.n_groups
    sd, sd_groups = float(values.std(ddof=1)), float(np.sqrt(np.nanvar(resampled, axis=0).mean()))
    reach = stats.t.ppf(0.5 + evaluation.INTERVAL_PERCENT / 200, n_seeds - 1) * sd / np.sqrt(n_seeds)
    mean, total = float(values.mean()), sd**2 + sd_groups**2
    row = {"mean": mean, "sd": sd, "seeds_low": mean - reach, "seeds_high": mean + reach, "n_seeds": n_seeds}
    row |= columns("first", evaluation.interval(values[0], resampled[:, 0], n_groups=n_groups))
    row |= columns("groups", evaluation.interval(mean, resampled.mean(axis=1), n_groups=n_groups))
    row |= {"sd_groups": sd_groups, "share_of_seeds": sd**2 / total if total > 0 else np.nan}
    return row | {"n_clips": len(truth.class_ids), "n_groups": n_groups}


def _leaves_out_zero(row: Mapping, name: str) -> bool:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return low is not None and bool(low > 0 or high < 0)
