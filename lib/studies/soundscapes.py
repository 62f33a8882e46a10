"""Long recordings made from clips of groups that no network was trained on, with a list of what is in them.

A soundscape is a bed of class normal with cries and screams over it, about as rare as in a home: `PREVALENCE` of the
time, and now and then a cry that lasts. Everything follows from the seed.

The bed is a room's own faint noise and, but for the kind "quiet", clips of one kind at one level, joined by fades and
broken by gaps. Music is that of a game, a few pieces in all.

Reference events are measured, not taken from a clip's borders: a stretch is active where its level lies within
`ACTIVE_DB` of its loudest 10 ms, and stretches of one bout at most `MERGE_SECONDS` apart are one event. A bout is one
scream, or pieces of cries of one infant. The signal-to-noise ratio of an event compares its active stretches with the
bed over the length of its bout, taken as `QUIETEST_DB` where the bed is fainter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import audio, augment, splits
from lib.config import SAMPLE_RATE_HZ
from lib.events import EVENT_LABELS, Event

UNSEEN_SPLITS = ("validation", "test")
SECONDS = 600.0
N_SOUNDSCAPES = 60  # 10 h
BACKGROUND_SUBTYPES = {
    "speech": ("speech_adult", "speech_child"),
    "household": ("household", "body", "laugh"),
    "outdoor": ("outdoor", "animal", "siren"),
    "music": ("music",),  # a kind that `lib.studies.hard_negatives.kind` tells apart, not the manifest
    "quiet": (),  # the room's own noise alone
}
PREVALENCE = (0.013, 0.016)  # share of a soundscape's time; what cannot be filled exactly lies under it
CRY_SHARES = (0.0, 0.5, 1.0)  # of that time
SUSTAINED_EVERY = 12  # one soundscape in so many holds one long bout of crying instead, and no more
SUSTAINED_SECONDS = (34.0, 40.0)
CRY_SECONDS = (3.0, 8.0)
FEWEST_SECONDS = 1.0  # no shorter piece is put in
PAUSE_SECONDS = (0.2, 1.5)  # between the pieces of a bout
APART_SECONDS = 5.0  # least time between bouts, and to either end
SNR_DB = (-5.0, 0.0, 5.0, 10.0, 20.0)
BED_DB, BED_SPREAD_DB = (-40.0, -28.0), 3.0  # level of a soundscape's bed, and how far a clip may differ from it
ROOM_DB = (-60.0, -50.0)
QUIETEST_DB = -45.0
GAP_SHARE, GAP_SECONDS = 0.3, (0.5, 5.0)  # how often a gap follows a clip of the bed, and how long it is
FADE_SECONDS, BED_FADE_SECONDS = 0.02, 0.25
ACTIVE_DB, ACTIVE_FRAME_SAMPLES = -30.0, SAMPLE_RATE_HZ // 100
MERGE_SECONDS = 2.0


@dataclass(frozen=True)
class Reference:
    """A cry or scream that was put in: where, how loud against the bed, and whose it is."""

    event: Event
    snr_db: float
    group_id: str
    clip_ids: tuple[str, ...]


@dataclass(frozen=True)
class Soundscape:
    """One long recording and what is in it; its samples are made when `waveform` is called, and not kept."""

    name: str
    split: str
    background: str
    seconds: float
    references: tuple[Reference, ...]
    bed_clip_ids: tuple[str, ...]
    waveform: Callable[[], np.ndarray]


@dataclass(frozen=True)
class _Bout:
    waveform: np.ndarray
    label: str
    group_id: str
    clip_ids: tuple[str, ...]
    snr_db: float
    active: np.ndarray  # bool, one each 10 ms

    @property
    def stretches(self) -> list[tuple[float, float]]:
        """Onset and offset in seconds, from the start of the bout, of each reference event in it."""
        return active_stretches(self.active)


@dataclass(frozen=True)
class _BedClip:
    row: int
    start: int  # samples
    gain_db: float


@dataclass(frozen=True)
class _Clips:
    """The clips of one split, by what they may be used for."""

    rows: pd.DataFrame
    waveforms: Sequence[np.ndarray]
    snr_turns: Mapping[str, Iterator[float]]  # of each label

    def groups(self, wanted: pd.Series) -> list[np.ndarray]:
        """Return the row numbers of each group among the wanted rows."""
        chosen = self.rows[wanted.to_numpy(bool)]
        return [chosen.index[chosen["group_id"] == name].to_numpy() for name in sorted(set(chosen["group_id"]))]


def soundscapes(
    rows: pd.DataFrame,
    waveforms: Sequence[np.ndarray],
    *,
    split: str,
    n_soundscapes: int = N_SOUNDSCAPES,
    seconds: float = SECONDS,
    seed: int = 0,
) -> Iterator[Soundscape]:
    """Plan the soundscapes one after the other; each makes its samples only when asked.

    Parameters
    ----------
    rows : DataFrame
        Manifest rows; those of other splits are left out.
    waveforms : sequence of ndarray, each (n_samples,)
        The clips of `rows`, in order.
    split : str
        "test" for figures, "validation" for thresholds.
    n_soundscapes : int
    seconds : float
        Length of each.
    seed : int

    Yields
    ------
    Soundscape
        Bed kinds take turns, and so do the signal-to-noise ratios of each label.

    Raises
    ------
    ValueError
        If the split is one that networks are trained on, a group lies in two splits, or the split lacks a label or a
        kind of bed.
    """
    clips = _unseen_clips(rows, waveforms, split, seed)
    kinds = list(BACKGROUND_SUBTYPES)
    for number in range(n_soundscapes):
        rng = np.random.default_rng([seed, number])
        bouts = _draw_bouts(clips, rng, seconds=seconds, is_sustained=number % SUSTAINED_EVERY == SUSTAINED_EVERY - 1)
        starts = _place([len(bout.waveform) for bout in bouts], round(seconds * SAMPLE_RATE_HZ), rng)
        kind = kinds[number % len(kinds)]
        yield _soundscape(clips, list(zip(starts, bouts, strict=True)), rng, kind=kind, seconds=seconds, number=number)


def reference_table(made: Sequence[Soundscape]) -> pd.DataFrame:
    """Return the reference event list of some soundscapes, one row an event."""
    return pd.DataFrame(
        {
            "soundscape": scape.name,
            "background": scape.background,
            "label": item.event.label,
            "onset_seconds": round(item.event.onset_seconds, 2),
            "offset_seconds": round(item.event.offset_seconds, 2),
            "snr_db": item.snr_db,
            "group_id": item.group_id,
            "clip_ids": " ".join(item.clip_ids),
        }
        for scape in made
        for item in scape.references
    )


def active_frames(waveform: np.ndarray) -> np.ndarray:
    """Tell for each 10 ms of a waveform whether its level lies within `ACTIVE_DB` of the loudest."""
    n_frames = -(-len(waveform) // ACTIVE_FRAME_SAMPLES)
    padded = np.pad(waveform.astype(np.float64), (0, n_frames * ACTIVE_FRAME_SAMPLES - len(waveform)))
    power = np.square(padded.reshape(n_frames, -1)).mean(axis=1)
    return (power > 0) & (power >= power.max(initial=0) * 10 ** (ACTIVE_DB / 10))


def active_stretches(active: np.ndarray) -> list[tuple[float, float]]:
    """Return onset and offset in seconds of the active stretches, those at most `MERGE_SECONDS` apart joined."""
    steps = np.diff(np.concatenate([[False], active, [False]]).astype(int))
    onsets, offsets = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    longest_gap = round(MERGE_SECONDS * SAMPLE_RATE_HZ / ACTIVE_FRAME_SAMPLES)
    parted = onsets[1:] - offsets[:-1] > longest_gap
    step_seconds = ACTIVE_FRAME_SAMPLES / SAMPLE_RATE_HZ
    first, last = onsets[np.r_[True, parted][: len(onsets)]], offsets[np.r_[parted, True][: len(offsets)]]
    return [(float(a * step_seconds), float(b * step_seconds)) for a, b in zip(first, last, strict=True)]


def _unseen_clips(rows: pd.DataFrame, waveforms: Sequence[np.ndarray], split: str, seed: int) -> _Clips:
    if split not in UNSEEN_SPLITS:
        raise ValueError(f"soundscapes are made from {UNSEEN_SPLITS}, never from {split!r}.")
    if len(rows) != len(waveforms):
        raise ValueError(f"{len(rows)} rows for {len(waveforms)} waveforms")
    shared = splits.shared_values(rows, "group_id")
    if shared:
        raise ValueError(f"{len(shared)} group(s) lie in more than one split, first {shared[0]!r}.")
    kept = np.flatnonzero(rows["split"] == split)
    turns = {label: _snr_turns(np.random.default_rng([seed, *label.encode()])) for label in EVENT_LABELS}
    clips = _Clips(rows.iloc[kept].reset_index(drop=True), [waveforms[place] for place in kept], turns)
    needed = {label: clips.rows["label"] == label for label in EVENT_LABELS}
    needed |= {kind: _of_bed(clips, kind) for kind, subtypes in BACKGROUND_SUBTYPES.items() if subtypes}
    for name, found in needed.items():
        if not found.any():
            raise ValueError(f"the split {split} holds no clip of {name}.")
    return clips


def _snr_turns(rng: np.random.Generator) -> Iterator[float]:
    """Yield each of `SNR_DB` once, in random order, again and again: as many events of one as of another."""
    while True:
        yield from (float(value) for value in rng.permutation(SNR_DB))


def _of_bed(clips: _Clips, kind: str) -> pd.Series:
    return (clips.rows["label"] == "normal") & clips.rows["subtype"].isin(BACKGROUND_SUBTYPES[kind])


def _soundscape(
    clips: _Clips, placed: list[tuple[int, _Bout]], rng: np.random.Generator, *, kind: str, seconds: float, number: int
) -> Soundscape:
    n_samples = round(seconds * SAMPLE_RATE_HZ)
    bed_clips = _plan_bed(clips, rng, kind=kind, n_samples=n_samples)
    noise_seed, room_db = int(rng.integers(2**63)), rng.uniform(*ROOM_DB)

    def waveform() -> np.ndarray:
        """Make the samples: float32 (n_samples,), 16 kHz, within full scale."""
        room = augment.coloured_noise(n_samples, np.random.default_rng(noise_seed))
        mixed = room * np.float32(_amplitude(room_db) / np.sqrt(_power(room)))
        _add_bed(mixed, bed_clips, clips)
        for start, bout in placed:
            _add_bout(mixed[start : start + len(bout.waveform)], bout)
        return audio.within_full_scale(mixed)

    references = [
        Reference(Event(start / SAMPLE_RATE_HZ + a, start / SAMPLE_RATE_HZ + b, bout.label), bout.snr_db,
                  bout.group_id, bout.clip_ids)
        for start, bout in placed
        for a, b in bout.stretches
    ]  # fmt: skip
    bed_clip_ids = tuple(sorted({clips.rows["clip_id"][clip.row] for clip in bed_clips}))
    split = clips.rows["split"].iloc[0]
    return Soundscape(f"{split}_{number:03d}", split, kind, seconds, tuple(references), bed_clip_ids, waveform)


def _draw_bouts(clips: _Clips, rng: np.random.Generator, *, seconds: float, is_sustained: bool) -> list[_Bout]:
    """Draw bouts until the time of their reference events is spent, in random order."""
    if is_sustained:
        return [_cry_bout(clips, rng, rng.uniform(*SUSTAINED_SECONDS))]
    wanted, cry_share = seconds * rng.uniform(*PREVALENCE), rng.choice(CRY_SHARES)
    bouts = []
    for draw, left in ((_cry_bout, wanted * cry_share), (_scream_bout, wanted * (1 - cry_share))):
        while left >= FEWEST_SECONDS:
            longest = min(left, rng.uniform(*CRY_SECONDS)) if draw is _cry_bout else left
            bouts.append(draw(clips, rng, max(longest, FEWEST_SECONDS)))
            left -= sum(b - a for a, b in bouts[-1].stretches)
    return [bouts[place] for place in rng.permutation(len(bouts))]


def _cry_bout(clips: _Clips, rng: np.random.Generator, seconds: float) -> _Bout:
    """Join pieces of one infant's cries, `seconds` in all; its clips come again where they do not last."""
    rows = rng.permutation(_draw_group(clips, rng, "crying"))
    parts, used, left = [], [], round(seconds * SAMPLE_RATE_HZ)
    while left >= FEWEST_SECONDS * SAMPLE_RATE_HZ:
        row = rows[len(used) % len(rows)]
        piece = _trimmed(clips.waveforms[row])
        if len(piece) > left:
            piece = augment.random_crop(piece, left, rng)
        pause = np.zeros(round(rng.uniform(*PAUSE_SECONDS) * SAMPLE_RATE_HZ), dtype=np.float32)
        parts += [_faded(audio.equalise_level(piece), FADE_SECONDS), pause]
        used.append(row)
        left -= len(piece) + len(pause)
    return _bout(np.concatenate(parts[:-1]), clips, used)


