"""YAMNet for three classes: features of patches, head, checkpoints; with `yamnet_backbone` TensorFlow's place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from lib import config, yamnet_backbone
from lib.config import PATCH_SAMPLES
from lib.onnx_networks import cut_patches
from lib.yamnet_backbone import EMBEDDING_SIZE, N_FEATURES, BaseYamnet, copy, serializable

MAX_PATCHES_PER_BATCH = 64
FEATURES = "patches"  # names a folder of frozen_features' cache


@serializable
class PoolByClip(keras.layers.Layer):
    """Units of patches (n_patches, n) and their clip index (n_patches,) to three poolings of each (n_clips, 3 n).

    Mean, maximum, and log-mean-exp between the two: a few loud patches count for more than in the mean, and one alone
    for less than in the maximum (Pinheiro and Collobert 2015, "From image-level to pixel-level labeling").
    """

    def call(self, units: tf.Tensor, clip_index: tf.Tensor) -> tf.Tensor:
        """Pool patches that share an index; indices must rise from 0 without a gap."""
        mean, maximum = (f(units, clip_index) for f in (tf.math.segment_mean, tf.math.segment_max))
        below = tf.exp(units - tf.gather(maximum, clip_index))
        return tf.concat([mean, maximum, maximum + tf.math.log(tf.math.segment_mean(below, clip_index))], axis=1)


@serializable
class SplitFeatures(keras.layers.Layer):
    """Of checkpoints with two linear heads, so that they can be loaded: columns of the embedding, and of the scores."""

    def call(self, pooled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Split the columns of every kind of pooling alike."""
        parts = [pooled[:, start : start + N_FEATURES] for start in range(0, 3 * N_FEATURES, N_FEATURES)]
        embedding, scores = [p[:, :EMBEDDING_SIZE] for p in parts[:2]], [p[:, EMBEDDING_SIZE:] for p in parts]
        return keras.ops.concatenate(embedding, axis=1), keras.ops.concatenate(scores, axis=1)


