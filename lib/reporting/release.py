"""Exports a full build's networks; copies them, rule and detector to models/ with cards: `lib.reporting.release`."""

from __future__ import annotations

import shutil
from pathlib import Path

from lib import config
from lib.reporting import cards, export, results
from lib.reporting.steps import FULL, BuildError, command

LARGEST_MEGABYTES = {"yamnet": 20, "wav2vec2": 25}
DETECTOR = "detector"  # folder of the detector, in the build's models and in models/


def release(build_models_dir: Path, report_dir: Path) -> list[Path]:
    """Copy networks, rule, and detector where one was trained, to models/, and write the cards; return all paths.

    Nothing is copied before everything has been checked, so a refused release leaves models/ as it was.

    Parameters
    ----------
    build_models_dir, report_dir : Path
        `build/<profile>/models`, and `reports/<profile>`, whose figures the cards quote.

    Raises
    ------
    BuildError, lib.config.MissingCheckpointError, lib.config.ClassOrderError
        If something is missing, too large, cannot be exported, or was trained on generated audio; says what to do.
    """
    for path, notebook in ((report_dir / "metrics.json", "06"), (build_models_dir / config.RULE_FILE, "05")):
        if not path.is_file():
            raise BuildError(f"{path} is missing: run notebook {notebook} (`./run_all.sh full`).")
    models_dir, folders = config.MODELS_DIR, {}
    for name in LARGEST_MEGABYTES:
        _check(name, build_models_dir / name / "released")
        folders[build_models_dir / name / "released"] = models_dir / config.RELEASED_DIRS[name]
    export.export(build_models_dir)  # beside the checkpoints, whatever was there
    if (build_models_dir / DETECTOR).is_dir():
        folders[build_models_dir / DETECTOR] = models_dir / DETECTOR
    for source, target in folders.items():
        shutil.rmtree(target, ignore_errors=True)  # no file of an older release stays behind
        shutil.copytree(source, target)
    written = [path for target in folders.values() for path in sorted(target.iterdir())]
    written.append(Path(shutil.copyfile(build_models_dir / config.RULE_FILE, models_dir / config.RULE_FILE)))
    return [*written, *cards.write_model_cards(results.read(report_dir))]


def _check(name: str, folder: Path) -> None:
    """Raise an error if a network may not be released."""
    weights = config.require_checkpoint(folder, name)
    megabytes, limit = weights.stat().st_size / 1e6, LARGEST_MEGABYTES[name]
    if megabytes > limit:
        raise BuildError(f"{weights} has {megabytes:.1f} MB, the limit is {limit}: too large for git.")
    tier = config.read_record(folder).get("data_tier", "unknown")
    if tier not in results.REAL_TIERS:
        raise BuildError(
            f"{weights} was trained on {tier} audio: only networks trained on real recordings are released "
            "(`./run_all.sh full --data real`)."
        )


def main() -> int:
    """Release the full build; return 0, or 1 if that cannot be."""
    return command(lambda: release(config.build_dir(FULL) / "models", config.report_dir(FULL)))


if __name__ == "__main__":
    raise SystemExit(main())
