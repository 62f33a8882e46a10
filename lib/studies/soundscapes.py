"""Long recordings made from clips that no network was trained on, with a list of what is in them.

A soundscape has a background of class normal, a room's own faint noise with clips of one kind now and then, and over
it cries and screams about as rare as in a home: `PREVALENCE` of the time. A clip is in the background at most
`MAX_USES` times in all soundscapes together, so that no single dog decides how many false alarms there are; where a
kind has few clips, its background is sparser than `SHARES` asks for. Everything follows from the seed.

Reference events are measured, not taken from a clip's borders: a stretch is active where its level is within
`ACTIVE_DB` of its loudest 10 ms, and, in clips whose crying somebody has marked, where it is crying; stretches of one
bout at most `MERGE_SECONDS` apart are one event. A bout is one
scream, or pieces of cries of one infant. The signal-to-noise ratio of an event compares its active stretches with the
background over the length of its bout, taken as `QUIETEST_DB` where the background is fainter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import augment, waveforms
from lib.config import SAMPLE_RATE_HZ
from lib.corpora import acquisition
from lib.events import EVENT_LABELS, Event
from lib.waveforms import amplitude, fade

SECONDS = 600.0
N_SOUNDSCAPES = 60  # 10 h
SUBTYPES = {
    "speech": ("speech_adult", "speech_child", "infant_directed_speech", "angry_speech", "fearful_speech"),
    "household": ("household", "body", "alarm", "voice_fx"),
    "voices": (
        "laugh", "baby_laugh", "shout", "adult_cry", "pain_cry", "crowd", "whistle", "death_whistle", "affective_voice",
    ),
    "outdoor": ("outdoor", "siren", "insect"),
    "animals": ("cat", "dog", "bird", "animal"),
    "music": ("music", "singing"),
    "quiet": (),  # the room's own noise alone
}  # fmt: skip
SHARES = {  # of the time that clips of the background fill
    "speech": 0.3, "household": 0.25, "voices": 0.1, "outdoor": 0.3, "animals": 0.08, "music": 0.5, "quiet": 0.0,
}  # fmt: skip
MAX_USES = 3
FEWEST_CLIPS = 5  # a kind with fewer is left out
PREVALENCE = (0.013, 0.016)  # share of a soundscape's time; what cannot be filled exactly stays below it
CRY_SHARES = (0.0, 0.5, 1.0)  # of that time
SUSTAINED_SECONDS = (34.0, 40.0)
CRY_SECONDS = (3.0, 8.0)
FEWEST_SECONDS = 1.0  # no shorter piece is put in
PAUSE_SECONDS = (0.2, 1.5)  # between the pieces of a bout
APART_SECONDS = 5.0  # least time between bouts, and to either end
SNR_DB = (-5.0, 0.0, 5.0, 10.0, 20.0)
CLIP_DB, CLIP_SPREAD_DB = (-42.0, -26.0), 5.0  # level of a soundscape's clips, and how far one may differ from it
ROOM_DB = (-60.0, -50.0)
QUIETEST_DB = -45.0
FADE_SECONDS = 0.02
ACTIVE_DB, ACTIVE_FRAME_SAMPLES = -30.0, SAMPLE_RATE_HZ // 100
MERGE_SECONDS = 2.0


@dataclass(frozen=True)
class Reference:
    """A cry or scream that was put in: where, how loud against the background, and whose it is."""

    event: Event
    snr_db: float
    group_id: str
    clip_ids: tuple[str, ...]


@dataclass(frozen=True)
class Soundscape:
    """One long recording and what is in it; its samples are made when `waveform` is called, and not kept."""

    name: str
    background: str
    seconds: float
    references: tuple[Reference, ...]
    background_clip_ids: tuple[str, ...]
    sounding: tuple[tuple[str, float, float], ...]  # each clip in it, from and to which second (of a bout: the bout's)
    waveform: Callable[[], np.ndarray]


@dataclass(frozen=True)
class _Bout:
    waveform: np.ndarray
    label: str
    group_id: str
    clip_ids: tuple[str, ...]
    snr_db: float
    active: np.ndarray  # bool, one each 10 ms: what its level is measured on
    wanted: np.ndarray  # bool, one each 10 ms: what is to be found


_Placed = tuple[int, int, float]  # a clip of the background: its row, its first sample, its level in dBFS


@dataclass(frozen=True)
class _Clips:
    rows: pd.DataFrame
    waveforms: Sequence[np.ndarray]
    snr_turns: Mapping[str, Iterator[float]]  # of each label
    segments: Sequence[np.ndarray | None]  # of each row, see `cry_segments`


def soundscapes(
    rows: pd.DataFrame,
    clips: Sequence[np.ndarray],
    *,
    name: str,
    n_soundscapes: int = N_SOUNDSCAPES,
    seconds: float = SECONDS,
    content: str = "events",
    kinds: Sequence[str] = tuple(SUBTYPES),
    seed: int = 0,
) -> Iterator[Soundscape]:
    """Plan soundscapes one after the other; each makes its samples only when asked.

    Kinds of background, and the signal-to-noise ratios of each label, take turns.

    Parameters
    ----------
    rows, clips : DataFrame, and sequence of ndarray, each (n_samples,)
        Manifest rows and waveforms of clips that the detector in question was not trained on.
    name : str
        Start of the soundscapes' names.
    content : str
        "events": cries and screams, as rare as in a home; "sustained": one cry of `SUSTAINED_SECONDS` in each;
        "nothing": backgrounds alone.
    kinds : sequence of str
        Of `SUBTYPES`. Those with fewer than `FEWEST_CLIPS` clips are left out.

    Raises
    ------
    ValueError
        If there is no waveform for each row, no clip to put in, or no kind of background left.
    """
    if len(rows) != len(clips):
        raise ValueError(f"{len(rows)} rows for {len(clips)} waveforms")
    snr_turns = {label: _snr_turns(np.random.default_rng([seed, *label.encode()])) for label in EVENT_LABELS}
    held = _Clips(rows.reset_index(drop=True), clips, snr_turns, cry_segments(rows))
    every = {kind: _deck(held, kind, seed) for kind in kinds}
    decks = {kind: deck for kind, deck in every.items() if not SUBTYPES[kind] or len(deck) >= MAX_USES * FEWEST_CLIPS}
    if not decks:
        raise ValueError("no kind of background has enough clips.")
    turns = [list(decks)[number % len(decks)] for number in range(n_soundscapes)]
    available = {kind: sum(len(clips[row]) for row in deck) / max(turns.count(kind), 1) for kind, deck in decks.items()}
    budgets = {kind: min(SHARES[kind] * seconds * SAMPLE_RATE_HZ, n) for kind, n in available.items()}  # in samples
    for number, kind in enumerate(turns):
        rng = np.random.default_rng([seed, number, *name.encode()])
        bouts = _draw_bouts(held, rng, seconds, content)
        starts = _place([len(bout.waveform) for bout in bouts], round(seconds * SAMPLE_RATE_HZ), rng, APART_SECONDS)
        background = _background(held, decks[kind], budgets[kind], seconds, rng)
        placed = list(zip(starts, bouts, strict=True))
        yield _soundscape(held, placed, background, rng, name=f"{name}_{number:03d}", kind=kind, seconds=seconds)


def active_frames(waveform: np.ndarray) -> np.ndarray:
    """Tell for each 10 ms of a waveform whether its level is within `ACTIVE_DB` of the loudest."""
    power = frame_power(waveform)
    return (power > 0) & (power >= power.max(initial=0) * 10 ** (ACTIVE_DB / 10))


def frame_power(waveform: np.ndarray) -> np.ndarray:
    """Return the mean square of each 10 ms of a waveform, zeros after its end."""
    n_frames = -(-len(waveform) // ACTIVE_FRAME_SAMPLES)
    padded = np.pad(waveform.astype(np.float64), (0, n_frames * ACTIVE_FRAME_SAMPLES - len(waveform)))
    return np.square(padded.reshape(n_frames, -1)).mean(axis=1)


def active_stretches(active: np.ndarray) -> list[tuple[float, float]]:
    """Return onset and offset in seconds of the active stretches, those at most `MERGE_SECONDS` apart joined."""
    step_seconds = ACTIVE_FRAME_SAMPLES / SAMPLE_RATE_HZ
    stretches = runs(active, round(MERGE_SECONDS / step_seconds))
    return [(first * step_seconds, stop * step_seconds) for first, stop in stretches]


def runs(active: np.ndarray, longest_pause: int) -> list[tuple[int, int]]:
    """Return first and stop of each run of true values (n_steps,), those at most `longest_pause` apart joined."""
    edges = np.flatnonzero(np.diff(active, prepend=False, append=False)).reshape(-1, 2)
    is_apart = edges[1:, 0] - edges[:-1, 1] > longest_pause
    ends = edges[np.r_[True, is_apart][: len(edges)], 0], edges[np.r_[is_apart, True][: len(edges)], 1]
    return list(zip(*(places.tolist() for places in ends), strict=True))


def _sounding(waveform: np.ndarray) -> slice:
    """Return the place from the first to the last active 10 ms; of what is silent throughout, all of it."""
    frames = np.flatnonzero(active_frames(waveform))
    if not len(frames):
        return slice(0, len(waveform))
    return slice(frames[0] * ACTIVE_FRAME_SAMPLES, min((frames[-1] + 1) * ACTIVE_FRAME_SAMPLES, len(waveform)))


def cry_segments(rows: pd.DataFrame) -> list[np.ndarray | None]:
    """Return onsets and offsets (n, 2) in seconds of the crying in each clip; None where nobody marked them."""
    recordings = acquisition.clips()
    hashes = dict(zip(recordings["clip_id"], recordings["sha256"], strict=True))
    segments = acquisition.cry_segments().set_index("sha256")
    marked = {sha256: part.to_numpy(float) for sha256, part in segments.groupby("sha256")}
    found: list[np.ndarray | None] = []
    for row in rows.to_dict("records"):
        name = row["clip_id"]  # of a recording that was cut into clips, with a number added
        times = marked.get(hashes.get(name) or hashes.get(name.rpartition("-")[0]))
        found.append(None if times is None else times - row["start_seconds"])
    return found


def at_level(waveform: np.ndarray, level_db: float) -> np.ndarray:
    """Bring the active stretches of a waveform to a level in dBFS; silence stays silent."""
    power = _active_power(waveform, active_frames(waveform))
    return waveform * np.float32(amplitude(level_db) / np.sqrt(power)) if power > 0 else waveform


def room_noise(n_samples: int, rng: np.random.Generator, level_db: float) -> np.ndarray:
    """Return coloured noise (n_samples,) at a level in dBFS."""
    noise = augment.coloured_noise(n_samples, rng)
    return noise * np.float32(amplitude(level_db) / np.sqrt(mean_power(noise)))


def mean_power(waveform: np.ndarray) -> float:
    """Return the mean square of a waveform, 0 for an empty one."""
    return float(np.mean(np.square(waveform, dtype=np.float64))) if len(waveform) else 0.0


def _snr_turns(rng: np.random.Generator) -> Iterator[float]:
    """Yield each of `SNR_DB` once, in random order, again and again: as many events of one as of another."""
    while True:
        yield from (float(value) for value in rng.permutation(SNR_DB))


def _deck(held: _Clips, kind: str, seed: int) -> list[int]:
    """Return the rows of a kind, `MAX_USES` times, each round shuffled; soundscapes are dealt from its end."""
    rng = np.random.default_rng([seed, *kind.encode()])
    rows = np.flatnonzero((held.rows["label"] == "normal") & held.rows["subtype"].isin(SUBTYPES[kind]))
    return [int(row) for _ in range(MAX_USES) for row in rng.permutation(rows)]


def _background(
    held: _Clips, deck: list[int], budget: float, seconds: float, rng: np.random.Generator
) -> list[_Placed]:
    """Deal clips from the deck until the budget is spent, and place them anywhere without overlap."""
    rows, left = [], budget
    while deck and left > 0:
        rows.append(deck.pop())
        left -= len(held.waveforms[rows[-1]])
    n_samples = round(seconds * SAMPLE_RATE_HZ)
    while sum(len(held.waveforms[row]) for row in rows) > n_samples:
        rows.pop()
    starts = _place([len(held.waveforms[row]) for row in rows], n_samples, rng, 0.0)
    level_db = rng.uniform(*CLIP_DB)
    spread = rng.uniform(-CLIP_SPREAD_DB, CLIP_SPREAD_DB, len(rows))
    return list(zip(rows, starts, level_db + spread, strict=True))


def _soundscape(
    held: _Clips,
    placed: list[tuple[int, _Bout]],
    background: list[_Placed],
    rng: np.random.Generator,
    *,
    name: str,
    kind: str,
    seconds: float,
) -> Soundscape:
    noise_seed, room_db = int(rng.integers(2**63)), rng.uniform(*ROOM_DB)

    def waveform() -> np.ndarray:
        """Make the samples: float32 (n_samples,), 16 kHz, within full scale."""
        mixed = room_noise(round(seconds * SAMPLE_RATE_HZ), np.random.default_rng(noise_seed), room_db)
        for row, start, level_db in background:
            piece = fade(at_level(held.waveforms[row], level_db), seconds=FADE_SECONDS)
            mixed[start : start + len(piece)] += piece
        for start, bout in placed:
            _add_bout(mixed[start : start + len(bout.waveform)], bout)
        return waveforms.within_full_scale(mixed)

    ids, references = held.rows["clip_id"], list[Reference]()
    sounding = [(ids[row], *_seconds(start, held.waveforms[row])) for row, start, _ in background]
    for start, bout in placed:
        sounding += [(name, *_seconds(start, bout.waveform)) for name in bout.clip_ids]
        at, facts = start / SAMPLE_RATE_HZ, (bout.snr_db, bout.group_id, bout.clip_ids)
        references += [Reference(Event(at + a, at + b, bout.label), *facts) for a, b in active_stretches(bout.wanted)]
    clip_ids = tuple(sorted({ids[row] for row, *_ in background}))
    return Soundscape(name, kind, seconds, tuple(references), clip_ids, tuple(sounding), waveform)


def _seconds(start: int, waveform: np.ndarray) -> tuple[float, float]:
    return start / SAMPLE_RATE_HZ, (start + len(waveform)) / SAMPLE_RATE_HZ


def _draw_bouts(held: _Clips, rng: np.random.Generator, seconds: float, content: str) -> list[_Bout]:
    """Draw bouts until the time of their reference events is spent, in random order."""
    if content == "nothing":
        return []
    if content == "sustained":
        return [_cry_bout(held, rng, rng.uniform(*SUSTAINED_SECONDS))]
    labels = set(held.rows["label"])
    cry_share = rng.choice(CRY_SHARES) if labels >= set(EVENT_LABELS) else float("crying" in labels)
    wanted, bouts = seconds * rng.uniform(*PREVALENCE), []
    for draw, left in ((_cry_bout, wanted * cry_share), (_scream_bout, wanted * (1 - cry_share))):
        while left >= FEWEST_SECONDS:
            longest = min(left, rng.uniform(*CRY_SECONDS)) if draw is _cry_bout else left
            bouts.append(draw(held, rng, max(longest, FEWEST_SECONDS)))
            left -= sum(b - a for a, b in active_stretches(bouts[-1].active))
    return [bouts[place] for place in rng.permutation(len(bouts))]


def _cry_bout(held: _Clips, rng: np.random.Generator, seconds: float) -> _Bout:
    """Join pieces of one infant's cries, `seconds` in all; its clips come again where they do not last."""
    rows = rng.permutation(_draw_group(held, rng, "crying"))
    used: list[int] = []
    parts, crying, left = [], [], round(seconds * SAMPLE_RATE_HZ)
    while left >= FEWEST_SECONDS * SAMPLE_RATE_HZ:
        row = rows[len(used) % len(rows)]
        place = _sounding(held.waveforms[row])
        if place.stop - place.start > left:
            start = place.start + int(rng.integers(place.stop - place.start - left + 1))
            place = slice(start, start + left)
        piece = held.waveforms[row][place]
        pause = np.zeros(round(rng.uniform(*PAUSE_SECONDS) * SAMPLE_RATE_HZ), dtype=np.float32)
        parts += [fade(waveforms.equalise_level(piece), seconds=FADE_SECONDS), pause]
        crying += [_crying_samples(held, row)[place], pause > 0]
        used.append(row)
        left -= len(piece) + len(pause)
    return _bout(np.concatenate(parts[:-1]), held, used, np.concatenate(crying[:-1]))