def _scream_bout(clips: _Clips, rng: np.random.Generator, seconds: float) -> _Bout:
    row = rng.choice(_draw_group(clips, rng, "screaming"))
    piece = _trimmed(clips.waveforms[row])[: round(seconds * SAMPLE_RATE_HZ)]
    return _bout(_faded(audio.equalise_level(piece), FADE_SECONDS), clips, [row])


def _draw_group(clips: _Clips, rng: np.random.Generator, label: str) -> np.ndarray:
    groups = clips.groups(clips.rows["label"] == label)
    return groups[rng.integers(len(groups))]


def _bout(waveform: np.ndarray, clips: _Clips, rows: Sequence[int]) -> _Bout:
    label, group_id = clips.rows.loc[rows[0], ["label", "group_id"]]
    clip_ids = tuple(dict.fromkeys(clips.rows["clip_id"][row] for row in rows))
    return _Bout(waveform, label, group_id, clip_ids, next(clips.snr_turns[label]), active_frames(waveform))


def _place(lengths: Sequence[int], n_samples: int, rng: np.random.Generator) -> list[int]:
    """Return the first sample of each bout, in order, with `APART_SECONDS` or more around each."""
    apart = round(APART_SECONDS * SAMPLE_RATE_HZ)
    free = n_samples - sum(lengths) - apart * (len(lengths) + 1)
    if free < 0:
        raise ValueError(f"{n_samples / SAMPLE_RATE_HZ:.0f} s is too short for {len(lengths)} bouts.")
    before = np.concatenate([[0], np.cumsum(lengths)[:-1]]) + apart * np.arange(1, len(lengths) + 1)
    return [int(start) for start in np.sort(rng.integers(0, free + 1, len(lengths))) + before]


