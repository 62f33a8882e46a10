"""YAMNet itself in Keras: its front end, its MobileNet, and the weights that Google published on TF-Hub."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.request
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # keep device probing out of notebook pages

import keras
import numpy as np
import tensorflow as tf

from lib import config
from lib.config import PATCH_SAMPLES
from lib.networks.frozen_features import weights_sha256
from lib.networks.onnx_networks import AUDIOSET_CLASSES, EMBEDDING_SIZE

HUB_HANDLE = "https://tfhub.dev/google/yamnet/1"
HUB_TIMEOUT_SECONDS = 5.0
# SHA-256 over the variables of the rebuilt file (layers 7 to 14 recovered from the 8-bit release), see weights_sha256.
REBUILT_WEIGHTS_SHA256 = "e6889c48af4862d0f877a20570fd7fd139d5d49b1669754c7544a4adabaa96d5"

# Front end: Hershey et al. 2017, "CNN architectures for large-scale audio classification", section 3.1.
FRAME_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512  # 25 ms every 10 ms
N_MELS, MEL_LOW_HZ, MEL_HIGH_HZ = 64, 125.0, 7500.0
LOG_OFFSET = 0.001
PATCH_FRAMES = 96
N_FEATURES = EMBEDDING_SIZE + len(AUDIOSET_CLASSES)

# MobileNet v1 (Howard et al. 2017, table 1): (stride, n_filters) of the 13 depthwise separable layers.
SEPARABLE_LAYERS = (
    (1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), (1, 512),
    (1, 512), (1, 512), (1, 512), (1, 512), (2, 1024), (1, 1024),
)  # fmt: skip
CONVOLUTION = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
serializable = keras.saving.register_keras_serializable(package="cry_scream_detector")


class HubUnavailableError(RuntimeError):
    """YAMNet's published weights are available neither from TF-Hub nor from its cache."""


@serializable
class PatchLogMel(keras.layers.Layer):
    """Patches of samples (n_patches, 15600) to log-mel (n_patches, 96, 64), as YAMNet's own front end computes it."""

    def build(self, _input_shape: tuple) -> None:
        """Compute the mel matrix (257, 64) once."""
        self.mel_matrix = tf.signal.linear_to_mel_weight_matrix(
            N_MELS, FFT_SAMPLES // 2 + 1, config.SAMPLE_RATE_HZ, MEL_LOW_HZ, MEL_HIGH_HZ
        )

    def call(self, patches: tf.Tensor) -> tf.Tensor:
        """Return the log-mel of each patch."""
        spectrum = tf.abs(tf.signal.stft(patches, FRAME_SAMPLES, HOP_SAMPLES, FFT_SAMPLES))
        return tf.math.log(tf.matmul(spectrum, self.mel_matrix) + LOG_OFFSET)


def build_backbone() -> keras.Model:
    """Build YAMNet with random weights: patches (n_patches, 15600) to embeddings (n_patches, 1024)."""
    patches = keras.Input((PATCH_SAMPLES,), name="patches")
    net = PatchLogMel(name="log_mel")(patches)
    net = keras.layers.Reshape((PATCH_FRAMES, N_MELS, 1), name="patch")(net)
    net = keras.layers.Conv2D(32, 3, strides=2, name="layer1_conv", **CONVOLUTION)(net)
    net = _normalise(net, "layer1_conv")
    for number, (stride, n_filters) in enumerate(SEPARABLE_LAYERS, start=2):
        net = _separable(net, name=f"layer{number}", stride=stride, n_filters=n_filters)
    return keras.Model(patches, keras.layers.GlobalAveragePooling2D(name="embedding")(net), name="yamnet")


def _normalise(net: keras.KerasTensor, name: str) -> keras.KerasTensor:
    net = keras.layers.BatchNormalization(scale=False, epsilon=1e-4, name=f"{name}_bn")(net)
    return keras.layers.ReLU(name=f"{name}_relu")(net)


def _separable(net: keras.KerasTensor, *, name: str, stride: int, n_filters: int) -> keras.KerasTensor:
    depthwise, pointwise = f"{name}_depthwise_conv", f"{name}_pointwise_conv"
    he_normal = keras.initializers.RandomNormal(stddev=(2 / 9) ** 0.5)  # Keras counts a depthwise fan-in wrongly
    net = keras.layers.DepthwiseConv2D(
        3, strides=stride, padding="same", use_bias=False, depthwise_initializer=he_normal, name=depthwise
    )(net)
    net = keras.layers.Conv2D(n_filters, 1, name=pointwise, **CONVOLUTION)(_normalise(net, depthwise))
    return _normalise(net, pointwise)


@dataclass(frozen=True)
class BaseYamnet:
    """A backbone, where its weights come from, and the rows of its AudioSet head for `AUDIOSET_CLASSES`, if known."""

    backbone: keras.Model
    description: str
    class_scores: tuple[np.ndarray, np.ndarray] | None = None  # kernel (1024, 23) and bias (23,)
    all_scores: tuple[tuple[str, ...], np.ndarray, np.ndarray] | None = None  # the hub's 521: names, kernel, bias

    def with_class_scores(self) -> keras.Model:
        """Return a copy of the backbone that also scores each patch for the AudioSet classes `AUDIOSET_CLASSES`.

        Returns
        -------
        keras.Model
            Patches (n_patches, 15600) to the embedding and 23 logits (n_patches, 1047). The logits' weights are
            YAMNet's own and stay frozen; where they are not available they are random.
        """
        backbone = copy(self.backbone)
        layer = keras.layers.Dense(len(AUDIOSET_CLASSES), name="class_scores", trainable=False)
        features = keras.layers.Concatenate(name="features")([backbone.output, layer(backbone.output)])
        if self.class_scores is not None:
            layer.set_weights(self.class_scores)
        return keras.Model(backbone.input, features, name="yamnet")


def load_hub() -> Any:
    """Load the TF-Hub module from the cache named by TFHUB_CACHE_DIR or from the network; else HubUnavailableError."""
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
    """Copy the hub's variables (`layer1/conv/bn/beta`, ...) into a backbone; ValueError if names do not match."""
    wanted = {_hub_name(v): v for layer in backbone.layers for v in layer.weights}
    given = {name: value for name, value in variables.items() if not name.startswith("dense/")}
    if set(wanted) != set(given):
        raise ValueError(f"variables do not match YAMNet's: {sorted(set(wanted) ^ set(given))}")
    for name, variable in wanted.items():
        variable.assign(given[name])


def _hub_name(variable: keras.Variable) -> str:
    """Turn Keras 3's `layer2_depthwise_conv/kernel` into the hub's `layer2/depthwise_conv/depthwise_kernel`."""
    layer, name = variable.path.split("/")[-2:]
    name = f"depthwise_{name}" if layer.endswith("depthwise_conv") else name
    parts = re.match(r"(layer\d+)_((?:depthwise_|pointwise_)?conv)(_bn)?$", layer)
    if parts is None:
        raise ValueError(f"{variable.path} is no variable of YAMNet's backbone.")
    return "/".join([*(part.lstrip("_") for part in parts.groups() if part), name])


def from_hub() -> BaseYamnet:
    """Build the trainable network with the hub module's weights, or raise HubUnavailableError."""
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
    return BaseYamnet(backbone, description, (kernel[:, columns], bias[columns]), (names, kernel, bias))


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
