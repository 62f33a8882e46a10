"""The report as one PDF: the notebooks' words, figures and tables, through pandoc and Typst, both plain wheels."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bs4 import BeautifulSoup, Tag

from lib.reporting import pages

TEXT_WIDTH_CM, MAX_HEIGHT_CM = 16.0, 19.0
MIN_WIDTH_CM = 6.0
SCREEN_DPI = 110.0  # assumed for a figure that does not say how large it is
_LONG_NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d{4,}(?![\w.])")
_NUMBER = re.compile(r"-?[\d.]+(e[-+]?\d+)?%?")
_BREAKS = re.compile(r"([_/]|\.(?!\d))(?=\w)")  # never inside a number
LONG_TEXT = 120  # characters of a cell, from which on columns share the page by their content
_PIECES = re.compile(r"[^\s\u200b-]+")  # what a line cannot break
MAX_OUTPUT_LINES, MAX_TABLE_ROWS = 40, 40


def _picture_width_cm(data: bytes) -> float:
    """Return the width at which a picture fits the page, keeping its own size where it says one."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        dpi = picture.info.get("dpi", (SCREEN_DPI, SCREEN_DPI))[0] or SCREEN_DPI
        natural_cm = picture.width / dpi * 2.54
        tallest_cm = MAX_HEIGHT_CM * picture.width / picture.height
    return max(min(natural_cm, TEXT_WIDTH_CM, tallest_cm), min(MIN_WIDTH_CM, tallest_cm))


def _store_pictures(soup: BeautifulSoup, folder: Path) -> None:
    """Write embedded pictures to files, since Typst reads no data URIs, and size them to the page."""
    for image in soup.find_all("img"):
        head, _, body = str(image["src"]).partition(",")
        kind = {"data:image/png;base64": "png", "data:image/jpeg;base64": "jpg"}.get(head)
        if kind is None:
            image.decompose()
            continue
        data = base64.b64decode(body)
        path = folder / f"picture{len(list(folder.glob('picture*'))):03d}.{kind}"
        path.write_bytes(data)
        image.attrs = {"src": path.name, "width": f"{_picture_width_cm(data):.2f}cm"}


def _shorten(soup: BeautifulSoup) -> None:
    """Cut printed output and tables that would run over pages, and say so; the HTML pages hold them whole."""
    for block in soup.find_all("pre"):
        lines = block.get_text().strip("\n").split("\n")
        if len(lines) > MAX_OUTPUT_LINES:
            left = len(lines) - MAX_OUTPUT_LINES
            lines = [*lines[:MAX_OUTPUT_LINES], f"... {left} more lines in the HTML page"]
        block.string = "\n".join(lines)
    for table in soup.find_all("table"):
        rows = table.select("tbody tr") or table.find_all("tr")
        for row in rows[MAX_TABLE_ROWS:]:
            row.decompose()
        if len(rows) > MAX_TABLE_ROWS:
            note = soup.new_tag("p")
            note.string = f"{len(rows) - MAX_TABLE_ROWS} more rows in the HTML page."
            table.insert_after(note)


def _drop_what_paper_cannot_show(soup: BeautifulSoup) -> None:
    """Remove folded notices, badges and styles, name players; unwrap the rest of HTML's boxes."""
    for node in soup.find_all("audio"):
        note = soup.new_tag("em")
        note.string = "(player: in the HTML page)"
        node.replace_with(note)
    for node in soup.find_all(["video", "style", "svg", "button", "source"]):
        node.decompose()
    for node in soup.select("details.notices, a.badge, .tier-banner"):
        node.decompose()
    for table in soup.find_all("table"):
        for node in [table, *table.find_all(True)]:
            node.attrs = {name: value for name, value in node.attrs.items() if name in ("colspan", "rowspan")}
        head = table.find("thead")
        if head is not None and not head.get_text(strip=True):
            head.decompose()  # pandoc makes an empty row of it
        _narrow(table)
        _share_width(soup, table)
    for link in soup.find_all("a", href=True):
        if not str(link["href"]).startswith(("http://", "https://")):
            link.unwrap()  # pages and files beside the HTML do not exist inside the PDF


def _narrow(table: Tag) -> None:
    """Let a table fit paper: three decimals at most, and names that may break after an underscore, slash or dot."""
    for cell in table.find_all(["th", "td"]):
        if cell.string is None:
            continue
        text = _LONG_NUMBER.sub(lambda match: _short(float(match[0])), cell.string)
        cell.string = text if _NUMBER.fullmatch(text.strip()) else _BREAKS.sub("\\1\u200b", text)


def _share_width(soup: BeautifulSoup, table: Tag) -> None:
    """Give the columns of a table with long texts widths by their content; others keep the widths that Typst finds."""
    rows = [[cell.get_text(" ", strip=True) for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")]
    columns = list(zip(*rows, strict=False))
    if not columns or max(map(len, itertools.chain(*columns))) < LONG_TEXT:
        return
    words = [max(map(len, _PIECES.findall(" ".join(texts))), default=0) for texts in columns]
    needed = [max(word + 3, math.sqrt(sum(map(len, texts)))) for word, texts in zip(words, columns, strict=True)]
    group = soup.new_tag("colgroup")
    for width in needed:
        group.append(soup.new_tag("col", style=f"width: {100 * width / sum(needed):.1f}%"))
    table.insert(0, group)


def _short(number: float) -> str:
    """Return three decimals, or two digits of what would vanish with them."""
    return f"{number:.3f}" if number == 0 or abs(number) >= 0.001 else f"{number:.2g}"


def chapter(html: str, folder: Path) -> str:
    """Return one page's HTML as Typst, its pictures written into `folder`."""
    import pypandoc

    soup = pages.localise(html, names=set())
    _drop_what_paper_cannot_show(soup)
    _shorten(soup)
    _store_pictures(soup, folder)
    kind = "html-native_divs-native_spans"
    source = pypandoc.convert_text(str(soup), "typst", format=kind, extra_args=["--wrap=none"])
    return re.sub(r"align: \((auto,\s*)+\)", "align: left", source)


def write(path: Path, *, chapters: Sequence[str], front: Mapping) -> Path:
    """Write a PDF of pages given as HTML, and return its path.

    `front` is the title page: title, subtitle, synthetic (bool), lines (list of str), headline (str) and rows (lists of
    three str, header first).
    """
    import typst

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chapters_text = "\n\n".join(chapter(html, folder) for html in chapters)
        (folder / "front.json").write_text(json.dumps(front), encoding="utf-8")
        template = (pages.TEMPLATES_DIR / "report.typ").read_text(encoding="utf-8")
        (folder / "report.typ").write_text(f"{template}\n{chapters_text}", encoding="utf-8")
        path.write_bytes(typst.compile(str(folder / "report.typ"), root=str(folder)))
    return path
