"""Draws windows as the service is given them: an event anywhere in 2 to 15 s of other sound.

The service classifies chunks of 5 to 15 s in which a cry or a scream may fill a second. Networks trained on trimmed
clips decide by length. So they are trained and judged on windows, and all classes are drawn alike: the same lengths,
levels, backgrounds and recorders, with a normal clip as the event of a normal window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from lib import augment, manifest, splits, waveforms
from lib.config import SAMPLE_RATE_HZ
from lib.networks import frozen_features

FADE_SECONDS = 0.01  # at both ends of an event and of each background clip
N_PIECES = 8  # random places tried for a piece, until one is not a pause
GAP_SECONDS = 2.0  # longest pause between two background clips
MAX_PER_CLIP = 12  # windows around one training clip
RECORDER = replace(augment.RECORDING, p_background=0.0, p_noise=0.0)  # bandwidth, codec, level: after the mixture
COLUMNS = (
    "window_id", "clip_id", "group_id", "source", "corpus_group", "label", "background", "background_corpus_group",
    "seconds", "onset_seconds", "offset_seconds", "snr_db",
)  # fmt: skip
SPEEDS = (0.75, 1.33)  # of the clips in training windows
JUDGED_SECONDS = (5.0, 10.0, 15.0)  # lengths of the windows that networks are judged on
# Screams count half: with full weight, networks predict too many of them on unseen corpora.
CLASS_WEIGHTS = {"crying": 1.0, "screaming": 0.5, "normal": 1.0}
# How often a window has what (`P_...`), and within which range (drawn evenly).
SECONDS = (2.0, 15.0)  # of a window whose length is drawn
P_PIECE, PIECE_SECONDS = 0.5, (0.5, 2.0)  # a piece of the clip; else all of it that fits
P_SILENCE = 0.1  # digital silence around the event: a noise gate
P_CLIPS = 0.5  # normal clips as background; else coloured noise
SNR_DB = (-5.0, 25.0)  # of the event's level and the background's
FLOOR_SNR_DB = (25.0, 60.0)  # faint noise, beneath everything but digital silence
Background = Callable[[int, np.random.Generator], np.ndarray]  # samples wanted, generator -> waveform


def draw(
    rows: pd.DataFrame,
    clips: Mapping[str, np.ndarray],
    *,
    seconds: float | None = None,
    per_clip: int | np.ndarray = 1,
    own_corpus: bool = False,
    seed: int = 0,
) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Draw windows around the clips of one split, over the normal clips of the same split.

    Each window depends on its id and the split's normal clips alone: the same in every run.

    Parameters
    ----------
    rows : DataFrame
        Manifest rows of one split: clip_id, group_id, source, label.
    clips : mapping of clip_id to ndarray (n_samples,)
    seconds : float, optional
        Length of every window; None draws it.
    per_clip : int or ndarray of int (n_rows,)
        Windows for each clip, for example of `balanced_counts`.
    own_corpus : bool
        Backgrounds come from the event's own corpus group, as leaving it out requires. Where that has no normal clip,
        they come from the first group (by name) without a clip of the event's class.

    Returns
    -------
    DataFrame, list of ndarray
        `COLUMNS` of each window, and its waveform, float32 (n_samples,), at 16 kHz, as recorded. onset and offset bound
        the event; a background that is no clip has no corpus group.
    """
    frame = rows.assign(corpus_group=splits.corpus_group(rows["source"]))
    pools = _Pools(frame, clips, own_corpus=own_corpus)
    repeated = frame.loc[frame.index.repeat(per_clip)]
    length = "any" if seconds is None else f"{seconds:g}s"
    numbers = repeated.groupby("clip_id").cumcount()
    drawn = []
    for row, number in zip(repeated.to_dict("records"), numbers, strict=True):
        window_id = f"{row['clip_id']}-{length}-{number}"
        rng = augment.generator(f"{seed} {window_id}")
        group, background = pools.choose(row, rng)
        facts, window = draw_one(clips[row["clip_id"]], background, rng, seconds=seconds)
        origin = {"background_corpus_group": group if facts["background"] == "clips" else ""}
        drawn.append((row | facts | origin | {"window_id": window_id}, window))
    return pd.DataFrame([facts for facts, _ in drawn], columns=list(COLUMNS)), [window for _, window in drawn]


