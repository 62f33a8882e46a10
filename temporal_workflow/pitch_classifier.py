"""A stand-in classifier that knows nothing about crying: it sorts by pitch, to test and show the service.

Deterministic, milliseconds per chunk, no model files. Whoever uses it must say so.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from lib import config
from lib.events import EVENT_LABELS, EventSettings
from lib.inference import Prediction

CRY_HZ, SCREAM_HZ = 350.0, 900.0  # below the first normal, below the second crying, above it screaming
SILENT_DB = -60.0


class PitchDetector:
    """Labels frames by their strongest frequency; same shape as lib.detector's Detector."""

    settings = SimpleNamespace(events=EventSettings.create(on=0.5, off=0.35), version="pitch")

    def frames(self, samples: np.ndarray, *, first_sample: int, is_last: bool) -> tuple[int, np.ndarray]:
        """Return the first frame and the probabilities (n_frames, 2) of the frames that `samples` covers."""
        hop = config.PATCH_HOP_SAMPLES
        first = -(-first_sample // hop)
        stop = first_sample + len(samples) - (0 if is_last else config.PATCH_SAMPLES + hop - 1)  # as lib.detector
        starts = range(first * hop - first_sample, stop - first_sample, hop)
        labels = [_label(samples[at : at + hop]) for at in starts]
        rows = [[0.9 if name == label else 0.05 for name in EVENT_LABELS] for label in labels]
        return first, np.array(rows).reshape(-1, len(EVENT_LABELS))


class PitchClassifier:
    """Labels a waveform by its strongest frequency."""

    versions = {"stand-in": "sorts by pitch"}
    detector = PitchDetector()

    def predict(self, waveform: np.ndarray) -> Prediction:
        """Return 0.9 for the class whose band holds the strongest frequency of `waveform`, float (n_samples,)."""
        label = _label(waveform)
        rest = 0.1 / (len(config.CLASS_NAMES) - 1)
        return Prediction(label, {name: 0.9 if name == label else rest for name in config.CLASS_NAMES}, {})

    def predict_with(self, waveform: np.ndarray, _frames: np.ndarray) -> Prediction:
        """Return the same: the frames of `waveform` are sorted by pitch, too."""
        return self.predict(waveform)


def load(_models_dir: Path) -> PitchClassifier:
    """Return the stand-in; the models' folder is not read."""
    return PitchClassifier()


def _label(waveform: np.ndarray) -> str:
    if 10 * np.log10(np.mean(np.square(waveform)) + 1e-12) < SILENT_DB:
        return "normal"
    spectrum = np.abs(np.fft.rfft(waveform))
    peak_hz = float(np.argmax(spectrum)) * config.SAMPLE_RATE_HZ / len(waveform)
    return "normal" if peak_hz < CRY_HZ else "crying" if peak_hz < SCREAM_HZ else "screaming"
