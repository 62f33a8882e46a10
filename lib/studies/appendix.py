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

PREFIX = "study_"  # of the tables and figures that the report copies from build/studies


@dataclass(frozen=True)
class Table:
    """A table as a page shows it: a head, and rows of text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def context(folder: Path) -> dict[str, object] | None:
    """Return what the template is given, or None where no study was run.

    Parameters
    ----------
    folder : Path
        A report's folder: studies.json, and tables and figures named study_*, some of them of earlier builds.

    Returns
    -------
    dict or None
        studies (studies.json), figure (name to a data address of the picture, or nothing), by_measure and wide
        (`tables` as text), mistakes (why each common mistake matters).
    """
    studies, tables = result.read(folder), result.read_tables(folder, prefix=PREFIX)
    if not studies:
        return None
    return {
        "studies": studies,
        "figure": partial(figure_address, folder),
        "by_measure": partial(by_measure, tables),
        "wide": partial(wide, tables),
        "mistakes": {key: why for key, (_, _, why) in MISTAKES.items()},
        "tables": tables,
    }


def figure_address(folder: Path, name: str) -> str:
    """Return the PNG of a figure as a data address, empty where there is none."""
    path = folder / "figures" / f"{PREFIX}{name}.png"
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""


def by_measure(
    tables: Mapping[str, pd.DataFrame],
    name: str,
    *,
    keys: Sequence[str],
    measures: Sequence[str],
    where: Mapping[str, Sequence[object]] | None = None,
    signed: Sequence[str] = ("change", "gain"),
) -> Table:
    """Return a table with one row per `keys` and one column per measure, from columns measure, value, low and high.

    Parameters
    ----------
    tables : mapping of str to DataFrame
    name : str
        Which table.
    keys, measures : sequence of str
        Columns that name a row, and the measures shown.
    where : mapping of str to sequence, optional
        Values of columns to keep.
    signed : sequence of str
        Measures whose sign is written: differences.
    """
    table, rows = _where(tables[name], where), []
    for key, part in table.groupby(list(keys), sort=False):
        found = {row["measure"]: result.interval_of(row) for row in part.to_dict("records")}
        texts = [format_interval(found[m], sign=m in signed) if m in found else "" for m in measures]
        rows.append([*map(str, key), *texts, _size(part.iloc[0])])
    return Table([*keys, *measures, "clips / groups"], rows)


def wide(
    tables: Mapping[str, pd.DataFrame],
    name: str,
    *,
    keys: Sequence[str],
    figures: Sequence[str],
    where: Mapping[str, Sequence[object]] | None = None,
    digits: int = 3,
) -> Table:
    """Return a table with its own rows, from columns <figure>, <figure>_low and <figure>_high; as `by_measure`."""
    table = _where(tables[name], where)
    rows = [
        [*(_text(row[key]) for key in keys)]
        + [format_interval(result.interval_of(row, figure), digits=digits) for figure in figures]
        for row in table.to_dict("records")
    ]
    return Table([name.replace("_", " ") for name in (*keys, *figures)], rows)


def _where(table: pd.DataFrame, where: Mapping[str, Sequence[object]] | None) -> pd.DataFrame:
    for column, values in (where or {}).items():
        table = table[table[column].isin(list(values))]
    return table


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _size(row: Mapping[str, object]) -> str:
    return f"{row['n_clips']:,} / {row['n_groups']:,}"
