"""What a report's folder holds, and the rows and sentences that README, index, PDF and cards show first.

The product's figures (product.json, of the study `product`) come before those of trimmed clips (metrics.json).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from lib import config
from lib.config import read_json
from lib.ensemble import ENSEMBLE_FROM
from lib.evaluation import format_interval
from lib.events import EVENT_LABELS

TEMPLATES_DIR = Path(__file__).resolve().parent / "templates"
FULL_DIR = config.PROJECT_DIR / "reports" / "full"  # the committed report, wherever a build writes
REAL_TIERS = ("mirror", "network")
LEFT_OUT = "leave_one_corpus_out"
MODEL_TITLES = {
    "yamnet": "YAMNet",
    "wav2vec2": "Wav2Vec2",
    "average": "Ensemble: average",
    "weighted": "Ensemble: weighted average",
    "vote": "Ensemble: majority vote",
    "calibrated": "Ensemble: calibrated average",
    "meta": "Ensemble: meta-classifier",
}
PLACES = {"left_out": "unseen corpora", "test": "test groups"}  # of product.json
MAX_KINDS, FEWEST_CLIPS = 5, 10  # of kinds of normal sound, in the sentence about false alarms


class Row(NamedTuple):
    """One line of the first table: what was measured, the figure with its interval, and on how much."""

    what: str
    figure: str
    n: str


@dataclass(frozen=True)
class Results:
    """A report's JSON files, each empty where it is not there, and its tables."""

    folder: Path
    info: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    studies: Mapping[str, Any] = field(default_factory=dict)
    product: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_real(self) -> bool:
        """Whether the report rests on recordings, not on generated audio."""
        return self.info.get("data", {}).get("tier") in REAL_TIERS

    @property
    def rule(self) -> str:
        """Name of the ensemble's rule; empty before notebook 05 ran."""
        return self.info.get("ensemble_rule") or ""

    def table(self, name: str) -> pd.DataFrame | None:
        """Return a table of the report, or None where it is not there."""
        path = self.folder / "tables" / f"{name}.csv"
        return pd.read_csv(path) if path.is_file() else None


def read(folder: Path) -> Results:
    """Read a report's folder."""
    names = ("run_info", "metrics", "studies", "product")
    return Results(folder, *(read_json(folder / f"{name}.json") for name in names))


def complete_product(report: Results, rule: str) -> dict[str, Any]:
    """Return product.json with what other files hold: windows of unseen corpora, trimmed clips, networks' versions."""
    product, unseen = dict(report.product), report.studies.get("cross_corpus", {})
    windows = product.get("windows", {})
    if "windows" in unseen and not any("ensemble_macro_f1" in row for row in windows.get(LEFT_OUT, {}).values()):
        product["windows"] = windows | {LEFT_OUT: unseen["windows"]}  # of the ensemble alone: no product study yet
    splits = report.metrics.get(rule, {})
    trimmed = splits.get("test_released") or splits.get("test")
    if product and trimmed:
        sizes = {name: trimmed[name] for name in ("n_clips", "n_groups")}
        product["trimmed_clips"] = {"macro_f1": trimmed["macro_f1"] | sizes}
    if product:
        files = config.CHECKPOINT_FILES.items()
        paths = {name: config.MODELS_DIR / config.RELEASED_DIRS[name] / file for name, file in files}
        versions = {name: config.version_of(path) for name, path in paths.items() if path.is_file()}
        product["versions"] = versions | product.get("versions", {})  # first those that it was measured with
    return product


def headline(results: Results) -> list[Row]:
    """Return the first table: the product's rows where they were measured, else those of the ensemble alone."""
    splits, rows = results.metrics.get(results.rule, {}), _product_rows(results.product)
    if "files" in results.product:
        return rows
    released = splits.get("test_released")
    clips = {"test groups, released checkpoints" if released else "test groups": released or splits.get("test")}
    if not rows:
        unseen = results.studies.get("cross_corpus", {}).get("scores", {})
        clips = {
            "unseen corpora (leave-one-corpus-out)": unseen.get("ensemble"),
            "random-split baseline (groups leak, optimistic)": splits.get("test_random_split"),
        } | clips
    return rows + [
        Row(f"Ensemble alone, trimmed clips, {where}: macro-F1", format_interval(scores["macro_f1"]), _n(scores))
        for where, scores in clips.items()
        if scores
    ]


