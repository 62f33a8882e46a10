"""Shortcuts: how well a cue that is no content predicts the class.

A cue (bandwidth, duration, level, silence, sample rate) that predicts the class in these recordings predicts nothing in
a home. It is measured on the recordings as published, on the clips after preprocessing, and on windows as
training draws them; each time randomised trees predict groups, and corpus groups, that they were not fitted on.

Not all of it is a shortcut: pauses, crest and bandwidth belong to a sound too. What falls to chance or below on unseen
corpora was the recorder's. What the networks lose without a cue is in `lib.studies.robustness` (telephone, gain).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import signal
from sklearn.ensemble import ExtraTreesClassifier

from lib import audio, config, evaluation, manifest, plots, preprocess, splits, windows
from lib.studies.folds import group_folds
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, columns
from lib.waveforms import prepare

CUES = {
    "bandwidth": ("bandwidth_hz", "edge_hz"),
    "duration": ("duration_seconds",),
    "level": ("level_db", "peak_db"),
    "silence and clipping": ("zero_share", "quiet_share", "clipped_share"),
    "sample rate": ("sample_rate_hz",),
}
ALL_CUES = "all together"
MEASURES = tuple(name for names in CUES.values() for name in names)
STAGE_HATCHES = ("", "//", "..")  # told apart by print in grey too
CHANCE = 1 / 3  # balanced accuracy of three classes
STAGES = ("recordings as published", "after preprocessing", "training windows")
SCHEMES = ("other groups", "unseen corpora")

EDGE_DB = 60.0  # a resampler leaves less than this below the spectrum's peak, a room more: there the bandwidth ends
N_FFT = 512
N_FOLDS = 5
N_TREES, MIN_CLIPS_A_LEAF = 200, 5

Waveforms = Sequence[np.ndarray]


def run(inputs: Inputs) -> Result:
    """Score classifiers that are given one cue alone: table shortcuts, as `audit`."""
    rows, waveforms = inputs.rows(*manifest.SPLITS), inputs.waveforms(*manifest.SPLITS)
    drawn = windows.draw(rows, dict(zip(rows["clip_id"], waveforms, strict=True)), seed=SEED)[1]
    windowed = measure_all([prepare(window) for window in drawn])
    measured = measure_recordings(rows, inputs.recordings), measure_all(waveforms), windowed
    audited = audit(rows, dict(zip(STAGES, measured, strict=True)), seed=SEED)
    figures = {
        "chance": CHANCE,
        "n_clips": len(rows),
        "n_groups": int(rows["group_id"].nunique()),
        "n_corpus_groups": int(splits.corpus_group(rows["source"]).nunique()),
    }
    return Result(figures, {"shortcuts": audited})


def audit(
    rows: pd.DataFrame, stages: Mapping[str, pd.DataFrame], *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0
) -> pd.DataFrame:
    """Score classifiers that are given one cue alone, or all of them: by stage `MEASURES` of each of the rows.

    Returns
    -------
    DataFrame
        One row per scheme (other groups: grouped folds; unseen corpora: one corpus group left out), stage and cue:
        balanced_accuracy (mean recall; chance is 1/3) with low and high, n_clips, n_groups.

    Raises
    ------
    ValueError
        If a stage lacks a measure, has another number of clips, or a value that is not finite.
    """
    for stage, measures in stages.items():
        lacking = [name for name in MEASURES if name not in measures]
        if lacking or len(measures) != len(rows):
            raise ValueError(f"{stage}: {len(measures)} rows for {len(rows)} clips, lacking {lacking}.")
        if not np.isfinite(measures[list(MEASURES)].to_numpy(float)).all():
            raise ValueError(f"{stage}: a measure is NaN or infinite.")
    class_ids = manifest.class_ids(rows)
    groups = rows["group_id"].to_numpy()
    size = {"n_clips": len(rows), "n_groups": int(rows["group_id"].nunique())}
    table: list[dict[str, object]] = []
    for scheme, folds in _folds(rows, class_ids, seed=seed).items():
        for cue, names in {**CUES, ALL_CUES: MEASURES}.items():
            for stage, measures in stages.items():
                values = blind_predictions(measures[list(names)].to_numpy(), class_ids, folds, seed=seed)
                figure = balanced_accuracy(values, class_ids, groups, n_bootstrap=n_bootstrap, seed=seed)
                where = {"scheme": scheme, "stage": stage, "cue": cue}
                table.append(where | columns("balanced_accuracy", figure) | size)
    return pd.DataFrame(table)


def measure(waveform: np.ndarray, sample_rate_hz: float = config.SAMPLE_RATE_HZ) -> dict[str, float]:
    """Return `MEASURES` of a waveform (n_samples,): what a classifier that is given no content may know of it.

    bandwidth_hz holds 99 % of the energy; from edge_hz on the spectrum stays 60 dB below its peak; quiet_share is the
    share of samples within two steps of 16 bit of zero.
    """
    facts = preprocess.measure(waveform)
    facts["quiet_share"] = float(np.mean(np.abs(waveform) <= preprocess.SILENT_STEP))
    facts |= {"bandwidth_hz": audio.bandwidth_hz(waveform, sample_rate_hz), "edge_hz": _edge(waveform, sample_rate_hz)}
    facts |= {"duration_seconds": len(waveform) / sample_rate_hz, "sample_rate_hz": float(sample_rate_hz)}
    return {name: facts[name] for name in MEASURES}


def measure_all(waveforms: Waveforms) -> pd.DataFrame:
    """Return `MEASURES` of 16 kHz waveforms, one row each: stage "after preprocessing" of the processed clips."""
    return pd.DataFrame([measure(waveform) for waveform in waveforms])


def measure_recordings(
    rows: pd.DataFrame, raw: pd.DataFrame, *, data_dir: Path = config.DATA_DIR, n_workers: int = 2
) -> pd.DataFrame:
    """Decode the recordings that clips were cut from, each at its own rate, and measure them as published.

    `raw` is the raw manifest, its paths begin at `data_dir`. Returns `MEASURES` of each clip's recording, in the rows'
    order.

    Raises
    ------
    ValueError
        If a clip's recording is not in the raw manifest.
    AudioError
        If a recording cannot be read.
    """
    paths = raw.set_index("clip_id")["path"]
    # A clip of a longer recording bears its name and the number of the segment: lib.recordings.
    owners = rows["clip_id"].where(
        rows["clip_id"].isin(paths.index), rows["clip_id"].str.replace(r"-\d+$", "", regex=True)
    )
    missing = sorted(set(owners) - set(paths.index))
    if missing:
        raise ValueError(f"{len(missing)} recording(s) are not in the raw manifest, first {missing[0]!r}.")
    names = sorted(set(owners))
    files = [data_dir / paths[name] for name in names]
    if n_workers == 1:
        measured = [_measure_file(file) for file in files]
    else:  # spawned, not forked: the parent is a notebook kernel full of threads
        with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            measured = list(pool.map(_measure_file, files, chunksize=16))
    return pd.DataFrame(measured, index=names).loc[owners].reset_index(drop=True)


def blind_predictions(
    measures: np.ndarray, class_ids: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]], *, seed: int
) -> np.ndarray:
    """Return probabilities (n_clips, 3), each row's from randomised trees fitted on the other folds.

    Classes weigh alike (Geurts et al. 2006, Extremely randomized trees). Ties go to the first class. A class that is
    not among the rows fitted on gets probability 0.
    """
    predictions = np.zeros((len(class_ids), len(config.CLASS_NAMES)))
    options = {"min_samples_leaf": MIN_CLIPS_A_LEAF, "class_weight": "balanced", "random_state": seed}
    for fitted, scored in folds:
        # Every tree sees all rows: where they are resampled, a cue that says nothing predicts the class that
        # happened to be drawn most, one in each fold, and that scores far from chance where folds are corpora.
        trees = ExtraTreesClassifier(N_TREES, **options).fit(measures[fitted], class_ids[fitted])
        predictions[np.ix_(scored, trees.classes_)] = trees.predict_proba(measures[scored]).round(9)  # ties stay ties
    return predictions


def balanced_accuracy(
    probabilities: np.ndarray, class_ids: np.ndarray, groups: Sequence[str], *, n_bootstrap: int, seed: int
) -> evaluation.Interval:
    """Return the mean recall of the classes present, with its interval over groups as `evaluation.score` draws it."""
    counts = evaluation.confusion_by_group(probabilities, class_ids, groups)
    drawn = np.tensordot(evaluation.group_draws(len(counts), n_bootstrap, seed), counts, axes=1)
    value, spread = (
        np.nanmean(evaluation.figures(each)["recall"], axis=1) for each in (counts.sum(axis=0)[None], drawn)
    )
    return evaluation.interval(value[0], spread, n_groups=len(counts))


def _folds(rows: pd.DataFrame, class_ids: np.ndarray, *, seed: int) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return (rows fitted on, rows scored) of each of `SCHEMES`."""
    names = splits.corpus_group(rows["source"]).to_numpy()
    left_out = [(np.flatnonzero(names != name), np.flatnonzero(names == name)) for name in np.unique(names)]
    by_group = group_folds(class_ids, rows["group_id"].to_numpy(), n_folds=N_FOLDS, seed=seed)
    return dict(zip(SCHEMES, (by_group, left_out), strict=True))


