"""Common evaluation mistakes, each beside a control that differs in one thing, on the same audio.

YAMNet is frozen and its pooled embedding is what a linear head is given, as in notebook 03. A mistake and its control
predict the same rows, so their difference is paired; its interval comes from resampling groups and repeats (other
splits, other orders of training). Rows of all repeats are scored together. A mistake without optimistic bias here is
reported as just that.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib import augment, config, ensemble, evaluation, manifest, plots
from lib.studies.folds import group_folds
from lib.studies.inputs import SEED, Inputs, yamnet_features
from lib.studies.result import Result, columns, interval_of

WINDOW_SAMPLES = round(2.9 * config.SAMPLE_RATE_HZ)  # windows of a recording share no sample
N_REPEATS = 3
HEAD_C = 1e-3  # inverse strength of the L2 penalty on the head, as in notebook 03
N_EPOCHS, LEARNING_RATE = 30, 1e-3  # of the head whose epoch is chosen
N_TREES = 200  # of the usual meta-classifier, a random forest
WRONG_ORDER = tuple(sorted(config.CLASS_NAMES))  # alphabetical, as folder names are listed

# mistake: (what it does, what its control does instead, why that matters)
MISTAKES = {
    "windows": (
        "Windows of one recording on both sides",
        "windows split by group",
        "The network is tested on an infant, speaker or recording that it was trained on: it need only remember.",
    ),
    "augmentation": (
        "Augmented copies made before the split",
        "a copy stays with its clip (one clip a group, so that nothing else can leak)",
        "The network is tested on a clip of which it was trained on a copy.",
    ),
    "meta": (
        "Meta-classifier scored on the rows it was fitted on",
        "fitted on other groups than it is scored on",
        "A random forest predicts the rows that it was fitted on nearly without error, whatever the networks predict.",
    ),
    "class_order": (
        "Probabilities averaged in two class orders",
        "averaged in one class order",
        "One network's screams are added to the other's normal sound: such a number is wrong, not optimistic.",
    ),
    "early_stopping": (
        "Epoch chosen on the test rows",
        "epoch chosen on validation rows of other groups",
        "The best of many epochs on the test rows is partly their luck: such a choice can only raise the number.",
    ),
}

Folds = list[tuple[np.ndarray, np.ndarray]]
FoldsOf = Callable[[pd.DataFrame, int], Folds]  # of rows and a seed


@dataclass(frozen=True)
class Pair:
    """Rows (clip_id, label, group_id), and probabilities (n_repeats, n_rows, 3) of a mistake and of its control."""

    rows: pd.DataFrame
    usual: np.ndarray
    control: np.ndarray


def run(inputs: Inputs) -> Result:
    """Rebuild every mistake and its control: table common_mistakes, as `tabulate`.

    The networks' probabilities are of validation and test clips, which neither was trained on; all else takes the clips
    of all splits.
    """
    rows, waveforms = inputs.rows(*manifest.SPLITS), inputs.waveforms(*manifest.SPLITS)
    pieces = [(owner, piece) for owner, waveform in enumerate(waveforms) for piece in cut(waveform)]
    owners, one_each = [owner for owner, _ in pieces], one_clip_per_group(rows, seed=SEED)
    copies = [augment.augmented_copy(waveforms[place], key=f"{rows['clip_id'][place]} 0") for place in one_each]
    clips, windows, of_copies = (yamnet_features(sounds)[0] for sounds in (waveforms, [w for _, w in pieces], copies))
    tested = pd.concat([inputs.rows("validation"), inputs.rows("test")], ignore_index=True)
    both = inputs.validation_predictions, inputs.test_predictions
    networks = {name: np.concatenate([part[name] for part in both]) for name in ensemble.MODEL_NAMES}
    pairs = {
        "windows": fold_pair(rows.iloc[owners], windows, linear, usual=at_random),
        "augmentation": fold_pair(
            pd.concat([rows.iloc[one_each]] * 2), np.concatenate([clips[one_each], of_copies]), linear, usual=at_random
        ),
        "meta": fold_pair(tested, ensemble.meta_features(networks), forest, usual=same_rows),
        "class_order": class_order_pair(tested, networks),
        "early_stopping": early_stopping_pair(rows, clips),
    }
    return Result({"n_repeats": N_REPEATS}, {"common_mistakes": tabulate(pairs)})


def tabulate(pairs: Mapping[str, Pair]) -> pd.DataFrame:
    """Return one row per mistake.

    Columns: key, mistake, control, macro F1 of both and their difference, each with low and high (usual, usual_low,
    usual_high, control_f1, ..., difference_...), n_rows, n_clips, n_groups, n_repeats.
    """
    table = []
    for key, pair in pairs.items():
        mistake, control, _ = MISTAKES[key]
        row: dict[str, object] = {"key": key, "mistake": mistake, "control": control}
        for name, figure in compare(pair).items():
            row |= columns("control_f1" if name == "control" else name, figure)
        row |= {"n_rows": len(pair.rows), "n_clips": pair.rows["clip_id"].nunique()}
        table.append(row | {"n_groups": pair.rows["group_id"].nunique(), "n_repeats": len(pair.usual)})
    return pd.DataFrame(table)


def compare(pair: Pair) -> dict[str, evaluation.Interval]:
    """Return macro F1 of a mistake (usual) and of its control and their difference, with 95 % intervals.

    Each resample draws groups and repeats with replacement (Owen 2007, The pigeonhole bootstrap), the same for both:
    what one split or one order of training happened to do is no evidence. With fewer than `evaluation.MIN_GROUPS`
    groups low and high are None.
    """
    truth = manifest.class_ids(pair.rows), pair.rows["group_id"].to_numpy()
    rng, n_groups = np.random.default_rng(SEED), pair.rows["group_id"].nunique()
    sizes = n_groups, len(pair.usual)
    group_draws, repeat_draws = (rng.multinomial(n, np.full(n, 1 / n), evaluation.N_BOOTSTRAP) for n in sizes)
    values, spreads = {}, {}
    for name, repeats in (("usual", pair.usual), ("control", pair.control)):
        counts = np.stack([evaluation.confusion_by_group(values, *truth) for values in repeats])  # (.., n_groups, 3, 3)
        drawn = np.stack([np.tensordot(group_draws, by_group, axes=1) for by_group in counts], axis=1)
        values[name] = evaluation.macro_f1(counts.sum(axis=(0, 1))[None])[0]
        spreads[name] = evaluation.macro_f1((drawn * repeat_draws[:, :, None, None]).sum(axis=1))
    values["difference"] = values["usual"] - values["control"]
    spreads["difference"] = spreads["usual"] - spreads["control"]
    return {name: evaluation.interval(values[name], spreads[name], n_groups=n_groups) for name in values}


def cut(waveform: np.ndarray) -> list[np.ndarray]:
    """Cut a waveform into windows of `WINDOW_SAMPLES` that share no sample; a shorter one is one window."""
    starts = range(0, max(len(waveform) - WINDOW_SAMPLES + 1, 1), WINDOW_SAMPLES)
    return [waveform[start : start + WINDOW_SAMPLES] for start in starts]


def one_clip_per_group(rows: pd.DataFrame, *, seed: int) -> np.ndarray:
    """Return the places of one clip of every group, drawn at random."""
    shuffled = rows.reset_index(drop=True).sample(frac=1, random_state=seed)
    return np.sort(shuffled.drop_duplicates("group_id").index.to_numpy())


def fold_pair(
    rows: pd.DataFrame, features: np.ndarray, head: Callable[[int], ClassifierMixin], *, usual: FoldsOf
) -> Pair:
    """Predict every row from features (n_rows, n_features) by a head fitted to other rows: `usual` folds, by group.

    `head` makes a classifier for a seed.
    """

    def predicted(folds_of: FoldsOf) -> np.ndarray:
        every = ((head(seed), folds_of(rows, seed)) for seed in range(N_REPEATS))
        options = {"X": features, "y": manifest.class_ids(rows), "method": "predict_proba"}
        return np.stack([cross_val_predict(classifier, cv=folds, **options) for classifier, folds in every])

    return Pair(rows, predicted(usual), predicted(group_folds))


def at_random(rows: pd.DataFrame, seed: int) -> Folds:
    """Return as many folds, dealt row by row."""
    splitter = StratifiedKFold(len(group_folds(rows, seed)), shuffle=True, random_state=seed)
    return list(splitter.split(rows, manifest.class_ids(rows)))


def same_rows(rows: pd.DataFrame, _seed: int) -> Folds:
    """Return one fold that is scored on the rows that it was fitted on."""
    return [(np.arange(len(rows)), np.arange(len(rows)))]


def linear(seed: int) -> ClassifierMixin:
    """Return the lesson's linear head, classes weighing alike."""
    options = {"max_iter": 1000, "tol": 1e-3, "class_weight": "balanced", "random_state": seed}
    return make_pipeline(StandardScaler(), LogisticRegression(C=HEAD_C, **options))


