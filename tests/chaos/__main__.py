"""`python -m tests.chaos [--long] [--only TEXT] [--out PATH]`: run the chaos suite, write build/studies/chaos.json.

Rows are written as they come, so that an interrupted run keeps what it has; rows of other tests are kept. The long
suite also writes tables/chaos_worker_kills.csv and chaos_server_kills.csv beside it.
"""

from __future__ import annotations

import argparse
import functools
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PROJECT_DIR = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(PROJECT_DIR)]

import pandas as pd  # noqa: E402

from lib import config, plots  # noqa: E402
from lib.studies import chaos  # noqa: E402
from tests.chaos import faults, marker, runs  # noqa: E402
from tests.chaos.harness import Service  # noqa: E402

Row = dict[str, Any]
WEEK_SECONDS = 7 * 86_400.0
SIZES = {
    "ci": {"kills": (10, 300), "servers": (4, 60), "sends": 1_000, "audio_seconds": 7_200.0, "times": 1, "marked": 20},
    "long": {
        "kills": (200, 6_000),
        "servers": (50, 1_000),
        "sends": 20_000,
        "audio_seconds": WEEK_SECONDS,
        "times": 20,
        "marked": 200,
    },
}


def suite(
    size: str, seed: int, *, scale: float = 1.0, tables_dir: Path | None = None
) -> dict[str, Callable[[Path], Row]]:
    """Return the tests of one size by name; `scale` makes the kills, sends and hours fewer.

    With `tables_dir`, the two kill tests write there when each chunk was sent and stored, and what was killed when.
    """
    chosen = SIZES[size]
    n_kills, n_chunks = (round(scale * n) for n in chosen["kills"])
    n_server_kills, n_server_chunks = (round(scale * n) for n in chosen["servers"])
    n_sends, audio_seconds = round(scale * chosen["sends"]), scale * chosen["audio_seconds"]

    def trace_path(killed: str) -> Path | None:
        return tables_dir and tables_dir / f"chaos_{killed}_kills.csv"

    tests: dict[str, Callable[[Path], Row]] = {
        "worker kills": lambda folder: runs.worker_kills(
            folder, n_kills=n_kills, n_chunks=n_chunks, seed=seed, trace_path=trace_path("worker")
        ),
        "server kills": lambda folder: runs.server_kills(
            folder, n_kills=n_server_kills, n_chunks=n_server_chunks, seed=seed, trace_path=trace_path("server")
        ),
        "duplicates": lambda folder: runs.duplicates(
            folder, n_sends=n_sends, seed=seed, sends_per_chunk=5 if size == "ci" else 10
        ),
        "marker": lambda folder: marker.plain_text_marker(folder, n_chunks=chosen["marked"], seed=seed),
        "soak": lambda folder: runs.soak(folder, audio_seconds=audio_seconds, seed=seed),
    }
    in_folder = {name: functools.partial(_on_service, fault) for name, fault in faults.ON_A_SERVICE.items()}
    for name, fault in {**faults.IN_A_FOLDER, **in_folder}.items():
        tests[name] = lambda folder, fault=fault: {"times": chosen["times"], **fault(folder, chosen["times"])}
    return tests


def _on_service(fault: Callable[[Service, int], Row], folder: Path, n_times: int) -> Row:
    with Service(folder) as service:
        return fault(service, n_times)


def write_row(path: Path, row: Row) -> None:
    """Put a row into chaos.json in place of the one with the same test and size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    rows = [old for old in rows if (old["test"], old["size"]) != (row["test"], row["size"])]
    text = json.dumps([*rows, row], indent=2) + "\n"
    path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen tests one after the other; return 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the long sizes, with a week of audio: an hour and a half")
    parser.add_argument("--only", default="", help="only tests whose name holds this")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the size to run (rows say how much)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=config.BUILD_DIR / "studies" / "chaos.json")
    chosen = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):  # stop the service that is under test, too
        signal.signal(number, lambda *_: sys.exit(130))
    size, n_failed = "long" if chosen.long else "ci", 0
    tables_dir = chosen.out.parent / "tables" if chosen.long else None
    for name, test in suite(size, chosen.seed, scale=chosen.scale, tables_dir=tables_dir).items():
        if chosen.only not in name:
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
            try:
                row = test(Path(folder))
            except Exception as error:  # one failed test must not hide the others
                row = {"failed": f"{type(error).__name__}: {error}"[:300]}
                n_failed += 1
        row = {"test": name, "size": size, **row, "seed": chosen.seed}
        row.setdefault("wall_seconds", round(time.monotonic() - started, 1))
        write_row(chosen.out, row)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    if tables_dir and (tables_dir / "chaos_worker_kills.csv").is_file():
        _draw(tables_dir / "chaos_worker_kills.csv", chosen.out.parent / "figures")
    return 1 if n_failed else 0


def _draw(trace_path: Path, figures_dir: Path) -> None:
    figure, axes = plots.subplots(2, 1, height_inches=5.0, sharex=True)
    chaos.draw_kills(axes, pd.read_csv(trace_path))
    plots.save(figure, "chaos_kills", directory=figures_dir)


if __name__ == "__main__":
    sys.exit(main())
