"""What a section of the trust report hands over: figures for trust.json and tables for notebook 06."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Findings:
    """The result of one section.

    Parameters
    ----------
    figures : mapping
        Goes to ``reports/<profile>/trust.json`` under the section's name: plain numbers, text, lists and mappings.
        An interval is ``{"value", "low", "high"}`` as `lib.evaluation.score` gives it; n in clips and in groups.
    tables : mapping of name to DataFrame
        Written to ``reports/<profile>/tables/trust_<name>.csv``, tidy, without index.
    """

    figures: Mapping[str, object]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def flat(name: str, figure: Mapping[str, object]) -> dict[str, object]:
    """Return a figure with its interval as three columns of a table: name, name_low, name_high."""
    return {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}


def interval_of(row: Mapping[str, object], name: str) -> dict[str, float | None]:
    """Return what `flat` made of a figure, read from a row of such a table: value, low, high."""
    ends = {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
    return {end: None if pd.isna(value) else float(value) for end, value in ends.items()}
