"""YAMNet for three classes: patches, pooled features, heads, checkpoints; with `yamnet_backbone` TensorFlow's place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy.special import logsumexp

from lib import config
from lib.config import PATCH_SAMPLES
from lib.networks import yamnet_backbone
from lib.networks.frozen_features import CLIPS_PER_BLOCK
from lib.networks.onnx_networks import cut_patches
from lib.networks.yamnet_backbone import EMBEDDING_SIZE, N_FEATURES, BaseYamnet, copy, serializable

MAX_PATCHES_PER_BATCH = 64
POOLINGS = "mean_maximum_logmeanexp"  # of `pool`, in this order; names a folder of frozen_features' cache
Linear = tuple[np.ndarray, np.ndarray]  # weights (3, n_features) and biases (3,)


@serializable
class PoolByClip(keras.layers.Layer):
    """Features (n_patches, n) and their clip index (n_patches,) to what `pool` makes of each clip (n_clips, 3 n)."""

    def call(self, features: tf.Tensor, clip_index: tf.Tensor) -> tf.Tensor:
        """Pool patches that share an index; indices must rise from 0 without a gap."""
        mean, maximum = (f(features, clip_index) for f in (tf.math.segment_mean, tf.math.segment_max))
        below = tf.exp(features - tf.gather(maximum, clip_index))
        return tf.concat([mean, maximum, maximum + tf.math.log(tf.math.segment_mean(below, clip_index))], axis=1)


@serializable
class SplitFeatures(keras.layers.Layer):
    """Pooled features (n_clips, 3 * 1047) to those of the embedding (n_clips, 2048) and of the scores (n_clips, 69)."""

    def call(self, pooled: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Split the columns of every kind of pooling alike."""
        return split_features(pooled, concatenate=keras.ops.concatenate)


def split_features(pooled: np.ndarray, *, concatenate: Callable = np.concatenate) -> tuple[np.ndarray, np.ndarray]:
    """Split the pooled features of `with_class_scores` (n_clips, 3 * 1047).

    Returns
    -------
    tuple
        Mean and maximum of the embedding (n_clips, 2048); mean, maximum and log-mean-exp of the scores (n_clips, 69).
    """
    parts = [pooled[:, start : start + N_FEATURES] for start in range(0, 3 * N_FEATURES, N_FEATURES)]
    embedding, scores = [p[:, :EMBEDDING_SIZE] for p in parts[:2]], [p[:, EMBEDDING_SIZE:] for p in parts]
    return concatenate(embedding, axis=1), concatenate(scores, axis=1)


def clip_batch(waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the classifier's input: all patches of some clips (n_patches, 15600) and each patch's clip index."""
    patches = [cut_patches(waveform) for waveform in waveforms]
    clip_index = np.repeat(np.arange(len(patches)), [len(part) for part in patches]).astype(np.int32)
    return {"patches": np.concatenate(patches), "clip_index": clip_index}


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


def pool(clip_features: Sequence[np.ndarray]) -> np.ndarray:
    """Pool each clip's features (n_patches, n) by mean, maximum and log-mean-exp: (n_clips, 3 n), as PoolByClip does.

    The last is between the other two: a few loud patches count for more than in the mean, and one alone for less
    than in the maximum (Pinheiro and Collobert 2015, "From image-level to pixel-level labeling").
    """
    between = [logsumexp(features, axis=0) - np.log(len(features)) for features in clip_features]
    outer = [np.concatenate([features.mean(axis=0), features.max(axis=0)]) for features in clip_features]
    return np.concatenate([np.stack(outer), np.stack(between)], axis=1).astype(np.float32)


def pooled(backbone: keras.Model, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """Return pooled features (n_clips, 3 n) of clips."""
    starts = range(0, len(waveforms), CLIPS_PER_BLOCK)
    return np.concatenate([pool(embeddings(backbone, waveforms[start : start + CLIPS_PER_BLOCK])) for start in starts])


def weights(backbone: keras.Model) -> dict[str, np.ndarray]:
    """Return all weights by name, for `frozen_features.of_clips` to tell networks apart."""
    return {v.path: v.numpy() for v in backbone.weights}


def build_head(of_embedding: Linear, of_scores: Linear) -> keras.Model:
    """Build two linear heads whose probabilities are averaged.

    Parameters
    ----------
    of_embedding, of_scores : (ndarray, ndarray)
        Weights (3, 2048) and (3, 69) on what `split_features` returns, and biases (3,).

    Returns
    -------
    keras.Model
        Pooled features of `with_class_scores` (n_clips, 3 * 1047) to probabilities (n_clips, 3).
    """
    pooled = keras.Input((3 * N_FEATURES,), name="pooled")
    heads, probabilities = {"of_embedding": of_embedding, "of_scores": of_scores}, []
    for part, (name, (kernel, bias)) in zip(SplitFeatures(name="split")(pooled), heads.items(), strict=True):
        layer = keras.layers.Dense(len(config.CLASS_NAMES), activation="softmax", name=name)
        probabilities.append(layer(part))
        layer.set_weights([kernel.T, bias])
    return keras.Model(pooled, keras.layers.Average(name="mean")(probabilities), name="head")


def build_classifier(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """Join backbone, pooling by clip and head: the input of `clip_batch` to probabilities (n_clips, 3)."""
    patches = keras.Input((PATCH_SAMPLES,), name="patches")
    clip_index = keras.Input((), name="clip_index", dtype="int32")
    pooled = PoolByClip(name="pool_by_clip")(backbone(patches), clip_index)
    return keras.Model({"patches": patches, "clip_index": clip_index}, head(pooled), name="yamnet_classifier")


def set_trainable(backbone: keras.Model, *, first_layer: int = 1) -> None:
    """Unfreeze the convolutions from MobileNet layer `first_layer` (1 to 14) on; batch norms stay in inference mode."""
    backbone.trainable = True
    for layer in backbone.layers:
        number = re.match(r"layer(\d+)_", layer.name)
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number is not None and int(number[1]) >= first_layer and not is_batch_norm


def predict(classifier: keras.Model, waveforms: Sequence[np.ndarray], *, batch_size: int = 8) -> np.ndarray:
    """Return probabilities (n_clips, 3) in CLASS_NAMES order; a clip's row does not depend on its neighbours."""
    starts = range(0, len(waveforms), batch_size)
    rows = [classifier.predict_on_batch(clip_batch(waveforms[start : start + batch_size])) for start in starts]
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
