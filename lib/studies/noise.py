"""Noise at stated signal-to-noise ratios, rooms, codecs, telephones, level and clipping: what a network is tested in.

Every change is seeded by clip, kind and draw, not by level: a clip is mixed with the same noise at 20 dB as at 0 dB.
Unlike the random changes of `lib.augment`, each has one stated strength.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np
import pandas as pd
import soundfile
from scipy import signal

from lib import augment, config
from lib.waveforms import prepare, within_full_scale

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Levels = tuple[tuple[str, Change], ...]
Condition = tuple[str, str]  # kind and level

CLEAN: Condition = ("as recorded", "")
SNR_DB = (20, 15, 10, 5, 0)
T60_SECONDS = (0.2, 0.5, 1.0)
GAIN_DB = (-20, -10, 10, 20)
CLIPPED_PERCENT = (1, 5, 20)
DECAY = np.log(1000)  # 60 dB as an amplitude ratio: what T60 means
TELEPHONE_HZ = (300.0, 3400.0)  # the band of ITU-T G.712
N_SPEAKERS = 4  # that make a babble
OPUS_SMALLEST = 1.0  # libsndfile's compression level, 0 to 1: about 7 kbit/s on this project's clips, by default 28


def add_noise(waveform: np.ndarray, rng: np.random.Generator, *, snr_db: float) -> np.ndarray:
    """Add noise between white and brown at a signal-to-noise ratio, as means over the clip."""
    return augment.mix(waveform, augment.coloured_noise(len(waveform), rng), snr_db=snr_db)


def add_babble(
    waveform: np.ndarray, rng: np.random.Generator, *, snr_db: float, speech: Sequence[np.ndarray]
) -> np.ndarray:
    """Add `N_SPEAKERS` of the speech clips `speech` at once, at a signal-to-noise ratio."""
    picked = rng.choice(len(speech), size=min(N_SPEAKERS, len(speech)), replace=False)
    background = np.asarray(sum(augment.random_crop(speech[i], len(waveform), rng) for i in picked))
    return augment.mix(waveform, background, snr_db=snr_db)


def room_response(t60_seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return the impulse response of a room: direct sound, then noise that decays by 60 dB in `t60_seconds`.

    The tail holds as much energy as the direct sound: a speaker at the critical distance.
    Source: Moorer 1979, "About this reverberation business".
    """
    n_samples = round(1.2 * t60_seconds * config.SAMPLE_RATE_HZ)  # down to -72 dB
    times = np.arange(1, n_samples + 1) / config.SAMPLE_RATE_HZ
    tail = rng.standard_normal(n_samples) * np.exp(-DECAY * times / t60_seconds)
    return np.concatenate([[1.0], tail / np.sqrt(np.square(tail).sum())])


def reverberate(waveform: np.ndarray, rng: np.random.Generator, *, t60_seconds: float) -> np.ndarray:
    """Put a clip into a room of `room_response`; what rings on after its end is cut off."""
    wet = signal.fftconvolve(waveform, room_response(t60_seconds, rng))[: len(waveform)]
    return within_full_scale(wet.astype(np.float32))


def opus(waveform: np.ndarray, _: np.random.Generator, *, compression_level: float) -> np.ndarray:
    """Encode with Opus at libsndfile's `compression_level` (0: most bits, 1: fewest) and decode."""
    rate_hz, container, subtype = augment.CODECS["opus"]
    buffer = io.BytesIO()
    options = {"format": container, "subtype": subtype, "compression_level": compression_level}
    soundfile.write(buffer, waveform, rate_hz, **options)
    buffer.seek(0)
    back, _ = soundfile.read(buffer, dtype="float32", frames=len(waveform), fill_value=0.0)
    return within_full_scale(back)


def codec(waveform: np.ndarray, _: np.random.Generator, *, name: str) -> np.ndarray:
    """Encode and decode with one of `augment.CODECS`, at libsndfile's default setting."""
    return augment.codec_round_trip(waveform, codec=name)


