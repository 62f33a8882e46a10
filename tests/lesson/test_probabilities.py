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
    tables = [probabilities.table(FRAME, ROWS, scheme=scheme) for scheme in ("random", "grouped")]
    read = pd.read_csv(probabilities.write(tables, tmp_path / "tables" / "p.csv"))
    assert tuple(read.columns) == probabilities.COLUMNS
    assert read["scheme"].tolist() == ["grouped"] * 2 + ["random"] * 2
    assert read["clip_id"].tolist() == ["a", "b"] * 2
    np.testing.assert_allclose(read.loc[0, list(config.CLASS_NAMES)].to_numpy(float), ROWS[1])


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[:, :2], ROWS * 2, np.full((2, 3), np.nan)])
def test_what_is_no_probability_is_refused(rows):
    with pytest.raises(ValueError, match=r"shape|sum to 1"):
        probabilities.table(FRAME, rows, scheme="grouped")


def told(model, stage, *, kept, crying, condition="as recorded", order=(0, 1)):
    """Return two clips' rows of one stage under one condition."""
    values = np.array([[crying, 1 - crying, 0.0]] * 2)
    table = probabilities.table(FRAME, values, scheme="without_s").iloc[list(order)]
    return table.assign(model=model, stage=stage, kept=kept, condition=condition)


def test_networks_and_stages_answer_for_the_same_clips_in_one_order():
    rows, found = probabilities.by_model(
        pd.concat(
            told(model, stage, kept=kept, crying=crying + louder, condition=condition, order=order)
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


def test_networks_that_answered_for_other_clips_are_not_compared():
    tables = [told("yamnet", "A", kept=True, crying=0.2), told("wav2vec2", "A", kept=True, crying=0.2)[:1]]
    with pytest.raises(ValueError, match="same clips"):
        probabilities.by_model(pd.concat(tables))


def test_a_study_of_other_recordings_is_not_used(tmp_path):
    path = tmp_path / "study_left_out.csv"
    assert probabilities.read_left_out(path, ["a"]).empty
    pd.DataFrame({"clip_id": ["a", "b", "b"], "kept": True}).to_csv(path, index=False)
    assert len(probabilities.read_left_out(path, ["b", "a"])) == 3
    for others in (["a"], ["a", "b", "c"], ["x", "y"]):
        assert probabilities.read_left_out(path, others).empty
    with pytest.raises(ValueError, match="other recordings"):
        probabilities.by_model(probabilities.read_left_out(tmp_path / "missing.csv", ["a"]))
