"""What noise, babble, rooms, codecs, telephones and clipping cost both networks and the ensemble, on test clips.

Every change is seeded by clip and kind, not by level: a clip is mixed with the same noise at 20 dB as at 0 dB. Unlike
the random changes of `lib.augment`, each has one stated strength. The level is equalised afterwards, as the service
does, so a gain alone would change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import signal

from lib import augment, config, plots
from lib.studies.inputs import Inputs
from lib.studies.result import Result, compare, interval_of
from lib.waveforms import prepare, within_full_scale

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]

AS_RECORDED = "as recorded"
SNR_DB = (20, 10, 0)
T60_SECONDS = (0.2, 0.5, 1.0)
CLIPPED_PERCENT = (1, 5, 20)
CODECS, TELEPHONE_CODECS = ("mp3", "vorbis", "opus"), ("mu_law", "gsm")  # of `augment.CODECS`
DECAY = np.log(1000)  # 60 dB as an amplitude ratio: what T60 means
TELEPHONE_HZ = (300.0, 3400.0)  # the band of ITU-T G.712
N_SPEAKERS = 4  # that make a babble


def conditions(speech: Sequence[np.ndarray]) -> dict[str, Change]:
    """Return every change by name; babble is made of `speech`, speech clips of the training split."""
    return {
        AS_RECORDED: lambda waveform, _: waveform,
        **{f"noise {db} dB": partial(add_noise, snr_db=db) for db in SNR_DB},
        **{f"babble {db} dB": partial(add_babble, snr_db=db, speech=speech) for db in SNR_DB},
        **{f"reverberation {t60:g} s": partial(reverberate, t60_seconds=t60) for t60 in T60_SECONDS},
        **{f"codec {name}": partial(codec, name=name) for name in CODECS},
        **{f"telephone {name}": partial(telephone, name=name) for name in TELEPHONE_CODECS},
        **{f"clipping {percent} %": partial(clip, percent=percent) for percent in CLIPPED_PERCENT},
    }


def add_noise(waveform: np.ndarray, rng: np.random.Generator, *, snr_db: float) -> np.ndarray:
    """Add noise between white and brown at a signal-to-noise ratio, as means over the clip."""
    return augment.mix(waveform, augment.coloured_noise(len(waveform), rng), snr_db=snr_db)


def add_babble(
    waveform: np.ndarray, rng: np.random.Generator, *, snr_db: float, speech: Sequence[np.ndarray]
) -> np.ndarray:
    """Add `N_SPEAKERS` of the clips `speech` at once, at a signal-to-noise ratio."""
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


def codec(waveform: np.ndarray, _: np.random.Generator, *, name: str) -> np.ndarray:
    """Encode and decode with one of `augment.CODECS`, at libsndfile's default setting."""
    return augment.codec_round_trip(waveform, codec=name)


def telephone(waveform: np.ndarray, rng: np.random.Generator, *, name: str) -> np.ndarray:
    """Keep 300 to 3400 Hz, then go through an 8 kHz codec and back."""
    band = augment.low_pass(augment.high_pass(waveform, cutoff_hz=TELEPHONE_HZ[0]), cutoff_hz=TELEPHONE_HZ[1])
    return codec(band, rng, name=name)


def clip(waveform: np.ndarray, _: np.random.Generator, *, percent: float) -> np.ndarray:
    """Drive a clip until `percent` of its samples clip; one that is mostly silence is driven by what is not."""
    size = np.abs(waveform)
    ceiling = float(np.quantile(size, 1 - percent / 100))
    ceiling = ceiling or float(size[size > 0].min(initial=1.0))
    return np.clip(waveform / np.float32(ceiling), -1, 1)


def degraded(rows: pd.DataFrame, waveforms: Sequence[np.ndarray], name: str, change: Change) -> list[np.ndarray]:
    """Return clips (n_samples,) after a change, as the networks are given them: `waveforms.prepare`.

    `clip_id` of the rows and the first word of the condition's name seed the change.
    """
    seeds = rows["clip_id"] + " " + name.partition(" ")[0]
    pairs = zip(waveforms, map(augment.generator, seeds), strict=True)
    return [prepare(change(waveform, rng)) for waveform, rng in pairs]


def run(inputs: Inputs) -> Result:
    """Score both networks and the ensemble under every condition.

    Table robustness: model, condition, and measures as `result.compare`, "change" against the clips as recorded.
    """
    rows, waveforms, training = inputs.rows("test"), inputs.waveforms("test"), inputs.rows("train")
    speech = inputs.waveforms("train")
    is_speech = training["subtype"].str.startswith("speech")
    changes = conditions([waveform for waveform, wanted in zip(speech, is_speech, strict=True) if wanted])
    predicted = {name: inputs.predict(degraded(rows, waveforms, name, change)) for name, change in changes.items()}
    size = {"n_clips": len(rows), "n_groups": int(rows["group_id"].nunique())}
    return Result(size, {"robustness": tabulate(rows, predicted)})


def tabulate(rows: pd.DataFrame, predicted: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return the table of predictions (n_clips, 3) by condition and model, the clips as recorded first."""
    models = next(iter(predicted.values()))
    tables = [
        compare(rows, {name: by_model[model] for name, by_model in predicted.items()}, "condition").assign(model=model)
        for model in models
    ]
    return pd.concat(tables, ignore_index=True)


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw the macro F1 of each model by condition."""
    table = tables["robustness"].query("measure == 'macro F1'")
    series = {
        model: {row["condition"]: interval_of(row) for row in part.to_dict("records")}
        for model, part in table.groupby("model", sort=False)
    }
    figure, ax = plots.subplots(height_inches=0.42 * table["condition"].nunique() + 1.0)
    plots.score_bars(ax, series, label="Macro F1")
    return {"robustness": figure}
