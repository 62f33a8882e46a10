"""What a report says about the models, as text for their cards; what it does not hold gives no text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lib import config, manifest

TABLES = (
    "02_splits",
    "06_by_source",
    "06_by_kind",
    "06_robustness",
    "trust_calibration_measures",
    "trust_calibration_unsure",
    "trust_calibration_costs",
)
MEASURES = {
    "log_loss": "log-loss (nats)",
    "brier": "Brier score",
    "ece_width": "ECE, equal width",
    "ece_mass": "ECE, equal mass",
}


@dataclass(frozen=True)
class Report:
    """What a card quotes beside metrics.json: run_info.json, trust.json and `TABLES`; what is not there is left out."""

    info: Mapping = field(default_factory=dict)
    trust: Mapping = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


NO_REPORT = Report()
ENSEMBLE = "ensemble"  # what lib.studies calls the chosen rule


def read_report(report_dir: Path) -> Report:
    """Read what a report's folder holds of it."""
    info, trust = (_read_json(report_dir / name) for name in ("run_info.json", "trust.json"))
    paths = {name: report_dir / "tables" / f"{name}.csv" for name in TABLES}
    return Report(info, trust, {name: pd.read_csv(path) for name, path in paths.items() if path.is_file()})


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def section(title: str, text: str) -> str:
    """Return a section of a card, or nothing where there is no text."""
    return f"## {title}\n\n{text}" if text else ""


def table_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def splits(report: Report) -> str:
    """Return clips and groups by class and split."""
    if "02_splits" not in report.tables:
        return ""
    table = report.tables["02_splits"].set_index(["class", "split"])
    rows = []
    for label in config.CLASS_NAMES:
        cells = [table.loc[(label, split)] for split in manifest.SPLITS]
        rows.append([label, *(f"{cell.clips:,.0f} / {cell.groups:,.0f}" for cell in cells)])
    return f"\n{table_text(['class', *(f'{split}: clips / groups' for split in manifest.SPLITS)], rows)}"


def read_out(report: Report, name: str) -> str:
    """Return the sentences of a section of trust.json, one a line, or nothing where it is not there."""
    return "".join(f"- {sentence}\n" for sentence in report.trust.get(name, {}).get("read_out", ()))


def robustness(report: Report, model: str) -> str:
    """Return macro F1 of the twin on the test clips made noisier or narrower."""
    table = report.tables.get("06_robustness")
    if table is None or model not in set(table["model"]):
        return ""
    rows = table[table["model"] == model][["condition", "macro F1", "change"]].to_numpy(str).tolist()
    title = f"Noise and band edge, {model}, test clips of the twins (changes paired, over groups):"
    return f"\n{title}\n\n{table_text(['condition', 'macro F1', 'change'], rows)}"


def by_source_and_kind(report: Report, rule: str) -> str:
    """Return the ensemble's accuracy on test clips by source and by kind of sound (age of speakers among them)."""
    parts = []
    for name in ("source", "kind"):
        table = report.tables.get(f"06_by_{name}")
        if table is not None:
            rows = [[row[name], with_interval(row), *_n(row)] for row in table.to_dict("records")]
            head = [f"class / {name}", f"accuracy of {rule}, test", "clips", "groups"]
            parts.append(f"\n{table_text(head, rows)}")
    return (
        "".join([*parts, "\nNo interval: too few groups. An interval of no width: no clip was wrong.\n"])
        if parts
        else ""
    )


def thresholds(report: Report, rule: Mapping) -> str:
    """Return when the detector says that it is unsure, and what other thresholds cost on the test clips."""
    parts = []
    if "unsure_below" in rule:
        parts.append(
            "The answer is the most probable class, however probable; command and service apply no threshold. The "
            f"rule's file carries one: below a probability of {rule['unsure_below']:.2f} notebook 05 calls an answer "
            "unsure, so that a fixed share of validation clips gets one. Other thresholds, for a share of errors aimed "
            "at or a price of a miss, were chosen on validation too:\n"
        )
    unsure, costs = (_trust_rows(report, f"calibration_{name}", ENSEMBLE) for name in ("unsure", "costs"))
    if unsure:
        head = ["errors aimed at", "unsure below", "answered, test", "of these wrong", "clips", "groups"]
        parts.append(table_text(head, [_unsure_cells(row) for row in unsure]))
    if costs:
        head = ["alarm", "a miss costs (false alarms)", "threshold", "missed, test", "n", "false alarms, test", "n"]
        parts.append(table_text(head, [_cost_cells(row) for row in costs]) + "\nn in clips / groups.\n")
    return "\n".join(parts)


def calibration(report: Report, model: str) -> str:
    """Return how far probabilities can be taken at their word, before and after temperature scaling."""
    rows = _trust_rows(report, "calibration_measures", model)
    lines = [
        [MEASURES[row["measure"]], row["state"], f"{row['temperature']:.2f}", with_interval(row), *_n(row)]
        for row in rows
        if row["measure"] in MEASURES
    ]
    if not lines:
        return ""
    head = ["measure, test", "temperature scaling", "temperature", "value", "clips", "groups"]
    return table_text(head, lines) + "\nSmaller is better. The detector uses the probabilities as they are before.\n"


def _trust_rows(report: Report, name: str, model: str) -> list[dict]:
    """Return the rows of a table of the trust section about one model's test clips, if there are any."""
    table = report.tables.get(f"trust_{name}")
    if table is None:
        return []
    return table[(table["split"] == "test") & (table["model"] == model)].to_dict("records")


def energy(report: Report) -> str:
    """Return minutes and energy of each step of the build, how it was measured and on what."""
    steps = report.info.get("steps", {})
    if not steps:
        return ""
    rows = [[name, f"{step['seconds'] / 60:.1f}", _kwh(step["energy_kwh"])] for name, step in steps.items()]
    whole, machine = report.info["energy"], report.info["machine"]
    rows.append(["all", f"{report.info['seconds'] / 60:.1f}", _kwh(whole["kwh"])])
    said = f"By {whole['method']}" if whole["method"] else f"Not measured: {whole['not_measured_because']}"
    gpu = "no GPU" if machine["gpu"] == "none" else machine["gpu"]
    return f"{table_text(['step', 'minutes', 'kWh'], rows)}\n{said}; {machine['n_cores']} cores, {gpu}.\n"


def _kwh(energy: float | None) -> str:
    return "not measured" if energy is None else f"{energy:.4f}"


def _n(row: Mapping) -> list[str]:
    return [f"{row['n_clips']:,.0f}", f"{row['n_groups']:,.0f}"]


def _unsure_cells(row: Mapping) -> list[str]:
    edges = [f"{row['target_risk']:.0%}", f"{row['threshold']:.2f}"]
    return [*edges, _named(row, "coverage"), _named(row, "risk"), *_n(row)]


def _cost_cells(row: Mapping) -> list[str]:
    wanted, normal = (f"{row[f'n_{side}']:,} / {row[f'n_groups_{side}']:,}" for side in ("wanted", "normal"))
    rates = [_named(row, "miss_rate"), wanted, _named(row, "false_alarm_rate"), normal]
    return [row["alarm"], f"{row['miss_costs']:g}", f"{row['threshold']:.2f}", *rates]


def _named(row: Mapping, name: str) -> str:
    return with_interval({"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]})


def with_interval(figure: Mapping[str, float | None]) -> str:
    """Return a figure as text, with its interval where it has one."""
    if pd.isna(figure["value"]):
        return "no value"
    if pd.isna(figure["low"]):
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
