"""What notebook 07 shows of chaos.json."""

import json
from pathlib import Path

import pandas as pd

from lib import plots
from lib.studies import chaos

CLEAN = {"lost": 0, "duplicated": 0, "out_of_order": 0, "seed": 7}
ROWS = [
    {"test": "worker kills", "size": "long", "kills": 200, "chunks": 6000, **CLEAN, "recovery_p50_seconds": 1.5,
     "recovery_p95_seconds": 3.5, "replayed": 40, "histories": 41, "largest_history_events": 2600,
     "largest_event_bytes": 5000},
    {"test": "soak", "size": "long", "chunks": 40320, **CLEAN, "lost": 3, "audio_hours": 168.0,
     "memory_growth_orchestration": 0.012, "memory_growth_inference": -0.001, "largest_history_events": 2700},
    {"test": "duplicates", "size": "ci", "failed": "SendError: gone", "seed": 7},
    {"test": "disk full", "size": "ci", "times": 1, "held": 1, "outcome": "waits", "chunks": 1, **CLEAN},
    {"test": "disk full", "size": "long", "times": 20, "held": 19, "outcome": "waits", "chunks": 20, **CLEAN},
    {"test": "port taken", "size": "long", "times": 20, "held": 20, "outcome": "exit code 69"},
]  # fmt: skip


def test_tables_say_what_was_done_lost_and_held_and_the_worst_limits(tmp_path: Path) -> None:
    (tmp_path / "chaos.json").write_text(json.dumps(ROWS))
    rows = chaos.read(tmp_path / "chaos.json")
    runs = chaos.runs(rows).set_index(["test", "size"])
    assert len(runs) == 3
    assert runs.loc[("worker kills", "long"), ["done", "recovery p95 (s)"]].tolist() == ["200 kills", 3.5]
    assert runs.loc[("soak", "long"), ["done", "lost"]].tolist() == ["168 h of audio", 3]
    assert runs.loc[("duplicates", "every build"), "done"] == "FAILED: SendError: gone"
    faults = chaos.faults(rows).set_index("test")
    assert list(faults.columns) == ["every build", "long", "outcome"]
    assert faults.loc["disk full", ["every build", "long"]].tolist() == ["1 of 1", "19 of 20"]
    assert pd.isna(faults.loc["port taken", "every build"])
    sentences = chaos.limits(rows)
    assert len(sentences) == 4  # no marker run
    assert "2,700 events" in sentences[0] and "+1.2%" in sentences[2] and sentences[3].endswith("40 of 41")


def test_every_kill_is_drawn() -> None:
    trace = pd.DataFrame(
        {
            "sequence": [0, 1, 2, 3],
            "sent_seconds": [0.0, 1.0, 2.0, 3.0],
            "stored_seconds": [0.2, 1.2, 6.0, 6.5],
            "killed": [None, "inference-2", "orchestration", "inference-1"],
            "killed_seconds": [None, 1.1, 2.1, 3.1],
        }
    )
    figure, axes = plots.subplots(2, 1)
    chaos.draw_kills(axes, trace)
    labels = [line.get_label() for line in axes[0].get_lines()]
    assert labels == ["sent", "stored", "inference killed (2)", "orchestration killed (1)"]
    assert axes[0].get_lines()[2].get_xdata().tolist() == [1.1, 3.1]
    assert axes[1].get_lines()[0].get_ydata().max() == 4.0
    plots.close(figure)
