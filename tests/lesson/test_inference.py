"""Inference: windows classified, events of files, the command's lines and exit codes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lib import audio, config, ensemble, inference
from lib.detector import SILENCE_PEAK, Detection
from lib.events import Event

RULE = {"rule": "average", "model_names": list(ensemble.MODEL_NAMES), "class_names": list(config.CLASS_NAMES)}
CRYING, SCREAMING = np.array([0.8, 0.1, 0.1]), np.array([0.2, 0.7, 0.1])


def by_pitch(waveforms):
    """Cry where the pitch is low, scream where it is high."""
    crossings = [np.mean(np.abs(np.diff(np.sign(w)))) for w in waveforms]
    return np.array([SCREAMING if c > 0.25 else CRYING for c in crossings])


class LoudDetector:
    """Finds one cry where a recording is not silent, from its first loud sample to its last."""

    def detect(self, blocks):
        samples = blocks if isinstance(blocks, np.ndarray) else np.concatenate(list(blocks))
        loud = np.flatnonzero(np.abs(samples) > 0.1) / config.SAMPLE_RATE_HZ
        events = [Event(float(loud[0]), float(loud[-1]), "crying", 0.9)] if len(loud) else []
        return Detection(np.array([[0.9 * bool(events), 0.0]]), events)


@pytest.fixture
def classifier():
    predictors, versions = dict.fromkeys(ensemble.MODEL_NAMES, by_pitch), {"yamnet": "abc", "ensemble": "123"}
    return inference.Classifier(predictors, RULE, versions, LoudDetector())


@pytest.fixture
def networks_alone(classifier):
    return inference.Classifier(classifier.predictors, RULE, classifier.versions)


@pytest.fixture
def loaded(monkeypatch, classifier):
    monkeypatch.setattr(inference.Classifier, "load", classmethod(lambda cls, models_dir: classifier))


@pytest.fixture
def cry_path(tmp_path, tone):
    return audio.write_pcm16(tmp_path / "cry.wav", tone(400, 2)) or tmp_path / "cry.wav"


def test_a_prediction_holds_label_probabilities_and_members(networks_alone, tone):
    prediction = networks_alone.predict(tone(400, 2))
    assert prediction.label == "crying"
    assert tuple(prediction.probabilities) == config.CLASS_NAMES
    assert prediction.probabilities["crying"] == pytest.approx(0.8)
    assert tuple(prediction.members) == ensemble.MODEL_NAMES


def test_members_are_combined_by_the_rule(networks_alone, tone):
    networks_alone.predictors["wav2vec2"] = lambda waveforms: np.tile(SCREAMING, (len(waveforms), 1))
    prediction = networks_alone.predict(tone(400, 2))
    np.testing.assert_allclose(list(prediction.probabilities.values()), (CRYING + SCREAMING) / 2)
    assert prediction.members["wav2vec2"]["screaming"] == pytest.approx(0.7)


def test_ensemble_and_detector_count_alike(classifier, networks_alone, tone):
    frames = np.array([[0.2, 0.9], [0.4, 0.1]])
    classifier.detector.detect = lambda waveform: Detection(frames, [])
    alone, both = (
        np.array([*some.predict(tone(400, 2)).probabilities.values()]) for some in (networks_alone, classifier)
    )
    np.testing.assert_allclose(both, alone / 2 + np.array([0.4, 0.9, 0.1]) / 1.4 / 2)
    assert classifier.predict_with(tone(400, 2), lambda: frames) == classifier.predict(tone(400, 2))
    assert classifier.predict(tone(400, 2)).members == networks_alone.predict(tone(400, 2)).members


def test_a_batch_is_predicted_as_singles_are(networks_alone, tone):
    clips = [tone(400, 2), tone(3_000, 1), tone(400, 0.3)]
    assert networks_alone.predict_batch(clips) == [networks_alone.predict(clip) for clip in clips]
    assert networks_alone.predict_batch([]) == []


def test_what_stays_within_the_silence_gate_is_predicted_as_digital_silence_once(networks_alone, tone):
    given = []
    for name in networks_alone.predictors:
        networks_alone.predictors[name] = lambda waveforms: given.extend(waveforms) or by_pitch(waveforms)
    faint = np.resize(np.float32([SILENCE_PEAK, -SILENCE_PEAK]), 80_000)
    predictions = networks_alone.predict_batch([faint, tone(3_000, 2), np.zeros(16_000, np.float32), 1.1 * faint])
    assert [p.label for p in predictions] == ["crying", "screaming", "crying", "screaming"]  # of by_pitch
    assert predictions[0] == predictions[2] == networks_alone.predict(faint)
    assert sorted(not waveform.any() for waveform in given) == [False] * 4 + [True] * 2  # two networks each


def test_level_and_offset_do_not_reach_the_networks(classifier, tone):
    given = []
    classifier.predictors["yamnet"] = lambda waveforms: given.extend(waveforms) or by_pitch(waveforms)
    loud = tone(400, 2)
    classifier.predict_batch([loud, np.float32(0.01) * loud + np.float32(0.1)])
    np.testing.assert_allclose(given[0], given[1], atol=1e-4)


@pytest.mark.parametrize(
    "waveform",
    [np.zeros(16_000), np.zeros(10, np.float32), np.full(16_000, np.nan, np.float32), np.empty(0, np.float32)],
)
def test_what_is_no_waveform_is_refused(classifier, waveform):
    with pytest.raises(audio.AudioError):
        classifier.predict(waveform)


def test_a_long_recording_has_the_label_of_its_event_and_windows_of_at_most_15_s(classifier, tmp_path, tone):
    path = tmp_path / "long.wav"
    audio.write_pcm16(path, np.concatenate([0.01 * tone(3_000, 40), tone(400, 2), 0.01 * tone(3_000, 10.2)]))
    found = inference.run_inference(path, classifier=classifier)
    assert found.label == "crying"
    assert found.events[0].onset_seconds == pytest.approx(40, abs=0.01)
    assert found.events[0].offset_seconds == pytest.approx(42, abs=0.01)
    edges = [(window.start_seconds, window.stop_seconds) for window in found.windows]
    assert edges[0][0] == 0 and edges[-1][1] == pytest.approx(52.2, abs=0.01)
    assert all(stop == start for (_, stop), (start, _) in zip(edges[:-1], edges[1:], strict=True))
    assert all(1 < stop - start <= 15 for start, stop in edges)
    assert found.model_versions["ensemble"] == "123"


def test_a_recording_without_events_is_normal(classifier, tmp_path, tone):
    path = tmp_path / "quiet.wav"
    audio.write_pcm16(path, 0.01 * tone(400, 2))
    found = inference.run_inference(path, classifier=classifier)
    assert (found.label, found.events) == ("normal", [])


def test_without_a_detector_files_are_refused_and_windows_are_not(classifier, cry_path, tone):
    classifier.detector = None
    assert classifier.predict(tone(400, 2)).label == "crying"
    with pytest.raises(config.MissingCheckpointError, match="detector"):
        classifier.predict_file(cry_path)


def test_the_command_prints_label_events_and_a_single_windows_probabilities(loaded, cry_path, capsys):
    assert inference.main([str(cry_path)]) == 0
    out = capsys.readouterr().out
    assert "Predicted Label: Crying" in out
    assert "Crying from 0.0 to 2.0 s" in out
    assert "crying 0.850" in out


def test_json_is_one_object_per_line(loaded, cry_path, capsys):
    assert inference.main([str(cry_path), str(cry_path), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["label"] for line in lines] == ["crying", "crying"]
    assert lines[0]["events"][0]["label"] == "crying"
    assert tuple(lines[0]["windows"][0]["probabilities"]) == config.CLASS_NAMES


def test_bad_input_is_one_line_and_exit_code_2(loaded, tmp_path, capsys):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not audio at all " * 100)
    for name in ("missing.wav", "empty.wav", "text.wav"):
        assert inference.main([str(tmp_path / name)]) == 2
        streams = capsys.readouterr()
        assert streams.err.startswith("error: ")
        assert streams.err.count("\n") == 1
        assert streams.out == ""


def test_a_folder_goes_on_past_a_bad_file(loaded, cry_path, capsys):
    (cry_path.parent / "broken.flac").write_bytes(b"fLaC")
    (cry_path.parent / "notes.txt").write_text("no recording")
    assert inference.main([str(cry_path.parent)]) == 2
    streams = capsys.readouterr()
    assert "Predicted Label: Crying" in streams.out
    assert "1 of 2 recordings could not be classified" in streams.err
    assert "skipped: " in streams.err and "notes.txt" in streams.err


def test_an_empty_path_is_refused(loaded, capsys):
    assert inference.main([""]) == 2
    streams = capsys.readouterr()
    assert (streams.err.count("\n"), streams.out) == (1, "")


def test_a_folder_without_recordings_is_an_error(loaded, tmp_path, capsys):
    assert inference.main([str(tmp_path)]) == 2
    assert "no audio files" in capsys.readouterr().err


def test_a_clone_without_models_says_what_makes_them(tmp_path, cry_path, capsys):
    with pytest.raises(config.MissingCheckpointError, match=r"run_all\.sh"):
        inference.Classifier.load(tmp_path)
    assert inference.main([str(cry_path), "--models", str(tmp_path)]) == 2
    assert "run_all.sh" in capsys.readouterr().err
