"""The report of a build: a page per notebook, the appendix, index.html, report.pdf and run_info.json.

``python -m lib.reporting.report quick`` writes it again from executed notebooks and build/studies.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from lib import config
from lib.reporting import closure, environment, run_info, steps
from lib.reporting.steps import Plan

TITLE = "Crying, screaming or normal"
LEAD = (
    "Finds infant crying and human screams in recordings and in live sound, from when to when; everything else is "
    "normal. It is not a safety device: it misses cries and screams and raises false alarms."
)
SPLIT_TITLES = {  # columns of the index's second table; a build shows those that it has
    "validation": "Validation, by group",
    "test": "Test, by group",
    "test_windows_10": "Test, windows of 10 s",
    "test_random_split": "Test, random-split baseline",
}
FILES = {
    "report.pdf": "all pages to read or print",
    "product.json": "the product's figures, with intervals and n",
    "metrics.json": "scores of trimmed clips and windows by model, split and class",
    "studies.json": "what the studies found",
    "chaos.json": "kills and faults of the service",
    "benchmark.json": "speed, memory and size beside a plain way of doing the same",
    "run_info.json": "commit, data, parameters, versions, seconds, energy",
}
STUDY_FILES = ("studies.json", "product.json", "chaos.json", "benchmark.json")
PAGE_FILES = ("curves.json", "listening.json")  # of build/studies: what the interactive pages are made from


def copy_studies(folder: Path, *, rule: str) -> None:
    """Copy the studies' tables, figures and JSON files from build/studies into a report's folder, as study_*.

    What is not in build/studies stays as the committed report has it: some studies take hours. product.json is
    completed by what the report's other files hold; `rule` is the ensemble's.
    """
    from lib.reporting import results

    for kind in ("tables", "figures"):
        for path in sorted((config.STUDIES_DIR / kind).glob("*.*")):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / kind / f"study_{path.name}")
    for name in STUDY_FILES:
        if (config.STUDIES_DIR / name).is_file():
            shutil.copyfile(config.STUDIES_DIR / name, folder / name)
    product = results.complete_product(results.read(folder), rule)
    if product:
        (folder / "product.json").write_text(json.dumps(product, indent=2) + "\n", encoding="utf-8")


def banner(info: Mapping) -> dict:
    """Return what every page says first: the data tier and the weights that training started from."""
    from lib.reporting.results import MODEL_TITLES

    weights = [f"{MODEL_TITLES[name]} started from: {text}" for name, text in info["base_weights"].items()]
    return {"kind": info["data"].get("tier", "none"), "tier": str(environment.tier_banner()), "weights": weights}


def _commit(info: Mapping) -> str:
    return f"commit {info['commit'][:12]}{' with uncommitted changes' if info['dirty'] else ''}"


def _listing(folder: Path) -> list[dict]:
    """Return the files of tables/ and figures/, for the index page."""
    groups = (("Tables", "tables", "*.csv"), ("Figures", "figures", "*.png"), ("Figures to print", "figures", "*.pdf"))
    found = [(title, sorted((folder / name).glob(pattern))) for title, name, pattern in groups]
    return [{"title": title, "files": [f"{p.parent.name}/{p.name}" for p in paths]} for title, paths in found if paths]


def index_body(plan: Plan, info: Mapping) -> str:
    """Return the body of index.html."""
    from lib.reporting import interactive, pages, results

    folder = config.report_dir(plan.profile)
    report = results.read(folder)
    models = {name: splits for name, splits in report.metrics.items() if name in results.MODEL_TITLES}
    notebooks = []
    for step in plan.steps:
        title, question, _ = pages.about(plan.notebook(step))
        href = f"{step.name}.html" if plan.executed(step).is_file() else None
        notebooks.append({"title": title, "question": question, "href": href})
    return results.render(
        "index.html.j2",
        title=TITLE,
        rows=results.headline(report),
        limits=results.limits(report),
        models=models,
        titles=results.MODEL_TITLES,
        splits={name: title for name, title in SPLIT_TITLES.items() if any(name in found for found in models.values())},
        chosen=report.rule if report.rule in models else None,
        class_names=config.CLASS_NAMES,
        notebooks=notebooks,
        there=[name for name in ("appendix.html", *interactive.PAGES) if (folder / name).is_file()],
        product=results.measured(report),
        colab=pages.about(plan.notebook(steps.STEPS[0]))[2],
        files={name: text for name, text in FILES.items() if name == "report.pdf" or (folder / name).is_file()},
        folders=_listing(folder),
        info=info,
        commit=_commit(info),
    )


def appendix_body(folder: Path) -> str:
    """Return the appendix: the product's figures, the studies and the chaos suite, each where it is there."""
    from lib.reporting import results
    from lib.studies import appendix, chaos

    product, speeds = results.read(folder).product, results.benchmark(folder)
    given: dict[str, dict | None] = {
        "product": {"product": product} if product else None,
        "appendix": appendix.context(folder),
        "service": chaos.context(folder),
        "benchmark": {"rows": speeds} if speeds else None,
    }
    parts = [results.render(f"{name}.html.j2", **values) for name, values in given.items() if values]
    return "\n".join(["<h1>Appendix: what the numbers are worth</h1>", *parts]) if parts else ""


