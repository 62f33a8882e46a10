"""How much a result owes to the seed: the same training repeated, beside the interval over groups.

Two things make a score uncertain. Another draw of test groups would give another figure: the bootstrap over groups
says how far. Another seed would train another network: the standard deviation over seeds says how far (Bouthillier et
al. 2021, Accounting for variance in machine learning benchmarks). Seeds are few, so the 95 % interval of their mean is
Student's (1908, The probable error of a mean), and wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from lib import config, evaluation
from lib.studies.findings import Findings

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
        One row a model and measure: mean, sd (n - 1 in the denominator), seeds_low and seeds_high (95 % of the mean
        over seeds, Student's t), n_seeds; first_value, first_low, first_high (the first seed's figure over groups);
        groups_low, groups_high (the mean over the seeds at hand, over groups); sd_groups (of one seed's figure, over
        groups), share_of_seeds (seed variance / (seed variance + group variance)); n_clips, n_groups.

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
        One row a pair: first, second, mean, sd (of the differences of the seeds that both have), seeds_low, seeds_high
        (95 %, Student's t), groups_low, groups_high (over groups, both models on the same resample), exceeds_seeds and
        exceeds_groups (the interval holds no 0), n_seeds, n_clips, n_groups.

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
        rows.append({"first": first, "second": second} | {name: row[name] for name in kept} | exceeds)
    return pd.DataFrame(rows)


def read_out(table: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    """Put both tables into sentences; every number comes from them."""
    sentences = [
        f"{row.model}: macro F1 {row.mean:.3f} over {row.n_seeds} seeds, standard deviation {row.sd:.3f}; the first "
        f"seed has {row.first_value:.3f}{_bracket(row.first_low, row.first_high)} over {row.n_groups:,} groups "
        f"({row.n_clips:,} clips); "
        + (
            f"the seed makes {row.share_of_seeds:.0%} of the variance."
            if row.sd > 0
            else "no seed differs from another (where the stage kept draws nothing at random, none can)."
        )
        for row in table[table["measure"] == MEASURES[0]].itertuples()
    ]
    for row in pairs.itertuples():
        verdict = "exceeds" if row.exceeds_seeds else "does not exceed"
        beside = "leave out 0" if row.exceeds_groups else "do not leave out 0"
        sentences.append(
            f"{row.first} less {row.second}: {row.mean:+.3f}, which {verdict} the spread of {row.n_seeds} seeds "
            f"[{row.seeds_low:+.3f}, {row.seeds_high:+.3f}]; the test groups {beside}"
            f"{_bracket(row.groups_low, row.groups_high, sign='+')}."
        )
    return sentences


def findings(models: Mapping[str, BySeed], truth: Truth) -> Findings:
    """Return the section: both tables and what they say."""
    table, pairs = over_seeds(models, truth), differences(models, truth)
    figures = {
        "seeds": {model: [int(seed) for seed in by_seed] for model, by_seed in models.items()},
        "n_clips": len(truth.class_ids),
        "n_groups": truth.n_groups,
        "models": {
            row["model"]: {name: _plain(value) for name, value in row.items() if name not in ("model", "measure")}
            for row in table[table["measure"] == MEASURES[0]].to_dict("records")
        },
        "differences": [{name: _plain(value) for name, value in row.items()} for row in pairs.to_dict("records")],
        "read_out": read_out(table, pairs),
    }
    return Findings(figures, {"spread": table, "spread_differences": pairs})


def _figures(by_seed: BySeed, truth: Truth, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Return `MEASURES` of each seed (n_seeds, 4) and of each resample of groups (n_bootstrap, n_seeds, 4)."""
    if len(by_seed) < MIN_SEEDS:
        raise ValueError(f"{model} has {len(by_seed)} seed(s): a spread needs {MIN_SEEDS}.")
    draws = evaluation.group_draws(truth.n_groups, truth.n_bootstrap, truth.seed)
    values, resampled = [], []
    for probabilities in by_seed.values():
        by_group = evaluation.confusion_by_group(probabilities, truth.class_ids, truth.groups)
        values.append(_measures(by_group.sum(axis=0)[None])[0])
        resampled.append(_measures(np.tensordot(draws, by_group, axes=1)))
    return np.stack(values), np.stack(resampled, axis=1)


def _measures(counts: np.ndarray) -> np.ndarray:
    figures = evaluation.figures(counts)
    return np.column_stack([figures["macro_f1"], figures["f1"]])


def _row(values: np.ndarray, resampled: np.ndarray, truth: Truth) -> dict:
    """Describe one figure by seed (n_seeds,) and by resample and seed (n_bootstrap, n_seeds)."""
    n_seeds, n_groups = len(values), truth.n_groups
    sd, sd_groups = float(values.std(ddof=1)), float(np.sqrt(np.nanvar(resampled, axis=0).mean()))
    reach = stats.t.ppf(0.5 + evaluation.INTERVAL_PERCENT / 200, n_seeds - 1) * sd / np.sqrt(n_seeds)
    first = evaluation.interval(values[0], resampled[:, 0], n_groups=n_groups)
    mean = evaluation.interval(values.mean(), resampled.mean(axis=1), n_groups=n_groups)
    total = sd**2 + sd_groups**2
    return {
        "mean": float(values.mean()), "sd": sd, "seeds_low": values.mean() - reach, "seeds_high": values.mean() + reach,
        "n_seeds": n_seeds, "first_value": first["value"], "first_low": first["low"], "first_high": first["high"],
        "groups_low": mean["low"], "groups_high": mean["high"], "sd_groups": sd_groups,
        "share_of_seeds": sd**2 / total if total > 0 else np.nan,
        "n_clips": len(truth.class_ids), "n_groups": n_groups,
    }  # fmt: skip


def _leaves_out_zero(row: Mapping, name: str) -> bool:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return low is not None and bool(low > 0 or high < 0)


def _plain(value: object) -> object:
    """Return a number, text or truth value that JSON can hold; NaN becomes None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _bracket(low: float | None, high: float | None, *, sign: str = "") -> str:
    return "" if pd.isna(low) else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
