"""Training material of the detector: short pieces of stream with a label for each frame.

A mixture lasts `N_PATCHES` patches, 15.9 s: a background (room noise, digital silence, or normal clips of one corpus
group or of all, one after the other), cries and screams over it, cut or whole, at -5 to 25 dB, then what a recorder
does to the whole (bandwidth, codec) and a level. A clip in a mixture is known by its row, so that a mixture can be
left out of training where one of its clips belongs to a left-out corpus group.

A frame counts as crying or screaming where half of it is active, or half of a shorter sound is in it. Frames of
pauses within a bout, and those that a sound only touches, count for nothing: label -1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import augment, splits, waveforms
from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES, SAMPLE_RATE_HZ
from lib.events import EVENT_LABELS
from lib.studies.soundscapes import ACTIVE_FRAME_SAMPLES, FADE_SECONDS, frame_power, mean_power, room_noise, runs

N_PATCHES = 32
N_SAMPLES = (N_PATCHES - 1) * PATCH_HOP_SAMPLES + PATCH_SAMPLES
FRAME_STEPS = PATCH_HOP_SAMPLES // ACTIVE_FRAME_SAMPLES  # 48 steps of 10 ms
ACTIVE_DB = -25.0  # below the level that 5 % of a clip's 10 ms exceed
JOIN_STEPS, BOUT_STEPS = 39, 199  # pauses shorter than 0.4 s count as sound, than 2 s for nothing
BACKGROUNDS = {"noise": 0.22, "silence": 0.08, "one group": 0.45, "all": 0.25}
N_EVENTS = {"clips": (0.3, 0.5, 0.2), "none": (0.05, 0.65, 0.3)}  # chance of 0, 1, 2 events, with clips behind or not
SNR_DB = (-5.0, 25.0)
ALONE_DB = (-45.0, -10.0)  # level of events that are not placed by their ratio
LONGEST_SECONDS = 15.0
# How often normal sounds are drawn, beside what balances corpora and groups: those that are taken for events, more.
EMPHASIS = {
    "cat": 3.0, "dog": 2.0, "baby_laugh": 4.0, "adult_cry": 3.0, "pain_cry": 2.5, "shout": 2.5, "siren": 2.0,
    "laugh": 2.0, "bird": 1.5, "animal": 1.5, "whistle": 2.0, "death_whistle": 2.0, "fearful_speech": 2.0,
    "angry_speech": 2.0, "singing": 3.0, "speech_child": 2.0, "alarm": 2.0, "infant_directed_speech": 3.0,
    "crowd": 3.0, "music": 3.0, "voice_fx": 1.5, "affective_voice": 2.0, "household": 0.7, "body": 0.6, "outdoor": 0.7,
}  # fmt: skip


@dataclass(frozen=True)
class Mixture:
    """Samples (n_samples,), frame labels (N_PATCHES, 2) of -1, 0 and 1, and the rows of the clips in it."""

    waveform: np.ndarray
    labels: np.ndarray
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Material:
    """Clips to make mixtures from."""

    rows: pd.DataFrame  # of the manifest: label, subtype, source, group_id
    clips: Sequence[np.ndarray]  # each (n_samples,)
    activity: Sequence[np.ndarray]  # each (n_steps,): for each 10 ms whether the sound is there, see `active_steps`
    # By label, or of normal clips by corpus group or "all": rows, chances.
    chances: Mapping[str, tuple[np.ndarray, np.ndarray]]
    group_chances: Mapping[str, float]  # of each corpus group's normal clips

    @classmethod
    def of(cls, rows: pd.DataFrame, clips: Sequence[np.ndarray], activity: Sequence[np.ndarray]) -> Material:
        """Work out how often each clip is drawn."""
        rows = rows.reset_index(drop=True).assign(corpus_group=splits.corpus_group(rows["source"]).to_numpy())
        chances = {label: _chances(rows[rows["label"] == label]) for label in EVENT_LABELS}
        normal = rows[rows["label"] == "normal"]
        chances["all"] = _chances(normal)
        groups = {str(name): part for name, part in normal.groupby("corpus_group")}
        chances |= {name: _chances(part) for name, part in groups.items()}
        sizes = {name: float(np.sqrt(_emphasis(part).sum())) for name, part in groups.items()}
        shares = {name: size / sum(sizes.values()) for name, size in sizes.items()}
        return cls(rows, list(clips), list(activity), chances, shares)

    def draw(self, name: str, rng: np.random.Generator) -> int:
        """Draw the row of a clip."""
        rows, chances = self.chances[name]
        return int(rng.choice(rows, p=chances))


def active_steps(waveform: np.ndarray, segments: np.ndarray | None = None) -> np.ndarray:
    """Tell for each 10 ms of a clip (n_samples,) whether its sound is there.

    Segments (n, 2) are onsets and offsets in seconds where somebody has marked them; else the level decides.
    """
    if segments is not None:
        active = np.zeros(-(-len(waveform) // ACTIVE_FRAME_SAMPLES), dtype=bool)
        for onset, offset in segments * SAMPLE_RATE_HZ / ACTIVE_FRAME_SAMPLES:
            active[max(int(onset), 0) : max(int(np.ceil(offset)), 0)] = True
        return active
    power = np.convolve(frame_power(waveform), np.ones(3) / 3, "same")
    top = np.percentile(power, 95) if len(power) > 20 else power.max(initial=0)
    return (power > 0) & (power >= max(top * 10 ** (ACTIVE_DB / 10), 1e-8))


def mixture(material: Material, rng: np.random.Generator) -> Mixture:
    """Draw one mixture; `rng` decides everything."""
    kind = rng.choice(list(BACKGROUNDS), p=list(BACKGROUNDS.values()))
    mixed, used = _background(material, str(kind), rng)
    chances = N_EVENTS["clips" if used else "none"]
    active = np.zeros((len(EVENT_LABELS), N_PATCHES * FRAME_STEPS + 50), dtype=bool)
    gate = np.zeros(N_SAMPLES, dtype=bool)
    n_events = int(rng.choice(len(chances), p=chances))
    for _ in range(n_events):
        row = _add_event(material, mixed, active, gate, rng)
        used += [] if row is None else [row]
    mixed = augment.recorded(mixed, rng) if rng.random() < 0.5 else mixed  # microphones, converters, codecs
    if kind == "silence" and n_events:
        mixed = np.where(gate, mixed, 0).astype(np.float32)
    mixed = waveforms.within_full_scale(mixed * np.float32(waveforms.amplitude(rng.uniform(-15, 8))))
    labels = np.stack([frame_labels(steps, N_PATCHES) for steps in active], axis=1)
    return Mixture(mixed, labels, tuple(used))


def frame_labels(active: np.ndarray, n_frames: int) -> np.ndarray:
    """Return the label of each frame, -1, 0 or 1: int8 (n_frames,), from activity each 10 ms."""
    labels = np.zeros(n_frames, dtype=np.int8)
    for first, stop in runs(active, BOUT_STEPS):
        labels[first // FRAME_STEPS : (stop - 1) // FRAME_STEPS + 1] = -1
    for first, stop in runs(active, JOIN_STEPS):
        for frame in range(first // FRAME_STEPS, min((stop - 1) // FRAME_STEPS + 1, n_frames)):
            shared = min(stop, (frame + 1) * FRAME_STEPS) - max(first, frame * FRAME_STEPS)
            if shared >= min(FRAME_STEPS // 2, (stop - first) / 2):
                labels[frame] = 1
    return labels


def _chances(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Weigh corpus groups by the root of their groups, and groups by the root of their clips.

    So neither a large corpus nor a group of many clips (screamingstrike) fills the training.
    """
    weights = _emphasis(rows) / np.sqrt(rows.groupby("group_id")["group_id"].transform("size"))
    weights /= weights.groupby(rows["corpus_group"]).transform("sum")
    weights *= np.sqrt(rows.groupby("corpus_group")["group_id"].transform("nunique"))
    return rows.index.to_numpy(), (weights / weights.sum()).to_numpy()