def write_pages(plan: Plan, info: Mapping) -> Path:
    """Write a page per executed notebook, the appendix, the interactive pages and index.html; return the index.

    An interactive page whose input is not in build/studies stays as the committed report has it.
    """
    from lib.reporting import interactive, pages, players

    folder = config.report_dir(plan.profile)
    built = [step for step in plan.steps if plan.executed(step).is_file()]
    appendix = appendix_body(folder) if plan.profile == steps.FULL else ""
    moving = interactive.bodies() if plan.profile == steps.FULL else {}
    there = {name: text for name, text in interactive.PAGES.items() if name in moving or (folder / name).is_file()}
    links = [{"href": "index.html", "text": "Report"}]
    links += [{"href": name, "text": text} for name, text in there.items()]
    links += [{"href": f"{step.name}.html", "text": step.name.replace("_", " ")} for step in built]
    links += [{"href": "appendix.html", "text": "appendix"}] if appendix else []
    foot = f"Profile {info['profile']}, {_commit(info)}."

    def write(name: str, body: str, title: str) -> Path:
        page = pages.render_page(body, title=title, current=name, links=links, banner=banner(info), foot=foot)
        (folder / name).write_text(page, encoding="utf-8")
        return folder / name

    names = {step.name for step in built}
    for step in built:
        body = str(pages.localise(pages.notebook_html(plan.executed(step), code=True), names=names))
        write(f"{step.name}.html", players.smaller(body), pages.about(plan.notebook(step))[0])
    if appendix:
        write("appendix.html", appendix, "Appendix")
    for name, body in moving.items():
        write(name, body, interactive.PAGES[name].capitalize())
    return write("index.html", index_body(plan, info), "Report")


def write_pdf(plan: Plan, info: Mapping) -> Path:
    """Write report.pdf: title page with the first table, then every notebook and the appendix."""
    from lib.reporting import interactive, pages, pdf, results

    folder = config.report_dir(plan.profile)
    report, said = results.read(folder), banner(info)
    chapters = [
        pages.notebook_html(plan.executed(step), code=False) for step in plan.steps if plan.executed(step).is_file()
    ]
    appended = [appendix_body(folder), interactive.chapter()] if plan.profile == steps.FULL else []
    rows = results.headline(report)
    front = {
        "title": TITLE,
        "subtitle": f"Report of the {info['profile']} build, {_commit(info)}",
        "synthetic": said["kind"] == "synthetic",
        "lines": [said["tier"], *said["weights"]],
        "headline": " ".join([LEAD, *results.limits(report)])
        if rows
        else "No test result yet: notebook 06 has not run.",
        "rows": [["Measured on", "Figure, 95 % interval", "n"], *rows] if rows else [],
    }
    return pdf.write(folder / "report.pdf", chapters=[*chapters, *filter(None, appended)], front=front)


def _fingerprint(plan: Plan) -> str:
    """Return a hash over everything that the report is made from.

    The commit does not count: it changes when the report itself is committed.
    """
    folder, templates_dir = config.report_dir(plan.profile), Path(__file__).with_name("templates")
    made_from = [path for step in plan.steps for path in (plan.executed(step), plan.notebook(step))]
    made_from += [folder / name for name in ("metrics.json", "figures", "tables")]
    made_from += [*closure.files_of_module("lib.reporting.report"), templates_dir]
    made_from += [plan.stamps_dir / f"{step.name}.json" for step in plan.steps]
    if plan.profile == steps.FULL:
        made_from += [config.STUDIES_DIR / name for name in (*STUDY_FILES, *PAGE_FILES, "tables", "figures")]
    return hashlib.sha256(f"{steps.digest(made_from)}{run_info.commit()['dirty']}".encode()).hexdigest()


def _written(folder: Path) -> str:
    """Return a hash over what `make` writes: pages may be replaced, as by a checkout of earlier ones."""
    return steps.digest([*sorted(folder.glob("*.html")), folder / "report.pdf", folder / "run_info.json"])


def make(plan: Plan, *, force: bool = False) -> Path:
    """Write the whole report, unless it is current, and return its index page."""
    folder = config.report_dir(plan.profile)
    folder.mkdir(parents=True, exist_ok=True)
    stamp, index = plan.stamps_dir / "report.txt", folder / "index.html"
    if plan.profile == steps.FULL:
        copy_studies(folder, rule=run_info.ensemble_rule(plan.profile) or "")
    wanted = _fingerprint(plan)
    if not force and stamp.is_file() and stamp.read_text(encoding="utf-8") == f"{wanted} {_written(folder)}":
        sys.stdout.write("unchanged, skipped\n")
        return index
    started = time.monotonic()
    info = run_info.collect(plan)
    (folder / "run_info.json").write_text(f"{json.dumps(info, indent=2, ensure_ascii=False)}\n", encoding="utf-8")
    write_pages(plan, info)
    write_pdf(plan, info)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(f"{wanted} {_written(folder)}", encoding="utf-8")
    sys.stdout.write(f"written in {time.monotonic() - started:.0f} s\n")
    return index


def main(arguments: list[str] | None = None) -> int:
    """Write a report again from what is there."""
    parser = argparse.ArgumentParser(prog="python -m lib.reporting.report", description=__doc__.splitlines()[0])
    parser.add_argument("profile", nargs="?", default="quick")
    profile = parser.parse_args(arguments).profile
    return steps.command(lambda: [make(Plan(profile, steps.load_parameters(profile)), force=True)])


if __name__ == "__main__":
    sys.exit(main())
