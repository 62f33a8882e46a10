"""Work on waveforms: mono, rate, level, segments, log-mel.

A *waveform* is float32 of shape ``(n_samples,)``, mono, finite, in [-1, 1], at 16 kHz unless a rate is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import soxr

from lib.config import LEVEL_FLOOR_DB, MAX_SEGMENT_SECONDS, MIN_SEGMENT_SECONDS, SAMPLE_RATE_HZ
from lib.decoding.errors import EmptyAudio, InvalidWaveform, NonFiniteAudio, TooShort

MIN_SECONDS = 0.1  # four times Wav2Vec2's receptive field of 25 ms; the shortest scream used here lasts 0.3 s
# The log-mel of a picture: 25 ms frames every 10 ms and 64 mels up to 8 kHz, YAMNet's own resolution (Hershey et al.
# 2017, section 3.1). The networks compute their own.
MEL_FRAME_SAMPLES, MEL_HOP_SAMPLES, N_MELS = 400, 160, 64
FLOOR_DB = -80.0  # below the loudest bin of the clip
ACTIVE_FRAME_MS = 25
FULL_SCALE = 0.999
ACTIVE_BELOW_PEAK_DB = 40.0  # frames further below the loudest frame are pauses and do not set the level
LEVEL_DB = -26.0  # of what the networks are given: active speech level of ITU-T P.56, P.800
HIGHEST_PEAK_DB, LARGEST_GAIN_DB = -1.0, 40.0  # so that nothing is clipped, and faint noise is not blown up
# Mono: the average of the channels where they agree, else the channel with the best signal.
AGREEMENT = 0.7  # power of the average over the mean power of the channels from which they agree
FRAME_SECONDS = 0.032
BAND_HZ = (250.0, 6000.0)  # where cries and screams have their energy, above hum
LOWEST_HZ = 20.0
FLOOR_PERCENT, FLOOR_SHARE = 20, 0.9  # this much of the quietest frames' power is background
NOISE_FLATNESS = 0.5  # spectral flatness of one frame of noise, about exp(-0.58)
LOST_POWER = 0.1  # the average has lost the signal when it holds less than this share of it
LOST_RATIO = 0.1  # or when its signal-to-noise ratio is lower than this share of the best channel's
FAINT, CLOSE = 0.01, 0.7


def check_waveform(waveform: np.ndarray, *, sample_rate_hz: int) -> None:
    """Hold an array (n_samples,) to the contract of anything that goes to a model: float32, mono, 16 kHz, in [-1, 1].

    Raises
    ------
    InvalidWaveform
        Wrong type, shape, rate or range.
    EmptyAudio, TooShort, NonFiniteAudio
        No samples, less than 0.1 s, NaN or infinity.
    """
    if not isinstance(waveform, np.ndarray) or waveform.dtype != np.float32 or waveform.ndim != 1:
        kind = f"{getattr(waveform, 'dtype', type(waveform).__name__)} {getattr(waveform, 'shape', '')}"
        raise InvalidWaveform(f"expected float32 (n_samples,), got {kind}")
    if sample_rate_hz != SAMPLE_RATE_HZ:
        raise InvalidWaveform(f"the rate is {sample_rate_hz} Hz, expected {SAMPLE_RATE_HZ} Hz")
    if not waveform.size:
        raise EmptyAudio("the waveform holds no samples")
    if waveform.size + 1 < MIN_SECONDS * sample_rate_hz:  # resampling may round down
        raise TooShort(f"the waveform lasts {waveform.size / sample_rate_hz:.3f} s, the minimum is {MIN_SECONDS} s")
    if not np.isfinite(waveform).all():
        raise NonFiniteAudio(f"{np.count_nonzero(~np.isfinite(waveform))} samples are NaN or infinite")
    if np.abs(waveform).max() > 1:
        raise InvalidWaveform(f"the peak is {np.abs(waveform).max():.3g}, outside [-1, 1]")


def as_waveform(waveform: np.ndarray) -> np.ndarray:
    """Return an array as float32 (n_samples,), for what measures or pictures it without holding it to every rule.

    Raises
    ------
    ValueError
        If it is empty or not one-dimensional.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim != 1 or waveform.size == 0:
        raise ValueError(f"A waveform has shape (n_samples,) with n_samples > 0, not {waveform.shape}.")
    return waveform


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


