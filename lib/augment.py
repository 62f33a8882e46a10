"""Changes that a microphone, a room or a codec could have made, applied to training sounds only.

They are drawn alike for every class, so that bandwidth, level and codec stop predicting the class. Every function takes
and returns a waveform: float32 (n_samples,), 16 kHz, finite, in [-1, 1], of the same length. The weights that balance
training by class, source and group are here too.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import soundfile
from scipy import fft, signal

from lib import audio
from lib.config import SAMPLE_RATE_HZ
from lib.waveforms import amplitude, equalise_level, fade, resample, within_full_scale

SEAM_SECONDS = 0.005  # fade on both sides where two ends meet, so that no click marks the place
# name: (rate in hertz, container, subtype); libsndfile writes and reads them without delay
CODECS = {
    "mp3": (16_000, "MP3", "MPEG_LAYER_III"),
    "vorbis": (16_000, "OGG", "VORBIS"),
    "opus": (16_000, "OGG", "OPUS"),
    "gsm": (8_000, "WAV", "GSM610"),
    "mu_law": (8_000, "WAV", "ULAW"),
}


@dataclass(frozen=True)
class AugmentConfig:
    """How often each change is made (`p_...`, probability per clip) and within which range (drawn evenly)."""

    p_background: float = 0.4  # needs backgrounds
    background_snr_db: tuple[float, float] = (0.0, 20.0)
    p_noise: float = 0.4
    noise_snr_db: tuple[float, float] = (-5.0, 25.0)
    p_low_pass: float = 0.4
    low_pass_hz: tuple[float, float] = (2000.0, 8000.0)
    p_high_pass: float = 0.2
    high_pass_hz: tuple[float, float] = (40.0, 400.0)
    p_resample: float = 0.2
    resample_hz: tuple[int, ...] = (8000, 11_025, 12_000)
    p_codec: float = 0.15
    codecs: tuple[str, ...] = ("mp3", "vorbis", "gsm", "mu_law")  # opus takes 0.1 s for a 4 s clip
    p_gain: float = 0.8
    gain_db: tuple[float, float] = (-8.0, 8.0)


RECORDING = AugmentConfig()
WITHOUT_BACKGROUND = replace(RECORDING, p_background=0.0, p_noise=0.6)  # for copies, which are made clip by clip


def generator(key: str) -> np.random.Generator:
    """Return random numbers that depend on a text alone: the same in every run and on every machine."""
    return np.random.default_rng(list(hashlib.sha256(key.encode()).digest()[:16]))


def augmented_copy(waveform: np.ndarray, *, key: str) -> np.ndarray:
    """Return an augmented copy of a clip, the same in every run: `key` (clip and number) decides everything."""
    return augment(waveform, generator(key), settings=WITHOUT_BACKGROUND)


def augment(
    waveform: np.ndarray,
    rng: np.random.Generator,
    *,
    background: Sequence[np.ndarray] | None = None,
    settings: AugmentConfig = RECORDING,
) -> np.ndarray:
    """Draw a chain of changes from `rng` and apply it: room, then recorder, then level.

    The result has the level of `waveforms.equalise_level` give or take `gain_db`.

    Parameters
    ----------
    waveform : ndarray, (n_samples,)
    rng : Generator
        Decides everything: the same state gives the same result.
    background : sequence of ndarray, optional
        Training clips of the class normal, one of which may be mixed in, for every class alike.
    settings : AugmentConfig, optional
    """
    wanted = _wanted(settings, rng)
    changed = np.asarray(waveform, dtype=np.float32)
    if wanted["background"] and background is not None and len(background):
        other = random_crop(background[int(rng.integers(len(background)))], len(changed), rng)
        changed = mix(changed, other, snr_db=rng.uniform(*settings.background_snr_db))
    if wanted["noise"]:
        changed = mix(changed, coloured_noise(len(changed), rng), snr_db=rng.uniform(*settings.noise_snr_db))
    changed = equalise_level(_record(changed, rng, wanted=wanted, draw=settings))
    return gain(changed, gain_db=rng.uniform(*settings.gain_db)) if wanted["gain"] else changed


def recorded(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw what a recorder does to a waveform (bandwidth, converter, codec) and apply it; nothing else changes."""
    return _record(waveform, rng, wanted=_wanted(RECORDING, rng), draw=RECORDING)


def _wanted(settings: AugmentConfig, rng: np.random.Generator) -> dict[str, bool]:
    return {name[2:]: rng.random() < value for name, value in vars(settings).items() if name.startswith("p_")}


def _record(
    waveform: np.ndarray, rng: np.random.Generator, *, wanted: dict[str, bool], draw: AugmentConfig
) -> np.ndarray:
    """Pass a waveform through what microphones, converters and codecs do to its band."""
    if wanted["high_pass"]:
        waveform = high_pass(waveform, cutoff_hz=rng.uniform(*draw.high_pass_hz))
    if wanted["low_pass"]:
        waveform = low_pass(waveform, cutoff_hz=rng.uniform(*draw.low_pass_hz))
    if wanted["resample"]:
        waveform = resample_round_trip(waveform, rate_hz=draw.resample_hz[rng.integers(len(draw.resample_hz))])
    if wanted["codec"]:
        waveform = codec_round_trip(waveform, codec=draw.codecs[rng.integers(len(draw.codecs))])
    return waveform


def gain(waveform: np.ndarray, *, gain_db: float) -> np.ndarray:
    """Amplify by `gain_db`, less where the peak would pass full scale."""
    return within_full_scale(waveform * np.float32(amplitude(gain_db)))


