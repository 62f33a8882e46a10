"""Splits: train, validation and test by group, the random-split baseline, and leave-one-corpus-out.

A **group** is the infant, household, speaker or source recording of a clip; it must not cross splits. A **split
scheme** says which clips a network trains on, which choose its settings, and which it is tested on:

- grouped: the split by group of notebook 02. The result.
- random: the split clip by clip, which ignores groups. What leakage is worth.
- released: train and validation groups together, with the settings that the grouped split chose; tested on the same
  test groups. What goes to models/.
- without_<corpus group>: trained without one `corpus_group` and tested on it; notebooks 03 and 04 do so within train
  and validation. What to expect on unseen corpora.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib import config, manifest
from lib.manifest import SPLITS

CORPORA_DIR = config.PROJECT_DIR / "lib" / "corpora"
KEPT_SPLITS_PATH = CORPORA_DIR / "kept_splits.csv"
FRACTIONS = np.array([0.7, 0.15, 0.15])  # wanted shares of SPLITS
LEFT_OUT = "without_"


class SplitError(ValueError):
    """The clips cannot be split so that every class is in every split."""


class LeakageError(ValueError):
    """A group, or the same audio, is in more than one split."""


def split_by_group(frame: pd.DataFrame, *, seed: int, kept: pd.Series | None = None) -> pd.Series:
    """Draw train, validation and test so that no group crosses and every class, source and subtype keeps its share.

    Greedy, after iterative stratification (Sechidis et al. 2011, On the Stratification of Multi-label Data): every
    class is first given one group in every split, then the groups, largest first, each go to the split where they
    reduce the deviation from the wanted shares most.

    Parameters
    ----------
    frame : DataFrame
        Needs the columns label, source, subtype and group_id; the rows' order decides nothing.
    seed : int
        Decides between groups of equal size.
    kept : Series of str, optional
        The split of groups that keep theirs, by group_id (`kept_splits`); the others are drawn around them.

    Raises
    ------
    SplitError
        If some class has too few groups to be in every split.
    """
    counts = _group_counts(frame, seed)
    fixed = pd.Series(dtype=str) if kept is None else kept
    assigned = counts.index.to_series().map(fixed.map(SPLITS.index)).fillna(-1).astype(int)
    _place_every_class(counts, assigned)
    _assign_greedily(counts, assigned)
    splits = frame["group_id"].map(assigned).map(dict(enumerate(SPLITS))).rename("split")
    _check_every_class(frame["label"], splits)
    return splits


def split_at_random(frame: pd.DataFrame, *, seed: int) -> pd.Series:
    """Draw the splits clip by clip, ignoring groups: the baseline that shows what leakage is worth.

    Same parameters, result and errors as `split_by_group`; the class shares are kept to within one clip.
    """
    rng = np.random.default_rng(seed)
    splits = pd.Series("", index=frame.index, name="split")
    for _, rows in frame.sort_values("clip_id").groupby("label"):
        order = rng.permutation(rows.index.to_numpy())
        edges = np.round(np.cumsum(FRACTIONS)[:-1] * len(order)).astype(int)
        for name, part in zip(SPLITS, np.split(order, edges), strict=True):
            splits[part] = name
    _check_every_class(frame["label"], splits)
    return splits


def kept_splits() -> pd.Series:
    """Return the split that each group of the corpora keeps from release to release, by group_id.

    So results stay comparable, and no network has seen a group that is tested later. 1,148 groups keep what version
    0.1 drew for them; version 0.2 drew the others around them (seed 7, on the index of recordings).
    """
    return pd.read_csv(KEPT_SPLITS_PATH, dtype=str, keep_default_na=False).set_index("group_id")["split"]


def check_no_leakage(frame: pd.DataFrame) -> None:
    """Make sure that no group and no audio is in two splits.

    Raises
    ------
    LeakageError
        Naming how many groups, or equal hashes, are shared, and the first of them.
    """
    for column, what in (("group_id", "group"), ("sha256", "audio hash")):
        shared = shared_values(frame, column)
        if shared:
            raise LeakageError(
                f"{len(shared)} {what}(s) are in more than one split, first {shared[0]!r}: split again by group."
            )


def shared_values(frame: pd.DataFrame, column: str) -> list[str]:
    """Return the values of a column that appear in more than one split, sorted."""
    n_splits = frame.groupby(column)["split"].nunique()
    return sorted(n_splits.index[n_splits > 1])


def _check_every_class(labels: pd.Series, splits: pd.Series) -> None:
    table = pd.crosstab(labels, splits).reindex(columns=list(SPLITS), fill_value=0)
    for label, row in table.iterrows():
        if (row == 0).any():
            absent = ", ".join(row.index[row == 0])
            raise SplitError(
                f"no {label} clip falls in {absent}: this class needs at least {len(SPLITS)} groups of its own."
            )


def _group_counts(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return clips by group (rows, largest first, ties shuffled) and by class, source and subtype (columns)."""
    by_class = pd.crosstab(frame["group_id"], frame["label"])
    finer = [pd.crosstab(frame["group_id"], [frame["label"], frame[name]]) for name in ("source", "subtype")]
    counts = pd.concat([by_class, *finer], axis=1)
    tie_breaker = np.random.default_rng(seed).permutation(len(counts))
    return counts.iloc[np.lexsort((tie_breaker, -by_class.sum(axis=1).to_numpy()))]


