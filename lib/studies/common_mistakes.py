"""Common evaluation mistakes, each beside a control that differs in one thing, on the same audio.

YAMNet's weights are frozen; a small network reads its pooled embeddings. A mistake and its control predict the same
rows, so their difference is paired; its interval comes from resampling groups and repeats (other splits, other initial
weights). Rows of all repeats are scored together. A mistake without optimistic bias here is reported as just that.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from lib import augment, config, ensemble, evaluation, manifest, plots
from lib.studies.folds import group_folds
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, columns, interval_of

WINDOW_PATCHES = 5  # 2.9 s: five of YAMNet's patches of 0.96 s, each 0.48 s after the last
WINDOW_STEP = 6  # patches from one window to the next, so that two windows share no more than 15 ms
N_FOLDS = 5
N_HIDDEN, BATCH_SIZE = 64, 64  # of the head; notebook 03 trains its own in such batches too
LEARNING_RATE = 1e-3
HEAD_EPOCHS = 20  # where no epoch is chosen
N_COPIES = 1  # augmented copies of each clip
N_REPEATS, N_EPOCHS = 5, 30
SERIES = (  # of the figure
    ("usual", "with the mistake", -0.14, ("o", plots.SERIES_COLOURS[1])),
    ("control_f1", "control", 0.14, ("s", "#000000")),
)
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
        "A random forest knows its own rows by heart, whatever the networks predict.",
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


@dataclass(frozen=True)
class Samples:
    """What a head learns from: features (n_rows, n_features), class ids, and the clip and group of each row."""

    features: np.ndarray
    class_ids: np.ndarray
    clip_ids: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Pair:
    """Probabilities (n_rows, 3) of a mistake and of its control for the same rows, all repeats below each other."""

    samples: Samples  # of one repeat
    usual: np.ndarray
    control: np.ndarray


def run(inputs: Inputs) -> Result:
    """Rebuild every mistake and its control on the clips of all splits: table common_mistakes, as `tabulate`."""
    from lib import yamnet  # here: TensorFlow takes seconds to import

    rows = inputs.rows(*manifest.SPLITS)
    by_id = dict(zip(rows["clip_id"], inputs.waveforms(*manifest.SPLITS), strict=True))
    copies = [{i: augment.augmented_copy(w, key=f"{i} {n}") for i, w in by_id.items()} for n in range(N_COPIES)]
    backbone = yamnet.load_base().backbone
    patches, *of_copies = [yamnet.embeddings(backbone, list(clips.values())) for clips in (by_id, *copies)]
    tested = pd.concat([inputs.rows("validation"), inputs.rows("test")], ignore_index=True)
    both = (inputs.validation_predictions, inputs.test_predictions)
    networks = {name: np.concatenate([part[name] for part in both]) for name in ensemble.MODEL_NAMES}
    pairs = build_pairs(rows, patches, copies=of_copies, tested=tested, networks=networks, seed=SEED)
    return Result({"n_repeats": N_REPEATS}, {"common_mistakes": tabulate(pairs, seed=SEED)})


def build_pairs(
    rows: pd.DataFrame,
    patches: Sequence[np.ndarray],
    *,
    copies: Sequence[Sequence[np.ndarray]],
    tested: pd.DataFrame,
    networks: ensemble.Probabilities,
    n_repeats: int = N_REPEATS,
    n_epochs: int = N_EPOCHS,
    seed: int = 0,
) -> dict[str, Pair]:
    """Rebuild every mistake and its control, with `n_repeats` splits and initial weights each.

    Parameters
    ----------
    rows : DataFrame
        Manifest rows: clip_id, label, group_id.
    patches, copies : sequence of ndarray, each (n_patches, 1024), and sequence of such sequences
        YAMNet's embeddings of each clip, in the rows' order; the same of augmented copies (`augment.augmented_copy`).
    tested, networks : DataFrame, and mapping of str to ndarray (n_tested, 3)
        Manifest rows of clips that neither network was trained on; model name to probabilities of those clips.

    Raises
    ------
    ValueError
        If rows, patches and copies do not belong to the same clips, or there is no copy.
    """
    everything = [patches, *copies]
    if len(everything) < 2 or any(len(embeddings) != len(rows) for embeddings in everything):
        raise ValueError(f"need embeddings and copies of {len(rows)} clips, have {[len(each) for each in everything]}.")
    repeats = {"n_repeats": n_repeats, "seed": seed}
    one_each = one_clip_per_group(rows, seed=seed)
    return {
        "windows": split_pair(pool_samples(rows, [patches], window_patches=WINDOW_PATCHES), **repeats),
        "augmentation": split_pair(
            pool_samples(rows.iloc[one_each], [[each[i] for i in one_each] for each in everything]), **repeats
        ),
        "meta": meta_pair(tested, networks, **repeats),
        "class_order": class_order_pair(tested, networks),
        "early_stopping": early_stopping_pair(pool_samples(rows, [patches]), n_epochs=n_epochs, **repeats),
    }


def tabulate(pairs: Mapping[str, Pair], *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0) -> pd.DataFrame:
    """Return one row per mistake.

    Columns: key, mistake, control, macro F1 of both and their difference, each with low and high (usual, usual_low,
    usual_high, control_f1, ..., difference_...), n_rows, n_clips, n_groups, n_repeats.
    """
    table = []
    for key, pair in pairs.items():
        samples, row = pair.samples, dict(zip(("key", "mistake", "control"), (key, *MISTAKES[key]), strict=False))
        for name, figure in compare(pair, n_bootstrap=n_bootstrap, seed=seed).items():
            row |= columns("control_f1" if name == "control" else name, figure)
        counts = {"n_rows": len(samples.class_ids), "n_clips": len(np.unique(samples.clip_ids))}
        counts |= {"n_groups": len(np.unique(samples.groups)), "n_repeats": len(pair.usual) // len(samples.class_ids)}
        table.append(row | counts)
    return pd.DataFrame(table)


def compare(pair: Pair, *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0) -> dict[str, evaluation.Interval]:
    """Return macro F1 of a mistake (usual) and of its control and their difference, with 95 % intervals.

    Each resample draws groups and repeats with replacement (Owen 2007, The pigeonhole bootstrap), the same for both:
    what one split or one set of initial weights happened to do is no evidence. With fewer than
    `evaluation.MIN_GROUPS` groups low and high are None.
    """
    rng, n_groups = np.random.default_rng(seed), len(np.unique(pair.samples.groups))
    counts = {"usual": _counts(pair.samples, pair.usual), "control": _counts(pair.samples, pair.control)}
    n_repeats = len(counts["usual"])
    group_draws = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_bootstrap)
    repeat_draws = rng.multinomial(n_repeats, np.full(n_repeats, 1 / n_repeats), size=n_bootstrap)
    values, spreads = {}, {}
    for name, by_repeat in counts.items():
        drawn = np.stack([np.tensordot(group_draws, by_group, axes=1) for by_group in by_repeat], axis=1)
        values[name] = evaluation.macro_f1(by_repeat.sum(axis=(0, 1))[None])[0]
        spreads[name] = evaluation.macro_f1((drawn * repeat_draws[:, :, None, None]).sum(axis=1))
    values["difference"] = values["usual"] - values["control"]
    spreads["difference"] = spreads["usual"] - spreads["control"]
    return {name: evaluation.interval(values[name], spreads[name], n_groups=n_groups) for name in values}


def _counts(samples: Samples, probabilities: np.ndarray) -> np.ndarray:
    """Return confusion counts (n_repeats, n_groups, 3, 3)."""
    repeats = np.split(probabilities, len(probabilities) // len(samples.class_ids))
    return np.stack([evaluation.confusion_by_group(part, samples.class_ids, samples.groups) for part in repeats])


def pool_samples(
    rows: pd.DataFrame, embeddings: Sequence[Sequence[np.ndarray]], *, window_patches: int | None = None
) -> Samples:
    """Pool the patches (n_patches, n_features) of every clip, and of copies of it, by mean and maximum.

    With `window_patches` those of every window of so many patches; a clip with fewer is one window.
    """
    owners, features = [], []
    for clips in embeddings:
        for owner, clip in enumerate(clips):
            for window in _windows(clip, window_patches):
                owners.append(owner)
                features.append(np.concatenate([window.mean(axis=0), window.max(axis=0)]))
    class_ids = manifest.class_ids(rows)
    clip_ids, groups = rows["clip_id"].to_numpy(), rows["group_id"].to_numpy()
    return Samples(np.stack(features), class_ids[owners], clip_ids[owners], groups[owners])


def _windows(clip: np.ndarray, n_patches: int | None) -> list[np.ndarray]:
    if n_patches is None:
        return [clip]
    return [clip[start : start + n_patches] for start in range(0, max(len(clip) - n_patches + 1, 1), WINDOW_STEP)]


def one_clip_per_group(rows: pd.DataFrame, *, seed: int) -> np.ndarray:
    """Return the places of one clip of every group, drawn at random."""
    shuffled = rows.reset_index(drop=True).sample(frac=1, random_state=seed)
    return np.sort(shuffled.drop_duplicates("group_id").index.to_numpy())


def split_pair(samples: Samples, *, n_repeats: int, seed: int) -> Pair:
    """Predict every row by a head trained on the other folds: rows dealt at random, and by group."""

    def predict(folds: Folds, repeat: int) -> np.ndarray:
        predictions = np.full((len(samples.class_ids), len(config.CLASS_NAMES)), np.nan)
        for fitted, scored in folds:
            data = samples.features[fitted], samples.class_ids[fitted]
            *_, head = _epochs(*data, n_epochs=HEAD_EPOCHS, seed=repeat)
            predictions[scored] = head(samples.features[scored])
        return predictions

    repeats = range(seed, seed + n_repeats)
    return _pair(samples, [[predict(folds, repeat) for folds in _both_folds(samples, repeat)] for repeat in repeats])


def _pair(samples: Samples, repeats: Sequence[Sequence[np.ndarray]]) -> Pair:
    return Pair(samples, *(np.concatenate(values) for values in zip(*repeats, strict=True)))


def meta_pair(rows: pd.DataFrame, probabilities: ensemble.Probabilities, *, n_repeats: int, seed: int) -> Pair:
    """Combine the networks with a random forest: fitted on the rows it predicts, and on other groups."""
    features, samples = ensemble.meta_features(probabilities), _samples_of(rows)
    everything = np.arange(len(rows))

    def predict(folds: Folds, repeat: int) -> np.ndarray:
        given = np.full((len(rows), len(config.CLASS_NAMES)), np.nan)
        for fitted, scored in folds:
            forest = RandomForestClassifier(N_TREES, class_weight="balanced", random_state=repeat)
            forest.fit(features[fitted], samples.class_ids[fitted])
            given[scored] = forest.predict_proba(features[scored])
        return given

    repeats = []
    for repeat in range(seed, seed + n_repeats):
        by_group = group_folds(samples.class_ids, samples.groups, n_folds=N_FOLDS, seed=repeat)
        repeats.append([predict([(everything, everything)], repeat), predict(by_group, repeat)])
    return _pair(samples, repeats)


def class_order_pair(rows: pd.DataFrame, probabilities: ensemble.Probabilities) -> Pair:
    """Average the networks with the last one's columns in `WRONG_ORDER`, and all in CLASS_NAMES order."""
    last = ensemble.MODEL_NAMES[-1]
    wrong = probabilities[last][:, [config.CLASS_ID[label] for label in WRONG_ORDER]]
    mixed = ensemble.average({**probabilities, last: wrong})
    return Pair(_samples_of(rows), mixed, ensemble.average(probabilities))


