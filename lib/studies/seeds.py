"""The networks of notebooks 03 and 04 made with several seeds; `lib.studies.spread` compares them."""

from __future__ import annotations

import pandas as pd
import yaml

from lib import config, manifest, probabilities, splits
from lib.studies.inputs import SCHEME, Inputs
from lib.studies.result import Result

PARAMS_DIR = config.PROJECT_DIR / "params"
PROFILES = ("full", "seed_8", "seed_9")  # the registry sees to it that they are trained


def run(_: Inputs) -> Result:
    """Predict the grouped test clips by the networks of each seed.

    Returns
    -------
    Result
        Table seeds: `probabilities.COLUMNS` and seed, that of the full build first.
    """
    from lib import wav2vec2, yamnet  # here: the two frameworks take seconds to import

    rows = splits.read(SCHEME, splits=("test",))
    waveforms, tables = manifest.load_waveforms(rows), []
    for profile in PROFILES:
        parameters = yaml.safe_load((PARAMS_DIR / f"{profile}.yaml").read_text(encoding="utf-8"))
        for name, network in {"yamnet": yamnet, "wav2vec2": wav2vec2}.items():
            model = network.load(config.build_dir(profile) / "models" / name / SCHEME)
            table = probabilities.table(rows, network.predict(model, waveforms), model=name, scheme=SCHEME)
            tables.append(table.assign(seed=parameters["common"]["seed"]))
    table = pd.concat(tables, ignore_index=True)
    return Result({"seeds": sorted(int(seed) for seed in set(table["seed"]))}, {"seeds": table})