def telephone(waveform: np.ndarray, _: np.random.Generator, *, name: str) -> np.ndarray:
    """Keep 300 to 3400 Hz, then go through an 8 kHz codec and back."""
    band = augment.low_pass(augment.high_pass(waveform, cutoff_hz=TELEPHONE_HZ[0]), cutoff_hz=TELEPHONE_HZ[1])
    return augment.codec_round_trip(band, codec=name)


def gain(waveform: np.ndarray, _: np.random.Generator, *, gain_db: float) -> np.ndarray:
    """Amplify, and clip at full scale as a recorder does."""
    return np.clip(waveform * np.float32(10 ** (gain_db / 20)), -1, 1)


def clip(waveform: np.ndarray, _: np.random.Generator, *, percent: float) -> np.ndarray:
    """Drive a clip until `percent` of its samples clip; one that is mostly silence is driven by what is not."""
    size = np.abs(waveform)
    ceiling = float(np.quantile(size, 1 - percent / 100))
    ceiling = ceiling or float(size[size > 0].min(initial=1.0))
    return np.clip(waveform / np.float32(ceiling), -1, 1)


def _levels(change: Callable, form: str, *, levels: Sequence[float] | Sequence[str], setting: str) -> Levels:
    return tuple((form.format(level), partial(change, **{setting: level})) for level in levels)


CONDITIONS: Mapping[str, Levels] = MappingProxyType(
    {
        "noise": _levels(add_noise, "{} dB", levels=SNR_DB, setting="snr_db"),
        "reverberation": _levels(reverberate, "T60 {} s", levels=T60_SECONDS, setting="t60_seconds"),
        "codec": (
            *_levels(codec, "{}", levels=("mp3", "vorbis", "opus"), setting="name"),
            ("opus, smallest", partial(opus, compression_level=OPUS_SMALLEST)),
        ),
        "telephone": _levels(telephone, "{}", levels=("mu_law", "gsm"), setting="name"),
        "gain": _levels(gain, "{:+d} dB", levels=GAIN_DB, setting="gain_db"),
        "clipping": _levels(clip, "{} %", levels=CLIPPED_PERCENT, setting="percent"),
    }
)


# The noise that notebooks 03 and 04 validate in, and the studies of unseen corpora.


def conditions(speech: Sequence[np.ndarray] | None = None) -> dict[str, Levels]:
    """Return `CONDITIONS`, and babble made of `speech` (speech clips of the training split) where given."""
    if not speech:
        return dict(CONDITIONS)
    made = _levels(partial(add_babble, speech=speech), "{} dB", levels=SNR_DB, setting="snr_db")
    return {"noise": CONDITIONS["noise"], "babble": made} | dict(CONDITIONS)


def degraded(
    rows: pd.DataFrame,
    waveforms: Sequence[np.ndarray],
    change: Change,
    *,
    kind: str,
    draw: int = 0,
    equalise: bool = True,
) -> list[np.ndarray]:
    """Return the clips after a change, as the networks are given them.

    Parameters
    ----------
    rows : DataFrame
        clip_id seeds the change, with `kind` and `draw`.
    waveforms : sequence of ndarray, each (n_samples,)
        In the order of `rows`; as `manifest.load_waveforms` gives them.
    change : callable
        Of `CONDITIONS`.
    kind : str
        Its kind.
    draw : int
        Which of several draws.
    equalise : bool
        Bring the result to what every network is given (`waveforms.prepare`): then a gain leaves nothing but what it
        clipped.

    Returns
    -------
    list of ndarray, each (n_samples,)
        float32, finite, in [-1, 1], of the same lengths.
    """
    found = []
    for clip_id, waveform in zip(rows["clip_id"], waveforms, strict=True):
        digest = hashlib.sha256(f"{clip_id} {kind} {draw}".encode()).digest()
        result = change(waveform, np.random.default_rng(list(digest[:16])))
        found.append(prepare(result) if equalise else result)
    return found
