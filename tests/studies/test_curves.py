"""What the threshold chooser moves along."""

import json
from dataclasses import replace

import pytest
from test_detection import frames_of, many_times, scene

from lib.detector import HOP_SECONDS
from lib.events import EVENT_LABELS, EventSettings, frames_to_events
from lib.studies import curves, detection

SETTINGS = {
    "version": "d1",
    "events": {
        "on": {"crying": 0.62, "screaming": 0.7}, "off": {"crying": 0.31, "screaming": 0.42},
        "min_seconds": {"crying": 0.96, "screaming": 0.48}, "merge_seconds": {"crying": 1.92, "screaming": 2.4},
        "bridge_seconds": 15.0, "sustained_seconds": 30.0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def scored():
    """Three soundscapes in which frames are right by 0.65, crying alone by 0.9, and wrong by 0.8 at 0 s."""
    made = []
    for seed, background in enumerate(("quiet", "speech", "speech")):
        frames = frames_of(many_times(seed)) * [0.9, 0.65]
        frames[:4] = 0.8
        scape = scene(many_times(seed), frames, name=str(seed), background=background)
        heard = [replace(item, snr_db=(-5.0, 5.0, 20.0)[place % 3]) for place, item in enumerate(scape.references)]
        made.append(replace(scape, references=tuple(heard)))
    return made


@pytest.fixture(scope="module")
def written(scored, tmp_path_factory):
    path = tmp_path_factory.mktemp("curves") / "curves.json"
    curves.write(path, {"test": scored}, SETTINGS)
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("label", EVENT_LABELS)
def test_the_counts_of_the_shipped_settings_are_those_of_the_tracker(written, scored, label):
    settings = EventSettings(**SETTINGS["events"])
    now = [
        replace(scape, events=tuple(frames_to_events(scape.frames, settings, hop_seconds=HOP_SECONDS)))
        for scape in scored
    ]
    table = detection.references(now)
    mine, alarms = table[table["label"] == label], detection.alarm_counts(now, label)
    (shipped,) = [row for row in curves.by_threshold(written, "test", label) if row["is_shipped"]]
    assert shipped["recall"] == pytest.approx(mine["is_found"].mean())
    assert shipped["recall_5db"] == pytest.approx(mine["is_found"][mine["snr_db"] >= 5].mean())
    assert shipped["false_alarms_per_hour"] == pytest.approx(alarms[:, 0].sum() / alarms[:, 1].sum())
    assert shipped["misses_per_hour"] == pytest.approx((~mine["is_found"]).sum() / alarms[:, 1].sum())
    assert shipped["recall"] == (1 if label == "crying" else 0)  # screams reach 0.65 and the threshold is 0.7


def test_the_grid_holds_the_shipped_values_and_every_count_fits(written):
    assert 0.62 in written["grids"]["crying"]["on"] and 2.4 in written["grids"]["screaming"]["merge_seconds"]
    assert written["settings"] == SETTINGS
    found = written["sets"]["test"]
    assert sum(found["hours"].values()) == pytest.approx(3 * 1250 * HOP_SECONDS / 3600)
    for label in EVENT_LABELS:
        counted, values = found["labels"][label], written["grids"][label]
        n_tries = len(values["on"]) * len(values["min_seconds"]) * len(values["merge_seconds"])
        assert len(counted["tries"]) == n_tries and counted["n_by_background"] == [7, 14]
        for tried in counted["tries"]:
            assert sum(tried[:3]) == sum(tried[3:5]) <= 21
