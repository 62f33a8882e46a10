"""From several channels to one: the average where they agree, the channel with the best signal where they do not."""

from __future__ import annotations

import numpy as np

AGREEMENT = 0.7  # power of the average over the mean power of the channels from which they agree
FRAME_SECONDS = 0.032
BAND_HZ = (250.0, 6000.0)  # where cries and screams have their energy, above hum
LOWEST_HZ = 20.0
FLOOR_PERCENT, FLOOR_SHARE = 20, 0.9  # this much of the quietest frames' power is background
NOISE_FLATNESS = 0.5  # spectral flatness of one frame of noise, about exp(-0.58)
LOST_POWER = 0.1  # the average has lost the signal when it holds less than this share of it
LOST_RATIO = 0.1  # or when its signal-to-noise ratio is lower than this share of the best channel's
FAINT, CLOSE = 0.01, 0.7


def to_mono(samples: np.ndarray, rate_hz: float = 16_000) -> np.ndarray:
    """Mix samples (n_samples, n_channels) to float32 (n_samples,): a bad channel or opposite phases lose no sound."""
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim == 1 or samples.shape[1] == 1:
        return samples.reshape(len(samples))
    mean = samples.mean(axis=1)
    powers = np.square(samples, dtype=np.float64).mean(axis=0)
    if np.square(mean, dtype=np.float64).mean() >= AGREEMENT * powers.mean():
        return mean
    chosen = _better_channel(np.column_stack([samples, mean]), rate_hz)
    return mean if chosen is None else np.ascontiguousarray(samples[:, chosen])


def _better_channel(candidates: np.ndarray, rate_hz: float) -> int | None:
    """Return the channel with the best signal; None where the average, the last candidate, is as good."""
    signals, ratios = _signal(candidates, rate_hz)
    if not signals.any():
        return None
    is_choice = signals[:-1] >= FAINT * signals[:-1].max()
    best = ratios[:-1][is_choice].max()
    if signals[-1] >= LOST_POWER * signals[:-1].max() and ratios[-1] >= LOST_RATIO * best:
        return None
    return int(np.where(is_choice & (ratios[:-1] >= CLOSE * best), signals[:-1], -1).argmax())


def _signal(candidates: np.ndarray, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Return each candidate's power of sound that is tonal and comes and goes, and its ratio to all the rest."""
    n_frame = min(round(FRAME_SECONDS * rate_hz), len(candidates))
    frames = candidates[: len(candidates) // n_frame * n_frame].reshape(-1, n_frame, candidates.shape[1])
    spectra = np.fft.rfft(frames * np.hanning(n_frame).astype(np.float32)[:, None], axis=1)
    frequencies = np.fft.rfftfreq(n_frame, 1 / rate_hz)
    power, tiny = np.square(np.abs(spectra), dtype=np.float64), np.finfo(np.float64).tiny
    total = power[:, frequencies >= LOWEST_HZ].sum(axis=1).mean(axis=0)
    power = power[:, (frequencies >= BAND_HZ[0]) & (frequencies <= BAND_HZ[1])]
    energy = power.sum(axis=1)
    flatness = np.exp(np.log(power + tiny).mean(axis=1)) / (power.mean(axis=1) + tiny)
    floor = FLOOR_SHARE * np.percentile(energy, FLOOR_PERCENT, axis=0)
    signal = (np.maximum(energy - floor, 0) * np.clip(1 - flatness / NOISE_FLATNESS, 0, 1)).mean(axis=0)
    return signal, signal / (total - signal + 1e-9 * total.max() + tiny)
