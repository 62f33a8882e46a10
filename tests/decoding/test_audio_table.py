"""The table of readers: what it says of each outcome, and that a hang of a reader is a row."""

from __future__ import annotations

import csv

import bad_audio_table
import numpy as np
import pytest
from bad_audio import CASES


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(0), "returns 0 samples"),
        (np.zeros(8_000), "1.00 s of silence"),
        (np.full((4_000, 2), 0.5), "0.50 s of sound, 2 channels"),
        (np.full(8_000, np.nan), "1.00 s of sound with NaN or infinity"),
        (np.full(8_000, 3.0), "1.00 s of sound up to 3"),
    ],
)
def test_results_are_described_in_words(samples, words):
    assert bad_audio_table.describe(samples, 8_000) == words


def test_the_table_has_a_row_a_case_and_a_hang_is_a_row(tmp_path, monkeypatch):
    chosen = [case for case in CASES if case.name in ("path/named_pipe", "wav/cut_50", "samples/silence")]
    monkeypatch.setattr(bad_audio_table, "CASES", chosen)
    monkeypatch.setattr(bad_audio_table, "READERS", ("ours", "soundfile"))
    bad_audio_table.tabulate(tmp_path / "tables" / "bad_audio.csv")
    with (tmp_path / "tables" / "bad_audio.csv").open(encoding="utf-8") as table:
        rows = {row["name"]: row for row in csv.DictReader(table)}
    assert rows["path/named_pipe"]["soundfile"].startswith("HANGS")
    assert rows["path/named_pipe"]["ours"] == rows["path/named_pipe"]["expected"] == "MissingAudio"
    assert (rows["wav/cut_50"]["ours"], rows["wav/cut_50"]["soundfile"]) == ("TruncatedAudio", "0.50 s of sound")
    assert rows["samples/silence"]["ours"] == "1.00 s of silence"
