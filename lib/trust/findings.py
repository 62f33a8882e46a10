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
