"""Pretrains the compact Wav2Vec2 without labels, on the training groups: `python -m lib.studies.pretraining`.

Every 0.48 s the network predicts YAMNet's embedding of the clean sound and its scores of 23 AudioSet classes, while it
is given the sound changed by microphones, rooms, codecs and backgrounds (after Hinton et al. 2015, "Distilling the
knowledge in a neural network"; features as targets: Romero et al. 2015, "FitNets"). Predicting the log-mel of masked
frames, and wav2vec 2.0's contrastive objective, were tried too: pretraining_tried.csv.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import Wav2Vec2Model, get_cosine_schedule_with_warmup, set_seed

from lib import audio, augment, config, manifest, wav2vec2
from lib.config import PATCH_HOP_SAMPLES, PATCH_SAMPLES
from lib.networks.frozen_features import CLIPS_PER_BLOCK
from lib.reporting import cards, environment
from lib.studies import compact_wav2vec2
from lib.waveforms import within_full_scale

CROP_PATCHES = 5  # of the teacher's patches: 2.9 s
CROP_SAMPLES = PATCH_SAMPLES + (CROP_PATCHES - 1) * PATCH_HOP_SAMPLES
FRAME_SAMPLES = 640  # one frame of the compact network
PATCH_HOP_FRAMES = PATCH_HOP_SAMPLES // FRAME_SAMPLES  # 12
PATCH_FRAMES = 22  # those whose receptive field (1,916 samples) is within the patch
TEACHER_UNITS = (1024, 23)  # of the embedding, and of the AudioSet class scores (lib.yamnet)
TEACHER_LIMIT = 5.0  # standard deviations: a rare burst of one unit must not rule the loss
N_VALIDATION_CROPS = 96
LEARNING_RATE = 5e-4
# Time must stay in step with the teacher: no shift, no tempo.
CHANGES = replace(augment.RECORDING, p_codec=0.1)
# Sound that the teacher is given beside the clips as they are: other speeds, and another clip under every second one.
SPEEDS = (0.7, 1.4)
P_MIXED, MIXED_SNR_DB = 0.5, (-5.0, 15.0)


@dataclass(frozen=True)
class Sound:
    """Unlabelled clips to learn from: waveforms of at least `CROP_SAMPLES`, the teacher's embeddings, their weights.

    `embeddings` holds (n_patches, 1047) per clip, standardised by unit, one patch every 0.48 s from the clip's start.
    """

    waveforms: list[np.ndarray]
    embeddings: list[np.ndarray]
    weights: np.ndarray

    def draw(self, batch_size: int, rng: np.random.Generator, *, change: bool) -> tuple[list[np.ndarray], torch.Tensor]:
        """Return crops, changed or not, and the teacher's features of them (batch_size, CROP_PATCHES, 1047)."""
        clips, targets = [], []
        for row in rng.choice(len(self.waveforms), size=batch_size, p=self.weights):
            patch = int(rng.integers((len(self.waveforms[row]) - CROP_SAMPLES) // PATCH_HOP_SAMPLES + 1))
            start = patch * PATCH_HOP_SAMPLES
            crop = self.waveforms[row][start : start + CROP_SAMPLES]
            background = [self.waveforms[rng.choice(len(self.waveforms), p=self.weights)]]
            clips.append(augment.augment(crop, rng, background=background, settings=CHANGES) if change else crop)
            targets.append(self.embeddings[row][patch : patch + CROP_PATCHES])
        return clips, torch.from_numpy(np.stack(targets))


class Distillation(nn.Module):
    """Predicts the teacher's embedding and class scores of each patch from the mean of the frames it spans."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = compact_wav2vec2.initial_model().wav2vec2
        size = self.backbone.config.hidden_size
        self.head = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, sum(TEACHER_UNITS)))

    def forward(self, clips: Sequence[np.ndarray], targets: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error over standardised units: class scores count as much as the embedding."""
        frames = self.backbone(**wav2vec2.collate(clips, wav2vec2.device())).last_hidden_state
        patches = frames.unfold(1, PATCH_FRAMES, PATCH_HOP_FRAMES).mean(dim=-1)[:, :CROP_PATCHES]
        parts = zip(self.head(patches).split(TEACHER_UNITS[0], -1), targets.split(TEACHER_UNITS[0], -1), strict=True)
        return torch.stack([nn.functional.mse_loss(guessed, wanted) for guessed, wanted in parts]).mean()


def standardise(frame: pd.DataFrame, waveforms: Sequence[np.ndarray], embeddings: Sequence[np.ndarray]) -> Sound:
    """Return what to learn from: sources and groups (of `frame`) count nearly alike, labels not at all.

    Waveforms (n_samples,) are from `tile`, so that crop and teacher are given the same sound; embeddings
    (n_patches, 1047) are the teacher's, standardised here.
    """
    weights = augment.balanced_weights(frame.assign(label="sound"))
    units = np.concatenate(embeddings)
    mean, spread = units.mean(axis=0), units.std(axis=0) + 1e-3
    scaled = [np.clip((e - mean) / spread, -TEACHER_LIMIT, TEACHER_LIMIT).astype(np.float32) for e in embeddings]
    return Sound(list(waveforms), scaled, weights)


def tile(waveform: np.ndarray) -> np.ndarray:
    """Repeat a waveform shorter than a crop, and drop the tail that fills no patch."""
    if len(waveform) < CROP_SAMPLES:
        return np.resize(waveform, CROP_SAMPLES)
    return waveform[: PATCH_SAMPLES + (len(waveform) - PATCH_SAMPLES) // PATCH_HOP_SAMPLES * PATCH_HOP_SAMPLES]


def copies(waveforms: Sequence[np.ndarray], n_copies: int, *, seed: int) -> list[np.ndarray]:
    """Return `n_copies` copies of every whole clip, in the clips' order each time: other speeds, half of them mixed.

    A teacher that predicts more sound than there are recordings keeps the student from learning these by heart
    (Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent").
    """
    rng, made = np.random.default_rng(seed), []
    for waveform in list(waveforms) * n_copies:
        rate_hz = round(config.SAMPLE_RATE_HZ / float(np.exp(rng.uniform(*np.log(SPEEDS)))))
        copied = within_full_scale(audio.resample(waveform, config.SAMPLE_RATE_HZ, rate_hz))  # pitch and tempo together
        if rng.random() < P_MIXED:
            background = augment.random_crop(waveforms[int(rng.integers(len(waveforms)))], len(copied), rng)
            copied = augment.mix(copied, background, snr_db=rng.uniform(*MIXED_SNR_DB))
        made.append(audio.equalise_level(copied))
    return made


def pretrain(
    sound: Sound,
    validation: Sound,
    *,
    n_steps: int,
    batch_size: int = 8,
    start: Wav2Vec2Model | None = None,
    report_steps: int = 250,
    seed: int = 7,
) -> Iterator[tuple[Wav2Vec2Model, dict]]:
    """Train, and yield the network with step, loss, validation loss and seconds every `report_steps`.

    The seed decides everything, as long as nobody draws from the global generators of numpy and torch between yields.
    Groups of `sound` and `validation` do not overlap; validation crops are fixed and not changed. `start` is a network
    of an earlier run, to go on from; it stays as it is.
    """
    set_seed(seed)
    objective = Distillation().to(wav2vec2.device())
    if start is not None:
        objective.backbone.load_state_dict(start.state_dict())
    weights = compact_wav2vec2.parameter_groups(objective, weight_decay=0.01)
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, n_steps // 20, n_steps)
    began, losses = time.monotonic(), []
    for step in range(n_steps):
        rng = np.random.default_rng([seed, step])
        clips, targets = sound.draw(batch_size, rng, change=True)
        objective.train().backbone.eval()  # no random masks
        loss = objective(clips, targets.to(wav2vec2.device()))
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % report_steps == 0 or step + 1 == n_steps:
            row = {"step": step + 1, "loss": float(np.mean(losses))}
            row["validation_loss"] = _validate(objective, validation)
            yield objective.backbone, row | {"seconds": round(time.monotonic() - began, 1)}
            losses = []


@torch.inference_mode()
def _validate(objective: nn.Module, validation: Sound) -> float:
    """Return the loss on fixed crops, without dropout."""
    objective.eval()
    rng, losses = np.random.default_rng(0), []
    for _ in range(N_VALIDATION_CROPS // 16):
        clips, targets = validation.draw(16, rng, change=False)
        losses.append(float(objective(clips, targets.to(wav2vec2.device()))))
    return float(np.mean(losses))


def between(first: Wav2Vec2Model, second: Wav2Vec2Model, *, share: float) -> Wav2Vec2Model:
    """Return a network whose weights lie between those of two, `share` of the way from the first to the second.

    Between a network and what it became by further training there is often a better one than either (Wortsman et al.
    2022, "Robust fine-tuning of zero-shot models", WiSE-FT).
    """
    middle, reached = copy.deepcopy(first), second.state_dict()
    weights = {name: torch.lerp(value, reached[name].to(value), share) for name, value in first.state_dict().items()}
    middle.load_state_dict(weights)
    return middle


def load_sound(split: str, *, n_copies: int = 0, seed: int = 7) -> tuple[Sound, str]:
    """Read the clips of one split of the grouped manifest, and YAMNet's features of them; say whose weights it has.

    With `n_copies` so many augmented copies of every clip are among them, see `copies`.

    Raises
    ------
    lib.networks.yamnet_backbone.HubUnavailableError
        If YAMNet's published weights are not available: no other teacher will do.
    """
    from lib import yamnet  # TensorFlow, for the teacher alone
    from lib.networks import yamnet_backbone

    frame = manifest.read(config.MANIFEST_PATH, splits=(split,))
    clips = manifest.load_waveforms(frame)
    waveforms = [tile(waveform) for waveform in [*clips, *copies(clips, n_copies, seed=seed)]]
    teacher = yamnet_backbone.from_hub()
    backbone, block = teacher.with_class_scores(), CLIPS_PER_BLOCK
    blocks = [waveforms[start : start + block] for start in range(0, len(waveforms), block)]
    embeddings = [patches for clips in blocks for patches in yamnet.embeddings(backbone, clips)]
    return standardise(pd.concat([frame] * (1 + n_copies)), waveforms, embeddings), teacher.description


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: write half-precision weights, the loss curve and what they were made from."""
    what = "Pretrain the compact Wav2Vec2."
    parser = argparse.ArgumentParser(prog="python -m lib.studies.pretraining", description=what)
    parser.add_argument("--steps", type=int, default=8000, help="batches (default: 8000, 35 minutes on two cores)")
    parser.add_argument("--batch-size", type=int, default=8, help="crops of 2.9 s")
    parser.add_argument("--copies", type=int, default=5, help="augmented copies of each clip, for the teacher too (5)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--start", type=Path, help="folder of an earlier run to go on from (take another seed)")
    parser.add_argument("--share", type=float, default=1.0, help="of the way from --start's weights that is kept (1)")
    parser.add_argument("--out", type=Path, default=wav2vec2.PRETRAINED_DIR)
    options = parser.parse_args(arguments)
    sound, teacher = load_sound("train", n_copies=options.copies, seed=options.seed)
    (validation, _), history = load_sound("validation"), []
    settings = {"n_steps": options.steps, "batch_size": options.batch_size, "seed": options.seed}
    earlier = {"start": config.read_record(options.start), "share": options.share} if options.start else {}
    first = wav2vec2.load_base(str(options.start))[0].wav2vec2 if options.start else None
    for backbone, row in pretrain(sound, validation, start=first, **settings):
        history.append(row)
        sys.stdout.write(" ".join(f"{name} {value:.4g}" for name, value in row.items()) + "\n")
        sys.stdout.flush()
        record = {"method": "distillation", "data_tier": environment.acquisition()["tier"], "teacher": teacher}
        n_clips = len(sound.waveforms) // (1 + options.copies)
        record |= {"n_clips": n_clips, "n_versions": options.copies, **settings, **row, **earlier}
        kept = between(first, backbone, share=options.share) if first else backbone
        compact_wav2vec2.save_backbone(kept, options.out, record=record)
        (options.out / "README.md").write_text(cards.pretrained_card(record), encoding="utf-8")
        pd.DataFrame(history).to_csv(options.out / wav2vec2.PRETRAINING_LOSS_FILE, index=False, float_format="%.5g")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
