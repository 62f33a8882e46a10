"""A transfer-learning example beside the detector: ten ESC-50 classes by frozen YAMNet embeddings, in own folds.

After Toni Heittola's Environmental Audio AI example (accuracy 91.2 % on ten animal classes of ESC-50). Here are other
classes, because other audio is available: the two figures do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib import config, manifest, plots
from lib.studies import shares
from lib.studies.inputs import Inputs, yamnet_features
from lib.studies.result import Result, columns, interval_of

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
N_CLASSES = 10  # of the example
MIN_FOLDS = 3  # of the five: what is left of a class may lack a fold
MIN_CLIPS = 10  # a class with fewer does not count
PUBLISHED_CLIPS = 40  # per class of ESC-50

# Where a repository says the class by its folder, these differ from the names above.
_FOLDERS = {"fire crackling": "crackling fire", "person sneeze": "sneezing", "dog bark": "dog"}
_PATH = r"(?:^|(?P<folder>[^/]*)/)(?P<fold>[1-5])-\d+-[A-Z](?:-(?P<number>\d{1,2}))?\.(?:wav|ogg)$"


def names(paths: pd.Series) -> pd.DataFrame:
    """Read ``<fold>-<Freesound number>-<take>[-<class>].wav``, with the class by number or by folder.

    Return class_name and ESC-50's own fold (1 to 5) of each path; NaN for a file that is not named so, or whose folder
    is no class of ESC-50.
    """
    parts = paths.str.extract(_PATH)
    by_number = parts["number"].astype(float).map(dict(enumerate(CLASSES)))
    by_folder = parts["folder"].str.strip().str.extract(r"^\d+ - (.+)$")[0].str.lower().replace(_FOLDERS)
    found = by_folder.where(parts["number"].isna(), by_number)
    found = found.where(found.isin(CLASSES))
    return pd.DataFrame({"class_name": found, "fold": parts["fold"].astype(float).where(found.notna())})


def clips(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the ESC-50 clips among rows that have the path published under, with class_name and ESC-50's own fold."""
    found = names(rows["path"])
    return rows.assign(**found).dropna(subset="class_name").astype({"fold": int})


def choose_classes(found: pd.DataFrame) -> tuple[str, ...]:
    """Return the ten classes with most clips, of those with `MIN_CLIPS` or more in `MIN_FOLDS` or more; else none."""
    classes = found.groupby("class_name").agg(n=("fold", "size"), n_folds=("fold", "nunique"))
    enough = classes[(classes["n"] >= MIN_CLIPS) & (classes["n_folds"] >= MIN_FOLDS)]
    chosen = enough.sort_values("n", ascending=False, kind="stable").index[:N_CLASSES]
    return tuple(sorted(chosen, key=CLASSES.index)) if len(chosen) == N_CLASSES else ()


def run(inputs: Inputs) -> Result:
    """Tell ten kinds of sound apart from the mean of frozen YAMNet embeddings, as `classify`; no classes, no table."""
    rows, raw = inputs.rows(*manifest.SPLITS), pd.read_csv(config.RAW_MANIFEST_PATH)
    published = rows["clip_id"].map(raw.set_index("clip_id")["path"]).fillna("")
    found = clips(rows.assign(path=published))
    if not choose_classes(found):
        return Result({"classes": []})
    mean, _ = np.split(yamnet_features(manifest.load_waveforms(rows.loc[found.index]))[0], 2, axis=1)
    return classify(found, mean)


def classify(found: pd.DataFrame, embeddings: np.ndarray) -> Result:
    """Return the example's accuracy, whole and by class, over ESC-50's own five folds.

    Parameters
    ----------
    found : DataFrame
        Of `clips`; groups are Freesound recordings.
    embeddings : ndarray, (n_clips, n_features)
        Means over the patches of each clip.

    Returns
    -------
    Result
        Table esc10: a row per class and one for "all": accuracy, low, high, n. Figures: classes, accuracy, and what
        Heittola's example has.

    Raises
    ------
    ValueError
        If a Freesound recording is in two folds.
    """
    classes = choose_classes(found)
    chosen = found["class_name"].isin(classes).to_numpy()
    found, embeddings = found[chosen], embeddings[chosen]
    if (found.groupby("group_id")["fold"].nunique() > 1).any():
        raise ValueError("a group is in two folds of ESC-50: a clip would be tested by its own recording.")
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    options = {"groups": found["fold"], "cv": LeaveOneGroupOut()}
    predicted = cross_val_predict(head, embeddings, found["class_name"].to_numpy(str), **options)
    right = found.assign(right=predicted == found["class_name"])
    parts = {name: right[right["class_name"] == name] for name in classes} | {"all": right}
    rates = {name: shares.rate(part["right"], part["group_id"].to_numpy()) for name, part in parts.items()}
    table = pd.DataFrame([{"class_name": name} | columns("accuracy", rate) | rate for name, rate in rates.items()])
    counts = right["class_name"].value_counts()
    figures = {"classes": list(classes), "accuracy": rates["all"], "heittola_accuracy": HEITTOLA_ACCURACY}
    figures |= {"n_animals": len(set(classes) & set(HEITTOLA_CLASSES)), "published_clips": PUBLISHED_CLIPS}
    figures |= {"fewest_clips": int(counts.min()), "most_clips": int(counts.max())}
    return Result(figures, {"esc10": table.drop(columns=["value", "low", "high"])})


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw the accuracy of each class with its interval and n."""
    rows = tables["esc10"].to_dict("records") if "esc10" in tables else []
    if not rows:
        return {}
    figure, ax = plots.subplots(height_inches=0.24 * len(rows) + 0.9)
    bars = {row["class_name"]: interval_of(row, "accuracy") for row in rows}
    plots.score_bars(ax, {"": bars}, label="Accuracy", n={row["class_name"]: row["n_clips"] for row in rows})
    return {"esc10": figure}