def forest(seed: int) -> ClassifierMixin:
    """Return the usual meta-classifier, a random forest."""
    return RandomForestClassifier(N_TREES, class_weight="balanced", random_state=seed)


def class_order_pair(rows: pd.DataFrame, probabilities: ensemble.Probabilities) -> Pair:
    """Average the networks with the last one's columns in `WRONG_ORDER`, and all in CLASS_NAMES order."""
    last = ensemble.MODEL_NAMES[-1]
    wrong = probabilities[last][:, [config.CLASS_ID[label] for label in WRONG_ORDER]]
    return Pair(rows, ensemble.average({**probabilities, last: wrong})[None], ensemble.average(probabilities)[None])


def early_stopping_pair(rows: pd.DataFrame, features: np.ndarray) -> Pair:
    """Keep the epoch that is best on the test rows, and the one that is best on validation rows; groups stay whole."""
    class_ids, both = manifest.class_ids(rows), np.full((2, N_REPEATS, len(rows), len(config.CLASS_NAMES)), np.nan)
    for repeat in range(N_REPEATS):
        held_out = [test for _, test in group_folds(rows, repeat)]
        for test, validation in zip(held_out, held_out[1:] + held_out[:1], strict=True):
            both[:, repeat, test] = _at_best_epochs(features, class_ids, test, validation=validation, seed=repeat)
    return Pair(rows, *both)


