"""What stands beside the headline, in sentences: noise, hours of sound, and what is taken for a cry or a scream.

Every number is read from a report's files; what a report does not hold gives no sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

EVENT_LABELS = ("crying", "screaming")


def caveats(report_dir: Path, *, chosen: str) -> list[str]:
    """Return a sentence or two for each limit that a report has measured.

    Parameters
    ----------
    report_dir : Path
        With tables/06_left_out_noise.csv and trust.json, where they were computed.
    chosen : str
        The rule of the ensemble.
    """
    noise_path, trust_path = report_dir / "tables" / "06_left_out_noise.csv", report_dir / "trust.json"
    trust = json.loads(trust_path.read_text(encoding="utf-8")) if trust_path.is_file() else {}
    found = [in_noise(pd.read_csv(noise_path), chosen=chosen)] if noise_path.is_file() else []
    found += [taken_for_alarms(trust["hard_negatives"])] if "hard_negatives" in trust else []
    found += [in_long_recordings(trust["long_recordings"])] if "long_recordings" in trust else []
    return found


def in_noise(table: pd.DataFrame, *, chosen: str) -> str:
    """Say what noise does to sources never met (notebook 06, section 6)."""
    rows = table[(table["model"] == chosen) & table["condition"].str.startswith("noise")]
    figures = " and ".join(f"{row['macro F1']} ({row['condition']})" for _, row in rows.iterrows())
    return f"That is in quiet: with noise over the same clips its macro-F1 is {figures}."


def taken_for_alarms(section: Mapping) -> str:
    """Say which kinds of normal sound from sources never met raise an alarm most often (9.4 there)."""
    worst = section["left_out"]["ensemble"]["worst"]
    kinds = ", ".join(f"{kind} ({row['n_alarms']} of {row['n_clips']} clips)" for kind, row in worst.items())
    return f"Of those sources, most often taken for a cry or a scream: {kinds}."


def in_long_recordings(section: Mapping) -> str:
    """Say what is found in hours that hold a few minutes of cries and screams (9.6 there)."""
    figures = "; ".join(
        f"{label}: event F1 {_interval(section['event_f1'][label])}, recall {section['recall'][label]['value']:.2f}, "
        f"{section['false_alarms_per_hour'][label]['value']:.1f} false alarms an hour"
        for label in EVENT_LABELS
    )
    hours, share = section["hours"], 100 * section["prevalence"]
    return (
        f"In {hours:.0f} hours of soundscapes with cries and screams for {share:.1f} % of the time, YAMNet's events, "
        f"patch by patch, are far from that: {figures}. "
        "(The service's chunks of 5 to 15 s were not scored on such hours.)"
    )


def _interval(figure: Mapping) -> str:
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
