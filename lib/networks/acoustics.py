"""Pitch, spectrum and roughness of a patch: what YAMNet's log-mel patches, 64 bands every 10 ms, leave out.

A voice is strained where its loudness changes 30 to 150 times a second, which is what tells screams from shouts and
song (Arnal et al. 2015, Human screams occupy a privileged niche in the communication soundscape, Current Biology 25);
cries have a pitch of 300 to 700 Hz that glides, cats another one. None of these figures depends on the level.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES, SAMPLE_RATE_HZ
from lib.networks.patches import halves_of

WINDOW_SAMPLES, STEP_SAMPLES = 1024, 640  # of pitch and spectrum: 64 ms every 40 ms
LAGS = np.arange(20, 400)  # half samples: pitch from 80 to 1600 Hz
LAG_COST = 1e-3  # per lag: of two that fit alike, the shorter one, else half the pitch is found
VOICED = 0.6  # autocorrelation from which on a window has a pitch
HIGH_PITCH_HZ, REFERENCE_HZ = 900.0, 440.0
LOUD_SHARE = 0.01  # power, of the loudest window's: fainter windows do not count
BANDS_HZ = ((100, 300), (300, 600), (600, 1000), (1000, 1600), (1600, 2500), (2500, 4000), (4000, 5500), (5500, 8000))
FLAT_HZ = (220, 7000)
LOUDNESS_WINDOW_SAMPLES, LOUDNESS_STEP_SAMPLES = 64, 48  # 4 ms every 3 ms
LOUDNESS_BANDS_HZ = ((500, 1500), (1500, 3000), (3000, 6500))
MODULATIONS_HZ = ((2, 6), (6, 14), (14, 30), (30, 70), (70, 150))
N_FEATURES = 8 + len(BANDS_HZ) + 5 + len(LOUDNESS_BANDS_HZ) * len(MODULATIONS_HZ)  # 36

_HALF_SAMPLES = PATCH_HOP_SAMPLES - STEP_SAMPLES + WINDOW_SAMPLES  # what the windows of half a patch need
_N_WINDOWS = 2 * PATCH_HOP_SAMPLES // STEP_SAMPLES - 1  # of a patch: 23
_WINDOW = np.hanning(WINDOW_SAMPLES).astype(np.float32)
# Of half samples: autocorrelations are computed at twice the rate, for a high pitch is but a few samples long.
_WINDOW_CORRELATION = np.fft.irfft(np.abs(np.fft.rfft(_WINDOW)) ** 2, 2 * WINDOW_SAMPLES)[LAGS]
_WINDOW_CORRELATION *= 2 / np.sum(_WINDOW**2)
_PITCHES = np.log2(2 * SAMPLE_RATE_HZ / REFERENCE_HZ / LAGS[1:-1])
_LOUDNESS_WINDOW = np.hanning(LOUDNESS_WINDOW_SAMPLES).astype(np.float32)


def features(patches: np.ndarray) -> np.ndarray:
    """Return pitch, spectrum and roughness of patches (n_patches, 15600) at 16 kHz: float32 (n_patches, 36).

    Patches that follow each other on the grid share half their samples, which are looked at once.
    """
    halves, second = halves_of(patches, _HALF_SAMPLES)
    windows = np.lib.stride_tricks.sliding_window_view(halves, WINDOW_SAMPLES, axis=1)[:, ::STEP_SAMPLES]
    power = _power(windows * _WINDOW)
    level = power.sum(axis=-1) + 1e-6
    parts = [level, *_pitches(power), *_spectra(power, level)]  # each (n_halves, 12 windows, ...)
    level, fit, octave, bands, centroid, flatness = (
        np.concatenate([part[: len(patches)], part[second]], axis=1)[:, :_N_WINDOWS] for part in parts
    )
    weights = (level > LOUD_SHARE * level.max(axis=1, keepdims=True)).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    loudness = _loudness(halves)
    loudness = np.concatenate([loudness[: len(patches)], loudness[second]], axis=-1)
    columns = [
        *_pitch_figures(fit, octave, weights),
        *(weights[..., None] * bands).sum(axis=1).T,
        *_spectrum_figures(centroid, flatness, level, weights),
        *_roughness(loudness),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


@cache
def of_silence() -> np.ndarray:
    """Return the features (36,) of digital silence."""
    return features(np.zeros((1, PATCH_SAMPLES), dtype=np.float32))[0]


def _pitches(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how well each window repeats itself, 0.01 to 0.99, and its pitch in octaves from 440 Hz."""
    padded = np.zeros((*power.shape[:-1], WINDOW_SAMPLES + 1), dtype=np.complex64)
    padded[..., : power.shape[-1]] = power
    correlation = np.fft.irfft(padded, axis=-1)
    fits = correlation[..., LAGS[0] : LAGS[-1] + 1] / (correlation[..., :1] + 1e-6) / _WINDOW_CORRELATION
    inner = fits[..., 1:-1]
    is_peak = (inner >= fits[..., :-2]) & (inner > fits[..., 2:])
    best = np.where(is_peak, inner - LAG_COST * LAGS[1:-1].astype(np.float32), -1).argmax(axis=-1)[..., None]
    fit = np.take_along_axis(np.where(is_peak, inner, 0), best, axis=-1)[..., 0].clip(0.01, 0.99)
    return fit, _PITCHES[best[..., 0]]


