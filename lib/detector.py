"""The frame-level detector: sound in, frame probabilities and events out, the same however the stream is cut.

Time runs on one grid, counted from the first sample of the stream. Patch i is 0.975 s long and starts at i times
0.48 s; frame i covers [i, i + 1) times 0.48 s. Each patch is described by frozen YAMNet's embedding, its level in
dBFS, pitch, spectrum and roughness (`lib.networks.acoustics`), of sound as recorded, neither equalised nor filtered.
Four small temporal networks turn the patches from i - 7 to i + 1 into the probabilities of frame i, so a frame is
known 0.975 s after its end. Crying and screaming are independent: both can be true.

A patch whose samples all stay within `SILENCE_PEAK` is described as digital silence, without YAMNet.
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
from lib.networks import acoustics
from lib.networks.patches import Kept
from lib.waveforms import levels_db

HOP_SECONDS = PATCH_HOP_SAMPLES / SAMPLE_RATE_HZ  # 0.48
KERNEL = 5  # patches that each of the two convolutions sees; the first sees one after the frame, the second none
FUTURE_PATCHES, PAST_OF_HIDDEN = 1, KERNEL - 2  # of one patch's hidden layer
PAST_PATCHES = PAST_OF_HIDDEN + KERNEL - 1  # of a frame
CONTEXT_SAMPLES = PAST_PATCHES * PATCH_HOP_SAMPLES  # what a frame needs before its own first sample
LOOK_AHEAD_SECONDS = (FUTURE_PATCHES * PATCH_HOP_SAMPLES + PATCH_SAMPLES) / SAMPLE_RATE_HZ - HOP_SECONDS  # 0.975
SILENCE_PEAK = 4 / 32768  # four steps of 16 bit
SILENCE_BOUND = 0.05  # the gate changes no frame probability by more; a test measures it
LEVEL_CENTRE_DB, LEVEL_SPREAD_DB = -45.0, 20.0
COMPONENT_RANGE, ACOUSTIC_RANGE = 5.0, 4.0  # standard deviations
SCORE_RANGE = (-2.0, 3.0)  # of AudioSet logits, divided by 4 and raised by 1
DECIMALS = 3  # of probabilities: they travel in messages unchanged, and cross thresholds alike everywhere
PATCHES_PER_BATCH = 64
WEIGHTS_FILE, SETTINGS_FILE = "model.safetensors", "settings.json"

Embed = Callable[[np.ndarray], np.ndarray]  # patches (n, 15600) to a row of each, as YAMNet's embeddings (n, 1024)


@dataclass(frozen=True)
class FrameNetwork:
    """The temporal networks of the detector, whose mean is its prediction; NumPy alone.

    Parameters
    ----------
    weights : mapping of str to ndarray
        Shared: component_w (160, 1024), component_b, principal components of the embedding; audioset_w
        (n_classes, 1024), audioset_b, YAMNet's own logits, scaled; acoustic_mean, acoustic_spread (36,); silence
        (1024,), the embedding of digital silence. Of each member "0.", "1.", ...: embedding_w (n, 160), embedding_b;
        score_w (n, n_classes), score_b; acoustic_w (n, 36), acoustic_b; conv1_w (n, n_in, 5), conv1_b; conv2_w
        (n, n, 5), conv2_b; out_w (2, n), out_b.
    """

    weights: Mapping[str, np.ndarray]

    @cached_property
    def _members(self) -> dict[str, np.ndarray]:
        """All members' weights by name, stacked along the first axis, those of convolutions as (..., n, n_in * 5)."""
        numbers = sorted({name.split(".")[0] for name in self.weights if "." in name}, key=int)
        names = {name.split(".")[1] for name in self.weights if "." in name}
        stacked = {name: np.stack([self.weights[f"{number}.{name}"] for number in numbers]) for name in names}
        return stacked | {name: stacked[name].reshape(*stacked[name].shape[:2], -1) for name in ("conv1_w", "conv2_w")}

    def inputs(self, embedding: np.ndarray, acoustic: np.ndarray) -> dict[str, np.ndarray]:
        """Return what members may be given of embeddings (..., 1024) and acoustic features (..., 36), all scaled.

        That is principal components (..., 160), AudioSet logits (..., n_classes) and the features (..., 36), by name.
        """
        weights = self.weights
        components = embedding @ weights["component_w"].T + weights["component_b"]
        scores = embedding @ weights["audioset_w"].T + weights["audioset_b"]
        standard = (acoustic - weights["acoustic_mean"]) / weights["acoustic_spread"]
        return {
            "embedding": np.clip(components, -COMPONENT_RANGE, COMPONENT_RANGE),
            "score": np.clip(scores, *SCORE_RANGE),
            "acoustic": np.clip(standard, -ACOUSTIC_RANGE, ACOUSTIC_RANGE),
        }

    def describe(self, embedding: np.ndarray, acoustic: np.ndarray, level_db: float) -> np.ndarray:
        """Return what members make of a patch's embedding (1024,), features (36,), level in dBFS: (n_members, n_in)."""
        members, given = self._members, self.inputs(embedding, acoustic).items()
        hidden = [np.maximum(members[f"{name}_w"] @ part + members[f"{name}_b"], 0) for name, part in given]
        level = np.full((len(hidden[0]), 1), (level_db - LEVEL_CENTRE_DB) / LEVEL_SPREAD_DB)
        return np.concatenate([*hidden, level], axis=1).astype(np.float32)

    def hidden(self, around: Sequence[np.ndarray | None]) -> np.ndarray:
        """Return the hidden layer (n_members, n) of a patch, given what is known of those from 3 before to 1 after.

        None stands for a patch before the start or after the end of the stream.
        """
        return np.maximum(self._convolved("conv1", around), 0)

    def probabilities(self, hidden: Sequence[np.ndarray | None]) -> np.ndarray:
        """Return the probabilities (2,) of a frame from the hidden layers of 4 patches before its own and its own."""
        mixed = np.maximum(self._convolved("conv2", hidden), 0)
        logits = np.matmul(self._members["out_w"], mixed[..., None])[..., 0] + self._members["out_b"]
        return np.mean(1 / (1 + np.exp(-logits)), axis=0)

    def _convolved(self, name: str, places: Sequence[np.ndarray | None]) -> np.ndarray:
        """Apply a convolution at one place: `KERNEL` values (n_members, n_in), None for nothing, to (n_members, n)."""
        weights, biases = self._members[f"{name}_w"], self._members[f"{name}_b"]
        nothing = np.zeros((len(weights), weights.shape[2] // KERNEL), dtype=np.float32)
        given = np.stack([nothing if place is None else place for place in places], axis=2)
        return np.matmul(weights, given.reshape(len(weights), -1, 1))[..., 0] + biases


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

        from lib.networks.onnx_networks import Yamnet

        folder = Path(models_dir) / "detector"
        network = FrameNetwork(load_file(config.require_file(folder / WEIGHTS_FILE)))
        if "acoustic_mean" not in network.weights:
            raise ValueError(f"{folder} holds a detector of an earlier version: take models/ from this one.")
        path = config.require_file(folder / SETTINGS_FILE)
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            settings = DetectorSettings(EventSettings(**written["events"]), written["version"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no whole settings: {error!r}") from error
        return cls(embed or Yamnet(models_dir).embed, network, settings)

    @cached_property
    def described(self) -> Embed:
        """`describe` with a memory: a chunk of a stream brings the end of the one before with it."""
        return Kept(self.describe)

    def describe(self, patches: np.ndarray) -> np.ndarray:
        """Return what the networks make of patches (n, 15600): (n, n_members, n_in), each alone."""
        described = described_patches(patches, self.embed, silence=self.network.weights["silence"])
        return np.stack([self.network.describe(*patch) for patch in zip(*described, strict=True)])

    def detect(self, waveform: np.ndarray | Iterable[np.ndarray]) -> Detection:
        """Return what is in a recording as recorded: samples (n_samples,) at 16 kHz, or blocks of them in order."""
        stream, blocks = self.stream(), [waveform] if isinstance(waveform, np.ndarray) else waveform
        frames = [stream.push(block) for block in blocks]
        return self.detection(np.concatenate([*frames, stream.finish()]), end_seconds=stream.seconds)

    def stream(self) -> FrameStream:
        """Return what turns a stream into frames, chunk by chunk."""
        return FrameStream(self)

    def detection(self, frames: np.ndarray, *, end_seconds: float) -> Detection:
        """Return the frames (n_frames, 2) of a whole recording that lasts `end_seconds`, with its events."""
        given = self.settings.events
        return Detection(frames, frames_to_events(frames, given, hop_seconds=HOP_SECONDS, end_seconds=end_seconds))

    def frames(self, samples: np.ndarray, *, first_sample: int, is_last: bool) -> tuple[int, np.ndarray]:
        """Return the frames that are known from a stretch of a stream alone.

        `first_sample` is the number in the stream of the first of `samples`; `is_last`: the stream ends with them.

        Returns
        -------
        (int, ndarray)
            The number of the first frame, and frames (n_frames, 2). Those of the first `CONTEXT_SAMPLES` and a hop are
            not known, but for a stretch that starts with the stream.
        """
        first_patch, stream = -(-first_sample // PATCH_HOP_SAMPLES), self.stream()
        known = [stream.push(samples[first_patch * PATCH_HOP_SAMPLES - first_sample :])]
        known += [stream.finish()] if is_last else []
        n_unknown = PAST_PATCHES * (first_patch > 0)
        return first_patch + n_unknown, np.concatenate(known)[n_unknown:]


class FrameStream:
    """Turn samples that come in chunks of any length into frame probabilities on the grid of the stream."""

    def __init__(self, detector: Detector) -> None:
        self._network, self._described = detector.network, detector.described
        self._held = np.empty(0, dtype=np.float32)  # from the start of the next patch on
        self._tail = np.empty(0, dtype=np.float32)  # the last samples of the stream, at most a patch
        self._patches: list[np.ndarray] = []  # what is known of them, from number `_n_dropped` on
        self._hidden: list[np.ndarray | None] = [None] * (KERNEL - 1)  # of the last patches that have a frame
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
            self._patches.extend(self._described(np.resize(self._tail, (1, PATCH_SAMPLES))))
        elif n_patches and (n_patches - 1) * PATCH_HOP_SAMPLES + PATCH_SAMPLES < self._n_samples:
            self._patches.extend(self._described(self._tail[None]))
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
            self._patches.extend(self._described(np.stack([self._held[at : at + PATCH_SAMPLES] for at in starts])))
            self._held = self._held[starts[-1] + PATCH_HOP_SAMPLES :]
        return self._frames(self._n_dropped + len(self._patches) - FUTURE_PATCHES)

    def _frames(self, stop: int) -> np.ndarray:
        """Return the frames from the first that was not yet returned to `stop`, and drop what no later one needs."""
        rows = [self._frame(number) for number in range(self._n_frames, stop)]
        self._n_frames = max(self._n_frames, stop)
        n_useless = max(0, self._n_frames - PAST_OF_HIDDEN - self._n_dropped)
        self._patches, self._n_dropped = self._patches[n_useless:], self._n_dropped + n_useless
        return np.round(np.array(rows, dtype=float).reshape(-1, len(EVENT_LABELS)), DECIMALS)

    def _frame(self, number: int) -> np.ndarray:
        """Return the next frame (2,); the hidden layers of the patches before its own are those of earlier frames."""
        places = range(number - PAST_OF_HIDDEN, number + FUTURE_PATCHES + 1)
        patches = (place - self._n_dropped for place in places)
        around = [self._patches[place] if 0 <= place < len(self._patches) else None for place in patches]
        self._hidden = [*self._hidden[-KERNEL + 1 :], self._network.hidden(around)]
        return self._network.probabilities(self._hidden)


def frames_between(
    frames: np.ndarray | Sequence[np.ndarray], start: int, stop: int, *, first_frame: int = 0
) -> np.ndarray:
    """Return those of frames (array or list, from `first_frame` on) that overlap samples `start` to `stop`: (n, 2)."""
    here = slice(max(0, start // PATCH_HOP_SAMPLES - first_frame), -(-stop // PATCH_HOP_SAMPLES) - first_frame)
    return np.asarray(frames[here]).reshape(-1, len(EVENT_LABELS))


def described_patches(
    patches: np.ndarray, embed: Embed, *, silence: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return embeddings (n_patches, 1024), acoustic features (n_patches, 36) and levels (n_patches,) in dBFS.

    Patches within `SILENCE_PEAK` are not given to YAMNet: theirs are `silence` (1024,) and those of zeros.
    """
    sounding = np.abs(patches).max(axis=1) > SILENCE_PEAK
    embeddings, acoustic = np.tile(silence, (len(patches), 1)), np.tile(acoustics.of_silence(), (len(patches), 1))
    if sounding.any():
        embeddings[sounding] = embed(patches[sounding])
        acoustic[sounding] = acoustics.features(patches[sounding])
    return embeddings, acoustic, levels_db(patches)
