"""Heads on frozen features, and networks trained for studies, on data where the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lib import config, probabilities, splits
from lib.reporting import steps
from lib.studies import ablation, frozen_head, left_out, retrained, seeds

CORPUS_GROUPS = ("a", "b", "c", "d")
C = 1.0  # the study's own penalties are for more features


@pytest.fixture
def rows(rng):
    """Return 240 clips of 4 corpus groups; crying is mostly group a's, as it is donateacry's."""
    labels, sources = [], []
    for source in CORPUS_GROUPS:
        shares = (0.8, 0.1, 0.1) if source == "a" else (0.2, 0.4, 0.4)
        labels += list(rng.choice(config.CLASS_NAMES, 60, p=shares))
        sources += [source] * 60
    frame = pd.DataFrame({"label": labels, "source": sources})
    return frame.assign(group_id=[f"g{i // 2}" for i in range(240)])


def one_hot(values, names):
    return np.eye(len(names))[[names.index(value) for value in values]]


def accuracy(rows, answers):
    return float((answers.argmax(axis=1) == rows["label"].map(config.CLASS_ID)).mean())


def test_a_head_given_the_class_carries_over_and_one_given_the_source_does_not(rows, rng):
    noise = rng.normal(0, 0.2, (240, 4))
    content = np.hstack([one_hot(rows["label"], list(config.CLASS_NAMES)), noise])
    source = np.hstack([one_hot(rows["source"], list(CORPUS_GROUPS)), noise])
    assert accuracy(rows, frozen_head.predict_left_out(rows, [content], content, c=C)) > 0.95
    assert accuracy(rows, frozen_head.predict_left_out(rows, [source], source, c=C)) < 0.55


def test_the_head_is_fitted_without_the_corpus_group_it_predicts(rows):
    """The clips of group a point the other way: a head fitted to them would be right."""
    turned = {"crying": "screaming", "screaming": "normal", "normal": "crying"}
    pairs = zip(rows["label"], rows["source"], strict=True)
    seen = [turned[label] if source == "a" else label for label, source in pairs]
    features = one_hot(seen, list(config.CLASS_NAMES))
    answers = frozen_head.predict_left_out(rows, [features], features, c=C)
    is_a = (rows["source"] == "a").to_numpy()
    assert accuracy(rows[is_a], answers[is_a]) < 0.05


def test_the_table_compares_with_its_first_row(rows):
    truth = rows["label"].map(config.CLASS_ID).to_numpy()
    right = np.eye(3)[truth] * 0.9 + 0.1 / 3
    wrong = np.eye(3)[(truth + 1) % 3] * 0.9 + 0.1 / 3
    table = frozen_head.compare(rows, {"right": right, "wrong": wrong}, "variant").set_index(["variant", "measure"])
    ends = ["value", "low", "high"]
    assert table.loc[("right", "macro F1"), ends].tolist() == [1, 1, 1]
    assert table.loc[("right", "change"), ends].tolist() == [0, 0, 0]
    assert table.loc[("wrong", "change"), ends].tolist() == [-1, -1, -1]
    assert table.loc[("wrong", "F1 crying"), "value"] == 0 and set(table["n_groups"]) == {120}


def test_each_variant_lacks_one_piece():
    variants = ablation.augment_variants()
    whole = vars(variants.pop("full recipe"))
    assert len(variants) >= 6 and all(whole[key] > 0 for key in ("p_shift", "p_pitch_tempo", "p_noise"))
    for name, settings in variants.items():
        lacking = {key for key, value in vars(settings).items() if value != whole[key]}
        assert len(lacking) == 1 and vars(settings)[lacking.pop()] == 0.0, name


@pytest.mark.parametrize("profile", [name for name in seeds.PROFILES if name != "full"])
def test_another_seed_is_the_full_recipe_but_for_its_seed(profile):
    full, other = (steps.load_parameters(steps.PARAMS_DIR / f"{name}.yaml") for name in ("full", profile))
    for notebook in ("03_yamnet", "04_wav2vec2"):
        assert other[notebook]["seed"] != full[notebook]["seed"]
        differ = {key for key, value in full[notebook].items() if other[notebook].get(key) != value}
        assert differ == {"profile", "seed", "split_schemes"}, notebook


@pytest.mark.parametrize("stages", [(), ("A", "B")])
def test_every_checkpoint_predicts_and_the_kept_stage_is_marked(rows, stages, monkeypatch, tmp_path):
    from lib import wav2vec2, yamnet

    for model in ("yamnet", "wav2vec2"):
        for folder in ("s", *(f"s.{stage}" for stage in stages)):
            (tmp_path / model / folder).mkdir(parents=True)
        config.write_record(tmp_path / model / "s", {"stage": "B: last layers"})
    answers = {"s": [0, 0, 1], "s.A": [0, 1, 0], "s.B": [0, 0, 1]}
    for network in (yamnet, wav2vec2):
        monkeypatch.setattr(network, "load", lambda folder: folder.name)
        monkeypatch.setattr(network, "predict", lambda name, clips: np.tile(answers[name], (len(clips), 1)))
    monkeypatch.setattr(splits, "read", lambda scheme, splits: rows.assign(split="test", clip_id=rows.index))
    monkeypatch.setattr(retrained.manifest, "load_waveforms", lambda rows: rows["clip_id"].tolist())
    table = retrained.predictions("s", tmp_path)
    assert set(table["condition"]) == {"as recorded"}
    assert len(table) == 2 * len(rows) * (len(stages) or 1)
    kept = table[table["kept"]]
    assert set(kept["stage"]) == {"B"} and (kept["normal"] == 1).all() and len(kept) == 2 * len(rows)
    assert (table.loc[~table["kept"], "normal"] == 0).all()


def test_corpus_groups_left_out_are_predicted_in_noise_too(rows, monkeypatch, tmp_path):
    from lib import wav2vec2, yamnet

    for model in ("yamnet", "wav2vec2"):
        for scheme in ("without_one", "without_two"):
            (tmp_path / "models" / model / scheme).mkdir(parents=True)
            config.write_record(tmp_path / "models" / model / scheme, {"stage": "A: frozen"})

    def predict(_model, clips):
        """Tell how far the samples range."""
        return np.array([[1 - np.ptp(clip), np.ptp(clip), 0] for clip in clips])

    for network in (yamnet, wav2vec2):
        monkeypatch.setattr(network, "load", lambda folder: folder)
        monkeypatch.setattr(network, "predict", predict)
    monkeypatch.setattr(config, "build_dir", lambda profile: tmp_path)
    monkeypatch.setattr(splits, "left_out_schemes", lambda: ["without_one", "without_two"])
    some = {"without_one": rows[:3], "without_two": rows[3:5]}
    monkeypatch.setattr(splits, "read", lambda scheme, splits: some[scheme].assign(split="test", clip_id="c"))
    monkeypatch.setattr(retrained.manifest, "load_waveforms", lambda rows: [np.full(8, 0.25, np.float32)] * len(rows))
    monkeypatch.setattr(
        retrained,
        "in_noise",
        lambda rows, clips: {"quiet": clips, "loud": [clip * ([0, 2] * 4) for clip in clips]},
    )
    table = left_out.run(None).tables["left_out"]
    assert table.groupby(["scheme", "model", "condition"]).size().to_dict() == {
        (scheme, model, condition): n
        for scheme, n in (("without_one", 3), ("without_two", 2))
        for model in ("yamnet", "wav2vec2")
        for condition in ("quiet", "loud")
    }
    assert set(table.columns) == {*probabilities.COLUMNS, *probabilities.WHO}
    assert table.groupby("condition")["screaming"].unique().map(list).to_dict() == {"quiet": [0.0], "loud": [0.5]}
