"""A transfer-learning example beside the detector: ten ESC-50 classes by frozen YAMNet embeddings, in own folds.

After Toni Heittola's Environmental Audio AI example (accuracy 91.2 % on ten animal classes of ESC-50). Here are other
classes, because other audio is available: the two figures do not compare.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib import evaluation, manifest, plots
from lib.corpora import acquisition
from lib.studies import shares
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, interval_of

# In the order of their numbers, by major category. Source: Piczak 2015, ESC: Dataset for Environmental Sound
# Classification; https://github.com/karolpiczak/ESC-50
CLASSES = (
    "dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow",
    "rain", "sea waves", "crackling fire", "crickets", "chirping birds",
    "water drops", "wind", "pouring water", "toilet flush", "thunderstorm",
    "crying baby", "sneezing", "clapping", "breathing", "coughing",
    "footsteps", "laughing", "brushing teeth", "snoring", "drinking sipping",
    "door wood knock", "mouse click", "keyboard typing", "door wood creaks", "can opening",
    "washing machine", "vacuum cleaner", "clock alarm", "clock tick", "glass breaking",
    "helicopter", "chainsaw", "siren", "car horn", "engine", "train", "church bells", "airplane", "fireworks",
    "hand saw",
)  # fmt: skip
HEITTOLA_CLASSES = CLASSES[:10]
HEITTOLA_ACCURACY = 0.912
ESC10_CLASSES = (
    "dog", "rooster", "rain", "sea waves", "crackling fire", "crying baby", "sneezing", "clock tick", "helicopter",
    "chainsaw",
)  # fmt: skip
N_CLASSES = 10  # of the example
MIN_FOLDS = 3  # of the five: what is left of a class may lack a fold
MIN_CLIPS = 10  # a class with fewer does not count
PUBLISHED_CLIPS = 40  # per class of ESC-50

# Where a repository says the class by its folder, these differ from the names above.
_FOLDERS = {"fire crackling": "crackling fire", "person sneeze": "sneezing", "dog bark": "dog"}
_FILE = re.compile(r"([1-5])-(\d+)-([A-Z])(?:-(\d{1,2}))?\.(?:wav|ogg)")
_FOLDER = re.compile(r"\d+ - (.+)")


@dataclass(frozen=True)
class Name:
    """What the name of an ESC-50 file says: its fold (1 to 5), the Freesound recording it is cut from, its class."""

    fold: int
    freesound: str
    class_name: str


def read_name(path: str) -> Name | None:
    """Read ``<fold>-<Freesound number>-<take>[-<class>].wav``, with the class by number or by folder.

    Return None for a file that is not named so, or whose folder is no class of ESC-50.
    """
    *folders, file = path.split("/")
    match = _FILE.fullmatch(file)
    if not match:
        return None
    if match[4] is not None:
        name = dict(enumerate(CLASSES)).get(int(match[4]), "")
    else:
        folder = _FOLDER.fullmatch(folders[-1].strip() if folders else "")
        name = folder[1].lower() if folder else ""
        name = _FOLDERS.get(name, name)
    return Name(int(match[1]), match[2], name) if name in CLASSES else None


def clips(rows: pd.DataFrame, recordings: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the ESC-50 clips among manifest rows of all splits: place in them, clip_id, class_name, fold, group_id.

    The folds are ESC-50's own. `recordings` has clip_id and the path published under (`acquisition.clips`).
    """
    paths = (acquisition.clips() if recordings is None else recordings).set_index("clip_id")["path"].to_dict()
    found = []
    for place, row in enumerate(rows.to_dict("records")):
        if name := read_name(str(paths.get(row["clip_id"], row.get("path", "")))):
            found.append((place, row["clip_id"], name.class_name, name.fold, row["group_id"]))
    return pd.DataFrame(found, columns=["place", "clip_id", "class_name", "fold", "group_id"])


def choose_classes(found: pd.DataFrame) -> tuple[str, tuple[str, ...]]:
    """Return which ten classes there is audio for: ESC-10's own, else the ten animals, else those with most clips.

    A class counts where it has `MIN_CLIPS` clips or more in `MIN_FOLDS` folds or more. Where fewer than ten count, the
    name comes without classes.
    """
    classes = found.groupby("class_name").agg(n=("fold", "size"), n_folds=("fold", "nunique"))
    enough = classes[(classes["n"] >= MIN_CLIPS) & (classes["n_folds"] >= MIN_FOLDS)]
    for name, wanted in (("ESC-10", ESC10_CLASSES), ("ESC-50 animals", HEITTOLA_CLASSES)):
        if set(wanted) <= set(enough.index):
            return name, wanted
    ranked = enough.sort_values("n", ascending=False, kind="stable").index[:N_CLASSES]
    chosen = tuple(sorted(ranked, key=CLASSES.index)) if len(ranked) == N_CLASSES else ()
    return "ESC-50, the ten classes with most clips", chosen


