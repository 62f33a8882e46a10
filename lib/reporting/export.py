"""Exports trained networks to ONNX, on which serving runs: `python -m lib.reporting.export models`.

YAMNet's backbone becomes a plain graph of convolutions with the batch norms folded into them, the same bytes as long
as it is frozen; its head a small graph of its own. Of Wav2Vec2 only the graph is written: its weights stay where they
are, in model.safetensors, which the graph names as its external data.
"""

from __future__ import annotations

import argparse
import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lib import config
from lib.networks import onnx_networks
from lib.reporting.steps import BuildError, command

if TYPE_CHECKING:
    import keras

    from lib.wav2vec2 import ClipClassifier

OPSET, IR_VERSION = 17, 8
SPECTRA, FEATURES = "spectra", "features"
EXAMPLE_SAMPLES = 48_000  # for tracing; any length runs


class _Graph:
    """An ONNX graph that grows node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of what it computes."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        """Add weights, or indices where they are integers; return their name."""
        values = np.asarray(values)
        name = f"w{len(self.weights)}"
        self.weights[name] = values.astype(np.int64 if values.dtype.kind == "i" else np.float32)
        return name

    def model(self, result: str, *, given: str, shape: tuple, metadata: dict[str, str]) -> bytes:
        """Return the file that computes `result` of one input `given` of a shape."""
        inputs = [helper.make_tensor_value_info(given, TensorProto.FLOAT, shape)]
        outputs = [helper.make_tensor_value_info(result, TensorProto.FLOAT, (None, None))]
        weights = [numpy_helper.from_array(values, name) for name, values in self.weights.items()]
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, weights)
        return _serialized(graph, metadata)


def _serialized(graph: onnx.GraphProto, metadata: dict[str, str]) -> bytes:
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="cry-scream-detector")
    helper.set_model_props(model, metadata)
    return model.SerializeToString(deterministic=True)


def _log_mel(graph: _Graph, layer: Any, spectra: str) -> str:
    from lib.networks.yamnet_backbone import LOG_OFFSET

    mel = graph.add("MatMul", spectra, graph.constant(layer.mel_matrix.numpy()))
    return graph.add("Log", graph.add("Add", mel, graph.constant(np.float32(LOG_OFFSET))))


def _patch(graph: _Graph, layer: Any, values: str) -> str:
    height, width, n_channels = layer.target_shape
    return graph.add("Reshape", values, graph.constant([-1, n_channels, height, width]))  # channels first from here on


def _convolution(graph: _Graph, layer: Any, values: str) -> str:
    kernel = layer.kernel.numpy()  # (height, width, n_in, n_out); depthwise (height, width, n_in, 1)
    depthwise = type(layer).__name__ == "DepthwiseConv2D"
    weights = graph.constant(kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)))
    group = kernel.shape[2] if depthwise else 1
    return graph.add("Conv", values, weights, strides=layer.strides, group=group, auto_pad="SAME_UPPER")


def _batch_norm(graph: _Graph, layer: Any, values: str) -> str:
    """Fold a batch norm without scale into the convolution before it."""
    convolution = graph.nodes[int(values[1:])]
    scale = 1 / np.sqrt(layer.moving_variance.numpy().astype(np.float64) + layer.epsilon)
    kernel = graph.weights[convolution.input[1]]
    graph.weights[convolution.input[1]] = (kernel * scale[:, None, None, None]).astype(np.float32)
    convolution.input.append(graph.constant(layer.beta.numpy() - layer.moving_mean.numpy() * scale))
    return values


def _dense(graph: _Graph, layer: Any, values: str) -> str:
    return graph.add("Gemm", values, *(graph.constant(part.numpy()) for part in (layer.kernel, layer.bias)))


LAYERS: dict[str, Callable[[_Graph, Any, str], str]] = {  # of the backbone, one after the other
    "InputLayer": lambda _graph, _layer, values: values,
    "PatchLogMel": _log_mel,
    "Reshape": _patch,
    "Conv2D": _convolution,
    "DepthwiseConv2D": _convolution,
    "BatchNormalization": _batch_norm,
    "ReLU": lambda graph, _, values: graph.add("Relu", values),
    "GlobalAveragePooling2D": lambda graph, _, values: graph.add("ReduceMean", values, axes=[2, 3], keepdims=0),
    "Dense": lambda graph, layer, values: graph.add("Concat", values, _dense(graph, layer, values), axis=1),  # scores
    "Concatenate": lambda _graph, _layer, values: values,  # done with the scores
}


def _pooled(graph: _Graph, features: str) -> str:
    """Pool the patches of one clip by mean, maximum and log-mean-exp, as `lib.yamnet.PoolByClip`."""
    mean, maximum = (graph.add(f"Reduce{kind}", features, axes=[0], keepdims=1) for kind in ("Mean", "Max"))
    below = graph.add("Exp", graph.add("Sub", features, maximum))
    between = graph.add("Log", graph.add("ReduceMean", below, axes=[0], keepdims=1))
    return graph.add("Concat", mean, maximum, graph.add("Add", maximum, between), axis=1)


def _head(graph: _Graph, head: keras.Model) -> str:
    """Write `lib.yamnet.build_head`: two linear heads, each on its columns, and the mean of their probabilities."""
    from lib.yamnet import N_FEATURES, split_features

    pooled, columns = _pooled(graph, FEATURES), split_features(np.arange(3 * N_FEATURES)[None])
    parts = [graph.add("Gather", pooled, graph.constant(part[0]), axis=1) for part in columns]
    layers = [head.get_layer(name) for name in ("of_embedding", "of_scores")]
    logits = (_dense(graph, *both) for both in zip(layers, parts, strict=True))
    return graph.add("Mean", *(graph.add("Softmax", each, axis=1) for each in logits))


def yamnet_graphs(classifier: keras.Model, *, version: str) -> dict[str, bytes]:
    """Return the two graphs of a classifier of `lib.yamnet.build_head`, by file name.

    The backbone takes `onnx_networks.spectra` (n, 96, 257) and returns features (n, n_features); the head takes the
    features of one clip's patches and returns probabilities (1, 3).
    """
    network, backbone, head, features = classifier.get_layer("yamnet"), _Graph(), _Graph(), SPECTRA
    for layer in network.layers:
        features = LAYERS[type(layer).__name__](backbone, layer, features)
    shape = (None, network.get_layer("log_mel").output.shape[1], onnx_networks.FFT_SAMPLES // 2 + 1)
    result = _head(head, classifier.get_layer("head"))
    return {
        onnx_networks.BACKBONE_FILE: backbone.model(features, given=SPECTRA, shape=shape, metadata={}),
        onnx_networks.HEAD_FILE: head.model(
            result,
            given=FEATURES,
            shape=(None, network.output.shape[1]),
            metadata={onnx_networks.SOURCE_KEY: version},
        ),
    }


def wav2vec2_graph(model: ClipClassifier, weights_path: Path, *, version: str) -> bytes:
    """Return Wav2Vec2's graph: what `onnx_networks.normalise` returns (1, n_samples) to probabilities (1, 3).

    Raises
    ------
    BuildError
        If a weight of the graph is not in the file, or not the same there.
    """
    import torch

    class Network(torch.nn.Module):
        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            frames = self.model.wav2vec2(waveform).last_hidden_state
            pooled = torch.cat([frames.mean(dim=1), frames.amax(dim=1)], dim=1)
            return torch.softmax(self.model.classifier(pooled), dim=1)

    network = Network()
    network.model = model  # its weights are named model.* in the graph
    written, options = io.BytesIO(), {"input_names": ["waveform"], "output_names": ["probabilities"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the old one, and that lengths are not traced
        torch.onnx.export(
            network.eval(), (torch.zeros(1, EXAMPLE_SAMPLES),), written, dynamo=False, opset_version=OPSET,
            do_constant_folding=False, dynamic_axes={"waveform": {1: "n_samples"}}, **options,
        )  # fmt: skip
    graph = onnx.load_from_string(written.getvalue()).graph
    _refer_to(weights_path, graph)
    return _serialized(graph, {onnx_networks.SOURCE_KEY: version})


def _refer_to(weights_path: Path, graph: onnx.GraphProto) -> None:
    """Replace the weights in a graph by their places in a safetensors file."""
    content = weights_path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")  # the format: length of the header, header, data
    places = json.loads(content[8:start])
    for tensor in graph.initializer:
        place = places.get(tensor.name.removeprefix("model."), {"data_offsets": (0, 0)})
        first, last = (start + offset for offset in place["data_offsets"])
        if content[first:last] != tensor.raw_data:
            raise BuildError(f"{tensor.name} of the graph is not in {weights_path}.")
        onnx.external_data_helper.set_external_data(tensor, weights_path.name, offset=first, length=last - first)
        tensor.ClearField("raw_data")


def export(models_dir: Path) -> list[Path]:
    """Write the graphs of a folder of models beside its checkpoints and return their paths.

    Raises
    ------
    BuildError, lib.config.MissingCheckpointError, lib.config.ClassOrderError
    """
    from lib import wav2vec2, yamnet  # here: the two frameworks take seconds to import

    folders = {name: onnx_networks.folder_of(models_dir, name) for name in onnx_networks.GRAPH_FILES}
    weights = {name: config.require_checkpoint(folder, name) for name, folder in folders.items()}
    versions = {name: config.version_of(path) for name, path in weights.items()}
    files = yamnet_graphs(yamnet.load(folders["yamnet"]), version=versions["yamnet"])
    found = {folders["yamnet"] / file: content for file, content in files.items()}
    model = wav2vec2.load(folders["wav2vec2"]).cpu()
    found[folders["wav2vec2"] / onnx_networks.GRAPH_FILES["wav2vec2"][0]] = wav2vec2_graph(
        model, weights["wav2vec2"], version=versions["wav2vec2"]
    )
    for path, content in found.items():
        path.write_bytes(content)
    return list(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if something is missing."""
    parser = argparse.ArgumentParser(prog="python -m lib.reporting.export", description=__doc__)
    parser.add_argument("models_dir", nargs="?", type=Path, default=config.MODELS_DIR, help="folder of models")
    chosen = parser.parse_args(arguments)
    return command(lambda: export(chosen.models_dir))


if __name__ == "__main__":
    raise SystemExit(main())
