"""One look for every figure: draws on a given Axes what others computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lib import config

if TYPE_CHECKING:
    from lib.evaluation import Curve
    from lib.waveforms import LogMel

# Okabe and Ito 2008, "Color Universal Design": told apart by every common kind of colour vision.
COLOURS = {"crying": "#0072B2", "screaming": "#D55E00", "normal": "#009E73"}
LINE_STYLES = {"crying": "-", "screaming": "--", "normal": "-."}  # and by print in grey
TRAIN_COLOUR, VALIDATION_COLOUR = "#7F7F7F", "#000000"
SERIES_COLOURS = ("#56B4E9", "#E69F00", "#CC79A7", "#999999")  # models, splits: never a class colour

PAGE_INCHES = 6.3  # 16 cm, the text width of the report's PDF
STYLE = {
    "figure.constrained_layout.use": True,
    "figure.figsize": (PAGE_INCHES, 3.2),
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "pdf.fonttype": 42,  # text stays text in the PDF
}


def use_style() -> None:
    """Make the project's style the one of every figure drawn from here on."""
    plt.rcParams.update(STYLE)


def subplots(n_rows: int = 1, n_cols: int = 1, *, height_inches: float = 3.2, **kwargs: object) -> tuple[Figure, Axes]:
    """Return a figure as wide as the report's page, and its Axes; `kwargs` go to `matplotlib.pyplot.subplots`."""
    use_style()
    return plt.subplots(n_rows, n_cols, figsize=(PAGE_INCHES, height_inches), **kwargs)


def save(figure: Figure, name: str, *, directory: Path) -> tuple[Path, Path]:
    """Write a figure as PNG (150 dpi) and PDF and return their paths; without dates, so equal figures are equal files.

    `name` has no ending ("03_curves"); `directory` is made if missing.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    png, pdf = directory / f"{name}.png", directory / f"{name}.pdf"
    figure.savefig(png, dpi=STYLE["savefig.dpi"], metadata={"Software": None})
    figure.savefig(pdf, metadata={"CreationDate": None})
    return png, pdf


close = plt.close  # forget a figure that was shown by hand, so that the notebook does not show it again


def waveform(
    ax: Axes, samples: np.ndarray, sample_rate_hz: int = config.SAMPLE_RATE_HZ, *, colour: str = "0.25"
) -> None:
    """Draw a waveform (n_samples,) over time in seconds."""
    times_seconds = np.arange(len(samples)) / sample_rate_hz
    ax.plot(times_seconds, samples, color=colour, linewidth=0.5, rasterized=True)
    ax.set(xlim=(0, len(samples) / sample_rate_hz), ylim=(-1.05, 1.05), xlabel="Time (seconds)", ylabel="Amplitude")


def log_mel(ax: Axes, mel: LogMel, *, colour_bar: bool = True) -> None:
    """Draw a `lib.waveforms.LogMel` over time in seconds; mels are spaced evenly, ticks are at round frequencies."""
    n_mels, n_frames = mel.power_db.shape
    extent = (0, n_frames * mel.hop_seconds, -0.5, n_mels - 0.5)
    image = ax.imshow(mel.power_db, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-80, vmax=0)
    ticks_hz = [hz for hz in (250, 500, 1000, 2000, 4000, 8000) if hz <= mel.frequencies_hz[-1] + 1]
    ax.set_yticks(np.interp(ticks_hz, mel.frequencies_hz, np.arange(n_mels)), [f"{hz:,}" for hz in ticks_hz])
    ax.set(xlabel="Time (seconds)", ylabel="Frequency (Hz)")
    ax.grid(visible=False)
    if colour_bar:
        ax.figure.colorbar(image, ax=ax, label="Power (dB, 0 at the peak)", pad=0.01)


def training_curves(
    ax: Axes, train: Sequence[float], validation: Sequence[float], *, quantity: str, best_epoch: int | None = None
) -> None:
    """Draw a quantity (say ``"Loss (nats)"``) by epoch for train and validation; epochs count from 1."""
    for values, name, colour, style in (
        (train, "train", TRAIN_COLOUR, "--"),
        (validation, "validation", VALIDATION_COLOUR, "-"),
    ):
        epochs = np.arange(1, len(values) + 1)
        ax.plot(epochs, values, color=colour, linestyle=style, marker="o", markersize=2.5, label=name)
    if best_epoch is not None:
        ax.axvline(best_epoch, color="0.5", linewidth=0.9, linestyle=":", label=f"kept: epoch {best_epoch}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    ax.set(xlabel="Epoch", ylabel=quantity)
    ax.legend()


def confusion_matrix(ax: Axes, counts: np.ndarray, *, title: str = "", show_y: bool = True) -> None:
    """Draw counts (3, 3), true class by row: colour is the share of the row, text its count and percentage."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    texts = [f"{int(n):,}\n{share:.0%}" for n, share in zip(np.ravel(counts), shares.flat, strict=True)]
    rows = [f"{label}\n(n = {int(n):,})" for label, n in zip(config.CLASS_NAMES, totals[:, 0], strict=True)]
    sns.heatmap(
        shares, ax=ax, annot=np.reshape(texts, shares.shape), fmt="", annot_kws={"size": 8}, cmap="Blues", vmin=0,
        vmax=1, cbar=False, square=True, xticklabels=config.CLASS_NAMES, yticklabels=rows if show_y else False,
    )  # fmt: skip
    ax.tick_params(axis="x", rotation=30)
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="Predicted class", ylabel="True class" if show_y else "", title=title)


