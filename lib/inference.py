"""The trained detector: `run_inference("clip.wav")`, `Classifier` for services, `python -m lib.inference clip.wav`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib import audio, config, ensemble
from lib.waveforms import prepare

Predictor = Callable[[Sequence[np.ndarray]], np.ndarray]  # waveforms -> probabilities (n, 3)

EXIT_BAD_INPUT = 2
PIECE_SECONDS = 600.0  # what is held of a recording at a time


@dataclass(frozen=True)
class Prediction:
    """Answer for one waveform: label, probabilities by class, and each member network's probabilities."""

    label: str
    probabilities: dict[str, float]
    members: dict[str, dict[str, float]]


@dataclass(frozen=True)
class SegmentPrediction:
    """Answer for the part of a recording from `start_seconds` to `stop_seconds`."""

    start_seconds: float
    stop_seconds: float
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class FilePrediction:
    """Answer for a recording: the mean over its segments, weighted by their lengths, and the segments themselves."""

    path: str
    label: str
    probabilities: dict[str, float]
    segments: list[SegmentPrediction]
    model_versions: dict[str, str]
    remarks: list[str] = field(default_factory=list)


class Classifier:
    """The ensemble, loaded once.

    Parameters
    ----------
    predictors : dict of str to callable
        One a network: waveforms (16 kHz, level equalised) to probabilities (n, 3).
    rule : dict
        Ensemble rule, see `lib.ensemble`.
    versions : dict of str to str
        Short hash of each checkpoint's weights and of the rule.
    """

    def __init__(self, predictors: dict[str, Predictor], rule: dict, versions: dict[str, str]) -> None:
        self.predictors, self.rule, self.versions = predictors, rule, versions

    @classmethod
    def load(cls, models_dir: Path = config.MODELS_DIR) -> Classifier:
        """Load both networks and the ensemble rule.

        Parameters
        ----------
        models_dir : Path
            The released `models/`, or `build/<profile>/models` to use what a build has just trained.

        Raises
        ------
        lib.config.MissingCheckpointError
            If a network or the rule is not there; the message names the command that makes it.
        lib.config.ClassOrderError
            If one of them lists the classes in another order.
        """
        rule_path = config.require_file(Path(models_dir) / config.RULE_FILE)
        rule = ensemble.load_rule(rule_path)
        dirs = {name: _checkpoint_dir(Path(models_dir), name) for name in rule["model_names"]}
        from lib import wav2vec2, yamnet  # here: the two frameworks take seconds to import

        networks = {"yamnet": yamnet, "wav2vec2": wav2vec2}
        predictors = {name: _predictor(networks[name], path) for name, path in dirs.items()}
        versions = {name: config.version_of(path / config.CHECKPOINT_FILES[name]) for name, path in dirs.items()}
        return cls(predictors, rule, {**versions, "ensemble": config.version_of(rule_path)})

    def predict(self, waveform: np.ndarray) -> Prediction:
        """Classify one waveform, (n_samples,) at 16 kHz, as one piece whatever its length.

        Raises
        ------
        lib.audio.AudioError
            If it is not float32 mono in [-1, 1], or empty, too short or not finite.
        """
        return self.predict_batch([waveform])[0]

    def predict_batch(self, waveforms: Sequence[np.ndarray]) -> list[Prediction]:
        """Classify several waveforms; each answer is the one that `predict` gives."""
        for waveform in waveforms:
            audio.check_waveform(waveform, sample_rate_hz=config.SAMPLE_RATE_HZ)
        if not waveforms:
            return []
        given = [prepare(waveform) for waveform in waveforms]
        members = {name: predict(given) for name, predict in self.predictors.items()}
        combined = ensemble.apply_rule(self.rule, members)
        return [
            Prediction(_label(row), _by_class(row), {name: _by_class(rows[i]) for name, rows in members.items()})
            for i, row in enumerate(combined)
        ]

    def predict_file(self, path: str | os.PathLike[str]) -> FilePrediction:
        """Classify a recording of any length in segments of at most 15 s.

        Raises
        ------
        lib.audio.AudioError
            If the recording cannot be read; the message says what, where and what next.
        """
        stream, segments = audio.stream(path), []
        for pieces in _segments(stream):
            answers = self.predict_batch([waveform for _, waveform in pieces])
            for (start, waveform), answer in zip(pieces, answers, strict=True):
                seconds = start / config.SAMPLE_RATE_HZ, (start + len(waveform)) / config.SAMPLE_RATE_HZ
                segments.append(SegmentPrediction(*seconds, answer.label, answer.probabilities))
        rows = np.array([list(segment.probabilities.values()) for segment in segments])
        overall = np.average(rows, axis=0, weights=[each.stop_seconds - each.start_seconds for each in segments])
        versions = dict(self.versions)
        return FilePrediction(str(path), _label(overall), _by_class(overall), segments, versions, stream.remarks)


