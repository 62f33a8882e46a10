"""Shortcuts: how well a cue that is no content predicts the class.

A cue (bandwidth, duration, level, silence, sample rate) that predicts the class in these recordings predicts nothing in
a home. It is taken from the recordings as published, from the clips after preprocessing, and from windows as
training draws them; each time randomised trees predict groups, and corpus groups, that they were not fitted on.

Not all of it is a shortcut: pauses, crest and bandwidth belong to a sound too. What falls to chance or below on unseen
corpora was the recorder's. What the networks lose without a cue is in `lib.studies.robustness` (telephone, clipping).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import cross_val_predict

from lib import config, evaluation, manifest, plots, preprocess, splits
from lib.corpora import windows
from lib.studies.folds import group_folds
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, columns, interval_of
from lib.waveforms import bandwidth_hz, prepare

CUES = {
    "bandwidth": ("bandwidth_hz",),
    "duration": ("duration_seconds",),
    "level": ("level_db", "peak_db"),
    "silence and clipping": ("zero_share", "clipped_share"),
    "sample rate": ("sample_rate_hz",),
}
ALL_CUES = "all together"
MEASURES = tuple(name for names in CUES.values() for name in names)
STAGES = ("recordings as published", "after preprocessing", "training windows")
SCHEMES = ("other groups", "unseen corpora")
CHANCE = 1 / 3  # balanced accuracy of three classes
N_TREES, MIN_CLIPS_A_LEAF = 100, 5


def run(inputs: Inputs) -> Result:
    """Score classifiers that are given one cue alone: table shortcuts, as `audit`."""
    rows, waveforms = inputs.rows(*manifest.SPLITS), inputs.waveforms(*manifest.SPLITS)
    index = json.loads((config.DATA_DIR / "processed" / preprocess.INDEX_FILE).read_text(encoding="utf-8"))
    drawn = windows.draw(rows, dict(zip(rows["clip_id"], waveforms, strict=True)), seed=SEED)[1]
    published = as_published(rows, pd.read_csv(config.RAW_MANIFEST_PATH), index)
    sounds = waveforms, [prepare(window) for window in drawn]
    measured = [published, *(pd.DataFrame([measure(sound) for sound in part]) for part in sounds)]
    figures = {"n_clips": len(rows), "n_groups": int(rows["group_id"].nunique())}
    return Result(figures, {"shortcuts": audit(rows, dict(zip(STAGES, measured, strict=True)))})


def as_published(rows: pd.DataFrame, raw: pd.DataFrame, index: Mapping[str, dict]) -> pd.DataFrame:
    """Return `MEASURES` of each clip's recording (level, silence: of its part), as notebooks 01 and 02 measured.

    Parameters
    ----------
    rows, raw : DataFrame
        Manifest rows, and the raw manifest.
    index : mapping
        Content of the processed clips' index: clip_id of the recording, and more, after a colon, to its clips.

    Raises
    ------
    KeyError
        If a clip is not in the index, or its recording not in the raw manifest.
    """
    found = {
        clip["sha256"]: clip | {"recording": key.partition(":")[0]}
        for key, outcome in index.items()
        for clip in outcome["clips"]
    }
    clips = pd.DataFrame([found[sha256] for sha256 in rows["sha256"]])
    recordings = raw.set_index("clip_id").loc[clips["recording"]].reset_index(drop=True)
    measured = {name: clips[f"{name}_before"] for name in preprocess.MEASURES}
    return recordings.assign(**measured)[list(MEASURES)]


def measure(waveform: np.ndarray) -> dict[str, float]:
    """Return `MEASURES` of a waveform (n_samples,) at 16 kHz; the bandwidth holds 99 % of its energy.

    zero_share is of samples within two steps of 16 bit of zero: digital silence is that where an offset was removed.
    """
    rate_hz = config.SAMPLE_RATE_HZ
    facts = {"bandwidth_hz": bandwidth_hz(waveform, rate_hz), "duration_seconds": len(waveform) / rate_hz}
    facts |= preprocess.measure(waveform) | {"sample_rate_hz": float(rate_hz)}
    return facts | {"zero_share": float(np.mean(np.abs(waveform) <= preprocess.SILENT_STEP))}


def audit(rows: pd.DataFrame, stages: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
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
        values = measures.reindex(columns=list(MEASURES)).to_numpy(float)  # NaN where a measure is lacking
        if len(values) != len(rows) or not np.isfinite(values).all():
            raise ValueError(f"{stage}: {len(values)} rows for {len(rows)} clips, or a measure is lacking or infinite.")
    class_ids, groups = manifest.class_ids(rows), rows["group_id"].to_numpy()
    size = {"n_clips": len(rows), "n_groups": int(rows["group_id"].nunique())}
    table: list[dict[str, object]] = []
    for scheme, folds in _folds(rows).items():
        for cue, names in {**CUES, ALL_CUES: MEASURES}.items():
            for stage, measures in stages.items():
                predicted = blind_predictions(measures[list(names)].to_numpy(), class_ids, folds)
                counts = evaluation.confusion_by_group(predicted, class_ids, groups)
                figure = evaluation.bootstrap(
                    counts, lambda n: np.nanmean(evaluation.figures(n)["recall"], axis=1), seed=SEED
                )
                where = {"scheme": scheme, "stage": stage, "cue": cue}
                table.append(where | columns("balanced_accuracy", figure) | size)
    return pd.DataFrame(table)


def blind_predictions(
    measures: np.ndarray, class_ids: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Return probabilities (n_clips, 3), each row's from randomised trees fitted on the other folds.

    Classes weigh alike (Geurts et al. 2006, Extremely randomized trees). Ties go to the first class. A class that is
    not among the rows fitted on gets probability 0.
    """
    # Every tree sees all rows: where they are resampled, a cue that says nothing predicts the class that happened to
    # be drawn most, one in each fold, and that scores far from chance where folds are corpora.
    trees = ExtraTreesClassifier(N_TREES, min_samples_leaf=MIN_CLIPS_A_LEAF, class_weight="balanced", random_state=SEED)
    probabilities = cross_val_predict(trees, measures, class_ids, cv=folds, method="predict_proba")
    return probabilities.round(9)  # ties stay ties


def _folds(rows: pd.DataFrame) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return (rows fitted on, rows scored) of each of `SCHEMES`."""
    names = splits.corpus_group(rows["source"]).to_numpy()
    left_out = [(np.flatnonzero(names != name), np.flatnonzero(names == name)) for name in np.unique(names)]
    return dict(zip(SCHEMES, (group_folds(rows, SEED), left_out), strict=True))


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw what each cue alone predicts by stage, once per scheme."""
    figures = {}
    for scheme, part in tables["shortcuts"].groupby("scheme", sort=False):
        figure, ax = plots.subplots(height_inches=0.5 * part["cue"].nunique() + 1.0)
        series = {
            stage: {row["cue"]: interval_of(row, "balanced_accuracy") for row in of_stage.to_dict("records")}
            for stage, of_stage in part.groupby("stage", sort=False)
        }
        plots.score_bars(ax, series, label=f"Balanced accuracy, {scheme}")
        ax.axvline(CHANCE, color="black", linewidth=1, linestyle="--")
        figures[f"shortcuts_{scheme.replace(' ', '_')}"] = figure
    return figures
