"""Curves of macro F1 whose course is known."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from lib import config, evaluation, plots
from lib.studies import noise, robustness

RATE = config.SAMPLE_RATE_HZ


@pytest.fixture
def sound(rng):
    """Return two seconds of a decaying tone over faint noise, level as a processed clip's."""
    times = np.arange(2 * RATE) / RATE
    wave = np.sin(2 * np.pi * 440 * times) * np.exp(-times) * 0.2 + rng.normal(0, 0.005, len(times))
    return wave.astype(np.float32)


def rows_of(n):
    labels = [config.CLASS_NAMES[i % 3] for i in range(n)]
    return pd.DataFrame(
        {"clip_id": [f"c{i}" for i in range(n)], "label": labels, "group_id": [f"g{i}" for i in range(n)]}
    )


def listener(rows, floor):
    """Return a model that predicts the class while the clip's peak is above `floor`, and normal below it."""
    truth = rows["label"].map(config.CLASS_ID).to_numpy()

    def predict(waveforms):
        given_clips = np.array([np.abs(waveform).max() > floor for waveform in waveforms])
        return {"m": np.eye(3)[np.where(given_clips, truth, 2)] * 0.9 + 0.1 / 3}

    return predict


def test_curves_fall_where_nothing_is_left_and_the_change_is_paired(sound):
    rows = rows_of(30)
    clips = [sound * np.float32(1 + i / 60) for i in range(30)]
    given = {"gain": (("off", lambda waveform, _: 0 * waveform), ("on", lambda waveform, _: waveform))}
    found = robustness.predict(rows, clips, listener(rows, 0.05), given=given)
    table = robustness.curves(rows, found, n_bootstrap=100)
    figures = robustness.summary(table)["models"]["m"]
    table = table.set_index("level")
    assert table.loc["", "macro_f1"] == 1 and table.loc["", "change"] == 0
    assert table.loc["off", "macro_f1"] == pytest.approx(1 / 6)  # all normal: F1 of 0, 0 and 1/2
    assert table.loc["off", "change_high"] < -0.7 and table.loc["on", "change"] == 0
    assert table.loc["", "n_groups"] == 30
    assert figures["worst"]["level"] == "off" and figures["n_clearly_lower"] == 1


def test_noise_is_drawn_several_times_and_scored_together(sound):
    rows = rows_of(30)
    given_clips = []

    def predict(waveforms):
        given_clips.append(waveforms[0])
        right = len(given_clips) <= 2  # as recorded, and in the first draw alone
        truth = rows["label"].map(config.CLASS_ID).to_numpy()
        return {"m": np.eye(3)[truth if right else (truth + 1) % 3]}

    given = {"noise": noise.CONDITIONS["noise"][:1]}
    found = robustness.predict(rows, [sound] * 30, predict, given=given, n_draws=4)
    table = robustness.curves(rows, found, n_bootstrap=50).set_index("kind")
    assert len({waveform.tobytes() for waveform in given_clips}) == 5
    assert table["n_draws"].tolist() == [1, 4] and table["n_clips"].tolist() == [30, 30]
    assert table.loc["noise", "macro_f1"] == pytest.approx(0.25)
    assert table.loc["noise", "change"] == pytest.approx(-0.75)
    assert table.loc["noise", "n_groups"] == 30


def test_too_few_groups_give_curves_without_intervals(sound):
    rows = rows_of(6).assign(group_id="one")
    found = robustness.predict(rows, [sound] * 6, listener(rows, 0.0), given={})
    table = robustness.curves(rows, found, n_bootstrap=20)
    assert len(table) == 1 and table["macro_f1_low"].isna().all() and evaluation.MIN_GROUPS > 1
    assert "worst" not in robustness.summary(table)["models"]["m"]


def test_the_drawing_shows_every_level_after_the_clip_as_recorded(sound):
    rows = rows_of(12)
    given = {"clipping": noise.CONDITIONS["clipping"]}
    table = robustness.curves(rows, robustness.predict(rows, [sound] * 12, listener(rows, 0.01), given=given))
    _, ax = plots.subplots()
    robustness.draw_levels(ax, table, legend=True)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["none", "1 %", "5 %", "20 %"]
    plt.close("all")
