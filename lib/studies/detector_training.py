"""Trains the detector on mixtures, once for the product and once without each corpus group.

Frozen YAMNet and `lib.networks.acoustics` describe every patch of the mixtures once (4 ms per patch); the temporal
networks train on that in minutes. PyTorch trains them; `lib.detector` runs them in NumPy. Each network sees the
embedding through its first `N_COMPONENTS` principal components (of the mixtures that it trains on), YAMNet's logits of
the AudioSet classes that bear on the question, and the acoustic features, or some of these: `MEMBERS`. Dropout on all
of them is what keeps it from learning corpora by heart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from lib import config
from lib.detector import (
    FUTURE_PATCHES,
    KERNEL,
    LEVEL_CENTRE_DB,
    LEVEL_SPREAD_DB,
    Embed,
    FrameNetwork,
    described_patches,
)
from lib.events import EVENT_LABELS
from lib.networks import acoustics
from lib.studies import mixtures, soundscapes
from lib.studies.mixtures import N_PATCHES, Material

N_MIXTURES, PER_SEED = 2500, 2000
SEED = 7
N_COMPONENTS = 160
HIDDEN = {"embedding": 40, "score": 28, "acoustic": 24, "conv": 40}
DROPOUT = {"embedding": 0.4, "score": 0.2, "acoustic": 0.2, "conv": 0.2}
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 900, 32, 3e-3, 3e-3
# What each network is given. Acoustic features find more screams, and raise more alarms of voices:
# networks with and without them together are best (detector_acoustics.csv).
MEMBERS = (("embedding", "score"), ("score",), ("embedding", "score", "acoustic"), ("score", "acoustic"))
QUIET_DB = -70.0  # patches below do not count for the principal components: YAMNet was never meant for them
# AudioSet's first 137 classes are voices, bodies, animals and music; of the others, those with one of these words.
FIRST_CLASSES = 137
CLASS_WORDS = (
    "siren", "alarm", "whistle", "squeak", "creak", "screech", "horn", "silence", "noise", "vehicle", "engine",
    "music", "bell", "toot", "sound effect", "water", "wind", "rain", "door", "inside", "outside", "telephone",
    "squeal", "vacuum", "hair dryer",
)  # fmt: skip
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Described:
    """Mixtures as the temporal networks are given them.

    Parameters
    ----------
    embeddings : ndarray of float16, (n_mixtures, 32, 1024)
    acoustics : ndarray, (n_mixtures, 32, 36)
    levels : ndarray, (n_mixtures, 32)
        In dBFS.
    labels : ndarray of int8, (n_mixtures, 32, 2)
        -1 (counts for nothing), 0, 1.
    groups : DataFrame of bool, n_mixtures rows
        Which corpus groups each mixture holds clips of.
    """

    embeddings: np.ndarray
    acoustics: np.ndarray
    levels: np.ndarray
    labels: np.ndarray
    groups: pd.DataFrame

    def without(self, corpus_group: str) -> np.ndarray:
        """Return the numbers of the mixtures that hold no clip of a corpus group."""
        return np.flatnonzero(~self.groups[corpus_group].to_numpy(bool))


def material(rows: pd.DataFrame, clips: Sequence[np.ndarray]) -> Material:
    """Return clips with their activity: marked by hand where somebody did, by level where nobody did."""
    marked = soundscapes.cry_segments(rows)
    activity = [mixtures.active_steps(clip, segments) for clip, segments in zip(clips, marked, strict=True)]
    return Material.of(rows, clips, activity)


def describe(material: Material, embed: Embed, *, n_mixtures: int = N_MIXTURES, seed: int = SEED) -> Described:
    """Render mixtures one at a time and describe their patches: about 0.15 s each."""
    silence = embed(np.zeros((1, config.PATCH_SAMPLES), dtype=np.float32))[0]
    names = sorted(set(material.rows["corpus_group"]))
    embeddings = np.empty((n_mixtures, N_PATCHES, len(silence)), dtype=np.float16)
    acoustic = np.empty((n_mixtures, N_PATCHES, acoustics.N_FEATURES), dtype=np.float32)
    levels = np.empty((n_mixtures, N_PATCHES), dtype=np.float32)
    labels = np.empty((n_mixtures, N_PATCHES, len(EVENT_LABELS)), dtype=np.int8)
    groups = np.zeros((n_mixtures, len(names)), dtype=bool)
    for number in range(n_mixtures):
        rng = np.random.default_rng([seed + number // PER_SEED, number % PER_SEED])
        mixture = mixtures.mixture(material, rng)
        described = described_patches(patches_of(mixture.waveform), embed, silence=silence)
        embeddings[number], acoustic[number], levels[number] = described
        labels[number] = mixture.labels
        groups[number] = [name in set(material.rows["corpus_group"].iloc[list(mixture.rows)]) for name in names]
        if number % 500 == 0:
            log.info("mixture %d of %d", number, n_mixtures)
    return Described(embeddings, acoustic, levels, labels, pd.DataFrame(groups, columns=names))


def patches_of(waveform: np.ndarray) -> np.ndarray:
    """Return the patches (n_patches, 15600) on the grid of a waveform that is no shorter than one."""
    every = np.lib.stride_tricks.sliding_window_view(waveform, config.PATCH_SAMPLES)
    return np.ascontiguousarray(every[:: config.PATCH_HOP_SAMPLES])


def shared_weights(described: Described, numbers: np.ndarray, audioset: Mapping[str, np.ndarray]) -> dict:
    """Return what all members share: principal components, AudioSet logits, acoustic scale, the embedding of silence.

    Parameters
    ----------
    described : Described
    numbers : ndarray of int
        The mixtures that may be used.
    audioset : mapping
        kernel (1024, 521), bias (521,), names (521,) and silence (1024,), from YAMNet.
    """
    chosen = numbers[:: max(1, len(numbers) // 700)]
    rows = described.embeddings[chosen].reshape(-1, described.embeddings.shape[-1]).astype(np.float32)
    is_loud = described.levels[chosen].ravel() > QUIET_DB
    rows, acoustic = rows[is_loud], described.acoustics[chosen].reshape(len(is_loud), -1)[is_loud]
    mean = rows.mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov(rows - mean, rowvar=False))
    best = np.argsort(-spread)[:N_COMPONENTS]
    components = (axes[:, best] / (np.sqrt(spread[best]) + 0.05)).T.astype(np.float32)
    classes = [
        number
        for number, name in enumerate(audioset["names"])
        if number < FIRST_CLASSES or any(word in str(name).lower() for word in CLASS_WORDS)
    ]
    return {
        "component_w": components,
        "component_b": -components @ mean,
        "audioset_w": np.ascontiguousarray(audioset["kernel"][:, classes].T / 4),
        "audioset_b": audioset["bias"][classes] / 4 + 1,
        "acoustic_mean": acoustic.mean(axis=0),
        "acoustic_spread": acoustic.std(axis=0) + 1e-3,
        "silence": audioset["silence"],
    }


def inputs_of(embeddings: np.ndarray, acoustic: np.ndarray, shared: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return components, scores and acoustic features, scaled, of patches (..., 1024), (..., 36): float16 (..., n)."""
    blocks, shape = [], embeddings.shape[:-1]
    embeddings, acoustic = embeddings.reshape(-1, embeddings.shape[-1]), acoustic.reshape(-1, acoustic.shape[-1])
    for start in range(0, len(embeddings), 4096):
        block = slice(start, start + 4096)
        parts = FrameNetwork(shared).inputs(embeddings[block].astype(np.float32), acoustic[block])
        blocks.append(np.concatenate(list(parts.values()), axis=1).astype(np.float16))
    return np.concatenate(blocks).reshape(*shape, -1)


