"""The table of predicted probabilities that one notebook or study writes and another reads: one row per clip."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lib import config

CLIP_COLUMNS = ("clip_id", "group_id", "source", "label", "split")  # of the manifest
COLUMNS = ("model", *CLIP_COLUMNS, "scheme", *config.CLASS_NAMES)
WHO = ("stage", "kept", "condition")  # further columns of build/studies/tables/left_out.csv


def table(frame: pd.DataFrame, probabilities: np.ndarray, *, model: str, scheme: str) -> pd.DataFrame:
    """Return one row per clip with the probabilities that a model predicts.

    Parameters
    ----------
    frame : DataFrame
        Manifest rows.
    probabilities : ndarray, shape (n_clips, 3)
        In the order of the rows and of CLASS_NAMES.
    model : str
        "yamnet", "wav2vec2" or a name of the ensemble's.
    scheme : str
        Of `lib.splits`: which split the model was trained on.

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
    rows = frame[list(CLIP_COLUMNS)].reset_index(drop=True).assign(model=model, scheme=scheme)
    return rows.assign(**dict(zip(config.CLASS_NAMES, probabilities.T, strict=True)))[list(COLUMNS)]


def write(tables: Iterable[pd.DataFrame], path: Path) -> Path:
    """Write tables below each other as CSV, sorted by model, scheme and clip, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.concat(list(tables), ignore_index=True).sort_values(["model", "scheme", "clip_id"], kind="stable")
    rows.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")
    return path


def read(*paths: Path, scheme: str | None = None, split: str | None = None) -> pd.DataFrame:
    """Read what `write` wrote, of one or more models.

    Parameters
    ----------
    *paths : Path
        Tables of the same columns.
    scheme, split : str, optional
        Keep the rows of one split scheme, of one split.

    Raises
    ------
    FileNotFoundError
        If a table is not there.
    ValueError
        If one lacks a column.
    """
    rows = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    if missing := set(COLUMNS) - set(rows):
        raise ValueError(f"{', '.join(map(str, paths))}: no column {sorted(missing)}")
    for name, wanted in (("scheme", scheme), ("split", split)):
        rows = rows if wanted is None else rows[rows[name] == wanted]
    return rows.reset_index(drop=True)


def by_model(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Split a table of several models into its clips and each model's probabilities.

    Parameters
    ----------
    rows : DataFrame
        `COLUMNS`, perhaps `WHO`, all models for the same clips.

    Returns
    -------
    (DataFrame, dict of str to ndarray (n_rows, 3))
        The clips (and conditions), sorted by condition and clip; probabilities by model, and where there are stages
        ("yamnet": the one that was kept) by stage ("yamnet.A") too.

    Raises
    ------
    ValueError
        If models were given other clips, or there is no row.
    """
    if rows.empty:
        raise ValueError("no probabilities of these clips")
    keys = [name for name in (*CLIP_COLUMNS, "scheme", "condition") if name in rows]
    rows = rows.sort_values(["condition" if "condition" in rows else "scheme", "clip_id"], kind="stable")
    parts = {name: part for name, part in (rows[rows["kept"]] if "kept" in rows else rows).groupby("model")}
    if "stage" in rows:
        parts |= {f"{name}.{stage}": part for (name, stage), part in rows.groupby(["model", "stage"])}
    clips = next(iter(parts.values()))[keys].reset_index(drop=True)
    if not all(part[keys].reset_index(drop=True).equals(clips) for part in parts.values()):
        raise ValueError(f"{', '.join(parts)} do not predict the same clips under the same conditions")
    return clips, {name: part[list(config.CLASS_NAMES)].to_numpy() for name, part in parts.items()}


def read_left_out(path: Path, clip_ids: Iterable[str]) -> pd.DataFrame:
    """Read left_out.csv; empty where it is missing or was made with other recordings (until 06 does without)."""
    if not Path(path).is_file():
        return pd.DataFrame(columns=[*COLUMNS, *WHO])
    rows = read(path)
    return rows if set(rows["clip_id"]) == set(clip_ids) else rows.iloc[:0]
