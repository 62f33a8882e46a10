"""A published AudioSet tagger beside YAMNet: EfficientAT's mn04_as, of 527 classes.

It is given 32 kHz; what is written down again here is the architecture, a MobileNetV3 (Howard et al. 2019, table 1) of
width 0.4. Its weights are as published: Schmid et al. 2023, Efficient large-scale audio tagging via
transformer-to-CNN knowledge distillation.
"""

from __future__ import annotations

import csv
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import nn
from torch.nn import functional
from transformers.audio_utils import mel_filter_bank

from lib import config
from lib.corpora import download

SAMPLE_RATE_HZ = 32_000
FFT_SAMPLES, HOP_SAMPLES = 1024, 320  # a spectrum every 10 ms
N_CLASSES = 527
WIDTH = 0.4  # of all layers, to MobileNetV3-Large
BATCH_SIZE = 16
WEIGHTS_VARIABLE = "AUDIOSET_WEIGHTS_DIR"  # a folder that holds the files below; without it they are downloaded
CACHE_DIR = config.BUILD_DIR / "cache" / "audioset"


class WeightsUnavailableError(RuntimeError):
    """A published file is neither in the folder that AUDIOSET_WEIGHTS_DIR names nor reachable."""


@dataclass(frozen=True)
class Published:
    """A file as its authors published it."""

    file: str
    url: str
    sha256: str

    def path(self) -> Path:
        """Return where the file is, downloaded and compared with its SHA-256 where it has to be.

        Raises
        ------
        WeightsUnavailableError
        """
        for path in (Path(folder, self.file) for folder in (os.environ.get(WEIGHTS_VARIABLE), CACHE_DIR) if folder):
            if path.is_file() and pooch.file_hash(str(path)) == self.sha256:
                return path
        try:
            if download.is_offline():
                raise OSError("AUDIO_OFFLINE is set")
            pooch.get_logger().setLevel("ERROR")
            return Path(pooch.retrieve(self.url, f"sha256:{self.sha256}", fname=self.file, path=CACHE_DIR))
        except (OSError, ValueError) as error:
            raise WeightsUnavailableError(
                f"{self.file} is not available: {WEIGHTS_VARIABLE} names no folder that holds it as published, and "
                f"{self.url} cannot be fetched ({type(error).__name__})."
            ) from error


CLASSES = Published(
    "audioset_class_labels_indices.csv",
    "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/class_labels_indices.csv",
    "cdd1049833c4b86127c2773ac0d14a2754b6a6d0d1798002ed5c66e699708429",
)
WEIGHTS = Published(
    "mn04_as_mAP_432.pt",
    "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt",
    "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
)


