"""What the report's appendix is made from: the studies' numbers, tables as text with intervals, and figures.

The words are in lib/reporting/templates/appendix.html.j2; this hands it numbers, and computes nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from lib.evaluation import format_interval
from lib.studies import result
from lib.studies.common_mistakes import MISTAKES

WORDS = {  # a name in a table: what a page shows
    "left_out": "unseen corpora", "usual": "with the mistake", "control_f1": "with the control", "macro_f1": "macro F1",
    "n_clips": "clips", "n_groups": "groups", "n_steps": "steps", "ece": "ECE", "brier": "Brier score",
}  # fmt: skip
PREFIX = "study_"  # of the tables and figures that the report copies from build/studies


@dataclass(frozen=True)
class Table:
    """A table as a page shows it: a head, rows of text, and for each column whether it holds words."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_text: Sequence[bool]


def context(folder: Path) -> dict[str, object] | None:
    """Return what the template is given, or None where no study was run.

    Parameters
    ----------
    folder : Path
        A report's folder: studies.json, and tables and figures named study_*, some of them of earlier builds.

    Returns
    -------
    dict or None
        studies (studies.json), tables, figure (name to a data address of the picture, or nothing), by_measure and wide
        (a table as text), mistakes (why each common mistake matters).
    """
    studies, tables = result.read(folder), result.read_tables(folder, prefix=PREFIX)
    if not studies:
        return None
    return {
        "studies": studies,
        "figure": partial(figure_address, folder),
        "by_measure": by_measure,
        "wide": wide,
        "mistakes": {key: why for key, (_, _, why) in MISTAKES.items()},
        "tables": tables,
    }


def figure_address(folder: Path, name: str) -> str:
    """Return the PNG of a figure as a data address, empty where there is none."""
    path = folder / "figures" / f"{PREFIX}{name}.png"
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""


def by_measure(table: pd.DataFrame, *, keys: Sequence[str], measures: Sequence[str], **where: Sequence) -> Table:
    """Return a row of text per `keys` and a column per measure, from columns measure, value, low, high and n.

    `where` maps columns to the values that are kept. Differences ("change") are written with their sign.
    """
    rows = []
    for key, part in _kept(table, where).groupby(list(keys), sort=False):
        found = {row["measure"]: result.interval_of(row) for row in part.to_dict("records")}
        texts = [format_interval(found[m], sign=m == "change") if m in found else "" for m in measures]
        n_clips, n_groups = part[["n_clips", "n_groups"]].iloc[0]
        rows.append([*map(_words, key), *texts, f"{n_clips:,} / {n_groups:,}"])
    head = [*map(_words, (*keys, *measures)), "clips / groups"]
    return Table(head, rows, [*_are_text(table, keys), *[False] * (len(measures) + 1)])


def wide(table: pd.DataFrame, *, keys: Sequence[str], figures: Sequence[str], **where: Sequence) -> Table:
    """Return the rows of a table as text, from columns <figure>, <figure>_low and <figure>_high; as `by_measure`."""
    rows = [
        [f"{row[key]:.4g}" if isinstance(row[key], float) else _words(row[key]) for key in keys]
        + [format_interval(result.interval_of(row, figure)) for figure in figures]
        for row in _kept(table, where).to_dict("records")
    ]
    return Table([*map(_words, (*keys, *figures))], rows, [*_are_text(table, keys), *[False] * len(figures)])


def as_text(table: pd.DataFrame) -> Table:
    """Return a table of words and numbers as text: floats with two decimals, what is missing empty."""
    rows = [
        ["" if pd.isna(cell) else f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in table.itertuples(index=False)
    ]
    return Table([*map(_words, table.columns)], rows, _are_text(table, list(table.columns)))


def _words(name: object) -> str:
    """Return what a page shows in place of a column's or a row's name."""
    return WORDS.get(str(name), str(name).replace("_", " "))


def _are_text(table: pd.DataFrame, columns: Sequence[str]) -> list[bool]:
    return [not pd.api.types.is_numeric_dtype(table[column]) for column in columns]


def _kept(table: pd.DataFrame, where: Mapping[str, Sequence]) -> pd.DataFrame:
    for column, values in where.items():
        table = table[table[column].isin(list(values))]
    return table