class Temporal(nn.Module):
    """Inputs (n, n_patches, n_inputs) and levels in dBFS (n, n_patches) to logits (n, n_patches, 2) of the frames."""

    def __init__(self, n_inputs: int, member: Sequence[str]) -> None:
        super().__init__()
        self.sizes = {"embedding": N_COMPONENTS, "score": 0, "acoustic": acoustics.N_FEATURES}  # of the inputs
        self.sizes["score"] = n_inputs - sum(self.sizes.values())
        for name, size in self.sizes.items():
            layer = nn.Linear(size, HIDDEN[name])
            if name not in member:
                for values in layer.requires_grad_(False).parameters():
                    nn.init.zeros_(values)
            self.add_module(name, layer)
        self.conv1 = nn.Conv1d(sum(HIDDEN[name] for name in self.sizes) + 1, HIDDEN["conv"], KERNEL)
        self.conv2 = nn.Conv1d(HIDDEN["conv"], HIDDEN["conv"], KERNEL)
        self.out = nn.Linear(HIDDEN["conv"], len(EVENT_LABELS))
        nn.init.constant_(self.out.bias, -2.0)

    def forward(self, inputs: torch.Tensor, levels_db: torch.Tensor) -> torch.Tensor:
        """Return the logits; a frame depends on the patches from 7 before to 1 after, zeros beyond the ends."""
        parts = zip(self.sizes, inputs.split(list(self.sizes.values()), dim=-1), strict=True)
        hidden = [self.get_submodule(name)(self._drop(part, name)).relu() for name, part in parts]
        level = ((levels_db - LEVEL_CENTRE_DB) / LEVEL_SPREAD_DB)[..., None]
        mixed = self._drop(torch.cat([*hidden, level], dim=-1).transpose(1, 2), "conv")
        mixed = self.conv1(functional.pad(mixed, (KERNEL - 1 - FUTURE_PATCHES, FUTURE_PATCHES))).relu()
        mixed = self.conv2(functional.pad(self._drop(mixed, "conv"), (KERNEL - 1, 0))).relu()
        return self.out(mixed.transpose(1, 2))

    def _drop(self, values: torch.Tensor, name: str) -> torch.Tensor:
        return functional.dropout(values, DROPOUT[name], self.training)

    def weights(self, number: int) -> dict[str, np.ndarray]:
        """Return the weights under the names of `lib.detector.FrameNetwork`, as member `number`."""
        renamed = {
            f"{name[:-7]}_w" if name.endswith("weight") else f"{name[:-5]}_b": name for name in self.state_dict()
        }
        return {f"{number}.{new}": self.state_dict()[old].numpy() for new, old in renamed.items()}


