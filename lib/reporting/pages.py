"""Executed notebooks to self-contained HTML pages: no script, font, style or image is asked for from anywhere."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from lib import config
from lib.reporting import steps
from lib.reporting.results import TEMPLATES_DIR, render

_PROGRESS = re.compile(r"^.*\d+%\|.*\|.*$\n?", re.MULTILINE)  # a progress bar of tqdm


@cache
def style() -> str:
    """Return the style sheet of every page, with the colours of code for light and dark."""
    light = HtmlFormatter(style="friendly", nobackground=True).get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark", nobackground=True).get_style_defs(".highlight")
    own = (TEMPLATES_DIR / "style.css").read_text(encoding="utf-8")
    return f"{own}\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"


def render_page(body: str, **values: object) -> str:
    """Put a body into the frame that all pages share."""
    return render("page.html.j2", body=body, style=style(), **values)


def _hidden_paths() -> list[tuple[str, str]]:
    """Return (machine path, what a page shows instead), longest first: a report is read on other machines."""
    pairs = [(f"{config.OUTPUT_DIR}/", ""), (f"{config.PROJECT_DIR}/", ""), (str(config.PROJECT_DIR), ".")]
    pairs += [(str(config.OUTPUT_DIR), ".")]
    for variable in ("AUDIO_MIRROR", "TFHUB_CACHE_DIR", "AUDIOSET_WEIGHTS_DIR", "HOME"):
        value = os.environ.get(variable, "")
        if len(value) > 1:
            pairs += [(str(Path(value).resolve()), f"${variable}"), (value, f"${variable}")]
    return sorted(pairs, key=lambda pair: -len(pair[0]))


def _clean_text(text: str) -> str:
    """Hide machine paths, progress bars and the earlier states of lines that were overwritten."""
    for path, shown in _hidden_paths():
        text = text.replace(path, shown)
    kept = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
    return _PROGRESS.sub("", kept)


def clean_notebook(path: Path) -> nbformat.NotebookNode:
    """Read an executed notebook and clean the text of its outputs."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = _clean_text(output.text)
            for kind in ("text/plain", "text/html", "text/markdown"):
                if kind in output.get("data", {}):
                    output.data[kind] = _clean_text(output.data[kind])
        if cell.cell_type == "code":
            cell["outputs"] = [item for item in cell.outputs if item.get("text", "kept").strip()]
    return notebook


def notebook_html(path: Path, *, code: bool) -> str:
    """Return an executed notebook's cells as HTML without head or body; `code` shows the code, folded."""
    exporter = HTMLExporter(
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES_DIR)],
        exclude_input=not code,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    return exporter.from_notebook_node(clean_notebook(path))[0]


def localise(html: str, *, names: set[str]) -> BeautifulSoup:
    """Make a fragment ask for nothing outside the page, and point links between notebooks at their pages.

    Remote images become their alternative text; scripts, frames and linked style sheets are dropped.
    """
    soup = BeautifulSoup(html, "html.parser")
    for node in soup.find_all(["script", "link", "iframe", "object", "embed"]):
        node.decompose()
    for image in soup.find_all("img"):
        if not str(image.get("src", "")).startswith("data:"):
            if image.parent is not None and image.parent.name == "a":  # a link's only content: a small button
                image.parent["class"] = "badge"
            image.replace_with(soup.new_string(str(image.get("alt") or "image")))
    for link in soup.find_all("a", href=True):
        href = str(link["href"])
        name = Path(href.partition("#")[0]).name
        if name.endswith(".ipynb") and name.removesuffix(".ipynb") in names and "://" not in href:
            link["href"] = name.replace(".ipynb", ".html")
    return soup


def about(path: Path) -> tuple[str, str, str]:
    """Return a notebook's title, question and address in Colab by its first cell, "" where absent."""
    text = steps.read_cells(path)[0]["source"]
    title = re.search(r"^# +(.*)", text, re.MULTILINE)
    question = re.search(r"^.*\*\*Question:?\*\*:?\s*(.*)", text, re.MULTILINE)
    colab = re.search(r"https://colab\.research\.google\.com/github/[^)\s]+", text)
    return title[1] if title else path.stem, question[1].strip() if question else "", colab[0] if colab else ""
