"""What the detector is judged on: long recordings, hours without events, one-second screams and single clips.

All of it is made from test groups for the detector that ships, and from each corpus group for the detector trained
without it. YAMNet's embeddings are kept on disk, so that another temporal network is judged in minutes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import config, splits, waveforms
from lib.config import SAMPLE_RATE_HZ
from lib.detector import Embed
from lib.events import EVENT_LABELS
from lib.studies import soundscapes
from lib.studies.soundscapes import SUBTYPES, Soundscape

SEED = 7
N_LEFT_OUT = 60  # soundscapes of left-out corpora, 10 h, shared out by the root of their cries and screams
N_CRY_FREE = {"speech": 12, "household": 12, "music": 12, "quiet": 6, "outdoor": 3, "animals": 3, "voices": 3}  # 8.5 h
N_SUSTAINED, SUSTAINED_LENGTH_SECONDS = 30, 60.0
N_LASTING = 44  # minutes of left-out corpora with a long cry each
WINDOW_SECONDS = (10, 15)
BRIEF_SECONDS = 1.0  # of the screams in windows and the cries between zeros
GATED_SECONDS = 4.0  # of zeros on either side
WINDOW_DB = (-35.0, -12.0)  # level of the scream
WINDOW_ROOM_DB = (-65.0, -50.0)
AROUND_SECONDS = 1.5  # of room noise before and after a single clip


@dataclass(frozen=True)
class Trial:
    """A short stream with one clip in it: which row, and when it sounds."""

    row: int
    onset_seconds: float
    offset_seconds: float
    waveform: np.ndarray


def cached(embed: Embed, folder: Path) -> Embed:
    """Return an embedding function that keeps what it computed, one file for each block of patches."""

    def kept(patches: np.ndarray) -> np.ndarray:
        digest = hashlib.sha256(np.ascontiguousarray(patches).data).hexdigest()
        path = folder / digest[:2] / f"{digest}.npy"
        if not path.is_file():
            np.save(file := io.BytesIO(), embed(patches))
            config.write_whole(path, file.getvalue())
        return np.load(path)

    return kept


def left_out(
    rows: pd.DataFrame, clips: Sequence[np.ndarray], *, content: str = "events"
) -> dict[str, list[Soundscape]]:
    """Return soundscapes made of each corpus group alone: ten hours, or "sustained", minutes with a long cry each."""
    is_long = content == "sustained"
    wanted, groups = ("crying",) if is_long else EVENT_LABELS, splits.corpus_group(rows["source"]).to_numpy()
    n_events = {name: int(rows["label"].isin(wanted).to_numpy()[groups == name].sum()) for name in set(groups)}
    roots = {name: n**0.5 for name, n in sorted(n_events.items()) if n}
    made = {}
    for name, root in roots.items():
        here = np.flatnonzero(groups == name)
        n_soundscapes = max(2, round((N_LASTING if is_long else N_LEFT_OUT) * root / sum(roots.values())))
        options: dict[str, Any] = {"n_soundscapes": n_soundscapes, "seed": SEED, "content": content}
        options |= {"seconds": SUSTAINED_LENGTH_SECONDS, "name": f"long_{name}"} if is_long else {}
        options = {"name": f"left_out_{name}"} | options
        made[name] = list(soundscapes.soundscapes(rows.iloc[here], [clips[int(at)] for at in here], **options))
    return made


def test_hours(rows: pd.DataFrame, clips: Sequence[np.ndarray]) -> Iterator[Soundscape]:
    """Return the ten hours of test groups."""
    return soundscapes.soundscapes(rows, clips, name="test", seed=SEED)


def cry_free(rows: pd.DataFrame, clips: Sequence[np.ndarray]) -> Iterator[Soundscape]:
    """Return hours without cries and screams, kind by kind."""
    for kind, number in N_CRY_FREE.items():
        options: dict[str, Any] = {"n_soundscapes": number, "content": "nothing", "kinds": (kind,), "seed": SEED}
        if not SUBTYPES[kind] or rows["subtype"].isin(SUBTYPES[kind]).sum() >= soundscapes.FEWEST_CLIPS:
            yield from soundscapes.soundscapes(rows, clips, name=f"cry_free_{kind}", **options)


def sustained(rows: pd.DataFrame, clips: Sequence[np.ndarray]) -> Iterator[Soundscape]:
    """Return minutes with one long cry each."""
    options: dict[str, Any] = {"n_soundscapes": N_SUSTAINED, "seconds": SUSTAINED_LENGTH_SECONDS, "seed": SEED}
    return soundscapes.soundscapes(rows, clips, name="sustained", content="sustained", **options)


def single_clips(_rows: pd.DataFrame, clips: Sequence[np.ndarray]) -> Iterator[Trial]:
    """Yield each clip by itself: a file of just that clip."""
    for row, clip in enumerate(clips):
        yield Trial(row, 0.0, len(clip) / SAMPLE_RATE_HZ, clip)


def in_a_room(rows: pd.DataFrame, clips: Sequence[np.ndarray]) -> Iterator[Trial]:
    """Yield each normal clip in room noise, at a level drawn from `WINDOW_DB`: what raises a false alarm."""
    for row, rng in _of_label(rows, "normal"):
        sound = soundscapes.at_level(clips[row], rng.uniform(*WINDOW_DB))
        sound = waveforms.fade(sound, seconds=soundscapes.FADE_SECONDS)
        around = round(AROUND_SECONDS * SAMPLE_RATE_HZ)
        room = soundscapes.room_noise(len(sound) + 2 * around, rng, rng.uniform(*WINDOW_ROOM_DB))
        yield _trial(row, sound, room, around)


def screams(rows: pd.DataFrame, clips: Sequence[np.ndarray], seconds: float) -> Iterator[Trial]:
    """Yield windows of room noise with the loudest second of each scream somewhere in them."""
    for row, rng in _of_label(rows, "screaming", round(seconds)):
        sound = waveforms.fade(loudest(clips[row], BRIEF_SECONDS), seconds=0.01)
        room = soundscapes.room_noise(round(seconds * SAMPLE_RATE_HZ), rng, rng.uniform(*WINDOW_ROOM_DB))
        start = int(rng.integers(0, len(room) - len(sound) + 1))
        yield _trial(row, soundscapes.at_level(sound, rng.uniform(*WINDOW_DB)), room, start)


def gated(rows: pd.DataFrame, clips: Sequence[np.ndarray]) -> Iterator[Trial]:
    """Yield digital silence with the loudest second of each cry in its middle, as a noise gate leaves it."""
    for row, rng in _of_label(rows, "crying"):
        sound = waveforms.fade(loudest(clips[row], BRIEF_SECONDS), seconds=0.01)
        around = round(GATED_SECONDS * SAMPLE_RATE_HZ)
        silence = np.zeros(len(sound) + 2 * around, dtype=np.float32)
        yield _trial(row, soundscapes.at_level(sound, rng.uniform(*WINDOW_DB)), silence, around)


def _trial(row: int, sound: np.ndarray, room: np.ndarray, start: int) -> Trial:
    """Put a sound into a room, from a sample on."""
    stop = start + len(sound)
    room[start:stop] += sound
    return Trial(row, start / SAMPLE_RATE_HZ, stop / SAMPLE_RATE_HZ, waveforms.within_full_scale(room))


def _of_label(rows: pd.DataFrame, label: str, *numbers: int) -> Iterator[tuple[int, np.random.Generator]]:
    """Yield each row of a label with a generator of its own."""
    for row in np.flatnonzero((rows["label"] == label).to_numpy()):
        yield int(row), np.random.default_rng([SEED, *numbers, *rows["clip_id"].iloc[row].encode()])


def loudest(clip: np.ndarray, seconds: float) -> np.ndarray:
    """Return the loudest stretch of a clip, all of it where it is shorter."""
    n_samples = round(seconds * SAMPLE_RATE_HZ)
    if len(clip) <= n_samples:
        return clip
    energy = np.concatenate([[0.0], np.cumsum(np.square(clip, dtype=np.float64))])
    start = int(np.argmax(energy[n_samples:] - energy[:-n_samples]))
    return clip[start : start + n_samples]
