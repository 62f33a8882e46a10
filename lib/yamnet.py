"""YAMNet as a trainable Keras network; the only file that imports TensorFlow."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.request
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # keep device probing out of notebook pages

import keras
import numpy as np
import tensorflow as tf
from scipy.special import expit, logsumexp

from lib import config
from lib.batches import ClipSampler
from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES
from lib.frozen_features import CLIPS_PER_BLOCK, weights_sha256
from lib.waveforms import as_waveform

HUB_HANDLE = "https://tfhub.dev/google/yamnet/1"
HUB_TIMEOUT_SECONDS = 5.0
# SHA-256 over the variables of the rebuilt file (layers 7 to 14 recovered from the 8-bit release), see weights_sha256.
REBUILT_WEIGHTS_SHA256 = "e6889c48af4862d0f877a20570fd7fd139d5d49b1669754c7544a4adabaa96d5"
CHECKPOINT_FILE = config.CHECKPOINT_FILES["yamnet"]

# Front end: Hershey et al. 2017, "CNN architectures for large-scale audio classification", section 3.1.
FRAME_SAMPLES = 400  # 25 ms
HOP_SAMPLES = 160  # 10 ms
FFT_SAMPLES = 512
N_MELS = 64
MEL_LOW_HZ, MEL_HIGH_HZ = 125.0, 7500.0
LOG_OFFSET = 0.001
PATCH_FRAMES = 96
EMBEDDING_SIZE = 1024
POOLINGS = "mean_maximum_logmeanexp"  # of `pool`, in this order; names a folder of frozen_features' cache
N_AUDIOSET_CLASSES = 521
MAX_PATCHES_PER_BATCH = 64
# The AudioSet classes that matter here: what a cry or a scream is called there, and what is mistaken for one.
AUDIOSET_CLASSES = (
    "Baby cry, infant cry", "Crying, sobbing", "Whimper", "Wail, moan", "Screaming", "Shout", "Yell", "Bellow", "Whoop",
    "Children shouting", "Squeal", "Groan", "Grunt", "Speech", "Child speech, kid speaking", "Singing", "Music",
    "Laughter", "Baby laughter", "Giggle", "Cat", "Meow", "Caterwaul",
)  # fmt: skip
N_FEATURES = EMBEDDING_SIZE + len(AUDIOSET_CLASSES)

# MobileNet v1 (Howard et al. 2017, table 1): (stride, n_filters) of the 13 depthwise separable layers.
SEPARABLE_LAYERS = (
    (1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), (1, 512),
    (1, 512), (1, 512), (1, 512), (1, 512), (2, 1024), (1, 1024),
)  # fmt: skip
Linear = tuple[np.ndarray, np.ndarray]  # weights (n_features, 3) and biases (3,)
CONVOLUTION = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}


class HubUnavailableError(RuntimeError):
    """YAMNet's published weights are available neither from TF-Hub nor from its cache."""


# Registered names and the layer "voices" are those of the released checkpoint.
@keras.saving.register_keras_serializable(package="cry_scream_detector", name="LogMel")
class PatchLogMel(keras.layers.Layer):
    """Patches of samples (n_patches, 15600) to log-mel (n_patches, 96, 64), as YAMNet's own front end computes it."""

    def build(self, _input_shape: tuple) -> None:
        """Compute the mel matrix (257, 64) once."""
        self.mel_matrix = tf.signal.linear_to_mel_weight_matrix(
            N_MELS, FFT_SAMPLES // 2 + 1, config.SAMPLE_RATE_HZ, MEL_LOW_HZ, MEL_HIGH_HZ
        )

    def call(self, windows: tf.Tensor) -> tf.Tensor:
        """Return the log-mel of each patch."""
        spectrum = tf.abs(tf.signal.stft(windows, FRAME_SAMPLES, HOP_SAMPLES, FFT_SAMPLES))
        return tf.math.log(tf.matmul(spectrum, self.mel_matrix) + LOG_OFFSET)


