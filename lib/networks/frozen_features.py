"""What frozen networks compute of each sound, kept on disk: features, excerpts; and the linear head fitted to them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from lib import config
from lib.networks.onnx_networks import BACKBONE_FILE, EXCERPT_CLASSES, EXCERPT_SAMPLES, Yamnet, folder_of

CLIPS_PER_BLOCK = 32  # computed together, then written
CACHE_DIR = config.BUILD_DIR / "cache"


def of_clips(
    network: ModuleType, model: object, waveforms: Sequence[np.ndarray], *, cache_dir: Path = CACHE_DIR
) -> np.ndarray:
    """Return the pooled features of a frozen network (n_clips, n_features), each clip computed once for all builds.

    Each file is named by its waveform's hash; whoever changes what a network is given has to clear the folder.

    Parameters
    ----------
    network : module
        `lib.yamnet` or `lib.wav2vec2`: its `pooled`, `weights` and `POOLINGS`.
    model : object
        A network of that module, without head.
    waveforms : sequence of ndarray, each (n_samples,)
    cache_dir : Path
        A network with other weights, or another pooling, has a folder of its own in it.
    """
    name = network.__name__.rpartition(".")[2]
    folder = Path(cache_dir) / name / weights_sha256(network.weights(model))[:16] / network.POOLINGS
    return np.stack(_kept(folder, waveforms, lambda block: network.pooled(model, block)))


def excerpts(
    waveforms: Sequence[np.ndarray], *, models_dir: Path = config.MODELS_DIR, cache_dir: Path = CACHE_DIR
) -> list[np.ndarray]:
    """Return the 3 s that both networks classify of each waveform (n_samples,), each place found once for all builds.

    See `lib.networks.onnx_networks.Yamnet.excerpt`; YAMNet is that of `models_dir`.
    """
    starts, long = np.zeros(len(waveforms), int), [r for r, w in enumerate(waveforms) if len(w) > EXCERPT_SAMPLES]
    if long:
        yamnet, version = Yamnet(models_dir), config.version_of(folder_of(models_dir, "yamnet") / BACKBONE_FILE)
        rule = hashlib.sha256(repr((EXCERPT_SAMPLES, EXCERPT_CLASSES)).encode()).hexdigest()[:12]
        folder = Path(cache_dir) / "excerpts" / version / rule
        starts[long] = _kept(folder, [waveforms[row] for row in long], lambda block: map(yamnet.excerpt_start, block))
    return [waveform[start : start + EXCERPT_SAMPLES] for waveform, start in zip(waveforms, starts, strict=True)]


def _kept(
    folder: Path, waveforms: Sequence[np.ndarray], compute: Callable[[list[np.ndarray]], Iterable[Any]]
) -> list[np.ndarray]:
    """Return what `compute` makes of each waveform, read from the folder where it was computed before."""
    digests = [hashlib.sha256(np.ascontiguousarray(waveform).data).hexdigest() for waveform in waveforms]
    paths = [folder / f"{digest}.npy" for digest in digests]
    missing = [row for row, path in enumerate(paths) if not path.is_file()]
    missing.sort(key=lambda row: len(waveforms[row]))  # computed together are clips of like length
    for start in range(0, len(missing), CLIPS_PER_BLOCK):
        block = missing[start : start + CLIPS_PER_BLOCK]
        for row, values in zip(block, compute([waveforms[row] for row in block]), strict=True):
            np.save(file := io.BytesIO(), values)
            config.write_whole(paths[row], file.getvalue())
    return [np.load(path) for path in paths]


def weights_sha256(variables: Mapping[str, np.ndarray]) -> str:
    """Return one SHA-256 over names and values of all variables, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(variables):
        digest.update(name.encode() + np.ascontiguousarray(variables[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def linear(head: Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """Return ``make_pipeline(StandardScaler(), LogisticRegression())``, fitted, as one linear layer.

    Returns
    -------
    (ndarray, ndarray)
        Weights (n_classes, n_features) and biases (n_classes,) on features as they are, the scaling included.
    """
    scale, regression = (step for _, step in head.steps)
    kernel = regression.coef_ / scale.scale_
    return kernel, regression.intercept_ - kernel @ scale.mean_
