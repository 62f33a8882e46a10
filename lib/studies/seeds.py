"""Both networks trained with several seeds; `lib.studies.spread` compares them."""

from __future__ import annotations

import pandas as pd
import yaml

from lib import config, probabilities
from lib.studies import retrained
from lib.studies.inputs import SCHEME, Inputs
from lib.studies.result import Result

PARAMS_DIR = config.PROJECT_DIR / "params"
PROFILES = ("full", "seed_8", "seed_9")


def run(_: Inputs) -> Result:
    """Predict the grouped test split by the networks of each seed.

    Returns
    -------
    Result
        Table seeds: `probabilities.COLUMNS` and seed, that of the full build first.
    """
    tables = []
    for profile in PROFILES:
        parameters = yaml.safe_load((PARAMS_DIR / f"{profile}.yaml").read_text(encoding="utf-8"))
        found = retrained.predictions(SCHEME, config.build_dir(profile) / "models")
        tables.append(found[list(probabilities.COLUMNS)].assign(seed=parameters["common"]["seed"]))
    table = pd.concat(tables, ignore_index=True)
    return Result({"seeds": sorted(int(seed) for seed in set(table["seed"]))}, {"seeds": table})
