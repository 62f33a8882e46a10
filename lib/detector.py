"""The frame-level detector: sound in, frame probabilities and events out, the same however the stream is cut.

Time runs on one grid, counted from the first sample of the stream. Patch i is 0.975 s long and starts at i times
0.48 s; frame i covers [i, i + 1) times 0.48 s. Each patch is described by frozen YAMNet's embedding and its level in
dBFS: it is given as recorded, neither equalised nor filtered. Four small temporal networks turn the patches from
i - 7 to i + 1 into the probabilities of frame i, so a frame is known 0.975 s after its end. Crying and screaming are
independent: both can be true.

A patch whose samples all stay within `SILENCE_PEAK` is not given to YAMNet: its embedding is that of digital silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lib import config
from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES, SAMPLE_RATE_HZ
from lib.events import EVENT_LABELS, Event, EventSettings, frames_to_events

HOP_SECONDS = PATCH_HOP_SAMPLES / SAMPLE_RATE_HZ  # 0.48
KERNEL = 5  # patches that each of the two convolutions sees; the first sees one after the frame, the second none
PAST_PATCHES, FUTURE_PATCHES = 2 * (KERNEL - 1) - 1, 1
CONTEXT_SAMPLES = PAST_PATCHES * PATCH_HOP_SAMPLES  # what a frame needs before its own first sample
LOOK_AHEAD_SECONDS = (FUTURE_PATCHES * PATCH_HOP_SAMPLES + PATCH_SAMPLES) / SAMPLE_RATE_HZ - HOP_SECONDS  # 0.975
SILENCE_PEAK = 4 / 32768  # four steps of 16 bit
SILENCE_BOUND = 0.05  # the gate changes no frame probability by more; a test measures it
LEVEL_FLOOR = 1e-9  # power: -90 dBFS
LEVEL_CENTRE_DB, LEVEL_SPREAD_DB = -45.0, 20.0
COMPONENT_RANGE = 5.0  # standard deviations
SCORE_RANGE = (-2.0, 3.0)  # of AudioSet logits, divided by 4 and raised by 1
DETECTOR_SHARE = 0.5  # in a window's probabilities, the rest is the ensemble's; chosen on left-out corpora
DECIMALS = 3  # of probabilities: they travel in messages unchanged, and cross thresholds alike everywhere
PATCHES_PER_BATCH = 64
WEIGHTS_FILE, SETTINGS_FILE = "model.safetensors", "settings.json"

Embed = Callable[[np.ndarray], np.ndarray]  # patches (n, 15600) to YAMNet's embeddings (n, 1024)


@dataclass(frozen=True)
class FrameNetwork:
    """The temporal networks of the detector, whose mean is its answer; NumPy alone.

    Parameters
    ----------
    weights : mapping of str to ndarray
        Shared: component_w (160, 1024), component_b, principal components of the embedding; audioset_w
        (n_classes, 1024), audioset_b, YAMNet's own logits, scaled; silence (1024,), the embedding of digital silence.
        Of each member "0.", "1.", ...: embedding_w (n, 160), embedding_b; score_w (n, n_classes), score_b; conv1_w
        (n, n_in, 5), conv1_b; conv2_w (n, n, 5), conv2_b; out_w (2, n), out_b.
    """

    weights: Mapping[str, np.ndarray]

    @cached_property
    def _members(self) -> list[dict[str, np.ndarray]]:
        numbers = sorted({name.split(".")[0] for name in self.weights if "." in name}, key=int)
        return [
            {name.split(".")[1]: value for name, value in self.weights.items() if name.startswith(f"{number}.")}
            for number in numbers
        ]

    def describe(self, embedding: np.ndarray, level_db: float) -> list[np.ndarray]:
        """Return what each member makes of one patch, of its embedding (1024,) and level in dBFS: a list of (n_in,)."""
        components = self.weights["component_w"] @ embedding + self.weights["component_b"]
        components = np.clip(components, -COMPONENT_RANGE, COMPONENT_RANGE)
        scores = np.clip(self.weights["audioset_w"] @ embedding + self.weights["audioset_b"], *SCORE_RANGE)
        level = np.array([(level_db - LEVEL_CENTRE_DB) / LEVEL_SPREAD_DB])
        return [
            np.concatenate([
                np.maximum(member["embedding_w"] @ components + member["embedding_b"], 0),
                np.maximum(member["score_w"] @ scores + member["score_b"], 0),
                level,
            ]).astype(np.float32)
            for member in self._members
        ]  # fmt: skip

    def probabilities(self, around: Sequence[list[np.ndarray] | None]) -> np.ndarray:
        """Return the probabilities (2,) of the frame whose patches from 7 before to 1 after are given.

        None stands for a patch before the start or after the end of the stream.
        """
        logits = [
            _logits(weights, [p[number] if p else None for p in around]) for number, weights in enumerate(self._members)
        ]
        return np.mean([1 / (1 + np.exp(-value)) for value in logits], axis=0)


def _logits(weights: Mapping[str, np.ndarray], around: Sequence[np.ndarray | None]) -> np.ndarray:
    nothing = np.zeros(weights["conv1_w"].shape[1], dtype=np.float32)
    given = np.stack([nothing if patch is None else patch for patch in around], axis=1)  # (n_in, 9)
    hidden = np.zeros((len(weights["conv1_b"]), KERNEL), dtype=np.float32)
    for place in range(KERNEL):  # the hidden layer of patches i - 4 to i; there is none before the stream's first
        if around[place + KERNEL - 2] is not None:
            window = given[:, place : place + KERNEL].ravel()
            hidden[:, place] = weights["conv1_w"].reshape(len(hidden), -1) @ window + weights["conv1_b"]
    mixed = weights["conv2_w"].reshape(len(weights["conv2_b"]), -1) @ np.maximum(hidden, 0).ravel()
    return weights["out_w"] @ np.maximum(mixed + weights["conv2_b"], 0) + weights["out_b"]


@dataclass(frozen=True)
class Detection:
    """What is in a recording: frame probabilities (n_frames, 2) in the order of `EVENT_LABELS`, and events."""

    frames: np.ndarray
    events: list[Event]

    @property
    def label(self) -> str:
        """The label of the strongest event; "normal" where there is none."""
        return max(self.events, key=lambda event: event.peak_probability).label if self.events else "normal"

    def label_with(self, window: str) -> str:
        """Return the label of a recording that is one window, predicted as `window`; the events' if that is normal."""
        return self.label if window == "normal" else window


