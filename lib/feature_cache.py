"""Keeps what a frozen network makes of each clip, so that notebooks, profiles and studies compute it once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

CLIPS_PER_BLOCK = 32  # computed together, then written


def weights_sha256(variables: Mapping[str, np.ndarray]) -> str:
    """Return one SHA-256 over names and values of all variables, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(variables):
        digest.update(name.encode() + np.ascontiguousarray(variables[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def folder_of(network: str, weights: Mapping[str, np.ndarray], poolings: str, *, cache_dir: Path) -> Path:
    """Return the folder that `cached` keeps a network's features in: another network or pooling has another."""
    return Path(cache_dir) / network / weights_sha256(weights)[:16] / poolings


def cached(
    compute: Callable[[list[np.ndarray]], np.ndarray],
    waveforms: Sequence[np.ndarray],
    *,
    folder: Path,
    progress: Callable[[list], Iterable] = iter,
) -> np.ndarray:
    """Return features (n_clips, n_features), computing only those that `folder` does not hold yet.

    Parameters
    ----------
    compute : callable
        Some waveforms to their features (n, n_features); blocks hold clips of like length.
    waveforms : sequence of ndarray, each (n_samples,)
    folder : Path
        Of `folder_of`. Each file in it is named by its waveform's hash; who changes how a network is fed or pooled
        has to name the pooling anew, or clear the folder.
    progress : callable
        Wraps the blocks of clips (tqdm, say).
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests = [hashlib.sha256(np.ascontiguousarray(waveform)).hexdigest() for waveform in waveforms]
    paths = [folder / f"{digest}.npy" for digest in digests]
    missing = [row for row, path in enumerate(paths) if not path.is_file()]
    missing.sort(key=lambda row: len(waveforms[row]))
    blocks = [missing[start : start + CLIPS_PER_BLOCK] for start in range(0, len(missing), CLIPS_PER_BLOCK)]
    for block in progress(blocks):
        for row, values in zip(block, compute([waveforms[row] for row in block]), strict=True):
            _write(paths[row], values)
    return np.stack([np.load(path) for path in paths])


def _write(path: Path, values: np.ndarray) -> None:
    """Write one row; a killed build leaves no half-written one."""
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.save(file, values)
    partial.replace(path)
