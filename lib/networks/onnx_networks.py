"""What the networks are given, and the trained ones as they run: ONNX Runtime and NumPy, no training framework.

`lib.reporting.export` writes their graphs beside the checkpoints; a test compares both with Keras and PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib import config
from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES
from lib.networks.patches import halves_of
from lib.waveforms import MEL_FRAME_SAMPLES, MEL_HOP_SAMPLES, as_waveform

BACKBONE_FILE, HEAD_FILE = "backbone.onnx", "head.onnx"  # of YAMNet; the first stays the same while it is frozen
GRAPH_FILES = {"yamnet": (BACKBONE_FILE, HEAD_FILE), "wav2vec2": ("model.onnx",)}
SOURCE_KEY = "checkpoint"  # in a graph's metadata: version of the weights that it was exported from
EMBEDDING_SIZE = 1024
# The AudioSet classes that matter here: what a cry or a scream is called there, and what is mistaken for one.
AUDIOSET_CLASSES = (
    "Baby cry, infant cry", "Crying, sobbing", "Whimper", "Wail, moan", "Screaming", "Shout", "Yell", "Bellow", "Whoop",
    "Children shouting", "Squeal", "Groan", "Grunt", "Speech", "Child speech, kid speaking", "Singing", "Music",
    "Laughter", "Baby laughter", "Giggle", "Cat", "Meow", "Caterwaul",
)  # fmt: skip
EXCERPT_SAMPLES = 3 * config.SAMPLE_RATE_HZ  # see lib/studies/detector_excerpts.csv
EXCERPT_CLASSES = ("Baby cry, infant cry", "Crying, sobbing", "Screaming")
FFT_SAMPLES = 512
MIN_SAMPLES = 16_000  # of Wav2Vec2: 40 times its receptive field, and room for time masks
VARIANCE_FLOOR = 1e-7  # as Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm
PATCHES_PER_RUN = 16  # bounds memory
_HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MEL_FRAME_SAMPLES) / MEL_FRAME_SAMPLES)).astype(np.float32)


class StaleGraphError(ValueError):
    """A graph was exported from other weights than those beside it."""


class Yamnet:
    """YAMNet of a folder of models: embeddings of patches, and probabilities of waveforms.

    Raises
    ------
    lib.config.MissingCheckpointError, lib.config.ClassOrderError, StaleGraphError
        If the weights or their graphs are not there, list the classes in another order, or do not belong together.
    """

    def __init__(self, models_dir: Path = config.MODELS_DIR) -> None:
        folder, self.version = _checked(models_dir, "yamnet")
        self._backbone, self._head = (_session(folder / file, self.version) for file in GRAPH_FILES["yamnet"])

    def embed(self, patches: np.ndarray) -> np.ndarray:
        """Return the embeddings (n, 1024) of patches (n, 15600).

        No row depends on its neighbours, but with several threads the last bits may.
        """
        return self._features(patches)[:, :EMBEDDING_SIZE]

    def predict(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities (n_clips, 3) in CLASS_NAMES order."""
        return _rows([_run(self._head, self._features(cut_patches(waveform))) for waveform in waveforms])

    def excerpt(self, waveform: np.ndarray) -> np.ndarray:
        """Return what both networks classify of a waveform (n_samples,), see `excerpt_start`: 3 s at most."""
        return excerpt(waveform, self._features)

    def excerpt_start(self, waveform: np.ndarray) -> int:
        """Return the first sample of `excerpt`."""
        return excerpt_start(waveform, self._features)

    def _features(self, patches: np.ndarray) -> np.ndarray:
        starts = range(0, len(patches), PATCHES_PER_RUN)
        return np.concatenate([_run(self._backbone, spectra(patches[at : at + PATCHES_PER_RUN])) for at in starts])


