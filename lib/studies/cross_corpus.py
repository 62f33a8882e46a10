"""Sources never met: each family of sources is answered for by networks that trained without it.

Macro F1 of a source is the mean over the classes that it holds. An answer of a class that it does not hold is a miss
of the true class and nothing else: a source of one class has no clip that could be a false alarm of that class, its
precision is 1, and its F1 = 2 recall / (1 + recall) lies above its recall. So macro F1 compares models on one source,
not sources; recall and false alarms compare sources.

A bootstrap of clips that are all right, or all wrong, has no width, however few they are. There recall and false
alarms carry the exact interval of Clopper and Pearson (1934, The use of confidence or fiducial limits), a group being a
trial. Macro F1 has no such formula: [1.00, 1.00] means that no clip was wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lib import config, evaluation, manifest, splits
from lib.studies import decisions
from lib.studies.findings import Findings

ALL = "all"  # in column source: the whole family; in column family too: every clip of the table
MEASURES = ("macro F1", "recall", "false alarms")
COLUMNS = ("model", "family", "source", "measure", "label", "value", "low", "high", "n_clips", "n_groups")
RATE_COLUMNS = ("value", "low", "high", "n_clips", "n_groups")  # of `decisions.rate`
PROBABILITIES = list(config.CLASS_NAMES)


def matrix(answers: pd.DataFrame, *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0) -> pd.DataFrame:
    """Score every model on every family left out, on each source within it, and on all of them together.

    Parameters
    ----------
    answers : DataFrame
        One row a clip and model, as study_left_out.csv has them: group_id, source, label, scheme
        (``without_<family>``), the three probabilities and model.
    n_bootstrap : int
        Resamples of groups.
    seed : int

    Returns
    -------
    DataFrame
        `COLUMNS`, one row a figure. Measure "macro F1" (label "all") is over the classes held. "recall" of a label is
        over its own clips. "false alarms" of a label is the share of the clips of other classes that are answered with
        it. n counts the clips and groups that the figure rests on; low and high are missing with fewer than
        `evaluation.MIN_GROUPS` groups. A class that a source does not hold has no recall row.

    Raises
    ------
    ValueError
        If a scheme leaves out another family than the one that a clip's source belongs to.
    """
    _check(answers)
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    rows = []
    for (model, family, source), part in _parts(answers):
        place = {"model": model, "family": family, "source": source}
        rows += [place | figure for figure in _figures(part, options)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"low": float, "high": float})


def recalls(table: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return the rows that the heat map draws: recall of each source and class of one model, families together."""
    rows = table[(table["model"] == model) & (table["measure"] == "recall") & (table["source"] != ALL)]
    return rows.sort_values(["family", "source"], ignore_index=True)


