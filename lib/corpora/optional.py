"""The table of corpora, and how the optional ones (large, or behind an account) are brought in when asked for."""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import pandas as pd
import pooch

from lib import audio, config, manifest, waveforms
from lib.corpora import download, rules
from lib.corpora.download import Failure, Item
from lib.corpora.rules import Labelled

TABLE_PATH = config.PROJECT_DIR / "lib" / "corpora" / "sources.csv"
ARCHIVES_DIR = ".archives"  # beside the sources: a file put there by hand is not downloaded
KEYS = {"huggingface": "HF_TOKEN", "mozilla": "MDC_API_KEY"}
TABLE_SUFFIXES = (".csv", ".tsv", "")  # no suffix: Kaldi's tables
SUFFIXES = (*audio.AUDIO_SUFFIXES, *TABLE_SUFFIXES)


class CorpusError(ValueError):
    """A corpus is not available as asked; the text says what to do."""


def table() -> pd.DataFrame:
    """Return every known corpus: where it is, version, hash, size, account, rules, licence, citation.

    Kind ``files`` is fetched by default, file by file; the others, the optional corpora, only when asked for. An empty
    `sha256` means that no published one is known: the corpus is not read unless the caller supplies it.
    """
    return _read().copy()


@functools.cache
def _read() -> pd.DataFrame:
    return pd.read_csv(TABLE_PATH, dtype=str, keep_default_na=False, encoding="utf-8")


def check(names: Iterable[str], checksums: Mapping[str, str]) -> list[pd.Series]:
    """Return the rows of optional corpora, or say what is lacking before anything is fetched.

    Raises
    ------
    CorpusError
        If a name is unknown, an account's key is not set, or a hash is neither known nor supplied.
    """
    known = table()
    known = known[known["kind"] != "files"].set_index("source", drop=False)
    chosen = []
    for name in names:
        if name not in known.index:
            raise CorpusError(f"There is no optional corpus {name!r}; there are {', '.join(known.index)}.")
        row = known.loc[name]
        key = KEYS.get(row["kind"])
        if key and not os.environ.get(key) and not _archive_path(row, name).exists():
            raise CorpusError(f"{row['title']} needs an account, and {key} is not set. {row['how_to_get']}")
        if row["kind"] == "archive":
            for file in _files(row):
                _expected_hash(row, file, checksums)
        chosen.append(row)
    return chosen


def bring(
    rows: Iterable[pd.Series], checksums: Mapping[str, str], *, offline: bool = False
) -> tuple[pd.DataFrame, list[Failure]]:
    """Fetch, unpack and describe optional corpora.

    Parameters
    ----------
    rows : iterable of Series
        From `check`.
    checksums : mapping
        SHA-256 by file name, or by corpus where it is a folder: see `tree_digest`.
    offline : bool
        Open no socket: only what is there is read.

    Returns
    -------
    frame : DataFrame
        Columns of the raw manifest but tier.
    failures : list of Failure
        What is not available, and why. A corpus that fails as a whole has one, with path ``*``.
    """
    facts, failures = [], []
    for row in rows:
        folder = config.RAW_DIR / row["source"]
        try:
            if not folder.is_dir():
                install = _install_archives if row["kind"] == "archive" else _install_folder
                install(row, folder, checksums, offline=offline)
            labelled, absent = rules.RULES[row["source"]](folder)
        except (OSError, ValueError) as error:
            failures.append(Failure(row["source"], "*", str(error)))
            continue
        with ThreadPoolExecutor(download.N_THREADS) as pool:
            results = list(pool.map(functools.partial(_facts, row), labelled))
        facts += [result for result in results if isinstance(result, dict)]
        failures += [*absent, *(result for result in results if isinstance(result, Failure))]
    return pd.DataFrame(facts, columns=[name for name in manifest.RAW_COLUMNS if name != "tier"]), failures