def _plan_bed(clips: _Clips, rng: np.random.Generator, *, kind: str, n_samples: int) -> list[_BedClip]:
    """Choose clips until the soundscape is full: each round goes through all groups in another order."""
    groups = clips.groups(_of_bed(clips, kind))
    bed_db, planned, start = rng.uniform(*BED_DB), [], 0
    while groups and start < n_samples:
        for place in rng.permutation(len(groups)):
            row = int(rng.choice(groups[place]))
            planned.append(_BedClip(row, start, bed_db + rng.uniform(-BED_SPREAD_DB, BED_SPREAD_DB)))
            length = len(clips.waveforms[row])
            start += length - _n_fade(length, BED_FADE_SECONDS)  # the next one fades in while this one fades out
            if rng.random() < GAP_SHARE:
                start += round(rng.uniform(*GAP_SECONDS) * SAMPLE_RATE_HZ)
    return [clip for clip in planned if clip.start < n_samples]


def _add_bed(mixed: np.ndarray, planned: Sequence[_BedClip], clips: _Clips) -> None:
    for clip in planned:
        piece = audio.equalise_level(clips.waveforms[clip.row])
        loudness = np.sqrt(_power(piece[_sample_mask(active_frames(piece), len(piece))]))
        if loudness > 0:
            piece = _faded(piece, BED_FADE_SECONDS) * np.float32(_amplitude(clip.gain_db) / loudness)
            stop = min(clip.start + len(piece), len(mixed))
            mixed[clip.start : stop] += piece[: stop - clip.start]


