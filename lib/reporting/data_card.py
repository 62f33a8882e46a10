"""Writes the tables of docs/DATA_CARD.md from lib/*.csv and the full report's tables: ``python -m lib.reporting.data_card``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib import config, manifest
from lib.reporting.steps import BuildError

CARD_PATH = config.PROJECT_DIR / "docs" / "DATA_CARD.md"
SOURCES_PATH = config.PROJECT_DIR / "lib" / "corpora" / "sources.csv"
CLIPS_PATH = config.PROJECT_DIR / "lib" / "corpora" / "clips.csv"
REPORT_DIR = config.PROJECT_DIR / "reports" / "full"  # the committed report, wherever a build writes
START, END = "<!-- {name}: written by `python -m lib.reporting.data_card` -->", "<!-- end of {name} -->"
NOT_BUILT = "Not part of this build: `./run_all.sh full --data real` makes the tables that this part is written from."
ADULT_YEARS = 18
NARROW_RATE_HZ = 8000  # of telephones: nothing can lie above half of it

FIELDS = {
    "clip_id": "name of the clip; also its file name",
    "path": "processed audio below `data/`: 16 kHz, mono, PCM16",
    "label": "crying, screaming or normal",
    "subtype": "kind of sound within the label",
    "source": "collection that published it",
    "group_id": "infant, household, speaker or source recording: what must not cross splits",
    "split": "train, validation or test",
    "start_seconds": "where the clip begins in its recording",
    "duration_seconds": "length of the clip",
    "sample_rate_hz": "of the processed audio (`lib/corpora/clips.csv` has that of the recording)",
    "bandwidth_hz": "99 % of the energy lies below it",
    "licence": "as the source states it",
    "sha256": "of the processed samples",
}
SCREAM_ORIGINS = {  # source: how its screams came about, as far as the source says
    "deeply": "made for the corpus by volunteers, on phones",
    "goonstation": "voices of a game",
    "nevado": "voices of a game",
    "ladytuna": "Freesound and sound libraries for film and games",
    "rohanmathur": "sound libraries for film and games",
    "wilhelmsfx": "Freesound",
    "deviharikaa": "Freesound",
}
# title: (frame, column, edges of the bins)
HISTOGRAMS = {
    "Sample rate (Hz), recordings as published": ("listed", "sample_rate_hz", (8_000, 16_000, 22_050, 44_100)),
    "Band edge (Hz), recordings as published": ("listed", "bandwidth_hz", (1_000, 2_000, 3_000, 4_000, 6_000, 8_000)),
    "Duration (seconds), clips": ("clips", "duration_seconds", (0.5, 1, 2, 4, 6, 10)),
    "Level (dBFS), clips as published": ("clips", "level_db_before", (-60, -50, -40, -30, -20)),
    "Level (dBFS), clips as processed": ("clips", "level_db_after", (-60, -50, -40, -30, -20)),
}


@dataclass(frozen=True)
class Facts:
    """What the card is written from.

    `sources` and `listed` are lib/corpora/sources.csv and lib/corpora/clips.csv; `clips` (02_measures, with licence), `attrition` and
    `checks` are the report's, or None where the report is missing or rests on generated audio.
    """

    sources: pd.DataFrame
    listed: pd.DataFrame
    clips: pd.DataFrame | None = None
    attrition: pd.DataFrame | None = None
    checks: pd.DataFrame | None = None


def read(report_dir: Path = REPORT_DIR) -> Facts:
    """Read the index and the tables of a report."""
    sources, listed = (pd.read_csv(path, keep_default_na=False) for path in (SOURCES_PATH, CLIPS_PATH))
    info = report_dir / "run_info.json"
    tier = json.loads(info.read_text(encoding="utf-8"))["data"].get("tier") if info.is_file() else None
    names = {"clips": "02_measures", "attrition": "02_attrition", "checks": "02_checks"}
    paths = {name: report_dir / "tables" / f"{file}.csv" for name, file in names.items()}
    if tier not in ("mirror", "network") or not all(path.is_file() for path in paths.values()):
        return Facts(sources, listed)
    tables = {name: pd.read_csv(path) for name, path in paths.items()}
    licences = listed.set_index("clip_id")["licence"]
    tables["clips"]["licence"] = tables["clips"]["recording_id"].map(licences).fillna("unknown")
    return Facts(sources, listed, **tables)


def histogram(rows: pd.DataFrame, column: str, *, edges: Sequence[float]) -> pd.DataFrame:
    """Count the rows of each class in each bin.

    Parameters
    ----------
    rows : DataFrame
        Needs the columns label and `column`.
    column : str
        Numbers; a row without one is not counted.
    edges : sequence of float
        Between the bins, ascending; a value on an edge falls below it. The outer bins are open.

    Returns
    -------
    DataFrame
        One row a bin, indexed by its name; one column of counts a class of CLASS_NAMES.
    """
    inner = [f"{low:,g} to {high:,g}" for low, high in zip(edges, edges[1:], strict=False)]
    names = [f"to {edges[0]:,g}", *inner, f"above {edges[-1]:,g}"]
    bins = pd.cut(rows[column].astype(float), [-np.inf, *edges, np.inf], labels=names)
    table = pd.crosstab(bins, rows["label"], dropna=False)
    return table.reindex(index=names, columns=list(config.CLASS_NAMES), fill_value=0).rename_axis(column)


def counts_table(facts: Facts) -> str:
    """Return recordings, groups and minutes by class, as the versioned index lists them."""
    rows = []
    for label in config.CLASS_NAMES:
        part = facts.listed[facts.listed["label"] == label]
        minutes = part["duration_seconds"].sum() / 60
        rows.append([label, f"{len(part)}", f"{part['group_id'].nunique()}", f"{minutes:.1f}"])
    return _table(["Class", "Recordings", "Groups", "Minutes"], rows)


def kinds_table(facts: Facts) -> str:
    """Return what each class is made of: clips and groups by subtype."""
    grouped = facts.clips.groupby(["label", "subtype"])
    rows = [[label, kind.replace("_", " "), *_n(part)] for (label, kind), part in grouped]
    rows.sort(key=lambda row: config.CLASS_NAMES.index(row[0]))
    return _table(["Class", "Kind", "Clips", "Groups"], rows)


def instance(facts: Facts) -> str:
    """Return one row of the manifest as JSON: the first scream."""
    row = facts.clips[facts.clips["label"] == "screaming"].sort_values("clip_id").iloc[0].to_dict()
    row["path"] = f"processed/{row['sha256'][:2]}/{row['clip_id']}.wav"
    text = json.dumps({name: row[name] for name in manifest.COLUMNS}, indent=2, ensure_ascii=False)
    return f"```json\n{text}\n```"


def fields_table(facts: Facts) -> str:  # noqa: ARG001
    """Return the manifest's columns and their meaning."""
    return _table(["Field", "Meaning"], [[f"`{name}`", FIELDS[name]] for name in manifest.COLUMNS])