def tree_digest(folder: Path) -> str:
    """Return one SHA-256 for a folder: that of the lines ``<sha256>  <path>``, sorted by path."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    lines = (f"{pooch.file_hash(str(path))}  {path.relative_to(folder).as_posix()}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files(row: pd.Series) -> dict[str, str]:
    """Return the addresses of a corpus by file name."""
    return {Path(urlsplit(url).path).name: url for url in row["url"].split()}


def _archive_path(row: pd.Series, file: str) -> Path:
    return config.RAW_DIR / ARCHIVES_DIR / row["source"] / file


def _expected_hash(row: pd.Series, file: str, checksums: Mapping[str, str]) -> str:
    """Return the hash that a file must have; what the caller supplies comes first."""
    expected = checksums.get(file) or row["sha256"]
    if not re.fullmatch("[0-9a-f]{64}", expected):
        raise CorpusError(
            f"{row['title']}: no SHA-256 of {file} is known, so it is not read. {row['how_to_get']} Then put it at "
            f"{_archive_path(row, file)} and ask with checksums={{{file!r}: '<the output of sha256sum>'}}."
        )
    return expected


def _install_archives(row: pd.Series, folder: Path, checksums: Mapping[str, str], *, offline: bool) -> None:
    """Bring a corpus of archives and tables to its folder; it appears there whole or not at all."""
    paths = []
    for file, url in _files(row).items():
        paths.append(_archive_path(row, file))
        _download(row, url, paths[-1], _expected_hash(row, file, checksums), offline=offline)
    for path in sorted(paths, key=lambda path: path.suffix in TABLE_SUFFIXES):  # archives first: they make the folder
        if path.suffix in TABLE_SUFFIXES:
            shutil.copyfile(path, folder / path.name)
        else:
            download.extract(path, folder, suffixes=SUFFIXES)


def _download(row: pd.Series, url: str, path: Path, sha256: str, *, offline: bool) -> None:
    parts = urlsplit(url)
    server, remote = f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")
    item = Item(row["source"], path.name, remote, path, sha256)
    if not download.missing([item]):
        return
    download.check_space(path, 3 * int(float(row["megabytes"] or 1000) * 1e6))  # packed, unpacked, and the clips
    if offline:
        raise CorpusError(f"{url}: offline mode ({download.OFFLINE_VARIABLE}). Or put the file at {path}.")
    failures = download.fetch([item], server, folder=config.RAW_DIR)
    if failures:
        raise CorpusError(f"{url}: {failures[0].reason}. Or put the file at {path}.")


def _install_folder(row: pd.Series, folder: Path, checksums: Mapping[str, str], *, offline: bool) -> None:
    """Let the publisher's own client bring the files; they are read only if the caller supplies their digest."""
    kept = _archive_path(row, row["source"])
    if not kept.exists():
        if offline:
            raise CorpusError(f"{row['title']} needs the network, and offline mode is set.")
        kept.parent.mkdir(parents=True, exist_ok=True)
        _client_download(row, kept)
    digest = tree_digest(kept)
    if checksums.get(row["source"]) != digest:
        raise CorpusError(
            f"{row['title']} is in {kept} and is not read yet, for its publisher states no SHA-256. Look at it; if "
            f"it is what you want, ask with checksums={{{row['source']!r}: {digest!r}}}."
        )
    packed = [path for path in kept.iterdir() if path.suffix.lower() in (".zip", ".gz", ".tar", ".tgz")]
    if packed:
        download.extract(packed[0], folder, suffixes=SUFFIXES)
    else:
        shutil.copytree(kept, folder)


def _client_download(row: pd.Series, target: Path) -> None:
    """Call kagglehub, huggingface_hub or datacollective; nothing else asks for them."""
    if row["kind"] == "kaggle":
        found = _client("kagglehub", row).dataset_download(row["repository"])
        shutil.copytree(found, target)
    elif row["kind"] == "huggingface":
        _client("huggingface_hub", row).snapshot_download(row["repository"], repo_type="dataset", local_dir=target)
        shutil.rmtree(target / ".cache", ignore_errors=True)
    else:
        if not os.environ.get("MDC_DATASET"):
            raise CorpusError(f"MDC_DATASET is not set. {row['how_to_get']}")
        found = Path(_client("datacollective", row).download_dataset(os.environ["MDC_DATASET"]))
        target.mkdir()
        shutil.copy(found, target / found.name)


def _client(name: str, row: pd.Series) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise CorpusError(f"{row['title']} comes through the package {name}. {row['how_to_get']}") from None


def _facts(row: pd.Series, recording: Labelled) -> dict[str, object] | Failure:
    """Measure a recording; one that cannot be read is a failure with the reader's own words."""
    path = recording.path.relative_to(config.DATA_DIR).as_posix()
    try:
        info = audio.inspect(recording.path)
        rate_hz = round(info.sample_rate_hz)
        waveform = audio.load(recording.path, sample_rate_hz=rate_hz)
    except audio.AudioError as error:
        return Failure(row["source"], path, str(error))
    sha256 = pooch.file_hash(str(recording.path))
    return {
        "clip_id": f"{row['source']}-{sha256[:12]}",
        "path": path,
        "label": recording.label,
        "subtype": recording.subtype,
        "source": row["source"],
        "group_id": recording.group_id,
        "duration_seconds": round(len(waveform) / rate_hz, 3),
        "sample_rate_hz": rate_hz,
        "channels": info.channels,
        "bandwidth_hz": round(waveforms.bandwidth_hz(waveform, rate_hz)),
        "licence": row["licence"],
        "sha256": sha256,
    }
