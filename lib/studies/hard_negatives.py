"""False alarms by kind of normal sound: laughter, cats, singing and whatever else is taken for crying or screaming."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib import config, evaluation, plots
from lib.corpora import acquisition
from lib.studies import decisions, drawing, esc10
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, interval_of

KINDS = (
    "laughter", "baby laughter", "shouting", "affective speech (acted)", "pain cry (acted)", "singing",
    "adult crying or sobbing", "moaning", "voice effect", "cat", "dog", "bird", "other animals", "siren",
    "horn, alarm or bell", "whistle", "music", "cough or sneeze", "breathing or snoring", "mouth, nose and other body",
    "speech of adults", "speech of children", "household", "ambience or outdoor", "other",
)  # fmt: skip
COLUMNS = (
    "model", "kind", "n_clips", "n_groups", "n_alarms", "n_crying", "n_screaming", "value", "low", "high", "interval",
    "sources",
)  # fmt: skip

# The manifest's subtype says roughly what the sound is, the published path says more. Of a subtype's patterns the
# first one found in "<source>/<path>" (lower case, for ESC-50 with the name of its class) decides; else its last kind.
_MELODY = (("choir|solo|singing", "singing"), ("/music/|jazz|banjo|chord|chime|theme", "music"))
_SUBTYPES = {  # those whose name says it all
    "cat": "cat", "dog": "dog", "bird": "bird", "insect": "other animals", "alarm": "horn, alarm or bell",
    "adult_cry": "adult crying or sobbing", "pain_cry": "pain cry (acted)", "voice_fx": "voice effect",
    "affective_voice": "affective speech (acted)", "angry_speech": "affective speech (acted)",
    "fearful_speech": "affective speech (acted)", "infant_directed_speech": "speech of adults", "singing": "singing",
    "whistle": "whistle", "death_whistle": "whistle", "crowd": "ambience or outdoor", "shout": "shouting",
    "laugh": "laughter", "baby_laugh": "baby laughter", "speech": "speech of adults",
    "speech_child": "speech of children", "ambience": "ambience or outdoor",
}  # fmt: skip
_RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "animal": (
        (r"\bcat\b|cathowl|meow", "cat"),
        (r"\bdogs?\b|bark", "dog"),
        (r"bird|seagull|\bcrow|\bhen\b|rooster", "bird"),
        ("", "other animals"),
    ),
    "body": (
        (r"crying|sobb|weep|whimper", "adult crying or sobbing"),
        ("moan", "moaning"),
        ("cough|sneez", "cough or sneeze"),
        ("pant|sigh|yawn|breath|gasp|snor|sniff|^icsd/", "breathing or snoring"),
        ("", "mouth, nose and other body"),
    ),
    "household": (*_MELODY, ("/ambience/", "ambience or outdoor"), ("", "household")),
    "outdoor": (
        *_MELODY,
        ("bird|seagull", "bird"),
        ("bugs|monkey|cricket|insect", "other animals"),
        ("", "ambience or outdoor"),
    ),
    "siren": ((r"\bsirens?\b", "siren"), ("", "horn, alarm or bell")),
    # EmoDB's sixth letter W is Wut, anger; RAVDESS's third number 05 is angry.
    "speech_adult": (
        (r"^emodb/.*\d\d[a-z]\d\dw[a-z]?\.wav$|^ravdess/.*/03-\d\d-05-", "affective speech (acted)"),
        ("", "speech of adults"),
    ),
    "music": (("choir|solo|singing", "singing"), ("", "music")),  # generated audio has these three
}
_RECORDING = re.compile(r"(.+?)-\d\d")  # the clips of a long recording end in its number


def run(inputs: Inputs) -> Result:
    """Count false alarms by kind, on the test split and on unseen corpora.

    Returns
    -------
    Result
        Tables hard_negatives_test and hard_negatives_left_out (`by_kind`). Figures: by split and model the rate over
        all normal clips and the three kinds of highest rate with `evaluation.MIN_GROUPS` groups or more; no_clips: the
        kinds of which there is no clip at all.
    """
    left_out, predictions = inputs.left_out("clip")
    given = {"test": (inputs.rows("test"), inputs.test_predictions), "left_out": (left_out, predictions)}
    tables = {split: by_kind(*pair, recordings=inputs.recordings, seed=SEED) for split, pair in given.items()}
    n_clips = pd.concat(tables.values()).groupby("kind")["n_clips"].max()
    figures: dict[str, Any] = {split: _headline(table) for split, table in tables.items()}
    figures["no_clips"] = [name for name in KINDS if not n_clips.get(name, 0)]
    return Result(figures, {f"hard_negatives_{split}": table for split, table in tables.items()})


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw the ensemble's false positive rate by kind, on the test split and on unseen corpora."""
    figures = {}
    for split, title in drawing.SPLIT_TITLES.items():
        table = tables[f"hard_negatives_{split}"]
        table = table[(table["model"] == "ensemble") & (table["n_clips"] > 0)]
        figures[f"hard_negatives_{split}"], ax = plots.subplots(height_inches=0.21 * len(table) + 0.8)
        draw_rates(ax, table)
        ax.set_title(title, loc="left")
    return figures