@keras.saving.register_keras_serializable(package="cry_scream_detector")
class MaskLogMel(keras.layers.Layer):
    """SpecAugment (Park et al. 2019), in training only: one band of mels and one run of frames set to the mean."""

    def __init__(self, max_mels: int = 12, max_frames: int = 16, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.max_mels, self.max_frames = max_mels, max_frames

    def call(self, log_mel: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Mask (n_patches, 96, 64) when training."""
        if not training:
            return log_mel
        masked = _random_run(log_mel, axis=1, max_length=self.max_frames) | _random_run(
            log_mel, axis=2, max_length=self.max_mels
        )
        return tf.where(masked, tf.reduce_mean(log_mel, axis=(1, 2), keepdims=True), log_mel)

    def get_config(self) -> dict:
        """Return the arguments that rebuild the layer."""
        return {**super().get_config(), "max_mels": self.max_mels, "max_frames": self.max_frames}


@keras.saving.register_keras_serializable(package="cry_scream_detector")
class PoolByClip(keras.layers.Layer):
    """Features (n_patches, n) and their clip index (n_patches,) to what `pool` makes of each clip (n_clips, 3 n)."""

    def call(self, features: tf.Tensor, clip_index: tf.Tensor) -> tf.Tensor:
        """Pool patches that share an index; indices must rise from 0 without a gap."""
        mean, maximum = (f(features, clip_index) for f in (tf.math.segment_mean, tf.math.segment_max))
        below = tf.exp(features - tf.gather(maximum, clip_index))
        return tf.concat([mean, maximum, maximum + tf.math.log(tf.math.segment_mean(below, clip_index))], axis=1)


@keras.saving.register_keras_serializable(package="cry_scream_detector", name="SplitVoices")
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


def _random_run(log_mel: tf.Tensor, *, axis: int, max_length: int) -> tf.Tensor:
    """Draw one run of at most `max_length` places along `axis` for each patch; return a mask that broadcasts."""
    shape = tf.shape(log_mel)
    n_patches, size = shape[0], shape[axis]
    length = tf.random.uniform((n_patches, 1), 0, max_length + 1, tf.int32)
    start = tf.cast(tf.random.uniform((n_patches, 1)) * tf.cast(size - length + 1, tf.float32), tf.int32)
    place = tf.range(size)[None, :]
    return tf.expand_dims((place >= start) & (place < start + length), 3 - axis)


def cut_patches(waveform: np.ndarray) -> np.ndarray:
    """Cut a waveform into YAMNet's patches of samples.

    A waveform shorter than one patch is repeated until it fills one; a tail that no full hop covers gets one
    more patch that ends with the waveform. So the network never sees padding.

    Parameters
    ----------
    waveform : ndarray, float32, shape (n_samples,)
        Mono, 16 kHz.

    Returns
    -------
    ndarray, float32, shape (n_patches, 15600)

    Raises
    ------
    ValueError
        If the waveform is empty or not one-dimensional.
    """
    waveform = as_waveform(waveform)
    if waveform.size < PATCH_SAMPLES:
        return np.resize(waveform, (1, PATCH_SAMPLES))
    starts = list(range(0, waveform.size - PATCH_SAMPLES + 1, PATCH_HOP_SAMPLES))
    if starts[-1] + PATCH_SAMPLES < waveform.size:
        starts.append(waveform.size - PATCH_SAMPLES)
    return np.stack([waveform[start : start + PATCH_SAMPLES] for start in starts])


def clip_batch(waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the classifier's input: all patches of some clips (n_patches, 15600) and each patch's clip index."""
    windows = [cut_patches(waveform) for waveform in waveforms]
    clip_index = np.repeat(np.arange(len(windows)), [len(w) for w in windows]).astype(np.int32)
    return {"windows": np.concatenate(windows), "clip_index": clip_index}


def build_backbone() -> keras.Model:
    """Build YAMNet with random weights: windows (n_patches, 15600) to embeddings (n_patches, 1024)."""
    windows = keras.Input((PATCH_SAMPLES,), name="windows")
    net = PatchLogMel(name="log_mel")(windows)
    net = MaskLogMel(name="mask_log_mel")(net)
    net = keras.layers.Reshape((PATCH_FRAMES, N_MELS, 1), name="patch")(net)
    net = keras.layers.Conv2D(32, 3, strides=2, name="layer1_conv", **CONVOLUTION)(net)
    net = _normalise(net, "layer1_conv")
    for number, (stride, n_filters) in enumerate(SEPARABLE_LAYERS, start=2):
        net = _separable(net, name=f"layer{number}", stride=stride, n_filters=n_filters)
    embedding = keras.layers.GlobalAveragePooling2D(name="embedding")(net)
    return keras.Model(windows, embedding, name="yamnet")


def _normalise(net: keras.KerasTensor, name: str) -> keras.KerasTensor:
    net = keras.layers.BatchNormalization(scale=False, epsilon=1e-4, name=f"{name}_bn")(net)
    return keras.layers.ReLU(name=f"{name}_relu")(net)


def _separable(net: keras.KerasTensor, *, name: str, stride: int, n_filters: int) -> keras.KerasTensor:
    depthwise, pointwise = f"{name}_depthwise_conv", f"{name}_pointwise_conv"
    he_normal = keras.initializers.RandomNormal(stddev=(2 / 9) ** 0.5)  # Keras counts a depthwise fan-in wrongly
    net = keras.layers.DepthwiseConv2D(
        3, strides=stride, padding="same", use_bias=False, depthwise_initializer=he_normal, name=depthwise
    )(net)
    net = _normalise(net, depthwise)
    net = keras.layers.Conv2D(n_filters, 1, name=pointwise, **CONVOLUTION)(net)
    return _normalise(net, pointwise)


@dataclass(frozen=True)
class BaseYamnet:
    """A backbone, where its weights come from, and what is known of its AudioSet head."""

    backbone: keras.Model
    description: str
    audioset_kernel: np.ndarray | None = None  # (1024, 521)
    audioset_bias: np.ndarray | None = None  # (521,)
    audioset_names: tuple[str, ...] = ()
    class_scores: tuple[np.ndarray, np.ndarray] | None = None  # kernel (1024, 23) and bias (23,) of AUDIOSET_CLASSES

    def audioset_scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Return AudioSet scores (n_patches, 521) of embeddings (n_patches, 1024)."""
        if self.audioset_kernel is None:
            raise HubUnavailableError(f"{self.description} carry no AudioSet head: only the hub's weights do.")
        return expit(embeddings @ self.audioset_kernel + self.audioset_bias)

    def with_class_scores(self) -> keras.Model:
        """Return a copy of the backbone that also scores each patch for the AudioSet classes `AUDIOSET_CLASSES`.

        Returns
        -------
        keras.Model
            Windows (n_patches, 15600) to the embedding and 23 logits (n_patches, 1047). The logits' weights are
            YAMNet's own and stay frozen; where they are not available they are random.
        """
        backbone = copy(self.backbone)
        layer = keras.layers.Dense(len(AUDIOSET_CLASSES), name="voices", trainable=False)
        features = keras.layers.Concatenate(name="features")([backbone.output, layer(backbone.output)])
        if self.class_scores is not None:
            layer.set_weights(self.class_scores)
        return keras.Model(backbone.input, features, name="yamnet")


def load_hub() -> object:
    """Load the TF-Hub module, from the cache named by TFHUB_CACHE_DIR or from the network.

    Raises
    ------
    HubUnavailableError
        If neither has it; found out in seconds, not minutes.
    """
    cached = Path(os.environ.get("TFHUB_CACHE_DIR", ""), hashlib.sha1(HUB_HANDLE.encode()).hexdigest())
    if not (os.environ.get("TFHUB_CACHE_DIR") and cached.is_dir()):
        _check_hub_reachable()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        import tensorflow_hub  # here, not above: it drags Keras 2 in, which only this function needs

    return tensorflow_hub.load(HUB_HANDLE)


def _check_hub_reachable() -> None:
    try:
        url = f"{HUB_HANDLE}?tf-hub-format=compressed"
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HUB_TIMEOUT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise HubUnavailableError(
            f"{HUB_HANDLE} cannot be reached ({error}) and TFHUB_CACHE_DIR holds no copy: "
            "connect to the network, or set TFHUB_CACHE_DIR to a folder that has it."
        ) from error


def copy_variables(backbone: keras.Model, variables: Mapping[str, np.ndarray]) -> None:
    """Copy the hub's variables (`layer1/conv/bn/beta`, ...) into a backbone by name, batch norms included.

    Raises
    ------
    ValueError
        If a variable of the backbone has no counterpart, or one is left over.
    """
    wanted = {_hub_name(v): v for layer in backbone.layers for v in layer.weights}
    given = {name: value for name, value in variables.items() if not name.startswith("dense/")}
    if set(wanted) != set(given):
        raise ValueError(f"Variables do not match YAMNet's: {sorted(set(wanted) ^ set(given))}")
    for name, variable in wanted.items():
        variable.assign(given[name])


def _hub_name(variable: keras.Variable) -> str:
    """Turn Keras 3's `layer2_depthwise_conv/kernel` into the hub's `layer2/depthwise_conv/depthwise_kernel`."""
    layer, name = variable.path.split("/")[-2:]
    if layer.endswith("depthwise_conv"):
        name = f"depthwise_{name}"
    return re.sub(r"^(layer\d+)_((?:depthwise_|pointwise_)?conv)(_bn)?$", _join_groups, layer) + f"/{name}"


def _join_groups(match: re.Match) -> str:
    return "/".join(part.lstrip("_") for part in match.groups() if part)


def from_hub() -> BaseYamnet:
    """Build the trainable network with the hub module's weights.

    Raises
    ------
    HubUnavailableError
        If the hub is available neither from its cache nor from the network.
    """
    module = load_hub()
    variables = {v.name.split(":")[0]: v.numpy() for v in module._yamnet.variables}
    backbone = build_backbone()
    copy_variables(backbone, variables)
    rebuilt = weights_sha256(variables) == REBUILT_WEIGHTS_SHA256
    class_map = Path(module.class_map_path().numpy().decode()).read_text(encoding="utf-8").splitlines()
    names = tuple(line.split(",", 2)[2].strip('"') for line in class_map[1:])
    columns = [names.index(name) for name in AUDIOSET_CLASSES]
    kernel, bias = variables["dense/kernel"], variables["dense/bias"]
    description = "rebuilt YAMNet weights (TFHUB_CACHE_DIR)" if rebuilt else "google/yamnet/1"
    return BaseYamnet(backbone, description, kernel, bias, names, class_scores=(kernel[:, columns], bias[columns]))


def load_base(released_dir: Path = config.MODELS_DIR / config.RELEASED_DIRS["yamnet"]) -> BaseYamnet:
    """Return the best backbone there is, and say which: the hub's, the released checkpoint's, or random weights."""
    try:
        return from_hub()
    except HubUnavailableError:
        if (released_dir / CHECKPOINT_FILE).is_file():
            network, base = load(released_dir).get_layer("yamnet"), config.read_record(released_dir).get("base_weights")
            backbone = keras.Model(network.input, network.get_layer("embedding").output, name="yamnet")
            scores = [tuple(layer.get_weights()) for layer in network.layers if layer.name == "voices"]
            description = f"models/{released_dir.name} ({base or 'unknown weights'}, fine-tuned)"
            return BaseYamnet(backbone, description, class_scores=scores[0] if scores else None)
        return BaseYamnet(build_backbone(), "random YAMNet weights (neither TF-Hub nor a released checkpoint found)")


def embeddings(backbone: keras.Model, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the features of each clip's patches, a list of (n_patches, 1024), or 1047 with class scores."""
    batch = clip_batch(waveforms)
    starts = range(0, len(batch["windows"]), MAX_PATCHES_PER_BATCH)
    parts = [backbone.predict_on_batch(batch["windows"][start : start + MAX_PATCHES_PER_BATCH]) for start in starts]
    boundaries = np.flatnonzero(np.diff(batch["clip_index"])) + 1
    return np.split(np.concatenate(parts), boundaries)


def pool(clip_features: Sequence[np.ndarray]) -> np.ndarray:
    """Pool each clip's features (n_patches, n) by mean, maximum and log-mean-exp: (n_clips, 3 n), as PoolByClip does.

    The last lies between the other two: a few loud patches count for more than in the mean, and one alone for less
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
    """Build two linear heads, whose probabilities are averaged.

    Parameters
    ----------
    of_embedding, of_scores : (ndarray, ndarray)
        Weights (2048, 3) and (69, 3) of what `split_features` returns, and biases (3,).

    Returns
    -------
    keras.Model
        Pooled features of `with_class_scores` (n_clips, 3 * 1047) to probabilities (n_clips, 3).
    """
    pooled = keras.Input((3 * N_FEATURES,), name="pooled")
    probabilities = []
    heads = {"of_embedding": of_embedding, "of_voices": of_scores}
    for part, (name, values) in zip(SplitFeatures(name="split_voices")(pooled), heads.items(), strict=True):
        layer = keras.layers.Dense(len(config.CLASS_NAMES), activation="softmax", name=name)
        probabilities.append(layer(part))
        layer.set_weights(values)
    return keras.Model(pooled, keras.layers.Average(name="mean")(probabilities), name="head")


def build_classifier(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """Join backbone, pooling by clip and head: the input of `clip_batch` to probabilities (n_clips, 3)."""
    windows = keras.Input((PATCH_SAMPLES,), name="windows")
    clip_index = keras.Input((), name="clip_index", dtype="int32")
    pooled = PoolByClip(name="pool_by_clip")(backbone(windows), clip_index)
    return keras.Model({"windows": windows, "clip_index": clip_index}, head(pooled), name="yamnet_classifier")


def copy(model: keras.Model) -> keras.Model:
    """Return a second, uncompiled network with the same weights; training one leaves the other alone."""
    second = type(model).from_config(_uncompiled(model.get_config()))  # unlike clone_model, which keeps the optimiser
    second.set_weights(model.get_weights())
    return second


def _uncompiled(settings: object) -> object:
    """Return a network's configuration without the optimisers of the networks inside it."""
    if isinstance(settings, dict):
        return {key: _uncompiled(value) for key, value in settings.items() if key != "compile_config"}
    return [_uncompiled(value) for value in settings] if isinstance(settings, list) else settings


def interpolate_weights(first: keras.Model, second: keras.Model, *, share: float) -> keras.Model:
    """Return a network of the same design with weights `share` of the way from the first's to the second's."""
    middle, pairs = copy(first), zip(first.get_weights(), second.get_weights(), strict=True)
    middle.set_weights([(1 - share) * start + share * end for start, end in pairs])
    return middle


def set_trainable(backbone: keras.Model, *, first_layer: int = 1) -> None:
    """Unfreeze the convolutions from MobileNet layer `first_layer` (1 to 14) on; batch norms stay in inference mode."""
    backbone.trainable = True
    for layer in backbone.layers:
        number = re.match(r"layer(\d+)_", layer.name)
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = bool(number) and int(number[1]) >= first_layer and not is_batch_norm


class AugmentedBatches(keras.utils.PyDataset):
    """Batches for `with_features`: augmented crops, their labels, and the teacher's features of the plain crops.

    Parameters
    ----------
    sampler : ClipSampler
        Of `lib.batches.augmented_pairs`: each clip is (2, n_samples), a crop and its augmented copy.
    teacher : keras.Model
        A frozen backbone with class scores.
    moving : bool
        Whether another epoch draws other clips.
    """

    def __init__(self, sampler: ClipSampler, teacher: keras.Model, *, moving: bool = True) -> None:
        super().__init__()
        self.sampler, self.teacher, self.moving, self.epoch = sampler, teacher, moving, 0

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self.sampler)

    def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return patches and clip index; one-hot labels (n_clips, 3) and the teacher's features (n_patches, 1047)."""
        pairs, class_ids = self.sampler.draw(self.epoch, number)
        features = self.teacher.predict_on_batch(clip_batch([crop for crop, _ in pairs])["windows"])
        labels = np.eye(len(config.CLASS_NAMES), dtype=np.float32)[class_ids]
        return clip_batch([copy for _, copy in pairs]), {"probabilities": labels, "features": features}

    def on_epoch_end(self) -> None:
        """Move on to the next epoch's draws."""
        self.epoch += self.moving


def with_features(classifier: keras.Model) -> keras.Model:
    """Return the same network, weights shared, that also gives the features (n_patches, 1047) of every patch."""
    windows, clip_index = (classifier.input[name] for name in ("windows", "clip_index"))
    features = classifier.get_layer("yamnet")(windows)
    pooled = classifier.get_layer("pool_by_clip")(features, clip_index)
    outputs = {"probabilities": classifier.get_layer("head")(pooled), "features": features}
    return keras.Model(classifier.input, outputs, name="yamnet_with_features")


def feature_error(spread: np.ndarray) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return a loss by patch: squared error of features over their `spread` (1047,).

    The mean over the embedding and the mean over the class scores count alike.
    """
    n_scores = N_FEATURES - EMBEDDING_SIZE
    share = np.concatenate([np.full(EMBEDDING_SIZE, 0.5 / EMBEDDING_SIZE), np.full(n_scores, 0.5 / n_scores)])
    weight = tf.constant(share / np.square(spread), tf.float32)

    def error(wanted: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.square(predicted - wanted) * weight, axis=-1)

    return error


def predict(classifier: keras.Model, waveforms: Sequence[np.ndarray], *, batch_size: int = 8) -> np.ndarray:
    """Return probabilities (n_clips, 3) in CLASS_NAMES order; a clip's row does not depend on its neighbours."""
    starts = range(0, len(waveforms), batch_size)
    rows = [classifier.predict_on_batch(clip_batch(waveforms[start : start + batch_size])) for start in starts]
    return np.concatenate(rows) if rows else np.empty((0, len(config.CLASS_NAMES)), dtype=np.float32)


def save(classifier: keras.Model, checkpoint_dir: Path, *, record: dict) -> Path:
    """Write a classifier in Keras format with labels.json and training.json; return the path of the weights."""
    path = Path(checkpoint_dir) / CHECKPOINT_FILE
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
