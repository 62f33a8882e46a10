"""Writes the cards in docs/ and models/, and README's first table: `python -m lib.reporting.cards`.

The words are in templates/*.md.j2; every number comes from the report's files, training.json or the ensemble's rule.
What a report does not hold is left out with its heading.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lib import config, manifest
from lib.ensemble import DETECTOR_SHARE, ENSEMBLE_FROM, EVENT_WEIGHTS
from lib.evaluation import format_interval
from lib.reporting import data_card, results
from lib.reporting.results import MODEL_TITLES, Results, read_json, render
from lib.reporting.steps import BuildError, command

README_PATH = config.PROJECT_DIR / "README.md"
README_MARKS = ("<!-- headline: written by `python -m lib.reporting.cards` -->", "<!-- end of headline -->")
SPEED_MARKS = ("<!-- benchmark: written by `python -m lib.reporting.cards` -->", "<!-- end of benchmark -->")
DOCS_DIR = config.PROJECT_DIR / "docs"
TITLES = {
    "yamnet": "YAMNet, frozen, with two linear heads",
    "wav2vec2": "Wav2Vec2, compact, frozen, with a linear head",
}
SPLITS = {
    "test_released": "test, these checkpoints (trained on train and validation groups)",
    "test": "test, trained on the train groups alone",
    "validation": "validation",
    "test_windows_5": "test, windows of 5 s",
    "test_windows_10": "test, windows of 10 s",
    "test_windows_15": "test, windows of 15 s",
    "test_random_split": "test of a random split (leaky, for comparison only)",
    "left_out": "unseen corpora (leave-one-corpus-out)",
}


def model_card(report: Results) -> str:
    """Return docs/MODEL_CARD.md: the ensemble, what it is made of, and every model's scores."""
    records = {name: config.read_record(_folder(name)) for name in TITLES}
    return render(
        "MODEL_CARD.md.j2",
        **_shared(report, list(records.values())),
        titles=TITLES,
        rule=read_json(config.MODELS_DIR / config.RULE_FILE),
        records={name: _training(record) for name, record in records.items()},
        detector=_detector(),
        scores=_scores(report, list(MODEL_TITLES)),
        by_source=_accuracy(report, "source"),
        by_kind=_accuracy(report, "kind"),
    )


def network_card(name: str, report: Results) -> str:
    """Return the card of one network, "yamnet" or "wav2vec2", from its training.json."""
    record = config.read_record(_folder(name))
    return render(
        "NETWORK.md.j2",
        **_shared(report, [record]),
        name=name,
        title=TITLES[name],
        folder=config.RELEASED_DIRS[name],
        record=_training(record),
        scores=_scores(report, [name]),
    )


def detector_card(report: Results) -> str:
    """Return the card of the event detector, from its settings.json."""
    shared = _shared(report, [config.read_record(_folder("yamnet"))])
    rule = {"detector_share": DETECTOR_SHARE, "ensemble_from": ENSEMBLE_FROM, "scream_weight": EVENT_WEIGHTS[1]}
    return render("DETECTOR.md.j2", **shared, detector=_detector(), **rule)


def pretrained_card(record: Mapping) -> str:
    """Return the card of the pretrained compact Wav2Vec2, from training.json as lib.studies.pretraining writes it."""
    return render("PRETRAINED.md.j2", record=record, copies=record.get("n_versions"))


def readme(text: str, report: Results) -> str:
    """Return README with its first table and the table of speeds made anew.

    Raises
    ------
    BuildError
        If the marks are not there exactly once.
    """
    weights = "; ".join(f"{MODEL_TITLES[name]}: {said}" for name, said in report.info.get("base_weights", {}).items())
    block = render(
        "headline.md.j2",
        rows=results.headline(report),
        limits=results.limits(report),
        tier=report.info.get("data", {}).get("tier"),
        weights=weights or "not stated",
    )
    speeds = render("benchmark.md.j2", rows=results.benchmark(report.folder))
    return _rewritten(_rewritten(text, README_MARKS, block), SPEED_MARKS, speeds)


