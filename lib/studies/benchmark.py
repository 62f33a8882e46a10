"""How fast the product is beside a plain way of doing the same: `./run_all.sh benchmark`.

Each row measures baseline and product in this run, on this machine, and says what goal it had. The frameworks' path has
the same weights (`framework_path`); the naive worker is `naive_worker`. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from lib import config

LOG = logging.getLogger("lib.studies.benchmark")
PRODUCT, FRAMEWORKS = "lib.inference", "lib.studies.framework_path"
TO_EVENTS = ("lib.reporting.timeline", "--no-page", "--export")  # needs the detector alone
RATE_HZ = config.SAMPLE_RATE_HZ
FILE_NAME = "benchmark.json"
MEGABYTE = 1e6
SOUND_LEVEL = 0.05
STREAMS, SILENT_STREAMS = (60, 120), (150, 300)  # numbers that are tried
N_CHUNKS = 10_000  # of one long stream
HOURS = 1.0  # of the recording that stands for 24


@dataclass(frozen=True)
class Row:
    """One figure: medians of baseline and product, the goals, and how often each was measured.

    `least_ratio` is how many times better than the baseline the product should be, `limit` what it should reach by
    itself; at least one is given. `higher` means that more is better. `spread`: lowest and highest of the product.
    """

    figure: str
    unit: str
    baseline: float | None
    ours: float
    least_ratio: float | None = None
    limit: float | None = None
    higher: bool = False
    n_runs: int = 1
    spread: Sequence[float] = ()
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better the product is."""
        if not self.baseline:
            return None
        return self.ours / self.baseline if self.higher else self.baseline / self.ours

    @property
    def met(self) -> bool:
        """Whether every goal is reached."""
        reached = self.limit is None or (self.ours >= self.limit if self.higher else self.ours <= self.limit)
        return reached and (self.least_ratio is None or (self.ratio or 0) >= self.least_ratio)

    def record(self) -> dict[str, Any]:
        """Return what benchmark.json holds."""
        sign = ">=" if self.higher else "<="
        goals = [f">= {self.least_ratio:g}x"] if self.least_ratio else []
        goals += [f"{sign} {self.limit:g} {self.unit}"] if self.limit is not None else []
        found = {key: value for key, value in asdict(self).items() if key not in ("least_ratio", "limit", "higher")}
        return found | {"ratio": self.ratio, "goal": "; ".join(goals), "met": self.met}


@dataclass(frozen=True)
class Sizes:
    """How long and how often to measure."""

    n_runs: int = 5
    minutes: float = 10.0  # of streams in real time
    folder: Path = field(default_factory=Path)


def sound(seconds: float, *, silence: float = 0.0, seed: int = 7) -> np.ndarray:
    """Return noise (n_samples,) with a share of digital silence, ten seconds of sound at a time."""
    rng, block = np.random.default_rng(seed), 10 * RATE_HZ
    waveform = (SOUND_LEVEL * rng.standard_normal(round(seconds * RATE_HZ)).clip(-4, 4)).astype(np.float32)
    for start in range(0, len(waveform), block):
        if start // block % 10 < round(10 * silence):
            waveform[start : start + block] = 0
    return waveform


def _write(folder: Path, name: str, waveform: np.ndarray) -> Path:
    path = folder / name
    soundfile.write(path, waveform, RATE_HZ)
    return path


def run_process(*arguments: object) -> tuple[str, float]:
    """Run a module as a process; return its output and its seconds."""
    before, command = time.monotonic(), [sys.executable, "-m", *map(str, arguments)]
    output = subprocess.check_output(command, cwd=config.PROJECT_DIR, stderr=subprocess.DEVNULL, text=True)
    return output, time.monotonic() - before


def measure_inside(module: str, n_runs: int) -> dict[str, Any]:
    """Return the seconds of warm 10 s chunks (both networks and the detector), and this process's peak memory."""
    classifier = load_classifier(module)
    stream, seconds = sound(10 * (n_runs + 3) + 5), []
    for first in range(0, len(stream) - 5 * RATE_HZ, 10 * RATE_HZ):  # each with the 5 s before it, as in the service
        chunk = stream[first : first + 15 * RATE_HZ]
        started = time.monotonic()
        classifier.detector.frames(chunk, first_sample=first, is_last=True)
        classifier.predict_by_ensemble(chunk[5 * RATE_HZ :])  # in the service: where the frames leave room for an event
        seconds.append(time.monotonic() - started)
    return {"seconds": seconds[3:], "memory_mb": _peak_megabytes()}


