"""A stand-in classifier that knows nothing about crying: it sorts by pitch, to test and show the service.

Deterministic, milliseconds per chunk, no model files. Whoever uses it must say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import config

CRY_HZ, SCREAM_HZ = 350.0, 900.0  # below the first normal, below the second crying, above it screaming
SILENT_DB = -60.0


@dataclass(frozen=True)
class PitchPrediction:
    """Same shape as lib.inference's Prediction."""

    label: str
    probabilities: dict[str, float]


class PitchClassifier:
    """Labels a waveform by its strongest frequency."""

    versions = {"stand-in": "sorts by pitch"}

    def predict(self, waveform: np.ndarray) -> PitchPrediction:
        """Return 0.9 for the class whose band holds the strongest frequency of `waveform`, float (n_samples,)."""
        label = self._label(waveform)
        rest = 0.1 / (len(config.CLASS_NAMES) - 1)
        return PitchPrediction(label, {name: 0.9 if name == label else rest for name in config.CLASS_NAMES})

    def _label(self, waveform: np.ndarray) -> str:
        if 10 * np.log10(np.mean(np.square(waveform)) + 1e-12) < SILENT_DB:
            return "normal"
        spectrum = np.abs(np.fft.rfft(waveform))
        peak_hz = float(np.argmax(spectrum)) * config.SAMPLE_RATE_HZ / len(waveform)
        return "normal" if peak_hz < CRY_HZ else "crying" if peak_hz < SCREAM_HZ else "screaming"


def load(_models_dir: Path) -> PitchClassifier:
    """Return the stand-in; the models' folder is not read."""
    return PitchClassifier()
