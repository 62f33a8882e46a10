"""A small report folder with every file that cards, README and index read."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pandas as pd

from lib import config, manifest
from lib.reporting import results

PLACES = {
    "DATA_DIR": "data", "ACQUISITION_PATH": "data/acquisition.json", "BUILD_DIR": "build",
    "STUDIES_DIR": "build/studies", "REPORTS_DIR": "reports",
}  # fmt: skip
RECORD = {"base_weights": "rebuilt YAMNet weights", "data_tier": "mirror", "parameters": {"seed": 7}}
SIZE = {"n_clips": 1234, "n_groups": 56}


def move(patch, root: Path) -> None:
    """Let everything that a build writes lie under a throwaway folder."""
    for name, place in PLACES.items():
        patch.setattr(config, name, root / place)


def write_notebook(path: Path, *sources: str, text: str = "# 01 A title", outputs: list | None = None) -> Path:
    """Write a notebook of a text and code cells, which have these outputs."""
    cells = [nbformat.v4.new_markdown_cell(text)]
    cells += [nbformat.v4.new_code_cell(source, outputs=outputs or []) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def figure(value: float | None, **more: object) -> dict:
    ends = {"low": None, "high": None} if value is None else {"low": value - 0.1, "high": value + 0.05}
    return {"value": value, **ends, **more}


def scores(value: float) -> dict:
    per_class = {label: {kind: figure(value) for kind in ("precision", "recall", "f1")} for label in config.CLASS_NAMES}
    return {**SIZE, "accuracy": figure(value), "macro_f1": figure(value), "per_class": per_class}


METRICS = {
    name: {"validation": scores(0.7), "test": scores(0.6), "test_random_split": scores(0.8)}
    for name in results.MODEL_TITLES
}
INFO = {
    "profile": "quick",
    "commit": "0123456789abcdef",
    "dirty": False,
    "data": {"tier": "mirror", "sources": ["a"], "failures": []},
    "base_weights": {"yamnet": "weights <A>", "wav2vec2": "weights B"},
    "ensemble_rule": "vote",
    "seconds": 90.0,
    "steps": {"03_yamnet": {"seconds": 90.0, "energy_kwh": 0.0123}, "04_wav2vec2": {"seconds": 1, "energy_kwh": None}},
    "energy": {"kwh": 0.0123, "method": "CodeCarbon", "not_measured_because": ""},
    "machine": {"gpu": "none", "n_cores": 2, "memory_gb": 8.0, "system": "Linux x86_64"},
    "python": "3.11.2",
    "versions": {"numpy": "2.4.6"},
}
STUDIES = {
    "cross_corpus": {
        "scores": {"ensemble": scores(0.9), "yamnet": scores(0.85)},
    },
}
EVENTS = {
    "recall_5db": figure(0.9, n_events=210, n_groups=40),
    "false_alarms_per_hour": figure(0.5),
    "event_f1": figure(0.7),
}
PRODUCT = {
    "windows": {
        "leave_one_corpus_out": {
            seconds: {
                "macro_f1": figure(0.9, **SIZE),
                "per_class": {"crying": {"f1": figure(0.8)}},
                "ensemble_macro_f1": figure(0.85, **SIZE),
                "n_with_ensemble": 7,
                "n_labels_changed": 1,
            }
            for seconds in ("5", "10", "15")
        },
        "screams_1s": {"10": {"test": figure(0.9, **SIZE), "left_out": figure(0.8, **SIZE)}},
    },
    "alarms_by_kind": {"cat": {"n_clips": 90, "n_alarms": 8}, "baby_laugh": {"n_clips": 11, "n_alarms": 2}},
    "long_recordings": {"left_out": dict.fromkeys(config.CLASS_NAMES[:2], EVENTS), "what": {"left_out": {"hours": 10}}},
    "files": {"test": {"macro_f1": figure(0.9, **SIZE)}},
    "cry_free": {"speech": {"hours": 2.0, "false_alarms_per_hour": figure(0.0)}},
    "sustained": {"found_whole": figure(0.9, n_events=20)},
    "versions": {"yamnet": "abc", "detector": "d1"},
}


def write(folder: Path, *, product: bool = True, studies: bool = True) -> results.Results:
    """Write the files of a report and read them back."""
    (folder / "tables").mkdir(parents=True)
    files = {"metrics": METRICS, "run_info": INFO, "studies": STUDIES if studies else None}
    files["product"] = PRODUCT if product else None
    for name, content in files.items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    splits = [(label, split, 1000, 4) for label in config.CLASS_NAMES for split in manifest.SPLITS]
    tables = {
        "02_splits": pd.DataFrame(splits, columns=["class", "split", "clips", "groups"]),
        "06_by_source": pd.DataFrame([{"source": "normal / emodb", **figure(None), "value": 1.0, **SIZE}]),
        "06_by_kind": pd.DataFrame([{"kind": "normal / speech_child", **figure(0.5), **SIZE}]),
    }
    for name, table in tables.items():
        table.to_csv(folder / "tables" / f"{name}.csv", index=False)
    return results.read(folder)


def write_models(folder: Path) -> Path:
    """Write what a card reads of models/."""
    for name in config.RELEASED_DIRS.values():
        (folder / name).mkdir(parents=True)
        (folder / name / "training.json").write_text(json.dumps(RECORD), encoding="utf-8")
    (folder / config.RULE_FILE).write_text(json.dumps({"rule": "average"}), encoding="utf-8")
    (folder / "detector").mkdir()
    settings = {"version": "d1", "events": {"on": {"crying": 0.5, "screaming": 0.6}}}
    (folder / "detector" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
