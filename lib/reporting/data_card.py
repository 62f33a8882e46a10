"""The tables of docs/DATA_CARD.md, counted from lib/corpora/*.csv and the full report; its words are in a template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lib import config, manifest, splits
from lib.reporting import results
from lib.reporting.results import Results, markdown_table

NARROW_RATE_HZ = 8000  # of telephones: nothing can be above half of it

SCREAM_ORIGINS = {  # corpus group: how its screams were made, as far as the sources say
    "deeply": "made for the corpus by volunteers, on phones",
    "freesound": "Freesound and sound libraries for film and games",
    "games": "effects of games",
    "space_station": "voices of a game",
}
# title: (frame, column, edges of the bins)
HISTOGRAMS = {
    "Sample rate (Hz), recordings as published": ("listed", "sample_rate_hz", (8_000, 16_000, 22_050, 44_100)),
    "Bandwidth (Hz), recordings as published": ("listed", "bandwidth_hz", (1_000, 2_000, 3_000, 4_000, 6_000, 8_000)),
    "Duration (seconds), clips": ("clips", "duration_seconds", (0.5, 1, 2, 4, 6, 10)),
    "Level (dBFS), clips as published": ("clips", "level_db_before", (-60, -50, -40, -30, -20)),
    "Level (dBFS), clips as processed": ("clips", "level_db_after", (-60, -50, -40, -30, -20)),
}


@dataclass(frozen=True)
class Facts:
    """What the card is counted from.

    `sources` and `listed` are lib/corpora's sources.csv and clips.csv; `clips` (02_measures, with licence), `attrition`
    and `checks` are the report's, empty where the report is missing or rests on generated audio.
    """

    sources: pd.DataFrame
    listed: pd.DataFrame
    clips: pd.DataFrame = field(default_factory=pd.DataFrame)
    attrition: pd.DataFrame = field(default_factory=pd.DataFrame)
    checks: pd.DataFrame = field(default_factory=pd.DataFrame)


def read(report: Results) -> Facts:
    """Read the index and the tables of a report."""
    paths = (splits.CORPORA_DIR / f"{name}.csv" for name in ("sources", "clips"))
    sources, listed = (pd.read_csv(path, keep_default_na=False) for path in paths)
    clips, attrition, checks = (report.table(f"02_{name}") for name in ("measures", "attrition", "checks"))
    if not report.is_real or clips is None or attrition is None or checks is None:
        return Facts(sources, listed)
    licences = listed.set_index("clip_id")["licence"]
    clips = clips.assign(licence=clips["recording_id"].map(licences).fillna("unknown"))
    return Facts(sources, listed, clips, attrition, checks)


def card(facts: Facts) -> str:
    """Return the whole card."""
    return results.render("DATA_CARD.md.j2", **of_index(facts), **({} if facts.clips.empty else of_clips(facts)))


def of_index(facts: Facts) -> dict:
    """Return what the versioned index alone tells: counts, fields, sources, citations, narrow recordings."""
    listed, counts = facts.listed, facts.listed["source"].value_counts()
    commits = facts.sources["commit"]
    versions = commits.where(commits.str.contains(" "), commits.str[:12])  # of a commit its first digits, words whole
    by_class = listed.groupby("label")
    minutes = by_class["duration_seconds"].sum() / 60
    sizes = by_class["group_id"].agg(["size", "nunique"])
    narrow = listed["sample_rate_hz"].le(NARROW_RATE_HZ).groupby(listed["label"]).sum()
    return {
        "built": not facts.clips.empty,
        "counts": [[name, *sizes.loc[name], f"{minutes[name]:.1f}"] for name in config.CLASS_NAMES],
        "sources": [
            [
                source["source"],
                f"{source['title']} ({source['repository']}, {source['version']})",
                counts.get(source["source"], "optional"),
                *(source[name] for name in ("label_rule", "group_rule", "licence")),
            ]
            for source in facts.sources.assign(version=versions).to_dict("records")
        ],
        "citations": list(dict.fromkeys(facts.sources["citation"])),
        "narrow": [[name, narrow[name], sizes.loc[name, "size"]] for name in config.CLASS_NAMES],
        "narrow_rate_hz": NARROW_RATE_HZ,
    }


def of_clips(facts: Facts) -> dict:
    """Return what the clips of the full build tell."""
    clips = facts.clips
    cries, random = clips[clips["label"] == "crying"], facts.checks.set_index(facts.checks.columns[0])
    kinds = clips.groupby(["label", "subtype"])["group_id"].agg(["size", "nunique"]).reset_index()
    kinds = kinds.sort_values("label", key=lambda labels: labels.map(config.CLASS_NAMES.index), kind="stable")
    sources, licences = (clips[name].value_counts().index.tolist() for name in ("source", "licence"))
    lost = facts.attrition.loc[facts.attrition["outcome"] != "kept", "outcome"].value_counts()
    return {
        "kinds": kinds.assign(subtype=kinds["subtype"].str.replace("_", " ")).to_numpy().tolist(),
        "instance": instance(clips),
        "splits": clips_and_groups(clips, "label", "split", config.CLASS_NAMES, manifest.SPLITS),
        "attrition": attrition(facts),
        "lost": [f"{n} {outcome}" for outcome, n in lost.items()],
        "holdings": clips_and_groups(clips, "source", "label", sources, config.CLASS_NAMES),
        "licences": clips_and_groups(clips, "licence", "label", licences, config.CLASS_NAMES),
        "screams": scream_origins(facts),
        "histograms": [histogram_table(facts, title) for title in HISTOGRAMS],
        "largest_cry_source": cries["source"].value_counts().index[0],
        "largest_cry_share": cries["source"].value_counts(normalize=True).iloc[0],
        "n_cries": len(cries),
        "n_cry_groups": cries["group_id"].nunique(),
        **leaks(clips),
        "random_split": random.loc["at random"].to_dict(),
        "grouped_split": random.loc["by group"].to_dict(),
    }


def clips_and_groups(rows: pd.DataFrame, column: str, across: str, names: Sequence, others: Sequence) -> list[list]:
    """Return "clips / groups" of each value of one column (rows) and another (columns); nothing where there is none."""
    sizes = rows.groupby([column, across])["group_id"].agg(["size", "nunique"])
    cells = {key: f"{size} / {n_groups}" for key, size, n_groups in sizes.itertuples()}
    return [[name, *(cells.get((name, other), "") for other in others)] for name in names]


def instance(clips: pd.DataFrame) -> str:
    """Return one row of the manifest as JSON: the first scream."""
    row = clips[clips["label"] == "screaming"].sort_values("clip_id").iloc[0].to_dict()
    row["path"] = f"processed/{row['sha256'][:2]}/{row['clip_id']}.wav"
    return json.dumps({name: row[name] for name in manifest.COLUMNS}, indent=2, ensure_ascii=False)


def attrition(facts: Facts) -> list[list]:
    """Return recordings listed, fetched, decodable and kept, segments and clips: in total, by class and by source."""
    parts = [("all", facts.listed, facts.attrition)]
    for column, names in (("label", config.CLASS_NAMES), ("source", sorted(set(facts.listed["source"])))):
        parts += [(name, *(t[t[column] == name] for t in (facts.listed, facts.attrition))) for name in names]
    return [
        [name, len(listed), len(got), (got["outcome"] != "not decodable").sum(), (got["n_clips"] > 0).sum(),
         got["n_segments"].sum(), got["n_clips"].sum()]
        for name, listed, got in parts
    ]  # fmt: skip


def scream_origins(facts: Facts) -> list[list]:
    """Return how the screams were made, by corpus group: origin, number of sources, clips, groups, share."""
    screams = facts.clips[facts.clips["label"] == "screaming"]
    group_of = facts.sources.set_index("source")["corpus_group"]
    origins = screams["source"].map(group_of).map(SCREAM_ORIGINS).fillna("sounds of web pages and other programs")
    rows = [
        [origin, part["source"].nunique(), len(part), part["group_id"].nunique(), f"{len(part) / len(screams):.0%}"]
        for origin, part in screams.groupby(origins)
    ]
    return sorted(rows, key=lambda row: -row[2])


def histogram_table(facts: Facts, title: str) -> str:
    """Return a histogram of `HISTOGRAMS` by class as a table, with shares, and n in rows and groups.

    A value on an edge falls below it; the outer bins are open.
    """
    frame, column, edges = HISTOGRAMS[title]
    rows = getattr(facts, frame)
    inner = [f"{low:,g} to {high:,g}" for low, high in zip(edges, edges[1:], strict=False)]
    names = [f"to {edges[0]:,g}", *inner, f"above {edges[-1]:,g}"]
    bins = pd.cut(rows[column].astype(float), [-np.inf, *edges, np.inf], labels=names)
    counts = pd.crosstab(bins, rows["label"], dropna=False)
    counts = counts.reindex(index=names, columns=list(config.CLASS_NAMES), fill_value=0)
    n_groups = rows.groupby("label")["group_id"].nunique()
    shares = counts / counts.sum().clip(lower=1)
    lines = [
        [name, *(f"{counts.loc[name, label]} ({shares.loc[name, label]:.0%})" for label in counts)]
        for name in counts.index
    ]
    whole = [f"{counts[label].sum()} ({n_groups.get(label, 0)} groups)" for label in counts]
    return markdown_table([title, *counts], [*lines, ["all", *whole]])


def leaks(clips: pd.DataFrame) -> dict:
    """Return how well the name of the source alone predicts the class."""
    by_source = pd.crosstab(clips["source"], clips["label"])
    likeliest = clips["source"].map((by_source / by_source.sum()).idxmax(axis=1))
    return {
        "accuracy_by_source": (likeliest == clips["label"]).groupby(clips["label"]).mean().mean(),
        "n_one_class_sources": int((by_source > 0).sum(axis=1).eq(1).sum()),
        "n_sources": len(by_source),
    }