@dataclass(frozen=True)
class DetectorSettings:
    """Thresholds and durations, and a short hash of them and of the weights."""

    events: EventSettings
    version: str = ""


@dataclass(frozen=True)
class Detector:
    """The detector, loaded once; it holds no state of any stream."""

    embed: Embed
    network: FrameNetwork
    settings: DetectorSettings

    @classmethod
    def load(cls, models_dir: Path = config.MODELS_DIR, *, embed: Embed | None = None) -> Detector:
        """Load the detector of a folder of models; MissingCheckpointError where there is none.

        `embed` is frozen YAMNet; default: that of the same folder, on ONNX Runtime.
        """
        from safetensors.numpy import load_file

        from lib.onnx_networks import Yamnet

        folder = Path(models_dir) / "detector"
        network = FrameNetwork(load_file(config.require_file(folder / WEIGHTS_FILE)))
        path = config.require_file(folder / SETTINGS_FILE)
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            settings = DetectorSettings(EventSettings(**written["events"]), written["version"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no whole settings: {error!r}") from error
        return cls(embed or Yamnet(models_dir).embed, network, settings)

    def detect(self, waveform: np.ndarray | Iterable[np.ndarray]) -> Detection:
        """Return what is in a recording as recorded: samples (n_samples,) at 16 kHz, or blocks of them in order."""
        stream, frames = FrameStream(self), []
        for block in [waveform] if isinstance(waveform, np.ndarray) else waveform:
            frames.append(stream.push(block))
        whole = np.concatenate([*frames, stream.finish()])
        given = self.settings.events
        return Detection(whole, frames_to_events(whole, given, hop_seconds=HOP_SECONDS, end_seconds=stream.seconds))

    def frames(self, samples: np.ndarray, *, first_sample: int, is_last: bool) -> tuple[int, np.ndarray]:
        """Return the frames that are known from a stretch of a stream alone.

        `first_sample` is the number in the stream of the first of `samples`; `is_last`: the stream ends with them.

        Returns
        -------
        (int, ndarray)
            The number of the first frame, and frames (n_frames, 2). Those of the first `CONTEXT_SAMPLES` and a hop are
            not known, but for a stretch that starts with the stream.
        """
        first_patch = -(-first_sample // PATCH_HOP_SAMPLES)
        stream = FrameStream(self)
        known = [stream.push(samples[first_patch * PATCH_HOP_SAMPLES - first_sample :])]
        known += [stream.finish()] if is_last else []
        n_unknown = PAST_PATCHES if first_patch else 0
        return first_patch + n_unknown, np.concatenate(known)[n_unknown:]


class FrameStream:
    """Turn samples that come in chunks of any length into frame probabilities on the grid of the stream."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._held = np.empty(0, dtype=np.float32)  # from the start of the next patch on
        self._tail = np.empty(0, dtype=np.float32)  # the last samples of the stream, at most a patch
        self._patches: list[list[np.ndarray]] = []  # from number `_n_dropped` on
        self._n_dropped = self._n_frames = self._n_samples = 0

    @property
    def seconds(self) -> float:
        """How long the stream is so far."""
        return self._n_samples / SAMPLE_RATE_HZ

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples (n_samples,); return the frames (n_frames, 2) that are known now."""
        block = PATCHES_PER_BATCH * PATCH_HOP_SAMPLES
        parts = [self._push(samples[start : start + block]) for start in range(0, len(samples), block)]
        return np.concatenate(parts) if parts else np.empty((0, len(EVENT_LABELS)))

    def finish(self) -> np.ndarray:
        """End the stream; return its last frames, up to its last sample.

        Samples that no patch holds get one more patch that ends with the stream; a stream shorter than one patch is
        repeated until it fills one, for YAMNet is given no padding. Frames after the last patch repeat its frame.
        """
        n_patches = self._n_dropped + len(self._patches)
        if not n_patches and self._n_samples:
            self._describe(np.resize(self._tail, (1, PATCH_SAMPLES)))
        elif n_patches and (n_patches - 1) * PATCH_HOP_SAMPLES + PATCH_SAMPLES < self._n_samples:
            self._describe(self._tail[None])
        n_wanted = -(-self._n_samples // PATCH_HOP_SAMPLES) - self._n_frames
        frames = self._frames(self._n_dropped + len(self._patches))
        return np.concatenate([frames, frames[-1:].repeat(max(n_wanted - len(frames), 0), axis=0)])[:n_wanted]

    def _push(self, samples: np.ndarray) -> np.ndarray:
        samples = np.asarray(samples, dtype=np.float32)
        self._n_samples += len(samples)
        self._held = np.concatenate([self._held, samples])
        self._tail = np.concatenate([self._tail, samples])[-PATCH_SAMPLES:]
        starts = range(0, len(self._held) - PATCH_SAMPLES + 1, PATCH_HOP_SAMPLES)
        if starts:
            self._describe(np.stack([self._held[at : at + PATCH_SAMPLES] for at in starts]))
            self._held = self._held[starts[-1] + PATCH_HOP_SAMPLES :]
        return self._frames(self._n_dropped + len(self._patches) - FUTURE_PATCHES)

    def _describe(self, patches: np.ndarray) -> None:
        network = self._detector.network
        embeddings = embed_with_gate(patches, self._detector.embed, silence=network.weights["silence"])
        self._patches += [network.describe(*both) for both in zip(embeddings, levels_db(patches), strict=True)]

    def _frames(self, stop: int) -> np.ndarray:
        """Return the frames from the first that was not yet returned to `stop`, and drop what no later one needs."""
        rows = [self._detector.network.probabilities(self._around(frame)) for frame in range(self._n_frames, stop)]
        self._n_frames = max(self._n_frames, stop)
        n_useless = max(0, self._n_frames - PAST_PATCHES - self._n_dropped)
        self._patches, self._n_dropped = self._patches[n_useless:], self._n_dropped + n_useless
        return np.round(np.array(rows, dtype=float).reshape(-1, len(EVENT_LABELS)), DECIMALS)

    def _around(self, frame: int) -> list[list[np.ndarray] | None]:
        places = (frame - self._n_dropped + offset for offset in range(-PAST_PATCHES, FUTURE_PATCHES + 1))
        return [self._patches[place] if 0 <= place < len(self._patches) else None for place in places]


def combined_with(frames: np.ndarray, ensemble: np.ndarray) -> np.ndarray:
    """Return a window's probabilities (3,) in CLASS_NAMES order, from the ensemble's (3,) and the detector's frames.

    The detector's probabilities of crying and of screaming are the largest of the frames (n_frames, 2), that of normal
    is what the larger of the two leaves; divided by their sum. `DETECTOR_SHARE` is their weight.
    """
    largest = frames.max(axis=0, initial=0.0)
    detected = np.append(largest, 1 - largest.max())
    return (1 - DETECTOR_SHARE) * ensemble + DETECTOR_SHARE * detected / detected.sum()


def frames_between(frames: np.ndarray, start: int, stop: int, *, first_frame: int = 0) -> np.ndarray:
    """Return those of the frames (n_frames, 2), counted from `first_frame`, that overlap samples `start` to `stop`."""
    return frames[max(0, start // PATCH_HOP_SAMPLES - first_frame) : -(-stop // PATCH_HOP_SAMPLES) - first_frame]


def levels_db(patches: np.ndarray) -> np.ndarray:
    """Return the level (n_patches,) of patches (n_patches, 15600) in dBFS, at least -90."""
    return 10 * np.log10(np.square(patches, dtype=np.float64).mean(axis=1) + LEVEL_FLOOR)


def embed_with_gate(patches: np.ndarray, embed: Embed, *, silence: np.ndarray) -> np.ndarray:
    """Return embeddings (n_patches, 1024); patches that stay within `SILENCE_PEAK` are not given to YAMNet."""
    sounding = np.abs(patches).max(axis=1) > SILENCE_PEAK
    embeddings = np.tile(silence, (len(patches), 1))
    if sounding.any():
        embeddings[sounding] = embed(patches[sounding])
    return embeddings
