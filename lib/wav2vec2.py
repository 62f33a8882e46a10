"""Wav2Vec2 for three classes: compact configuration, base weights, batches whose padding has no effect.

The lesson imports PyTorch and transformers here alone.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from huggingface_hub import constants, try_to_load_from_cache
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model, Wav2Vec2PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from lib import config
from lib.networks.onnx_networks import normalise

transformers.logging.set_verbosity_error()  # which weights are new is said by load_base, in one line
transformers.utils.logging.disable_progress_bar()

PRETRAINED_NAME = "facebook/wav2vec2-base"
PRETRAINED_DIR = config.MODELS_DIR / "wav2vec2_pretrained"  # written by lib.studies.pretraining, without labels
PRETRAINING_LOSS_FILE = "loss.csv"
CHECKPOINT_FILE = config.CHECKPOINT_FILES["wav2vec2"]
POOLINGS = "mean_maximum"  # of `pool`; names a folder of frozen_features' cache
HUB_TIMEOUT_SECONDS = 5.0


class ClipClassifier(Wav2Vec2PreTrainedModel):
    """A Wav2Vec2 with a linear head on the mean and the maximum of a clip's frames.

    The maximum keeps a short scream from being averaged away; `Wav2Vec2ForSequenceClassification` has the mean alone.
    """

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        self.wav2vec2 = Wav2Vec2Model(config)
        self.classifier = nn.Linear(2 * config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        """Return logits (n_clips, n_classes) of what `collate` makes."""
        return SequenceClassifierOutput(logits=self.classifier(pool(self.wav2vec2, input_values, attention_mask)))


def pool(backbone: Wav2Vec2Model, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return mean and maximum over each clip's valid frames (n_clips, 2 * hidden_size)."""
    frames = backbone(input_values, attention_mask=attention_mask).last_hidden_state
    valid = backbone._get_feature_vector_attention_mask(frames.shape[1], attention_mask)[..., None].bool()
    mean = (frames * valid).sum(dim=1) / valid.sum(dim=1)
    return torch.cat([mean, frames.masked_fill(~valid, -torch.inf).amax(dim=1)], dim=1)


def labels() -> dict:
    """Return the class names as transformers' configurations hold them."""
    return {
        "num_labels": len(config.CLASS_NAMES),
        "id2label": dict(enumerate(config.CLASS_NAMES)),
        "label2id": dict(config.CLASS_ID),
    }


def device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_base(name: str = "auto") -> tuple[ClipClassifier, str]:
    """Return a network with a new head, and a sentence on where its weights come from.

    Parameters
    ----------
    name : str
        "pretrained": the compact configuration, pretrained by this project (lib.studies.pretraining). "auto":
        facebook/wav2vec2-base where there is a GPU and the checkpoint is cached or reachable, else the project's own.
        Anything else: a name or folder for `from_pretrained`.

    Raises
    ------
    lib.config.MissingCheckpointError, OSError
        If models/wav2vec2_pretrained is not there, or another name or folder cannot be loaded.
    """
    if name == "auto":
        name = PRETRAINED_NAME if device().type == "cuda" and _available(PRETRAINED_NAME) else "pretrained"
    own = name == "pretrained"
    if own and not (PRETRAINED_DIR / CHECKPOINT_FILE).is_file():
        raise config.MissingCheckpointError(
            f"{PRETRAINED_DIR / CHECKPOINT_FILE} is missing: `python -m lib.studies.pretraining` makes it (after 02)."
        )
    source = PRETRAINED_DIR if own else name
    # Nothing of an earlier head is kept: a released classifier given as `name` starts over.
    model = ClipClassifier.from_pretrained(source, **labels(), ignore_mismatched_sizes=True, dtype=torch.float32)
    model.classifier.reset_parameters()
    return model, f"compact Wav2Vec2, pretrained (models/{PRETRAINED_DIR.name})" if own else name


