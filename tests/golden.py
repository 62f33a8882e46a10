"""Golden files: what a template makes of fixed facts, kept as a file to read and compare.

`UPDATE_GOLDEN=1 ./run_all.sh test tests/reporting` writes them anew; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path


def check(path: Path, text: str) -> None:
    """Compare a text with its golden file."""
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path.name} differs: see tests/golden.py"
