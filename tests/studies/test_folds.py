"""Folds keep groups whole, and no row is predicted with parameters fitted to its own group."""

import numpy as np
import pytest

from lib import ensemble
from lib.studies.folds import group_folds, out_of_fold


@pytest.fixture
def task(rng):
    """Return two models of different quality, true classes and groups of two clips."""
    class_ids = np.repeat([0, 1, 2], 60)
    groups = np.array([f"g{i // 2}" for i in range(180)])

    def model(share_right):
        seen = np.where(rng.random(180) < share_right, class_ids, rng.integers(0, 3, 180))
        return np.eye(3)[seen] * 0.7 + 0.1

    return {"yamnet": model(0.9), "wav2vec2": model(0.5)}, class_ids, groups


def pair(first, second):
    return {"yamnet": np.array([first]), "wav2vec2": np.array([second])}


def test_folds_share_no_group_and_cover_every_row(task):
    _, class_ids, groups = task
    parts = group_folds(class_ids, groups, n_folds=5, seed=1)
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == list(range(180))
    for fitted, held_out in parts:
        assert not set(groups[fitted]) & set(groups[held_out])


def test_random_labels_score_at_chance_out_of_fold_and_above_it_on_the_rows_fitted():
    n, right = 60, []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        class_ids, groups = np.tile([0, 1, 2], n // 3), np.arange(n).astype(str)
        probabilities = {name: rng.dirichlet([1, 1, 1], n) for name in ensemble.MODEL_NAMES}
        honest = out_of_fold("meta", probabilities, class_ids, groups, seed=seed)
        flattering = ensemble.apply_rule(ensemble.fit_rule("meta", probabilities, class_ids), probabilities)
        right.append([(rows.argmax(axis=1) == class_ids).mean() for rows in (honest, flattering)])
    honest, flattering = np.mean(right, axis=0)
    assert honest < 0.38
    assert flattering > honest + 0.08


def test_out_of_fold_rows_do_not_depend_on_their_own_labels(task):
    probabilities, class_ids, groups = task
    (fitted, held_out), *_ = group_folds(class_ids, groups, n_folds=5, seed=2)
    rule = ensemble.fit_rule("meta", {k: v[fitted] for k, v in probabilities.items()}, class_ids[fitted])
    expected = ensemble.apply_rule(rule, {k: v[held_out] for k, v in probabilities.items()})
    found = out_of_fold("meta", probabilities, class_ids, groups, seed=2)[held_out]
    assert found == pytest.approx(expected)


def test_folds_are_as_few_as_the_groups_of_the_rarest_class(task):
    _, class_ids, groups = task
    scarce = np.where(class_ids == 1, np.char.add("s", (np.arange(180) % 3).astype(str)), groups)
    parts = group_folds(class_ids, scarce, n_folds=5, seed=1)
    assert len(parts) == 3
    assert all({0, 1, 2} == set(class_ids[fitted]) for fitted, _ in parts)


def test_corpus_groups_are_each_a_fold_of_their_own(task):
    """One group is predicted a class off: a rule fitted to it would know."""
    _, class_ids, _ = task
    corpora = np.random.default_rng(0).permutation(["turned", "a", "b"] * (len(class_ids) // 3))
    predicted = np.where(corpora == "turned", (class_ids + 1) % 3, class_ids)
    probabilities = {name: np.eye(3)[predicted] * 0.9 + 0.1 / 3 for name in ensemble.MODEL_NAMES}
    turned = corpora == "turned"
    found = out_of_fold("meta", probabilities, class_ids, corpora, n_folds=None)
    rule = ensemble.fit_rule("meta", {k: v[~turned] for k, v in probabilities.items()}, class_ids[~turned])
    assert found[turned] == pytest.approx(ensemble.apply_rule(rule, {k: v[turned] for k, v in probabilities.items()}))
    assert (found.argmax(axis=1) == class_ids)[turned].mean() == 0
    with pytest.raises(ValueError, match="too few"):
        out_of_fold("meta", probabilities, class_ids, ["one"] * len(class_ids), n_folds=None)


def test_too_few_groups_for_the_folds_is_said(task):
    probabilities, class_ids, _ = task
    with pytest.raises(ValueError, match="too few"):
        out_of_fold("meta", probabilities, class_ids, ["one"] * len(class_ids))
