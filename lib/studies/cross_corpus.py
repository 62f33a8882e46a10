"""Unseen corpora: what networks fitted without a corpus group predict for it, by source, class and length of windows.

Macro F1 of a source is the mean over the classes that it holds. A prediction of a class that it does not hold is a miss
of the true class and nothing else: a source of one class has no clip that could be a false alarm of that class, its
precision is 1, and its F1 = 2 recall / (1 + recall) lies above its recall. So macro F1 compares models on one source,
not sources; recall and false alarms compare sources.

A bootstrap of clips that are all right, or all wrong, has no width, however few they are. There recall and false
alarms carry the exact interval of Clopper and Pearson (1934, The use of confidence or fiducial limits), a group being a
trial. Macro F1 has no such formula: [1.00, 1.00] means that no clip was wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure

from lib import config, evaluation, manifest, plots, splits
from lib.studies import shares
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, interval_of, measure_rows

ALL = "all"  # in column source: the whole corpus group; in column corpus_group too: every clip of the table
COLUMNS = ("model", "corpus_group", "source", "measure", "label", "value", "low", "high", "n_clips", "n_groups")
CHOSEN = "ensemble"


def run(inputs: Inputs) -> Result:
    """Score what notebooks 03 and 04 predict for each corpus group that a network was fitted without.

    Tables cross_corpus (`matrix`, trimmed clips) and left_out_scores (trimmed clips and windows). Figures: see
    `summary`; scores: each model on trimmed clips, as `evaluation.score` gives it; windows: the same of the ensemble by
    seconds.
    """
    rows, predictions = inputs.left_out("clip")
    table, of_clips = matrix(rows, predictions), scores(rows, predictions)
    of_windows = by_seconds(*inputs.left_out("window"))
    figures = summary(table) | {"scores": of_clips}
    figures["windows"] = {seconds: with_size(by[CHOSEN]) for seconds, by in of_windows.items()}
    return Result(figures, {"cross_corpus": table, "left_out_scores": by_length({"clip": of_clips} | of_windows)})


def matrix(rows: pd.DataFrame, predictions: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Score every model on every corpus group left out, on each source within it, and on all of them together.

    Rows have group_id, source, label and scheme (``without_<corpus group>``); predictions (n_rows, 3) are by model.

    Returns
    -------
    DataFrame
        `COLUMNS`, one row per figure. Measure "macro F1" (label "all") is over the classes held. "recall" of a label is
        over its own clips. "false alarms" of a label is the share of the clips of other classes that it is predicted
        for. n counts the clips and groups that the figure rests on; low and high are missing with fewer than
        `evaluation.MIN_GROUPS` groups. A class that a source does not hold has no recall row.

    Raises
    ------
    ValueError
        If a scheme leaves out another corpus group than the one that a clip's source belongs to.
    """
    wrong = rows["scheme"] != splits.LEFT_OUT + splits.corpus_group(rows["source"])
    if wrong.any():
        row = rows[wrong].iloc[0]
        raise ValueError(f"source {row['source']!r} was trained on: its scheme is {row['scheme']!r}.")
    table = [
        {"model": model, "corpus_group": corpus_group, "source": source} | figure
        for model, values in predictions.items()
        for (corpus_group, source), places in _parts(rows)
        for figure in _figures(rows.iloc[places], values[places])
    ]
    return pd.DataFrame(table, columns=list(COLUMNS)).astype({"low": float, "high": float})


def by_length(scores: Mapping[str, Mapping[str, dict]]) -> pd.DataFrame:
    """Return what `evaluation.score` gives for "clip" or the seconds of windows, and for each model, as a table."""
    return pd.DataFrame([
        {"seconds": seconds, "model": model} | row
        for seconds, models in scores.items()
        for model, score in models.items()
        for row in measure_rows(score)
    ])  # fmt: skip


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Return what a page says about the matrix of the chosen model.

    Returns
    -------
    dict
        chosen, n_clips, n_groups, n_corpus_groups, n_sources, n_sources_of_one_class; and of each label under "recall":
        pooled, largest (the source of most clips, with its share), lowest and highest (of the sources that carry an
        interval) and apart (whether their intervals do not overlap), few_groups (sources without interval); under
        "false_alarms" pooled and highest.
    """
    rows = table[table["model"] == CHOSEN]
    by_source = rows[rows["source"] != ALL]
    whole = rows[(rows["measure"] == "macro F1") & (rows["corpus_group"] == ALL)].iloc[0]
    n_classes = by_source[by_source["measure"] == "recall"].groupby("source").size()
    return {
        "chosen": CHOSEN,
        "macro_f1": _figure(whole),
        "n_clips": int(whole["n_clips"]),
        "n_groups": int(whole["n_groups"]),
        "n_corpus_groups": int(rows.loc[rows["corpus_group"] != ALL, "corpus_group"].nunique()),
        "n_sources": int(by_source["source"].nunique()),
        "n_sources_of_one_class": int((n_classes == 1).sum()),
        "recall": {label: _by_source(rows, "recall", label) for label in config.CLASS_NAMES},
        "false_alarms": {label: _by_source(rows, "false alarms", label) for label in config.CLASS_NAMES[:2]},
    }


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw recall by corpus group and class of the chosen model, each cell with value, interval and n.

    A cell without interval has too few groups for one; an empty cell is a class that the corpus group does not hold.
    """
    table = tables["cross_corpus"].query("model == @CHOSEN and measure == 'recall' and source == @ALL")
    table = table[table["corpus_group"] != ALL]
    cells = [
        f"{evaluation.format_interval(interval_of(row), digits=2)}\nn = {row['n_clips']:,} / {row['n_groups']:,}"
        for row in table.to_dict("records")
    ]
    wide = table.assign(cell=cells).pivot(index="corpus_group", columns="label", values=["value", "cell"])
    values, text = (wide[name].reindex(columns=list(config.CLASS_NAMES)) for name in ("value", "cell"))
    figure, ax = plots.subplots(height_inches=0.37 * len(values) + 1.0)
    look = {"cmap": "Blues", "vmin": 0, "vmax": 1, "annot_kws": {"fontsize": 7}, "linewidths": 0.8}
    bar = {"label": "Recall, corpus group left out", "pad": 0.02, "fraction": 0.04}
    seaborn.heatmap(values.astype(float), annot=text, fmt="", ax=ax, cbar_kws=bar, **look)
    ax.set(xlabel="", ylabel="")
    ax.set_title("n in clips / groups; no interval: too few groups", fontsize=8)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    return {"cross_corpus": figure}


