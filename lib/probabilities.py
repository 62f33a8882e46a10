"""The table of predicted probabilities that one notebook or study writes and another reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lib import config, ensemble, splits

CLIP_COLUMNS = ("clip_id", "group_id", "source", "label", "split")  # of the manifest
WINDOW_COLUMNS = ("kind", "window_id", "corpus_group", "seconds")  # a clip's window_id is its clip_id
COLUMNS = ("model", "scheme", *WINDOW_COLUMNS, *CLIP_COLUMNS, *config.CLASS_NAMES)


def table(frame: pd.DataFrame, probabilities: np.ndarray, *, model: str, scheme: str) -> pd.DataFrame:
    """Return one row per clip or window with the probabilities that a model predicts.

    Parameters
    ----------
    frame : DataFrame
        Manifest rows, or rows of `lib.corpora.windows`.
    probabilities : ndarray, shape (n_rows, 3)
        In the order of the rows and of CLASS_NAMES; ValueError if a row is not finite or does not sum to 1.
    model : str
        "yamnet", "wav2vec2" or a name of the ensemble's.
    scheme : str
        Of `lib.splits`: which split the model was trained on.
    """
    probabilities = ensemble.checked(probabilities, len(frame))
    if "kind" not in frame:
        groups = splits.corpus_group(frame["source"])
        frame = frame.assign(kind="clip", window_id=frame["clip_id"], corpus_group=groups)
        frame = frame.assign(seconds=frame["duration_seconds"])
    rows = frame[[*WINDOW_COLUMNS, *CLIP_COLUMNS]].reset_index(drop=True).assign(model=model, scheme=scheme)
    return rows.assign(**dict(zip(config.CLASS_NAMES, probabilities.T, strict=True)))[list(COLUMNS)]


def write(tables: Iterable[pd.DataFrame], path: Path) -> Path:
    """Write tables below each other as CSV, sorted by model, scheme and window, and return the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.concat(list(tables), ignore_index=True).sort_values(["model", "scheme", "window_id"], kind="stable")
    rows.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")
    return path


def read(*paths: Path, **wanted: str) -> pd.DataFrame:
    """Read what `write` wrote, of one or more models; keep the rows with the `wanted` values (kind="window").

    Raises
    ------
    FileNotFoundError, ValueError
        If a table is not there, or lacks a column.
    """
    rows = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    if missing := set(COLUMNS) - set(rows):
        raise ValueError(f"{', '.join(map(str, paths))}: no column {sorted(missing)}")
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return rows.reset_index(drop=True)


def by_model(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Split a table of several models into its clips and each model's probabilities.

    Returns
    -------
    (DataFrame, dict of str to ndarray (n_rows, 3))
        The clips or windows, sorted by scheme and window_id; probabilities by model.

    Raises
    ------
    ValueError
        If models were given other clips, or there is no row.
    """
    if rows.empty:
        raise ValueError("no probabilities of these clips")
    keys = ["scheme", *WINDOW_COLUMNS, *CLIP_COLUMNS]
    parts = dict(list(rows.sort_values(["scheme", "window_id"], kind="stable").groupby("model")))
    clips = next(iter(parts.values()))[keys].reset_index(drop=True)
    if not all(part[keys].reset_index(drop=True).equals(clips) for part in parts.values()):
        raise ValueError(f"{', '.join(parts)} do not predict the same clips")
    return clips, {name: part[list(config.CLASS_NAMES)].to_numpy() for name, part in parts.items()}
