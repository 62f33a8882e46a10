"""The networks that serve are those that were trained: ONNX against Keras and PyTorch, alone, in batches, in builds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from lib import audio, config, ensemble, inference, wav2vec2, waveforms, yamnet
from lib.detector import Detector
from lib.networks import onnx_networks, yamnet_backbone
from lib.reporting import export
from lib.studies import compact_wav2vec2, framework_path

LARGEST_DIFFERENCE = 1e-4
SECONDS = (0.3, 0.975, 0.976, 3.7, 15.0, 59.9)
RULE = {"rule": "average", "model_names": list(ensemble.MODEL_NAMES), "class_names": list(config.CLASS_NAMES)}
RELEASED = {"yamnet": (onnx_networks.Yamnet, yamnet), "wav2vec2": (onnx_networks.Wav2Vec2, wav2vec2)}


def made_up(rng):
    """Return a minute of tones and noise of changing level."""
    level = np.repeat(rng.random(62) ** 2, config.SAMPLE_RATE_HZ)
    tones = np.sin(np.cumsum(np.repeat(rng.uniform(0.05, 0.5, 62), config.SAMPLE_RATE_HZ)))
    return (level * (tones + rng.standard_normal(len(level)) / 4) / 4).clip(-1, 1).astype(np.float32)


def recorded(mirror_dir):
    """Return a minute of infants, one after the other."""
    paths = sorted(mirror_dir.glob("theunissenlab/BabyCriesDiscomfortPain/*/OpenData/cry_sequences_22babies/*.wav"))
    return np.resize(np.concatenate([audio.load(path) for path in paths[:8]]), 62 * config.SAMPLE_RATE_HZ)


@pytest.fixture(params=["made up", pytest.param("recorded", marks=pytest.mark.real_audio)])
def clips(request, rng):
    minute = recorded(request.getfixturevalue("mirror_dir")) if request.param == "recorded" else made_up(rng)
    starts = range(0, 500 * len(SECONDS), 500)
    return [minute[at:][: round(s * config.SAMPLE_RATE_HZ)] for at, s in zip(starts, SECONDS, strict=True)]


@pytest.mark.parametrize("name", RELEASED)
def test_the_graph_predicts_what_the_framework_predicts(name, clips):
    serve, framework = RELEASED[name]
    given = [waveforms.prepare(clip) for clip in clips]
    trained = framework.predict(framework.load(config.MODELS_DIR / config.RELEASED_DIRS[name]), given, batch_size=1)
    network = serve()
    together = network.predict(given)
    np.testing.assert_allclose(together, trained, atol=LARGEST_DIFFERENCE)
    np.testing.assert_array_equal(together, np.concatenate([network.predict([clip]) for clip in given]))
    assert np.ptp(together, axis=0).max() > 0.05  # the clips are told apart
    assert network.predict([]).shape == (0, 3)


def test_embeddings_are_those_of_keras_and_the_same_bits_in_batches_of_any_size(clips):
    patches = onnx_networks.cut_patches(clips[-2])
    backbone = yamnet.backbone_of(yamnet.load(config.MODELS_DIR / "yamnet"))
    served = onnx_networks.Yamnet().embed
    together = served(patches)
    np.testing.assert_allclose(together, backbone.predict_on_batch(patches), atol=LARGEST_DIFFERENCE)
    np.testing.assert_array_equal(together, np.concatenate([served(patch[None]) for patch in patches]))


def test_an_excerpt_is_the_3_s_with_the_highest_audioset_scores(clips):
    network, framework = onnx_networks.Yamnet(), framework_path.load().excerpt
    for given in map(waveforms.prepare, clips[:-1]):
        found = network.excerpt(given)
        assert len(found) == min(len(given), onnx_networks.EXCERPT_SAMPLES)
        np.testing.assert_array_equal(found, framework(given))


@pytest.mark.parametrize("n_more", [1, 7_680, 192_000])
@pytest.mark.parametrize("column", [0, 1, 4], ids=["infant cry", "crying", "screaming"])
def test_an_excerpt_is_3_s_of_the_waveform_wherever_its_highest_patch_is(n_more, column):
    waveform = np.arange(onnx_networks.EXCERPT_SAMPLES + n_more, dtype=np.float32)
    patches = onnx_networks.cut_patches(waveform)
    for highest in range(len(patches)):
        features = np.zeros((len(patches), onnx_networks.EMBEDDING_SIZE + len(onnx_networks.AUDIOSET_CLASSES)))
        features[:, -1] = 9.0  # of another class
        features[highest, onnx_networks.EMBEDDING_SIZE + column] = 1.0
        start = onnx_networks.excerpt_start(waveform, lambda _, found=features: found)
        assert 0 <= start <= patches[highest][0]
        assert patches[highest][-1] < start + onnx_networks.EXCERPT_SAMPLES <= len(waveform)


def test_of_3_s_and_of_silence_the_excerpt_is_the_start():
    assert onnx_networks.excerpt_start(np.zeros(onnx_networks.EXCERPT_SAMPLES, np.float32), pytest.fail) == 0
    network, silence = onnx_networks.Yamnet(), np.zeros(15 * config.SAMPLE_RATE_HZ, np.float32)
    assert network.excerpt_start(silence) == 0 and len(network.excerpt(silence[:-1])) == onnx_networks.EXCERPT_SAMPLES


@pytest.mark.real_audio
@pytest.mark.parametrize("second", [0, 4, 9, 13])
def test_the_excerpt_of_a_window_holds_its_cry(mirror_dir, rng, second):
    cry = recorded(mirror_dir)[: 2 * config.SAMPLE_RATE_HZ]
    window = (0.005 * rng.standard_normal(15 * config.SAMPLE_RATE_HZ)).astype(np.float32)
    start = second * config.SAMPLE_RATE_HZ
    window[start : start + len(cry)] += cry
    found = onnx_networks.Yamnet().excerpt_start(waveforms.prepare(window))
    middle = start + len(cry) // 2
    assert found <= middle <= found + onnx_networks.EXCERPT_SAMPLES


def test_files_are_small_and_say_what_they_were_made_from():
    for name, files in onnx_networks.GRAPH_FILES.items():
        folder = config.MODELS_DIR / config.RELEASED_DIRS[name]
        assert all((folder / file).stat().st_size < 20e6 for file in files)
        assert RELEASED[name][0]().version == config.version_of(folder / config.CHECKPOINT_FILES[name])


def test_the_detector_loads_without_the_classifier(tmp_path):
    for name in ("yamnet", "detector"):
        (tmp_path / name).symlink_to(config.MODELS_DIR / name)
    detector = Detector.load(tmp_path)
    frames = detector.detect(np.zeros(config.SAMPLE_RATE_HZ, np.float32)).frames
    assert frames.max() < 0.5


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Return the models of a build whose YAMNet has another backbone and another head."""
    folder, rng = tmp_path_factory.mktemp("build"), np.random.default_rng(3)
    keras.utils.set_random_seed(3)
    backbone = yamnet_backbone.BaseYamnet(yamnet_backbone.build_backbone(), "random").with_class_scores()
    head = yamnet.build_head(*((rng.standard_normal((3, n)) / n, rng.standard_normal(3)) for n in (2048, 69)))
    yamnet.save(yamnet.build_classifier(backbone, head), folder / "yamnet/grouped", record={})
    wav2vec2.save(compact_wav2vec2.initial_model(), folder / "wav2vec2/grouped", record={})
    ensemble.save_rule(folder / "ensemble.json", RULE)
    return folder


