"""The probability table: columns, order, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lib import config, probabilities

FRAME = pd.DataFrame(
    {
        "clip_id": ["b", "a"],
        "group_id": ["g1", "g2"],
        "source": "s",
        "label": ["crying", "normal"],
        "split": "validation",
        "duration_seconds": 2.0,
        "licence": "CC0",
    },
    index=[7, 3],
)
ROWS = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])


def test_rows_keep_their_clip(tmp_path):
    tables = [probabilities.table(FRAME, ROWS, model="yamnet", scheme=scheme) for scheme in ("random", "grouped")]
    path = probabilities.write(tables, tmp_path / "tables" / "p.csv")
    read = probabilities.read(path)
    assert tuple(read.columns) == probabilities.COLUMNS
    assert read["scheme"].tolist() == ["grouped"] * 2 + ["random"] * 2
    assert read["clip_id"].tolist() == ["a", "b"] * 2
    assert probabilities.read(path, path, scheme="random", split="validation")["scheme"].tolist() == ["random"] * 4
    assert probabilities.read(path, split="test").empty
    np.testing.assert_allclose(read.loc[0, list(config.CLASS_NAMES)].to_numpy(float), ROWS[1])


def test_what_is_no_probability_and_a_table_without_its_columns_or_rows_are_refused(tmp_path):
    for rows in (ROWS[:1], ROWS[:, :2], ROWS * 2, np.full((2, 3), np.nan)):
        with pytest.raises(ValueError, match=r"shape|sum to 1"):
            probabilities.table(FRAME, rows, model="yamnet", scheme="grouped")
    pd.DataFrame({"clip_id": ["a"]}).to_csv(tmp_path / "p.csv")
    with pytest.raises(ValueError, match="no column"):
        probabilities.read(tmp_path / "p.csv")
    with pytest.raises(ValueError, match="no probabilities"):
        probabilities.by_model(pd.DataFrame(columns=list(probabilities.COLUMNS)))


def test_networks_are_read_for_the_same_clips_in_one_order():
    tables = [probabilities.table(FRAME, ROWS, model=name, scheme="grouped") for name in ("yamnet", "wav2vec2")]
    clips, found = probabilities.by_model(pd.concat(tables))
    assert clips["clip_id"].tolist() == ["a", "b"] and set(found) == {"yamnet", "wav2vec2"}
    np.testing.assert_allclose(found["yamnet"], ROWS[::-1])
    with pytest.raises(ValueError, match="same clips"):
        probabilities.by_model(pd.concat([tables[0], tables[1][:1]]))


def test_windows_are_rows_of_their_own(tmp_path):
    windows = FRAME.assign(kind="window", window_id=["b-1", "a-1"], corpus_group="s", seconds=5.0)
    tables = [probabilities.table(rows, ROWS, model="yamnet", scheme="without_s") for rows in (FRAME, windows)]
    read = probabilities.read(probabilities.write(tables, tmp_path / "p.csv"), kind="window")
    assert read["window_id"].tolist() == ["a-1", "b-1"] and read["seconds"].tolist() == [5.0, 5.0]
