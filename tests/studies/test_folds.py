"""Folds keep groups whole, and no row is predicted with parameters fitted to its own group."""

import numpy as np
import pandas as pd
import pytest

from lib import config, ensemble
from lib.studies.folds import group_folds, out_of_fold

CLASS_IDS = np.repeat([0, 1, 2], 60)
ROWS = pd.DataFrame({"label": np.array(config.CLASS_NAMES)[CLASS_IDS], "group_id": [f"g{i // 2}" for i in range(180)]})


def test_folds_share_no_group_and_cover_every_row():
    parts = group_folds(ROWS, 1)
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == list(range(180))
    for fitted, held_out in parts:
        assert not set(ROWS["group_id"][fitted]) & set(ROWS["group_id"][held_out])


def test_folds_are_as_few_as_the_groups_of_the_rarest_class():
    scarce = ROWS["group_id"].where(CLASS_IDS != 1, [f"s{i % 3}" for i in range(180)])
    parts = group_folds(ROWS.assign(group_id=scarce), 1)
    assert len(parts) == 3
    assert all({0, 1, 2} == set(CLASS_IDS[fitted]) for fitted, _ in parts)
    with pytest.raises(ValueError, match="too few"):
        group_folds(ROWS.assign(group_id="one"), 1)


def test_a_corpus_group_is_predicted_by_a_rule_fitted_to_the_others():
    """One group is predicted a class off: a rule fitted to it would know."""
    corpora = np.random.default_rng(0).permutation(["turned", "a", "b"] * 60)
    turned = corpora == "turned"
    predicted = np.where(turned, (CLASS_IDS + 1) % 3, CLASS_IDS)
    probabilities = {name: np.eye(3)[predicted] * 0.9 + 0.1 / 3 for name in ensemble.MODEL_NAMES}
    found = out_of_fold("meta", probabilities, CLASS_IDS, corpora)
    rule = ensemble.fit_rule("meta", {k: v[~turned] for k, v in probabilities.items()}, CLASS_IDS[~turned])
    assert found[turned] == pytest.approx(ensemble.apply_rule(rule, {k: v[turned] for k, v in probabilities.items()}))
    assert (found.argmax(axis=1) == CLASS_IDS)[turned].mean() == 0