def roc_curves(ax: Axes, curves: Mapping[str, Curve], *, title: str = "") -> None:
    """Draw one ROC curve per class (against the other two), with its area and its n."""
    _curves(ax, curves, area="AUC", drawstyle="default")  # straight over ties, as the trapezoids of its area are
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", label="chance")
    ax.set(xlabel="False positive rate", ylabel="True positive rate (recall)", title=title)
    ax.legend(loc="lower right")


def pr_curves(ax: Axes, curves: Mapping[str, Curve], *, title: str = "") -> None:
    """Draw one precision-recall curve per class, with average precision, n, and the share of the class as chance."""
    _curves(ax, curves, area="AP", drawstyle="steps-pre")  # a sum of rectangles, each as high as its right end
    for label, curve in curves.items():
        chance = curve.n_positive / max(curve.n_positive + curve.n_negative, 1)
        ax.axhline(chance, color=COLOURS[label], linewidth=0.7, linestyle=":")
    ax.plot([], [], color="0.4", linewidth=0.7, linestyle=":", label="chance: share of the class")
    ax.set(xlabel="Recall", ylabel="Precision", title=title)
    ax.legend(loc="lower left")


def _curves(ax: Axes, curves: Mapping[str, Curve], *, area: str, drawstyle: str) -> None:
    for label in (label for label in config.CLASS_NAMES if label in curves):
        curve = curves[label]
        text = f"{label}: {area} {curve.area:.3f} (n = {curve.n_positive:,})"
        look = {"color": COLOURS[label], "linestyle": LINE_STYLES[label], "drawstyle": drawstyle}
        ax.plot(curve.x, curve.y, label=text, **look)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
    ax.set_aspect("equal")


def score_bars(
    ax: Axes, series: Mapping[str, Mapping[str, Mapping[str, float]]], *, label: str, n: Mapping[str, int] | None = None
) -> None:
    """Draw horizontal bars of `label` with 95 % intervals: one row per name, one colour per series.

    `series` maps a series (its n in its name, or given as `n`) to row name (say a model) to ``{"value", "low",
    "high"}``.
    """
    names = list(dict.fromkeys(name for rows in series.values() for name in rows))
    height = 0.8 / len(series)
    handles = []
    for index, (series_name, rows) in enumerate(series.items()):
        offset = (index - (len(series) - 1) / 2) * height
        colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
        handles.append(Patch(color=colour, label=series_name))
        for place, name in enumerate(names):
            if name in rows:
                _bar(ax, place + offset, rows[name], height=height * 0.9, colour=colour)
    ax.set_yticks(range(len(names)), [name if n is None else f"{name} (n = {n[name]:,})" for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)  # first name on top
    ax.set(xlim=(0, 1.12), xlabel=f"{label} (bar: value, line: 95 % interval)", xticks=np.linspace(0, 1, 6))
    ax.grid(visible=False, axis="y")
    if len(series) > 1 or next(iter(series)):
        ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def _bar(ax: Axes, place: float, score: Mapping[str, float], *, height: float, colour: str) -> None:
    value, low, high = (np.nan if score[key] is None else float(score[key]) for key in ("value", "low", "high"))
    if np.isnan(value):
        ax.text(0.01, place, "no value", va="center", fontsize=7, color="0.4")
        return
    ax.barh(place, value, height=height, color=colour)
    ax.plot([low, high], [place, place], color="black", linewidth=1.1, solid_capstyle="butt", marker="|", markersize=5)
    ax.text(max(value, np.nan_to_num(high)) + 0.015, place, f"{value:.2f}", va="center", fontsize=7)
