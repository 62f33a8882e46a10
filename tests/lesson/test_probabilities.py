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


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[:, :2], ROWS * 2, np.full((2, 3), np.nan)])
def test_what_is_no_probability_is_refused(rows):
    with pytest.raises(ValueError, match=r"shape|sum to 1"):
        probabilities.table(FRAME, rows, model="yamnet", scheme="grouped")


def rows_of(model, stage, *, kept, crying, condition="as recorded", order=(0, 1)):
    """Return two clips' rows of one stage under one condition."""
    values = np.array([[crying, 1 - crying, 0.0]] * 2)
    table = probabilities.table(FRAME, values, model=model, scheme="without_s").iloc[list(order)]
    return table.assign(stage=stage, kept=kept, condition=condition)


def test_networks_and_stages_are_read_for_the_same_clips_in_one_order():
    rows, found = probabilities.by_model(
        pd.concat(
            rows_of(model, stage, kept=kept, crying=crying + louder, condition=condition, order=order)
            for condition, louder in (("noise, 0 dB", 0.1), ("as recorded", 0.0))
            for model, stage, kept, crying, order in (
                ("yamnet", "A", False, 0.2, (0, 1)),
                ("yamnet", "B", True, 0.4, (1, 0)),
                ("wav2vec2", "A", True, 0.6, (0, 1)),
            )
        )
    )
    assert rows["clip_id"].tolist() == ["a", "b"] * 2
    assert rows["condition"].tolist() == ["as recorded"] * 2 + ["noise, 0 dB"] * 2
    assert {name: values[:, 0].round(6).tolist() for name, values in found.items()} == {
        "yamnet": [0.4, 0.4, 0.5, 0.5],
        "yamnet.A": [0.2, 0.2, 0.3, 0.3],
        "yamnet.B": [0.4, 0.4, 0.5, 0.5],
        "wav2vec2": [0.6, 0.6, 0.7, 0.7],
        "wav2vec2.A": [0.6, 0.6, 0.7, 0.7],
    }


def test_networks_that_predict_other_clips_are_not_compared():
    tables = [rows_of("yamnet", "A", kept=True, crying=0.2), rows_of("wav2vec2", "A", kept=True, crying=0.2)[:1]]
    with pytest.raises(ValueError, match="same clips"):
        probabilities.by_model(pd.concat(tables))


def test_networks_of_one_split_are_read_without_stages():
    tables = [probabilities.table(FRAME, ROWS, model=name, scheme="grouped") for name in ("yamnet", "wav2vec2")]
    clips, found = probabilities.by_model(pd.concat(tables))
    assert clips["clip_id"].tolist() == ["a", "b"] and set(found) == {"yamnet", "wav2vec2"}
    np.testing.assert_allclose(found["yamnet"], ROWS[::-1])


def test_a_table_without_its_columns_or_rows_is_refused(tmp_path):
    pd.DataFrame({"clip_id": ["a"]}).to_csv(tmp_path / "p.csv")
    with pytest.raises(ValueError, match="no column"):
        probabilities.read(tmp_path / "p.csv")
    with pytest.raises(ValueError, match="no probabilities"):
        probabilities.by_model(pd.DataFrame(columns=list(probabilities.COLUMNS)))