def draw_rates(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the false positive rate of each kind of normal sound with its interval, one model, n beside the kind.

    Parameters
    ----------
    ax : Axes
        About 0.2 inches high for each kind.
    table : DataFrame
        Rows of `by_kind` for one model. A filled dot has an interval over groups, a hollow one comes from too few
        groups for any; a kind without clips is said to have none.
    """
    labels = []
    for place, row in enumerate(table.itertuples()):
        labels.append(f"{row.kind} ({row.n_clips:,} of {row.n_groups:,})")
        if not row.n_clips:
            ax.text(0.005, place, "no clip", va="center", fontsize=7, color="0.45")
            continue
        has_interval = not pd.isna(row.low)
        if has_interval:
            ax.plot([row.low, row.high], [place, place], color="black", linewidth=1.1, marker="|", markersize=5)
        face = "black" if has_interval else "white"
        ax.plot(row.value, place, marker="o", markersize=4.5, markeredgecolor="black", markerfacecolor=face)
    ax.set_yticks(range(len(labels)), labels, fontsize=7)
    ax.set_ylim(len(labels) - 0.5, -0.5)  # first kind on top
    ax.set(xlim=(-0.02, 1.02), xlabel="False positive rate (hollow: too few groups for an interval)")
    ax.set_ylabel("Kind (n clips of n groups)")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def kind(rows: pd.DataFrame, recordings: pd.DataFrame | None = None) -> pd.Series:
    """Return the kind of each clip, one of `KINDS`, from its subtype and the path it was published under.

    Parameters
    ----------
    rows : DataFrame
        Normal clips with clip_id; source, subtype and path too where `recordings` does not have them.
    recordings : DataFrame, optional
        Index of recordings with clip_id, source, path and subtype: `acquisition.clips` by default.

    Returns
    -------
    Series of str
        With the index of `rows`. A subtype without rule is "other".
    """
    index = acquisition.clips() if recordings is None else recordings
    known = index.set_index("clip_id")[["source", "path", "subtype"]].to_dict("index")
    kinds = []
    for row in rows.to_dict("records"):
        name = row["clip_id"]
        match = _RECORDING.fullmatch(name)
        facts = known.get(name) or known.get(match[1] if match else name) or row
        kinds.append(_kind(str(facts["source"]), str(facts.get("path", "")), str(facts.get("subtype", ""))))
    return pd.Series(kinds, index=rows.index, name="kind", dtype=object)


def _kind(source: str, path: str, subtype: str) -> str:
    clip = esc10.read_name(path)
    text = f"{source}/{path}".lower() + (f" {clip.class_name}" if clip else "")
    if clip and clip.class_name in esc10.ANIMALS:
        subtype = "animal"
    rules = _RULES.get(subtype) or (("", _SUBTYPES.get(subtype, "other")),)
    return next(found for pattern, found in rules if re.search(pattern, text))


def by_kind(
    rows: pd.DataFrame,
    probabilities: Mapping[str, np.ndarray],
    *,
    recordings: pd.DataFrame | None = None,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how often each model predicts crying or screaming for each kind of normal sound.

    Parameters
    ----------
    rows : DataFrame
        clip_id, label, source and group_id of clips of any class; only the normal ones count.
    probabilities : mapping of model to ndarray (n_clips, 3)
        In the order of `rows`. An alarm is a clip whose most probable class is crying or screaming.
    recordings, n_bootstrap, seed
        As in `kind` and `decisions.rate`.

    Returns
    -------
    DataFrame
        `COLUMNS`: a row for every model and kind, and one for "all". A kind without clips keeps its row, with n = 0.
    """
    is_normal = (rows["label"] == "normal").to_numpy()
    normal = rows[is_normal].reset_index(drop=True)
    kinds = kind(normal, recordings).to_numpy()
    table = []
    for model, values in probabilities.items():
        predicted = np.asarray(values)[is_normal].argmax(axis=1)
        for name in (*KINDS, "all"):
            here = np.flatnonzero((kinds == name) | (name == "all"))
            row = _count(normal.iloc[here], predicted[here], n_bootstrap=n_bootstrap, seed=seed)
            table.append({"model": model, "kind": name} | row)
    return pd.DataFrame(table, columns=list(COLUMNS))


def _count(rows: pd.DataFrame, predicted: np.ndarray, *, n_bootstrap: int, seed: int) -> dict[str, Any]:
    alarms = predicted != config.CLASS_ID["normal"]
    found = decisions.rate(alarms, rows["group_id"].to_numpy(), n_bootstrap=n_bootstrap, seed=seed)
    counts = {f"n_{label}": int((predicted == config.CLASS_ID[label]).sum()) for label in ("crying", "screaming")}
    sources = " ".join(sorted(set(rows["source"])))
    return {"n_alarms": int(alarms.sum()), "sources": sources} | counts | found


def _headline(table: pd.DataFrame) -> dict[str, dict]:
    figures = {}
    for model, part in table.groupby("model", sort=False):
        kinds = part[(part["kind"] != "all") & (part["n_groups"] >= evaluation.MIN_GROUPS)]
        worst = kinds.astype({"value": float}).nlargest(3, "value")
        figures[model] = {
            "all": _figure(part[part["kind"] == "all"].iloc[0]),
            "worst": {row["kind"]: _figure(row) for _, row in worst.iterrows()},
        }
    return figures


def _figure(row: pd.Series) -> dict[str, Any]:
    counts = {name: int(row[name]) for name in ("n_clips", "n_groups", "n_alarms")}
    return interval_of(row) | counts | {"interval": row["interval"]}
