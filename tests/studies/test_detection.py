"""Events in long recordings, scored as the published tools score them; how settings are chosen; what is written."""

import numpy as np
import pytest

from lib import plots
from lib.detector import HOP_SECONDS
from lib.events import EVENT_LABELS, Event, EventSettings, frames_to_events
from lib.studies import detection, long_recordings, operating_point, result
from lib.studies.detection import Scored
from lib.studies.soundscapes import Reference

PLAIN = EventSettings.create(on=0.5, off=0.5, min_seconds=0.48, merge_seconds=0.96)
# Pairs and event F1 of `random_case(seed)` by sed_eval 0.2.1, with the settings `RANDOM_CASE`: crying, screaming.
RANDOM_CASE = EventSettings.create(
    on={"crying": 0.5, "screaming": 0.4}, off=0.3, min_seconds=0.48, merge_seconds=0.96
)  # fmt: skip
PUBLISHED = {
    0: {"pairs": [8, 11], "event_f1": [0.533333333, 0.628571429]},
    1: {"pairs": [4, 9], "event_f1": [0.333333333, 0.620689655]},
    2: {"pairs": [4, 4], "event_f1": [0.296296296, 0.285714286]},
    3: {"pairs": [5, 10], "event_f1": [0.454545455, 0.588235294]},
}


def scored_of(name, references, frames, settings=PLAIN, *, background="quiet", clips=("a", "b")):
    events = tuple(frames_to_events(frames, settings, hop_seconds=HOP_SECONDS))
    return Scored(name, background, len(frames) * HOP_SECONDS, tuple(references), clips, (), None, frames, events)


def scene(times, frames, *, name="s", background="quiet"):
    references = [
        Reference(Event(a, b, label), snr_db, f"{label}_{a % 7:.0f}", (f"clip_{a:.0f}",))
        for (a, b, label), snr_db in zip(times, np.resize([0.0, 10.0], len(times)), strict=True)
    ]
    return scored_of(name, references, frames, background=background)


def frames_of(times, n_frames=1250, *, shift=0.0):
    """Return perfect probabilities: 1 in each frame that is in an event by half."""
    centres = (np.arange(n_frames) + 0.5) * HOP_SECONDS - shift
    rows = np.zeros((n_frames, 2))
    for a, b, label in times:
        rows[(centres >= a) & (centres < b), EVENT_LABELS.index(label)] = 1
    return rows


def many_times(seed):
    rng = np.random.default_rng(seed)
    starts = np.arange(20, 560, 40) + rng.uniform(0, 10, 14)
    labels = ["crying", "screaming"] * 7
    return [(float(a), float(a + rng.uniform(1.5, 8)), label) for a, label in zip(starts, labels, strict=True)]


def scenes(make_frames, n_scenes=8):
    cases = [many_times(seed) for seed in range(n_scenes)]
    return [
        scene(times, make_frames(times), name=f"s{n}", background=("quiet", "speech")[n % 2])
        for n, times in enumerate(cases)
    ]


def f1_of(scored):
    return [detection.event_f1(detection.event_counts(scored, label).sum(axis=0)) for label in EVENT_LABELS]


def test_perfect_frames_score_one_at_once_without_a_false_alarm():
    """Every second event is at 10 dB, the others at 0: what is loud enough counts alone."""
    scored = scenes(frames_of)
    found = detection.headline(scored)
    for label, n_clear in zip(EVENT_LABELS, (0, 56), strict=True):
        assert found[label]["event_f1"]["value"] == found[label]["recall"]["value"] == 1
        assert (found[label]["recall"]["n_events"], found[label]["recall_5db"]["n_events"]) == (56, n_clear)
        assert found[label]["false_alarms_per_hour"]["value"] == 0
        assert detection.delay_figures(scored)[label]["p95"] <= HOP_SECONDS * 1.5  # frames in an event by half count


