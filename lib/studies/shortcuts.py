"""The shortcut audit: how far a classifier gets that sees no content, and what the networks lose without its cues.

A cue (band, duration, level, silence, rate) that gives the class away in these recordings gives nothing away in a home.
It is measured on the recordings as published, on what the networks hear after preprocessing, and on the crops that
training draws; each time randomised trees answer for groups, and for families of sources, that they never met.

Not all of it is a shortcut: pauses, crest and band belong to a sound too. What falls to chance on other sources, or
below, was the recorder's; the networks' own loss with a cue destroyed says how much they lean on it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import signal
from sklearn.ensemble import ExtraTreesClassifier

from lib import audio, augment, config, ensemble, evaluation, manifest, preprocess, splits
from lib.studies.findings import Findings, flat, interval_of

CUES = {
    "bandwidth": ("bandwidth_hz", "edge_hz"),
    "duration": ("duration_seconds",),
    "level": ("level_db", "peak_db"),
    "silence and clipping": ("zero_share", "quiet_share", "clipped_share"),
    "sample rate": ("sample_rate_hz",),
}
ALL_CUES = "all together"
MEASURES = tuple(name for names in CUES.values() for name in names)
STAGES = ("recordings as published", "after preprocessing", "crops of training")
SCHEMES = ("other groups", "other sources")
UNTOUCHED = "as they are"

EDGE_DB = 60.0  # the band ends where the spectrum stays this far below its peak: a resampler leaves less, a room more
N_FFT = 512
N_FOLDS = 5
N_TREES, MIN_CLIPS_A_LEAF = 200, 5
CROP_SECONDS, P_AUGMENT = 4.0, 0.5  # near what notebooks 03 and 04 draw
LOW_PASS_HZ = 4000.0
CUT_SECONDS = 1.0
HIGHEST_PEAK = 0.99  # of a clip brought to one loudness: rounding must not pass full scale

Waveforms = Sequence[np.ndarray]


def findings(
    rows: pd.DataFrame,
    stages: Mapping[str, pd.DataFrame],
    *,
    test_rows: pd.DataFrame,
    answers: Mapping[str, Mapping[str, np.ndarray]],
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> Findings:
    """Audit the cues, and what the networks lose without them.

    Parameters
    ----------
    rows, stages
        As for `audit`.
    test_rows, answers
        As for `cue_destroyed`.
    n_bootstrap, seed : int

    Returns
    -------
    Findings
        Tables ``shortcuts`` (`audit`) and ``cue_destroyed``.
    """
    audited = audit(rows, stages, n_bootstrap=n_bootstrap, seed=seed)
    destroyed = cue_destroyed(test_rows, answers, n_bootstrap=n_bootstrap, seed=seed)
    counts = {"n_clips": len(rows), "n_groups": int(rows["group_id"].nunique())}
    counts["n_families"] = int(splits.corpus_group(rows["source"]).nunique())
    tested = {"n_clips": len(test_rows), "n_groups": int(test_rows["group_id"].nunique())}
    figures = {
        "audit": counts | {"chance": 1 / len(config.CLASS_NAMES), "cues": _nest(audited, ("scheme", "cue", "stage"))},
        "cue_destroyed": tested | {"networks": _nest(destroyed, ("network", "condition"))},
    }
    return Findings(figures, {"shortcuts": audited, "cue_destroyed": destroyed})


def audit(
    rows: pd.DataFrame,
    stages: Mapping[str, pd.DataFrame],
    *,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Score classifiers that see nothing but one cue, or all of them.

    Parameters
    ----------
    rows : DataFrame
        label, group_id and source of each clip.
    stages : mapping of str to DataFrame
        Stage (of `STAGES`) to `MEASURES` of each clip, in the rows' order; the first is what the others change.

    Returns
    -------
    DataFrame
        One row a scheme (other groups: grouped folds; other sources: one family left out), stage and cue: macro_f1 and
        balanced_accuracy (mean recall; chance is 1/3) with low and high, and change of macro F1 from the first stage
        on the same clips, with change_low and change_high; n_clips, n_groups.

    Raises
    ------
    ValueError
        If a stage lacks a measure, has another number of clips, or a value that is not finite.
    """
    for stage, measures in stages.items():
        _check_measures(measures, stage=stage, n_clips=len(rows))
    class_ids = manifest.class_ids(rows)
    truth = {"class_ids": class_ids, "groups": rows["group_id"].to_numpy()}
    resamples = {"n_bootstrap": n_bootstrap, "seed": seed}
    first, table = next(iter(stages.values())), []
    for scheme, folds in _folds(rows, class_ids, seed=seed).items():
        for cue, names in {**CUES, ALL_CUES: MEASURES}.items():
            before = blind_answers(first[list(names)].to_numpy(), class_ids, folds, seed=seed)
            for stage, measures in stages.items():
                values = before
                if measures is not first:
                    values = blind_answers(measures[list(names)].to_numpy(), class_ids, folds, seed=seed)
                where = {"scheme": scheme, "stage": stage, "cue": cue}
                table.append(where | _scores(values, before, truth, resamples=resamples))
    return pd.DataFrame(table)