def train(
    described: Described,
    numbers: np.ndarray,
    audioset: Mapping[str, np.ndarray],
    *,
    members: Sequence[Sequence[str]] = MEMBERS,
    steps: int = STEPS,
    seed: int = SEED,
) -> FrameNetwork:
    """Train the members on some mixtures; they differ in their seed and in what they are given.

    Parameters
    ----------
    described : Described
    numbers : ndarray of int
        The mixtures to train on.
    audioset : mapping
        As in `shared_weights`.
    members : sequence of sequence of str
        What each member is given, as in `MEMBERS`.
    steps, seed : int
    """
    shared = shared_weights(described, numbers, audioset)
    inputs = inputs_of(described.embeddings[numbers], described.acoustics[numbers], shared)
    given = inputs, described.levels[numbers], described.labels[numbers]
    weights = {name: value.astype(np.float32) for name, value in shared.items()}
    for number, member in enumerate(members):
        weights |= _fit(*given, member=member, steps=steps, seed=seed + number).weights(number)
    return FrameNetwork(weights)


def leave_one_out(described: Described, audioset: Mapping[str, np.ndarray], **options: Any) -> dict[str, FrameNetwork]:
    """Train the detector's networks without each corpus group."""
    networks = {}
    for name in described.groups.columns:
        networks[name] = train(described, described.without(name), audioset, **options)
        log.info("trained without %s", name)
    return networks


def audioset_of(embed: Embed) -> dict[str, np.ndarray]:
    """Return what `train` needs of TF-Hub's YAMNet: its AudioSet head, and the embedding of silence by `embed`."""
    from lib.networks import yamnet_backbone  # here: TensorFlow takes seconds to import

    names, kernel, bias = yamnet_backbone.from_hub().all_scores  # type: ignore[misc]  # the hub has them
    silence = embed(np.zeros((1, config.PATCH_SAMPLES), dtype=np.float32))[0]
    return {"kernel": kernel, "bias": bias, "names": np.array(names), "silence": silence}


def _fit(
    inputs: np.ndarray, levels: np.ndarray, labels: np.ndarray, *, member: Sequence[str], steps: int, seed: int
) -> Temporal:
    """Minimise the cross-entropy of the frames that count, with AdamW and one cycle of the learning rate."""
    torch.manual_seed(seed)
    rng, network = np.random.default_rng(seed), Temporal(inputs.shape[-1], member)
    optimiser = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    order = np.empty(0, dtype=int)
    for _ in range(steps):
        order = order if len(order) >= BATCH else np.concatenate([order, rng.permutation(len(inputs))])
        batch, order = np.sort(order[:BATCH]), order[BATCH:]
        given = torch.from_numpy(inputs[batch]).float(), torch.from_numpy(levels[batch]).float()
        targets = torch.from_numpy(labels[batch]).float()
        counted = (targets >= 0).float()
        losses = functional.binary_cross_entropy_with_logits(network(*given), targets.clamp(0, 1), reduction="none")
        optimiser.zero_grad()
        ((losses * counted).sum() / counted.sum()).backward()
        optimiser.step()
        schedule.step()
    return network.eval()
