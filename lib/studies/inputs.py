"""What studies start from: rows, waveforms and predictions of a finished build."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np
import pandas as pd

from lib import config, ensemble, manifest, probabilities, splits
from lib.networks import frozen_features
from lib.networks.onnx_networks import folder_of
from lib.studies.folds import out_of_fold

SCHEME = "grouped"
SEED = 7
Predictions = dict[str, np.ndarray]


def yamnet_features(waveforms: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the embedding and class scores that heads on frozen YAMNet are given of clips: `yamnet.split_features`."""
    from lib import yamnet  # here: TensorFlow takes seconds to import

    features = frozen_features.of_clips(yamnet, yamnet.load_base().with_class_scores(), waveforms)
    return yamnet.split_features(features)


class Inputs:
    """The grouped split of a build, its networks and its chosen rule; everything is read once, when first asked for.

    Parameters
    ----------
    profile : str
        A build whose notebooks 01 to 05 have run.
    """

    def __init__(self, profile: str) -> None:
        self.models_dir = config.build_dir(profile) / "models"
        self.probabilities_dir = config.probabilities_dir(profile)
        self._rows: dict[tuple[str, ...], pd.DataFrame] = {}
        self._waveforms: dict[tuple[str, ...], list[np.ndarray]] = {}

    def rows(self, *names: str) -> pd.DataFrame:
        """Return the manifest rows of some splits."""
        if names not in self._rows:
            self._rows[names] = splits.read(SCHEME, splits=names)
        return self._rows[names]

    def waveforms(self, *names: str) -> list[np.ndarray]:
        """Return their waveforms, each (n_samples,), 16 kHz, as notebook 02 left them."""
        if names not in self._waveforms:
            self._waveforms[names] = manifest.load_waveforms(self.rows(*names))
        return self._waveforms[names]

    @cached_property
    def networks(self) -> dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]]:
        """Both networks as functions of waveforms to probabilities (n_clips, 3)."""
        from lib import wav2vec2, yamnet  # here: the two frameworks take seconds to import

        modules = {"yamnet": yamnet, "wav2vec2": wav2vec2}
        return {
            name: partial(module.predict, module.load(self.models_dir / name / SCHEME))
            for name, module in modules.items()
        }

    @cached_property
    def rule(self) -> dict:
        """The ensemble rule that notebook 05 chose."""
        fitted = json.loads((self.models_dir / "ensemble_rules.json").read_text(encoding="utf-8"))
        config.check_class_names(fitted["class_names"], where="ensemble_rules.json")
        return fitted["rules"][fitted["chosen"]]

    def predict(self, waveforms: Sequence[np.ndarray]) -> Predictions:
        """Return the probabilities of both networks and of the ensemble, each (n_clips, 3), by the sounds' excerpts."""
        given = frozen_features.excerpts(waveforms, models_dir=self.models_dir)
        return self.combine({name: network(given) for name, network in self.networks.items()})

    def version(self, name: str) -> str:
        """Return the version of one network as it is released: trained on the validation groups, too."""
        return config.version_of(folder_of(self.models_dir, name) / config.CHECKPOINT_FILES[name])

    def combine(self, members: Predictions) -> Predictions:
        """Add the ensemble's probabilities to the networks'."""
        return {**members, "ensemble": ensemble.apply_rule(self.rule, members)}

    @cached_property
    def test_predictions(self) -> Predictions:
        """Predictions on the trimmed clips of the test split, from notebook 06's tables, in the order of their rows."""
        return self._in_order("test", self._predicted("_test", kind="clip", scheme=SCHEME))

    @cached_property
    def validation_predictions(self) -> Predictions:
        """Predictions on the trimmed clips of the validation split, in the order of their rows."""
        return self._in_order("validation", self._predicted(kind="clip", scheme=SCHEME, split="validation"))

    def left_out(self, kind: str) -> tuple[pd.DataFrame, Predictions]:
        """Return what networks fitted without each corpus group predict for it: notebooks 03 and 04, development clips.

        Parameters
        ----------
        kind : str
            "clip" (trimmed) or "window".

        Returns
        -------
        (DataFrame, dict of str to ndarray (n_rows, 3))
            Rows with clip_id, group_id, source, corpus_group, label, seconds, scheme; predictions of both networks and
            of the ensemble, its rule fitted to clips and windows of the other corpus groups, as in notebook 05.
        """
        rows, members = self._left_out
        wanted = (rows["kind"] == kind).to_numpy()
        return rows[wanted].reset_index(drop=True), {name: values[wanted] for name, values in members.items()}

    @cached_property
    def _left_out(self) -> tuple[pd.DataFrame, Predictions]:
        """Clips and windows of `left_out` together."""
        rows, members = self._predicted()
        here = rows["scheme"].str.startswith(splits.LEFT_OUT).to_numpy()
        rows, members = rows[here].reset_index(drop=True), {name: values[here] for name, values in members.items()}
        folds = rows["scheme"].to_numpy()
        combined = out_of_fold(self.rule["rule"], members, manifest.class_ids(rows), folds)
        return rows, members | {"ensemble": combined}

    def _predicted(self, suffix: str = "", **wanted: str) -> tuple[pd.DataFrame, Predictions]:
        paths = [self.probabilities_dir / f"{name}{suffix}.csv" for name in ensemble.MODEL_NAMES]
        return probabilities.by_model(probabilities.read(*paths, **wanted))

    def _in_order(self, split: str, predicted: tuple[pd.DataFrame, Predictions]) -> Predictions:
        clips, members = predicted
        places = pd.Index(clips["clip_id"]).get_indexer(self.rows(split)["clip_id"])
        if (places < 0).any():
            raise ValueError(f"{int((places < 0).sum())} clips of the split {split} were not predicted: build again.")
        return self.combine({name: values[places] for name, values in members.items()})
