"""A stream of sound cut into frames, and the events in it: the same however it is cut into chunks.

Time runs on one grid, counted from the first sample of the stream, so that it does not matter how the stream is cut:
patch i is 0.975 s long and starts at i times 0.48 s, frame i covers [i, i + 1) times 0.48 s. Two patches overlap a
frame by more than a few milliseconds, i - 1 and i; their centres lie 0.24 s before and after its own (7.5 ms aside).
A scorer answers for a frame from these two and from `context` more on either side; at the ends of the stream there are
fewer. A frame is known once patch i + `context` has been heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lib import audio, config
from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES, SAMPLE_RATE_HZ
from lib.events import Event, EventSettings, EventTracker, ended, frame_spans, frames_to_events
from lib.studies.soundscapes import Reference, Soundscape

HOP_SECONDS = PATCH_HOP_SAMPLES / SAMPLE_RATE_HZ  # 0.48
LOOK_AHEAD_SECONDS = PATCH_SAMPLES / SAMPLE_RATE_HZ - HOP_SECONDS  # 0.495, and HOP_SECONDS a patch of context
BLOCK_SECONDS = 60.0  # pushed at once when a soundscape is scored


@dataclass(frozen=True)
class Scorer:
    """A network in two steps, so that each patch is heard once.

    Parameters
    ----------
    hear : callable
        Patches (n_patches, 15600) to features (n_patches, n_features); a patch's row must not depend on its neighbours.
    answer : callable
        List of the features around each frame, each (n_around, n_features), to probabilities (n_frames, 3).
    context : int
        Patches on either side of the two that overlap a frame.
    """

    hear: Callable[[np.ndarray], np.ndarray]
    answer: Callable[[list[np.ndarray]], np.ndarray]
    context: int = 0

    @property
    def look_ahead_seconds(self) -> float:
        """Time from the end of a frame until it is known."""
        return LOOK_AHEAD_SECONDS + self.context * HOP_SECONDS


def mean_of_patches(score_patches: Callable[[np.ndarray], np.ndarray]) -> Scorer:
    """Return a scorer whose frames are the mean of their two patches' probabilities (n_patches, 3)."""
    return Scorer(score_patches, lambda around: np.stack([rows.mean(axis=0) for rows in around]))


@dataclass(frozen=True)
class DetectionSettings:
    """How frame probabilities become events; see `lib.events.EventTracker`."""

    on: Mapping[str, float]
    off: Mapping[str, float]
    min_seconds: float
    merge_seconds: float

    def tracker(self) -> EventTracker:
        """Return a tracker at the start of a stream."""
        return EventTracker(EventSettings.create(**vars(self)))

    def events(self, probabilities: np.ndarray) -> list[Event]:
        """Return the events in the frames (n_frames, 3) of a whole recording."""
        return frames_to_events(probabilities, EventSettings.create(**vars(self)), hop_seconds=HOP_SECONDS)


class FrameStream:
    """Turn samples that come in chunks of any length into frame probabilities on the grid of the stream."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._held = np.empty(0, dtype=np.float32)  # from the start of the last patch heard; at first, of the stream
        self._heard: list[np.ndarray] = []  # features of the patches from number `_n_dropped` on
        self._n_dropped = self._n_frames = 0

    @property
    def _n_patches(self) -> int:
        return self._n_dropped + len(self._heard)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples (n_samples,); return the frames (n_frames, 3) that are known now."""
        self._held = np.concatenate([self._held, np.asarray(samples, dtype=np.float32)])
        first = PATCH_HOP_SAMPLES if self._n_patches else 0
        starts = range(first, len(self._held) - PATCH_SAMPLES + 1, PATCH_HOP_SAMPLES)
        if starts:
            self._heard += list(self._scorer.hear(np.stack([self._held[at : at + PATCH_SAMPLES] for at in starts])))
            self._held = self._held[starts[-1] :]
        return self._frames(self._n_patches - self._scorer.context)

    def finish(self) -> np.ndarray:
        """End the stream; return its last frames.

        Samples that no patch has heard get one more patch that ends with the stream; a stream shorter than one patch
        is repeated until it fills one. `lib.yamnet.cut_patches` does the same.
        """
        if not self._n_patches and len(self._held):
            self._heard += list(self._scorer.hear(np.resize(self._held, (1, PATCH_SAMPLES))))
        elif len(self._held) > PATCH_SAMPLES:
            self._heard += list(self._scorer.hear(self._held[None, -PATCH_SAMPLES:]))
        return self._frames(self._n_patches + 1 if self._n_patches else 0)

    def _frames(self, stop: int) -> np.ndarray:
        """Return the frames from the first that was not yet returned to `stop`, and drop what no later one needs."""
        if stop <= self._n_frames:
            return np.empty((0, len(config.CLASS_NAMES)))
        reach = 1 + self._scorer.context  # patches before the frame, and from it on
        around = []
        for frame in range(self._n_frames, stop):
            start, end = max(0, frame - reach), min(self._n_patches, frame + reach)
            around.append(np.stack(self._heard[start - self._n_dropped : end - self._n_dropped]))
        self._n_frames = stop
        n_useless = max(0, stop - reach - self._n_dropped)
        self._heard, self._n_dropped = self._heard[n_useless:], self._n_dropped + n_useless
        return _check_frames(self._scorer.answer(around))