class Wav2Vec2:
    """Wav2Vec2 of a folder of models, errors as `Yamnet`; waveforms are given one by one, so none is ever padded."""

    def __init__(self, models_dir: Path = config.MODELS_DIR) -> None:
        folder, self.version = _checked(models_dir, "wav2vec2")
        self._network = _session(folder / GRAPH_FILES["wav2vec2"][0], self.version)

    def predict(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities (n_clips, 3) in CLASS_NAMES order."""
        return _rows([_run(self._network, normalise(waveform)[None]) for waveform in waveforms])


def folder_of(models_dir: Path, name: str) -> Path:
    """Return where a network is: in models/, or just trained in build/<profile>/models."""
    places = [Path(models_dir) / place for place in (f"{name}/released", f"{name}/grouped", config.RELEASED_DIRS[name])]
    return next((place for place in places if place.is_dir()), places[-1])


def cut_patches(waveform: np.ndarray) -> np.ndarray:
    """Cut a waveform (n_samples,) into YAMNet's patches (n_patches, 15600), without padding; refuse an empty one.

    A waveform shorter than one patch is repeated until it fills one; a tail that no full hop covers gets one more
    patch that ends with the waveform.
    """
    waveform = as_waveform(waveform)
    if waveform.size < PATCH_SAMPLES:
        return np.resize(waveform, (1, PATCH_SAMPLES))
    starts = list(range(0, waveform.size - PATCH_SAMPLES + 1, PATCH_HOP_SAMPLES))
    if starts[-1] + PATCH_SAMPLES < waveform.size:
        starts.append(waveform.size - PATCH_SAMPLES)
    return np.stack([waveform[start : start + PATCH_SAMPLES] for start in starts])


def excerpt(waveform: np.ndarray, features_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the 3 s of a waveform from `excerpt_start` on, or all of one that is no longer."""
    start = excerpt_start(waveform, features_of)
    return waveform[start : start + EXCERPT_SAMPLES]


def excerpt_start(waveform: np.ndarray, features_of: Callable[[np.ndarray], np.ndarray]) -> int:
    """Return the first sample of the 3 s around the patch whose scores of `EXCERPT_CLASSES` are highest together.

    A cry may fill a second of 15: pooled over a whole window, it would count the less the longer the window is. The
    place follows from AudioSet's scores alone, so it is chosen alike in corpora that were trained on and in unseen
    ones.

    Parameters
    ----------
    waveform : ndarray (n_samples,)
        As `waveforms.prepare` returns it.
    features_of : callable
        Patches (n, 15600) to embeddings and the scores of `AUDIOSET_CLASSES`, (n, 1047).
    """
    if len(waveform) <= EXCERPT_SAMPLES:
        return 0
    columns = [EMBEDDING_SIZE + AUDIOSET_CLASSES.index(name) for name in EXCERPT_CLASSES]
    scores = np.logaddexp.reduce(features_of(cut_patches(waveform))[:, columns], axis=1)
    start = int(scores.argmax()) * PATCH_HOP_SAMPLES + (PATCH_SAMPLES - EXCERPT_SAMPLES) // 2
    return min(max(start, 0), len(waveform) - EXCERPT_SAMPLES)


def normalise(waveform: np.ndarray) -> np.ndarray:
    """Scale a waveform (n_samples,) for Wav2Vec2 to zero mean and unit variance, repeated to 1 s if it is shorter.

    Raises
    ------
    ValueError
        If the waveform is empty or not one-dimensional.
    """
    waveform = as_waveform(waveform)
    if waveform.size < MIN_SAMPLES:
        waveform = np.resize(waveform, MIN_SAMPLES)
    return (waveform - waveform.mean()) / np.sqrt(waveform.var() + VARIANCE_FLOOR)


def spectra(patches: np.ndarray) -> np.ndarray:
    """Return the magnitudes (n, 96, 257) of the frames of patches (n, 15600), from which the graph makes log-mels."""
    halves, second = halves_of(patches, PATCH_SAMPLES - PATCH_HOP_SAMPLES)
    frames = np.lib.stride_tricks.sliding_window_view(halves, MEL_FRAME_SAMPLES, axis=1)[:, ::MEL_HOP_SAMPLES]
    padded = np.zeros((*frames.shape[:2], FFT_SAMPLES), dtype=np.float32)  # here: `rfft` pads more slowly
    np.multiply(frames, _HANN, out=padded[..., :MEL_FRAME_SAMPLES])
    magnitudes = np.abs(np.fft.rfft(padded))
    return np.concatenate([magnitudes[: len(patches)], magnitudes[second]], axis=1)


def _checked(models_dir: Path, name: str) -> tuple[Path, str]:
    """Return a network's folder and the version of its weights."""
    folder = folder_of(models_dir, name)
    weights = config.require_checkpoint(folder, name)
    for file in GRAPH_FILES[name]:
        if not (folder / file).is_file():
            raise config.MissingCheckpointError(
                f"{folder / file} is missing: `python -m lib.reporting.export {models_dir}` makes it."
            )
    return folder, config.version_of(weights)


def _session(path: Path, version: str) -> Any:
    import onnxruntime  # here: what only reads this module's names does without

    onnxruntime.set_default_logger_severity(3)  # errors
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = config.n_threads(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other threads use the cores
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_modelmeta().custom_metadata_map.get(SOURCE_KEY, version)
    if source != version:
        raise StaleGraphError(
            f"{path} was exported from weights {source}, beside it are {version}: "
            "`python -m lib.reporting.export` with the folder of models makes it again."
        )
    return session


def _run(session: Any, given: np.ndarray) -> np.ndarray:
    return session.run(None, {session.get_inputs()[0].name: given})[0]


def _rows(rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows) if rows else np.empty((0, len(config.CLASS_NAMES)), dtype=np.float32)