def clip_batch(waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the classifier's input: all patches of some clips (n_patches, 15600) and each patch's clip index."""
    return _joined("patches", [cut_patches(waveform) for waveform in waveforms])


def feature_batch(clip_features: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the head's input: the features of all patches of some clips (n_patches, 1047), and their clip index."""
    return _joined("features", clip_features)


def _joined(name: str, clips: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    clip_index = np.repeat(np.arange(len(clips)), [len(part) for part in clips]).astype(np.int32)
    return {name: np.concatenate(clips), "clip_index": clip_index}


def load_base(released_dir: Path = config.MODELS_DIR / config.RELEASED_DIRS["yamnet"]) -> BaseYamnet:
    """Return the best backbone there is, and say which: the hub's, the released checkpoint's, or random weights."""
    try:
        return yamnet_backbone.from_hub()
    except yamnet_backbone.HubUnavailableError:
        if not (released_dir / config.CHECKPOINT_FILES["yamnet"]).is_file():
            return BaseYamnet(
                yamnet_backbone.build_backbone(),
                "random YAMNet weights (neither TF-Hub nor a released checkpoint found)",
            )
        classifier, base = load(released_dir), config.read_record(released_dir).get("base_weights")
        network, backbone = classifier.get_layer("yamnet"), backbone_of(classifier)
        scores = [tuple(layer.get_weights()) for layer in network.layers if layer.name == "class_scores"]
        description = f"models/{released_dir.name} ({base or 'unknown weights'})"
        return BaseYamnet(backbone, description, scores[0] if scores else None)


def backbone_of(classifier: keras.Model) -> keras.Model:
    """Return a classifier's YAMNet without head or class scores: patches (n_patches, 15600) to (n_patches, 1024)."""
    network = classifier.get_layer("yamnet")
    return keras.Model(network.input, network.get_layer("embedding").output, name="yamnet")


def embeddings(backbone: keras.Model, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the features of each clip's patches, a list of (n_patches, 1024), or 1047 with class scores."""
    batch = clip_batch(waveforms)
    starts = range(0, len(batch["patches"]), MAX_PATCHES_PER_BATCH)
    parts = [backbone.predict_on_batch(batch["patches"][start : start + MAX_PATCHES_PER_BATCH]) for start in starts]
    return np.split(np.concatenate(parts), np.flatnonzero(np.diff(batch["clip_index"])) + 1)


clip_features = embeddings  # what `lib.frozen_features.of_clips` keeps of each clip


def weights(backbone: keras.Model) -> dict[str, np.ndarray]:
    """Return all weights by name, for `frozen_features.of_clips` to tell networks apart."""
    return {v.path: v.numpy() for v in backbone.weights}


def build_head(mean: np.ndarray, variance: np.ndarray, *, n_hidden: int = 64, dropout: float = 0.3) -> keras.Model:
    """Build a small network that is given a clip's patches one by one, pools what it makes of them, and decides.

    Multiple instance learning: the label is the clip's, and which patches it is due to is learnt (Ilse et al. 2018,
    "Attention-based deep multiple instance learning", section 2).

    Parameters
    ----------
    mean, variance : ndarray (n_features,)
        Of the features of patches, for standardising them.
    n_hidden : int
        Units that each patch's features are turned into.
    dropout : float
        Share of features, and of units, that are left out in training.

    Returns
    -------
    keras.Model
        The input of `feature_batch` to probabilities (n_clips, 3).
    """
    features, clip_index = keras.Input((len(mean),), name="features"), keras.Input((), name="clip_index", dtype="int32")
    net = keras.layers.Normalization(mean=mean, variance=variance, name="standardise")(features)
    net = keras.layers.Dropout(dropout)(net)
    net = keras.layers.Dense(n_hidden, activation="relu", name="of_patch")(net)
    net = PoolByClip(name="pool_by_clip")(keras.layers.Dropout(dropout)(net), clip_index)
    net = keras.layers.Dense(len(config.CLASS_NAMES), activation="softmax", name="of_clip")(net)
    return keras.Model({"features": features, "clip_index": clip_index}, net, name="head")


def build_classifier(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """Join backbone and head: the input of `clip_batch` to probabilities (n_clips, 3)."""
    patches = keras.Input((PATCH_SAMPLES,), name="patches")
    clip_index = keras.Input((), name="clip_index", dtype="int32")
    probabilities = head({"features": backbone(patches), "clip_index": clip_index})
    return keras.Model({"patches": patches, "clip_index": clip_index}, probabilities, name="yamnet_classifier")


def set_trainable(backbone: keras.Model, *, first_layer: int = 1) -> None:
    """Unfreeze the convolutions from MobileNet layer `first_layer` (1 to 14) on; batch norms stay in inference mode."""
    backbone.trainable = True
    for layer in backbone.layers:
        number = re.match(r"layer(\d+)_", layer.name)
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number is not None and int(number[1]) >= first_layer and not is_batch_norm


def predict(classifier: keras.Model, waveforms: Sequence[np.ndarray], *, batch_size: int = 8) -> np.ndarray:
    """Return probabilities (n_clips, 3) in CLASS_NAMES order; a clip's row does not depend on its neighbours."""
    return _predict(classifier, clip_batch, waveforms, batch_size)


def predict_features(head: keras.Model, clip_features: Sequence[np.ndarray], *, batch_size: int = 128) -> np.ndarray:
    """Return a head's probabilities (n_clips, 3) of the features of each clip's patches."""
    return _predict(head, feature_batch, clip_features, batch_size)


def _predict(network: keras.Model, collate: Callable, clips: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
    starts = range(0, len(clips), batch_size)
    rows = [network.predict_on_batch(collate(clips[start : start + batch_size])) for start in starts]
    return np.concatenate(rows) if rows else np.empty((0, len(config.CLASS_NAMES)), dtype=np.float32)


def save(classifier: keras.Model, checkpoint_dir: Path, *, record: dict) -> Path:
    """Write a classifier in Keras format with labels.json and training.json; return the path of the weights."""
    path = Path(checkpoint_dir) / config.CHECKPOINT_FILES["yamnet"]
    path.parent.mkdir(parents=True, exist_ok=True)
    copy(classifier).save(path)  # a copy has no optimiser, whose moments would triple the file
    config.describe_checkpoint(path.parent, record)
    return path


def load(checkpoint_dir: Path) -> keras.Model:
    """Load a classifier; safe mode, so no code in the file can run.

    Raises
    ------
    lib.config.MissingCheckpointError, lib.config.ClassOrderError
    """
    path = config.require_checkpoint(checkpoint_dir, "yamnet")
    return keras.saving.load_model(path, compile=False, safe_mode=True)
