"""Gated attention over patch embeddings, the rival of mean and maximum in the pooling comparison (lib.studies.study)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import augment, config, manifest

N_STEPS, BATCH_SIZE, LEARNING_RATE = 600, 64, 2e-3
MAX_PATCHES = 24


class AttentionHead(nn.Module):
    """Embeddings (n_clips, n_patches, n_units) to logits (n_clips, 3) by a weighted mean of the patches.

    The weights are a softmax over patches of a gated score (Ilse et al. 2018, "Attention-based deep multiple instance
    learning", equation 9).
    """

    def __init__(self, n_units: int, n_hidden: int = 64) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(n_units, n_hidden), nn.Linear(n_units, n_hidden)
        self.score = nn.Linear(n_hidden, 1)
        self.classify = nn.Sequential(nn.Dropout(0.5), nn.Linear(n_units, len(config.CLASS_NAMES)))

    def forward(self, patches: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return logits; patches that are not `valid` (n_clips, n_patches) weigh nothing."""
        score = self.score(torch.tanh(self.value(patches)) * torch.sigmoid(self.gate(patches))).squeeze(-1)
        weights = torch.softmax(score.masked_fill(~valid, -torch.inf), dim=1)
        return self.classify((weights[..., None] * patches).sum(dim=1))


def probe(rows: pd.DataFrame, embeddings: Sequence[np.ndarray], *, families: np.ndarray, seed: int) -> np.ndarray:
    """Return probabilities (n_clips, 3), each family's from a head that never met it.

    Parameters
    ----------
    rows : DataFrame
        Manifest rows.
    embeddings : sequence of ndarray (n_patches, n_units)
        Of each clip; standardised here on the clips met.
    families : ndarray of str
        The family of each row.
    """
    class_ids = torch.tensor(manifest.class_ids(rows))
    patches, valid = _pad(embeddings)
    answers = np.full((len(rows), len(config.CLASS_NAMES)), np.nan)
    for name in np.unique(families):
        met = families != name
        known = patches[met][valid[met]]
        scaled = (patches - known.mean(dim=0)) / (known.std(dim=0) + 1e-3)
        weights = augment.balanced_weights(rows[met], smoothing=0.75, class_smoothing=0.5)
        head = _fit(scaled[met], valid[met], class_ids[met], weights=weights, seed=seed)
        with torch.inference_mode():
            answers[~met] = torch.softmax(head(scaled[~met], valid[~met]), dim=1).numpy()
    return answers


def _pad(embeddings: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return patches (n_clips, n_patches, n_units), at most `MAX_PATCHES` of each clip, and which of them are real."""
    parts = [torch.from_numpy(np.asarray(part[:MAX_PATCHES], dtype=np.float32)) for part in embeddings]
    patches = nn.utils.rnn.pad_sequence(parts, batch_first=True)
    lengths = torch.tensor([len(part) for part in parts])
    return patches, torch.arange(patches.shape[1])[None] < lengths[:, None]


def _fit(
    patches: torch.Tensor, valid: torch.Tensor, class_ids: torch.Tensor, *, weights: np.ndarray, seed: int
) -> AttentionHead:
    torch.manual_seed(seed)
    head = AttentionHead(patches.shape[-1])
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    rng = np.random.default_rng(seed)
    for _ in range(N_STEPS):
        batch = torch.from_numpy(rng.choice(len(patches), size=BATCH_SIZE, p=weights))
        loss = nn.functional.cross_entropy(head(patches[batch], valid[batch]), class_ids[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()