def test_networks_of_a_build_are_exported_and_never_replaced_by_others(build, tmp_path, tone):
    models_dir = Path(shutil.copytree(build, tmp_path / "models"))
    with pytest.raises(config.MissingCheckpointError, match=r"lib\.reporting\.export"):
        inference.Classifier.load(models_dir)
    written = export.export(models_dir)
    first = [path.read_bytes() for path in written]
    clips = [waveforms.prepare(tone(400, 2)), waveforms.prepare(tone(3_000, 0.3))]
    classifier = inference.Classifier.load(models_dir)
    predicted = [classifier.predict_by_ensemble(clip) for clip in clips]
    for name, (_, framework) in RELEASED.items():
        expected = framework.predict(framework.load(models_dir / name / "grouped"), clips)
        found = [list(each.members[name].values()) for each in predicted]
        np.testing.assert_allclose(found, expected, atol=LARGEST_DIFFERENCE)
    assert export.main([str(models_dir)]) == 0 and export.main([str(build / "nothing")]) == 1
    assert [path.read_bytes() for path in written] == first

    wav2vec2.save(compact_wav2vec2.initial_model(), models_dir / "wav2vec2/grouped", record={})
    with pytest.raises(onnx_networks.StaleGraphError, match="exported from"):
        inference.Classifier.load(models_dir)
    (models_dir / "ensemble.json").write_text(json.dumps({**RULE, "class_names": ["normal", "crying", "screaming"]}))
    with pytest.raises(config.ClassOrderError):
        inference.Classifier.load(models_dir)


@pytest.mark.parametrize(("given", "n_at_a_time", "expected"), [("3", 2, 3), ("", 2, 2), ("", 1, 5), ("", 9, 1)])
def test_threads_are_chosen_by_the_variable_or_shared_among_what_runs_at_a_time(
    monkeypatch, given, n_at_a_time, expected
):
    monkeypatch.setenv(config.THREADS_VARIABLE, given)
    monkeypatch.setattr(config.os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    assert config.n_threads(n_at_a_time) == expected
