"""The studies' machinery on data where the answer is known: a planted shortcut fails on the family left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lib import augment, config, probabilities, splits
from lib.reporting import steps
from lib.studies import attention, study

FAMILIES = ("a", "b", "c", "d")
C = 1.0  # the study's own penalties are for more features


@pytest.fixture
def rows(rng):
    """Return 240 clips of 4 families; crying is mostly family a's, as it is donateacry's."""
    labels, sources = [], []
    for source in FAMILIES:
        shares = (0.8, 0.1, 0.1) if source == "a" else (0.2, 0.4, 0.4)
        labels += list(rng.choice(config.CLASS_NAMES, 60, p=shares))
        sources += [source] * 60
    frame = pd.DataFrame({"label": labels, "source": sources})
    return frame.assign(group_id=[f"g{i // 2}" for i in range(240)])


def one_hot(values, names):
    return np.eye(len(names))[[names.index(value) for value in values]]


def accuracy(rows, answers):
    return float((answers.argmax(axis=1) == rows["label"].map(config.CLASS_ID)).mean())


def test_a_head_that_hears_the_class_carries_over_and_one_that_hears_the_source_does_not(rows, rng):
    noise = rng.normal(0, 0.2, (240, 4))
    content = np.hstack([one_hot(rows["label"], list(config.CLASS_NAMES)), noise])
    source = np.hstack([one_hot(rows["source"], list(FAMILIES)), noise])
    assert accuracy(rows, study.probe(rows, [content], content, c=C)) > 0.95
    assert accuracy(rows, study.probe(rows, [source], source, c=C)) < 0.55


def test_the_probe_never_meets_the_family_it_answers_for(rows):
    """Each family's clips point the other way: whoever had met them would be right."""
    turned = {"crying": "screaming", "screaming": "normal", "normal": "crying"}
    pairs = zip(rows["label"], rows["source"], strict=True)
    seen = [turned[label] if source == "a" else label for label, source in pairs]
    features = one_hot(seen, list(config.CLASS_NAMES))
    answers = study.probe(rows, [features], features, c=C)
    is_a = (rows["source"] == "a").to_numpy()
    assert accuracy(rows[is_a], answers[is_a]) < 0.05


def test_a_mixture_teaches_both_labels_by_their_shares(rows):
    """Two kinds of mixture, each of one pair of classes: the probe must answer with the shares it was taught."""
    plain = np.zeros((240, 1))
    labels = rows["label"].to_numpy()
    partners = np.array([np.flatnonzero(labels != label)[0] for label in labels])
    mixture = study.Mixture(np.ones((240, 1)), partners, np.full(240, 0.75))
    answers = study.probe(rows, [plain], np.ones((240, 1)), c=100.0, mixture=mixture)
    taught = 0.75 * one_hot(labels, list(config.CLASS_NAMES)) + 0.25 * one_hot(
        labels[partners], list(config.CLASS_NAMES)
    )
    met = (rows["source"] != "d").to_numpy() & (rows["source"].to_numpy()[partners] != "d")
    weights = augment.balanced_weights(rows[(rows["source"] != "d")], smoothing=0.75, class_smoothing=0.5)
    kept = met[(rows["source"] != "d").to_numpy()]
    expected = np.average(taught[met], axis=0, weights=weights[kept])
    assert answers[-1] == pytest.approx(expected, abs=0.02)


def test_a_mixture_with_a_family_left_out_is_not_heard(rows):
    """Every clip of a, b and c is mixed with one of d, and that marks its class: no fold but d's may learn from it."""
    marks = one_hot(rows["label"], list(config.CLASS_NAMES))
    partners = np.where(np.arange(240) < 180, 180 + np.arange(240) % 60, np.arange(240))
    mixture = study.Mixture(np.roll(marks, 1, axis=1), partners, np.full(240, 1.0))
    alone = study.probe(rows, [marks], marks, c=C)
    beside = study.probe(rows, [marks], marks, c=C, mixture=mixture)
    assert np.allclose(alone[180:], beside[180:]), "d is in every mixture, so its fold must hear none"
    assert not np.allclose(alone[:180], beside[:180])


