"""Class order, sample rate, paths and checkpoint files: what everything else agrees on. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

CLASS_NAMES = ("crying", "screaming", "normal")  # the one class order, in every array, file and plot
CLASS_ID = {name: class_id for class_id, name in enumerate(CLASS_NAMES)}

SAMPLE_RATE_HZ = 16_000  # what YAMNet and Wav2Vec2 were both trained on
MIN_SEGMENT_SECONDS = 5.0
MAX_SEGMENT_SECONDS = 15.0
LEVEL_FLOOR_DB = -90.0  # about one step of 16 bit: what is fainter is no sound
STILL_DB = 0.05  # a level that moves less does not move; that of white noise moves by 0.2 dB
PATCH_SAMPLES = 15_600  # YAMNet's input: 96 frames of 25 ms every 10 ms, 0.975 s
PATCH_HOP_SAMPLES = 7_680  # 0.48 s: one patch, and one frame of a stream, starts this long after the one before

PROJECT_DIR = Path(__file__).resolve().parent.parent
# Everything a build writes lies under OUTPUT_DIR; tests and read-only checkouts move it with AUDIO_OUTPUT_DIR.
OUTPUT_DIR = Path(os.environ.get("AUDIO_OUTPUT_DIR") or PROJECT_DIR).resolve()

DATA_DIR = OUTPUT_DIR / "data"
RAW_DIR = DATA_DIR / "raw"
RAW_MANIFEST_PATH = DATA_DIR / "raw_manifest.csv"
MANIFEST_PATH = DATA_DIR / "manifest.csv"  # split by group
RANDOM_MANIFEST_PATH = DATA_DIR / "manifest_random_split.csv"  # of clips, blind to groups: for comparison only
ACQUISITION_PATH = DATA_DIR / "acquisition.json"  # tier used, counts and failures by source
BUILD_DIR = OUTPUT_DIR / "build"
REPORTS_DIR = OUTPUT_DIR / "reports"
STUDIES_DIR = BUILD_DIR / "studies"  # what lib.studies writes: tables/, figures/
MODELS_DIR = PROJECT_DIR / "models"  # released checkpoints, in git

CHECKPOINT_FILES = {"yamnet": "model.keras", "wav2vec2": "model.safetensors"}
RELEASED_DIRS = {"yamnet": "yamnet", "wav2vec2": "wav2vec2"}  # in MODELS_DIR
RULE_FILE = "ensemble.json"  # in a folder of models
LABELS_FILE = "labels.json"  # beside every checkpoint: the class order
RECORD_FILE = "training.json"  # beside every checkpoint: base weights, data tier, parameters

THREADS_VARIABLE = "AUDIO_THREADS"  # of the environment: how many threads one network that serves may use


class MissingCheckpointError(FileNotFoundError):
    """A folder that should hold a trained network or an ensemble rule does not."""


class ClassOrderError(ValueError):
    """A checkpoint or table lists the classes in another order than CLASS_NAMES."""


def build_dir(profile: str) -> Path:
    """Return the folder for a profile's trained models, caches and executed notebooks."""
    return BUILD_DIR / profile


def probabilities_dir(profile: str) -> Path:
    """Return the folder of the probability tables that one notebook writes and a later one reads."""
    return build_dir(profile) / "probabilities"


def report_dir(profile: str) -> Path:
    """Return the folder of a profile's report."""
    return REPORTS_DIR / profile


def check_class_names(names: Iterable[str], *, where: str) -> None:
    """Raise ClassOrderError for any order of class names but CLASS_NAMES; `where` names their file or object."""
    found = tuple(names)
    if found != CLASS_NAMES:
        raise ClassOrderError(f"{where} has classes {found}, expected {CLASS_NAMES}: retrain or re-export it.")


def require_file(path: Path) -> Path:
    """Return the path of a file that training makes, or raise MissingCheckpointError with the command that does."""
    if not Path(path).is_file():
        raise MissingCheckpointError(
            f"{path} is missing: nothing trained there. `./run_all.sh quick` trains the networks in minutes (then "
            "point at build/quick/models); `./run_all.sh release` copies those of a full build to models/."
        )
    return Path(path)


def require_checkpoint(checkpoint_dir: Path, network: str) -> Path:
    """Return the path of a network's (a key of `CHECKPOINT_FILES`) weights after checking their class order.

    Raises
    ------
    MissingCheckpointError, ClassOrderError
    """
    path = require_file(Path(checkpoint_dir) / CHECKPOINT_FILES[network])
    labels = path.with_name(LABELS_FILE)
    if not labels.is_file():
        raise MissingCheckpointError(f"{labels} is missing: a checkpoint without {LABELS_FILE} cannot be trusted.")
    check_class_names(json.loads(labels.read_text(encoding="utf-8"))["class_names"], where=str(labels))
    return path


def describe_checkpoint(checkpoint_dir: Path, record: dict) -> None:
    """Write labels.json and training.json (base weights, data tier, parameters: plain JSON) beside a checkpoint."""
    write_json(Path(checkpoint_dir) / LABELS_FILE, {"class_names": list(CLASS_NAMES)})
    write_json(Path(checkpoint_dir) / RECORD_FILE, record)


def write_json(path: Path, content: dict) -> None:
    """Write plain JSON, keys sorted, into a folder that is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there: no reader sees half of it, and a killed run leaves none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def read_json(path: Path) -> dict:
    """Return a JSON file's content, or an empty dict when it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_record(checkpoint_dir: Path) -> dict:
    """Return training.json of a checkpoint, or an empty dict where there is none."""
    return read_json(Path(checkpoint_dir) / RECORD_FILE)


def version_of(path: Path) -> str:
    """Return the first 12 hexadecimal digits of a file's SHA-256: the version of weights or of a rule."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_threads(n_at_a_time: int = 1) -> int:
    """Return how many threads a network may use where so many run at a time: AUDIO_THREADS, or a share of the cores."""
    return int(os.environ.get(THREADS_VARIABLE) or max(1, n_cores() // n_at_a_time))
