"""`python -m tests.chaos [--long] [--only TEXT] [--out PATH]`: run the chaos suite, write build/studies/chaos.json.

Rows are written as they come, so that an interrupted run keeps what it has; rows of other tests are kept. The long
suite also writes tables/chaos_worker_kills.csv and chaos_server_kills.csv beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
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


def _run(run: Callable[..., Coroutine[Any, Any, Row]], folder: Path, *, n_workers: int = 1, **given: Any) -> Row:
    with Service(folder, n_workers=n_workers) as service:
        return asyncio.run(run(service, **given))


RUNS: dict[str, Callable[..., Row]] = {
    "worker kills": functools.partial(_run, runs.kills, n_workers=2, names=runs.WORKERS, pace=0.05),
    "server kills": functools.partial(_run, runs.kills, names=("server",), pace=0.3),
    "duplicates": functools.partial(_run, runs.duplicates),
    "marker": marker.plain_text_marker,
    "soak": functools.partial(_run, runs.soak),
}
SIZES: dict[str, dict[str, dict[str, float]]] = {
    "ci": {
        "worker kills": {"n_kills": 10, "n_chunks": 300},
        "server kills": {"n_kills": 4, "n_chunks": 60},
        "duplicates": {"n_sends": 1_000, "sends_per_chunk": 5},
        "marker": {"n_chunks": 20},
        "soak": {"audio_seconds": 7_200.0},
    },
    "long": {
        "worker kills": {"n_kills": 200, "n_chunks": 6_000},
        "server kills": {"n_kills": 50, "n_chunks": 1_000},
        "duplicates": {"n_sends": 20_000, "sends_per_chunk": 10},
        "marker": {"n_chunks": 200},
        "soak": {"audio_seconds": 7 * 86_400.0},
    },
}
FAULTS: dict[str, Callable[..., Any]] = {**faults.IN_A_FOLDER, **faults.ON_A_SERVICE}
N_TIMES = {"ci": 1, "long": 20}


def suite(size: str, seed: int, *, tables_dir: Path | None = None) -> dict[str, Callable[[Path], Row]]:
    """Return the tests of one size by name.

    With `tables_dir`, the two kill tests write there when each chunk was sent and stored, and what was killed when.
    """
    tests = {name: functools.partial(run, seed=seed, **SIZES[size][name]) for name, run in RUNS.items()}
    for killed in ("worker", "server") if tables_dir else ():
        path = tables_dir and tables_dir / f"chaos_{killed}_kills.csv"
        tests[f"{killed} kills"] = functools.partial(tests[f"{killed} kills"], trace_path=path)
    return tests | {name: functools.partial(_fault, fault, N_TIMES[size]) for name, fault in FAULTS.items()}


def _fault(fault: Callable[[Any, int], Any], n_times: int, folder: Path) -> Row:
    if fault in faults.IN_A_FOLDER.values():
        return {"times": n_times, **fault(folder, n_times)}
    with Service(folder) as service:
        return {"times": n_times, **asyncio.run(fault(service, n_times))}


def write_row(path: Path, row: Row) -> None:
    """Put a row into chaos.json in place of the one with the same test and size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    rows = [old for old in rows if (old["test"], old["size"]) != (row["test"], row["size"])]
    path.write_text(json.dumps([*rows, row], indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen tests one after the other; return 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the long sizes, with a week of audio: an hour and a half")
    parser.add_argument("--only", default="", help="only tests whose name holds this")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=config.BUILD_DIR / "studies" / "chaos.json")
    chosen = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):  # stop the service that is under test, too
        signal.signal(number, lambda *_: sys.exit(130))
    size, n_failed = "long" if chosen.long else "ci", 0
    tables_dir = chosen.out.parent / "tables" if chosen.long else None
    for name, test in suite(size, chosen.seed, tables_dir=tables_dir).items():
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