def test_mixed_clips_keep_length_and_level(rng):
    clips = [rng.normal(0, 0.1, n).astype(np.float32) for n in (8_000, 16_000, 12_000)]
    mixed, partners, shares = study.mix_clips(clips)
    assert [len(m) for m in mixed] == [8_000, 16_000, 12_000]
    assert sorted(partners) == [0, 1, 2] and shares.min() >= 0.5 and shares.max() <= 1
    assert all(np.isfinite(m).all() and np.abs(m).max() <= 1 for m in mixed)
    again = study.mix_clips(clips)[0]
    assert all(np.array_equal(first, second) for first, second in zip(mixed, again, strict=True))


def test_attention_finds_the_one_patch_that_matters(rows, rng):
    """A class shows in one patch of eight, at a random place; a mean would all but drown it."""
    marks = one_hot(rows["label"], list(config.CLASS_NAMES))
    clips = []
    for mark in marks:
        patches = rng.normal(0, 0.3, (int(rng.integers(4, 12)), 8)).astype(np.float32)
        patches[rng.integers(len(patches)), :3] += 4 * mark
        clips.append(patches)
    answers = attention.probe(rows, clips, families=splits.corpus_group(rows["source"]).to_numpy(), seed=0)
    assert answers.sum(axis=1) == pytest.approx(np.ones(240), abs=1e-5)
    assert accuracy(rows, answers) > 0.9


def test_padding_weighs_nothing():
    import torch

    torch.manual_seed(0)
    head = attention.AttentionHead(8).eval()
    patches = torch.randn(1, 5, 8)
    alone = head(patches, torch.ones(1, 5, dtype=torch.bool))
    padded = torch.cat([patches, torch.full((1, 7, 8), 99.0)], dim=1)
    beside = head(padded, torch.arange(12)[None] < 5)
    assert torch.allclose(alone, beside, atol=1e-5)


def test_each_variant_lacks_one_piece():
    variants = study.augment_variants()
    whole = vars(variants.pop("full recipe"))
    assert len(variants) >= 6 and all(whole[key] > 0 for key in ("p_shift", "p_pitch_tempo", "p_noise"))
    for name, settings in variants.items():
        lacking = {key for key, value in vars(settings).items() if value != whole[key]}
        assert len(lacking) == 1 and vars(settings)[lacking.pop()] == 0.0, name


def test_the_table_compares_with_its_first_row(rows):
    truth = rows["label"].map(config.CLASS_ID).to_numpy()
    right = np.eye(3)[truth] * 0.9 + 0.1 / 3
    wrong = np.eye(3)[(truth + 1) % 3] * 0.9 + 0.1 / 3
    table = study.compare(rows, {"right": right, "wrong": wrong}, "variant").set_index("variant")
    assert table.loc["right", "macro F1"] == "1.000 [1.000, 1.000]"
    assert table.loc["right", "change"] == "+0.000 [+0.000, +0.000]"
    assert table.loc["wrong", "change"] == "-1.000 [-1.000, -1.000]"


def test_a_changed_copy_is_the_same_in_every_run_and_another_for_another_key(rng):
    waveform = (0.1 * rng.standard_normal(16_000)).astype(np.float32)
    first, again = (augment.augmented_copy(waveform, key="clip 0") for _ in range(2))
    assert np.array_equal(first, again) and first.shape == waveform.shape
    assert not np.array_equal(first, augment.augmented_copy(waveform, key="clip 1"))