def mix(waveform: np.ndarray, background: np.ndarray, *, snr_db: float) -> np.ndarray:
    """Add `background` at a signal-to-noise ratio of mean powers; unchanged if either is silent."""
    power, background_power = (float(np.mean(np.square(part, dtype=np.float64))) for part in (waveform, background))
    if power == 0 or background_power == 0:
        return waveform
    scale = np.sqrt(power / background_power) * amplitude(-snr_db)
    return within_full_scale(waveform + np.float32(scale) * background)


def coloured_noise(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise with a spectrum between white and brown: power falling as frequency^-b, b drawn from 0 to 2."""
    n_fft = fft.next_fast_len(n_samples, real=True)
    spectrum = fft.rfft(rng.standard_normal(n_fft, dtype=np.float32))
    spectrum[0] = 0
    spectrum[1:] *= np.arange(1, len(spectrum), dtype=np.float32) ** np.float32(-rng.uniform(0, 2) / 2)
    noise = fft.irfft(spectrum, n_fft)[:n_samples]
    return (noise / max(float(np.abs(noise).max(initial=0)), 1e-9)).astype(np.float32)


def low_pass(waveform: np.ndarray, *, cutoff_hz: float) -> np.ndarray:
    """Remove what lies above `cutoff_hz` (Butterworth, 48 dB an octave); from 8 kHz on nothing is left to remove."""
    return _filter(waveform, round(cutoff_hz), "lowpass") if cutoff_hz < SAMPLE_RATE_HZ / 2 - 1 else waveform


def high_pass(waveform: np.ndarray, *, cutoff_hz: float) -> np.ndarray:
    """Remove what lies below `cutoff_hz` (Butterworth, 12 dB an octave, as small microphones do)."""
    return _filter(waveform, round(cutoff_hz), "highpass")


def resample_round_trip(waveform: np.ndarray, *, rate_hz: int) -> np.ndarray:
    """Go to `rate_hz` and back: a bandwidth limit as steep as a converter's."""
    there = resample(waveform, SAMPLE_RATE_HZ, rate_hz)
    return _same_length(resample(there, rate_hz, SAMPLE_RATE_HZ), len(waveform))


def codec_round_trip(waveform: np.ndarray, *, codec: str) -> np.ndarray:
    """Encode and decode with one of `CODECS`, at the codec's own rate."""
    rate_hz, container, subtype = CODECS[codec]
    buffer = io.BytesIO()
    there = resample(waveform, SAMPLE_RATE_HZ, rate_hz)
    if container == "WAV":  # beyond full scale, libsndfile's mu-law reads past its table and its GSM wraps around
        there = np.clip(there, -1, 1)
    soundfile.write(buffer, there, rate_hz, format=container, subtype=subtype)
    buffer.seek(0)
    back, _ = soundfile.read(buffer, dtype="float32")
    return _same_length(resample(back, rate_hz, SAMPLE_RATE_HZ), len(waveform))


def random_crop(waveform: np.ndarray, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return exactly `n_samples`: a random window of a longer waveform, a shorter one repeated from a random start.

    Nothing is padded with zeros, so that neither length nor silence predicts the class.
    """
    if len(waveform) == 0:
        raise audio.EmptyAudio("there is nothing to crop")
    if len(waveform) < n_samples:
        return _repeat(waveform, int(rng.integers(len(waveform))), n_samples)
    start = int(rng.integers(len(waveform) - n_samples + 1))
    return waveform[start : start + n_samples]


def balanced_weights(frame: pd.DataFrame) -> np.ndarray:
    """Return sampling weights (n_rows,), sum 1: classes equal; sources of a class and groups of a source nearly so.

    `frame` has label, source and group_id. A source counts with the square root of its groups in its class, a group
    with the square root of its clips in its source: between all equal, and as they are.
    """
    rows = frame[["label", "source", "group_id"]]
    groups = rows.value_counts().rename("n_clips").reset_index()
    sources = groups.groupby(["label", "source"], as_index=False).agg(n_groups=("group_id", "size"))
    sources["weight"] = _shares(sources["n_groups"] ** 0.5, sources["label"])
    groups = groups.merge(sources[["label", "source", "weight"]], on=["label", "source"])
    groups["weight"] *= _shares(groups["n_clips"] ** 0.5, groups["label"] + "\n" + groups["source"])
    weights = rows.merge(groups, how="left")  # keeps the rows' order
    return (weights["weight"] / weights["n_clips"]).to_numpy() * (1 / frame["label"].nunique())


def _shares(values: pd.Series, by: pd.Series) -> pd.Series:
    return values / values.groupby(by).transform("sum")


@functools.lru_cache(maxsize=512)
def _design(cutoff_hz: int, kind: str) -> np.ndarray:
    order = 8 if kind == "lowpass" else 2
    return signal.butter(order, cutoff_hz, kind, fs=SAMPLE_RATE_HZ, output="sos")


def _filter(waveform: np.ndarray, cutoff_hz: int, kind: str) -> np.ndarray:
    return within_full_scale(signal.sosfilt(_design(cutoff_hz, kind), waveform)).astype(np.float32, copy=False)


def _repeat(waveform: np.ndarray, start: int, n_samples: int) -> np.ndarray:
    """Read `n_samples` from a waveform with its ends joined, beginning at `start`."""
    return fade(waveform, seconds=SEAM_SECONDS)[np.arange(start, start + n_samples) % len(waveform)]


def _same_length(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Undo the sample or two that a change of rate adds or takes at the end."""
    waveform = waveform[:n_samples]
    return within_full_scale(np.pad(waveform, (0, n_samples - len(waveform)), mode="edge"))