class LogMel(nn.Module):
    """Waveforms (n, n_samples) at 32 kHz to log-mel (n, 1, 128, n_frames), after a pre-emphasis."""

    def __init__(self) -> None:
        super().__init__()
        scale = {"mel_scale": "kaldi", "triangularize_in_mel_space": True}
        mels = mel_filter_bank(FFT_SAMPLES // 2 + 1, 128, 0.0, 15_000.0, SAMPLE_RATE_HZ, **scale)
        self.register_buffer("window", torch.hann_window(800, periodic=False), persistent=False)
        self.register_buffer("mels", torch.from_numpy(mels.T).float(), persistent=False)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return the log-mel of each waveform."""
        waveforms = waveforms[:, 1:] - 0.97 * waveforms[:, :-1]
        window = {"win_length": len(self.window), "window": self.window}
        spectrum = torch.stft(waveforms, FFT_SAMPLES, HOP_SAMPLES, return_complex=True, **window)
        return ((self.mels @ spectrum.abs().square() + 1e-5).log() + 4.5)[:, None] / 5


# MobileNetV3-Large: (kernel, expanded, out, squeeze and excite, hard swish, stride) at width 1.
_ROWS = (
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)  # fmt: skip


def mn04_as() -> nn.Sequential:
    """Build mn04_as with random weights: waveforms (n, n_samples) at 32 kHz to logits (n, 527)."""
    n_in = _eighth(16 * WIDTH)
    blocks: list[nn.Module] = [_convolution(1, n_in, 3, stride=2, activation=nn.Hardswish)]
    for kernel, expanded, out, is_excited, is_swish, stride in _ROWS:
        sizes = n_in, _eighth(expanded * WIDTH), _eighth(out * WIDTH)
        blocks.append(_Bottleneck(sizes, kernel, stride=stride, is_excited=is_excited, is_swish=is_swish))
        n_in = sizes[-1]
    blocks.append(_convolution(n_in, 6 * n_in, 1, activation=nn.Hardswish))
    n_hidden = _eighth(1280 * WIDTH)
    head = nn.Linear(6 * n_in, n_hidden), nn.Hardswish(), nn.Dropout(), nn.Linear(n_hidden, N_CLASSES)
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
    return nn.Sequential(LogMel(), nn.Sequential(OrderedDict(features=nn.Sequential(*blocks), classifier=classifier)))


def _eighth(size: float) -> int:
    """Round to a multiple of 8, at least 8 and not below 90 %, as MobileNets do."""
    rounded = max(8, int(size + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * size else rounded


def _convolution(
    n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: Callable = nn.Identity
) -> nn.Sequential:
    layer = nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(n_out, eps=1e-3), activation())


class _Bottleneck(nn.Module):
    """An inverted residual: expand, filter each channel by itself, weigh the channels, project."""

    def __init__(self, sizes: Sequence[int], kernel: int, *, stride: int, is_excited: bool, is_swish: bool) -> None:
        super().__init__()
        n_in, n_expanded, n_out = sizes
        convolution = partial(_convolution, activation=nn.Hardswish if is_swish else nn.ReLU)
        layers = [] if n_expanded == n_in else [convolution(n_in, n_expanded, 1)]
        layers.append(convolution(n_expanded, n_expanded, kernel, stride=stride, groups=n_expanded))
        layers += [_Excitation(n_expanded)] if is_excited else []
        self.block = nn.Sequential(*layers, _convolution(n_expanded, n_out, 1))
        self.is_residual = stride == 1 and n_in == n_out

    def forward(self, net: torch.Tensor) -> torch.Tensor:
        return self.block(net) + net if self.is_residual else self.block(net)


class _Excitation(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        n_squeezed = _eighth(size // 4)
        layers = {"fc1": nn.Linear(size, n_squeezed), "fc2": nn.Linear(n_squeezed, size)}
        self.conc_se_layers = nn.ModuleList([nn.ModuleDict(layers)])

    def forward(self, net: torch.Tensor) -> torch.Tensor:
        layers = self.conc_se_layers[0]
        scale = layers["fc2"](functional.relu(layers["fc1"](net.mean(dim=(2, 3)))))
        return net * scale.sigmoid()[:, :, None, None]


def class_names() -> tuple[str, ...]:
    """Return the 527 AudioSet names in the network's order; WeightsUnavailableError where the list is missing."""
    with CLASSES.path().open(encoding="utf-8", newline="") as file:
        return tuple(row["display_name"] for row in csv.DictReader(file))


def load() -> nn.Module:
    """Return mn04_as with its published weights: waveforms at 32 kHz to logits (n, 527).

    Raises
    ------
    WeightsUnavailableError
    """
    network = mn04_as()
    network[1].load_state_dict(torch.load(WEIGHTS.path(), map_location="cpu", weights_only=True))
    return network.eval()


def scores(network: nn.Module, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """Return AudioSet class scores (n, 527), each 0 to 1, of waveforms of one length at 32 kHz."""
    starts = range(0, len(waveforms), BATCH_SIZE)
    with torch.inference_mode():
        batches = (torch.from_numpy(np.stack(waveforms[start : start + BATCH_SIZE])) for start in starts)
        return np.concatenate([network(batch).sigmoid().numpy() for batch in batches])
