"""What stands beside the headline, in sentences: noise, hours of sound, and what is taken for a cry or a scream.

Notebook 06 writes them with `write`; README, index, PDF and model card read them. Every number comes from the report's
tables; what a report does not hold, or holds of other networks, gives no sentence.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lib import config

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME = "caveats.json"
EVENT_LABELS = config.CLASS_NAMES[:2]


def read(report_dir: Path) -> list[str]:
    """Return the sentences of a report; none where notebook 06 has not run."""
    path = Path(report_dir) / FILE_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def write(report_dir: Path, *, noise: pd.DataFrame, trust: Mapping, chosen: str, stale: Collection[str]) -> list[str]:
    """Write the sentences to a report's folder, and return them.

    Parameters
    ----------
    report_dir : Path
    noise : DataFrame
        Columns condition, model and macro F1 (with its interval, as text); empty where it was not computed.
    trust : mapping
        trust.json by section.
    chosen : str
        The rule of the ensemble.
    stale : collection of str
        Sections of trust.json that other networks were judged in: they are left out.
    """
    of_trust = {"hard_negatives": taken_for_alarms, "long_recordings": in_long_recordings}
    found = [in_noise(noise, chosen=chosen) if len(noise) else None]
    found += [say(trust[name]) for name, say in of_trust.items() if name in trust and name not in stale]
    sentences = [sentence for sentence in found if sentence]
    (Path(report_dir) / FILE_NAME).write_text(json.dumps(sentences, indent=2) + "\n", encoding="utf-8")
    return sentences


def in_noise(table: pd.DataFrame, *, chosen: str) -> str | None:
    """Say what noise does to sources never met (notebook 06, section 6)."""
    rows = table[(table["model"] == chosen) & table["condition"].str.startswith("noise")]
    figures = " and ".join(f"{row['macro F1']} ({row['condition']})" for _, row in rows.iterrows())
    return (
        f"On sources never met, with noise over the same clips, the ensemble's macro-F1 is {figures}."
        if figures
        else None
    )


def taken_for_alarms(section: Mapping) -> str:
    """Say which kinds of normal sound from sources never met raise an alarm most often (9.4 there)."""
    worst = section["left_out"]["ensemble"]["worst"]
    kinds = ", ".join(f"{kind} ({row['n_alarms']} of {row['n_clips']} clips)" for kind, row in worst.items())
    return f"Most often taken for a cry or a scream on sources never met, of kinds with enough groups: {kinds}."


def in_long_recordings(section: Mapping) -> str:
    """Say what is found in hours that hold a few minutes of cries and screams (9.6 there)."""
    figures = "; ".join(
        f"{label}: event F1 {_text(section['event_f1'][label])}, recall {_text(section['recall'][label])}, "
        f"{_text(section['false_alarms_per_hour'][label], digits=1)} false alarms an hour"
        for label in EVENT_LABELS
    )
    hours, share = section["hours"], 100 * section["prevalence"]
    return (
        f"Clips are not days: in {hours:.0f} hours of soundscapes with cries and screams for {share:.1f} % of the "
        f"time, YAMNet's events, patch by patch, score: {figures}. "
        "(The service's chunks of 5 to 15 s were not scored on such hours.)"
    )


def _text(figure: Mapping, *, digits: int = 2) -> str:
    """Return a figure with its interval; None stands for what too few events or groups cannot tell."""
    if figure["value"] is None:
        return "not known"
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    return f"{value:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")
