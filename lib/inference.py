"""The trained detector: `run_inference("night.wav")` for files, `python -m lib.inference`, `Classifier` for windows."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import audio, config, ensemble
from lib.detector import Detector, FrameStream, frames_between
from lib.events import Event
from lib.networks.onnx_networks import Wav2Vec2, Yamnet
from lib.waveforms import level_range_db, prepare

Predictor = Callable[[Sequence[np.ndarray]], np.ndarray]  # waveforms -> probabilities (n, 3)
Excerpt = Callable[[np.ndarray], np.ndarray]  # waveform -> the part of it that the networks classify

EXIT_BAD_INPUT = 2
MAX_WAITING = 8  # windows of a recording that were read and not yet classified
STILL_LEVELS = 6  # two a block: a level that does not move for over 20 s
NO_SOUND = "there is no sound in it: its level never moves, as of a microphone that is off. The label says nothing"


@dataclass(frozen=True)
class Prediction:
    """A window's label, probabilities by class, and those of each network of the ensemble alone."""

    label: str
    probabilities: dict[str, float]
    members: dict[str, dict[str, float]]


@dataclass(frozen=True)
class WindowPrediction:
    """What the classifier predicts for the part of a recording from `start_seconds` to `stop_seconds`."""

    start_seconds: float
    stop_seconds: float
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class FilePrediction:
    """The events of a recording, its label, and the windows it was cut into.

    The label is that of the strongest event, "normal" without any; of one window (15 s at most), see
    `lib.detector.Detection.label_with`.
    """

    path: str
    label: str
    events: list[Event]
    windows: list[WindowPrediction]
    model_versions: dict[str, str]
    remarks: list[str]


