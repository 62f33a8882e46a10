"""Their way, our way: the usual recipes beside twins that differ from them in one thing, on the same audio.

YAMNet's weights are frozen; a small network reads its pooled embeddings. A recipe and its twin answer for the same
rows, so their difference is paired; its interval comes from resampling groups and repeats (other splits, other initial
weights). Rows of all repeats are scored together. A recipe that does not flatter here is reported as just that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from lib import config, ensemble, evaluation, manifest
from lib.studies.findings import Findings, flat, interval_of

WINDOW_PATCHES = 5  # 2.9 s: five of YAMNet's patches of 0.96 s, each 0.48 s after the last
WINDOW_STEP = 6  # patches from one window to the next, so that two windows share no more than 15 ms
N_FOLDS = 5
N_HIDDEN, BATCH_SIZE = 64, 64  # of the head; notebook 03 trains its own in such batches too
LEARNING_RATE = 1e-3
HEAD_EPOCHS = 20  # where no epoch is chosen
N_TREES = 200  # of the usual meta-classifier, a random forest
WRONG_ORDER = tuple(sorted(config.CLASS_NAMES))  # alphabetical, as folder names are listed

# recipe: (what it does, what its twin does instead, why that matters)
RECIPES = {
    "windows": (
        "Windows of one recording on both sides",
        "windows split by group",
        "The network is asked about an infant, speaker or recording that it was trained on: it need only remember.",
    ),
    "augmentation": (
        "Changed copies made before the split",
        "a copy stays with its clip (one clip a group, so that nothing else can leak)",
        "The network is asked about a clip of which it was trained on a copy.",
    ),
    "meta": (
        "Meta-classifier scored on the rows it was fitted on",
        "fitted on other groups than it is scored on",
        "A random forest knows its own rows by heart, whatever the networks say.",
    ),
    "class_order": (
        "Probabilities averaged in two class orders",
        "averaged in one class order",
        "One network's screams are added to the other's normal sound: such a number is broken, not flattering.",
    ),
    "early_stopping": (
        "Epoch chosen on the test rows",
        "epoch chosen on validation rows of other groups",
        "The best of many epochs on the test rows is partly their luck: such a choice can only raise the number.",
    ),
    "together": (
        "Windows, copies and epoch all the usual way",
        "windows and copies split by group, epoch chosen on validation rows",
        "Each slip adds to the others.",
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
    """Probabilities (n_rows, 3) of a recipe and of its twin for the same rows, of all repeats below each other."""

    samples: Samples  # of one repeat
    usual: np.ndarray
    honest: np.ndarray


def findings(
    rows: pd.DataFrame,
    patches: Sequence[np.ndarray],
    *,
    copies: Sequence[Sequence[np.ndarray]],
    networks: Mapping[str, pd.DataFrame],
    n_repeats: int = 5,
    n_epochs: int = 30,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> Findings:
    """Rebuild every recipe and its twin.

    Parameters
    ----------
    rows : DataFrame
        Manifest rows: clip_id, label, group_id.
    patches : sequence of ndarray, each (n_patches, 1024)
        YAMNet's embeddings of each clip, in the rows' order.
    copies : sequence of such sequences
        The same of changed copies of the clips (`lib.augment.augmented_copy`), one sequence a copy.
    networks : mapping of str to DataFrame
        Model name to `lib.probabilities.COLUMNS`, for clips that neither network was trained on.
    n_repeats : int
        Splits and initial weights that each recipe is repeated with.
    n_epochs : int
        Epochs to choose from.
    n_bootstrap, seed : int

    Returns
    -------
    Findings
        Table ``recipes``: `tabulate`.

    Raises
    ------
    ValueError
        If rows, patches, copies or tables do not belong to the same clips, or there is no copy.
    """
    versions = [patches, *copies]
    if len(versions) < 2 or any(len(version) != len(rows) for version in versions):
        raise ValueError(f"need embeddings and copies of {len(rows)} clips, have {[len(each) for each in versions]}.")
    repeats = {"n_repeats": n_repeats, "seed": seed}
    one_each = one_clip_a_group(rows, seed=seed)
    cut = pool_samples(rows, versions, window_patches=WINDOW_PATCHES)
    whole = pool_samples(rows, [patches])
    answered = align(networks)
    pairs = {
        "windows": split_pair(pool_samples(rows, [patches], window_patches=WINDOW_PATCHES), **repeats),
        "augmentation": split_pair(
            pool_samples(rows.iloc[one_each], [[version[i] for i in one_each] for version in versions]), **repeats
        ),
        "meta": meta_pair(*answered, **repeats),
        "class_order": class_order_pair(*answered),
        "early_stopping": early_stopping_pair(whole, n_epochs=n_epochs, **repeats),
        "together": together_pair(cut, n_epochs=n_epochs, **repeats),
    }
    table = tabulate(pairs, n_bootstrap=n_bootstrap, seed=seed)
    return Findings({"n_repeats": n_repeats, "recipes": _figures(table)}, {"recipes": table})


def tabulate(pairs: Mapping[str, Pair], *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0) -> pd.DataFrame:
    """Return one row a recipe.

    Columns: key, recipe, twin, macro F1 of both and their difference, each with low and high (usual, usual_low,
    usual_high, honest..., difference...), verdict, why, n_rows, n_clips, n_groups, n_repeats.
    """
    return pd.DataFrame([_compare(key, pair, n_bootstrap=n_bootstrap, seed=seed) for key, pair in pairs.items()])


def _compare(key: str, pair: Pair, *, n_bootstrap: int, seed: int) -> dict[str, object]:
    samples, (recipe, twin, why) = pair.samples, RECIPES[key]
    row = {"key": key, "recipe": recipe, "twin": twin}
    intervals = compare(pair, n_bootstrap=n_bootstrap, seed=seed)
    for name, figure in intervals.items():
        row |= flat(name, figure)
    counts = {
        "n_rows": len(samples.class_ids),
        "n_clips": len(np.unique(samples.clip_ids)),
        "n_groups": len(np.unique(samples.groups)),
        "n_repeats": len(pair.usual) // len(samples.class_ids),
    }
    return row | {"verdict": verdict(intervals["difference"]), "why": why} | counts


def compare(pair: Pair, *, n_bootstrap: int = evaluation.N_BOOTSTRAP, seed: int = 0) -> dict[str, evaluation.Interval]:
    """Return macro F1 of a recipe (usual) and of its twin (honest) and their difference, with 95 % intervals.

    Each resample draws groups and repeats with replacement (Owen 2007, The pigeonhole bootstrap), the same for both:
    what one split or one set of initial weights happened to do is no evidence. With fewer than
    `evaluation.MIN_GROUPS` groups low and high are None.
    """
    rng, n_groups = np.random.default_rng(seed), len(np.unique(pair.samples.groups))
    counts = {"usual": _counts(pair.samples, pair.usual), "honest": _counts(pair.samples, pair.honest)}
    n_repeats = len(counts["usual"])
    group_draws = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_bootstrap)
    repeat_draws = rng.multinomial(n_repeats, np.full(n_repeats, 1 / n_repeats), size=n_bootstrap)
    values, spreads = {}, {}
    for name, by_repeat in counts.items():
        drawn = np.stack([np.tensordot(group_draws, by_group, axes=1) for by_group in by_repeat], axis=1)
        values[name] = evaluation.macro_f1(by_repeat.sum(axis=(0, 1))[None])[0]
        spreads[name] = evaluation.macro_f1((drawn * repeat_draws[:, :, None, None]).sum(axis=1))
    values["difference"] = values["usual"] - values["honest"]
    spreads["difference"] = spreads["usual"] - spreads["honest"]
    return {name: evaluation.interval(values[name], spreads[name], n_groups=n_groups) for name in values}


def _counts(samples: Samples, probabilities: np.ndarray) -> np.ndarray:
    """Return confusion counts (n_repeats, n_groups, 3, 3)."""
    repeats = np.split(probabilities, len(probabilities) // len(samples.class_ids))
    return np.stack([evaluation.confusion_by_group(part, samples.class_ids, samples.groups) for part in repeats])


def verdict(difference: evaluation.Interval) -> str:
    """Say in words what the interval of usual less honest shows."""
    if difference["low"] is None:
        return "too few groups to say"
    if difference["low"] > 0:
        return "flatters"
    return "broken: lower than the honest number" if difference["high"] < 0 else "no difference shown"


def _figures(table: pd.DataFrame) -> dict[str, dict[str, object]]:
    return {
        row["key"]: {name: interval_of(row, name) for name in ("usual", "honest", "difference")}
        | {name: row[name] for name in ("verdict", "n_rows", "n_clips", "n_groups", "n_repeats")}
        for row in table.to_dict("records")
    }


def pool_samples(
    rows: pd.DataFrame, versions: Sequence[Sequence[np.ndarray]], *, window_patches: int | None = None
) -> Samples:
    """Pool the patches of every clip, or of every window of it, by mean and maximum.

    Parameters
    ----------
    rows : DataFrame
        clip_id, label, group_id.
    versions : sequence of sequence of ndarray, each (n_patches, n_features)
        Embeddings of the clips, and of copies of them.
    window_patches : int, optional
        Cut clips into windows of so many patches; a clip with fewer is one window. None: whole clips.
    """
    owners, features = [], []
    for version in versions:
        for owner, clip in enumerate(version):
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


def one_clip_a_group(rows: pd.DataFrame, *, seed: int) -> np.ndarray:
    """Return the places of one clip of every group, drawn at random."""
    shuffled = rows.reset_index(drop=True).sample(frac=1, random_state=seed)
    return np.sort(shuffled.drop_duplicates("group_id").index.to_numpy())


def split_pair(samples: Samples, *, n_repeats: int, seed: int) -> Pair:
    """Answer for every row from a head trained on the other folds: rows dealt at random, and by group."""
    answers = {"usual": [], "honest": []}
    for repeat in range(seed, seed + n_repeats):
        for name, folds in _both_folds(samples, repeat).items():
            answers[name].append(_answer(samples, folds, seed=repeat))
    return Pair(samples, *(np.concatenate(values) for values in answers.values()))


def meta_pair(rows: pd.DataFrame, probabilities: ensemble.Probabilities, *, n_repeats: int, seed: int) -> Pair:
    """Combine the networks with a random forest: fitted on the rows it answers for, and on other groups."""
    features, samples = ensemble.meta_features(probabilities), _samples_of(rows)
    answers = {"usual": [], "honest": []}
    everything = np.arange(len(rows))
    for repeat in range(seed, seed + n_repeats):
        by_group = ensemble.folds(samples.class_ids, samples.groups, n_folds=N_FOLDS, seed=repeat)
        for name, folds in (("usual", [(everything, everything)]), ("honest", by_group)):
            given = np.full((len(rows), len(config.CLASS_NAMES)), np.nan)
            for fitted, scored in folds:
                forest = RandomForestClassifier(N_TREES, class_weight="balanced", random_state=repeat)
                forest.fit(features[fitted], samples.class_ids[fitted])
                given[scored] = forest.predict_proba(features[scored])
            answers[name].append(given)
    return Pair(samples, *(np.concatenate(values) for values in answers.values()))


def class_order_pair(rows: pd.DataFrame, probabilities: ensemble.Probabilities) -> Pair:
    """Average the networks with the last one's columns in `WRONG_ORDER`, and all in CLASS_NAMES order."""
    last = ensemble.MODEL_NAMES[-1]
    wrong = probabilities[last][:, [config.CLASS_ID[label] for label in WRONG_ORDER]]
    mixed = ensemble.average({**probabilities, last: wrong})
    return Pair(_samples_of(rows), mixed, ensemble.average(probabilities))


