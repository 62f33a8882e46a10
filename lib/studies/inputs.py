"""What the sections of the trust report start from: rows, waveforms and answers of a finished build."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from lib import config, ensemble, noise, probabilities, splits
from lib import manifest as manifests

SCHEME = "grouped"
Answers = dict[str, np.ndarray]


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

    def waveforms(self, *splits: str) -> list[np.ndarray]:
        """Return their waveforms, 16 kHz, as notebook 02 left them."""
        if splits not in self._waveforms:
            self._waveforms[splits] = manifests.load_waveforms(self.rows(*splits))
        return self._waveforms[splits]

    @cached_property
    def networks(self) -> dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]]:
        """Both networks as functions of waveforms to probabilities (n, 3)."""
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
        """The ensemble rule that validation chose."""
        fitted = json.loads((self.models_dir / "ensemble_rules.json").read_text(encoding="utf-8"))
        config.check_class_names(fitted["class_names"], where="ensemble_rules.json")
        return fitted["rules"][SCHEME][fitted["chosen"]]

    def answer(self, waveforms: Sequence[np.ndarray]) -> Answers:
        """Return the probabilities of both networks and of the ensemble."""
        return self.combine({name: predict(waveforms) for name, predict in self.networks.items()})

    def combine(self, members: Answers) -> Answers:
        """Add the ensemble's probabilities to the networks'."""
        return {**members, "ensemble": ensemble.apply_rule(self.rule, members)}

    @cached_property
    def test_answers(self) -> Answers:
        """Answers on the test split as recorded."""
        return self.answer(self.waveforms("test"))

    @cached_property
    def validation_answers(self) -> Answers:
        """Answers on the validation split, from the tables of notebooks 03 and 04."""
        return self.combine({name: self._table(name, self.rows("validation")) for name in ensemble.MODEL_NAMES})

    @cached_property
    def left_out(self) -> tuple[pd.DataFrame, Answers]:
        """Clips of sources never met and the answers of networks that never met them (`./run_all.sh study left-out`).

        As recorded. The ensemble answers by the chosen rule, fitted to the other families, in noise as well.
        """
        rows, given = probabilities.by_model(pd.read_csv(config.STUDIES_DIR / "tables" / "left_out.csv"))
        members = {name: given[name] for name in ensemble.MODEL_NAMES}
        truth, families = manifests.class_ids(rows), rows["scheme"].to_numpy()
        together = ensemble.out_of_fold(self.rule["rule"], members, truth, families, n_folds=None)
        answers = {**members, "ensemble": together}
        recorded = (rows["condition"] == noise.CLEAN[0]).to_numpy()
        rows = rows[recorded]
        everything = self.rows(*manifests.SPLITS).set_index("clip_id").loc[rows["clip_id"]].reset_index()
        everything = everything.assign(scheme=rows["scheme"].to_numpy())
        return everything, {name: values[recorded] for name, values in answers.items()}

    def _table(self, name: str, rows: pd.DataFrame) -> np.ndarray:
        table = pd.read_csv(self.probabilities_dir / f"{name}.csv")
        table = table[(table["scheme"] == SCHEME) & (table["split"] == "validation")].set_index("clip_id")
        return table.loc[rows["clip_id"], list(config.CLASS_NAMES)].to_numpy()


def _predictor(network: object, checkpoint_dir: object) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    model = network.load(checkpoint_dir)
    return lambda waveforms: network.predict(model, list(waveforms))