class Classifier:
    """The ensemble and the stream detector, loaded once.

    Parameters
    ----------
    predictors : dict of str to callable
        One per network: waveforms (16 kHz, as `waveforms.prepare` returns them) to probabilities (n, 3).
    excerpt : callable
        What of a prepared waveform the networks are given, see `lib.networks.onnx_networks.Yamnet.excerpt`.
    rule, versions : dict
        Ensemble rule, see `lib.ensemble`; short hashes of each checkpoint's weights and of the rule.
    detector : Detector, optional
        Finds events; without it only windows can be classified.
    """

    def __init__(
        self,
        predictors: dict[str, Predictor],
        excerpt: Excerpt,
        rule: dict,
        versions: dict[str, str],
        detector: Detector | None = None,
    ) -> None:
        self.predictors, self.excerpt, self.rule = predictors, excerpt, rule
        self.versions, self.detector = versions, detector

    @classmethod
    def load(cls, models_dir: Path = config.MODELS_DIR) -> Classifier:
        """Load both networks, the ensemble rule and the detector.

        `models_dir` is the released `models/`, or `build/<profile>/models` to use what a build has just trained; where
        that holds no detector, the released one is taken.

        Raises
        ------
        lib.config.MissingCheckpointError, lib.config.ClassOrderError, lib.networks.onnx_networks.StaleGraphError
            If a network or the rule is not there, lists the classes in another order, or was exported earlier.
        """
        models_dir = Path(models_dir)
        rule_path = config.require_file(models_dir / config.RULE_FILE)
        rule = ensemble.load_rule(rule_path)
        yamnet, wav2vec2 = Yamnet(models_dir), Wav2Vec2(models_dir)
        predictors: dict[str, Predictor] = {"yamnet": yamnet.predict, "wav2vec2": wav2vec2.predict}
        versions = {"yamnet": yamnet.version, "wav2vec2": wav2vec2.version, "ensemble": config.version_of(rule_path)}
        place = next((place for place in (models_dir, config.MODELS_DIR) if (place / "detector").is_dir()), None)
        if place is None:
            return cls(predictors, yamnet.excerpt, rule, versions)
        detector = Detector.load(place, embed=yamnet.embed)
        versions["detector"] = detector.settings.version
        return cls(predictors, yamnet.excerpt, rule, versions, detector)

    def predict(self, waveform: np.ndarray) -> Prediction:
        """Classify one window, (n_samples,) at 16 kHz, as one piece whatever its length: by detector and ensemble.

        Raises
        ------
        lib.audio.AudioError
            If it is not float32 mono in [-1, 1], or empty, too short or not finite.
        """
        audio.check_waveform(waveform, sample_rate_hz=config.SAMPLE_RATE_HZ)
        if self.detector is None:
            return self.predict_by_ensemble(waveform)
        return self.predict_with(waveform, self.detector.detect(waveform).frames)

    def predict_with(self, waveform: np.ndarray, frames: np.ndarray) -> Prediction:
        """Classify a window of a stream whose frames (n_frames, 2) are known, see `lib.ensemble.combined_with`.

        The ensemble predicts where the frames leave room for an event; in all other windows `members` is empty.
        """
        audio.check_waveform(waveform, sample_rate_hz=config.SAMPLE_RATE_HZ)
        alone = self.predict_by_ensemble(waveform) if ensemble.needs_ensemble(frames) else None
        row = ensemble.combined_with(frames, np.array([*alone.probabilities.values()]) if alone else None)
        return _prediction(row, alone.members if alone else {})

    def predict_by_ensemble(self, waveform: np.ndarray) -> Prediction:
        """Classify a window by the networks alone, side by side: by the 3 s of it that `excerpt` returns."""
        given = [self.excerpt(prepare(waveform))]
        with ThreadPoolExecutor(min(len(self.predictors), config.n_threads())) as together:
            waiting = {name: together.submit(predict, given) for name, predict in self.predictors.items()}
            members = {name: predicted.result() for name, predicted in waiting.items()}
        (row,) = ensemble.apply_rule(self.rule, members)
        return _prediction(row, {name: _by_class(rows[0]) for name, rows in members.items()})

    def predict_file(self, path: str | os.PathLike[str]) -> FilePrediction:
        """Find the events of a recording of any length, and classify it window by window (at most 15 s each).

        Raises
        ------
        lib.audio.AudioError
            If the recording cannot be read; the message says what, where and what next.
        lib.config.MissingCheckpointError
            If there is no trained detector.
        """
        if self.detector is None:
            raise config.MissingCheckpointError("no models/detector: `./run_all.sh studies product` trains it.")
        recording, stream, levels = audio.stream(path), self.detector.stream(), list[float]()
        frames, parts = list[np.ndarray](), list[Future[WindowPrediction]]()
        with ThreadPoolExecutor(1) as beside:  # windows are classified while the detector goes on
            for part in _with_frames(_windows(_measured(recording, levels)), stream, frames):
                parts.append(beside.submit(self._window, *part))
                for waiting in parts[-MAX_WAITING - 1 : -MAX_WAITING]:
                    waiting.result()  # no more than a few are held in memory
        windows = [part.result() for part in parts]
        detection = self.detector.detection(np.array(frames), end_seconds=stream.seconds)
        label = detection.label_with(windows[0].label) if len(windows) == 1 else detection.label
        remarks = [*recording.remarks, *no_sound(levels)]
        return FilePrediction(str(path), label, detection.events, windows, dict(self.versions), remarks)

    def _window(self, start: int, waveform: np.ndarray, frames: np.ndarray) -> WindowPrediction:
        predicted = self.predict_with(waveform, frames)
        seconds = (start / config.SAMPLE_RATE_HZ, (start + len(waveform)) / config.SAMPLE_RATE_HZ)
        return WindowPrediction(*seconds, predicted.label, predicted.probabilities)


def run_inference(path: str | os.PathLike[str], *, classifier: Classifier | None = None) -> FilePrediction:
    """Find the events of a recording with the released models; give a loaded `classifier` for many recordings.

    Examples
    --------
    >>> from lib.inference import run_inference
    >>> run_inference("clip.wav").label  # doctest: +SKIP
    'crying'
    """
    return (classifier or Classifier.load()).predict_file(path)


def no_sound(levels: Sequence[float]) -> list[str]:
    """Return the remark NO_SOUND if a recording with these levels, see `level_range_db`, has no sound in it."""
    still_db = min(levels) + config.STILL_DB if len(levels) >= STILL_LEVELS else config.LEVEL_FLOOR_DB
    return [NO_SOUND] * (max(levels) <= still_db)


