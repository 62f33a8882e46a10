"""What noise, rooms, codecs, telephones, level and clipping do to the answers: macro F1 by condition.

Every change is seeded by clip, kind and draw, not by level: a clip meets the same noise at 20 dB as at 0 dB. Noise and
babble are drawn several times a clip, because one draw decides as much as ten decibels.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import pandas as pd
import soundfile
from scipy import signal

from lib import audio, augment, config, evaluation, manifest
from lib.studies.findings import Findings

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Levels = tuple[tuple[str, Change], ...]
Key = tuple[str, str]  # kind and level

CLEAN: Key = ("as recorded", "")
DRAWN_KINDS = ("noise", "babble")
N_DRAWS = 4  # of each of them, a clip
SNR_DB = (20, 15, 10, 5, 0)
T60_SECONDS = (0.2, 0.5, 1.0)
GAIN_DB = (-20, -10, 10, 20)
CLIPPED_PERCENT = (1, 5, 20)
DECAY = np.log(1000)  # 60 dB as an amplitude ratio: what T60 means
TELEPHONE_HZ = (300.0, 3400.0)  # the band of ITU-T G.712
N_VOICES = 4  # that make a babble
OPUS_SMALLEST = 1.0  # libsndfile's compression level, 0 to 1: about 7 kbit/s on this project's clips, by default 28


def noise(waveform: np.ndarray, rng: np.random.Generator, *, snr_db: float) -> np.ndarray:
    """Add noise between white and brown at a signal-to-noise ratio, as means over the clip."""
    return augment.mix(waveform, augment.coloured_noise(len(waveform), rng), snr_db=snr_db)


def babble(
    waveform: np.ndarray, rng: np.random.Generator, *, snr_db: float, voices: Sequence[np.ndarray]
) -> np.ndarray:
    """Add `N_VOICES` of the speech clips `voices` at once, at a signal-to-noise ratio."""
    picked = rng.choice(len(voices), size=min(N_VOICES, len(voices)), replace=False)
    bed = sum(augment.random_crop(voices[i], len(waveform), rng) for i in picked)
    return augment.mix(waveform, bed, snr_db=snr_db)


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
    return audio.within_full_scale(wet.astype(np.float32))


def opus(waveform: np.ndarray, _: np.random.Generator, *, compression_level: float) -> np.ndarray:
    """Encode with Opus at libsndfile's `compression_level` (0: most bits, 1: fewest) and decode."""
    rate_hz, container, subtype = augment.CODECS["opus"]
    buffer = io.BytesIO()
    options = {"format": container, "subtype": subtype, "compression_level": compression_level}
    soundfile.write(buffer, waveform, rate_hz, **options)
    buffer.seek(0)
    back, _ = soundfile.read(buffer, dtype="float32", frames=len(waveform), fill_value=0.0)
    return audio.within_full_scale(back)


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


def _levels(change: Callable, form: str, *, levels: Sequence[float], setting: str) -> Levels:
    return tuple((form.format(level), partial(change, **{setting: level})) for level in levels)