def cross_validate(embeddings: np.ndarray, class_names: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the class given to each clip by a logistic regression that was fitted on the other folds.

    Embeddings are (n_clips, n_features); class names, folds and what is returned are (n_clips,).
    """
    predictions = np.empty(len(class_names), dtype=object)
    for fold in np.unique(folds):
        held_out = folds == fold
        head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        predictions[held_out] = head.fit(embeddings[~held_out], class_names[~held_out]).predict(embeddings[held_out])
    return predictions


def run(inputs: Inputs) -> Result:
    """Tell ten kinds of sound apart from the mean of frozen YAMNet embeddings, as `classify`."""
    from lib import yamnet  # here: TensorFlow takes seconds to import

    rows = inputs.rows(*manifest.SPLITS)
    rows = rows.iloc[clips(rows, inputs.recordings)["place"]].reset_index(drop=True)
    embeddings = yamnet.embeddings(yamnet.load_base().backbone, manifest.load_waveforms(rows))
    means = np.stack([patches.mean(axis=0) for patches in embeddings])
    return classify(rows, means, recordings=inputs.recordings, seed=SEED)


def classify(
    rows: pd.DataFrame,
    embeddings: np.ndarray,
    *,
    recordings: pd.DataFrame | None = None,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> Result:
    """Return the example's accuracy, whole and by class, over ESC-50's own five folds.

    Embeddings (n_rows, n_features) are means over the patches of each clip; groups are Freesound recordings.

    Returns
    -------
    Result
        Tables esc10 (a row per class and one for "all": accuracy, low, high, n) and esc10_folds. Figures: the classes,
        accuracy, n, and what Heittola's example has. Where fewer than ten classes are available there is no table, and
        the figures say how many there were.

    Raises
    ------
    ValueError
        If a Freesound recording is in two folds.
    """
    found = clips(rows, recordings)
    which, classes = choose_classes(found)
    if not classes:
        return Result({"classes": [], "n_classes_found": int(found["class_name"].nunique()), "needed": N_CLASSES})
    found = found[found["class_name"].isin(classes)].reset_index(drop=True)
    if (found.groupby("group_id")["fold"].nunique() > 1).any():
        raise ValueError("a group is in two folds of ESC-50: a clip would be tested by its own recording.")
    names = found["class_name"].to_numpy(dtype=str)
    predicted = cross_validate(np.asarray(embeddings)[found["place"]], names, found["fold"].to_numpy())
    right = found.assign(right=predicted == names)
    table = _by_class(right, classes, n_bootstrap=n_bootstrap, seed=seed)
    folds = right.groupby("fold").agg(accuracy=("right", "mean"), n_clips=("right", "size")).reset_index()
    counts = right["class_name"].value_counts()
    accuracy = _accuracy(right, n_bootstrap, seed)
    figures: dict[str, Any] = {"which": which, "classes": list(classes), "accuracy": accuracy}
    figures |= {"n_animals": len(set(classes) & set(HEITTOLA_CLASSES)), "heittola_accuracy": HEITTOLA_ACCURACY}
    figures |= {"fewest_clips": int(counts.min()), "most_clips": int(counts.max()), "published_clips": PUBLISHED_CLIPS}
    return Result(figures, {"esc10": table, "esc10_folds": folds})


def _by_class(right: pd.DataFrame, classes: tuple[str, ...], *, n_bootstrap: int, seed: int) -> pd.DataFrame:
    parts = {name: right[right["class_name"] == name] for name in classes} | {"all": right}
    rows = [
        {"class_name": name} | _accuracy(part, n_bootstrap, seed) | {"n_folds": part["fold"].nunique()}
        for name, part in parts.items()
    ]
    return pd.DataFrame(rows).rename(columns={"value": "accuracy", "low": "accuracy_low", "high": "accuracy_high"})


def _accuracy(part: pd.DataFrame, n_bootstrap: int, seed: int) -> dict[str, Any]:
    found = shares.rate(part["right"], part["group_id"].to_numpy(), n_bootstrap=n_bootstrap, seed=seed)
    return {name: found[name] for name in ("value", "low", "high", "interval", "n_clips", "n_groups")}


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw the accuracy of each class with its interval and n."""
    table = tables["esc10"]
    figures: dict[str, Any] = {row["class_name"]: interval_of(row, "accuracy") for row in table.to_dict("records")}
    counts = dict(zip(table["class_name"], table["n_clips"], strict=True))
    figure, ax = plots.subplots(height_inches=0.24 * len(table) + 0.9)
    plots.score_bars(ax, {"": figures}, label="Accuracy", n=counts)
    return {"esc10": figure}