def resample(waveform: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """Change the sample rate of a waveform (n_samples,) with soxr's high-quality setting; rates in hertz."""
    if from_hz == to_hz:
        return waveform
    return soxr.resample(waveform, from_hz, to_hz, quality="HQ").astype(np.float32, copy=False)


def remove_dc(waveform: np.ndarray) -> np.ndarray:
    """Subtract the mean of a waveform (n_samples,); turn it down where that pushes it over full scale."""
    return within_full_scale(waveform - np.float32(waveform.mean(dtype=np.float64)))


def equalise_level(waveform: np.ndarray) -> np.ndarray:
    """Bring the sounding parts of a waveform, float32 (n_samples,), to `LEVEL_DB` (dBFS) by a single gain.

    The level is the RMS over 25 ms frames within 40 dB of the loudest frame, so that pauses do not count. The gain
    is held back where it would lift the peak over -1 dBFS: nothing is clipped. Digital silence stays silent.
    """
    level = active_rms(waveform)
    if level == 0:
        return waveform.copy()
    gain = min(amplitude(LEVEL_DB) / level, amplitude(LARGEST_GAIN_DB))
    gain = min(gain, amplitude(HIGHEST_PEAK_DB) / float(np.abs(waveform).max()))
    return (waveform * np.float32(gain)).astype(np.float32, copy=False)


def prepare(waveform: np.ndarray) -> np.ndarray:
    """Bring a waveform (n_samples,) to what every network is given: no offset, and the level of `equalise_level`."""
    return equalise_level(remove_dc(waveform))


def segment_bounds(n_samples: int, *, segment_seconds: float = 10.0) -> list[tuple[int, int]]:
    """Cut a clip into segments for a model: whole up to 15 s, else equal ones of 5 to 15 s that cover all of it.

    `n_samples` is the clip's length at 16 kHz, `segment_seconds` what segments should come close to. The result is
    (start, stop) of each in samples; each starts where the last one stops. An empty clip has none.
    """
    seconds = n_samples / SAMPLE_RATE_HZ
    if seconds <= MAX_SEGMENT_SECONDS:
        return [(0, n_samples)] if n_samples else []
    n_windows = min(round(seconds / segment_seconds), math.floor(seconds / MIN_SEGMENT_SECONDS))
    n_windows = max(n_windows, math.ceil(seconds / MAX_SEGMENT_SECONDS))
    edges = [round(index * n_samples / n_windows) for index in range(n_windows + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def bandwidth_hz(waveform: np.ndarray, sample_rate_hz: float) -> float:
    """Return the frequency in hertz below which 99 % of the energy of a waveform (n_samples,) is; 0 for silence."""
    power = np.abs(np.fft.rfft(waveform - waveform.mean())) ** 2
    energy = np.cumsum(power)
    if not energy.size or energy[-1] == 0:
        return 0.0
    return float(np.searchsorted(energy, 0.99 * energy[-1]) * sample_rate_hz / len(waveform))


def amplitude(level_db: float) -> float:
    """Return the amplitude of a level in dB relative to full scale."""
    return 10 ** (level_db / 20)


def levels_db(parts: np.ndarray) -> np.ndarray:
    """Return the level in dBFS (n_parts,), at least -90, of parts of a waveform (n_parts, n_samples)."""
    return 10 * np.log10(np.square(parts, dtype=np.float64).mean(axis=1) + 10 ** (LEVEL_FLOOR_DB / 10))


def level_range_db(waveform: np.ndarray) -> tuple[float, float]:
    """Return the lowest and highest level in dBFS, at least -90, of the half seconds of (n_samples,), no offset."""
    parts = np.array_split(waveform.astype(np.float64), max(1, len(waveform) // (SAMPLE_RATE_HZ // 2)))
    levels = [10 * math.log10(max(part.var(), 10 ** (LEVEL_FLOOR_DB / 10))) for part in parts]
    return round(min(levels), 3), round(max(levels), 3)


def clipped_share(waveform: np.ndarray) -> float:
    """Return the share of the samples of a waveform (n_samples,) that are at full scale."""
    return round(float(np.mean(np.abs(waveform) >= FULL_SCALE)), 4)


def within_full_scale(waveform: np.ndarray) -> np.ndarray:
    """Turn a waveform down to a peak of 1 where it is louder; leave it alone otherwise."""
    peak = np.abs(waveform).max(initial=0)
    return waveform / peak if peak > 1 else waveform


def fade(waveform: np.ndarray, *, seconds: float) -> np.ndarray:
    """Return a waveform (n_samples,) that rises and falls linearly over some seconds at its ends: a cut is no click."""
    n_fade = min(round(seconds * SAMPLE_RATE_HZ), len(waveform) // 2)
    ramp = np.linspace(0, 1, n_fade, endpoint=False, dtype=np.float32)
    faded = waveform.copy()
    faded[:n_fade] *= ramp
    faded[len(faded) - n_fade :] *= ramp[::-1]
    return faded


@dataclass(frozen=True)
class LogMel:
    """A log-mel: power_db (n_mels, n_frames), the mels' centres in Hz, and the step between frames in seconds."""

    power_db: np.ndarray
    frequencies_hz: np.ndarray
    hop_seconds: float


def log_mel(waveform: np.ndarray, *, sample_rate_hz: int = SAMPLE_RATE_HZ) -> LogMel:
    """Compute the log-mel of a waveform (n_samples,), in dB below its loudest bin; at any rate, frames of 25 ms.

    Returns
    -------
    LogMel
        power_db (64, n_frames), between -80 and 0; digital silence is -80 everywhere.
    """
    import librosa  # here: a service that draws nothing does without

    waveform = as_waveform(waveform)
    frame_samples = round(MEL_FRAME_SAMPLES * sample_rate_hz / SAMPLE_RATE_HZ)
    hop_samples = round(MEL_HOP_SAMPLES * sample_rate_hz / SAMPLE_RATE_HZ)
    n_fft = 1 << (frame_samples - 1).bit_length()  # 512 at 16 kHz
    power = librosa.feature.melspectrogram(
        y=waveform, sr=sample_rate_hz, n_fft=n_fft, win_length=frame_samples, hop_length=hop_samples, n_mels=N_MELS,
        pad_mode="constant",
    )  # fmt: skip
    # All-zero power has no largest value and is at the floor.
    floored = librosa.power_to_db(power, ref=np.max, amin=1e-20, top_db=-FLOOR_DB) if power.any() else None
    return LogMel(
        power_db=np.full_like(power, FLOOR_DB) if floored is None else floored,
        frequencies_hz=librosa.mel_frequencies(n_mels=N_MELS, fmax=sample_rate_hz / 2),
        hop_seconds=hop_samples / sample_rate_hz,
    )


def active_rms(waveform: np.ndarray) -> float:
    """Return the RMS over the 25 ms frames within 40 dB of the loudest one; 0 for silence."""
    n_frame = SAMPLE_RATE_HZ * ACTIVE_FRAME_MS // 1000
    starts = np.arange(0, max(len(waveform), 1), n_frame)
    if not len(waveform):
        return 0.0
    energies = np.add.reduceat(np.square(waveform, dtype=np.float64), starts)
    powers = energies / np.diff(np.append(starts, len(waveform)))
    active = powers >= powers.max() * 10 ** (-ACTIVE_BELOW_PEAK_DB / 10)
    return math.sqrt(powers[active].mean())


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