def overview(table: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return one line a family, source and the whole, figures as text with interval, for a page of the report."""
    rows = table[table["model"] == model]
    columns = rows["measure"].where(rows["label"] == ALL, rows["measure"] + ", " + rows["label"])
    text = rows.assign(column=columns, text=[_interval_text(row) for row in rows.itertuples()])
    wide = text.pivot(index=["family", "source"], columns="column", values="text").fillna("")
    whole = rows[rows["measure"] == "macro F1"].set_index(["family", "source"])[["n_clips", "n_groups"]]
    order = list(dict.fromkeys(columns))
    return whole.join(wide[sorted(wide, key=order.index)]).reset_index()


def read_out(table: pd.DataFrame, model: str) -> list[str]:
    """Put the matrix of one model into sentences; every number comes from the table."""
    rows = table[table["model"] == model]
    sentences = [_whole(rows)]
    for label in config.CLASS_NAMES:
        of_class = rows[rows["label"] == label]
        sentences += _recall_sentences(of_class[of_class["measure"] == "recall"], label)
        sentences += _alarm_sentences(of_class[of_class["measure"] == "false alarms"], label)
    return sentences


def findings(
    answers: pd.DataFrame, *, chosen: str, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0
) -> Findings:
    """Return the section: every model's pooled figures, the matrix, and the chosen model's read-out.

    Parameters
    ----------
    answers : DataFrame
        As `matrix` takes it.
    chosen : str
        The model whose matrix is put into words.
    n_bootstrap : int
    seed : int
    """
    table = matrix(answers, n_bootstrap=n_bootstrap, seed=seed)
    if chosen not in set(table["model"]):
        raise ValueError(f"no model is called {chosen!r}: there are {sorted(set(table['model']))}.")
    pooled = table[table["family"] == ALL]
    models = {model: _nested(rows) for model, rows in pooled.groupby("model", sort=False)}
    figures = {
        "chosen": chosen,
        "n_clips": models[chosen]["macro F1"][ALL]["n_clips"],
        "n_groups": models[chosen]["macro F1"][ALL]["n_groups"],
        "n_families": int(table.loc[table["family"] != ALL, "family"].nunique()),
        "n_sources": int(table.loc[table["source"] != ALL, "source"].nunique()),
        "pooled": models,
        "read_out": read_out(table, chosen),
    }
    return Findings(figures, {"cross_corpus": table, "cross_corpus_overview": overview(table, chosen)})


def _check(answers: pd.DataFrame) -> None:
    expected = splits.LEFT_OUT + splits.corpus_group(answers["source"])
    wrong = answers["scheme"] != expected
    if wrong.any():
        row = answers[wrong].iloc[0]
        raise ValueError(f"source {row['source']!r} was met in training: its scheme is {row['scheme']!r}.")


def _parts(answers: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Yield (model, family, source) and its rows: everything, then each family, each followed by its sources."""
    for model, of_model in answers.groupby("model", sort=False):
        yield (model, ALL, ALL), of_model
        for family, of_family in of_model.groupby(splits.corpus_group(of_model["source"])):
            yield (model, family, ALL), of_family
            for source, of_source in of_family.groupby("source"):
                yield (model, family, source), of_source


def _figures(part: pd.DataFrame, options: dict[str, int]) -> Iterator[dict]:
    probabilities = part[PROBABILITIES].to_numpy(float)
    class_ids, groups = manifest.class_ids(part), part["group_id"].to_numpy()
    result = evaluation.score(probabilities, class_ids, groups, **options)
    yield {"measure": "macro F1", "label": ALL, **result["macro_f1"], **_n(groups)}
    for class_id, label in enumerate(config.CLASS_NAMES):
        own = class_ids == class_id
        if own.any():
            recall = _exact_edge(result["per_class"][label]["recall"], n_groups=_n(groups[own])["n_groups"])
            yield {"measure": "recall", "label": label, **recall, **_n(groups[own])}
        if not own.all():
            answered = probabilities[~own].argmax(axis=1) == class_id
            alarms = decisions.rate(answered, groups[~own], **options)
            yield {"measure": "false alarms", "label": label, **{name: alarms[name] for name in RATE_COLUMNS}}


def _exact_edge(interval: evaluation.Interval, *, n_groups: int) -> evaluation.Interval:
    """Widen the interval of a share of 0 or 1 to that of Clopper and Pearson: n of n groups hit, or none."""
    if interval["low"] is None or interval["value"] not in (0.0, 1.0):
        return interval
    low, high = decisions.exact_bound(n_groups, is_hit=interval["value"] == 1)
    return {**interval, "low": low, "high": high}


def _n(groups: np.ndarray) -> dict[str, int]:
    return {"n_clips": len(groups), "n_groups": len(set(groups.tolist()))}


def _nested(rows: pd.DataFrame) -> dict[str, dict[str, dict]]:
    """Return {measure: {label: interval with n}} of one model's rows, missing edges as None."""
    found: dict[str, dict[str, dict]] = {}
    for row in rows.itertuples():
        edges = {name: None if np.isnan(getattr(row, name)) else getattr(row, name) for name in ("low", "high")}
        figure = {"value": row.value, **edges, "n_clips": row.n_clips, "n_groups": row.n_groups}
        found.setdefault(row.measure, {})[row.label] = figure
    return found


def _whole(rows: pd.DataFrame) -> str:
    macro = rows[rows["measure"] == "macro F1"]
    pooled = macro[macro["family"] == ALL].iloc[0]
    n_families = macro.loc[macro["family"] != ALL, "family"].nunique()
    held = rows[(rows["measure"] == "recall") & (rows["source"] != ALL)].groupby("source").size()
    return (
        f"On {n_families} families of sources, each left out of training in turn, macro F1 is {_figure_text(pooled)}; "
        f"{(held == 1).sum()} of the {len(held)} sources hold one class alone."
    )


def _recall_sentences(rows: pd.DataFrame, label: str) -> list[str]:
    by_source = rows[rows["source"] != ALL]
    if not len(by_source):
        return []
    pooled, largest = rows[rows["family"] == ALL].iloc[0], by_source.loc[by_source["n_clips"].idxmax()]
    of_all = largest["n_clips"] / pooled["n_clips"]
    sentences = [
        f"Recall of {label} is {_figure_text(pooled)}; {largest['source']} holds {of_all:.0%} of these clips.",
        *_extremes(by_source, "Recall", label),
    ]
    small = by_source[by_source["n_groups"] < evaluation.MIN_GROUPS]
    if len(small):
        names = ", ".join(f"{row.source} ({_n_text(row)})" for row in small.itertuples())
        sentences.append(f"Too few groups of {label} to say anything: {names}.")
    return sentences


def _alarm_sentences(rows: pd.DataFrame, label: str) -> list[str]:
    by_source = rows[rows["source"] != ALL]
    if label == "normal" or not len(by_source):  # normal is no alarm
        return []
    pooled = rows[rows["family"] == ALL].iloc[0]
    start = f"Of the clips that are not {label}, {_figure_text(pooled)} are answered {label}"
    judged = by_source.dropna(subset="low")
    if not len(judged):
        return [f"{start}."]
    worst = judged.loc[judged["value"].idxmax()]
    return [f"{start}; the most by source: {worst['source']}, {_figure_text(worst)}."]


def _extremes(by_source: pd.DataFrame, measure: str, label: str) -> list[str]:
    """Name the lowest and highest of the sources that carry an interval, and say whether the two intervals part."""
    judged = by_source.dropna(subset="low")
    if len(judged) < 2:
        return []
    low, high = judged.loc[judged["value"].idxmin()], judged.loc[judged["value"].idxmax()]
    apart = "the intervals do not overlap" if low["high"] < high["low"] else "the intervals overlap"
    return [
        f"{measure} of {label} is lowest on {low['source']}, {_figure_text(low)}, and highest on {high['source']}, "
        f"{_figure_text(high)}; {apart}."
    ]


def _figure_text(row: pd.Series) -> str:
    return f"{_interval_text(row)} ({_n_text(row)})"


def _interval_text(row: pd.Series) -> str:
    interval = "" if np.isnan(row.low) else f" [{row.low:.2f}, {row.high:.2f}]"
    return f"{row.value:.2f}{interval}"


def _n_text(row: pd.Series) -> str:
    return f"{row.n_clips:,} {_plural('clip', row.n_clips)}, {row.n_groups:,} {_plural('group', row.n_groups)}"


def _plural(noun: str, n: int) -> str:
    return noun if n == 1 else f"{noun}s"
