"""What the figures of several studies share."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from lib import plots

MARKERS, STYLES = ("o", "s", "^", "D"), ("-", "--", "-.", ":")  # series told apart in grey too
COLOURS = ("#000000", *plots.SERIES_COLOURS[:3])
SPLIT_TITLES = {"test": "Test split", "left_out": "Unseen corpora"}


def series(table: pd.DataFrame, by: str) -> Iterator[tuple[dict[str, str], object, pd.DataFrame]]:
    """Yield the look (colour, line style, marker), the name and the rows of each series, in the table's order."""
    for index, (name, part) in enumerate(table.groupby(by, sort=False)):
        look = {"color": COLOURS[index % 4], "linestyle": STYLES[index % 4], "marker": MARKERS[index % 4]}
        yield look, name, part
