"""Pretraining: crops in step with the teacher, no label used, runs that repeat, what is written."""

import copy
import json
import types

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import lib.networks
from lib import config, manifest, wav2vec2
from lib.networks.onnx_networks import cut_patches
from lib.studies import compact_wav2vec2, pretraining
from lib.studies.pretraining import CROP_PATCHES, CROP_SAMPLES, PATCH_HOP_SAMPLES, PATCH_SAMPLES, TEACHER_UNITS, Sound


@pytest.fixture
def small(monkeypatch):
    """The compact network with its own kernels and strides but a hundredth of its weights, and few validation crops."""
    settings = compact_wav2vec2.compact_config()
    sizes = {"conv_dim": (16, 16, 24, 32), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    settings.update(sizes | {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4})
    monkeypatch.setattr(compact_wav2vec2, "compact_config", lambda: copy.deepcopy(settings))
    monkeypatch.setattr(pretraining, "N_VALIDATION_CROPS", 16)
    monkeypatch.setattr(wav2vec2, "device", lambda: torch.device("cpu"))


def noise(rng, n_samples):
    return (0.1 * rng.standard_normal(n_samples)).astype(np.float32)


def random_sound(rng, n_patches=(5, 6, 9)):
    clips = [noise(rng, PATCH_SAMPLES + (n - 1) * PATCH_HOP_SAMPLES) for n in n_patches]
    embeddings = [rng.standard_normal((n, sum(TEACHER_UNITS))).astype(np.float32) for n in n_patches]
    return Sound(clips, embeddings, np.full(len(clips), 1 / len(clips)))


def counting_sound(n_patches, weights):
    """Every sample tells its clip and its place, every embedding its clip and its patch."""
    clips = [1e6 * row + np.arange(PATCH_SAMPLES + (n - 1) * PATCH_HOP_SAMPLES) for row, n in enumerate(n_patches)]
    embeddings = [np.stack([np.full(n, row), np.arange(n)], axis=1) for row, n in enumerate(n_patches)]
    return Sound([clip.astype(np.float32) for clip in clips], embeddings, np.array(weights))


def test_weights_know_sources_and_groups_but_no_label(rng):
    frame = pd.DataFrame({"source": list("aabbbb"), "group_id": ["a1", "a1", "b1", "b2", "b3", "b4"]})
    embeddings, clips = [rng.standard_normal((5, 4)) for _ in range(6)], [noise(rng, CROP_SAMPLES)] * 6
    for labels in (["crying"] * 6, ["normal"] * 5 + ["screaming"], list(config.CLASS_NAMES) * 2):
        weights = pretraining.standardise(frame.assign(label=labels), clips, embeddings).weights
        # Four groups count twice as much as one: 2/3 over b's clips, 1/3 over a's two.
        np.testing.assert_allclose(weights, [1 / 6] * 6)
    alone = pretraining.standardise(frame[1:], clips[1:], embeddings[1:]).weights
    np.testing.assert_allclose(alone, [1 / 3] + [1 / 6] * 4)


def test_units_of_the_teacher_are_standardised_and_bursts_held_back(rng):
    units = 3 + 2 * rng.standard_normal((200, 8)).clip(-4, 4)
    units[:, 0] = 7.0  # a unit that never moves
    units[74, 1] = 1e3  # and one that bursts
    frame = pd.DataFrame({"source": "a", "group_id": list("xyz")})
    sound = pretraining.standardise(frame, [noise(rng, CROP_SAMPLES)] * 3, np.split(units, [5, 65]))
    assert [(len(clip), clip.dtype) for clip in sound.embeddings] == [(n, np.float32) for n in (5, 60, 135)]
    units = np.concatenate(sound.embeddings)
    np.testing.assert_allclose(units[:, 2:].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(units[:, 2:].std(axis=0), 1, atol=1e-2)
    assert np.abs(units[:, 0]).max() < 1e-3
    assert units[74, 1] == np.abs(units).max() == pretraining.TEACHER_LIMIT


def test_crop_and_teacher_belong_together_and_a_clip_without_weight_is_never_drawn():
    sound = counting_sound([5, 6, 9, 5], [0.25, 0.25, 0.5, 0.0])
    clips, targets = sound.draw(200, np.random.default_rng(1), change=False)
    assert targets.shape == (200, CROP_PATCHES, 2)
    drawn = set()
    for clip, patches in zip(clips, targets.numpy(), strict=True):
        row, start = divmod(int(clip[0]), 1_000_000)
        np.testing.assert_array_equal(clip, sound.waveforms[row][start : start + CROP_SAMPLES])  # as it is
        assert (patches[:, 0] == row).all()
        np.testing.assert_array_equal(patches[:, 1] * PATCH_HOP_SAMPLES, start + np.arange(5) * PATCH_HOP_SAMPLES)
        drawn.add((row, int(patches[0, 1])))
    assert drawn == {(0, 0)} | {(1, n) for n in range(2)} | {(2, n) for n in range(5)}  # every place, the last too


def test_a_changed_crop_stays_in_step_with_the_teacher_and_the_generator_decides_it(rng):
    sound = random_sound(rng)
    for seed in range(12):
        (plain,), targets = sound.draw(1, np.random.default_rng(seed), change=False)
        ((changed,), targets_changed), ((again,), _) = (
            sound.draw(1, np.random.default_rng(seed), change=True) for _ in range(2)
        )
        assert torch.equal(targets, targets_changed)  # the teacher is given the clean sound
        assert changed.shape == plain.shape and not np.array_equal(changed, plain)
        np.testing.assert_array_equal(changed, again)
        spectrum = np.fft.rfft(changed, 2 * CROP_SAMPLES) * np.fft.rfft(plain, 2 * CROP_SAMPLES).conj()
        lag_samples = np.abs(np.fft.irfft(spectrum)).argmax()
        assert min(lag_samples, 2 * CROP_SAMPLES - lag_samples) < 80  # 5 ms: a filter's delay, no shift


@pytest.mark.parametrize("n_copies", [0, 2])
def test_a_split_and_its_copies_are_tiled_and_the_teacher_is_given_both(monkeypatch, rng, n_copies):
    clips = [noise(rng, 400), noise(rng, CROP_SAMPLES + PATCH_HOP_SAMPLES + 3)]
    frame, given = pd.DataFrame({"source": "a", "group_id": ["x", "y"]}), []

    def embeddings(_, waveforms):
        given.extend(waveforms)
        return [cut_patches(clip)[:, :4] for clip in waveforms]

    teacher = types.SimpleNamespace(with_class_scores=lambda: None, description="some teacher")
    monkeypatch.setattr(lib, "yamnet", types.SimpleNamespace(embeddings=embeddings), raising=False)
    monkeypatch.setattr(lib.networks, "yamnet_backbone", types.SimpleNamespace(from_hub=lambda: teacher), raising=False)
    monkeypatch.setattr(manifest, "read", lambda path, *, splits: {("train",): frame}[tuple(splits)])
    monkeypatch.setattr(manifest, "load_waveforms", lambda rows: clips)
    sound, description = pretraining.load_sound("train", n_copies=n_copies, seed=3)
    expected = [pretraining.tile(clip) for clip in [*clips, *pretraining.copies(clips, n_copies, seed=3)]]
    assert description == "some teacher" and len(expected) == 2 + 2 * n_copies == len(sound.weights)
    for wanted, kept, taught in zip(expected, sound.waveforms, given, strict=True):
        assert np.array_equal(wanted, kept) and np.array_equal(wanted, taught)
    assert [len(rows) for rows in sound.embeddings][:2] == [CROP_PATCHES, CROP_PATCHES + 1]
    np.testing.assert_array_equal(sound.waveforms[0], np.resize(clips[0], CROP_SAMPLES))  # repeated; the other is cut
    np.testing.assert_array_equal(sound.waveforms[1], clips[1][: CROP_SAMPLES + PATCH_HOP_SAMPLES])
    np.testing.assert_allclose(sound.weights[:2], sound.weights[-2:])


def test_copies_are_faster_or_slower_and_half_of_them_mixed(rng):
    """A tone that is mixed is no pure tone any more, and a length tells the speed, which the pitch follows."""
    clips = [noise(rng, 16_000), np.sin(np.arange(24_000, dtype=np.float32) * 0.3)]
    made = pretraining.copies(clips, 20, seed=1)
    ratios = np.array([len(clips[i % 2]) / len(version) for i, version in enumerate(made)])
    slowest, fastest = pretraining.SPEEDS
    assert slowest * 0.99 < ratios.min() < 0.85 and 1.2 < ratios.max() < fastest * 1.01
    assert all(version.dtype == np.float32 and np.abs(version).max() <= 1 for version in made)
    n_alone = 0
    for ratio, tone in zip(ratios[1::2], made[1::2], strict=True):
        power = np.square(np.abs(np.fft.rfft(tone * np.hanning(len(tone)))))
        if power[power.argmax() - 3 :][:7].sum() > 0.995 * power.sum():
            n_alone += 1
            assert 2 * np.pi * power.argmax() / len(tone) == pytest.approx(0.3 * ratio, rel=0.01)
    assert 4 <= n_alone <= 16  # about ten of twenty
    again = pretraining.copies(clips, 20, seed=1)
    assert all(np.array_equal(*pair) for pair in zip(made, again, strict=True))
    assert pretraining.copies(clips, 0, seed=1) == []


def test_distillation_predicts_from_the_frames_within_the_patch(small, rng):
    settings, hop, field = compact_wav2vec2.compact_config(), 1, 1  # samples between two frames, and that one is given
    for kernel, stride in zip(settings.conv_kernel, settings.conv_stride, strict=True):
        field += (kernel - 1) * hop
        hop *= stride
    clips, _ = random_sound(rng).draw(2, rng, change=False)
    objective = pretraining.Distillation()
    n_frames = int(objective.backbone._get_feat_extract_output_lengths(CROP_SAMPLES))
    starts = np.arange(n_frames) * hop
    firsts = np.arange(CROP_PATCHES)[:, None] * PATCH_HOP_SAMPLES
    within = (starts >= firsts) & (starts + field <= firsts + PATCH_SAMPLES)  # (n_patches, n_frames)
    expected = torch.from_numpy(within / within.sum(axis=1, keepdims=True)).float().expand(2, -1, -1)
    frames = torch.eye(n_frames).expand(2, -1, -1)  # each frame says its number
    objective.backbone.forward = lambda **_: types.SimpleNamespace(last_hidden_state=frames)
    objective.head = torch.nn.Identity()
    assert n_frames < TEACHER_UNITS[0]  # so that one part takes them all
    assert float(objective(clips, expected)) < 1e-12
    assert float(objective(clips, expected.roll(1, dims=2))) > 1e-5
    assert float(objective(clips, expected.flip(1))) > 1e-5


def run(sound, validation, **settings):
    """The rows of a short run without their seconds, and the weights at its end."""
    settings = {"n_steps": 5, "batch_size": 2, "report_steps": 2} | settings
    rows = list(pretraining.pretrain(sound, validation, **settings))
    return [{name: row[name] for name in row if name != "seconds"} for _, row in rows], rows[-1][0].state_dict()


def test_a_run_reports_every_so_often_and_at_its_end_and_can_be_repeated(small, rng):
    sound, validation = random_sound(rng), random_sound(rng)
    rows, weights = run(sound, validation)
    assert [row["step"] for row in rows] == [2, 4, 5] and len({row["loss"] for row in rows}) == 3
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    np.random.seed(99)  # what others draw before makes no difference
    torch.manual_seed(99)
    again, same_weights = run(sound, validation)
    assert again == rows
    assert all(torch.equal(weights[name], value) for name, value in same_weights.items())
    assert run(sound, validation, seed=8)[0] != rows
    often, _ = run(sound, validation, report_steps=1)  # nor does how often it is looked at
    assert often[-1]["validation_loss"] == rows[-1]["validation_loss"]


def test_the_command_writes_half_precision_weights_curve_and_record(small, rng, monkeypatch, tmp_path, capsys):
    sounds = {split: (random_sound(rng), "some teacher") for split in ("train", "validation")}
    monkeypatch.setattr(pretraining, "load_sound", lambda split, **_: sounds[split])
    out, further = tmp_path / "out", tmp_path / "further"
    arguments = ["--steps=3", "--batch-size=2", "--seed=5", "--copies=2"]
    assert pretraining.main([*arguments, f"--out={out}"]) == 0
    assert {value.dtype for value in load_file(out / wav2vec2.CHECKPOINT_FILE).values()} == {torch.float16}
    assert not (out / config.LABELS_FILE).exists()
    model, _ = wav2vec2.load_base(str(out))  # and can be fine-tuned
    assert tuple(model.config.id2label.values()) == config.CLASS_NAMES
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert np.isfinite(wav2vec2.predict(model, [noise(rng, 20_000)])).all()
    curve = pd.read_csv(out / wav2vec2.PRETRAINING_LOSS_FILE)
    assert curve["step"].tolist() == [3]
    record = json.loads((out / config.RECORD_FILE).read_text())
    wanted = {"method": "distillation", "teacher": "some teacher", "n_steps": 3, "batch_size": 2, "seed": 5, "step": 3}
    wanted |= {"n_clips": 1, "n_versions": 2}  # of three waveforms, two are copies of the first
    assert record | wanted == record
    assert record["validation_loss"] == pytest.approx(curve["validation_loss"][0], rel=1e-4)
    assert "start" not in record
    assert "validation_loss" in capsys.readouterr().out
    assert pretraining.main([*arguments, f"--out={further}", f"--start={out}", "--share=0"]) == 0
    assert json.loads((further / config.RECORD_FILE).read_text())["start"] == record
    kept = [load_file(folder / wav2vec2.CHECKPOINT_FILE) for folder in (out, further)]
    assert all(torch.equal(value, kept[1][name]) for name, value in kept[0].items())  # none of the way from the first
    card = (further / "README.md").read_text()
    assert "- batches: 3 of 2 crops of 2.9 s, after 3 of an earlier run (distillation, seed 5)" in card
    assert "- weights: 0% of the way" in card