def splits_table(facts: Facts) -> str:
    """Return clips and groups by class and split."""
    header = ["Class", *(f"{split}: clips / groups" for split in manifest.SPLITS)]
    return _table(header, _cross(facts.clips, "label", config.CLASS_NAMES, "split", manifest.SPLITS))


def attrition_table(facts: Facts) -> str:
    """Return recordings listed, fetched, decodable and kept, by class, by source and in total, and what was lost."""
    listed, attrition = facts.listed, facts.attrition
    parts = [("all", listed, attrition)]
    for column, names in (("label", config.CLASS_NAMES), ("source", sorted(set(listed["source"])))):
        parts += [(name, listed[listed[column] == name], attrition[attrition[column] == name]) for name in names]
    rows = [
        [name, len(index), len(got), (got["outcome"] != "not decodable").sum(), (got["n_clips"] > 0).sum(),
         got["n_segments"].sum(), got["n_clips"].sum()]
        for name, index, got in parts
    ]  # fmt: skip
    header = ["Class or source", "Listed", "Fetched", "Decodable", "Kept", "Segments", "Clips"]
    lost = attrition.loc[attrition["outcome"] != "kept", "outcome"].value_counts()
    said = ", ".join(f"{n} {outcome}" for outcome, n in lost.items()) or "none"
    cells = [[f"{cell:,}" if not isinstance(cell, str) else cell for cell in row] for row in rows]
    return f"{_table(header, cells)}\n\nRecordings fetched and not used as they are: {said}."


