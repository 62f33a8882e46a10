"""Tabulate what this project makes of each case of bad_audio: read, read with a remark, or refused."""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bad_audio import CASES, BadAudio

from lib import audio


def outcome(path: Path) -> tuple[str, str]:
    """Return what comes of a file, and the remarks or why it is refused."""
    try:
        recording = audio.read(path)
    except audio.AudioError as error:
        return type(error).__name__, error.what
    seconds, peak = len(recording.waveform) / 16_000, np.abs(recording.waveform).max()
    remark = ", with a remark" if recording.remarks else ""
    return f"{seconds:.2f} s of {'sound' if peak > 1e-6 else 'silence'}{remark}", "; ".join(recording.remarks)


def tabulate(path: Path, cases: Sequence[BadAudio] = CASES) -> list[dict[str, str]]:
    """Write the table and return its rows."""
    rows = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            came, why = outcome(case.build(Path(folder)))
            facts = {"name": case.name, "what_is_wrong": case.what_is_wrong, "expected": case.expectation}
            rows.append(facts | {"outcome": came, "why": why.replace(folder, "")})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def kind(came: str) -> str:
    """Return which of the three outcomes it is."""
    return "refused" if " s of " not in came else "read with a remark" if "remark" in came else "read"


def summary(rows: list[dict[str, str]]) -> str:
    """Count outcomes, and those that are not as expected."""
    counts = Counter(kind(each["outcome"]) for each in rows)
    n_others = sum(kind(each["expected"]) != kind(each["outcome"]) for each in rows)
    return f"{len(rows)} cases: {', '.join(f'{counts[name]} {name}' for name in sorted(counts))}; {n_others} unexpected"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="CSV to write")
    print(summary(tabulate(parser.parse_args().table)))  # noqa: T201 - a program's answer
