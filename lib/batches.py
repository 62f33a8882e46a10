"""Draws training batches of clips: balanced, cropped, augmented, and the same again for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lib import augment, config

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class ClipSampler:
    """Random batches of training clips.

    Every draw depends on (seed, epoch, batch number) alone, so a run can be repeated whatever the number of workers.

    Parameters
    ----------
    waveforms : sequence of ndarray
        Training clips, each (n_samples,), 16 kHz.
    class_ids : ndarray of int, shape (n_clips,)
    weights : ndarray, shape (n_clips,)
        Chance of drawing each clip, up to a factor.
    batch_size : int
    n_clips_per_epoch : int
        Clips drawn an epoch, with replacement; whole batches only.
    transform : callable, optional
        (waveform, generator) -> waveform: crop and augmentation.
    seed : int
    """

    waveforms: Sequence[np.ndarray]
    class_ids: np.ndarray
    weights: np.ndarray
    batch_size: int
    n_clips_per_epoch: int
    transform: Transform | None = None
    seed: int = 0

    def __len__(self) -> int:
        """Return the number of batches an epoch."""
        return max(1, self.n_clips_per_epoch // self.batch_size)

    def draw(self, epoch: int, number: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the waveforms and class ids of one batch."""
        rng = np.random.default_rng([self.seed, epoch, number])
        chance = self.weights / self.weights.sum()
        rows = rng.choice(len(self.waveforms), size=self.batch_size, p=chance)
        clips = [self.waveforms[row] for row in rows]
        if self.transform is not None:
            clips = [self.transform(clip, rng) for clip in clips]
        return clips, self.class_ids[rows]


def changed_twins(
    waveforms: Sequence[np.ndarray],
    class_ids: np.ndarray,
    weights: np.ndarray,
    *,
    n_samples: int,
    p_changed: float,
    batch_size: int,
    n_clips_per_epoch: int,
    seed: int,
) -> ClipSampler:
    """Return batches of crops, each beside its twin: the same sound, often changed by a room, a microphone or a codec.

    For training with two tasks: the class of the twin, and what a frozen network makes of the crop unchanged.

    Parameters
    ----------
    waveforms, class_ids, weights, batch_size, n_clips_per_epoch, seed
        As for `ClipSampler`. Normal clips among the waveforms serve as backgrounds.
    n_samples : int
        Length of a crop; a shorter clip is repeated.
    p_changed : float
        Chance that a twin is changed at all.

    Returns
    -------
    ClipSampler
        Whose clips are (2, n_samples): the crop, then its twin.
    """
    background = [clip for clip, label in zip(waveforms, class_ids, strict=True) if label == config.CLASS_ID["normal"]]

    def twins(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        crop = augment.random_crop(clip, n_samples, rng)
        changed = rng.random() < p_changed
        twin = augment.augment(crop, rng, background=background, settings=augment.RECORDING) if changed else crop
        return np.stack([crop, twin])

    return ClipSampler(waveforms, class_ids, weights, batch_size, n_clips_per_epoch, twins, seed)


def mixup(
    clips: Sequence[np.ndarray], targets: np.ndarray, rng: np.random.Generator, *, alpha: float
) -> tuple[list[np.ndarray], np.ndarray]:
    """Mix every clip of a batch with another one, and their targets alike (Zhang et al. 2018, mixup).

    Parameters
    ----------
    clips : sequence of ndarray, each (n_samples,)
        All of one length.
    targets : ndarray, (n_clips, n_classes)
        One-hot or soft labels.
    rng : Generator
    alpha : float
        Of Beta(alpha, alpha), from which each share is drawn; 0 changes nothing, small values change little.

    Returns
    -------
    list of ndarray, each (n_samples,), and ndarray, (n_clips, n_classes)
    """
    if not alpha:
        return list(clips), targets
    share = rng.beta(alpha, alpha, size=len(clips)).astype(np.float32)
    share = np.maximum(share, 1 - share)  # the clip itself stays the louder one
    partners = rng.permutation(len(clips))
    mixed = [a * clip + (1 - a) * clips[other] for a, clip, other in zip(share, clips, partners, strict=True)]
    return mixed, share[:, None] * targets + (1 - share[:, None]) * targets[partners]