def _measured(blocks: Iterable[np.ndarray], levels: list[float]) -> Iterator[np.ndarray]:
    for block in blocks:
        levels += level_range_db(block)
        yield block


def _windows(blocks: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield a recording's windows, each with its first sample; a short last block belongs to the window before it."""
    start, held = 0, np.empty(0, dtype=np.float32)
    for block in blocks:
        if len(held) + len(block) > config.MAX_SEGMENT_SECONDS * config.SAMPLE_RATE_HZ:
            yield start, held
            start, held = start + len(held), held[:0]
        held = np.concatenate([held, block])
    if len(held):
        yield start, held


def _with_frames(
    windows: Iterable[tuple[int, np.ndarray]], stream: FrameStream, frames: list[np.ndarray]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each window with its frames (n_frames, 2), once they are known; `frames` becomes all of the recording's."""
    held: list[tuple[int, np.ndarray]] = []
    for window in windows:
        held.append(window)
        frames.extend(stream.push(window[1]))
        while held and len(frames) * config.PATCH_HOP_SAMPLES >= held[0][0] + len(held[0][1]):
            start, waveform = held.pop(0)
            yield start, waveform, frames_between(frames, start, start + len(waveform))
    frames.extend(stream.finish())
    for start, waveform in held:
        yield start, waveform, frames_between(frames, start, start + len(waveform))


def _prediction(row: np.ndarray, members: dict[str, dict[str, float]]) -> Prediction:
    return Prediction(config.CLASS_NAMES[int(np.argmax(row))], _by_class(row), members)


def _by_class(row: np.ndarray) -> dict[str, float]:
    return {label: float(value) for label, value in zip(config.CLASS_NAMES, row, strict=True)}


def as_text(prediction: FilePrediction) -> str:
    """Return what the command prints for one recording."""
    lines = [audio.printable(prediction.path), f"Predicted Label: {prediction.label.capitalize()}"]
    lines += [
        f"  {e.label.capitalize()} from {e.onset_seconds:.1f} to {e.offset_seconds:.1f} s ({e.peak_probability:.2f})"
        for e in prediction.events
    ]
    if len(prediction.windows) == 1:
        shares = prediction.windows[0].probabilities.items()
        lines.append("Probabilities: " + ", ".join(f"{label} {value:.3f}" for label, value in shares))
    return "\n".join([*lines, *(f"Note: {remark}" for remark in prediction.remarks)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 if any input was bad or no trained model is there."""
    parser = argparse.ArgumentParser(prog="python -m lib.inference", description="Crying, screaming or normal?")
    parser.add_argument("paths", nargs="+", metavar="FILE_OR_FOLDER", help="recordings, or folders of recordings")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--models", type=Path, default=config.MODELS_DIR, help="folder of the trained models")
    options = parser.parse_args(arguments)
    try:
        paths, skipped = audio.expand(options.paths)
        sys.stderr.write("".join(f"skipped: {line}\n" for line in skipped))
        classifier = Classifier.load(options.models)
    except (FileNotFoundError, ValueError) as error:  # AudioError, ClassOrderError and broken JSON are of the second
        return _complain([str(error)])
    faults = [fault for path in paths if (fault := _classify(classifier, path, as_json=options.json))]
    faults += ["no audio files there"] * (not paths)
    return _complain(faults, n_paths=len(paths)) if faults else 0


def _classify(classifier: Classifier, path: Path, *, as_json: bool) -> str | None:
    """Write one recording's prediction to standard output; return what is wrong with the recording, if anything is."""
    try:
        prediction = classifier.predict_file(path)
    except audio.AudioError as error:
        return str(error)
    text = json.dumps(dataclasses.asdict(prediction)) if as_json else as_text(prediction)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return f"{audio.printable(str(path))}: {NO_SOUND}" if NO_SOUND in prediction.remarks else None


def _complain(faults: Sequence[str], *, n_paths: int = 1) -> int:
    sys.stderr.write("".join(f"error: {fault}\n" for fault in faults))
    if n_paths > 1:
        sys.stderr.write(f"{len(faults)} of {n_paths} recordings could not be classified.\n")
    return EXIT_BAD_INPUT


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except BrokenPipeError:  # `... --json | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
