"""Combining the networks by average, weights, vote or meta-classifier, and the ensemble with the detector; NumPy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib import config

MODEL_NAMES = ("yamnet", "wav2vec2")
RULES = ("average", "weighted", "vote", "calibrated", "meta")  # simplest first
N_CLASSES = len(config.CLASS_NAMES)
SMALLEST_PROBABILITY = 1e-6  # keeps logarithms finite
WEIGHT_STEPS = 20  # weights are tried in steps of 1/20
TEMPERATURES = (0.25, 8.0)  # searched between
META_C = 1.0  # inverse strength of the meta-classifier's L2 penalty
# In a window's probability of normal, the rest is the ensemble's. Chosen, like what follows, on left-out corpora.
DETECTOR_SHARE = 0.4
EVENT_WEIGHTS = np.array([1.0, 2.0])  # of the ensemble's crying and screaming: networks learn screams at half weight
# Where all frames are lower, no ensemble: product.json counts the labels of left-out windows that it would change.
ENSEMBLE_FROM = 0.15

Probabilities = Mapping[str, np.ndarray]
Rule = dict[str, Any]


def stack(probabilities: Probabilities) -> np.ndarray:
    """Return (n_models, n_clips, 3) in MODEL_NAMES order.

    Raises
    ------
    ValueError
        If a model is missing or unknown, shapes differ, or a row is not finite or does not sum to 1.
    """
    if set(probabilities) != set(MODEL_NAMES):
        raise ValueError(f"probabilities of {sorted(probabilities)}, expected those of {MODEL_NAMES}.")
    return np.stack([checked(probabilities[name], len(probabilities[MODEL_NAMES[0]])) for name in MODEL_NAMES])


def checked(probabilities: np.ndarray, n_rows: int) -> np.ndarray:
    """Return probabilities as float64; ValueError if they are not (n_rows, 3), finite, with rows that sum to 1."""
    probabilities = np.asarray(probabilities, dtype=float)
    if probabilities.shape != (n_rows, N_CLASSES):
        raise ValueError(f"probabilities have shape {probabilities.shape} for {n_rows} rows")
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-4):  # NaN fails too
        raise ValueError("a row of probabilities is not finite or does not sum to 1")
    return probabilities


def average(probabilities: Probabilities) -> np.ndarray:
    """Return the mean of the models' probabilities (n_clips, 3)."""
    return stack(probabilities).mean(axis=0)


def weighted(probabilities: Probabilities, weights: Sequence[float]) -> np.ndarray:
    """Return the weighted mean (n_clips, 3); weights are in MODEL_NAMES order, not negative, with sum 1."""
    given = np.asarray(weights, dtype=float)
    if given.shape != (len(MODEL_NAMES),) or (given < 0).any() or abs(given.sum() - 1) > 1e-6:
        raise ValueError(f"weights are {given.tolist()}, expected {len(MODEL_NAMES)} that are >= 0 with sum 1.")
    return np.tensordot(given, stack(probabilities), axes=1)


def vote(probabilities: Probabilities) -> np.ndarray:
    """Return the majority vote as probabilities (n_clips, 3): the mean over the models on the winning side.

    Each model votes for its most probable class. The average decides ties. The row returned is the mean of the
    models that voted for the winner, so it sums to 1 and its largest entry is the vote.
    """
    stacked = stack(probabilities)
    votes = np.eye(N_CLASSES)[stacked.argmax(axis=2)]  # (n_models, n_clips, 3)
    # Half an average is below one vote: it decides between equal counts and nothing else.
    winner = (votes.sum(axis=0) + stacked.mean(axis=0) / 2).argmax(axis=1)
    side = votes[:, np.arange(stacked.shape[1]), winner]  # (n_models, n_clips)
    return (stacked * side[:, :, None]).sum(axis=0) / side.sum(axis=0)[:, None]


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities (n_clips, 3) with their logits divided by `temperature`; above 1 they become less confident.

    Source: Guo et al. 2017, "On calibration of modern neural networks", section 4.2 (temperature scaling).
    """
    logits = np.log(np.clip(probabilities, SMALLEST_PROBABILITY, 1.0)) / temperature
    return _softmax(logits)


def fit_temperature(probabilities: np.ndarray, class_ids: np.ndarray) -> float:
    """Return the temperature with the smallest log-loss on clips that the network was not trained on."""
    from scipy import optimize
    from sklearn.metrics import log_loss

    def loss(log_temperature: float) -> float:
        return log_loss(class_ids, apply_temperature(probabilities, np.exp(log_temperature)), labels=range(N_CLASSES))

    found = optimize.minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return round(float(np.exp(found.x)), 4)


def calibrated(probabilities: Probabilities, temperatures: Sequence[float]) -> np.ndarray:
    """Return the mean (n_clips, 3) after each model's temperature; these are in MODEL_NAMES order, all above 0."""
    given = np.asarray(temperatures, dtype=float)
    if given.shape != (len(MODEL_NAMES),) or not (given > 0).all():
        raise ValueError(f"temperatures are {given.tolist()}, expected {len(MODEL_NAMES)} above 0.")
    pairs = zip(stack(probabilities), given, strict=True)
    return np.mean([apply_temperature(rows, temperature) for rows, temperature in pairs], axis=0)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def meta_features(probabilities: Probabilities) -> np.ndarray:
    """Return what the meta-classifier is given: log-probabilities (n_clips, n_models * 3), model by model."""
    logs = np.log(np.clip(stack(probabilities), SMALLEST_PROBABILITY, 1.0))
    return np.concatenate(list(logs), axis=1)


