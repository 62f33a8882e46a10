"""The compact Wav2Vec2 before it is pretrained: initial weights, optimiser groups, and how its backbone is saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from lib import config
from lib.wav2vec2 import CHECKPOINT_FILE, ClipClassifier, labels

# Of transformers' configuration: all off, for dropout takes a third of a step on a CPU; augmentation does its work.
DROPOUTS = (
    "hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout", "layerdrop",
)  # fmt: skip
BAND_HZ = (80.0, 7600.0)  # of the first filters


def compact_config() -> Wav2Vec2Config:
    """Return a configuration of 5.7 million parameters that trains on a CPU.

    Four convolutions take 16 kHz to 25 frames a second (Wav2Vec2: seven, 50 frames); the first has a stride of 20
    samples, so the costly high-rate layers are few and narrow. Layer norm in place of group norm keeps padding from
    leaking into the valid frames, and pre-norm ("stable layer norm") lets six layers train from initial weights.
    """
    return Wav2Vec2Config(
        conv_dim=(128, 128, 192, 256),
        conv_kernel=(256, 8, 8, 4),
        conv_stride=(20, 4, 4, 2),
        num_feat_extract_layers=4,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=1024,
        num_conv_pos_embeddings=64,
        num_conv_pos_embedding_groups=16,
        **dict.fromkeys(DROPOUTS, 0.0),
        mask_time_prob=0.05,
        mask_time_length=4,
        **labels(),
    )


def initial_model() -> ClipClassifier:
    """Return the compact network with random weights, but for its first convolution: that starts as a filterbank."""
    model = ClipClassifier(compact_config())
    weight = model.wav2vec2.feature_extractor.conv_layers[0].conv.weight
    filters = gabor_filters(weight.shape[0], weight.shape[-1])
    weight.data.copy_(torch.from_numpy(filters)[:, None])
    return model


def gabor_filters(n_filters: int, n_samples: int) -> np.ndarray:
    """Return Gabor filters spaced evenly in mels, in cosine and sine pairs, each with mean 0 and norm 1.

    Their bandwidth is that of the triangular mel filter they stand for, as far as it fits into `n_samples` (Zeghidour
    et al. 2018, "Learning filterbanks from raw speech for phone recognition", section 2).

    Returns
    -------
    ndarray, float32, shape (n_filters, n_samples)
    """
    low_mel, high_mel = 2595 * np.log10(1 + np.array(BAND_HZ) / 700)
    edges_mel = np.linspace(low_mel, high_mel, n_filters // 2 + 2)
    edges_hz = 700 * (10 ** (edges_mel / 2595) - 1)
    seconds = (np.arange(n_samples) - (n_samples - 1) / 2) / config.SAMPLE_RATE_HZ
    half_width_hz = (edges_hz[2:] - edges_hz[:-2]) / 2  # a triangle is half as high half way to its edge
    sigma_seconds = np.sqrt(2 * np.log(2)) / (2 * np.pi * half_width_hz / 2)
    sigma_seconds = np.minimum(sigma_seconds, n_samples / config.SAMPLE_RATE_HZ / 5)[:, None]
    envelope = np.exp(-(seconds**2) / (2 * sigma_seconds**2))
    phase = 2 * np.pi * edges_hz[1:-1, None] * seconds
    filters = np.stack([envelope * np.cos(phase), envelope * np.sin(phase)], axis=1).reshape(-1, n_samples)
    filters -= filters.mean(axis=1, keepdims=True)
    return (filters / np.linalg.norm(filters, axis=1, keepdims=True)).astype(np.float32)


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict]:
    """Return AdamW's parameter groups: weight decay on matrices and convolutions, none on biases and norms."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def save_backbone(backbone: Wav2Vec2Model, folder: Path, *, record: dict) -> Path:
    """Write a network without head, in half precision, and training.json; return the path of the weights."""
    half = {name: value.detach().cpu().half() for name, value in backbone.state_dict().items()}
    backbone.config.save_pretrained(folder)
    path = Path(folder) / CHECKPOINT_FILE
    save_file(half, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes it readable to its owner alone
    config.write_json(folder / config.RECORD_FILE, record)
    return path
