"""What was computed of the last patches, by their samples: a stream's chunk brings the end of the one before along."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

MAX_KEPT = 6_000  # rows: of 120 streams for 20 s, 4 kB each where they are embeddings


class Kept:
    """A function of patches (n, n_samples) to rows (n, ...), none of which depends on another; threads may share it.

    A row is found by Python's own hash of the patch, 64 bits with a secret of the process.
    """

    def __init__(self, compute: Callable[[np.ndarray], np.ndarray]) -> None:
        self._compute, self._lock = compute, threading.Lock()
        self._rows: dict[int, np.ndarray] = {}

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Return the rows of patches; only those that are not kept are computed."""
        keys = [hash(patch.tobytes()) for patch in patches]
        kept = self._rows  # never changed: other threads may be reading it
        rows = {key: kept[key] for key in keys if key in kept}
        new = [place for place, key in enumerate(keys) if key not in rows]
        if new:
            rows |= zip([keys[place] for place in new], self._compute(patches[new]), strict=True)
            with self._lock:
                self._rows = dict(list((self._rows | rows).items())[-MAX_KEPT:])
        return np.stack([rows[key] for key in keys])