def _place_every_class(counts: pd.DataFrame, assigned: pd.Series) -> None:
    """Give each class a group in each split: test and validation a smallest one; the class with fewest groups first."""
    classes = [name for name in config.CLASS_NAMES if name in counts]
    for label in sorted(classes, key=lambda name: int((counts[name] > 0).sum())):
        holders = counts.index[counts[label] > 0][::-1]  # smallest first
        for split_id in reversed(range(len(SPLITS))):
            free = holders[(assigned[holders] < 0).to_numpy()]
            if len(free) and not (assigned[holders] == split_id).any():
                assigned[free[0]] = split_id


def _assign_greedily(counts: pd.DataFrame, assigned: pd.Series) -> None:
    """Place the groups still free, in order, each where the sum of (filled - wanted)^2 / wanted falls most."""
    table = counts.to_numpy(float)  # (n_groups, n_strata)
    wanted = FRACTIONS[:, None] * table.sum(axis=0)  # (n_splits, n_strata)
    place = assigned.to_numpy(copy=True)
    filled = np.stack([table[place == split_id].sum(axis=0) for split_id in range(len(SPLITS))])
    for row in np.flatnonzero(place < 0):
        # Divided by wanted, all splits fill in proportion; undivided, every large group would go to train.
        change = (table[row] * (2 * (filled - wanted) + table[row]) / wanted).sum(axis=1)
        place[row] = int(np.argmin(change))
        filled[place[row]] += table[row]
    assigned[:] = place


@functools.cache
def _corpus_groups() -> dict[str, str]:
    table = pd.read_csv(CORPORA_DIR / "sources.csv", dtype=str, keep_default_na=False)
    return dict(zip(table["source"], table["corpus_group"], strict=True))


def corpus_group(source: pd.Series) -> pd.Series:
    """Return the corpus group of each source (sources.csv): corpora that share voices or copy from each other are one.

    Small corpora are pooled; a source that the table does not know is its own group.
    """
    return source.map(lambda name: _corpus_groups().get(name, name))


def read(scheme: str, *, splits: Iterable[str]) -> pd.DataFrame:
    """Read the rows of some splits (of `manifest.SPLITS`) of a scheme; "released" has no validation rows.

    Returns
    -------
    DataFrame
        Manifest rows whose column split is the scheme's.

    Raises
    ------
    ValueError
        If the scheme is none of "grouped", "random" and "released".
    """
    wanted = tuple(splits)
    if scheme == "random":
        return manifest.read(config.RANDOM_MANIFEST_PATH, splits=wanted)
    if scheme == "grouped":
        return manifest.read(config.MANIFEST_PATH, splits=wanted)
    if scheme != "released":
        raise ValueError(f"no split scheme is called {scheme!r}: see lib.splits.")
    rows = manifest.read(config.MANIFEST_PATH, splits=SPLITS if "test" in wanted else ("train", "validation"))
    rows = rows.assign(split=rows["split"].replace("validation", "train"))
    return rows[rows["split"].isin(wanted)].reset_index(drop=True)
