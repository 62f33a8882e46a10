import json

import numpy as np
import pytest

from lib import config, ensemble


@pytest.fixture
def task(rng):
    """Return two models of different quality, and true classes."""
    class_ids = np.repeat([0, 1, 2], 60)

    def model(share_right):
        seen = np.where(rng.random(180) < share_right, class_ids, rng.integers(0, 3, 180))
        return np.eye(3)[seen] * 0.7 + 0.1

    return {"yamnet": model(0.9), "wav2vec2": model(0.5)}, class_ids


def pair(first, second):
    return {"yamnet": np.array([first]), "wav2vec2": np.array([second])}


def test_average_is_half_of_each_whatever_the_order_of_the_mapping():
    given = pair([0.6, 0.3, 0.1], [0.2, 0.2, 0.6])
    assert ensemble.average(given) == pytest.approx(np.array([[0.4, 0.25, 0.35]]))
    turned = dict(reversed(given.items()))
    assert ensemble.weighted(turned, [0.9, 0.1]) == pytest.approx(ensemble.weighted(given, [0.9, 0.1]))


def test_vote_follows_the_majority_ties_follow_the_average_but_never_to_a_class_nobody_chose():
    assert ensemble.vote(pair([0.6, 0.3, 0.1], [0.5, 0.1, 0.4])).argmax() == 0
    tied = ensemble.vote(pair([0.5, 0.45, 0.05], [0.02, 0.08, 0.9]))
    assert tied.argmax() == 2 and tied == pytest.approx(np.array([[0.02, 0.08, 0.9]]))
    tied = ensemble.vote(pair([0.41, 0.4, 0.19], [0.1, 0.42, 0.48]))  # the average alone would say screaming
    assert tied.argmax() != 1


@pytest.mark.parametrize("name", ensemble.RULES)
def test_every_rule_returns_probabilities_survives_json_and_takes_single_clips(task, name, tmp_path):
    probabilities, class_ids = task
    rule = ensemble.fit_rule(name, probabilities, class_ids)
    path = ensemble.save_rule(tmp_path / "ensemble.json", rule)
    combined = ensemble.apply_rule(ensemble.load_rule(path), probabilities)
    assert combined.shape == (180, 3)
    assert combined.sum(axis=1) == pytest.approx(np.ones(180))
    assert combined == pytest.approx(ensemble.apply_rule(rule, probabilities))
    single = [ensemble.apply_rule(rule, {k: v[i : i + 1] for k, v in probabilities.items()})[0] for i in range(9)]
    assert combined[:9] == pytest.approx(np.array(single))


def test_the_better_model_gets_the_larger_weight_and_equal_ones_equal_weights(task):
    probabilities, class_ids = task
    first, second = ensemble.fit_rule("weighted", probabilities, class_ids)["weights"]
    assert first > 0.5 and first + second == pytest.approx(1)
    same = {name: probabilities["yamnet"] for name in ensemble.MODEL_NAMES}
    assert ensemble.fit_rule("weighted", same, class_ids)["weights"] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "best"}, "fit it again"),
        ({"model_names": ["wav2vec2", "yamnet"]}, "fit it again"),
        ({"class_names": list(reversed(config.CLASS_NAMES))}, "has classes"),
    ],
)
def test_an_unknown_rule_other_models_and_another_class_order_are_refused(change, message, task, tmp_path):
    probabilities, class_ids = task
    rule = ensemble.fit_rule("average", probabilities, class_ids) | change
    with pytest.raises(ValueError, match=message):
        ensemble.apply_rule(rule, probabilities)
    (tmp_path / "ensemble.json").write_text(json.dumps(rule))
    with pytest.raises(ValueError, match=message):
        ensemble.load_rule(tmp_path / "ensemble.json")


