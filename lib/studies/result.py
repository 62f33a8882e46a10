"""What a study hands over, and where it is written: numbers for studies.json, tables of numbers, figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import config, evaluation, manifest
from lib.studies.inputs import SEED

FILE_NAME = "studies.json"
ENDS = ("value", "low", "high")


@dataclass(frozen=True)
class Result:
    """The numbers of one study.

    Parameters
    ----------
    figures : mapping
        Goes to studies.json under the study's name: numbers, names, lists and mappings. An interval is
        ``{"value", "low", "high"}`` as `lib.evaluation.interval` gives it, with n_clips and n_groups.
    tables : mapping of name to DataFrame
        Written to ``build/studies/tables/<name>.csv``: numbers and names, no formatted text.
    """

    figures: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def write(name: str, result: Result, folder: Path) -> None:
    """Write a study's tables to `folder`, and put its figures into studies.json beside those of other studies."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for table_name, table in result.tables.items():
        path = folder / "tables" / f"{table_name}.csv"
        table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    everything = read(folder) | {name: plain(result.figures)}
    text = json.dumps(dict(sorted(everything.items())), indent=2, allow_nan=False)
    config.write_whole(folder / FILE_NAME, f"{text}\n".encode())


def read(folder: Path) -> dict[str, dict]:
    """Return studies.json, or nothing where no study was run."""
    path = folder / FILE_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_tables(folder: Path, *, prefix: str = "") -> dict[str, pd.DataFrame]:
    """Return every table that studies wrote, by name without the prefix that it has in a report."""
    paths = sorted((folder / "tables").glob(f"{prefix}*.csv"))
    return {path.stem.removeprefix(prefix): pd.read_csv(path) for path in paths}


def compare(rows: pd.DataFrame, predictions: Mapping[str, np.ndarray], column: str) -> pd.DataFrame:
    """Return macro F1 and each class's F1 of predictions (n_clips, 3) by variant, with differences to the first one.

    Returns
    -------
    DataFrame
        One row per variant and measure: `column`, and what `measure_rows` gives, with the paired difference "change".
    """
    truth = manifest.class_ids(rows), rows["group_id"].to_numpy()
    first, table = next(iter(predictions.values())), []
    for name, values in predictions.items():
        score = evaluation.score(values, *truth, seed=SEED)
        gain = evaluation.paired_difference(values, first, *truth, seed=SEED)
        table += [{column: name} | row for row in measure_rows(score, change={end: gain[end] for end in ENDS})]
    return pd.DataFrame(table)


def measure_rows(score: Mapping[str, Any], **others: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what `evaluation.score` gives, and other intervals by name, as rows of a table.

    Columns: measure ("macro F1", "F1 <label>", "recall <label>", names of `others`), value, low, high, n_clips,
    n_groups.
    """
    figures = {"macro F1": score["macro_f1"]}
    for name in ("F1", "recall"):
        figures |= {f"{name} {label}": score["per_class"][label][name.lower()] for label in config.CLASS_NAMES}
    size = {name: score[name] for name in ("n_clips", "n_groups")}
    return [{"measure": measure} | figure | size for measure, figure in (figures | others).items()]


def columns(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    """Return a figure as three columns of a table that holds several: name, name_low, name_high."""
    return {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}


def interval_of(row: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Return value, low and high from a row of a table: of columns value, low, high, or of those of `columns`."""
    names = (name, f"{name}_low", f"{name}_high") if name else ENDS
    return {end: None if pd.isna(row[column]) else float(row[column]) for end, column in zip(ENDS, names, strict=True)}


def plain(value: object) -> Any:
    """Return numpy's numbers as Python's, and NaN (nothing to divide by) as None, for JSON has neither."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value
