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
        Clips drawn per epoch, with replacement; whole batches only.
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
        """Return the number of batches per epoch."""
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


def augmented_pairs(
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
    """Return batches of crops, each beside an augmented copy of itself.

    For training with two tasks: the class of the copy, and the frozen network's features of the crop as it is.

    Parameters
    ----------
    waveforms, class_ids, weights, batch_size, n_clips_per_epoch, seed
        As for `ClipSampler`. Normal clips among the waveforms serve as backgrounds.
    n_samples : int
        Length of a crop; a shorter clip is repeated.
    p_changed : float
        Chance that a copy is changed at all.

    Returns
    -------
    ClipSampler
        Whose clips are (2, n_samples): the crop, then its copy.
    """
    background = [clip for clip, label in zip(waveforms, class_ids, strict=True) if label == config.CLASS_ID["normal"]]

    def pair(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        crop = augment.random_crop(clip, n_samples, rng)
        if rng.random() >= p_changed:
            return np.stack([crop, crop])
        return np.stack([crop, augment.augment(crop, rng, background=background, settings=augment.RECORDING)])

    return ClipSampler(waveforms, class_ids, weights, batch_size, n_clips_per_epoch, pair, seed)
