"""Bring the recordings to data/raw, with their labels, groups and hashes: from a mirror, the network or a generator."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from lib import config, manifest
from lib.corpora import download, optional, synthetic
from lib.corpora.download import Failure, Item, Progress

CLIPS_PATH = Path(__file__).with_name("clips.csv")
BASE_URL = "https://raw.githubusercontent.com"
MIRROR_VARIABLE = "AUDIO_MIRROR"
DATA_TIERS = ("auto", "real", "synthetic")  # what can be asked for
MIN_GROUPS = 3  # a class needs a group in every split


class NoRealAudioError(RuntimeError):
    """Real recordings were asked for, and neither a mirror nor the network has them."""


@dataclass(frozen=True)
class Acquisition:
    """What came of `acquire`.

    `manifest` is the raw manifest, `tier` one of mirror, network, synthetic. `failures` has a row for each recording
    that is wanted and not there (source, path, reason), `skipped` says by tier why an earlier one was not taken.
    """

    manifest: pd.DataFrame
    tier: str
    failures: pd.DataFrame
    skipped: dict[str, str]


def sources() -> pd.DataFrame:
    """Return the corpora that are fetched by default: repository, pinned commit, licence, label and group rule."""
    table = optional.table()
    return table[table["kind"] == "files"].reset_index(drop=True)


def clips() -> pd.DataFrame:
    """Return the project's index of recordings: one row per file, with SHA-256, label, group and measured facts.

    Raises
    ------
    ValueError
        If a path could leave its folder, or a row names an unknown source.
    """
    frame = pd.read_csv(CLIPS_PATH, keep_default_na=False, dtype={"path": str, "group_id": str})
    unsafe = frame.loc[~frame["path"].map(manifest.is_safe_path), "path"]
    if len(unsafe):
        raise ValueError(f"{CLIPS_PATH.name}: path does not stay inside its folder: {unsafe.iloc[0]!r}.")
    unknown = set(frame["source"]) - set(sources()["source"])
    if unknown:
        raise ValueError(f"{CLIPS_PATH.name}: the table of sources has no row for {sorted(unknown)}.")
    return frame


def cry_segments() -> pd.DataFrame:
    """Return where the crying is inside 423 recordings of donateacry.

    Source: Fu et al. (2025), Infant Cry Detection Using Causal Temporal Representation, whose annotations
    (github.com/PeterIsDanning/Infant-Cry-Detection-by-CRSTC, MIT) look like silence detection corrected by hand.

    Returns
    -------
    DataFrame
        One row per segment: sha256 of the recording's file, as in `clips`; onset_seconds and offset_seconds in it.
    """
    return pd.read_csv(CLIPS_PATH.with_name("cry_segments.csv"))


def items(frame: pd.DataFrame) -> list[Item]:
    """Return what to fetch for rows of `clips`, at ``<owner>/<repository>/<commit>/<path>`` of a mirror or server."""
    table = sources().set_index("source")
    prefixes = (table["repository"] + "/" + table["commit"]).to_dict()
    return [
        Item(
            source=row.source,
            path=row.path,
            remote=f"{prefixes[row.source]}/{row.path}",
            target=config.RAW_DIR / row.source / row.path,
            sha256=row.sha256,
            n_bytes=int(row.bytes),
        )
        for row in frame.itertuples()
    ]


def acquire(
    data_tier: str = "auto",
    *,
    extra: Iterable[str] = (),
    seed: int = 7,
    n_synthetic_groups: int = 24,
    progress: Progress | None = None,
) -> Acquisition:
    """Bring the recordings to data/raw and write the raw manifest and acquisition.json.

    Parameters
    ----------
    data_tier : str
        "auto": the folder named by AUDIO_MIRROR, else the network, else generated audio. "real": never generated.
    extra
        Optional corpora (`optional.table`) added to the real tiers.
    seed, n_synthetic_groups : int
        Of generated audio: its seed, and its groups per class.
    progress : callable, optional
        Wraps the iterable of files that are fetched, for example ``tqdm``.

    Raises
    ------
    ValueError
        If `data_tier` is none of `DATA_TIERS`.
    NoRealAudioError
        If "real" is asked for and there is neither mirror nor network.
    optional.CorpusError
        If one of `extra` is unknown, or has to be downloaded by hand and is not there; the text says what to do.
    download.NotEnoughSpaceError
        If the disk has no room.
    """
    if data_tier not in DATA_TIERS:
        raise ValueError(f"data_tier is {data_tier!r}, expected one of {DATA_TIERS}.")
    chosen = optional.check(extra)  # before anything is fetched
    skipped: dict[str, str] = {}
    for tier in () if data_tier == "synthetic" else ("mirror", "network"):
        failures = (_from_mirror if tier == "mirror" else _from_network)(progress)
        frame = _there(failures).assign(tier=tier)
        lacking = lacking_classes(frame)
        if not lacking:
            frame, failures = _add(frame, failures, *optional.bring(chosen))
            return _write(frame, tier, failures, skipped)
        skipped[tier] = _why_not(failures, lacking)
    if data_tier == "real":
        reasons = "; ".join(f"{tier}: {reason}" for tier, reason in skipped.items())
        raise NoRealAudioError(
            f"No real recordings. {reasons}. Set {MIRROR_VARIABLE} to a folder that holds them, connect to the "
            "network, or ask for --data synthetic."
        )
    directory = config.RAW_DIR / "synthetic"
    frame = synthetic.write_corpus(directory, n_groups_per_class=n_synthetic_groups, seed=seed)
    return _write(frame, "synthetic", [], skipped)


def lacking_classes(frame: pd.DataFrame) -> str:
    """Say which classes have too few groups to be split; nothing if all have enough."""
    n_groups = frame.groupby("label")["group_id"].nunique().reindex(config.CLASS_NAMES, fill_value=0)
    few = n_groups[n_groups < MIN_GROUPS]
    return ", ".join(f"{label}: {n} of at least {MIN_GROUPS} groups" for label, n in few.items())


def validate() -> pd.DataFrame:
    """Compare data/raw with the index.

    Returns
    -------
    DataFrame
        Columns path (relative to the data folder) and problem ("missing", "changed" or "extra"); no rows where all is
        well. Optional corpora and generated audio are not checked.
    """
    wanted = items(clips())
    absent = download.missing(wanted)
    found = (file for name in sources()["source"] for file in (config.RAW_DIR / name).rglob("*") if file.is_file())
    extra = set(found) - {item.target for item in wanted}
    problems = [(item.target, "changed" if item.target.is_file() else "missing") for item in absent]
    problems += [(path, "extra") for path in sorted(extra)]
    rows = [(path.relative_to(config.DATA_DIR).as_posix(), problem) for path, problem in problems]
    return pd.DataFrame(rows, columns=["path", "problem"])


def _from_mirror(progress: Progress | None) -> list[Failure]:
    folder = os.environ.get(MIRROR_VARIABLE)
    if folder and Path(folder).is_dir():
        return download.fetch(items(clips()), Path(folder), folder=config.RAW_DIR, progress=progress)
    reason = f"{folder} is no folder" if folder else f"{MIRROR_VARIABLE} is not set"
    return [Failure(item.source, item.path, reason) for item in items(clips())]


def _from_network(progress: Progress | None) -> list[Failure]:
    """Fetch what is not there yet; a server that does not reply at all is asked once."""
    absent = download.missing(items(clips()))
    offline = f"offline mode ({download.OFFLINE_VARIABLE})" if download.is_offline() else None
    reason = absent and (offline or download.why_unreachable(BASE_URL))
    if reason:
        return [Failure(item.source, item.path, reason) for item in absent]
    return download.fetch(absent, BASE_URL, folder=config.RAW_DIR, progress=progress)


def _there(failures: list[Failure]) -> pd.DataFrame:
    """Return the raw manifest, but its tier, of what is there."""
    failed = {(failure.source, failure.path) for failure in failures}
    frame = clips()
    there = [key not in failed for key in zip(frame["source"], frame["path"], strict=True)]
    frame = frame[there]
    return frame.assign(path="raw/" + frame["source"] + "/" + frame["path"])


def _add(
    frame: pd.DataFrame, failures: list[Failure], more: pd.DataFrame, lacking: list[Failure]
) -> tuple[pd.DataFrame, list[Failure]]:
    """Add optional corpora; a recording that is there already is not taken twice."""
    twice = more["sha256"].duplicated() | more["sha256"].isin(frame["sha256"])
    again = [Failure(row.source, row.path, "the same audio is there already") for row in more[twice].itertuples()]
    new = more[~twice].assign(tier=frame["tier"].iloc[0])
    return pd.concat([frame, new], ignore_index=True) if len(new) else frame, [*failures, *lacking, *again]


def _why_not(failures: list[Failure], lacking: str) -> str:
    """Return the reason that most files share and, if some files are there, what is lacking for a split."""
    ((reason, n_files),), n_all = Counter(failure.reason for failure in failures).most_common(1), len(clips())
    if n_files == n_all:
        return reason
    return f"{len(failures)} of {n_all} recordings missing, most of them: {reason} ({lacking})"


def _write(frame: pd.DataFrame, tier: str, failures: list[Failure], skipped: dict[str, str]) -> Acquisition:
    """Write the raw manifest, and acquisition.json: the tier, clips by source, what is missing and why."""
    manifest.write(frame[list(manifest.RAW_COLUMNS)], config.RAW_MANIFEST_PATH)
    table = pd.DataFrame([asdict(failure) for failure in failures], columns=["source", "path", "reason"])
    counts = table.groupby(["source", "reason"]).size().rename("n_clips").reset_index()
    record = {
        "tier": tier,
        "n_clips": len(frame),
        "sources": frame["source"].value_counts().sort_index().to_dict(),
        "failures": counts.to_dict("records"),
        "skipped": skipped,
    }
    config.ACQUISITION_PATH.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return Acquisition(manifest.read(config.RAW_MANIFEST_PATH), tier, table, skipped)