def test_an_event_without_end_raises_an_alarm_each_15_seconds():
    found = detection.headline(scenes(lambda times: np.tile([1.0, 0.0], (1250, 1))))
    assert found["crying"]["recall"]["value"] == 1
    assert found["crying"]["false_alarms_per_hour"]["value"] > 150  # of 240 stretches of 15 s an hour
    assert found["crying"]["event_f1"]["value"] == 0


def test_what_comes_ten_seconds_late_has_the_other_label_or_is_not_found_scores_nothing():
    late = scenes(lambda times: frames_of(times, shift=10.0), n_scenes=4)
    assert f1_of(late) == f1_of(scenes(lambda times: frames_of(times)[:, ::-1], n_scenes=4)) == [0, 0]
    for label in EVENT_LABELS:
        assert detection.alarm_counts(late, label)[:, 0].sum() == detection.event_counts(late, label)[:, 1].sum()
    nothing = detection.headline(scenes(lambda times: frames_of([])))["crying"]
    figures = ("event_f1", "recall", "false_alarms_per_hour")
    assert [nothing[name]["value"] for name in figures] == [0, 0, 0]


def test_collars_are_a_second_at_the_onset_and_half_the_length_at_the_offset():
    reference = [Event(100, 110, "crying")]
    assert detection.n_pairs(reference, [Event(101, 105, "crying")]) == 1
    assert detection.n_pairs(reference, [Event(101.1, 110, "crying")]) == 0
    assert detection.n_pairs(reference, [Event(100, 104.9, "crying")]) == 0
    assert detection.n_pairs(reference, [Event(100, 110, "crying")] * 3) == 1
    pair = [Event(100, 103, "crying"), Event(101.5, 104, "crying")]
    assert detection.n_pairs(pair, [Event(100.8, 103.5, "crying"), Event(99.5, 102.5, "crying")]) == 2


def random_case(seed, *, n_scapes=3, n_frames=400):
    """Return soundscapes with blurred and wrong frames; two decimals, so that every threshold is one of 101."""
    rng, made = np.random.default_rng(seed), []
    for number in range(n_scapes):
        rows = rng.dirichlet([0.3, 0.3, 2], n_frames)
        rows, references, time = (rows + np.roll(rows, 1, 0) + np.roll(rows, 2, 0)) / 3, [], 5.0
        while True:
            time += rng.uniform(2, 25)
            length, label = rng.uniform(0.5, 8), EVENT_LABELS[rng.integers(2)]
            if time + length > n_frames * HOP_SECONDS - 2:
                break
            references.append(Reference(Event(round(time, 2), round(time + length, 2), label), 0.0, "g", ("c",)))
            span = slice(int(time / HOP_SECONDS), int((time + length) / HOP_SECONDS) + 1)
            if rng.random() < 0.7:
                said = EVENT_LABELS.index(label) if rng.random() < 0.85 else 1 - EVENT_LABELS.index(label)
                rows[span] = 0.3 * rows[span] + 0.7 * np.eye(3)[said] * rng.uniform(0.5, 1)
            time += length
        made.append(scored_of(f"s{number}", references, np.round(rows, 2)[:, :2], RANDOM_CASE))
    return made


@pytest.mark.parametrize("seed", PUBLISHED)
def test_event_f1_equals_that_of_the_published_tool(seed):
    counts = [detection.event_counts(random_case(seed), label).sum(axis=0) for label in EVENT_LABELS]
    assert [pairs for pairs, *_ in counts] == PUBLISHED[seed]["pairs"]
    assert [detection.event_f1(part) for part in counts] == pytest.approx(PUBLISHED[seed]["event_f1"])


