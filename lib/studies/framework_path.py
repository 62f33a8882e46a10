"""The frameworks' own path, TensorFlow and PyTorch eager, with the shipped weights: the benchmark's baseline.

`python -m lib.studies.framework_path FILE` does what `python -m lib.inference FILE` does, as a whole process.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np

from lib import config, ensemble
from lib.detector import PATCHES_PER_BATCH, Detector, Embed
from lib.inference import Classifier, Predictor, as_text
from lib.networks.onnx_networks import excerpt


class DetectorWithoutMemory(Detector):
    """The detector as a first attempt makes it: each chunk's context is computed again."""

    @property
    def described(self) -> Embed:  # type: ignore[override]
        """`describe`."""
        return self.describe


def load() -> Classifier:
    """Load both networks with the frameworks that trained them, the ensemble rule and the detector."""
    from lib import wav2vec2, yamnet  # here: the two frameworks take seconds to import

    models_dir = config.MODELS_DIR
    keras_model = yamnet.load(models_dir / config.RELEASED_DIRS["yamnet"])
    torch_model = wav2vec2.load(models_dir / config.RELEASED_DIRS["wav2vec2"])
    predictors: dict[str, Predictor] = {
        "yamnet": partial(yamnet.predict, keras_model),
        "wav2vec2": partial(wav2vec2.predict, torch_model),
    }
    detector = DetectorWithoutMemory.load(models_dir, embed=frozen_yamnet(yamnet.backbone_of(keras_model)))
    rule = ensemble.load_rule(models_dir / config.RULE_FILE)
    by_keras = partial(excerpt, features_of=frozen_yamnet(keras_model.get_layer("yamnet")))
    return Classifier(predictors, by_keras, rule, {}, detector)


def frozen_yamnet(backbone: Any) -> Embed:
    """Return YAMNet's backbone in Keras as a function of patches (n, 15600) to what it computes of each."""

    def embed(patches: np.ndarray) -> np.ndarray:
        blocks = [patches[start : start + PATCHES_PER_BATCH] for start in range(0, len(patches), PATCHES_PER_BATCH)]
        return np.concatenate([_at_least_two(backbone.predict_on_batch, block) for block in blocks])

    return embed


def _at_least_two(predict: Embed, patches: np.ndarray) -> np.ndarray:
    """Predict a lone patch twice: a batch of one is computed by other kernels, whose last bits differ."""
    return predict(patches) if len(patches) > 1 else predict(np.repeat(patches, 2, axis=0))[:1]


if __name__ == "__main__":
    sys.stdout.write(as_text(load().predict_file(sys.argv[1])) + "\n")