def _scream_bout(held: _Clips, rng: np.random.Generator, seconds: float) -> _Bout:
    row = rng.choice(_draw_group(held, rng, "screaming"))
    whole = held.waveforms[row]
    piece = whole[_sounding(whole)][: round(seconds * SAMPLE_RATE_HZ)]
    sound = fade(waveforms.equalise_level(piece), seconds=FADE_SECONDS)
    return _bout(sound, held, [row], np.ones(len(sound), dtype=bool))


def _draw_group(held: _Clips, rng: np.random.Generator, label: str) -> np.ndarray:
    chosen = held.rows[(held.rows["label"] == label).to_numpy()]
    groups = [part.index.to_numpy() for _, part in chosen.groupby("group_id")]
    if not groups:
        raise ValueError(f"there is no clip of {label} to put into a soundscape.")
    return groups[rng.integers(len(groups))]


def _bout(waveform: np.ndarray, held: _Clips, rows: Sequence[int], wanted: np.ndarray) -> _Bout:
    label, group_id = held.rows.loc[rows[0], ["label", "group_id"]]
    clip_ids = tuple(dict.fromkeys(held.rows["clip_id"][row] for row in rows))
    active = active_frames(waveform)
    to_find = active & wanted[::ACTIVE_FRAME_SAMPLES]
    return _Bout(waveform, label, group_id, clip_ids, next(held.snr_turns[label]), active, to_find)


