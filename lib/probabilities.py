"""The table in which networks hand their answers on: one row a clip, one column a class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lib import config

WHO = ("model", "stage", "kept", "condition")  # the further columns of study_left_out.csv
COLUMNS = ("clip_id", "group_id", "source", "label", "scheme", "split", *config.CLASS_NAMES)


def table(frame: pd.DataFrame, probabilities: np.ndarray, *, scheme: str) -> pd.DataFrame:
    """Return one row a clip: who it is, which scheme and split, and its probabilities.

    Parameters
    ----------
    frame : DataFrame
        Manifest rows.
    probabilities : ndarray, shape (n_clips, 3)
        In the order of the rows and of CLASS_NAMES.
    scheme : str
        "grouped" or "random": which split the network was trained on.

    Raises
    ------
    ValueError
        If shapes differ, or a row is not finite or does not sum to 1.
    """
    probabilities = np.asarray(probabilities, dtype=float)
    if probabilities.shape != (len(frame), len(config.CLASS_NAMES)):
        raise ValueError(f"probabilities have shape {probabilities.shape} for {len(frame)} clips")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-4):  # NaN fails too
        raise ValueError("a row of probabilities is not finite or does not sum to 1")
    kept = frame[["clip_id", "group_id", "source", "label", "split"]].reset_index(drop=True).assign(scheme=scheme)
    classes = pd.DataFrame(probabilities, columns=list(config.CLASS_NAMES))
    return pd.concat([kept, classes], axis=1)[list(COLUMNS)]


def read_left_out(path: Path, clip_ids: Iterable[str]) -> pd.DataFrame:
    """Read study_left_out.csv, if it is there and was made with the recordings at hand.

    The report of the full build is in git, so the study may lie there before anything has run, and be that of other
    audio: its clips are then not those of the manifest.

    Parameters
    ----------
    path : Path
        May be missing.
    clip_ids : iterable of str
        Every clip of the manifest.

    Returns
    -------
    DataFrame
        `COLUMNS` and `WHO`; empty where the study cannot be used.
    """
    table = pd.read_csv(path) if Path(path).is_file() else pd.DataFrame(columns=[*COLUMNS, *WHO])
    return table if set(table["clip_id"]) == set(clip_ids) else table.iloc[:0]


def by_model(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return the clips of study_left_out.csv, once for each condition, and what every network answered.

    Parameters
    ----------
    table : DataFrame
        `COLUMNS` and `WHO`, or some clips and conditions of it.

    Returns
    -------
    (DataFrame, dict of str to ndarray (n_rows, 3))
        clip_id, group_id, source, label, scheme and condition, sorted by condition and clip; probabilities by network
        ("yamnet": the stage that each scheme kept) and by stage ("yamnet.A").

    Raises
    ------
    ValueError
        If networks answered for different clips, or there is no row.
    """
    table = table.sort_values(["condition", "clip_id"], kind="stable")
    if table.empty:
        raise ValueError("no answer for any of these clips: the study was made with other recordings")
    parts = {name: rows for name, rows in table[table["kept"]].groupby("model")}
    parts |= {f"{name}.{stage}": rows for (name, stage), rows in table.groupby(["model", "stage"])}
    keys = ["clip_id", "group_id", "source", "label", "scheme", "condition"]
    clips = next(iter(parts.values()))[keys].reset_index(drop=True)
    if not all(rows[keys].reset_index(drop=True).equals(clips) for rows in parts.values()):
        raise ValueError(f"{', '.join(parts)} did not answer for the same clips under the same conditions")
    return clips, {name: rows[list(config.CLASS_NAMES)].to_numpy() for name, rows in parts.items()}


def write(tables: list[pd.DataFrame], path: Path) -> Path:
    """Write tables below each other as CSV, sorted by scheme and clip, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.concat(tables, ignore_index=True).sort_values(["scheme", "clip_id"], kind="stable")
    rows.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")
    return path