CONDITIONS: Mapping[str, Levels] = MappingProxyType(
    {
        "noise": _levels(noise, "{} dB", levels=SNR_DB, setting="snr_db"),
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


# What notebooks 03 and 04 try their stages in, and the study of sources never met its networks.
HEARD_IN = tuple(f"noise, {level}" for level in ("10 dB", "0 dB"))


def in_noise(rows: pd.DataFrame, waveforms: Sequence[np.ndarray]) -> dict[str, Sequence[np.ndarray]]:
    """Return clips as recorded and in one draw of noise, by condition: "as recorded", then `HEARD_IN`.

    Parameters
    ----------
    rows, waveforms
        As in `changed`.
    """
    levels = dict(CONDITIONS["noise"])
    noisy = {name: changed(rows, waveforms, levels[name.removeprefix("noise, ")], kind="noise") for name in HEARD_IN}
    return {CLEAN[0]: waveforms} | noisy


def conditions(voices: Sequence[np.ndarray] | None = None) -> dict[str, Levels]:
    """Return `CONDITIONS`, and babble made of `voices` (speech clips of the training split) where given."""
    if not voices:
        return dict(CONDITIONS)
    made = _levels(partial(babble, voices=voices), "{} dB", levels=SNR_DB, setting="snr_db")
    return {"noise": CONDITIONS["noise"], "babble": made} | dict(CONDITIONS)


def changed(
    rows: pd.DataFrame,
    waveforms: Sequence[np.ndarray],
    change: Change,
    *,
    kind: str,
    draw: int = 0,
    equalise: bool = True,
) -> list[np.ndarray]:
    """Return the clips after a change, as the networks hear them.

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
        Remove the offset and equalise the level afterwards, as `inference.Classifier` does with whatever it is given.
        Then a gain leaves nothing but what it clipped.

    Returns
    -------
    list of ndarray, each (n_samples,)
        float32, finite, in [-1, 1], of the same lengths.
    """
    found = []
    for clip_id, waveform in zip(rows["clip_id"], waveforms, strict=True):
        digest = hashlib.sha256(f"{clip_id} {kind} {draw}".encode()).digest()
        result = change(waveform, np.random.default_rng(list(digest[:16])))
        found.append(audio.equalise_level(audio.remove_dc(result)) if equalise else result)
    return found


def answers(
    rows: pd.DataFrame,
    waveforms: Sequence[np.ndarray],
    predict: Callable[[list[np.ndarray]], Mapping[str, np.ndarray]],
    *,
    given: Mapping[str, Levels] = CONDITIONS,
    n_draws: int = N_DRAWS,
    equalise: bool = True,
    say: Callable[[str], object] | None = None,
) -> dict[Key, Mapping[str, np.ndarray]]:
    """Let models answer under every condition.

    Parameters
    ----------
    rows, waveforms, equalise
        As in `changed`.
    predict : callable
        Waveforms to probabilities (n_clips, 3) by model.
    given : mapping
        Conditions: all, or some kinds of them.
    n_draws : int
        How often each of `DRAWN_KINDS` is drawn.
    say : callable, optional
        Is told each condition before it begins.

    Returns
    -------
    dict of (kind, level) to mapping of model to ndarray (n_draws * n_clips, 3)
        `CLEAN` first. All clips of the first draw, then all of the second.
    """
    found = {CLEAN: predict(changed(rows, waveforms, lambda waveform, _: waveform, kind="", equalise=equalise))}
    for kind, levels in given.items():
        for level, change in levels:
            if say:
                say(f"{kind}, {level}")
            draws = range(n_draws if kind in DRAWN_KINDS else 1)
            heard = [predict(changed(rows, waveforms, change, kind=kind, draw=n, equalise=equalise)) for n in draws]
            found[kind, level] = {name: np.concatenate([values[name] for values in heard]) for name in heard[0]}
    return found


@dataclass(frozen=True)
class _Truth:
    class_ids: np.ndarray
    groups: np.ndarray
    options: dict[str, int]


def curves(
    rows: pd.DataFrame,
    found: Mapping[Key, Mapping[str, np.ndarray]],
    *,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Return macro F1 of every model under every condition, and its change against the same clips unchanged.

    Several draws of a change are scored together; a group is resampled with all of its draws.

    Parameters
    ----------
    rows : DataFrame
        label and group_id.
    found : mapping
        As `answers` returns it, `CLEAN` among them.
    n_bootstrap, seed : int

    Returns
    -------
    DataFrame
        kind, level, model, macro_f1, low, high, change, change_low, change_high (paired: both on the same resample of
        groups), f1_<label>, n_clips, n_groups, n_draws; no interval with fewer than `evaluation.MIN_GROUPS` groups.
    """
    options = {"n_bootstrap": n_bootstrap, "seed": seed}
    truth = _Truth(manifest.class_ids(rows), rows["group_id"].to_numpy(), options)
    table = [
        {"kind": kind, "level": level, "model": model} | _row(values, found[CLEAN][model], truth)
        for (kind, level), by_model in found.items()
        for model, values in by_model.items()
    ]
    return pd.DataFrame(table)


def _row(values: np.ndarray, clean: np.ndarray, truth: _Truth) -> dict[str, object]:
    n_draws = len(values) // len(truth.class_ids)
    class_ids, groups = np.tile(truth.class_ids, n_draws), np.tile(truth.groups, n_draws)
    result = evaluation.score(values, class_ids, groups, **truth.options)
    clean = np.tile(clean, (n_draws, 1))
    change = evaluation.paired_difference(values, clean, class_ids, groups, **truth.options)
    macro = result["macro_f1"]
    row = {"macro_f1": macro["value"], "low": macro["low"], "high": macro["high"]}
    row |= {"change": change["value"], "change_low": change["low"], "change_high": change["high"]}
    row |= {f"f1_{label}": result["per_class"][label]["f1"]["value"] for label in config.CLASS_NAMES}
    return row | {"n_clips": len(truth.class_ids), "n_groups": result["n_groups"], "n_draws": n_draws}


def section(
    rows: pd.DataFrame,
    found: Mapping[Key, Mapping[str, np.ndarray]],
    *,
    equalised: bool = True,
    n_bootstrap: int = evaluation.N_BOOTSTRAP,
    seed: int = 0,
) -> Findings:
    """Return the curves of macro F1, and for each model what costs most.

    Parameters
    ----------
    rows, found, n_bootstrap, seed
        As in `curves`.
    equalised : bool
        Whether the level was equalised after the change, for the report to say.

    Returns
    -------
    Findings
        Table robustness. Figures: by model macro F1 unchanged, the condition of the lowest macro F1, and how many
        conditions lie clearly (the interval of the paired change is below 0) under it.
    """
    table = curves(rows, found, n_bootstrap=n_bootstrap, seed=seed)
    by_model = {}
    for model, part in table.groupby("model", sort=False):
        clean, others = part[part["kind"] == CLEAN[0]].iloc[0], part[part["kind"] != CLEAN[0]]
        figures = {"as_recorded": _figure(clean), "n_conditions": len(others)}
        if len(others):
            worst = others.loc[others["macro_f1"].idxmin()]
            figures["worst"] = {"kind": worst["kind"], "level": worst["level"], "macro_f1": _figure(worst)}
            figures["n_clearly_lower"] = int((others["change_high"].astype(float) < 0).sum())
        by_model[model] = figures
    size = {name: int(table[name].iloc[0]) for name in ("n_clips", "n_groups")}
    return Findings({"models": by_model, "level_equalised_after_change": equalised, **size}, {"robustness": table})


def _figure(row: pd.Series) -> dict[str, float | None]:
    pairs = {"value": "macro_f1", "low": "low", "high": "high"}
    return {key: None if pd.isna(row[name]) else float(row[name]) for key, name in pairs.items()}
