"""The table of corpora, and how the optional ones (large, or behind an account) are brought in when asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pooch

from lib import audio, config, manifest, waveforms
from lib.corpora import download, rules
from lib.corpora.download import Failure, Item
from lib.corpora.rules import Labelled

ARCHIVES_DIR = ".archives"  # beside the sources: a file put there by hand is not downloaded


class CorpusError(ValueError):
    """A corpus is not available as asked; the text says what to do."""


def table() -> pd.DataFrame:
    """Return every known corpus: where it is, version, hash, size, account, rules, licence, citation.

    Kind ``files`` is fetched by default, file by file; the others, the optional corpora, only when asked for. Kind
    ``archive`` has a published SHA-256 and is downloaded; ``by hand`` has none, or needs an account.
    """
    return pd.read_csv(Path(__file__).with_name("sources.csv"), dtype=str, keep_default_na=False, encoding="utf-8")


def check(names: Iterable[str]) -> list[pd.Series]:
    """Return the rows of optional corpora, or say what is lacking before anything is fetched.

    Raises
    ------
    CorpusError
        If a name is unknown, or a corpus that has to be downloaded by hand is not there.
    """
    known = table()
    known = known[known["kind"] != "files"].set_index("source", drop=False)
    chosen = []
    for name in names:
        if name not in known.index:
            raise CorpusError(f"There is no optional corpus {name!r}; there are {', '.join(known.index)}.")
        row, folder = known.loc[name], config.RAW_DIR / name
        if row["kind"] == "by hand" and not folder.is_dir():
            raise CorpusError(f"{row['title']} is not downloaded here. {row['how_to_get']} Unpack it into {folder}.")
        chosen.append(row)
    return chosen


def bring(rows: Iterable[pd.Series]) -> tuple[pd.DataFrame, list[Failure]]:
    """Fetch, unpack and describe optional corpora: `rows` from `check`.

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
                download.extract(_archive(row), folder)
            labelled = rules.RULES[row["source"]](folder)
        except (OSError, ValueError) as error:
            failures.append(Failure(row["source"], "*", str(error)))
            continue
        with ThreadPoolExecutor(download.N_THREADS) as pool:
            results = list(pool.map(functools.partial(_facts, row), labelled))
        facts += [result for result in results if isinstance(result, dict)]
        failures += [result for result in results if isinstance(result, Failure)]
    return pd.DataFrame(facts, columns=[name for name in manifest.RAW_COLUMNS if name != "tier"]), failures


def _archive(row: pd.Series) -> Path:
    """Return a corpus's archive, downloaded where it is not there."""
    parts = urlsplit(row["url"])
    path = config.RAW_DIR / ARCHIVES_DIR / row["source"] / Path(parts.path).name
    item = Item(row["source"], path.name, parts.path.lstrip("/"), path, row["sha256"])
    if download.missing([item]):
        download.check_space(path, 3 * int(float(row["megabytes"]) * 1e6))  # packed, unpacked, and the clips
        if download.is_offline():
            raise CorpusError(f"offline mode ({download.OFFLINE_VARIABLE}). Or put {row['url']} at {path}.")
        failures = download.fetch([item], f"{parts.scheme}://{parts.netloc}", folder=config.RAW_DIR)
        if failures:
            raise CorpusError(f"{failures[0].reason}. Or put {row['url']} at {path}.")
    return path


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