def test_missing_models_bad_weights_and_bad_rows_are_refused(task):
    probabilities, _ = task
    with pytest.raises(ValueError, match="expected those of"):
        ensemble.average({"yamnet": probabilities["yamnet"]})
    with pytest.raises(ValueError, match="weights"):
        ensemble.weighted(probabilities, [0.7, 0.7])
    with pytest.raises(ValueError, match="sum to 1"):
        ensemble.average({name: values * 2 for name, values in probabilities.items()})
    with pytest.raises(ValueError, match="rule is"):
        ensemble.fit_rule("best", probabilities, np.zeros(180, dtype=int))


def test_temperature_scaling_finds_how_much_too_sure_a_network_is_and_keeps_the_order(rng):
    logits = rng.normal(0, 1.5, (20_000, 3))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    class_ids = (honest.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)  # labels drawn from these probabilities
    for too_sure in (0.5, 1.0, 3.0):
        shouted = ensemble.apply_temperature(honest, 1 / too_sure)
        found = ensemble.fit_temperature(shouted, class_ids)
        assert found == pytest.approx(too_sure, rel=0.05)
        assert ensemble.apply_temperature(shouted, found) == pytest.approx(honest, abs=0.02)
    assert ensemble.apply_temperature(honest, 1.0) == pytest.approx(honest, abs=1e-5)
    assert (ensemble.apply_temperature(honest[:99], 4.0).argsort(axis=1) == honest[:99].argsort(axis=1)).all()
    with pytest.raises(ValueError, match="temperatures"):
        ensemble.calibrated({"yamnet": honest, "wav2vec2": honest}, [1.0, 0.0])


def test_calibration_quiets_the_network_that_shouts(rng):
    """A network that is always sure and often wrong must not outvote one that knows what it knows."""
    class_ids = rng.integers(0, 3, 600)
    knowing = np.eye(3)[np.where(rng.random(600) < 0.9, class_ids, rng.integers(0, 3, 600))] * 0.6 + 0.4 / 3
    shouting = np.eye(3)[np.where(rng.random(600) < 0.5, class_ids, rng.integers(0, 3, 600))] * 0.97 + 0.01
    given = {"yamnet": knowing, "wav2vec2": shouting}

    def accuracy(name):
        answers = ensemble.apply_rule(ensemble.fit_rule(name, given, class_ids), given)
        return (answers.argmax(axis=1) == class_ids).mean()

    assert accuracy("calibrated") > accuracy("average") + 0.1


def test_both_say_whether_there_is_an_event_in_a_window_and_which():
    frames, row = np.array([[0.1, 0.0], [0.6, 0.2], [0.0, 0.8]]), np.array([0.1, 0.2, 0.7])
    normal = 0.6 * 0.7 + 0.4 * 0.2 / 1.6
    crying, screaming = 0.6 * 0.1**2, 0.8 * 0.4**2  # the ensemble's screaming counts double
    expected = [(1 - normal) * part / (crying + screaming) for part in (crying, screaming)]
    combined = ensemble.combined_with(frames, row)
    np.testing.assert_allclose(combined, [*expected, normal], rtol=1e-4)
    assert combined.sum() == pytest.approx(1)
    np.testing.assert_allclose(ensemble.combined_with(frames / 8, None), np.array([0.075, 0.1, 0.9]) / 1.075)
    with pytest.raises(ValueError, match="needed"):
        ensemble.combined_with(frames, None)
    np.testing.assert_allclose(ensemble.combined_with(frames / 8, row), np.array([0.075, 0.1, 0.9]) / 1.075)


def test_where_one_of_both_knows_nothing_the_other_decides():
    nothing, guess = np.empty((0, 2)), np.full(3, 1 / 3)
    np.testing.assert_allclose(
        ensemble.combined_with(nothing, np.array([0.1, 0.2, 0.7])), [0.3 / 17, 4.8 / 17, 0.7], rtol=1e-4
    )
    for number, certain in enumerate(np.eye(3)):
        np.testing.assert_allclose(ensemble.combined_with(nothing, certain), certain, atol=1e-4)
        assert ensemble.mixed(certain[None, :2], guess).argmax() == number
