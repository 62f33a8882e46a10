"""The manifest: which clips there are, what they are labelled, and which split their group belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from lib import audio, config

SPLITS = ("train", "validation", "test")
FRACTIONS = (0.7, 0.15, 0.15)

RAW_COLUMNS = (
    "clip_id", "path", "label", "subtype", "source", "group_id", "duration_seconds", "sample_rate_hz", "channels",
    "bandwidth_hz", "licence", "sha256", "tier",
)  # fmt: skip
COLUMNS = (
    "clip_id", "path", "label", "subtype", "source", "group_id", "split", "start_seconds", "duration_seconds",
    "sample_rate_hz", "bandwidth_hz", "licence", "sha256",
)  # fmt: skip
_NUMBERS = ("duration_seconds", "sample_rate_hz", "channels", "bandwidth_hz", "start_seconds")
_CLIP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # also a file name, on any system
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


class ManifestError(ValueError):
    """A manifest does not follow its schema."""


class SplitError(ValueError):
    """The clips cannot be split so that every class is in every split."""


class LeakageError(ValueError):
    """A group, or the same audio, lies in more than one split."""


def read(path: Path, *, splits: Iterable[str] | None = None) -> pd.DataFrame:
    """Read a manifest and check it against its schema.

    Parameters
    ----------
    path : Path
        `config.RAW_MANIFEST_PATH`, `config.MANIFEST_PATH` or `config.RANDOM_MANIFEST_PATH`.
    splits : iterable of str, optional
        Keep these splits only. Everything but notebook 06 asks for ("train", "validation"): the test split stays shut.

    Returns
    -------
    DataFrame
        One row a clip, with the columns `RAW_COLUMNS` or `COLUMNS`, sorted by clip_id.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If a column, label, split, path, hash or number is not as the schema has it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: run notebooks 01 and 02 first (./run_all.sh does).")
    # Text stays text: a group called "NA" or "007" must come back as it was written.
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    numbers = [name for name in _NUMBERS if name in frame]
    frame[numbers] = frame[numbers].apply(pd.to_numeric, errors="coerce")
    validate(frame, where=str(path))
    if splits is None:
        return frame
    wanted = tuple(splits)
    if "split" not in frame or not set(wanted) <= set(SPLITS):
        raise ManifestError(f"{path}: cannot select splits {wanted}; a split manifest has {SPLITS}.")
    return frame[frame["split"].isin(wanted)].reset_index(drop=True)


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Check a manifest, sort it by clip_id and write it as CSV; a reader never sees half a file."""
    frame = frame.sort_values("clip_id", ignore_index=True)
    validate(frame, where=str(path))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    frame.to_csv(part, index=False, encoding="utf-8", lineterminator="\n")
    part.replace(path)
    return path


def validate(frame: pd.DataFrame, *, where: str = "manifest") -> None:
    """Check columns, order, labels, splits, paths, hashes and numbers.

    Raises
    ------
    ManifestError
        Naming the place, the first offending row and what is wrong with it.
    """
    columns = tuple(frame.columns)
    if columns not in (COLUMNS, RAW_COLUMNS):
        expected = COLUMNS if "split" in columns or "start_seconds" in columns else RAW_COLUMNS
        raise ManifestError(f"{where}: columns are {columns}, expected {expected}.")
    checks = {
        "clip_id is not a plain file name": ~frame["clip_id"].map(lambda value: bool(_CLIP_ID.fullmatch(value))),
        "clip_id appears twice": frame["clip_id"].duplicated(),
        "path does not stay inside the data folder": ~frame["path"].map(is_safe_path),
        f"label is none of {config.CLASS_NAMES}": ~frame["label"].isin(config.CLASS_NAMES),
        "source is empty": frame["source"] == "",
        "group_id is empty": frame["group_id"] == "",
        "sha256 is no SHA-256": ~frame["sha256"].map(lambda value: bool(_SHA256.fullmatch(value))),
        "duration_seconds is not above 0": ~(frame["duration_seconds"] > 0),
        "sample_rate_hz is not above 0": ~(frame["sample_rate_hz"] > 0),
    }
    if "split" in frame:
        checks[f"split is none of {SPLITS}"] = ~frame["split"].isin(SPLITS)
    for what, wrong in checks.items():
        if wrong.any():
            row = frame[wrong.to_numpy(bool)].iloc[0]
            raise ManifestError(
                f"{where}: {what}: {int(wrong.sum())} row(s), first {row['clip_id']!r} at {row['path']!r}."
            )


def is_safe_path(path: str) -> bool:
    """Tell whether a manifest's path is relative, free of control characters and stays inside the data folder."""
    pure = PurePosixPath(path)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts and not _CONTROL.search(path)


def class_ids(frame: pd.DataFrame) -> np.ndarray:
    """Return the class of every row as its place in `config.CLASS_NAMES`.

    Parameters
    ----------
    frame : DataFrame
        Rows with label.

    Returns
    -------
    ndarray of int, (n_rows,)

    Raises
    ------
    KeyError
        If a label is not one of the classes.
    """
    return np.array([config.CLASS_ID[label] for label in frame["label"]], dtype=int)