def draw_one(
    event: np.ndarray, background: Background | None, rng: np.random.Generator, *, seconds: float | None = None
) -> tuple[dict, np.ndarray]:
    """Draw one window: cut the event, place it, add a background at some SNR, and record the mixture.

    Returns
    -------
    dict, ndarray (n_samples,)
        background ("silence", "clips" or "noise"), seconds, onset_seconds, offset_seconds, snr_db; the window.
    """
    drawn = rng.uniform(*SECONDS)  # in any case, so that what follows is the same
    n_samples = round((seconds or drawn) * SAMPLE_RATE_HZ)
    event = waveforms.fade(_cut(event, n_samples, rng), seconds=FADE_SECONDS)
    start = int(rng.integers(n_samples - len(event) + 1))
    window = np.zeros(n_samples, dtype=np.float32)
    window[start : start + len(event)] = event
    place, snr_db = rng.random(), rng.uniform(*SNR_DB)
    over_clips = background is not None and place < P_SILENCE + P_CLIPS
    kind = "silence" if place < P_SILENCE else "clips" if over_clips else "noise"
    if kind != "silence":
        level = waveforms.active_rms(event)
        sound = background(n_samples, rng) if kind == "clips" and background else augment.coloured_noise(n_samples, rng)
        window += _at_level(sound, level * waveforms.amplitude(-snr_db))
        floor = level * waveforms.amplitude(-rng.uniform(*FLOOR_SNR_DB))
        window += _at_level(augment.coloured_noise(n_samples, rng), floor)
    window = augment.augment(waveforms.within_full_scale(window), rng, settings=RECORDER)
    onset, offset = start / SAMPLE_RATE_HZ, (start + len(event)) / SAMPLE_RATE_HZ
    facts = {"background": kind, "seconds": n_samples / SAMPLE_RATE_HZ, "snr_db": round(snr_db, 2)}
    return facts | {"onset_seconds": round(onset, 3), "offset_seconds": round(offset, 3)}, window