def _pitch_figures(fit: np.ndarray, octave: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Return the share of voiced windows, figures of their pitch, and mean and largest ratio of harmonics to noise.

    Those of the pitch, in octaves from 440 Hz: mean, spread, share of high windows, size of jumps, glide.
    """
    voiced = weights * (fit > VOICED)
    share = voiced.sum(axis=1)
    of_voiced = voiced / (share[:, None] + 1e-6)
    mean = (of_voiced * octave).sum(axis=1)
    around = octave - mean[:, None]
    pairs = (voiced[:, 1:] > 0) & (voiced[:, :-1] > 0)
    jumps = (np.minimum(np.abs(np.diff(octave, axis=1)), 1) * pairs).sum(axis=1) / (pairs.sum(axis=1) + 1)
    glide = (of_voiced * around * np.linspace(-1, 1, octave.shape[1])).sum(axis=1)
    high = (voiced * (octave > np.log2(HIGH_PITCH_HZ / REFERENCE_HZ))).sum(axis=1)
    ratio_db = 10 * np.log10(fit / (1 - fit))
    spread = np.sqrt((of_voiced * around**2).sum(axis=1))
    return [share, mean, spread, high, jumps, glide, (weights * ratio_db).sum(axis=1), ratio_db.max(axis=1)]


def _spectra(power: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the logarithm of each band's share of the power (..., 8), the centroid in kHz, and the flatness."""
    shares = np.stack([power[..., band].sum(axis=-1) for band in _bins(BANDS_HZ, WINDOW_SAMPLES)], axis=-1)
    kilohertz = np.linspace(0, SAMPLE_RATE_HZ / 2000, power.shape[-1], dtype=np.float32)
    part = power[..., _bins((FLAT_HZ,), WINDOW_SAMPLES)[0]] / level[..., None] + 1e-8
    flatness = np.log10(part.mean(axis=-1)) - np.log10(part).mean(axis=-1)
    return np.log10(shares / level[..., None] + 1e-5), (power * kilohertz).sum(axis=-1) / level, flatness


def _spectrum_figures(
    centroid: np.ndarray, flatness: np.ndarray, level: np.ndarray, weights: np.ndarray
) -> list[np.ndarray]:
    """Return mean and spread of the centroid, mean flatness, and how the level moves: spread, peak above its mean."""
    mean = (weights * centroid).sum(axis=1)
    spread = np.sqrt((weights * (centroid - mean[:, None]) ** 2).sum(axis=1))
    bels = np.log10(level)
    flat = (weights * flatness).sum(axis=1)
    return [mean, spread, flat, bels.std(axis=1), bels.max(axis=1) - bels.mean(axis=1)]


def _loudness(halves: np.ndarray) -> np.ndarray:
    """Return the amplitude in each of `LOUDNESS_BANDS_HZ` every 3 ms of half a patch: (n_halves, 3, 160)."""
    windows = np.lib.stride_tricks.sliding_window_view(halves, LOUDNESS_WINDOW_SAMPLES, axis=1)
    power = _power(windows[:, :PATCH_HOP_SAMPLES:LOUDNESS_STEP_SAMPLES] * _LOUDNESS_WINDOW)
    bands = _bins(LOUDNESS_BANDS_HZ, LOUDNESS_WINDOW_SAMPLES)
    return np.sqrt(np.stack([power[..., band].sum(axis=-1) for band in bands], axis=1))


def _roughness(loudness: np.ndarray) -> list[np.ndarray]:
    """Return how much the loudness of each band changes, by how fast: logarithms of shares of its squared mean."""
    n_steps = loudness.shape[-1]
    changes = loudness / (loudness.mean(axis=-1, keepdims=True) + 1e-5) - 1
    modulation = _power(changes * np.hanning(n_steps).astype(np.float32)) / n_steps
    hertz = np.fft.rfftfreq(n_steps, LOUDNESS_STEP_SAMPLES / SAMPLE_RATE_HZ)
    parts = [modulation[..., (hertz >= low) & (hertz < high)].sum(axis=-1) for low, high in MODULATIONS_HZ]
    return list(np.log10(np.concatenate(parts, axis=1) + 1e-5).T)


def _power(windows: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft(windows, axis=-1)
    return np.square(spectrum.real) + np.square(spectrum.imag)


def _bins(bands_hz: tuple[tuple[int, int], ...], n_samples: int) -> list[slice]:
    """Return the bins of a spectrum of `n_samples` that are in each band."""
    per_hertz = n_samples / SAMPLE_RATE_HZ
    return [slice(int(np.ceil(low * per_hertz)), int(np.ceil(high * per_hertz))) for low, high in bands_hz]