def _product_rows(product: Mapping) -> list[Row]:
    windows = product.get("windows", {}).get(LEFT_OUT, {})
    found = []
    if windows:
        figures = "; ".join(f"{seconds} s: {format_interval(w['macro_f1'])}" for seconds, w in windows.items())
        n = "; ".join(f"{seconds} s: {_n(w['macro_f1'], clips='windows')}" for seconds, w in windows.items())
        found.append(Row("Windows of a stream, unseen corpora: macro-F1", figures, n))
    hours = product.get("long_recordings", {})
    where = "left_out" if "left_out" in hours else "test"
    by_label, place = hours.get(where, {}), PLACES[where]
    for label in EVENT_LABELS:
        if label in by_label:
            found.append(Row(f"{label.capitalize()} in long recordings, {place}", *_event_cells(by_label[label])))
    files = product.get("files", {})
    of_files = {title: files[place]["macro_f1"] for place, title in PLACES.items() if place in files}
    if of_files:
        figures = "; ".join(f"{title}: {format_interval(figure)}" for title, figure in of_files.items())
        n = "; ".join(f"{title}: {_n(figure)}" for title, figure in of_files.items())
        found.append(Row("Label of a file, trimmed clips: macro-F1", figures, n))
    return found


def _event_cells(figures: Mapping) -> tuple[str, str]:
    parts = (
        f"{format_interval(figures['recall_5db'], digits=2)} of events at 5 dB SNR or more are found",
        f"{format_interval(figures['false_alarms_per_hour'], digits=2)} false alarms per hour",
        f"event F1 {format_interval(figures['event_f1'], digits=2)}",
    )
    return "; ".join(parts), _n(figures["recall_5db"])


def _n(figure: Mapping, *, clips: str = "clips") -> str:
    """Return "120 clips, 30 groups" of what a figure says about its size; `clips` is what is counted."""
    sizes = {"n_clips": clips, "n_events": "events", "n_groups": "groups"}
    return ", ".join(f"{figure[key]:,.0f} {name}" for key, name in sizes.items() if figure.get(key) is not None)


def measured(results: Results) -> dict[str, Any]:
    """Return what the index shows in large: by label recall and false alarms per hour in long recordings, and where.

    Empty where the product was not measured.
    """
    hours = results.product.get("long_recordings", {})
    place = "left_out" if "left_out" in hours else "test"
    labels = {
        label: row for label, row in hours.get(place, {}).items() if label in EVENT_LABELS and "recall_5db" in row
    }
    n_hours = hours.get("what", {}).get(place, {}).get("hours")
    return {"labels": labels, "is_unseen": place == "left_out", "hours": n_hours} if labels else {}


def limits(results: Results) -> list[str]:
    """Return sentences about what lowers the figures: the kinds of normal sound that raise an alarm."""
    found = results.product.get("alarms_by_kind", {}).items()
    alarms = [(kind, n) for kind, n in found if n["n_clips"] >= FEWEST_CLIPS]
    worst = sorted(alarms, key=lambda item: -item[1]["n_alarms"] / item[1]["n_clips"])[:MAX_KINDS]
    kinds = ", ".join(f"{kind.replace('_', ' ')} ({n['n_alarms']} of {n['n_clips']} clips)" for kind, n in worst)
    text = f"Normal sound of unseen corpora that raises an alarm most often: {kinds}; "
    return [f"{text}kinds of fewer than {FEWEST_CLIPS} clips are left out."] if worst else []


# -- templates --------------------------------------------------------------------------------------------------


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


@cache
def templates() -> jinja2.Environment:
    """Return the templates; in HTML what is inserted is escaped unless the template says `safe`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES_DIR),
        autoescape=lambda name: ".html" in (name or ""),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.filters["interval"] = lambda figure, **form: format_interval(figure, **form) if figure else ""
    environment.globals.update(
        table=markdown_table, class_names=config.CLASS_NAMES, places=PLACES, ensemble_from=ENSEMBLE_FROM
    )
    return environment


def render(template: str, **values: object) -> str:
    """Fill in a template of lib/reporting/templates."""
    return templates().get_template(template).render(values)


def benchmark(folder: Path) -> list[list[str]]:
    """Return the rows of benchmark.json as text: figure, baseline, ours, ratio, goal, met; none where it is absent."""
    return [
        [
            row["figure"],
            "-" if row["baseline"] is None else f"{_amount(row['baseline'])} {row['unit']}",
            f"{_amount(row['ours'])} {row['unit']}",
            "-" if row["ratio"] is None else f"{_amount(row['ratio'])}x",
            row["goal"],
            "yes" if row["met"] else "no",
        ]
        for row in read_json(folder / "benchmark.json")
    ]


def _amount(value: float) -> str:
    """Return a number with three digits that count, and commas."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