def _peak_megabytes() -> float:
    """Return this process's own peak memory: getrusage also knows that of the process that started it."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(kilobytes) * 1024 / MEGABYTE


def load_classifier(module: str) -> Any:
    """Load the product's classifier, or the frameworks' one."""
    if module == FRAMEWORKS:
        from lib.studies import framework_path

        return framework_path.load()
    from lib.inference import Classifier

    return Classifier.load()


def _medians(baseline: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    spread = [float(np.min(ours)), float(np.max(ours))]
    return {"baseline": float(np.median(baseline)), "ours": float(np.median(ours)), "spread": spread}


def start_to_first_answer(sizes: Sizes) -> Iterator[Row]:
    """Time whole processes that classify one clip, files cached."""
    path = _write(sizes.folder, "clip.wav", sound(10))
    run_process(PRODUCT, path), run_process(FRAMEWORKS, path)  # read the files once
    runs = [(run_process(FRAMEWORKS, path)[1], run_process(PRODUCT, path)[1]) for _ in range(sizes.n_runs)]
    figure = "Start to first answer, one file, whole process"
    yield Row(figure, "s", **_medians(*zip(*runs, strict=True)), least_ratio=5, limit=2.5, n_runs=sizes.n_runs)


def warm_chunks(sizes: Sizes) -> Iterator[Row]:
    """Time warm chunks in one process each, and its peak memory."""
    n_runs = 10 * sizes.n_runs
    inside = (run_process("lib.studies.benchmark", "--inside", module, n_runs)[0] for module in (FRAMEWORKS, PRODUCT))
    slow, fast = map(json.loads, inside)
    memory = _medians([slow["memory_mb"]], [fast["memory_mb"]])
    yield Row("Peak memory of a process that classifies", "MB", **memory, limit=450)
    figure = "One 10 s chunk, warm, both networks and detector"
    yield Row(figure, "s", **_medians(slow["seconds"], fast["seconds"]), least_ratio=2, n_runs=n_runs)


def chunks_in_temporal(sizes: Sizes) -> Iterator[Row]:
    """Time chunks of 5 s from sending to the stored result, one stream, and weigh their history."""
    n_chunks, n_naive = 20 * sizes.n_runs, max(sizes.n_runs, 2)
    naive = json.loads(run_process("lib.studies.naive_worker", n_naive, 5)[0].splitlines()[-1])
    load = _load("--chunks", n_chunks, "--chunk-seconds", 5, "--pace", 0.5)
    for name, least in (("p50", 20), ("p95", 10)):
        slow = float(np.percentile(naive["seconds"], int(name[1:])))
        figure, ours = f"Per chunk of 5 s inside Temporal, {name}", load[f"{name}_seconds"]
        yield Row(figure, "s", slow, ours, least_ratio=least, n_runs=n_chunks, note=f"naive: {n_naive} runs")
    size = load["history_bytes_per_chunk"]
    yield Row("History per chunk", "bytes", float(np.median(naive["history_bytes"])), size, limit=3000)


def _load(*arguments: object) -> dict[str, Any]:
    return json.loads(run_process("temporal_workflow.load", *arguments)[0].splitlines()[-1])


def streams_held(sizes: Sizes) -> Iterator[Row]:
    """Find how many streams of 10 s chunks are held in real time: every chunk classified, lag short and not growing."""
    for silence, counts, goal in ((0.0, STREAMS, 120), (0.9, SILENT_STREAMS, 300)):
        held, lag = 0, 0.0
        for n_streams in counts:
            n_chunks = max(2, round(sizes.minutes * 6))
            load = _load("--streams", n_streams, "--chunks", n_chunks, "--silence", silence)
            first, last = (float(np.median(load["p50_by_tenth"][part])) for part in (slice(1, 4), slice(-3, None)))
            LOG.info("%d streams: %s", n_streams, load)
            if load["n_classified"] < n_streams * n_chunks or last > max(1.5 * first, first + 0.5):
                break
            held, lag = n_streams, load["p95_seconds"]
        sounds = "with 90 % silence" if silence else "of sound"
        note = f"p95 from sending to stored {lag:.2f} s; the senders ran on the same cores"
        figure = f"Streams of 10 s chunks held in real time, {sounds}, {sizes.minutes:g} minutes"
        yield Row(figure, "streams", None, held, limit=goal, higher=True, note=note)


def flat_cost(_: Sizes) -> Iterator[Row]:
    """Compare the cost per chunk late in a long stream with that early in it; a stand-in classifies."""
    load = _load("--chunks", N_CHUNKS, "--chunk-seconds", 5, "--pace", 0, "--stand-in")
    tenths = load["chunk_seconds_by_tenth"]
    figure = f"Cost per chunk, last tenth of {N_CHUNKS:,} chunks of one stream to second tenth"
    note = f"{1000 * tenths[1]:.1f} ms early; a stand-in classifies"
    yield Row(figure, "times", None, tenths[-1] / tenths[1], limit=1.1, note=note)


def whole_day(sizes: Sizes) -> Iterator[Row]:
    """Time one recording to events with one command, scaled to 24 hours."""
    for silence, limit in ((0.0, 8.0), (0.9, 2.0)):
        short = _write(sizes.folder, "short.wav", sound(600 * HOURS, silence=silence))
        path = _write(sizes.folder, "hours.wav", sound(3600 * HOURS, silence=silence))
        slow = run_process(FRAMEWORKS, short)[1] * 6
        ours = run_process(*TO_EVENTS, sizes.folder / "tables", path)[1]
        to_minutes = 24 / 60 / HOURS
        figure = f"A recording of 24 hours to events, {'90 % silence' if silence else 'all sound'}"
        note = f"{TO_EVENTS[0]}, scaled from {HOURS:g} h (baseline: lib.inference's work, a sixth of that)"
        yield Row(figure, "minutes", slow * to_minutes, ours * to_minutes, least_ratio=3, limit=limit, note=note)


def cached_sweep(sizes: Sizes) -> Iterator[Row]:
    """Time a sweep over heads, folds and thresholds from cached features, and with features computed each time."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    classifier, rng = load_classifier(PRODUCT), np.random.default_rng(7)
    windows = [sound(10, seed=seed) for seed in range(4 * sizes.n_runs)]
    started = time.monotonic()
    for window in windows:
        classifier.predict_by_ensemble(window)
    per_window, n_rows, strengths = (time.monotonic() - started) / len(windows), 2_000, np.logspace(-3, 0, 4)
    features, labels = rng.standard_normal((n_rows, 256)).astype(np.float32), rng.integers(0, 3, n_rows)
    started = time.monotonic()
    for strength in strengths:
        scores = cross_val_predict(LogisticRegression(C=strength), features, labels, cv=5, method="predict_proba")
        for threshold in np.linspace(0.01, 0.99, 99):
            np.mean((scores > threshold).argmax(axis=1) == labels)
    seconds = time.monotonic() - started
    note = f"{n_rows:,} random rows, {5 * len(strengths)} fits; {len(windows)} windows timed, the rest scaled"
    again = seconds + 5 * len(strengths) * n_rows * per_window
    yield Row("Sweep of heads, folds and thresholds", "s", again, seconds, least_ratio=100, note=note)


