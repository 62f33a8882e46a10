"""Tabulate what this project and soundfile make of each case of bad_audio: read, read with a remark, or refused."""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bad_audio import CASES, BadAudio

from lib import audio

LIMIT_SECONDS = 10.0  # by the clock; more is a hang
SOUNDFILE = """
import sys, soundfile
samples, rate_hz = soundfile.read(sys.argv[1], always_2d=True)
print(f"{len(samples) / rate_hz:.2f} s")
"""


def ours(path: Path) -> tuple[str, str]:
    """Return the outcome and the remarks, or why it is refused."""
    try:
        recording = audio.read(path)
    except audio.AudioError as error:
        return type(error).__name__, error.what
    seconds, peak = len(recording.waveform) / 16_000, np.abs(recording.waveform).max()
    remark = ", with a remark" if recording.remarks else ""
    return f"{seconds:.2f} s of {'sound' if peak > 1e-6 else 'silence'}{remark}", "; ".join(recording.remarks)


def by_soundfile(path: Path) -> str:
    """Return the length that soundfile reads, its error, or that it hangs or crashes."""
    command = [sys.executable, "-c", SOUNDFILE, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return "hangs"
    except ValueError:
        return "ValueError"
    if done.returncode < 0:
        return "crashes"
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1].split(":")[0]


def row(case: BadAudio, folder: Path) -> dict[str, str]:
    """Return one line of the table."""
    path = case.build(folder)
    outcome, why = ours(path)
    facts = {"name": case.name, "what_is_wrong": case.what_is_wrong, "expected": case.expectation}
    return {**facts, "outcome": outcome, "why": why.replace(str(folder), ""), "soundfile": by_soundfile(path)}


def tabulate(path: Path, cases: Sequence[BadAudio] = CASES) -> list[dict[str, str]]:
    """Write the table and return its rows."""
    rows = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(case, Path(folder)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def kind(outcome: str) -> str:
    """Return which of the three outcomes it is."""
    return "refused" if " s of " not in outcome else "read with a remark" if "remark" in outcome else "read"


def summary(rows: list[dict[str, str]]) -> str:
    """Count outcomes, and those that are not as expected."""
    counts = Counter(kind(each["outcome"]) for each in rows)
    pairs = Counter((kind(each["expected"]), kind(each["outcome"])) for each in rows)
    others = Counter(each["soundfile"] for each in rows if each["soundfile"] in ("hangs", "crashes"))
    lines = [f"{len(rows)} cases: {', '.join(f'{counts[name]} {name}' for name in sorted(counts))}"]
    lines += [f"a remark was due and none came: {pairs['read with a remark', 'read']}"]
    lines += [f"to be read and refused: {pairs['read', 'refused'] + pairs['read with a remark', 'refused']}"]
    lines += [f"to be refused and read: {sum(n for (due, got), n in pairs.items() if due == 'refused' != got)}"]
    return "\n".join([*lines, f"soundfile: {others['hangs']} hangs, {others['crashes']} crashes"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="CSV to write")
    print(summary(tabulate(parser.parse_args().table)))  # noqa: T201 - a program's answer