def fit_rule(name: str, probabilities: Probabilities, class_ids: np.ndarray) -> Rule:
    """Fit one of `RULES` on clips that none of the networks was trained on.

    "weighted" takes the weights with the highest macro F1; "calibrated" gives each model the temperature with the
    smallest log-loss before they are averaged; "meta" is a multinomial logistic regression on log-probabilities with
    balanced class weights (stacking: Wolpert 1992, Stacked generalization).

    Returns
    -------
    dict
        Plain JSON: rule, model_names, class_names and, where fitted, weights, temperatures, or coef and intercept.
    """
    if name not in RULES:
        raise ValueError(f"rule is {name!r}, expected one of {RULES}.")
    rule: Rule = {"rule": name, "model_names": list(MODEL_NAMES), "class_names": list(config.CLASS_NAMES)}
    if name == "weighted":
        rule["weights"] = _best_weights(probabilities, class_ids)
    elif name == "calibrated":
        rule["temperatures"] = [fit_temperature(rows, class_ids) for rows in stack(probabilities)]
    elif name == "meta":
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=META_C, class_weight="balanced", max_iter=2000)
        model.fit(meta_features(probabilities), class_ids)
        if len(model.classes_) != N_CLASSES:
            raise ValueError(f"the meta-classifier needs clips of every class, found {model.classes_.tolist()}.")
        rule |= {"coef": model.coef_.tolist(), "intercept": model.intercept_.tolist()}
    return rule


def apply_rule(rule: Rule, probabilities: Probabilities) -> np.ndarray:
    """Return the combined probabilities (n_clips, 3) of a rule; numpy alone, so a service can call it."""
    check_rule(rule, where="the rule")
    name = rule["rule"]
    if name == "average":
        return average(probabilities)
    if name == "weighted":
        return weighted(probabilities, rule["weights"])
    if name == "vote":
        return vote(probabilities)
    if name == "calibrated":
        return calibrated(probabilities, rule["temperatures"])
    logits = meta_features(probabilities) @ np.asarray(rule["coef"]).T + np.asarray(rule["intercept"])
    return _softmax(logits)


def check_rule(rule: Rule, *, where: str) -> None:
    """Refuse (ClassOrderError, ValueError) a rule with another class order, other models or an unknown name."""
    config.check_class_names(rule.get("class_names", ()), where=where)
    if rule.get("rule") not in RULES or tuple(rule.get("model_names", ())) != MODEL_NAMES:
        raise ValueError(f"{where} is {rule.get('rule')!r} over {rule.get('model_names')}: fit it again (notebook 05).")


def save_rule(path: Path, rule: Rule) -> Path:
    """Write a rule as JSON and return its path."""
    check_rule(rule, where="the rule")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rule, indent=2) + "\n", encoding="utf-8")
    return path


def load_rule(path: Path) -> Rule:
    """Read a rule and check it."""
    rule = json.loads(Path(path).read_text(encoding="utf-8"))
    check_rule(rule, where=str(path))
    return rule


def needs_ensemble(frames: np.ndarray) -> bool:
    """Return whether a window's frames (n_frames, 2) leave room for an event: the ensemble is to predict, too."""
    return not len(frames) or bool(frames.max() >= ENSEMBLE_FROM)


def combined_with(frames: np.ndarray, ensemble: np.ndarray | None) -> np.ndarray:
    """Return a window's probabilities (3,) in CLASS_NAMES order, from the ensemble's (3,) and the detector's frames.

    Where `needs_ensemble` is false the detector decides alone, and the ensemble's may be None; where it is true, None
    is a ValueError.
    """
    if not needs_ensemble(frames):
        return by_detector(frames)
    if ensemble is None:
        raise ValueError("these frames leave room for an event: the ensemble's row is needed, too.")
    return mixed(frames, ensemble)


def by_detector(frames: np.ndarray) -> np.ndarray:
    """Return a window's probabilities (3,) by frames (n_frames, 2) alone: the largest of each label, over their sum.

    That of normal is what the larger of the two leaves.
    """
    largest = frames.max(axis=0, initial=0.0)
    detected = np.append(largest, 1 - largest.max())
    return detected / detected.sum()


def mixed(frames: np.ndarray, ensemble: np.ndarray) -> np.ndarray:
    """Return a window's probabilities (3,) by frames (n_frames, 2) and the ensemble's row (3,), both counting.

    `DETECTOR_SHARE` is the frames' weight in the probability of normal. Crying and screaming share the rest in
    proportion to their largest frames times the squares of the ensemble's own probabilities, weighted by
    `EVENT_WEIGHTS`: so the likelier event is not beaten by normal because the other one has a part, too. Where no
    frame is known, the ensemble decides alone, with the same weights.
    """
    if not len(frames):
        share, largest = 0.0, np.ones(2)
    else:
        share, largest = DETECTOR_SHARE, frames.max(axis=0) + SMALLEST_PROBABILITY
    normal = (1 - share) * ensemble[2] + share * by_detector(frames)[2]
    events = largest * np.square(EVENT_WEIGHTS * ensemble[:2] + SMALLEST_PROBABILITY)
    return np.append((1 - normal) * events / events.sum(), normal)


def _best_weights(probabilities: Probabilities, class_ids: np.ndarray) -> list[float]:
    """Return the weights of two models with the highest macro F1; ties: nearest to equal."""
    from sklearn.metrics import f1_score

    grid = sorted(np.linspace(0, 1, WEIGHT_STEPS + 1), key=lambda first: abs(first - 0.5))
    mixes = [weighted(probabilities, (first, 1 - first)).argmax(axis=1) for first in grid]
    scores = [f1_score(class_ids, predicted, average="macro", zero_division=0) for predicted in mixes]
    first = float(grid[int(np.argmax(np.round(scores, 9)))])
    return [round(first, 6), round(1 - first, 6)]