def early_stopping_pair(samples: Samples, *, n_epochs: int, n_repeats: int, seed: int) -> Pair:
    """Keep the epoch that is best on the test rows, and the one that is best on validation rows; groups stay whole."""
    by_group = {repeat: _both_folds(samples, repeat)[1] for repeat in range(seed, seed + n_repeats)}
    pairs = [_predict_at_best(samples, folds, n_epochs=n_epochs, seed=repeat) for repeat, folds in by_group.items()]
    return _pair(samples, pairs)


def _samples_of(rows: pd.DataFrame) -> Samples:
    """Return the clips of a table of probabilities, without features."""
    class_ids = manifest.class_ids(rows)
    return Samples(np.empty((len(rows), 0)), class_ids, rows["clip_id"].to_numpy(), rows["group_id"].to_numpy())


def _both_folds(samples: Samples, seed: int) -> tuple[Folds, Folds]:
    """Return as many folds dealt row by row as dealt by group, each with class shares alike."""
    by_group = group_folds(samples.class_ids, samples.groups, n_folds=N_FOLDS, seed=seed)
    splitter = StratifiedKFold(len(by_group), shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(samples.class_ids)), samples.class_ids)), by_group


def _predict_at_best(samples: Samples, folds: Folds, *, n_epochs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the predictions of the epoch best on each test fold, and of that best on the next; both were held out."""
    by_test, by_validation = (np.full((len(samples.class_ids), len(config.CLASS_NAMES)), np.nan) for _ in range(2))
    for number, (_, test) in enumerate(folds):
        validation = folds[(number + 1) % len(folds)][1]
        fitted = np.setdiff1d(np.arange(len(samples.class_ids)), np.union1d(test, validation))
        given, scores = [], []
        for predict in _epochs(samples.features[fitted], samples.class_ids[fitted], n_epochs=n_epochs, seed=seed):
            given.append(predict(samples.features[test]))
            both = (given[-1], test), (predict(samples.features[validation]), validation)
            counts = [evaluation.confusion(values, samples.class_ids[rows]) for values, rows in both]
            scores.append(evaluation.macro_f1(np.stack(counts)))
        best_on_test, best_on_validation = np.argmax(scores, axis=0)
        by_test[test], by_validation[test] = given[best_on_test], given[best_on_validation]
    return by_test, by_validation


def _epochs(
    features: np.ndarray, class_ids: np.ndarray, *, n_epochs: int, seed: int
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Train a small network; after each epoch, yield the function from features to probabilities."""
    scale = StandardScaler().fit(features)
    options = {"batch_size": min(BATCH_SIZE, len(features)), "learning_rate_init": LEARNING_RATE}
    head = MLPClassifier((N_HIDDEN,), random_state=seed, **options)
    scaled = scale.transform(features)
    for _ in range(n_epochs):
        head.partial_fit(scaled, class_ids, classes=range(len(config.CLASS_NAMES)))
        yield lambda rows: head.predict_proba(scale.transform(rows))


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw the macro F1 of each mistake beside its control."""
    table = tables["common_mistakes"]
    figure, ax = plots.subplots(height_inches=0.62 * len(table) + 1.0)
    draw_differences(ax, table)
    return {"common_mistakes": figure}


def draw_differences(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the macro F1 of each mistake and of its control, and their difference, of `tabulate`."""
    for place, row in enumerate(table.to_dict("records")):
        ax.plot([row["control_f1"], row["usual"]], [place, place], color="0.75", linewidth=4, zorder=1)
        for name, label, shift, (marker, colour) in SERIES:
            ends = [row[f"{name}_low"], row[f"{name}_high"]]
            ax.plot(ends, [place + shift] * 2, color="0.3", linewidth=0.9, zorder=2)
            look = {"color": colour, "marker": marker, "markeredgecolor": "black", "markersize": 6}
            ax.plot(row[name], place + shift, linestyle="", label=label if place == 0 else None, zorder=3, **look)
        ax.text(1.02, place, _change(row), transform=ax.get_yaxis_transform(), va="center", fontsize=7)
    ax.set_yticks(range(len(table)), [textwrap.fill(name, 26) for name in table["mistake"]])
    ax.set_ylim(len(table) - 0.5, -0.5)  # first mistake on top
    ax.set(xlabel="Macro F1 (mark: value, line: 95 % interval; right: difference)")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def _change(row: dict[str, float]) -> str:
    text = evaluation.format_interval(interval_of(row, "difference"), sign=True)
    return text.replace(" [", "\n[") if "[" in text else f"{text}\n[no interval]"