def _at_best_epochs(
    features: np.ndarray, class_ids: np.ndarray, test: np.ndarray, *, validation: np.ndarray, seed: int
) -> list[np.ndarray]:
    """Return the test rows' predictions of the epoch best on them, and of that best on the validation rows.

    A linear head is trained by stochastic gradient descent.
    """
    fitted, given, scores = np.setdiff1d(np.arange(len(class_ids)), np.union1d(test, validation)), [], []
    scaled = StandardScaler().fit(features[fitted]).transform(features)
    head = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=LEARNING_RATE, random_state=seed)
    for _ in range(N_EPOCHS):
        head.partial_fit(scaled[fitted], class_ids[fitted], classes=range(len(config.CLASS_NAMES)))
        both = [(head.predict_proba(scaled[rows]), class_ids[rows]) for rows in (test, validation)]
        given.append(both[0][0])
        scores.append([evaluation.macro_f1(evaluation.confusion(*each)[None])[0] for each in both])
    return [given[epoch] for epoch in np.argmax(scores, axis=0)]


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw the macro F1 of each mistake beside its control."""
    rows = tables["common_mistakes"].to_dict("records")
    series = {
        title: {textwrap.fill(row["mistake"], 26): interval_of(row, name) for row in rows}
        for title, name in (("with the mistake", "usual"), ("control", "control_f1"))
    }
    figure, ax = plots.subplots(height_inches=0.62 * len(rows) + 1.0)
    plots.score_bars(ax, series, label="Macro F1")
    return {"common_mistakes": figure}