def sources_table(facts: Facts) -> str:
    """Return what each source gives, how labels and groups are read from it, and its licence."""
    n_recordings = facts.listed["source"].value_counts()
    rows = []
    for source in facts.sources.to_dict("records"):
        origin = f"{source['title']} ({source['repository']}, {source['commit'][:12]})"
        listed = str(n_recordings.get(source["source"], "optional"))
        rows.append([source["source"], origin, listed, source["label_rule"], source["group_rule"], source["licence"]])
    return _table(["Source", "Origin", "Recordings", "Label rule", "Group rule", "Licence"], rows)


def holdings_table(facts: Facts) -> str:
    """Return clips and groups by source and class."""
    header = ["Source", *(f"{label}: clips / groups" for label in config.CLASS_NAMES)]
    names = facts.clips["source"].value_counts().index
    return _table(header, _cross(facts.clips, "source", names, "label", config.CLASS_NAMES))


def licences_table(facts: Facts) -> str:
    """Return clips and groups by licence and class."""
    header = ["Licence as stated", *(f"{label}: clips / groups" for label in config.CLASS_NAMES)]
    names = facts.clips["licence"].value_counts().index
    return _table(header, _cross(facts.clips, "licence", names, "label", config.CLASS_NAMES))


def screams_table(facts: Facts) -> str:
    """Return where the screams come from, with clips and groups, and how many are known to be natural."""
    screams = facts.clips[facts.clips["label"] == "screaming"]
    origins = screams["source"].map(lambda source: SCREAM_ORIGINS.get(source, "not stated"))
    rows = [
        [origin, ", ".join(sorted(set(part["source"]))), *_n(part), f"{len(part) / len(screams):.0%}"]
        for origin, part in sorted(screams.groupby(origins), key=lambda pair: -len(pair[1]))
    ]
    ages = facts.listed.loc[facts.listed["label"] == "screaming"].pipe(_deeply_ages)
    known = f"Age is known for {len(ages)} of them (deeply)"
    if len(ages):
        known += f": {ages.min()} to {ages.max()} years, {(ages < ADULT_YEARS).sum()} under {ADULT_YEARS}"
    return _table(["How the screams came about", "Sources", "Clips", "Groups", "Share"], rows) + f"\n\n{known}."


def _deeply_ages(listed: pd.DataFrame) -> pd.Series:
    """Return the speakers' ages in years: fifth in Deeply's file names (its README, "Filename convention")."""
    names = listed.loc[listed["source"] == "deeply", "path"].str.rsplit("/", n=1).str[-1]
    return names.str.split("_").str[4].astype(int)


def histograms(facts: Facts) -> str:
    """Return the histograms of `HISTOGRAMS` by class, one table each, with n in clips (or recordings) and groups."""
    tables = []
    for title, (frame, column, edges) in HISTOGRAMS.items():
        rows = getattr(facts, frame)
        counts = histogram(rows, column, edges=edges)
        totals = counts.sum().clip(lower=1)
        lines = [
            [name, *(f"{n} ({n / totals[label]:.0%})" for label, n in row.items())] for name, row in counts.iterrows()
        ]
        n_groups = rows.groupby("label")["group_id"].nunique()
        whole = [f"{counts[label].sum()} ({n_groups.get(label, 0)} groups)" for label in config.CLASS_NAMES]
        tables.append(_table([title, *config.CLASS_NAMES], [*lines, ["all", *whole]]))
    return "\n\n".join(tables)


def infants_text(facts: Facts) -> str:
    """Return how many cries and groups there are, and what the largest source of them asks of a reader."""
    cries = facts.clips[facts.clips["label"] == "crying"]
    largest = cries["source"].value_counts()
    of_all = f"{largest.iloc[0] / len(cries):.0%} of them from {largest.index[0]}"
    return f"The clips hold {len(cries)} cries of {cries['group_id'].nunique()} groups, {of_all}."