def test_the_settings_chosen_are_between_noise_and_events():
    """Noise reaches 0.55, events 0.85, and so it is in clips: settings from 0.6 to 0.85 are perfect."""
    rng = np.random.default_rng(1)
    scored = scenes(lambda times: np.maximum(frames_of(times) * 0.85, rng.uniform(0, 0.55, (1250, 2))), n_scenes=1)
    clips = [np.tile(row, (6, 1)) for row in ([0.85, 0.1], [0.2, 0.85], [0.55, 0.5])]
    labels, long = ["crying", "screaming", "normal"], (50.0, 90.0, "crying")
    lasting = [scene([long], frames_of([long]) * 0.85, name="lasting")]
    left_out = operating_point.LeftOut(scored, lasting, clips, labels, {"crying": clips[:1], "screaming": clips[1:2]})
    chosen, tries = operating_point.choose(left_out)
    assert all(0.55 < chosen.on[label] <= 0.85 for label in EVENT_LABELS)
    assert f1_of(detection.at(scored, chosen)) == [1, 1]
    assert tries["score"].max() == 1
    assert tries.loc[tries["on"] < 0.4, "score"].max() < 0.9
    of_crying = tries[tries["label"] == "crying"].sort_values("score")
    perfect, bad = of_crying[of_crying["score"] == 1].iloc[0], of_crying.iloc[0]
    for row, is_kept in ((perfect, True), (bad, False)):
        released = EventSettings.create(**{name: float(row[name]) for name in operating_point.NAMES})
        again = operating_point.choose(left_out, released)[0]
        assert all(getattr(again, name)["crying"] == row[name] for name in operating_point.NAMES) == is_kept


@pytest.mark.parametrize("seed", range(6))
def test_events_of_one_label_are_those_of_the_tracker(seed):
    rng = np.random.default_rng(seed)
    frames = np.convolve(rng.random(500) ** 3, np.ones(3) / 2, "same").clip(0, 1).round(3)
    given = {
        "on": rng.uniform(0.3, 0.8),
        "min_seconds": rng.choice([0.48, 0.96]),
        "merge_seconds": rng.choice([0.48, 1.92]),
    }
    given["off"] = given["on"] * rng.uniform(0.3, 1)
    both = np.stack([np.zeros(500), frames], axis=1)
    tracked = frames_to_events(both, EventSettings.create(**given), hop_seconds=HOP_SECONDS)
    found = operating_point.events_of(frames, "screaming", **given)
    assert found == tracked
    assert len(found) > 5


def test_recall_by_ratio_and_background_counts_what_was_found():
    """Only what is at 10 dB is found."""
    scored = scenes(lambda times: frames_of(times[1::2]))
    table = detection.recall_table(scored, by="snr_db")
    assert table.groupby("snr_db")["value"].mean().to_dict() == {0.0: 0.0, 10.0: 1.0}
    assert table["n_events"].sum() == 8 * 14
    assert set(detection.recall_table(scored, by="background")["background"]) == {"quiet", "speech"}
    alarms = detection.alarm_table(scored)
    assert alarms["hours"].sum() == pytest.approx(2 * 8 * 600 / 3600)
    assert alarms["n_alarms"].sum() == 0


def test_a_long_cry_is_found_whole_or_not():
    long, short = (50.0, 90.0, "crying"), (200.0, 205.0, "crying")
    whole = scene([long, short], frames_of([long, short]), name="whole")
    half = scene([long], frames_of([(50.0, 75.0, "crying"), (300.0, 340.0, "crying")]), name="half")
    figures = detection.sustained_figures([whole, half], PLAIN)
    assert (figures["found_whole"]["value"], figures["found_whole"]["n_events"]) == (0.5, 2)


def test_tables_can_be_written_and_drawn(tmp_path):
    scored = scenes(frames_of)
    tables = {
        "detector_curve_test": detection.curve(scored, PLAIN),
        "detector_recall_by_snr_db_test": detection.recall_table(scored, by="snr_db"),
        "detector_recall_by_background_test": detection.recall_table(scored, by="background"),
        "detector_timeline": detection.example(scored),
    }
    found = result.Result(detection.headline(scored) | {"what": detection.description(scored)}, tables)
    result.write("product", found, tmp_path)
    drawn = long_recordings.draw(result.read_tables(tmp_path))
    assert len(drawn) == 3
    for figure in drawn.values():
        assert all(ax.has_data() and ax.get_xlabel() for ax in figure.axes)
        plots.close(figure)
