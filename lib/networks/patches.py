"""Work on patches that need not be done twice: on those of an earlier chunk, and on the half that two patches share."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES

MAX_KEPT = 6_000  # rows: of 120 streams for 20 s, 2 kB each where the detector keeps them


class Kept:
    """A function of patches (n, n_samples) to rows (n, ...), none of which depends on another; threads may share it.

    A row is found by Python's own hash of the patch, 64 bits with a secret of the process.
    """

    def __init__(self, compute: Callable[[np.ndarray], np.ndarray]) -> None:
        self._compute, self._lock = compute, threading.Lock()
        self._rows: dict[int, np.ndarray] = {}

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Return the rows of patches; only those that are not kept are computed, and equal ones once."""
        keys = [hash(patch.tobytes()) for patch in patches]
        kept = self._rows  # never changed: other threads may be reading it
        rows = {key: kept[key] for key in keys if key in kept}
        new = {key: place for place, key in enumerate(keys) if key not in rows}
        if new:
            rows |= zip(new, self._compute(patches[[*new.values()]]), strict=True)
            with self._lock:
                self._rows = dict(list((self._rows | rows).items())[-MAX_KEPT:])
        return np.stack([rows[key] for key in keys])


def halves_of(patches: np.ndarray, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the halves of patches (n_patches, 15600), those that two patches share once, and where second ones are.

    Returns
    -------
    (ndarray, ndarray)
        Halves (n_halves, n_samples): first the first of each patch, then the second ones that no next patch begins
        with, padded with zeros to `n_samples`. And the number of each patch's second half (n_patches,).
    """
    follows = (patches[:-1, PATCH_HOP_SAMPLES:] == patches[1:, :-PATCH_HOP_SAMPLES]).all(axis=1)
    is_last = ~np.append(follows, False)
    ends = np.zeros((is_last.sum(), n_samples), dtype=np.float32)
    rest = ends[:, : PATCH_SAMPLES - PATCH_HOP_SAMPLES]
    rest[:] = patches[is_last, PATCH_HOP_SAMPLES:][:, :n_samples]
    second = np.where(is_last, len(patches) + np.cumsum(is_last) - 1, np.arange(len(patches)) + 1)
    return np.concatenate([patches[:, :n_samples], ends]), second
