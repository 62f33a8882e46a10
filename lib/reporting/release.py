"""Copies a full build's checkpoints to models/ and writes their cards: `python -m lib.reporting.release`."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lib import config
from lib.reporting import cards, results

LARGEST_MEGABYTES = {"yamnet": 20, "wav2vec2": 25}


class ReleaseError(RuntimeError):
    """A build cannot be released; the message says why and what to do."""


def release(
    build_models_dir: Path, report_dir: Path, *, models_dir: Path = config.MODELS_DIR, docs_dir: Path = cards.DOCS_DIR
) -> list[Path]:
    """Copy both networks and the rule, and write three model cards.

    Nothing is copied before everything has been checked, so a refused release leaves models/ as it was.

    Parameters
    ----------
    build_models_dir : Path
        `build/<profile>/models`.
    report_dir : Path
        `reports/<profile>`, whose figures the cards quote.
    models_dir, docs_dir : Path
        Where to.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ReleaseError
        If something is missing, too large, or was trained on generated audio.
    """
    if not (report_dir / "metrics.json").is_file():
        raise ReleaseError(f"{report_dir / 'metrics.json'} is missing: run notebook 06 (`./run_all.sh full`).")
    for name in LARGEST_MEGABYTES:
        _check(name, build_models_dir)
    rule_path = build_models_dir / config.RULE_FILE
    if not rule_path.is_file():
        raise ReleaseError(f"{rule_path} is missing: run notebook 05 (`./run_all.sh full`).")
    written = [_copy(name, build_models_dir, models_dir) for name in LARGEST_MEGABYTES]
    written.append(Path(shutil.copyfile(rule_path, models_dir / config.RULE_FILE)))
    return [*written, *cards.write_model_cards(results.read(report_dir), models_dir=models_dir, docs_dir=docs_dir)]


def _check(name: str, build_models_dir: Path) -> None:
    """Raise ReleaseError if a network may not be released."""
    limit_megabytes = LARGEST_MEGABYTES[name]
    try:
        weights = config.require_checkpoint(build_models_dir / name / "released", name)
    except (FileNotFoundError, config.ClassOrderError) as error:
        raise ReleaseError(str(error)) from error
    if weights.stat().st_size > limit_megabytes * 1e6:
        size = weights.stat().st_size / 1e6
        raise ReleaseError(f"{weights} has {size:.1f} MB, the limit is {limit_megabytes}: too large for git.")
    record = config.read_record(weights.parent)
    if record.get("data_tier") not in ("mirror", "network"):
        raise ReleaseError(
            f"{weights} was trained on {record.get('data_tier', 'unknown')} audio: only networks trained on real "
            "recordings are released (`./run_all.sh full --data real`)."
        )


def _copy(name: str, build_models_dir: Path, models_dir: Path) -> Path:
    target = models_dir / config.RELEASED_DIRS[name]
    shutil.rmtree(target, ignore_errors=True)  # no file of an older release stays behind
    shutil.copytree(build_models_dir / name / "released", target)
    return target / config.CHECKPOINT_FILES[name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if the build cannot be released."""
    parser = argparse.ArgumentParser(prog="python -m lib.reporting.release", description=__doc__)
    parser.add_argument("--profile", default="full", help="build to release (default: full)")
    profile = parser.parse_args(arguments).profile
    try:
        written = release(config.build_dir(profile) / "models", config.report_dir(profile))
    except ReleaseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for path in written:
        sys.stdout.write(f"{path} ({path.stat().st_size / 1e6:.1f} MB)\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
