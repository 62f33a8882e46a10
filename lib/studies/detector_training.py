"""Trains the detector on mixtures, once for the product and once without each corpus group.

Frozen YAMNet describes every patch of the mixtures once (3 ms a patch); the temporal networks train on that in
minutes. PyTorch trains them; `lib.detector` runs them in NumPy. Each network sees the embedding through its first
`N_COMPONENTS` principal components (of the mixtures that it trains on), and YAMNet's logits of the AudioSet classes
that bear on the question; dropout on both is what keeps it from learning corpora by heart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from lib import config
from lib.detector import (
    COMPONENT_RANGE,
    FUTURE_PATCHES,
    KERNEL,
    LEVEL_CENTRE_DB,
    LEVEL_SPREAD_DB,
    SCORE_RANGE,
    Embed,
    FrameNetwork,
    embed_with_gate,
    levels_db,
)
from lib.events import EVENT_LABELS
from lib.studies import mixtures, soundscapes
from lib.studies.mixtures import N_PATCHES, Material

N_MIXTURES, PER_SEED = 2500, 2000
SEED = 7
N_COMPONENTS = 160
HIDDEN = {"embedding": 40, "scores": 28, "conv": 40}
DROPOUT = {"embedding": 0.4, "scores": 0.2}
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 900, 32, 3e-3, 3e-3
MEMBERS = ("both", "both", "scores", "scores")  # what each is given; "scores": AudioSet's alone, not the components
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
    levels : ndarray, (n_mixtures, 32)
        In dBFS.
    labels : ndarray of int8, (n_mixtures, 32, 2)
        -1 (counts for nothing), 0, 1.
    groups : DataFrame of bool, n_mixtures rows
        Which corpus groups each mixture holds clips of.
    """

    embeddings: np.ndarray
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
    """Render mixtures one at a time and keep what YAMNet makes of them: about 0.13 s each."""
    silence = embed(np.zeros((1, config.PATCH_SAMPLES), dtype=np.float32))[0]
    names = sorted(set(material.rows["corpus_group"]))
    embeddings = np.empty((n_mixtures, N_PATCHES, len(silence)), dtype=np.float16)
    levels = np.empty((n_mixtures, N_PATCHES), dtype=np.float32)
    labels = np.empty((n_mixtures, N_PATCHES, len(EVENT_LABELS)), dtype=np.int8)
    groups = np.zeros((n_mixtures, len(names)), dtype=bool)
    for number in range(n_mixtures):
        rng = np.random.default_rng([seed + number // PER_SEED, number % PER_SEED])
        mixture = mixtures.mixture(material, rng)
        patches = patches_of(mixture.waveform)
        embeddings[number] = embed_with_gate(patches, embed, silence=silence)
        levels[number], labels[number] = levels_db(patches), mixture.labels
        groups[number] = [name in set(material.rows["corpus_group"].iloc[list(mixture.rows)]) for name in names]
        if number % 500 == 0:
            log.info("mixture %d of %d", number, n_mixtures)
    return Described(embeddings, levels, labels, pd.DataFrame(groups, columns=names))


def patches_of(waveform: np.ndarray) -> np.ndarray:
    """Return the patches (n_patches, 15600) on the grid of a waveform that is no shorter than one."""
    every = np.lib.stride_tricks.sliding_window_view(waveform, config.PATCH_SAMPLES)
    return np.ascontiguousarray(every[:: config.PATCH_HOP_SAMPLES])


def save_described(described: Described, path: Path) -> None:
    """Keep described mixtures for another training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = np.array(list(described.groups.columns))
    arrays = {name: getattr(described, name) for name in ("embeddings", "levels", "labels")}
    np.savez(path, groups=described.groups.to_numpy(bool), names=names, **arrays)


def load_described(path: Path) -> Described:
    """Read what `save_described` wrote."""
    with np.load(path) as kept:
        groups = pd.DataFrame(kept["groups"], columns=list(kept["names"]))
        return Described(kept["embeddings"], kept["levels"], kept["labels"], groups)


def shared_weights(described: Described, numbers: np.ndarray, audioset: Mapping[str, np.ndarray]) -> dict:
    """Return what all members share: principal components, AudioSet logits, the embedding of silence.

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
    rows = rows[described.levels[chosen].ravel() > QUIET_DB]
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
        "silence": audioset["silence"],
    }


def inputs_of(embeddings: np.ndarray, shared: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return components and scores of embeddings (..., 1024) as float16 (..., n_inputs)."""
    rows = embeddings.reshape(-1, embeddings.shape[-1])
    blocks = []
    for start in range(0, len(rows), 4096):
        block = rows[start : start + 4096].astype(np.float32)
        components = np.clip(block @ shared["component_w"].T + shared["component_b"], -COMPONENT_RANGE, COMPONENT_RANGE)
        scores = np.clip(block @ shared["audioset_w"].T + shared["audioset_b"], *SCORE_RANGE)
        blocks.append(np.concatenate([components, scores], axis=1).astype(np.float16))
    return np.concatenate(blocks).reshape(*embeddings.shape[:-1], -1)


class Temporal(nn.Module):
    """Inputs (n, n_patches, n_inputs) and levels in dBFS (n, n_patches) to logits (n, n_patches, 2) of the frames."""

    def __init__(self, n_inputs: int, *, with_embedding: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Linear(N_COMPONENTS, HIDDEN["embedding"])
        self.score = nn.Linear(n_inputs - N_COMPONENTS, HIDDEN["scores"])
        self.conv1 = nn.Conv1d(HIDDEN["embedding"] + HIDDEN["scores"] + 1, HIDDEN["conv"], KERNEL)
        self.conv2 = nn.Conv1d(HIDDEN["conv"], HIDDEN["conv"], KERNEL)
        self.out = nn.Linear(HIDDEN["conv"], len(EVENT_LABELS))
        nn.init.constant_(self.out.bias, -2.0)
        if not with_embedding:
            self.embedding.requires_grad_(False)
            for part in self.embedding.parameters():
                nn.init.zeros_(part)

    def forward(self, inputs: torch.Tensor, levels_db: torch.Tensor) -> torch.Tensor:
        """Return the logits; a frame depends on the patches from 7 before to 1 after, zeros beyond the ends."""
        embedding = self._drop(inputs[..., :N_COMPONENTS], "embedding")
        scores = self._drop(inputs[..., N_COMPONENTS:], "scores")
        level = ((levels_db - LEVEL_CENTRE_DB) / LEVEL_SPREAD_DB)[..., None]
        hidden = torch.cat([self.embedding(embedding).relu(), self.score(scores).relu(), level], dim=-1)
        hidden = self._drop(hidden.transpose(1, 2), "scores")
        hidden = self.conv1(functional.pad(hidden, (KERNEL - 1 - FUTURE_PATCHES, FUTURE_PATCHES))).relu()
        hidden = self.conv2(functional.pad(self._drop(hidden, "scores"), (KERNEL - 1, 0))).relu()
        return self.out(hidden.transpose(1, 2))

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
    members: Sequence[str] = MEMBERS,
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
    members : sequence of str
        "both" or "scores", for each member.
    steps, seed : int
    """
    shared = shared_weights(described, numbers, audioset)
    inputs = inputs_of(described.embeddings[numbers], shared)
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


def _fit(inputs: np.ndarray, levels: np.ndarray, labels: np.ndarray, *, member: str, steps: int, seed: int) -> Temporal:
    """Minimise the cross-entropy of the frames that count, with AdamW and one cycle of the learning rate."""
    torch.manual_seed(seed)
    rng, network = np.random.default_rng(seed), Temporal(inputs.shape[-1], with_embedding=member == "both")
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