def cue_destroyed(
    rows: pd.DataFrame,
    answers: Mapping[str, Mapping[str, np.ndarray]],
    *,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare each network's answers with a cue destroyed with those it gives to the clips as they are.

    Parameters
    ----------
    rows : DataFrame
        label and group_id of clips that the networks were not trained on.
    answers : mapping of str to mapping of str to ndarray (n_clips, 3)
        Condition (`UNTOUCHED` and those of `destroy`) to network to probabilities.

    Returns
    -------
    DataFrame
        One row a condition and network, without `UNTOUCHED`: macro_f1 and balanced_accuracy with low and high, the
        paired change of macro F1 (below 0: lost) with change_low and change_high, n_clips and n_groups.

    Raises
    ------
    ValueError
        If there are no answers to the untouched clips.
    """
    if UNTOUCHED not in answers:
        raise ValueError(f"answers are to {sorted(answers)}; those to the clips {UNTOUCHED!r} are missing.")
    truth = {"class_ids": manifest.class_ids(rows), "groups": rows["group_id"].to_numpy()}
    resamples = {"n_bootstrap": n_bootstrap, "seed": seed}
    table = [
        {"condition": condition, "network": network}
        | _scores(values, answers[UNTOUCHED][network], truth, resamples=resamples)
        for condition, networks in answers.items()
        if condition != UNTOUCHED
        for network, values in networks.items()
    ]
    return pd.DataFrame(table)


def destroy(waveforms: Waveforms) -> dict[str, list[np.ndarray]]:
    """Return the clips as they are and with each cue destroyed: the conditions of `cue_destroyed`."""
    return {
        UNTOUCHED: list(waveforms),
        "band: below 4 kHz": [augment.low_pass(waveform, cutoff_hz=LOW_PASS_HZ) for waveform in waveforms],
        "level: one loudness": one_loudness(waveforms),
        "duration: loudest 1 s": [loudest_second(waveform) for waveform in waveforms],
    }


def one_loudness(waveforms: Waveforms) -> list[np.ndarray]:
    """Return the clips at exactly one RMS over their whole length.

    It is the median of theirs, or less where the clip with the highest crest would pass full scale.

    Raises
    ------
    ValueError
        If a clip is silent.
    """
    rms = np.array([np.sqrt(np.mean(np.square(waveform, dtype=np.float64))) for waveform in waveforms])
    if not (rms > 0).all():
        raise ValueError(f"clip {int(np.argmin(rms))} is silent: it has no loudness.")
    peaks = np.array([np.abs(waveform).max() for waveform in waveforms])
    target = min(np.median(rms), HIGHEST_PEAK * (rms / peaks).min())
    return [(waveform * (target / level)).astype(np.float32) for waveform, level in zip(waveforms, rms, strict=True)]


def loudest_second(waveform: np.ndarray) -> np.ndarray:
    """Return the second with the most energy; a shorter clip is repeated up to one second (`augment.random_crop`)."""
    n_samples = round(CUT_SECONDS * config.SAMPLE_RATE_HZ)
    if len(waveform) <= n_samples:
        return augment.random_crop(waveform, n_samples, np.random.default_rng(0))
    energy = np.cumsum(np.concatenate([[0.0], np.square(waveform, dtype=np.float64)]))
    start = int(np.argmax(energy[n_samples:] - energy[:-n_samples]))
    return waveform[start : start + n_samples]


def measure(waveform: np.ndarray, sample_rate_hz: float = config.SAMPLE_RATE_HZ) -> dict[str, float]:
    """Return `MEASURES` of a waveform (n_samples,): what a classifier without ears may know of it.

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

    Parameters
    ----------
    rows : DataFrame
        clip_id of each clip.
    raw : DataFrame
        The raw manifest: clip_id and path of each recording.
    data_dir : Path
        Where the raw manifest's paths begin.
    n_workers : int
        Processes; 1 works in this one.

    Returns
    -------
    DataFrame
        `MEASURES` of each clip's recording, in the rows' order.

    Raises
    ------
    ValueError
        If a clip's recording is not in the raw manifest.
    AudioError
        If a recording cannot be read.
    """
    paths = raw.set_index("clip_id")["path"]
    # A clip of a longer recording bears its name and the number of the segment: lib.preprocess.
    owners = rows["clip_id"].where(
        rows["clip_id"].isin(paths.index), rows["clip_id"].str.replace(r"-\d+$", "", regex=True)
    )
    missing = sorted(set(owners) - set(paths.index))
    if missing:
        raise ValueError(f"{len(missing)} recording(s) are not in the raw manifest, first {missing[0]!r}.")
    names = sorted(set(owners))
    measured = _in_processes(_measure_file, [data_dir / paths[name] for name in names], n_workers=n_workers)
    return pd.DataFrame(measured, index=names).loc[owners].reset_index(drop=True)


def measure_crops(rows: pd.DataFrame, waveforms: Waveforms, *, seed: int = 0, n_workers: int = 2) -> pd.DataFrame:
    """Measure one crop of each clip, much as training draws them: 4 s, every other one changed by `augment`.

    Parameters
    ----------
    rows : DataFrame
        label of each clip.
    waveforms : sequence of ndarray
        The processed clips.
    """
    normal = [waveform for waveform, label in zip(waveforms, rows["label"], strict=True) if label == "normal"]
    rng, beds = np.random.default_rng(seed), []
    for _ in waveforms:  # one bed each: a process need not be sent them all
        beds.append(normal[rng.integers(len(normal))] if normal else None)
    tasks = [(waveform, bed, seed, row) for row, (waveform, bed) in enumerate(zip(waveforms, beds, strict=True))]
    return pd.DataFrame(_in_processes(_measure_crop, tasks, n_workers=n_workers))


def blind_answers(
    measures: np.ndarray, class_ids: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]], *, seed: int
) -> np.ndarray:
    """Return probabilities (n_clips, 3), each row's from randomised trees fitted on the other folds.

    Classes weigh alike (Geurts et al. 2006, Extremely randomized trees). Ties go to the first class. A class that is
    not among the rows fitted on gets probability 0.
    """
    answers = np.zeros((len(class_ids), len(config.CLASS_NAMES)))
    options = {"min_samples_leaf": MIN_CLIPS_A_LEAF, "class_weight": "balanced", "random_state": seed}
    for fitted, scored in folds:
        # Every tree sees all rows: where they are resampled, a cue that says nothing answers with the class that
        # happened to be drawn most, one in each fold, and that scores far from chance where folds are sources.
        trees = ExtraTreesClassifier(N_TREES, **options).fit(measures[fitted], class_ids[fitted])
        answers[np.ix_(scored, trees.classes_)] = trees.predict_proba(measures[scored]).round(9)  # ties stay ties
    return answers


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


def _scores(values: np.ndarray, before: np.ndarray, truth: Mapping, *, resamples: Mapping) -> dict[str, object]:
    """Return macro F1, balanced accuracy and the change from `before`, each with its ends, and n."""
    score = evaluation.score(values, **truth, **resamples)
    figures = {
        "macro_f1": score["macro_f1"],
        "balanced_accuracy": balanced_accuracy(values, **truth, **resamples),
        "change": evaluation.paired_difference(values, before, **truth, **resamples),
    }
    row = {}
    for name, figure in figures.items():
        row |= flat(name, figure)
    return row | {"n_clips": score["n_clips"], "n_groups": score["n_groups"]}


def _folds(rows: pd.DataFrame, class_ids: np.ndarray, *, seed: int) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return (rows fitted on, rows scored) of each of `SCHEMES`."""
    family = splits.corpus_group(rows["source"]).to_numpy()
    left_out = [(np.flatnonzero(family != name), np.flatnonzero(family == name)) for name in np.unique(family)]
    by_group = ensemble.folds(class_ids, rows["group_id"].to_numpy(), n_folds=N_FOLDS, seed=seed)
    return dict(zip(SCHEMES, (by_group, left_out), strict=True))


def _check_measures(measures: pd.DataFrame, *, stage: str, n_clips: int) -> None:
    lacking = [name for name in MEASURES if name not in measures]
    if lacking or len(measures) != n_clips:
        raise ValueError(f"{stage}: {len(measures)} rows for {n_clips} clips, lacking {lacking}.")
    if not np.isfinite(measures[list(MEASURES)].to_numpy(float)).all():
        raise ValueError(f"{stage}: a measure is NaN or infinite.")


def _edge(waveform: np.ndarray, sample_rate_hz: float) -> float:
    """Return the highest frequency in hertz whose mean power lies within `EDGE_DB` of the peak; 0 for silence."""
    frequencies_hz, power = signal.welch(waveform, sample_rate_hz, nperseg=min(N_FFT, len(waveform)))
    heard = np.flatnonzero(power > power.max() * 10 ** (-EDGE_DB / 10))
    return float(frequencies_hz[heard[-1]]) if len(heard) else 0.0


def _measure_file(path: Path) -> dict[str, float]:
    rate_hz = audio.inspect(path).sample_rate_hz
    return measure(audio.load(path, sample_rate_hz=rate_hz), rate_hz)


def _measure_crop(task: tuple[np.ndarray, np.ndarray | None, int, int]) -> dict[str, float]:
    waveform, bed, seed, row = task
    rng = np.random.default_rng([seed, row])
    crop = augment.random_crop(waveform, round(CROP_SECONDS * config.SAMPLE_RATE_HZ), rng)
    changed = rng.random() < P_AUGMENT
    return measure(augment.augment(crop, rng, background=None if bed is None else [bed]) if changed else crop)


def _in_processes(work: Callable, tasks: Sequence, *, n_workers: int) -> list:
    if n_workers == 1:
        return [work(task) for task in tasks]
    # Spawned, not forked: the parent is a notebook kernel full of threads.
    with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(work, tasks, chunksize=16))


def _nest(table: pd.DataFrame, keys: Sequence[str]) -> dict:
    """Return a table as nested mappings by its keys, intervals at the bottom."""
    nested: dict = {}
    for row in table.to_dict("records"):
        place = nested
        for key in keys:
            place = place.setdefault(row[key], {})
        for name in ("macro_f1", "balanced_accuracy", "change"):
            place[name] = interval_of(row, name)
    return nested