def leaks_list(facts: Facts) -> str:
    """Return what gives the class away without being the sound, in numbers."""
    clips, listed = facts.clips, facts.listed
    by_source = pd.crosstab(clips["source"], clips["label"])
    likeliest = clips["source"].map((by_source / by_source.sum()).idxmax(axis=1))
    balanced = (likeliest == clips["label"]).groupby(clips["label"]).mean().mean()
    single = int((by_source > 0).sum(axis=1).eq(1).sum())
    narrow = listed["sample_rate_hz"].le(NARROW_RATE_HZ).groupby(listed["label"]).agg(["sum", "size"])
    edges = ", ".join(
        f"{narrow.loc[label, 'sum']} of the {narrow.loc[label, 'size']} {label} recordings"
        for label in config.CLASS_NAMES
        if label in narrow.index
    )
    checks = facts.checks.set_index(facts.checks.columns[0])
    random = checks.loc["at random"]
    lines = (
        f"**The source gives the class away.** Its name alone tells the class with a balanced accuracy of "
        f"{balanced:.0%} (chance: {1 / len(config.CLASS_NAMES):.0%}); {single} of {len(by_source)} sources hold one "
        f"class alone.",
        f"**The band edge does.** At {NARROW_RATE_HZ:,} Hz, with nothing above {NARROW_RATE_HZ // 2:,} Hz, were made "
        f"{edges}.",
        f"**The random split leaks.** {random['groups shared between splits']:.0f} groups lie in more than one of its "
        f"splits, with {random['clips in a shared group']:.0%} of the clips; in the split by group "
        f"{checks.loc['by group', 'groups shared between splits']:.0f} do. Figures on it are for comparison alone.",
    )
    return "\n".join(f"- {line}" for line in lines)


def citations_list(facts: Facts) -> str:
    """Return each source's citation once."""
    return "\n".join(f"- {citation}" for citation in dict.fromkeys(facts.sources["citation"]))


PARTS: dict[str, Callable[[Facts], str]] = {
    "counts": counts_table,
    "kinds": kinds_table,
    "instance": instance,
    "fields": fields_table,
    "splits": splits_table,
    "attrition": attrition_table,
    "sources": sources_table,
    "holdings": holdings_table,
    "licences": licences_table,
    "screams": screams_table,
    "infants": infants_text,
    "histograms": histograms,
    "leaks": leaks_list,
    "citations": citations_list,
}
FROM_INDEX = ("counts", "fields", "sources", "citations")  # the rest needs a report on real recordings


def card_text(text: str, *, report_dir: Path = REPORT_DIR) -> str:
    """Return the card with everything between its marks made anew.

    Raises
    ------
    BuildError
        If a pair of marks is not there exactly once.
    """
    facts = read(report_dir)
    for name, write in PARTS.items():
        content = write(facts) if facts.clips is not None or name in FROM_INDEX else NOT_BUILT
        start, end = START.format(name=name), END.format(name=name)
        block = f"{start}\n{content}\n{end}"
        text, n_found = re.subn(
            f"{re.escape(start)}.*?{re.escape(end)}", lambda _, new=block: new, text, flags=re.DOTALL
        )
        if n_found != 1:
            raise BuildError(f"{CARD_PATH.name} must hold `{start}` and `{end}` exactly once.")
    return text


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _n(rows: pd.DataFrame) -> list[str]:
    return [f"{len(rows)}", f"{rows['group_id'].nunique()}"]


def _cross(rows: pd.DataFrame, column: str, names: Sequence, across: str, others: Sequence) -> list[list[str]]:
    """Return "clips / groups" of each value of one column (rows) and another (columns); nothing where there is none."""
    cells = {key: " / ".join(_n(part)) for key, part in rows.groupby([column, across])}
    return [[name, *(cells.get((name, other), "") for other in others)] for name in names]


def main() -> int:
    """Rewrite the card."""
    CARD_PATH.write_text(card_text(CARD_PATH.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
