"""One recording's samples to what the networks hear: no padding, no offset, one level; noise and pitch on request."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

import numpy as np

from lib import audio, config

VERSION = 1  # raise it when the same recording comes out otherwise: kept files of older versions are then left alone
MEASURES = ("level_db", "peak_db", "clipped_share", "zero_share")
SILENT_STEP = 2 / 32768  # digital silence: no further than two steps of 16 bit from the first (last) sample
SILENCE_KEPT_SECONDS = 0.1
FLOOR_DB = -100.0  # below the step of 16 bit (-90 dB): what silence is measured as
REFERENCE_PITCH_HZ = 350.0  # between infant cries (median near 450 Hz) and adult voices
MAX_PITCH_SHIFT_SEMITONES = 4.0


@dataclass(frozen=True)
class Options:
    """How recordings become clips. The last two are off unless a comparison on left-out sources speaks for them."""

    segment_seconds: float = 10.0
    max_segments_per_recording: int = 6  # evenly spread: minutes of ambience must not drown the rest
    trim_padding: bool = True
    reduce_noise: bool = False
    normalise_pitch: bool = False

    def digest(self) -> str:
        """Return a short name for these options, the same in every run."""
        text = json.dumps([VERSION, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def process_waveform(waveform: np.ndarray, options: Options) -> np.ndarray:
    """Turn one segment as recorded into what the networks hear.

    Parameters
    ----------
    waveform : ndarray, (n_samples,)
        16 kHz mono.
    options : Options

    Returns
    -------
    ndarray, (n_samples,)
        Without DC, at the level of `audio.equalise_level`. `inference.Classifier` does the same to what it is given.
    """
    waveform = audio.remove_dc(waveform)
    if options.reduce_noise:
        waveform = reduce_noise(waveform)
    if options.normalise_pitch:
        waveform = normalise_pitch(waveform)
    return audio.equalise_level(waveform)


def find_sound(waveform: np.ndarray) -> tuple[int, int]:
    """Return the bounds of a recording without the digital silence it was padded with, but for 0.1 s on either side.

    Some sources pad everything to one length and others do not, so padding would betray the class. Quiet room noise
    is no digital silence and stays. What is silent all through is returned whole.
    """
    starts = np.flatnonzero(np.abs(waveform - waveform[0]) > SILENT_STEP)
    ends = np.flatnonzero(np.abs(waveform - waveform[-1]) > SILENT_STEP)
    if not len(starts) or not len(ends):
        return 0, len(waveform)
    n_kept = round(SILENCE_KEPT_SECONDS * config.SAMPLE_RATE_HZ)
    return max(int(starts[0]) - n_kept, 0), min(int(ends[-1]) + 1 + n_kept, len(waveform))


def choose_segments(n_samples: int, options: Options) -> tuple[list[tuple[int, int]], int]:
    """Return the bounds of the segments to keep, evenly spread over the recording, and how many there were."""
    bounds = audio.segment_bounds(n_samples, segment_seconds=options.segment_seconds)
    n_kept = min(len(bounds), options.max_segments_per_recording)
    middles = (np.arange(n_kept) + 0.5) * len(bounds) / max(n_kept, 1)  # of n_kept equal stretches of the recording
    return [bounds[int(middle)] for middle in middles], len(bounds)


def measure(waveform: np.ndarray) -> dict[str, float]:
    """Return `MEASURES` of a waveform: RMS level and peak (dBFS), shares of clipped and zero samples."""
    size = np.abs(waveform)
    return {
        "level_db": _decibels(float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))),
        "peak_db": _decibels(float(size.max())),
        "clipped_share": float(np.mean(size > 0.999)),
        "zero_share": float(np.mean(size == 0)),
    }


def reduce_noise(waveform: np.ndarray) -> np.ndarray:
    """Spectral gating with a noise floor that follows the recording (Sainburg's noisereduce), at most 12 dB down."""
    import noisereduce  # takes a second to import, and is off by default

    reduced = noisereduce.reduce_noise(y=waveform, sr=config.SAMPLE_RATE_HZ, stationary=False, prop_decrease=0.75)
    return np.nan_to_num(reduced).astype(np.float32)


def normalise_pitch(waveform: np.ndarray) -> np.ndarray:
    """Move the median fundamental towards `REFERENCE_PITCH_HZ`, by 4 semitones at most; unvoiced sound stays."""
    import librosa

    if len(waveform) < 2048:  # 128 ms, a frame of the analysis
        return waveform
    pitch_hz, _, voicing = librosa.pyin(waveform, fmin=80, fmax=1500, sr=config.SAMPLE_RATE_HZ, hop_length=1024)
    is_voiced = (voicing > 0.5) & np.isfinite(pitch_hz)  # pyin's own flag is also set on hum and hiss
    if is_voiced.sum() < 3:
        return waveform
    n_steps = 12 * np.log2(REFERENCE_PITCH_HZ / np.median(pitch_hz[is_voiced]))
    n_steps = float(np.clip(n_steps, -MAX_PITCH_SHIFT_SEMITONES, MAX_PITCH_SHIFT_SEMITONES))
    return librosa.effects.pitch_shift(waveform, sr=config.SAMPLE_RATE_HZ, n_steps=n_steps)


def _decibels(amplitude: float) -> float:
    return round(max(20 * float(np.log10(max(amplitude, 1e-12))), FLOOR_DB), 2)
