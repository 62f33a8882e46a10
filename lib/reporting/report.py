"""The report of a build: a page per notebook, index.html, report.pdf, run_info.json, and README's headline.

``python -m lib.reporting.report quick`` writes it again from what is there; ``--readme`` rewrites README's generated lines.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from pathlib import Path

from lib import config
from lib.reporting import caveats, environment, run_info, steps
from lib.reporting.steps import BuildError, Plan

MODEL_TITLES = {
    "yamnet": "YAMNet",
    "wav2vec2": "Wav2Vec2",
    "average": "Ensemble: average",
    "weighted": "Ensemble: weighted average",
    "vote": "Ensemble: majority vote",
    "calibrated": "Ensemble: calibrated average",
    "meta": "Ensemble: meta-classifier",
}
SPLIT_TITLES = {  # columns of the first table; a build shows those that it has
    "validation": "Validation, by group",
    "test": "Test, by group",
    "test_random_split": "Test, split at random",
    "left_out": "Sources never met",
}
README_PATH = config.PROJECT_DIR / "README.md"
README_MARKS = ("<!-- headline: written by `python -m lib.reporting.report --readme` -->", "<!-- end of headline -->")
_SOURCES = ("report.py", "pages.py", "pdf.py", "run_info.py", "templates")


def read_json(path: Path) -> dict:
    """Return a JSON file's content, or an empty dict when it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def shown(figure: dict) -> dict:
    """Format ``{"value", "low", "high"}`` for a table; None stands for what too few groups cannot tell."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    has_interval = low is not None and high is not None
    return figure | {
        "text": "–" if value is None else f"{value:.3f}",
        "interval": f"[{low:.3f}, {high:.3f}]" if has_interval else "(too few groups for an interval)",
        "has_bar": has_interval and value is not None,
    }


def headline_rows(metrics: dict, *, chosen: str | None) -> list[dict]:
    """Return a row per model: macro-F1 on each split, then accuracy on the test split."""
    rows, columns = [], [split["name"] for split in split_sizes(metrics)]
    for name, title in MODEL_TITLES.items():
        if name not in metrics:
            continue
        splits = metrics[name]
        cells = [shown(splits[split]["macro_f1"]) if split in splits else None for split in columns]
        cells.append(shown(splits["test"]["accuracy"]) if "test" in splits else None)
        rows.append({"title": title, "cells": cells, "chosen": name == chosen})
    return rows


def split_sizes(metrics: dict) -> list[dict]:
    """Return name, title and sizes of each split that some model has, as the first that has it states them."""
    found = []
    for name, title in SPLIT_TITLES.items():
        facts = next((splits[name] for splits in metrics.values() if name in splits), None)
        if facts:
            found.append({"name": name, "title": title, "n_clips": facts["n_clips"], "n_groups": facts["n_groups"]})
    return found


def headline(metrics: dict, info: dict) -> str:
    """Return the result in one or two sentences, every number read from the files."""
    name = info.get("ensemble_rule")
    if name not in metrics or "test" not in metrics[name]:
        return "No test result yet: notebook 06 has not run."
    test = metrics[name]["test"]
    score = shown(test["macro_f1"])
    text = (
        f"On {test['n_clips']} test clips from {test['n_groups']} groups that no model saw, the ensemble "
        f"({MODEL_TITLES[name].partition(': ')[2]}) reaches a macro-F1 of {score['text']}, "
        f"95 % interval {score['interval']}."
    )
    released = metrics[name].get("test_released")
    if released:
        own = shown(released["macro_f1"])
        text += (
            f" The checkpoints in models/, trained on the validation groups too, score {own['text']} {own['interval']}."
        )
    twin = metrics[name].get("test_random_split")
    if twin:
        flattered = shown(twin["macro_f1"])
        text += (
            f" Split at random by clip, as is often done, the same recipe scores {flattered['text']} "
            f"{flattered['interval']} on {twin['n_clips']} clips."
        )
    elsewhere = metrics[name].get("left_out")
    if elsewhere:
        left_out = shown(elsewhere["macro_f1"])
        text += (
            f" On sources that it was never trained on (each family left out in turn, {elsewhere['n_clips']:,} clips) "
            f"it scores {left_out['text']} {left_out['interval']}: expect that elsewhere, not the first figure."
        )
    return text


def banner(info: dict) -> dict:
    """Return what every page says first: the data tier and the weights that training started from."""
    tier = info["data"].get("tier", "none")
    weights = [f"{MODEL_TITLES[name]} started from: {text}" for name, text in info["base_weights"].items()]
    return {"kind": tier, "tier": str(environment.tier_banner()), "weights": weights}


def foot(info: dict) -> str:
    """Return the line at the end of every page."""
    return f"Profile {info['profile']}, {_commit(info)}."


def _commit(info: dict) -> str:
    return f"commit {info['commit'][:12]}{' with uncommitted changes' if info['dirty'] else ''}"


def class_table(metrics: dict, info: dict) -> dict | None:
    """Return precision, recall and F1 by class of the chosen rule on the test split."""
    name = info.get("ensemble_rule")
    per_class = metrics.get(name, {}).get("test", {}).get("per_class") if name else None
    if not per_class:
        return None
    rows = [
        {"label": label, "cells": [shown(per_class[label][kind]) for kind in ("precision", "recall", "f1")]}
        for label in config.CLASS_NAMES
    ]
    return {"model": MODEL_TITLES[name], "rows": rows}


def run_facts(info: dict) -> list[tuple[str, str]]:
    """Return the table of run facts."""
    energy, host = info["energy"], info["machine"]
    measured = f"{energy['kwh']:.4f} kWh ({energy['method']})" if energy["kwh"] is not None else ""
    reason = f"not measured: {energy['not_measured_because'] or 'no step has run'}"
    sources = info["data"].get("sources") or []
    return [
        ("Commit", info["commit"] + (" with uncommitted changes" if info["dirty"] else "")),
        ("Data tier", info["data"].get("tier", "none")),
        ("Sources", f"{len(sources)} read, {len(info['data'].get('failures') or [])} left out"),
        *((f"Base weights, {MODEL_TITLES[name]}", text) for name, text in info["base_weights"].items()),
        ("Time of all notebooks", f"{info['seconds'] / 60:.0f} minutes"),
        ("Energy", measured or reason),
        ("Machine", f"{host['n_cores']} cores, {host['memory_gb']} GB memory, GPU: {host['gpu']}, {host['system']}"),
        ("Python", info["python"]),
    ]


def step_rows(info: dict) -> list[dict]:
    """Return seconds and energy by notebook."""
    return [
        {
            "name": name,
            "seconds": f"{facts['seconds']:.0f}",
            "energy": f"{facts['energy_kwh'] * 1000:.2f} Wh" if facts["energy_kwh"] is not None else "not measured",
        }
        for name, facts in info["steps"].items()
    ]


def _listing(folder: Path) -> list[dict]:
    """Return the files of tables/ and figures/, for the index page."""
    groups = (
        ("Tables (CSV)", "tables", "*.csv"),
        ("Figures (PNG)", "figures", "*.png"),
        ("Figures (PDF)", "figures", "*.pdf"),
    )
    return [
        {"title": title, "files": [f"{name}/{path.name}" for path in sorted((folder / name).glob(pattern))]}
        for title, name, pattern in groups
        if any((folder / name).glob(pattern))
    ]


def index_body(plan: Plan, info: dict, metrics: dict) -> str:
    """Return the body of index.html."""
    from lib.reporting import pages

    cards = []
    for step in steps.STEPS:
        title, question = pages.title_and_question(plan.notebook(step))
        href = f"{step.name}.html" if plan.executed(step).is_file() else None
        cards.append({"title": title, "question": question, "href": href})
    files = [{"href": "run_info.json", "text": "commit, data, parameters, versions, seconds, energy"}]
    if metrics:
        files.insert(0, {"href": "metrics.json", "text": "every figure above, and by class"})
    more = {"trust.json": "what the figures are worth (notebook 06, section 9)", "chaos.json": "kills and faults (07)"}
    there = [name for name in more if (config.report_dir(plan.profile) / name).is_file()]
    files += [{"href": name, "text": more[name]} for name in there]
    files.insert(0, {"href": "report.pdf", "text": "all seven notebooks to read or print"})
    return (
        pages.templates()
        .get_template("index.html.j2")
        .render(
            headline=headline(metrics, info),
            limits=caveats.read(config.report_dir(plan.profile)),
            rows=headline_rows(metrics, chosen=info.get("ensemble_rule")),
            splits=split_sizes(metrics),
            classes=class_table(metrics, info),
            pages=cards,
            files=files,
            folders=_listing(config.report_dir(plan.profile)),
            facts=run_facts(info),
            steps=step_rows(info),
            versions=list(info["versions"].items()),
        )
    )


def write_pages(plan: Plan, info: dict, metrics: dict) -> Path:
    """Write a page per executed notebook and index.html; return the index."""
    from lib.reporting import pages

    folder = config.report_dir(plan.profile)
    built = [step for step in steps.STEPS if plan.executed(step).is_file()]
    links = [{"href": "index.html", "text": "Report"}]
    links += [{"href": f"{step.name}.html", "text": step.name.replace("_", " ")} for step in built]
    shared = {"links": links, "banner": banner(info), "foot": foot(info)}
    names = {step.name for step in built}
    for step in built:
        body = pages.notebook_body(plan.executed(step), names=names)
        title, _ = pages.title_and_question(plan.notebook(step))
        page = pages.render_page(body, title=title, current=f"{step.name}.html", **shared)
        (folder / f"{step.name}.html").write_text(page, encoding="utf-8")
    index = folder / "index.html"
    body = index_body(plan, info, metrics)
    index.write_text(pages.render_page(body, title="Report", current="index.html", **shared), encoding="utf-8")
    return index


def pdf_front(info: dict, metrics: dict, *, limits: list[str] | None = None) -> dict:
    """Return the title page of report.pdf; `limits` are the sentences beside the headline."""
    header = ["Model", *(f"{item['title']} (n = {item['n_clips']})" for item in split_sizes(metrics)), "Test accuracy"]
    rows = [
        [row["title"], *(f"{cell['text']} {cell['interval']}" if cell else "–" for cell in row["cells"])]
        for row in headline_rows(metrics, chosen=info.get("ensemble_rule"))
    ]
    said = banner(info)
    return {
        "title": "Crying, screaming or normal",
        "subtitle": f"Report of the {info['profile']} build, {_commit(info)}",
        "synthetic": said["kind"] == "synthetic",
        "lines": [said["tier"], *said["weights"]],
        "headline": " ".join([headline(metrics, info), *(limits or [])]),
        "rows": [header, *rows] if rows else [],
    }


def _fingerprint(plan: Plan) -> str:
    """Return a hash over everything that the report is made from."""
    here = Path(__file__).resolve().parent
    folder = config.report_dir(plan.profile)
    made_from = [plan.executed(step) for step in steps.STEPS] + [plan.notebook(step) for step in steps.STEPS]
    made_from += [
        folder / "metrics.json",
        folder / caveats.FILE_NAME,
        folder / "figures",
        folder / "tables",
        *(here / name for name in _SOURCES),
    ]
    made_from += [plan.stamps_dir / f"{step.name}.json" for step in steps.STEPS]
    return hashlib.sha256(f"{steps.digest(made_from)}{run_info.commit()}".encode()).hexdigest()


def make(plan: Plan, *, force: bool = False) -> Path:
    """Write the whole report, unless it is current, and return its index page."""
    folder = config.report_dir(plan.profile)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = config.build_dir(plan.profile) / "stamps" / "report.txt"
    wanted, index = _fingerprint(plan), folder / "index.html"
    present = index.is_file() and (folder / "report.pdf").is_file() and stamp.is_file()
    if not force and present and stamp.read_text(encoding="utf-8") == wanted:
        sys.stdout.write("unchanged, skipped\n")
        return index
    started = time.monotonic()
    info, metrics = run_info.write(plan), read_json(folder / "metrics.json")
    write_pages(plan, info, metrics)
    from lib.reporting import pdf

    built = [plan.executed(step) for step in steps.STEPS if plan.executed(step).is_file()]
    front = pdf_front(info, metrics, limits=caveats.read(folder))
    pdf.write(folder / "report.pdf", notebooks=built, front=front)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(wanted, encoding="utf-8")
    sys.stdout.write(f"written in {time.monotonic() - started:.0f} s\n")
    return index


def readme_text(text: str, *, report_dir: Path) -> str:
    """Return README with the lines between its marks made anew from a report's metrics.json and run_info.json."""
    start, end = README_MARKS
    info, metrics = read_json(report_dir / "run_info.json"), read_json(report_dir / "metrics.json")
    if not metrics:
        lines = ["No full report is committed yet: `./run_all.sh full` makes it."]
    else:
        paragraphs = [headline(metrics, info), *caveats.read(report_dir)]
        lines = [line for text in paragraphs for line in (f"> {text}", ">")]
        lines += [f"> {line}  " for line in _readme_facts(info)]
    block = "\n".join([start, *lines, end])
    replaced, n_found = re.subn(f"{re.escape(start)}.*?{re.escape(end)}", lambda _: block, text, flags=re.DOTALL)
    if n_found != 1:
        raise BuildError(f"README.md must hold the marks `{start}` and `{end}` exactly once.")
    return replaced


def _readme_facts(info: dict) -> list[str]:
    weights = "; ".join(f"{MODEL_TITLES[name]}: {text}" for name, text in info["base_weights"].items())
    return [f"Data tier: {info['data'].get('tier')}.", f"Base weights: {weights or 'not stated'}."]


def main(arguments: list[str] | None = None) -> int:
    """Write a report again from executed notebooks, or README's headline."""
    parser = argparse.ArgumentParser(prog="python -m lib.reporting.report", description=__doc__.splitlines()[0])
    parser.add_argument("profile", nargs="?", default="quick")
    parser.add_argument("--readme", action="store_true", help="rewrite README's headline from reports/full")
    options = parser.parse_args(arguments)
    try:
        if options.readme:
            text = readme_text(
                README_PATH.read_text(encoding="utf-8"), report_dir=config.PROJECT_DIR / "reports" / "full"
            )
            README_PATH.write_text(text, encoding="utf-8")
        else:
            parameters = steps.load_parameters(steps.PARAMS_DIR / f"{options.profile}.yaml")
            make(Plan(options.profile, parameters), force=True)
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