def at_other_speed(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a clip (n_samples,) played faster or slower, pitch and resonances with it, by a factor within `SPEEDS`.

    Other speakers and animals for networks that learn from few: chosen on unseen corpora. Source: Ko et al. 2015, Audio
    augmentation for speech recognition, Interspeech.
    """
    factor = np.exp(rng.uniform(*np.log(SPEEDS)))
    return waveforms.within_full_scale(waveforms.resample(clip, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ))


def balanced_counts(rows: pd.DataFrame, n_windows: int, *, seed: int = 0) -> np.ndarray:
    """Return how many windows each clip gets, (n_rows,), so that classes, sources and groups are balanced.

    Balanced weights (`augment.balanced_weights`) times `n_windows`, rounded up or down by chance, at most
    `MAX_PER_CLIP`, so that a source of few clips is not drawn without end.
    """
    wanted = augment.balanced_weights(rows) * n_windows
    return np.floor(wanted + np.random.default_rng(seed).random(len(rows))).astype(int).clip(0, MAX_PER_CLIP)


def unseen(training: pd.DataFrame, judged: pd.DataFrame) -> np.ndarray:
    """Return which training rows (n_rows,) share no corpus group, of event or background, with the judged ones."""
    names = ["corpus_group", "background_corpus_group"]
    left_out = {name for column in names if column in judged for name in judged[column]} - {""}
    return ~np.any([training[column].isin(left_out) for column in names if column in training], axis=0)


def examples(*, n_training: int, n_judged: int, seed: int) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Return what both networks learn from and are judged on: clips as they are, and windows drawn from them.

    Parameters
    ----------
    n_training : int
        Windows of 2 to 15 s around clips of the train groups at other speeds (`at_other_speed`), balanced; in
        proportion as many around the other clips, for networks that train on those.
    n_judged : int
        At most this many windows of `JUDGED_SECONDS` around clips of the train and validation groups, each over
        backgrounds of its own corpus group: screams at every length, other clips at one.
    seed : int

    Returns
    -------
    (DataFrame, list of ndarray (n_samples,))
        kind ("clip", "clip, other speed", "training window" or, judged, "window"), split, and `COLUMNS`, of which a
        clip's window_id is its clip_id and what only windows have is empty; the waveforms as `waveforms.prepare`
        returns them. split is that by group: clips that only the random split trains on are "test".
    """
    rows = splits.read("grouped", splits=("train", "validation"))
    others = splits.read("random", splits=("train", "validation"))
    rows = pd.concat([rows, others[~others["clip_id"].isin(rows["clip_id"])].assign(split="test")], ignore_index=True)
    clips = dict(zip(rows["clip_id"], manifest.load_waveforms(rows), strict=True))
    table = rows.assign(kind="clip", window_id=rows["clip_id"], seconds=rows["duration_seconds"])
    table = table.assign(corpus_group=splits.corpus_group(rows["source"]), background_corpus_group="")
    tables, sounds = [table], list(clips.values())
    for kind, split, part, drawn in _draws(rows, clips, n_training=n_training, n_judged=n_judged, seed=seed):
        tables.append(part.assign(kind=kind, split=split))
        sounds += [waveforms.prepare(waveform) for waveform in drawn]
    return pd.concat(tables, ignore_index=True)[["kind", "split", *COLUMNS]], sounds


def classified(rows: pd.DataFrame, sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what the networks classify of the rows and sounds of `examples`: of clips and windows 3 s of each.

    They are those of `frozen_features.excerpts`. What is trained on alone stays as it is.
    """
    judged = np.flatnonzero(rows["kind"].isin(["clip", "window"])).tolist()
    excerpts = frozen_features.excerpts([sounds[row] for row in judged])
    by_row = dict(zip(judged, excerpts, strict=True))
    return [by_row.get(row, sound) for row, sound in enumerate(sounds)]


def _draws(
    rows: pd.DataFrame, clips: Mapping[str, np.ndarray], *, n_training: int, n_judged: int, seed: int
) -> Iterator[tuple[str, str, pd.DataFrame, list[np.ndarray]]]:
    """Yield kind and split of some windows, their table and their waveforms; backgrounds are of the same split."""
    n_train = (rows["split"] == "train").sum()
    for split, part in rows.groupby("split"):
        counts = balanced_counts(part, round(n_training * len(part) / n_train), seed=seed)
        at_speeds = {name: at_other_speed(clips[name], augment.generator(f"{seed} {name}")) for name in part["clip_id"]}
        yield "training window", split, *draw(part, at_speeds, per_clip=counts, seed=seed)
        copies = part.assign(window_id=part["clip_id"] + "-speed", corpus_group=splits.corpus_group(part["source"]))
        lengths = [len(clip) / SAMPLE_RATE_HZ for clip in at_speeds.values()]
        copies = copies.assign(seconds=lengths, background="", background_corpus_group="")
        yield "clip, other speed", split, copies, list(at_speeds.values())
    development, rng = rows[rows["split"] != "test"], np.random.default_rng(seed)
    share = n_judged / (len(development) + 2 * (development["label"] == "screaming").sum())
    for split, part in development.groupby("split"):
        turn, is_scream = np.arange(len(part)) % len(JUDGED_SECONDS), (part["label"] == "screaming").to_numpy()
        for number, seconds in enumerate(JUDGED_SECONDS):
            chosen = ((turn == number) | is_scream) & (rng.random(len(part)) < share)
            yield "window", split, *draw(part, clips, seconds=seconds, per_clip=chosen.astype(int), own_corpus=True)


def weights(rows: pd.DataFrame) -> np.ndarray:
    """Return training weights, 1 on average: clips together count as much as training windows and other speeds.

    Within each, classes, sources and groups are balanced (`augment.balanced_weights`), then `CLASS_WEIGHTS` apply.
    """
    shares = pd.Series(0.0, index=rows.index)
    for _, part in rows.groupby(rows["kind"] == "clip"):
        shares[part.index] = augment.balanced_weights(part)
    shares *= rows["label"].map(CLASS_WEIGHTS)
    return (shares / shares.mean()).to_numpy()


class _Pools:
    """The normal clips of a split by corpus group, from which a window's background is drawn."""

    def __init__(self, frame: pd.DataFrame, clips: Mapping[str, np.ndarray], *, own_corpus: bool) -> None:
        normal = frame[frame["label"] == "normal"].sort_values("clip_id")
        self.clips, self.own_corpus = clips, own_corpus
        self.ids = {name: part["clip_id"].to_numpy() for name, part in normal.groupby("corpus_group")}
        self.weights = {name: augment.balanced_weights(part) for name, part in normal.groupby("corpus_group")}
        self.labels = {name: set(part["label"]) for name, part in frame.groupby("corpus_group")}

    def choose(self, row: Mapping, rng: np.random.Generator) -> tuple[str, Background | None]:
        """Return the corpus group of a window's background and what draws it; None without normal clips."""
        names = sorted(self.ids)
        if self.own_corpus:
            others = [name for name in names if row["label"] not in self.labels[name]]
            names = [row["corpus_group"]] if row["corpus_group"] in self.ids else others[:1]
        if not names:
            return "", None
        group = names[rng.integers(len(names))]
        return group, lambda n_samples, draw: self._sequence(group, n_samples, draw)

    def _sequence(self, group: str, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Return normal clips at one level, one after the other, with pauses, the first from anywhere in it."""
        parts: list[np.ndarray] = []
        n_filled = 0
        while n_filled < n_samples:
            clip = _at_level(self.clips[rng.choice(self.ids[group], p=self.weights[group])], 1.0)
            clip = clip[int(rng.integers(len(clip) // 2 + 1)) if not parts else 0 :]
            part = waveforms.fade(clip, seconds=FADE_SECONDS)
            n_gap = int(rng.uniform(0, GAP_SECONDS) * SAMPLE_RATE_HZ) if rng.random() < 0.5 else 0
            parts += [part, np.zeros(n_gap, dtype=np.float32)]
            n_filled += len(part) + n_gap
        return np.concatenate(parts)[:n_samples]


def _cut(clip: np.ndarray, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return what of a clip is the event: all that fits into the window, or a piece that is not a pause."""
    if rng.random() >= P_PIECE:
        return augment.random_crop(clip, min(len(clip), n_samples), rng)
    n_piece = min(round(rng.uniform(*PIECE_SECONDS) * SAMPLE_RATE_HZ), len(clip), n_samples)
    pieces = [augment.random_crop(clip, n_piece, rng) for _ in range(N_PIECES)]
    levels = [float(np.sqrt(np.mean(np.square(piece, dtype=np.float64)))) for piece in pieces]
    loud = [place for place, level in enumerate(levels) if level > waveforms.active_rms(clip) / 2]
    return pieces[loud[0] if loud else int(np.argmax(levels))]


def _at_level(waveform: np.ndarray, level: float) -> np.ndarray:
    """Scale a waveform so that its active level (RMS) is `level`; silence stays silent."""
    present = waveforms.active_rms(waveform)
    return waveform * np.float32(level / present) if present else waveform