def installed_size(sizes: Sizes) -> Iterator[Row]:
    """Weigh what a worker installs beside the environment of training."""
    here = sum(_size(Path(path)) for path in {p for p in sys.path if p.endswith("site-packages")})
    place, requirements = sizes.folder / "serve", config.PROJECT_DIR / "requirements-serve.txt"
    install = ["pip", "--python", place, "install", "-q", "--no-compile", "-r", requirements]
    for command in (["venv", "--without-pip", place], install):
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True)
    ours = sum(_size(path) for path in place.glob("lib/*/site-packages"))
    yield Row("Size of what a worker installs", "MB", here, ours, least_ratio=8)


def _size(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / MEGABYTE


FIGURES: dict[str, Callable[[Sizes], Iterator[Row]]] = {
    "start": start_to_first_answer,
    "chunks": warm_chunks,
    "temporal": chunks_in_temporal,
    "streams": streams_held,
    "day": whole_day,
    "sweep": cached_sweep,
    "flat": flat_cost,
    "size": installed_size,
}


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows into benchmark.json; rows of other figures stay."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    new = [row.record() for row in rows]
    names = {row["figure"] for row in new}
    text = json.dumps([*(row for row in old if row["figure"] not in names), *new], indent=2) + "\n"
    config.write_whole(path, text.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the figures asked for, and write each as soon as it is known."""
    parser = argparse.ArgumentParser(prog="./run_all.sh benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=FIGURES, nargs="+", default=list(FIGURES), help="default: all")
    parser.add_argument("--runs", type=int, default=Sizes.n_runs, help="repetitions (default 5)")
    parser.add_argument("--minutes", type=float, default=Sizes.minutes, help="of streams in real time (default 10)")
    parser.add_argument("--out", type=Path, default=config.STUDIES_DIR / FILE_NAME)
    parser.add_argument("--inside", nargs=2, metavar=("MODULE", "N"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.inside:
        sys.stdout.write(json.dumps(measure_inside(chosen.inside[0], int(chosen.inside[1]))) + "\n")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        sizes = Sizes(chosen.runs, chosen.minutes, Path(folder))
        for name in chosen.only:
            for row in FIGURES[name](sizes):
                write(chosen.out, [row])
                LOG.info("%s", json.dumps(row.record()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
