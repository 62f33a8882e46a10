"""Leave-one-corpus-out: both networks trained without each corpus group, and their predictions for it."""

from __future__ import annotations

import pandas as pd

from lib import config, splits
from lib.studies import retrained
from lib.studies.inputs import Inputs
from lib.studies.result import Result

PROFILE = "left_out"  # of params/: notebooks 03 and 04 run by it first


def run(_: Inputs) -> Result:
    """Predict each corpus group, as recorded and in noise, by both networks trained without it.

    Returns
    -------
    Result
        Table left_out: as `retrained.predictions`, all corpus groups below each other. Notebook 05 fits its rules to
        it, so nothing is scored here: see `lib.studies.cross_corpus`.
    """
    models_dir = config.build_dir(PROFILE) / "models"
    names = splits.left_out_schemes()
    table = pd.concat([retrained.predictions(name, models_dir, noise=True) for name in names], ignore_index=True)
    return Result({"n_corpus_groups": len(names), "n_clips": int(table["clip_id"].nunique())}, {"left_out": table})
