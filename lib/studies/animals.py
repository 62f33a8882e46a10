"""Clips for the environmental-audio lesson: ten animal classes of ESC-50, or what else of them there is.

The lesson's example is Toni Heittola's: frozen YAMNet embeddings of ten animal classes, accuracy 91.2 % over ESC-50's
own folds (`esc10.HEITTOLA_ACCURACY`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from lib import config
from lib.corpora import download, optional
from lib.studies import esc10

CLASSES = esc10.HEITTOLA_CLASSES
N_FOLDS = 5
MIN_GROUPS = 3  # recordings of a class: one to test, one to validate, one to learn from
BACKGROUND_KINDS = ("outdoor", "household", "ambience")
# What an animal is called in the names of recordings and groups; some of them are Turkish.
WORDS = {
    "dog": "dog|puppy|bark|kopek", "rooster": "rooster", "pig": "pig", "cow": "cow|inek", "frog": "frogs?|kurbaga",
    "cat": "cat|wildcat|meow|kedi|catmeow|cathowls|cathisses", "hen": "chicken|chikn|tavuk", "insects": "bees?|bumble",
    "sheep": "sheep|sheeplings|baa|koyun", "crow": "crow",
}  # fmt: skip
_KINDS = ("animal", "bird", "cat", "dog", "insect")


@dataclass(frozen=True)
class Material:
    """Clips with class_name, fold (1 to 5), group_id and path; how they were found, in a sentence."""

    clips: pd.DataFrame
    description: str
    is_published: bool  # ESC-50's ten classes in its own folds, nothing else


def fetch_esc50(tier: str) -> tuple[pd.DataFrame, str]:
    """Return ESC-50 as raw manifest rows, fetched once (646 MB) where the audio is real and the network there.

    Returns
    -------
    (DataFrame, str)
        No rows where it is not available, and why.
    """
    (row,) = optional.check(["esc50"])
    is_there = (config.RAW_DIR / "esc50").is_dir()
    if not is_there and (tier not in ("mirror", "network") or download.is_offline()):
        return pd.DataFrame(), "it is fetched for real recordings and with a network only"
    reason = None if is_there else download.why_unreachable("https://github.com")
    if reason:
        return pd.DataFrame(), f"github.com: {reason}"
    rows, failures = optional.bring([row])
    return rows, failures[0].reason if failures else ""


def material(rows: pd.DataFrame) -> Material:
    """Return the clips of the lesson among raw manifest rows.

    ESC-50 alone where all ten of its classes are there. Else every recording whose name or group says one of the ten
    animals, in folds by group. Generated audio has no animals: there the kinds of sound take their place.
    """
    published = esc10.clips(rows).query("class_name in @CLASSES")
    if published["class_name"].value_counts().reindex(CLASSES, fill_value=0).ge(esc10.PUBLISHED_CLIPS).all():
        return Material(published.reset_index(drop=True), "ESC-50's ten animal classes in its own five folds", True)
    found = _in_folds(rows.assign(class_name=animals(rows)).dropna(subset="class_name"))
    if len(found):
        n_own, n_sources = len(esc10.clips(found)), found["source"].nunique()
        text = f"{found['class_name'].nunique()} of the ten animal classes, from {n_sources} collections"
        return Material(found, f"{text}; {n_own} of {len(found)} clips are ESC-50's", False)
    kinds = _in_folds(rows[~rows["subtype"].isin(BACKGROUND_KINDS)].assign(class_name=lambda frame: frame["subtype"]))
    return Material(kinds, "no animals here: kinds of generated sound take their place", False)


def animals(rows: pd.DataFrame) -> pd.Series:
    """Return which of the ten animals each raw manifest row is, or None: as ESC-50 says, else by name and group."""
    own = esc10.names(rows["path"])["class_name"]
    texts = rows["group_id"] + " " + rows["path"].str.split("/", n=2).str[2].fillna("")
    said = texts.str.lower().map(_animal).where(rows["subtype"].isin(_KINDS))
    return own.where(own.isin(CLASSES)).where(own.notna(), said)


def _animal(text: str) -> str | None:
    words = re.split("[^a-z]+", text)
    return next((name for word in words for name, pattern in WORDS.items() if re.fullmatch(pattern, word)), None)


def _in_folds(rows: pd.DataFrame) -> pd.DataFrame:
    """Deal the groups of each class, enough of which there must be, to five folds; ESC-50's clips keep their own."""
    rows = rows[rows.groupby("class_name")["group_id"].transform("nunique") >= MIN_GROUPS].reset_index(drop=True)
    order = rows.groupby("class_name")["group_id"].transform(lambda groups: pd.factorize(groups, sort=True)[0])
    folds = esc10.names(rows["path"])["fold"].fillna(order % N_FOLDS + 1)
    return rows.assign(fold=folds.astype(int))