@pytest.mark.parametrize(("arguments", "wanted"), [([], ["left_out", "ablation"]), (["left-out"], ["left_out"])])
def test_the_command_writes_the_tables_asked_for_and_all_by_default(arguments, wanted, monkeypatch, tmp_path):
    made = {name: pd.DataFrame({"study": [name]}) for name in ("left_out", "ablation")}
    monkeypatch.setattr(study, "STUDIES", {name: lambda table=table: table for name, table in made.items()})
    monkeypatch.setattr(config, "report_dir", lambda profile: tmp_path / profile)
    assert study.main(arguments) == 0
    written = sorted(path.name for path in (tmp_path / "full" / "tables").iterdir())
    assert written == sorted(f"study_{name}.csv" for name in wanted)
    assert pd.read_csv(tmp_path / "full" / "tables" / f"study_{wanted[0]}.csv")["study"].tolist() == [wanted[0]]


def test_an_unknown_study_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        study.main(["everything"])
    assert "left-out" in capsys.readouterr().err


@pytest.mark.parametrize("profile", [name for name in study.SEED_PROFILES if name != "full"])
def test_another_seed_is_the_full_recipe_but_for_its_seed(profile):
    full, other = (steps.load_parameters(steps.PARAMS_DIR / f"{name}.yaml") for name in ("full", profile))
    for notebook in study.NOTEBOOKS:
        assert other[notebook]["seed"] != full[notebook]["seed"]
        differ = {key for key, value in full[notebook].items() if other[notebook].get(key) != value}
        assert differ == {"profile", "seed", "split_schemes"}, notebook


@pytest.mark.parametrize("stages", [(), ("A", "B")])
def test_every_checkpoint_answers_and_the_kept_stage_is_marked(rows, stages, monkeypatch, tmp_path):
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
    monkeypatch.setattr(study.manifest, "load_waveforms", lambda rows: rows["clip_id"].tolist())
    table = study._answers("s", tmp_path)
    assert set(table["condition"]) == {"as recorded"}
    assert len(table) == 2 * len(rows) * (len(stages) or 1)
    kept = table[table["kept"]]
    assert set(kept["stage"]) == {"B"} and (kept["normal"] == 1).all() and len(kept) == 2 * len(rows)
    assert (table.loc[~table["kept"], "normal"] == 0).all()


def test_families_left_out_are_heard_in_noise_too(rows, monkeypatch, tmp_path):
    from lib import wav2vec2, yamnet

    for model in ("yamnet", "wav2vec2"):
        for scheme in ("without_one", "without_two"):
            (tmp_path / model / scheme).mkdir(parents=True)
            config.write_record(tmp_path / model / scheme, {"stage": "A: frozen"})

    def predict(_model, clips):
        """Tell how far the samples range."""
        return np.array([[1 - np.ptp(clip), np.ptp(clip), 0] for clip in clips])

    for network in (yamnet, wav2vec2):
        monkeypatch.setattr(network, "load", lambda folder: folder)
        monkeypatch.setattr(network, "predict", predict)
    monkeypatch.setattr(study, "_trained", lambda profile: tmp_path)
    monkeypatch.setattr(splits, "left_out_schemes", lambda: ["without_one", "without_two"])
    some = {"without_one": rows[:3], "without_two": rows[3:5]}
    monkeypatch.setattr(splits, "read", lambda scheme, splits: some[scheme].assign(split="test", clip_id="c"))
    monkeypatch.setattr(study.manifest, "load_waveforms", lambda rows: [np.full(8, 0.25, np.float32)] * len(rows))
    monkeypatch.setattr(
        study,
        "in_noise",
        lambda rows, clips: {"quiet": clips, "loud": [clip * ([0, 2] * 4) for clip in clips]},
    )
    table = study.left_out()
    assert table.groupby(["scheme", "model", "condition"]).size().to_dict() == {
        (scheme, model, condition): n
        for scheme, n in (("without_one", 3), ("without_two", 2))
        for model in ("yamnet", "wav2vec2")
        for condition in ("quiet", "loud")
    }
    assert set(table.columns) == {*probabilities.COLUMNS, *probabilities.WHO}
    assert table.groupby("condition")["screaming"].unique().map(list).to_dict() == {"quiet": [0.0], "loud": [0.5]}
