"""What fine-tuning YAMNet's last two layers is worth on unseen corpora: without each of some corpus groups in turn.

The control is the frozen network with the head that fine-tuning starts from (notebook 03). Both predict the windows of
the corpus group that neither was trained on. Fine-tuned, it ships only where the interval over all is above zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lib import evaluation, frozen_features, manifest, windows
from lib.studies.inputs import SEED, Inputs
from lib.studies.result import Result, columns

HELD_OUT = ("freesound", "animals_and_homes", "deeply", "games")
ALL = "all"
N_WINDOWS, N_JUDGED_WINDOWS = 3000, 2000  # as in params/full.yaml: the features are in the cache
N_EPOCHS, HEAD_SIZE, HEAD_RATE = 12, 64, 1e-3  # of the head: clips per batch, learning rate
N_BATCHES, SIZE, RATE, FIRST_LAYER = 400, 8, 1e-4, 13  # of fine-tuning


def run(_inputs: Inputs) -> Result:
    """Fine-tune without each of `HELD_OUT`: table fine_tuning, as `tabulate`."""
    from lib import yamnet, yamnet_backbone  # here: TensorFlow takes seconds to import

    examples, sounds = windows.examples(n_training=N_WINDOWS, n_judged=N_JUDGED_WINDOWS, seed=SEED)
    backbone = yamnet_backbone.from_hub().with_class_scores()
    features = frozen_features.of_clips(yamnet, backbone, sounds)
    found = {name: _without(name, examples, sounds, features, backbone=backbone) for name in HELD_OUT}
    return Result({"n_batches": N_BATCHES}, {"fine_tuning": tabulate(examples, found)})


def tabulate(examples: pd.DataFrame, found: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """Return macro F1 gained: a row for each corpus group held out, and one for all of them.

    Parameters
    ----------
    examples : DataFrame
        label and group_id.
    found : mapping of str to (ndarray, ndarray, ndarray)
        Corpus group to places of its windows in `examples`, their predictions (n_windows, 3) fine-tuned, and frozen.
    """
    table = []
    for name, parts in [*((name, [part]) for name, part in found.items()), (ALL, list(found.values()))]:
        places, tuned, frozen = (np.concatenate(each) for each in zip(*parts, strict=True))
        rows = examples.iloc[places]
        truth = manifest.class_ids(rows), rows["group_id"].to_numpy()
        size = {"n_windows": len(rows), "n_groups": rows["group_id"].nunique()}
        gain = evaluation.paired_difference(tuned, frozen, *truth, seed=SEED)
        table.append({"held_out": name} | columns("gain", gain) | size)
    return pd.DataFrame(table)


def _without(
    name: str, examples: pd.DataFrame, sounds: Sequence[np.ndarray], features: Sequence[np.ndarray], *, backbone: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from lib import yamnet

    held = ((examples["kind"] == "window") & (examples["corpus_group"] == name)).to_numpy()
    fitted = (examples["split"] == "train") & (examples["kind"] != "window")
    fitted &= windows.unseen(examples, examples[held])
    places = np.flatnonzero(fitted)
    patches = np.concatenate([features[place] for place in places[::10]])
    head = yamnet.build_head(patches.mean(axis=0), patches.var(axis=0) + 0.01)
    n_batches = N_EPOCHS * len(places) // HEAD_SIZE
    for batch, truth in _drawn(head, examples[fitted], n_batches=n_batches, size=HEAD_SIZE, rate=HEAD_RATE):
        head.train_on_batch(yamnet.feature_batch([features[place] for place in batch]), truth)
    tuned = yamnet.build_classifier(yamnet.copy(backbone), yamnet.copy(head))
    yamnet.set_trainable(tuned.get_layer("yamnet"), first_layer=FIRST_LAYER)
    taught = examples[fitted & (examples["kind"] == "training window")]
    for batch, truth in _drawn(tuned, taught, n_batches=N_BATCHES, size=SIZE, rate=RATE):
        tuned.train_on_batch(yamnet.clip_batch([sounds[place] for place in batch]), truth)
    judged = np.flatnonzero(held)
    after = yamnet.predict(tuned, [sounds[place] for place in judged])
    return judged, after, yamnet.predict_features(head, [features[place] for place in judged])


def _drawn(
    network: Any, rows: pd.DataFrame, *, n_batches: int, size: int, rate: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Compile a network; yield places (index) and class ids of each batch, rows drawn by `windows.weights`."""
    import keras

    optimizer = keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(rate, n_batches), clipnorm=1.0)
    network.compile(optimizer, loss="sparse_categorical_crossentropy")
    rng, chance, class_ids = np.random.default_rng(SEED), windows.weights(rows), manifest.class_ids(rows)
    for _ in range(n_batches):
        batch = rng.choice(len(rows), size=size, p=chance / chance.sum())
        yield rows.index[batch].to_numpy(), class_ids[batch]