def run_inference(path: str | os.PathLike[str], *, classifier: Classifier | None = None) -> FilePrediction:
    """Classify a recording with the released models; give a loaded `classifier` to classify many.

    Examples
    --------
    >>> from lib.inference import run_inference
    >>> run_inference("clip.wav").label  # doctest: +SKIP
    'crying'
    """
    return (classifier or Classifier.load()).predict_file(path)


def _segments(blocks: Iterable[np.ndarray]) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Yield (first sample, waveform) of segments, those of ten minutes together, from blocks of any length."""
    held, first, n_piece = np.empty(0, np.float32), 0, round(PIECE_SECONDS * config.SAMPLE_RATE_HZ)
    for block in blocks:
        held = np.concatenate([held, block])
        if len(held) >= n_piece + config.MAX_SEGMENT_SECONDS * config.SAMPLE_RATE_HZ:
            yield [(first + start, held[start:stop]) for start, stop in audio.segment_bounds(n_piece)]
            held, first = held[n_piece:], first + n_piece
    yield [(first + start, held[start:stop]) for start, stop in audio.segment_bounds(len(held))]


def _checkpoint_dir(models_dir: Path, name: str) -> Path:
    """Return where a network is: in models/, or just trained in build/<profile>/models."""
    places = [models_dir / folder for folder in (config.RELEASED_DIRS[name], f"{name}/released", f"{name}/grouped")]
    return next((place for place in places if place.is_dir()), places[0])


def _predictor(network: object, checkpoint_dir: Path) -> Predictor:
    model = network.load(checkpoint_dir)
    return lambda waveforms: network.predict(model, waveforms)


def _label(row: np.ndarray) -> str:
    return config.CLASS_NAMES[int(np.argmax(row))]


def _by_class(row: np.ndarray) -> dict[str, float]:
    return {label: float(value) for label, value in zip(config.CLASS_NAMES, row, strict=True)}


def as_text(prediction: FilePrediction) -> str:
    """Return what the command prints for one recording."""
    shares = ", ".join(f"{label} {value:.3f}" for label, value in prediction.probabilities.items())
    lines = [
        audio.printable(prediction.path),
        f"Predicted Label: {prediction.label.capitalize()}",
        f"Probabilities: {shares}",
    ]
    if len(prediction.segments) > 1:
        lines += [
            f"  {s.start_seconds:7.1f} to {s.stop_seconds:7.1f} s  {s.label:<9}  {s.probabilities[s.label]:.3f}"
            for s in prediction.segments
        ]
    lines += [f"Note: {remark}" for remark in prediction.remarks]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 if any input was bad or no trained model is there."""
    parser = argparse.ArgumentParser(prog="python -m lib.inference", description="Crying, screaming or normal?")
    parser.add_argument("paths", nargs="+", metavar="FILE_OR_FOLDER", help="recordings, or folders of recordings")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--models", type=Path, default=config.MODELS_DIR, help="folder of the trained models")
    options = parser.parse_args(arguments)
    paths, skipped = audio.expand(options.paths)
    for line in skipped:
        sys.stderr.write(f"skipped: {line}\n")
    try:
        classifier = Classifier.load(options.models)
    except (FileNotFoundError, ValueError) as error:  # config.ClassOrderError and broken JSON are of the second kind
        return _complain([str(error)])
    faults = [fault for path in paths if (fault := _classify(classifier, path, as_json=options.json))]
    if not paths:
        faults.append("no audio files there")
    return _complain(faults, n_paths=len(paths)) if faults else 0


def _classify(classifier: Classifier, path: Path, *, as_json: bool) -> str | None:
    """Write one recording's answer to standard output; return what is wrong with the recording, if anything is."""
    try:
        prediction = classifier.predict_file(path)
    except audio.AudioError as error:
        return str(error)
    text = json.dumps(dataclasses.asdict(prediction)) if as_json else as_text(prediction)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return None


def _complain(faults: Sequence[str], *, n_paths: int = 1) -> int:
    for fault in faults:
        sys.stderr.write(f"error: {fault}\n")
    if n_paths > 1:
        sys.stderr.write(f"{len(faults)} of {n_paths} recordings could not be classified.\n")
    return EXIT_BAD_INPUT


if __name__ == "__main__":
    raise SystemExit(main())
