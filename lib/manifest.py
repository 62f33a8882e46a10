"""The manifest: the table of clips, one row per clip, with label, source, group and split."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from lib import audio, config

SPLITS = ("train", "validation", "test")

RAW_COLUMNS = (
    "clip_id", "path", "label", "subtype", "source", "group_id", "duration_seconds", "sample_rate_hz", "channels",
    "bandwidth_hz", "licence", "sha256", "tier",
)  # fmt: skip
COLUMNS = (
    "clip_id", "path", "label", "subtype", "source", "group_id", "split", "start_seconds", "duration_seconds",
    "sample_rate_hz", "bandwidth_hz", "licence", "sha256",
)  # fmt: skip
_NUMBERS = ("duration_seconds", "sample_rate_hz", "channels", "bandwidth_hz", "start_seconds")
_CLIP_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"  # also a file name, on any system
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


class ManifestError(ValueError):
    """A manifest does not follow its schema."""


def read(path: Path, *, splits: Iterable[str] | None = None) -> pd.DataFrame:
    """Read a manifest and check it against its schema.

    Parameters
    ----------
    path : Path
        `config.RAW_MANIFEST_PATH`, `config.MANIFEST_PATH` or `config.RANDOM_MANIFEST_PATH`.
    splits : iterable of str, optional
        Keep these splits only. Everything but notebook 06 asks for ("train", "validation"): test stays closed.

    Returns
    -------
    DataFrame
        One row per clip, with the columns `RAW_COLUMNS` or `COLUMNS`, sorted by clip_id.

    Raises
    ------
    FileNotFoundError, ManifestError
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
    config.write_whole(Path(path), frame.to_csv(index=False, lineterminator="\n").encode())
    return Path(path)


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
        "clip_id is not a plain file name": ~frame["clip_id"].str.fullmatch(_CLIP_ID, na=False),
        "clip_id appears twice": frame["clip_id"].duplicated(),
        "path does not stay inside the data folder": ~frame["path"].map(is_safe_path),
        f"label is none of {config.CLASS_NAMES}": ~frame["label"].isin(config.CLASS_NAMES),
        "source is empty": frame["source"] == "",
        "group_id is empty": frame["group_id"] == "",
        "sha256 is no SHA-256": ~frame["sha256"].str.fullmatch("[0-9a-f]{64}", na=False),
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
    """Return the class of every row (n_rows,) as its place in `config.CLASS_NAMES`; KeyError for another label."""
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