def _crying_samples(held: _Clips, row: int) -> np.ndarray:
    """Tell for each sample of a clip whether it is crying: where somebody marked it, everywhere in other clips."""
    crying, segments = np.ones(len(held.waveforms[row]), dtype=bool), held.segments[row]
    if segments is not None:
        crying[:] = False
        for onset, offset in np.maximum(segments * SAMPLE_RATE_HZ, 0).astype(int):
            crying[onset:offset] = True
    return crying


def _place(lengths: Sequence[int], n_samples: int, rng: np.random.Generator, apart_seconds: float) -> list[int]:
    """Return the first sample of each piece, in order, with `apart_seconds` or more around each."""
    apart = round(apart_seconds * SAMPLE_RATE_HZ)
    free = n_samples - sum(lengths) - apart * (len(lengths) + 1)
    if free < 0:
        raise ValueError(f"{n_samples / SAMPLE_RATE_HZ:.0f} s is too short for {len(lengths)} pieces.")
    before = np.concatenate([[0], np.cumsum(lengths)[:-1]]) + apart * np.arange(1, len(lengths) + 1)
    return [int(start) for start in np.sort(rng.integers(0, free + 1, len(lengths))) + before]


def _add_bout(background: np.ndarray, bout: _Bout) -> None:
    """Add a bout to the stretch of the background (a view) that it covers."""
    background_power = max(mean_power(background), amplitude(QUIETEST_DB) ** 2)
    power = _active_power(bout.waveform, bout.active)
    background += bout.waveform * np.float32(np.sqrt(background_power / power) * amplitude(bout.snr_db))


def _active_power(waveform: np.ndarray, active: np.ndarray) -> float:
    return mean_power(waveform[np.repeat(active, ACTIVE_FRAME_SAMPLES)[: len(waveform)]])