def load_waveforms(frame: pd.DataFrame) -> list[np.ndarray]:
    """Read the processed clips of a manifest, in its order: float32 (n_samples,), mono, 16 kHz.

    Raises
    ------
    ManifestError
        If a path leads out of the data folder.
    AudioError
        If a file is missing or cannot be read.
    """
    unsafe = [path for path in frame["path"] if not is_safe_path(path)]
    if unsafe:
        raise ManifestError(f"path does not stay inside the data folder: {unsafe[0]!r}.")
    return [audio.read_pcm16(config.DATA_DIR / path) for path in frame["path"]]


def split_by_group(frame: pd.DataFrame, *, fractions: Sequence[float] = FRACTIONS, seed: int) -> pd.Series:
    """Draw train, validation and test so that no group crosses and every class, source and subtype keeps its share.

    Greedy, after iterative stratification (Sechidis et al. 2011, On the Stratification of Multi-label Data): every
    class is first given one group in every split, then the groups, largest first, each go to the split where they
    lessen the deviation from the wanted shares most.

    Parameters
    ----------
    frame : DataFrame
        Needs the columns label, source, subtype and group_id.
    fractions : sequence of float
        Wanted shares of `SPLITS`; their sum is 1.
    seed : int
        Decides between groups of equal size. The rows' order decides nothing.

    Returns
    -------
    Series of str
        The split of each row, with the index of `frame`.

    Raises
    ------
    SplitError
        If some class has too few groups to be in every split.
    """
    shares = _check_fractions(fractions)
    counts = _group_counts(frame, seed)
    assigned = pd.Series(-1, index=counts.index)
    _seat_every_class(counts, assigned)
    _assign_greedily(counts, assigned, shares)
    splits = frame["group_id"].map(assigned).map(dict(enumerate(SPLITS))).rename("split")
    _check_every_class(frame["label"], splits)
    return splits


def split_at_random(frame: pd.DataFrame, *, fractions: Sequence[float] = FRACTIONS, seed: int) -> pd.Series:
    """Draw the splits clip by clip, blind to groups: the leaky twin, kept to show what leakage is worth.

    Same parameters, result and errors as `split_by_group`; the class shares are kept to within one clip.
    """
    shares = _check_fractions(fractions)
    rng = np.random.default_rng(seed)
    splits = pd.Series("", index=frame.index, name="split")
    for _, rows in frame.sort_values("clip_id").groupby("label"):
        order = rng.permutation(rows.index.to_numpy())
        edges = np.round(np.cumsum(shares)[:-1] * len(order)).astype(int)
        for name, part in zip(SPLITS, np.split(order, edges), strict=True):
            splits[part] = name
    _check_every_class(frame["label"], splits)
    return splits


def check_no_leakage(frame: pd.DataFrame) -> None:
    """Make sure that no group and no audio lies in two splits.

    Raises
    ------
    LeakageError
        Naming how many groups, or equal hashes, are shared, and the first of them.
    """
    for column, what in (("group_id", "group"), ("sha256", "audio hash")):
        shared = shared_values(frame, column)
        if shared:
            raise LeakageError(
                f"{len(shared)} {what}(s) lie in more than one split, first {shared[0]!r}: split again by group."
            )


def shared_values(frame: pd.DataFrame, column: str) -> list[str]:
    """Return the values of a column that appear in more than one split, sorted."""
    n_splits = frame.groupby(column)["split"].nunique()
    return sorted(n_splits.index[n_splits > 1])


def _check_fractions(fractions: Sequence[float]) -> np.ndarray:
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (len(SPLITS),) or (shares <= 0).any() or abs(shares.sum() - 1) > 1e-9:
        raise SplitError(f"fractions are {tuple(fractions)}, expected three positive shares of {SPLITS} with sum 1.")
    return shares


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


def _seat_every_class(counts: pd.DataFrame, assigned: pd.Series) -> None:
    """Give each class a group in each split: test and validation a smallest one; the class with fewest groups first."""
    classes = [name for name in config.CLASS_NAMES if name in counts]
    for label in sorted(classes, key=lambda name: int((counts[name] > 0).sum())):
        holders = counts.index[counts[label] > 0][::-1]  # smallest first
        for split_id in reversed(range(len(SPLITS))):
            free = holders[(assigned[holders] < 0).to_numpy()]
            if len(free) and not (assigned[holders] == split_id).any():
                assigned[free[0]] = split_id


def _assign_greedily(counts: pd.DataFrame, assigned: pd.Series, shares: np.ndarray) -> None:
    """Place the groups still free, in order, each where the sum of (filled - wanted)^2 / wanted falls most."""
    table = counts.to_numpy(float)  # (n_groups, n_strata)
    wanted = shares[:, None] * table.sum(axis=0)  # (n_splits, n_strata)
    place = assigned.to_numpy(copy=True)
    filled = np.stack([table[place == split_id].sum(axis=0) for split_id in range(len(shares))])
    for row in np.flatnonzero(place < 0):
        # Divided by wanted, all splits fill in proportion; undivided, every large group would go to train.
        change = (table[row] * (2 * (filled - wanted) + table[row]) / wanted).sum(axis=1)
        place[row] = int(np.argmin(change))
        filled[place[row]] += table[row]
    assigned[:] = place
