"""What studies start from: rows, waveforms and predictions of a finished build."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from lib import config, ensemble, manifest, probabilities, splits

SCHEME = "grouped"
SEED = 7
Predictions = dict[str, np.ndarray]


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
    def recordings(self) -> pd.DataFrame:
        """The raw manifest: one row per recording as published."""
        return pd.read_csv(config.RAW_MANIFEST_PATH)

    @cached_property
    def networks(self) -> dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]]:
        """Both networks as functions of waveforms to probabilities (n_clips, 3)."""
        from lib import wav2vec2, yamnet  # here: the two frameworks take seconds to import

        return {
            name: _predictor(network, self.models_dir / name / SCHEME)
            for name, network in {"yamnet": yamnet, "wav2vec2": wav2vec2}.items()
        }

    @cached_property
    def versions(self) -> dict[str, str]:
        """Short hash of each network's weights, so that a page can tell whether these are still the ones."""
        folders = {name: self.models_dir / name / SCHEME for name in ensemble.MODEL_NAMES}
        return {name: config.version_of(folder / config.CHECKPOINT_FILES[name]) for name, folder in folders.items()}

    @cached_property
    def rule(self) -> dict:
        """The ensemble rule that notebook 05 chose."""
        fitted = json.loads((self.models_dir / "ensemble_rules.json").read_text(encoding="utf-8"))
        config.check_class_names(fitted["class_names"], where="ensemble_rules.json")
        return fitted["rules"][SCHEME][fitted["chosen"]]

    def predict(self, waveforms: Sequence[np.ndarray]) -> Predictions:
        """Return the probabilities of both networks and of the ensemble, each (n_clips, 3)."""
        return self.combine({name: network(waveforms) for name, network in self.networks.items()})

    def combine(self, members: Predictions) -> Predictions:
        """Add the ensemble's probabilities to the networks'."""
        return {**members, "ensemble": ensemble.apply_rule(self.rule, members)}

    @cached_property
    def test_predictions(self) -> Predictions:
        """Predictions on the test split as recorded."""
        return self.predict(self.waveforms("test"))

    @cached_property
    def validation_predictions(self) -> Predictions:
        """Predictions on the validation split, from the tables of notebooks 03 and 04."""
        clip_ids = self.rows("validation")["clip_id"]
        return self.combine({name: self._validation_table(name, clip_ids) for name in ensemble.MODEL_NAMES})

    @cached_property
    def left_out(self) -> tuple[pd.DataFrame, Predictions]:
        """Clips in every condition, and the predictions of networks trained without each clip's corpus group.

        From the table of the study left_out. The ensemble's rule is fitted to the other corpus groups, in noise too.
        """
        rows, given = probabilities.by_model(probabilities.read(config.STUDIES_DIR / "tables" / "left_out.csv"))
        members = {name: given[name] for name in ensemble.MODEL_NAMES}
        truth, left_out = manifest.class_ids(rows), rows["scheme"].to_numpy()
        combined = ensemble.out_of_fold(self.rule["rule"], members, truth, left_out, n_folds=None)
        facts = self.rows(*manifest.SPLITS).set_index("clip_id").loc[rows["clip_id"]].reset_index()
        facts = facts.assign(scheme=left_out, condition=rows["condition"].to_numpy())
        return facts, members | {"ensemble": combined} | given

    def left_out_in(self, condition: str) -> tuple[pd.DataFrame, Predictions]:
        """Return the clips and predictions of `left_out` in one condition."""
        rows, predictions = self.left_out
        here = (rows["condition"] == condition).to_numpy()
        return rows[here].reset_index(drop=True), {name: values[here] for name, values in predictions.items()}

    def _validation_table(self, name: str, clip_ids: pd.Series) -> np.ndarray:
        table = probabilities.read(self.probabilities_dir / f"{name}.csv", scheme=SCHEME, split="validation")
        return table.set_index("clip_id").loc[clip_ids, list(config.CLASS_NAMES)].to_numpy()


def _predictor(network: object, checkpoint_dir: object) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    model = network.load(checkpoint_dir)
    return lambda waveforms: network.predict(model, list(waveforms))
