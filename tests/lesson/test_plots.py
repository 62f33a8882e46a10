import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt

from lib import config, evaluation, plots, waveforms


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plots.subplots()[1]


def test_every_class_has_a_colour_and_a_line_style_of_its_own():
    assert tuple(plots.COLOURS) == config.CLASS_NAMES == tuple(plots.LINE_STYLES)
    assert len(set(plots.COLOURS.values())) == len(set(plots.LINE_STYLES.values())) == 3
    assert not set(plots.SERIES_COLOURS) & set(plots.COLOURS.values())


def test_save_writes_png_and_pdf_that_are_the_same_every_time(tmp_path, ax):
    ax.plot([0, 1])
    first = [path.read_bytes() for path in plots.save(ax.figure, "figure", directory=tmp_path / "new")]
    second = [path.read_bytes() for path in plots.save(ax.figure, "figure", directory=tmp_path / "new")]
    assert first == second
    assert first[0].startswith(b"\x89PNG") and first[1].startswith(b"%PDF")


def test_waveform_and_log_mel_share_their_time_axis_with_units(tone):
    _, axes = plots.subplots(2, 1, height_inches=4, sharex=True)
    waveform = tone(440, 2.0)
    plots.waveform(axes[0], waveform)
    plots.log_mel(axes[1], waveforms.log_mel(waveform), colour_bar=False)
    assert {ax.get_xlim() for ax in axes} == {(0.0, 2.0)}
    assert "seconds" in axes[1].get_xlabel() and "Hz" in axes[1].get_ylabel()


def test_training_curves_show_train_and_validation_from_epoch_one(ax):
    plots.training_curves(ax, [3, 2, 1], [3, 2.5, 2.6], quantity="Loss (nats)", best_epoch=2)
    assert [line.get_label() for line in ax.lines] == ["train", "validation", "kept: epoch 2"]
    assert list(ax.lines[0].get_xdata()) == [1, 2, 3]


def test_confusion_matrix_writes_counts_and_colours_by_row(ax):
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 99]])
    plots.confusion_matrix(ax, counts)
    assert [text.get_text() for text in ax.texts[:2]] == ["8\n80%", "2\n20%"]
    shares = ax.collections[0].get_array().reshape(3, 3)
    assert shares[2, 2] == pytest.approx(0.99) and shares[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("kind", "area_name"), [("roc", "AUC"), ("pr", "AP")])
def test_the_area_under_the_drawn_line_is_the_area_in_the_legend(ax, rng, kind, area_name):
    rows = rng.dirichlet([1, 1, 1], 60).round(1)  # rounded: many ties
    rows = rows / rows.sum(axis=1, keepdims=True)
    curves = getattr(evaluation, f"{kind}_curves")(rows, rng.integers(0, 3, 60))
    getattr(plots, f"{kind}_curves")(ax, curves)
    legend = ax.get_legend_handles_labels()[1]
    for label, curve in curves.items():
        assert f"{label}: {area_name} {curve.area:.3f} (n = {curve.n_positive})" in legend
    assert any(text.startswith("chance") for text in legend)
    for line, curve in zip(ax.lines, curves.values(), strict=False):
        x, y = line.get_data()
        steps = np.diff(x)
        area = steps @ y[1:] if line.get_drawstyle() == "steps-pre" else steps @ (y[1:] + y[:-1]) / 2
        assert area == pytest.approx(curve.area)


def test_score_bars_draw_value_and_interval_and_say_where_there_is_none(ax):
    score = {"value": 0.8, "low": 0.7, "high": 0.85}
    nothing = {"value": None, "low": None, "high": None}
    plots.score_bars(ax, {"test": {"yamnet": score, "vote": nothing}}, label="Macro F1", n={"yamnet": 5, "vote": 0})
    interval = next(line for line in ax.lines if list(line.get_xdata()) == [0.7, 0.85])
    assert interval.get_marker() == "|"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["yamnet (n = 5)", "vote (n = 0)"]
    assert "no value" in [text.get_text() for text in ax.texts]