def _emphasis(rows: pd.DataFrame) -> pd.Series:
    return rows["subtype"].map(lambda name: EMPHASIS.get(name, 1.0)).where(rows["label"] == "normal", 1.0)


def _background(material: Material, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    mixed = np.zeros(N_SAMPLES, dtype=np.float32)
    if kind != "silence":
        mixed += room_noise(N_SAMPLES, rng, rng.uniform(-80, -45))
    if kind == "one group":
        kind = str(rng.choice(list(material.group_chances), p=list(material.group_chances.values())))
    if kind not in material.chances:
        return mixed, []
    return mixed, _add_clips(mixed, material, kind, rng)


def _add_clips(mixed: np.ndarray, material: Material, name: str, rng: np.random.Generator) -> list[int]:
    """Add normal clips one after the other, with pauses; return their rows."""
    level_db, used = rng.uniform(-50, -17), []
    start = round(rng.uniform(0, 3) * SAMPLE_RATE_HZ) if rng.random() < 0.5 else 0
    while start < len(mixed):
        row = material.draw(name, rng)
        clip, longest = material.clips[row], round(LONGEST_SECONDS * SAMPLE_RATE_HZ)
        clip = augment.random_crop(clip, longest, rng) if len(clip) > longest else clip
        clip = waveforms.fade(_low_passed(clip, rng, 0.15), seconds=FADE_SECONDS)
        gain = waveforms.amplitude(level_db + rng.uniform(-6, 6)) / _active_level(clip, active_steps(clip))
        stop = min(start + len(clip), len(mixed))
        mixed[start:stop] += clip[: stop - start] * np.float32(gain)
        used.append(row)
        start += len(clip) + (round(rng.exponential(1.5) * SAMPLE_RATE_HZ) if rng.random() < 0.6 else 0)
    return used


def _add_event(
    material: Material, mixed: np.ndarray, active: np.ndarray, gate: np.ndarray, rng: np.random.Generator
) -> int | None:
    """Add a cry or a scream somewhere, perhaps cut by an end; return its row, or None where nothing of it is in."""
    label = int(rng.random() < 0.5)
    row = material.draw(EVENT_LABELS[label], rng)
    piece = _piece(material.clips[row], material.activity[row], rng, is_scream=label == 1)
    if piece is None:
        return None
    sound, steps = piece
    sound = _low_passed(sound, rng, 0.2)
    at = int(rng.integers(-len(sound) // 3, len(mixed) - len(sound) // 3))
    start, stop = max(at, 0), min(at + len(sound), len(mixed))
    if stop - start < 0.2 * SAMPLE_RATE_HZ:
        return None
    gain = _event_level(mean_power(mixed[start:stop]), rng) / _active_level(sound, steps)
    mixed[start:stop] += sound[start - at : stop - at] * np.float32(gain)
    margins = (rng.uniform(0.02, 0.3, 2) * SAMPLE_RATE_HZ).astype(int)
    gate[max(0, start - margins[0]) : stop + margins[1]] = True
    first = start // ACTIVE_FRAME_SAMPLES
    inside = steps[(start - at) // ACTIVE_FRAME_SAMPLES :][: (stop - start) // ACTIVE_FRAME_SAMPLES]
    active[label, first : first + len(inside)] |= inside
    return row


def _piece(
    clip: np.ndarray, steps: np.ndarray, rng: np.random.Generator, *, is_scream: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Cut a piece, or all, of the sounding part of a clip; None where too little of it sounds."""
    sounding = np.flatnonzero(steps)
    if not len(sounding):
        return None
    first, n_steps = sounding[0], int(sounding[-1] + 1 - sounding[0])
    wanted = min(_wanted_steps(n_steps, rng, is_scream=is_scream), n_steps, 1400)
    for _ in range(8):
        at = first + int(rng.integers(0, n_steps - wanted + 1))
        if steps[at : at + wanted].sum() >= min(25, steps.sum()):
            sound = clip[at * ACTIVE_FRAME_SAMPLES : (at + wanted) * ACTIVE_FRAME_SAMPLES]
            return waveforms.fade(sound, seconds=0.01), steps[at : at + wanted]
    return None


def _wanted_steps(n_steps: int, rng: np.random.Generator, *, is_scream: bool) -> int:
    """Draw how long a piece is, in 10 ms: half of the screams 0.3 to 2 s, the others whole; cries 0.3 to 14 s."""
    if is_scream:
        return round(100 * rng.uniform(0.3, 2)) if rng.random() < 0.5 else n_steps
    short, middle, long = (0.3, 1.5), (1.5, 6), (6, 14)
    turn = rng.random()
    return round(100 * rng.uniform(*(short if turn < 0.25 else middle if turn < 0.75 else long)))


def _event_level(background_power: float, rng: np.random.Generator) -> float:
    """Draw the level (RMS) of an event: by its ratio to the background, or by itself and at least 3 dB below that."""
    if rng.random() < 0.6:
        return float(np.sqrt(max(background_power, 10**-6.2)) * waveforms.amplitude(rng.uniform(*SNR_DB)))
    return max(waveforms.amplitude(rng.uniform(*ALONE_DB)), float(np.sqrt(background_power)) * 10 ** (-3 / 20))


def _low_passed(clip: np.ndarray, rng: np.random.Generator, chance: float) -> np.ndarray:
    return augment.low_pass(clip, cutoff_hz=rng.uniform(2000, 7000)) if rng.random() < chance else clip


def _active_level(clip: np.ndarray, steps: np.ndarray) -> float:
    mask = np.repeat(steps, ACTIVE_FRAME_SAMPLES)[: len(clip)]
    power = mean_power(clip[: len(mask)][mask]) if mask.any() else mean_power(clip)
    return float(np.sqrt(max(power, 1e-12)))