def early_stopping_pair(samples: Samples, *, n_epochs: int, n_repeats: int, seed: int) -> Pair:
    """Keep the epoch that is best on the test rows, and the one that is best on validation rows; groups stay whole."""
    pairs = []
    for repeat in range(seed, seed + n_repeats):
        folds = _both_folds(samples, repeat)["honest"]
        pairs.append(_answer_at_best(samples, folds, n_epochs=n_epochs, seed=repeat))
    return Pair(samples, *(np.concatenate(values) for values in zip(*pairs, strict=True)))


def together_pair(samples: Samples, *, n_epochs: int, n_repeats: int, seed: int) -> Pair:
    """Deal rows at random and choose the epoch on the test rows; deal by group and choose it on validation rows."""
    answers = {"usual": [], "honest": []}
    for repeat in range(seed, seed + n_repeats):
        for place, (name, folds) in enumerate(_both_folds(samples, repeat).items()):
            answers[name].append(_answer_at_best(samples, folds, n_epochs=n_epochs, seed=repeat)[place])
    return Pair(samples, *(np.concatenate(values) for values in answers.values()))


def align(networks: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return the clips that the networks answered for, and each network's probabilities in that order.

    Raises
    ------
    ValueError
        If a table holds a clip twice, or the tables hold different clips.
    """
    tables = {name: table.set_index("clip_id").sort_index() for name, table in networks.items()}
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if not table.index.is_unique or not table.index.equals(first.index):
            raise ValueError(f"{name}: its {len(table)} rows are not one row for each of the same clips.")
    probabilities = {name: table[list(config.CLASS_NAMES)].to_numpy() for name, table in tables.items()}
    return first.reset_index(), probabilities


def _samples_of(rows: pd.DataFrame) -> Samples:
    """Return the clips of a table of probabilities, without features."""
    class_ids = manifest.class_ids(rows)
    return Samples(np.empty((len(rows), 0)), class_ids, rows["clip_id"].to_numpy(), rows["group_id"].to_numpy())


def _both_folds(samples: Samples, seed: int) -> dict[str, Folds]:
    """Return as many folds dealt row by row as dealt by group, each with class shares alike."""
    by_group = ensemble.folds(samples.class_ids, samples.groups, n_folds=N_FOLDS, seed=seed)
    splitter = StratifiedKFold(len(by_group), shuffle=True, random_state=seed)
    at_random = list(splitter.split(np.zeros(len(samples.class_ids)), samples.class_ids))
    return {"usual": at_random, "honest": by_group}


def _answer(samples: Samples, folds: Folds, *, seed: int) -> np.ndarray:
    answers = np.full((len(samples.class_ids), len(config.CLASS_NAMES)), np.nan)
    for fitted, scored in folds:
        *_, predict = _epochs(samples.features[fitted], samples.class_ids[fitted], n_epochs=HEAD_EPOCHS, seed=seed)
        answers[scored] = predict(samples.features[scored])
    return answers


def _answer_at_best(samples: Samples, folds: Folds, *, n_epochs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the answers of the epoch best on each test fold, and of that best on the next fold; both were held out."""
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