def _parts(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Yield (corpus group, source) and the places of its rows: all, then each corpus group followed by its sources."""
    yield (ALL, ALL), np.arange(len(rows))
    for corpus_group, places in rows.groupby(splits.corpus_group(rows["source"]).to_numpy()).indices.items():
        yield (corpus_group, ALL), places
        for source, inside in rows.iloc[places].groupby("source").indices.items():
            yield (corpus_group, source), places[inside]


def _figures(part: pd.DataFrame, probabilities: np.ndarray) -> Iterator[dict]:
    class_ids, groups = manifest.class_ids(part), part["group_id"].to_numpy()
    result = evaluation.score(probabilities, class_ids, groups, seed=SEED)
    yield {"measure": "macro F1", "label": ALL, **result["macro_f1"], **_n(groups)}
    for class_id, label in enumerate(config.CLASS_NAMES):
        own, predicted = class_ids == class_id, probabilities.argmax(axis=1) == class_id
        if own.any():
            size = _n(groups[own])
            recall = shares.exact_edge(result["per_class"][label]["recall"], n_groups=size["n_groups"])
            yield {"measure": "recall", "label": label, **recall, **size}
        if not own.all():
            yield {"measure": "false alarms", "label": label, **shares.rate(predicted[~own], groups[~own])}


def _n(groups: np.ndarray) -> dict[str, int]:
    return {"n_clips": len(groups), "n_groups": len(set(groups.tolist()))}


def _figure(row: pd.Series) -> dict[str, Any]:
    return {"source": row["source"]} | interval_of(row) | {name: int(row[name]) for name in ("n_clips", "n_groups")}


def _by_source(rows: pd.DataFrame, measure: str, label: str) -> dict[str, Any]:
    """Return the pooled figure, the lowest and highest of sources with an interval; of recall, see `summary`."""
    of_label = rows[(rows["measure"] == measure) & (rows["label"] == label)]
    by_source, pooled = of_label[of_label["source"] != ALL], of_label[of_label["corpus_group"] == ALL]
    found: dict[str, Any] = {"pooled": _figure(pooled.iloc[0])} if len(pooled) else {}
    judged = by_source.dropna(subset="low")
    if len(judged) > 1:
        low, high = judged.loc[judged["value"].idxmin()], judged.loc[judged["value"].idxmax()]
        found |= {"lowest": _figure(low), "highest": _figure(high), "apart": bool(low["high"] < high["low"])}
    if measure == "recall" and len(by_source):
        largest = _figure(by_source.loc[by_source["n_clips"].idxmax()])
        found["largest"] = largest | {"share": largest["n_clips"] / found["pooled"]["n_clips"]}
        few = by_source[by_source["n_groups"] < evaluation.MIN_GROUPS]
        found["few_groups"] = [_figure(row) for _, row in few.iterrows()]
    return found


def scores(rows: pd.DataFrame, predictions: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Return what `evaluation.score` gives for each model's predictions (n_rows, 3) of some rows."""
    facts = manifest.class_ids(rows), rows["group_id"].to_numpy()
    return {name: evaluation.score(values, *facts, seed=SEED) for name, values in predictions.items()}


def by_seconds(rows: pd.DataFrame, predictions: Mapping[str, np.ndarray]) -> dict[str, dict[str, dict]]:
    """Return `scores` of windows by their length in seconds."""
    return {
        f"{seconds:g}": scores(rows.iloc[at], {name: values[at] for name, values in predictions.items()})
        for seconds, at in rows.groupby("seconds").indices.items()
    }


def with_size(result: dict) -> dict:
    """Return macro F1 and each class's figures, each with the windows and groups that it rests on."""
    size, per_class = {"n_clips": result["n_clips"], "n_groups": result["n_groups"]}, result["per_class"]
    sized = {label: {name: found[name] | size for name in found} for label, found in per_class.items()}
    return {"macro_f1": result["macro_f1"] | size, "per_class": sized}