def _add_bout(bed: np.ndarray, bout: _Bout) -> None:
    """Add a bout to the stretch of the bed (a view) that it covers."""
    bed_power = max(_power(bed), _amplitude(QUIETEST_DB) ** 2)
    power = _power(bout.waveform[_sample_mask(bout.active, len(bout.waveform))])
    bed += bout.waveform * np.float32(np.sqrt(bed_power / power) * _amplitude(bout.snr_db))


def _trimmed(waveform: np.ndarray) -> np.ndarray:
    frames = np.flatnonzero(active_frames(waveform))
    if not len(frames):
        raise audio.EmptyAudio("a clip is silent throughout")
    return waveform[frames[0] * ACTIVE_FRAME_SAMPLES : (frames[-1] + 1) * ACTIVE_FRAME_SAMPLES]


def _n_fade(n_samples: int, seconds: float) -> int:
    return min(round(seconds * SAMPLE_RATE_HZ), n_samples // 2)


def _faded(waveform: np.ndarray, seconds: float) -> np.ndarray:
    n_fade = _n_fade(len(waveform), seconds)
    ramp = np.linspace(0, 1, n_fade, endpoint=False, dtype=np.float32)
    faded = waveform.copy()
    faded[:n_fade] *= ramp
    faded[len(faded) - n_fade :] *= ramp[::-1]
    return faded


def _sample_mask(active: np.ndarray, n_samples: int) -> np.ndarray:
    return np.repeat(active, ACTIVE_FRAME_SAMPLES)[:n_samples]


def _power(waveform: np.ndarray) -> float:
    return float(np.mean(np.square(waveform, dtype=np.float64))) if len(waveform) else 0.0


def _amplitude(level_db: float) -> float:
    return 10 ** (level_db / 20)