def _edge(waveform: np.ndarray, sample_rate_hz: float) -> float:
    """Return the highest frequency in hertz whose mean power is within `EDGE_DB` of the peak; 0 for silence."""
    frequencies_hz, power = signal.welch(waveform, sample_rate_hz, nperseg=min(N_FFT, len(waveform)))
    present = np.flatnonzero(power > power.max() * 10 ** (-EDGE_DB / 10))
    return float(frequencies_hz[present[-1]]) if len(present) else 0.0


def _measure_file(path: Path) -> dict[str, float]:
    rate_hz = audio.inspect(path).sample_rate_hz
    return measure(audio.load(path, sample_rate_hz=rate_hz), rate_hz)


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw what each cue alone predicts, once per scheme."""
    figures = {}
    for scheme, part in tables["shortcuts"].groupby("scheme", sort=False):
        figure, ax = plots.subplots(height_inches=0.42 * part["cue"].nunique() + 1.0)
        _draw_cues(ax, part)
        ax.set_title(scheme, loc="left", pad=22)
        figures[f"shortcuts_{scheme.replace(' ', '_')}"] = figure
    return figures


def _draw_cues(ax: Axes, table: pd.DataFrame) -> None:
    """Draw one scheme of `audit`: balanced accuracy by cue and stage, and chance."""
    cues, stages = (list(dict.fromkeys(table[name])) for name in ("cue", "stage"))
    height = 0.8 / len(stages)
    for number, stage in enumerate(stages):
        rows = table[table["stage"] == stage]
        places = np.array([cues.index(cue) for cue in rows["cue"]]) + (number - (len(stages) - 1) / 2) * height
        look = {"color": plots.SERIES_COLOURS[number], "hatch": STAGE_HATCHES[number], "edgecolor": "white"}
        ax.barh(places, rows["balanced_accuracy"], height=height * 0.9, label=stage, linewidth=0, **look)
        for place, (_, row) in zip(places, rows.iterrows(), strict=True):
            ax.plot(row[["balanced_accuracy_low", "balanced_accuracy_high"]], [place, place], color="black", lw=1)
    ax.axvline(CHANCE, color="black", linewidth=1, linestyle="--", label="chance")
    ax.set_yticks(range(len(cues)), cues)
    ax.set_ylim(len(cues) - 0.5, -0.5)
    ax.set(xlim=(0, 1), xlabel="Balanced accuracy (bar: value, line: 95 % interval)")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4)
