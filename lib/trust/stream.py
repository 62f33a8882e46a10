"""A stream of sound cut into frames, and the events in it: the same however it is cut into chunks.

Time runs on one grid, counted from the first sample of the stream, so that it does not matter how the stream is cut:
patch i is 0.975 s long and starts at i times 0.48 s, frame i covers [i, i + 1) times 0.48 s. Two patches overlap a
frame by more than a few milliseconds, i - 1 and i; their centres lie 0.24 s before and after its own (7.5 ms aside),
so the mean of their probabilities is the frame's. The first and the last frame have one patch. A frame is known once
patch i has been heard, `LOOK_AHEAD_SECONDS` after the frame's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lib import audio, config
from lib.config import SAMPLE_RATE_HZ
from lib.events import Event, EventTracker, check_frames, frames_to_events
from lib.trust.soundscapes import Reference, Soundscape

PATCH_SAMPLES, HOP_SAMPLES = 15_600, 7_680  # lib.yamnet's; not imported, because that brings TensorFlow along
HOP_SECONDS = HOP_SAMPLES / SAMPLE_RATE_HZ  # 0.48
LOOK_AHEAD_SECONDS = PATCH_SAMPLES / SAMPLE_RATE_HZ - HOP_SECONDS  # 0.495
BLOCK_SECONDS = 60.0  # pushed at once when a soundscape is scored

ScorePatches = Callable[[np.ndarray], np.ndarray]  # (n_patches, 15600) to probabilities (n_patches, 3)


@dataclass(frozen=True)
class DetectionSettings:
    """How frame probabilities become events; see `lib.events.EventTracker`."""

    on: Mapping[str, float]
    off: Mapping[str, float]
    min_seconds: float
    merge_seconds: float

    def tracker(self) -> EventTracker:
        """Return a tracker at the start of a stream."""
        return EventTracker(HOP_SECONDS, **vars(self))

    def events(self, probabilities: np.ndarray) -> list[Event]:
        """Return the events in the frames (n_frames, 3) of a whole recording."""
        return frames_to_events(probabilities, HOP_SECONDS, **vars(self))


class FrameStream:
    """Turn samples that come in chunks of any length into frame probabilities on the grid of the stream.

    Parameters
    ----------
    score_patches : callable
        Patches (n_patches, 15600) to probabilities (n_patches, 3); a patch's row must not depend on its neighbours.
    """

    def __init__(self, score_patches: ScorePatches) -> None:
        self._score_patches = score_patches
        self._held = np.empty(0, dtype=np.float32)  # from the start of the last patch scored; at first, of the stream
        self._n_patches = 0
        self._last = np.empty((0, len(config.CLASS_NAMES)))  # probabilities of the last patch: (0 or 1, 3)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples (n_samples,); return the frames (n_frames, 3) that are known now."""
        self._held = np.concatenate([self._held, np.asarray(samples, dtype=np.float32)])
        first = HOP_SAMPLES if self._n_patches else 0
        starts = range(first, len(self._held) - PATCH_SAMPLES + 1, HOP_SAMPLES)
        if not starts:
            return np.empty((0, len(config.CLASS_NAMES)))
        patches = np.stack([self._held[start : start + PATCH_SAMPLES] for start in starts])
        self._held = self._held[starts[-1] :]
        return self._frames(patches)

    def finish(self) -> np.ndarray:
        """End the stream; return its last frames.

        Samples that no patch has heard get one more patch that ends with the stream; a stream shorter than one patch
        is repeated until it fills one. `lib.yamnet.patch_windows` does the same.
        """
        if not self._n_patches and not len(self._held):
            return np.empty((0, len(config.CLASS_NAMES)))
        frames = []
        if not self._n_patches:
            frames = [self._frames(np.resize(self._held, (1, PATCH_SAMPLES)))]
        elif len(self._held) > PATCH_SAMPLES:
            frames = [self._frames(self._held[None, -PATCH_SAMPLES:])]
        return np.concatenate([*frames, self._last])

    def _frames(self, patches: np.ndarray) -> np.ndarray:
        rows = check_frames(self._score_patches(patches))
        before = np.concatenate([self._last if self._n_patches else rows[:1], rows[:-1]])
        self._n_patches += len(rows)
        self._last = rows[-1:]
        return (before + rows) / 2


def at_one_level(score_patches: ScorePatches) -> ScorePatches:
    """Return a scorer that hears each patch at the level of `audio.equalise_level`.

    Training clips and what `inference.Classifier` is given are brought to that level clip by clip. In a stream there is
    no clip, and a level taken over a chunk would make events depend on the cutting; a patch's own level does not.
    """
    return lambda patches: score_patches(np.stack([audio.equalise_level(patch) for patch in patches]))


class StreamDetector:
    """Find events in a stream: the same ones however it is cut into chunks.

    Parameters
    ----------
    score_patches : callable
        As `FrameStream` takes it.
    settings : DetectionSettings
    """

    def __init__(self, score_patches: ScorePatches, settings: DetectionSettings) -> None:
        self._stream, self._tracker = FrameStream(score_patches), settings.tracker()

    def push(self, samples: np.ndarray) -> list[Event]:
        """Take the next samples (n_samples,), 16 kHz; return the events that nothing later can change."""
        return self._tracker.update(self._stream.push(samples))

    def finish(self) -> list[Event]:
        """End the stream; return the events that were still open."""
        return self._tracker.update(self._stream.finish()) + self._tracker.finish()


@dataclass(frozen=True)
class ScoredSoundscape:
    """What is in a soundscape and what a network says of it: frame probabilities (n_frames, 3)."""

    name: str
    bed_kind: str
    seconds: float
    references: tuple[Reference, ...]
    probabilities: np.ndarray

    def reference_events(self, label: str) -> list[Event]:
        """Return the reference events of one label, by onset."""
        return sorted(item.event for item in self.references if item.event.label == label)


def score_soundscapes(made: Iterable[Soundscape], score_patches: ScorePatches) -> list[ScoredSoundscape]:
    """Score soundscapes one at a time, `BLOCK_SECONDS` of samples at once."""
    return [
        ScoredSoundscape(
            scape.name, scape.bed_kind, scape.seconds, scape.references, frames(scape.waveform(), score_patches)
        )
        for scape in made
    ]


def frames(waveform: np.ndarray, score_patches: ScorePatches, *, chunk_seconds: float = BLOCK_SECONDS) -> np.ndarray:
    """Return the frame probabilities (n_frames, 3) of a whole recording, fed in chunks."""
    stream, n_chunk = FrameStream(score_patches), round(chunk_seconds * SAMPLE_RATE_HZ)
    parts = [stream.push(waveform[start : start + n_chunk]) for start in range(0, len(waveform), n_chunk)]
    return np.concatenate([*parts, stream.finish()])


def onsets_and_offsets(events: Sequence[Event]) -> np.ndarray:
    """Return onsets and offsets (2, n_events), in seconds."""
    return np.array([(event.onset_seconds, event.offset_seconds) for event in events]).reshape(-1, 2).T
