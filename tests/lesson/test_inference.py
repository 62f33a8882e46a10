"""Inference: windows classified, events of files, the command's lines and exit codes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from lib import audio, config, ensemble, inference
from lib.detector import Detector, DetectorSettings
from lib.ensemble import ENSEMBLE_FROM, combined_with
from lib.events import EventSettings
from lib.networks.onnx_networks import EXCERPT_SAMPLES

RULE = {"rule": "average", "model_names": list(ensemble.MODEL_NAMES), "class_names": list(config.CLASS_NAMES)}
CRYING, SCREAMING = np.array([0.8, 0.1, 0.1]), np.array([0.2, 0.7, 0.1])


def by_pitch(waveforms):
    """Cry where the pitch is low, scream where it is high."""
    crossings = [np.mean(np.abs(np.diff(np.sign(w)))) for w in waveforms]
    return np.array([SCREAMING if c > 0.25 else CRYING for c in crossings])


class LoudDetector(Detector):
    """Finds a cry wherever a recording is loud."""

    def __init__(self):
        super().__init__(None, None, DetectorSettings(EventSettings.create(on=0.5, off=0.4)))

    def stream(self):
        return LoudStream()


class LoudStream:
    """Knows each frame once it is whole, or the stream has ended."""

    def __init__(self):
        self._samples, self._n_frames = np.empty(0, np.float32), 0

    @property
    def seconds(self):
        return len(self._samples) / config.SAMPLE_RATE_HZ

    def push(self, samples):
        self._samples = np.concatenate([self._samples, samples])
        return self._frames(len(self._samples) // config.PATCH_HOP_SAMPLES)

    def finish(self):
        return self._frames(-(-len(self._samples) // config.PATCH_HOP_SAMPLES))

    def _frames(self, stop):
        hop, numbers = config.PATCH_HOP_SAMPLES, range(self._n_frames, stop)
        self._n_frames = stop
        loud = [float(np.abs(self._samples[number * hop : (number + 1) * hop]).max() > 0.1) for number in numbers]
        return np.array([[0.9 * each, 0.0] for each in loud]).reshape(-1, 2)


def loudest(waveform):
    """Return the 3 s behind the loudest sample, or all of a waveform that is no longer."""
    start = min(int(np.abs(waveform).argmax()), max(len(waveform) - EXCERPT_SAMPLES, 0))
    return waveform[start : start + EXCERPT_SAMPLES]


@pytest.fixture
def classifier():
    predictors, versions = dict.fromkeys(ensemble.MODEL_NAMES, by_pitch), {"yamnet": "abc", "ensemble": "123"}
    return inference.Classifier(predictors, loudest, RULE, versions, LoudDetector())


@pytest.fixture
def networks_alone(classifier):
    return inference.Classifier(classifier.predictors, loudest, RULE, classifier.versions)


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


def test_ensemble_and_detector_predict_together(classifier, networks_alone, tone):
    frames = np.array([[0.2, 0.9], [0.4, 0.1]])
    alone, both = networks_alone.predict(tone(400, 2)), classifier.predict_with(tone(400, 2), frames)
    expected = combined_with(frames, np.array([*alone.probabilities.values()]))
    np.testing.assert_allclose([*both.probabilities.values()], expected)
    assert both.members == alone.members
    assert classifier.predict(tone(400, 2)) == classifier.predict_with(tone(400, 2), np.array([[0.9, 0.0]]))


def test_the_ensemble_is_not_asked_where_no_frame_leaves_room_for_an_event(classifier, tone):
    asked = []
    classifier.predictors["yamnet"] = lambda waveforms: asked.append(1) or by_pitch(waveforms)
    frames = np.array([[0.0, 0.1], [ENSEMBLE_FROM - 0.001, 0.0]])
    quiet = classifier.predict_with(tone(400, 2), frames)
    assert (quiet.label, quiet.members, asked) == ("normal", {}, [])
    np.testing.assert_allclose([*quiet.probabilities.values()], np.array([0.149, 0.1, 0.851]) / 1.1)
    assert classifier.predict_with(tone(400, 2), np.array([[ENSEMBLE_FROM, 0.0]])).label == "crying"
    assert classifier.predict_with(tone(400, 2), np.empty((0, 2))).label == "crying"  # nothing is known of it
    assert len(asked) == 2


def test_level_and_offset_do_not_reach_the_networks(classifier, tone):
    given = []
    classifier.predictors["yamnet"] = lambda waveforms: given.extend(waveforms) or by_pitch(waveforms)
    loud = tone(400, 2)
    for waveform in (loud, np.float32(0.01) * loud + np.float32(0.1)):
        classifier.predict_by_ensemble(waveform)
    np.testing.assert_allclose(given[0], given[1], atol=1e-4)


def test_the_networks_are_given_an_excerpt_and_the_detector_everything(classifier, tone):
    given = []
    classifier.predictors["yamnet"] = lambda waveforms: given.extend(waveforms) or by_pitch(waveforms)
    waveform = np.concatenate([0.01 * tone(3_000, 9), tone(400, 2), 0.01 * tone(3_000, 3)])
    assert classifier.predict(waveform).label == "crying"
    (excerpt,) = given
    assert len(excerpt) == EXCERPT_SAMPLES
    assert np.abs(excerpt[:30_000]).max() > 5 * np.abs(excerpt[-8_000:]).max()


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
    assert found.events[0].onset_seconds == pytest.approx(40, abs=0.48)
    assert found.events[0].offset_seconds == pytest.approx(42, abs=0.48)
    edges = [(window.start_seconds, window.stop_seconds) for window in found.windows]
    assert edges[0][0] == 0 and edges[-1][1] == pytest.approx(52.2, abs=0.01)
    assert all(stop == start for (_, stop), (start, _) in zip(edges[:-1], edges[1:], strict=True))
    assert all(1 < stop - start <= 15 for start, stop in edges)
    assert found.model_versions["ensemble"] == "123"


@pytest.mark.parametrize(("rate_hz", "seconds"), [(44_100, 15.005), (48_000, 15.02), (44_100, 25.005)])
def test_what_a_resampler_keeps_to_the_end_is_no_window_of_its_own(classifier, tmp_path, rate_hz, seconds):
    path = tmp_path / "a_little_over.wav"
    soundfile.write(path, np.full(round(seconds * rate_hz), 0.01), rate_hz)
    windows = classifier.predict_file(path).windows
    assert windows[-1].stop_seconds == pytest.approx(seconds, abs=0.001)
    assert all(5 < window.stop_seconds - window.start_seconds <= 15 for window in windows)


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
    assert "crying 0.9" in out


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
