"""Predictions of networks that notebooks 03 and 04 trained for a study (profiles of params/, see the registry)."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from lib import config, manifest, probabilities, splits
from lib.noise import CLEAN, in_noise

LOG = logging.getLogger(__name__)


def predictions(scheme: str, models_dir: Path, *, noise: bool = False) -> pd.DataFrame:
    """Return every checkpoint's probabilities on a scheme's test clips, as recorded and, where asked for, in noise.

    Returns
    -------
    DataFrame
        `probabilities.COLUMNS` and `probabilities.WHO`: the stage of its notebook, whether that stage is
        the one kept, and the condition (`noise.in_noise`).
    """
    from lib import wav2vec2, yamnet

    rows = splits.read(scheme, splits=("test",))
    waveforms = manifest.load_waveforms(rows)
    conditions = in_noise(rows, waveforms) if noise else {CLEAN[0]: waveforms}
    tables = []
    for model, network in {"yamnet": yamnet, "wav2vec2": wav2vec2}.items():
        kept_dir = models_dir / model / scheme
        kept = config.read_record(kept_dir)["stage"][0]
        stages = {folder.suffix[1:]: folder for folder in sorted((models_dir / model).glob(f"{scheme}.[A-C]"))}
        LOG.info("%s: %d clips, %s, stage %s of %s", scheme, len(rows), model, kept, ", ".join(stages) or "one")
        for stage, folder in (stages or {kept: kept_dir}).items():
            loaded = network.load(folder)
            who = {"stage": stage, "kept": stage == kept}
            for name, clips in conditions.items():
                table = probabilities.table(rows, network.predict(loaded, clips), model=model, scheme=scheme)
                tables.append(table.assign(**who, condition=name))
    return pd.concat(tables)