def at_one_level(scorer: Scorer) -> Scorer:
    """Return a scorer that hears each patch at the level of `audio.equalise_level`.

    Training clips and what `inference.Classifier` is given are brought to that level clip by clip. In a stream there is
    no clip, and a level taken over a chunk would make events depend on the cutting; a patch's own level does not.
    """
    return replace(scorer, hear=lambda patches: scorer.hear(np.stack([audio.equalise_level(p) for p in patches])))


class StreamDetector:
    """Find events in a stream: the same ones however it is cut into chunks.

    Parameters
    ----------
    scorer : Scorer
    settings : DetectionSettings
    """

    def __init__(self, scorer: Scorer, settings: DetectionSettings) -> None:
        self._stream, self._tracker = FrameStream(scorer), settings.tracker()
        self._n_frames = 0

    def push(self, samples: np.ndarray) -> list[Event]:
        """Take the next samples (n_samples,), 16 kHz; return the events that nothing later can change."""
        return self._advance(self._stream.push(samples))

    def finish(self) -> list[Event]:
        """End the stream; return the events that were still open."""
        return sorted(self._advance(self._stream.finish()) + ended(self._tracker.finish()))

    def _advance(self, frames: np.ndarray) -> list[Event]:
        spans = frame_spans(frames, hop_seconds=HOP_SECONDS, first_frame=self._n_frames)
        self._n_frames += len(frames)
        return ended(self._tracker.advance(spans))


@dataclass(frozen=True)
class ScoredSoundscape:
    """What is in a soundscape and what a network says of it: frame probabilities (n_frames, 3)."""

    name: str
    background: str
    seconds: float
    references: tuple[Reference, ...]
    probabilities: np.ndarray

    def reference_events(self, label: str) -> list[Event]:
        """Return the reference events of one label, by onset."""
        return sorted(item.event for item in self.references if item.event.label == label)


def score_soundscapes(made: Iterable[Soundscape], scorer: Scorer) -> list[ScoredSoundscape]:
    """Score soundscapes one at a time, `BLOCK_SECONDS` of samples at once."""
    return [
        ScoredSoundscape(
            scape.name, scape.background, scape.seconds, scape.references, frames(scape.waveform(), scorer)
        )
        for scape in made
    ]


def frames(waveform: np.ndarray, scorer: Scorer, *, chunk_seconds: float = BLOCK_SECONDS) -> np.ndarray:
    """Return the frame probabilities (n_frames, 3) of a whole recording, fed in chunks."""
    stream, n_chunk = FrameStream(scorer), round(chunk_seconds * SAMPLE_RATE_HZ)
    parts = [stream.push(waveform[start : start + n_chunk]) for start in range(0, len(waveform), n_chunk)]
    return np.concatenate([*parts, stream.finish()])


def onsets_and_offsets(events: Sequence[Event]) -> np.ndarray:
    """Return onsets and offsets (2, n_events), in seconds."""
    return np.array([(event.onset_seconds, event.offset_seconds) for event in events]).reshape(-1, 2).T


def _check_frames(probabilities: np.ndarray) -> np.ndarray:
    """Return frame probabilities as an array (n_frames, 3), or raise ValueError."""
    frames = np.asarray(probabilities, dtype=float)
    if frames.ndim != 2 or frames.shape[1] != len(config.CLASS_NAMES):
        raise ValueError(f"frame probabilities have shape {frames.shape}, expected (n, {len(config.CLASS_NAMES)}).")
    if not np.isfinite(frames).all():
        raise ValueError("frame probabilities hold NaN or infinity.")
    return frames