def _rewritten(text: str, marks: tuple[str, str], block: str) -> str:
    """Replace what stands between two marks, each of which must be there exactly once."""
    start, end = marks
    if text.count(start) != 1 or text.count(end) != 1:
        raise BuildError(f"The marks `{start}` and `{end}` must be there exactly once.")
    return f"{text.partition(start)[0]}{start}\n{block.strip()}\n{end}{text.partition(end)[2]}"


def write_committed() -> list[Path]:
    """Write the data card and README's table from the committed report; return what changed."""
    report = results.read(results.FULL_DIR)
    texts = {DOCS_DIR / "DATA_CARD.md": data_card.card(data_card.read(report))}
    texts[README_PATH] = readme(README_PATH.read_text(encoding="utf-8"), report)
    return _write(texts)


def write_model_cards(report: Results) -> list[Path]:
    """Write the cards of the released networks and of the detector, and docs/MODEL_CARD.md; return what changed."""
    texts = {_folder(name) / "README.md": network_card(name, report) for name in TITLES}
    if _detector():
        texts[config.MODELS_DIR / "detector" / "README.md"] = detector_card(report)
    return _write(texts | {DOCS_DIR / "MODEL_CARD.md": model_card(report)})


def _folder(name: str) -> Path:
    return config.MODELS_DIR / config.RELEASED_DIRS[name]


def _write(texts: Mapping[Path, str]) -> list[Path]:
    changed = {
        path: text for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    for path, text in changed.items():
        config.write_whole(path, text.encode())
    return list(changed)


def _shared(report: Results, records: list[Mapping]) -> dict:
    table = report.table("02_splits")
    splits = []
    if table is not None:
        sizes = {
            (row["class"], row["split"]): f"{row['clips']:,.0f} / {row['groups']:,.0f}"
            for row in table.to_dict("records")
        }
        splits = [[name, *(sizes[name, split] for split in manifest.SPLITS)] for name in config.CLASS_NAMES]
    is_rebuilt = any("rebuilt" in record.get("base_weights", "") for record in records)
    found = {"limits": results.limits(report), "headline": results.headline(report) if report.product else []}
    return found | {"splits": splits, "info": report.info, "energy_rows": _energy, "is_rebuilt": is_rebuilt}


def _training(record: Mapping) -> dict:
    rows = {"base weights": record.get("base_weights", "unknown"), "audio": record.get("data_tier", "unknown")}
    return rows | record.get("parameters", {})


def _detector() -> dict:
    """Return the settings that the detector ships with, one line each; empty where there is none."""
    settings = read_json(config.MODELS_DIR / "detector" / "settings.json")
    return {"version": settings["version"], **settings.get("events", {})} if settings else {}


def _scores(report: Results, models: list[str]) -> list[list[str]]:
    """Return macro-F1 and F1 by class with intervals, a row for each model and split."""
    unseen = report.studies.get("cross_corpus", {}).get("scores", {})
    rows = []
    for model in models:
        found = dict(report.metrics.get(model, {}))
        found |= {"left_out": unseen[model]} if model in unseen else {}
        for split, title in SPLITS.items():
            if split in found:
                result = found[split]
                figures = [result["macro_f1"], *(result["per_class"][label]["f1"] for label in config.CLASS_NAMES)]
                sizes = (f"{result['n_clips']:,}", f"{result['n_groups']:,}")
                rows.append([model, title, *sizes, *map(format_interval, figures)])
    return rows


def _accuracy(report: Results, by: str) -> list[list[str]]:
    table = report.table(f"06_by_{by}")
    rows = [] if table is None else table.to_dict("records")
    return [[row[by], format_interval(row), f"{row['n_clips']:,.0f}", f"{row['n_groups']:,.0f}"] for row in rows]


def _energy(info: Mapping) -> list[list[str]]:
    steps = {name: (step["seconds"], step["energy_kwh"]) for name, step in info["steps"].items()}
    steps["all"] = (info["seconds"], info["energy"]["kwh"])
    return [
        [name, f"{seconds / 60:.1f}", "not measured" if kwh is None else f"{kwh:.4f}"]
        for name, (seconds, kwh) in steps.items()
    ]


def main() -> int:
    """Write every card and README's table from the committed report."""
    return command(lambda: [*write_committed(), *write_model_cards(results.read(results.FULL_DIR))])


if __name__ == "__main__":
    raise SystemExit(main())
