"""False alarms by kind of normal sound: laughter, cats, singing and whatever else is taken for a cry or a scream."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from lib import config, evaluation
from lib.corpora import acquisition
from lib.studies import decisions, esc10
from lib.studies.findings import Findings

KINDS = (
    "laughter", "baby laughter", "shouting", "angry speech (acted)", "singing", "adult crying or sobbing", "moaning",
    "cat", "dog", "other animals", "siren", "horn, alarm or bell", "music", "cough or sneeze", "breathing or snoring",
    "mouth, nose and other body", "speech of adults", "speech of children", "household", "ambience or outdoor", "other",
)  # fmt: skip
COLUMNS = (
    "model", "kind", "n_clips", "n_groups", "n_alarms", "n_crying", "n_screaming", "rate", "low", "high", "interval",
    "wilson_low", "wilson_high", "sources",
)  # fmt: skip

# The manifest's subtype says roughly what is heard, the published path says more. Of a subtype's patterns the first one
# found in "<source>/<path>" (lower case, for ESC-50 with the name of its class) decides; else its last kind does.
_MELODY = (("choir|solo|singing", "singing"), ("/music/|jazz|banjo|chord|chime|theme", "music"))
_RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "animal": ((r"\bcat\b|cathowl|meow", "cat"), (r"\bdogs?\b|bark", "dog"), ("", "other animals")),
    "body": (
        (r"crying|sobb|weep|whimper", "adult crying or sobbing"),
        ("moan", "moaning"),
        ("cough|sneez", "cough or sneeze"),
        ("pant|sigh|yawn|breath|gasp|snor|sniff|^icsd/", "breathing or snoring"),
        ("", "mouth, nose and other body"),
    ),
    "household": (*_MELODY, ("/ambience/", "ambience or outdoor"), ("", "household")),
    "outdoor": (*_MELODY, ("birds|bugs|monkey|seagull|cricket|insect", "other animals"), ("", "ambience or outdoor")),
    "laugh": (("", "laughter"),),
    "baby_laugh": (("", "baby laughter"),),
    "shout": (("", "shouting"),),
    "siren": ((r"\bsirens?\b", "siren"), ("", "horn, alarm or bell")),
    # EmoDB's sixth letter W is Wut, anger; RAVDESS's third number 05 is angry.
    "speech_adult": (
        (r"^emodb/.*\d\d[a-z]\d\dw[a-z]?\.wav$|^ravdess/.*/03-\d\d-05-", "angry speech (acted)"),
        ("", "speech of adults"),
    ),
    "speech_child": (("", "speech of children"),),
    "music": (("choir|solo|singing", "singing"), ("", "music")),  # generated audio has these three
    "ambience": (("", "ambience or outdoor"),),
    "speech": (("", "speech of adults"),),
}
_RECORDING = re.compile(r"(.+?)-\d\d")  # the clips of a long recording end in its number


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
    rules = _RULES.get(subtype, ())
    return next((found for pattern, found in rules if re.search(pattern, text)), "other")


def by_kind(
    rows: pd.DataFrame,
    probabilities: Mapping[str, np.ndarray],
    *,
    recordings: pd.DataFrame | None = None,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how often each model takes each kind of normal sound for a cry or a scream.

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
        answers = np.asarray(values)[is_normal].argmax(axis=1)
        for name in (*KINDS, "all"):
            here = np.flatnonzero((kinds == name) | (name == "all"))
            row = _count(normal.iloc[here], answers[here], n_bootstrap=n_bootstrap, seed=seed)
            table.append({"model": model, "kind": name} | row)
    return pd.DataFrame(table, columns=list(COLUMNS))


def _count(rows: pd.DataFrame, answers: np.ndarray, *, n_bootstrap: int, seed: int) -> dict[str, object]:
    alarms = answers != config.CLASS_ID["normal"]
    found = decisions.rate(alarms, rows["group_id"].to_numpy(), n_bootstrap=n_bootstrap, seed=seed)
    counts = {f"n_{label}": int((answers == config.CLASS_ID[label]).sum()) for label in ("crying", "screaming")}
    sources = " ".join(sorted(set(rows["source"])))
    return {"n_alarms": int(alarms.sum()), "rate": found.pop("value"), "sources": sources} | counts | found


def section(
    rows: pd.DataFrame,
    probabilities: Mapping[str, np.ndarray],
    left_out_rows: pd.DataFrame,
    left_out_probabilities: Mapping[str, np.ndarray],
    *,
    recordings: pd.DataFrame | None = None,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> Findings:
    """Return the false positive rate by kind, on the test clips and on clips of sources never met.

    Parameters
    ----------
    rows, left_out_rows : DataFrame
        As in `by_kind`. The left-out rows are all clips, each answered for by networks that never met its family.
    probabilities, left_out_probabilities : mapping of model to ndarray (n_clips, 3)
    recordings, n_bootstrap, seed
        As in `by_kind`.

    Returns
    -------
    Findings
        Tables hard_negatives_test and hard_negatives_left_out. Figures: by split and model the rate over all normal
        clips and the three kinds of highest rate with `evaluation.MIN_GROUPS` groups or more; none_at_hand: the kinds
        of which there is no clip at all; n_bootstrap.
    """
    given = {"test": (rows, probabilities), "left_out": (left_out_rows, left_out_probabilities)}
    options = {"recordings": recordings, "n_bootstrap": n_bootstrap, "seed": seed}
    tables = {split: by_kind(*pair, **options) for split, pair in given.items()}
    there = pd.concat(tables.values()).groupby("kind")["n_clips"].max()
    figures = {split: _headline(table) for split, table in tables.items()}
    figures |= {"none_at_hand": [name for name in KINDS if not there.get(name, 0)], "n_bootstrap": n_bootstrap}
    return Findings(figures, {f"hard_negatives_{split}": table for split, table in tables.items()})


def _headline(table: pd.DataFrame) -> dict[str, dict]:
    figures = {}
    for model, part in table.groupby("model", sort=False):
        kinds = part[(part["kind"] != "all") & (part["n_groups"] >= evaluation.MIN_GROUPS)]
        worst = kinds.astype({"rate": float}).nlargest(3, "rate")
        figures[model] = {
            "all": _figure(part[part["kind"] == "all"].iloc[0]),
            "worst": {row["kind"]: _figure(row) for _, row in worst.iterrows()},
        }
    return figures


def _figure(row: pd.Series) -> dict[str, object]:
    plain = {name: None if pd.isna(row[name]) else float(row[name]) for name in ("rate", "low", "high")}
    counts = {name: int(row[name]) for name in ("n_clips", "n_groups", "n_alarms")}
    return {"value": plain["rate"], "low": plain["low"], "high": plain["high"], **counts, "interval": row["interval"]}
