"""What lies beside every checkpoint: labels.json, training.json, a version. Standard library only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lib import config

TRAINING_FILE = "training.json"


class MissingCheckpointError(FileNotFoundError):
    """A folder that should hold a trained network does not."""


WHAT_NEXT = (
    "`./run_all.sh quick` trains the networks in minutes (then point at build/quick/models); "
    "`./run_all.sh release` copies those of a full build to models/."
)


def require_rule(path: Path) -> Path:
    """Return the path of an ensemble rule, or raise MissingCheckpointError, naming the command that makes it."""
    if not Path(path).is_file():
        raise MissingCheckpointError(f"{path} is missing: no trained ensemble there. {WHAT_NEXT}")
    return Path(path)


def require(checkpoint_dir: Path, file_name: str) -> Path:
    """Return the path of a checkpoint's weights after checking its class order.

    Raises
    ------
    MissingCheckpointError
        If there is no such file; the message names the command that makes it.
    lib.config.ClassOrderError
        If labels.json lists the classes in another order.
    """
    path = Path(checkpoint_dir) / file_name
    if not path.is_file():
        raise MissingCheckpointError(f"{path} is missing: no trained network there. {WHAT_NEXT}")
    config.check_labels(path.parent)
    return path


def describe(checkpoint_dir: Path, record: dict) -> None:
    """Write labels.json and training.json (base weights, data tier, parameters: plain JSON) beside a checkpoint."""
    config.write_labels(checkpoint_dir)
    write_record(checkpoint_dir, record)


def write_record(checkpoint_dir: Path, record: dict) -> None:
    """Write training.json."""
    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    (Path(checkpoint_dir) / TRAINING_FILE).write_text(text, encoding="utf-8")


def record(checkpoint_dir: Path) -> dict:
    """Return training.json of a checkpoint, or an empty dict where there is none."""
    path = Path(checkpoint_dir) / TRAINING_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def version(weights_path: Path) -> str:
    """Return the first 12 hexadecimal digits of the weights file's SHA-256."""
    return hashlib.sha256(Path(weights_path).read_bytes()).hexdigest()[:12]