def _available(name: str) -> bool:
    """Return whether a checkpoint is in the Hugging Face cache or its hub can be reached."""
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return True
    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(f"{constants.ENDPOINT}/{name}/resolve/main/config.json", method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def collate(waveforms: Sequence[np.ndarray], device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """Normalise each waveform over its own samples, pad to the longest, and mark the valid samples.

    Returns
    -------
    dict
        input_values, float32 (n_clips, n_samples), zero where padded; attention_mask, int64, 1 where valid. Both on
        `device`.
    """
    clips = [torch.from_numpy(normalise(waveform)) for waveform in waveforms]
    masks = [torch.ones(len(clip), dtype=torch.int64) for clip in clips]
    pad = torch.nn.utils.rnn.pad_sequence
    batch = {"input_values": pad(clips, batch_first=True), "attention_mask": pad(masks, batch_first=True)}
    return {name: values.to(device) for name, values in batch.items()}


def _batches(
    model: ClipClassifier | Wav2Vec2Model, waveforms: Sequence[np.ndarray], batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """Yield the rows of each batch and what `collate` makes of them, clips of similar length together.

    So little is padded, and nothing for a network that padding leaks into: a group norm (facebook/wav2vec2-base)
    averages over time.
    """
    size = 1 if model.config.feat_extract_norm == "group" else batch_size
    order = np.argsort([len(waveform) for waveform in waveforms], kind="stable")
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        yield batch, collate([waveforms[i] for i in batch], model.device)


def predict(model: ClipClassifier, waveforms: Sequence[np.ndarray], *, batch_size: int = 8) -> np.ndarray:
    """Return probabilities (n_clips, 3) in CLASS_NAMES order; a clip's row does not depend on its neighbours."""
    return torch.softmax(torch.from_numpy(logits(model, waveforms, batch_size=batch_size)), dim=-1).numpy()


@torch.inference_mode()
def logits(model: ClipClassifier, waveforms: Sequence[np.ndarray], *, batch_size: int = 8) -> np.ndarray:
    """Return logits, float64 (n_clips, 3), in the order of `waveforms`."""
    model.eval()
    rows = np.empty((len(waveforms), len(config.CLASS_NAMES)))
    for batch, inputs in _batches(model, waveforms, batch_size):
        rows[batch] = model(**inputs).logits.float().cpu().numpy()
    return rows


@torch.inference_mode()
def pooled(backbone: Wav2Vec2Model, waveforms: Sequence[np.ndarray], *, batch_size: int = 16) -> np.ndarray:
    """Return mean and maximum over each clip's frames (n_clips, 2 * hidden_size), of a network without head."""
    backbone.eval()
    rows = np.empty((len(waveforms), 2 * backbone.config.hidden_size), dtype=np.float32)
    for batch, inputs in _batches(backbone, waveforms, batch_size):
        rows[batch] = pool(backbone, **inputs).cpu().numpy()
    return rows


def weights(backbone: Wav2Vec2Model) -> dict[str, np.ndarray]:
    """Return all weights by name, for `frozen_features.of_clips` to tell networks apart."""
    return {name: value.cpu().numpy() for name, value in backbone.state_dict().items()}


@torch.no_grad()
def set_head(model: ClipClassifier, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Set the head's weights (n_classes, 2 * hidden_size) and biases (n_classes,), of `frozen_features.fit_head`.

    Raises
    ------
    ValueError
        If their shapes are not those of the head.
    """
    for parameter, values in ((model.classifier.weight, kernel), (model.classifier.bias, bias)):
        if parameter.shape != np.shape(values):
            raise ValueError(f"the head has shape {tuple(parameter.shape)}, not {np.shape(values)}")
        parameter.copy_(torch.as_tensor(values))


def set_trainable(model: ClipClassifier, *, n_layers: int | None = None, convolutions: bool = True) -> int:
    """Freeze or unfreeze parts of the network and return how many parameters train; the head always does.

    Parameters
    ----------
    n_layers : int, optional
        How many transformer layers train, counted from the top; None: all, and what is between them and the
        convolutions.
    convolutions : bool
        Whether the convolutional feature encoder trains. Frozen, it is left out of the backward graph too.
    """
    base, layers = model.wav2vec2, model.wav2vec2.encoder.layers
    base.requires_grad_(n_layers is None)
    for layer in layers[len(layers) - n_layers :] if n_layers else ():
        layer.requires_grad_(True)
    base.feature_extractor.requires_grad_(convolutions)
    base.feature_extractor._requires_grad = convolutions
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def save(model: ClipClassifier, checkpoint_dir: Path, *, record: dict) -> Path:
    """Write safetensors, config.json, labels.json and training.json; return the path of the weights."""
    model.save_pretrained(checkpoint_dir)
    config.describe_checkpoint(checkpoint_dir, record)
    return Path(checkpoint_dir) / CHECKPOINT_FILE


def load(checkpoint_dir: Path) -> ClipClassifier:
    """Load a trained network in float32, from safetensors alone, ready to predict.

    Raises
    ------
    lib.config.MissingCheckpointError, lib.config.ClassOrderError
    """
    path = config.require_checkpoint(checkpoint_dir, "wav2vec2")
    model = ClipClassifier.from_pretrained(
        path.parent, use_safetensors=True, local_files_only=True, dtype=torch.float32
    )
    names = [model.config.id2label[class_id] for class_id in sorted(model.config.id2label)]
    config.check_class_names(names, where=f"{path.parent}/config.json")
    return model.to(device()).eval()
