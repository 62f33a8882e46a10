"""Events in long recordings: the same however the stream is cut, and scored as the published tools score them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import config
from lib.config import SAMPLE_RATE_HZ
from lib.events import EVENT_LABELS, Event
from lib.studies import detection, long_recordings, stream
from lib.studies.soundscapes import Reference
from lib.studies.stream import HOP_SECONDS, DetectionSettings, FrameStream, ScoredSoundscape, Scorer, StreamDetector

PLAIN = DetectionSettings({"crying": 0.5, "screaming": 0.5}, {"crying": 0.5, "screaming": 0.5}, 0.48, 0.96)
LOOSE = DetectionSettings({"crying": 0.6, "screaming": 0.5}, {"crying": 0.3, "screaming": 0.4}, 0.96, 1.92)
# Pairs and event F1 of `random_case(seed)` by sed_eval 0.2.1, with the settings `RANDOM_CASE`: crying, screaming.
RANDOM_CASE = DetectionSettings({"crying": 0.5, "screaming": 0.4}, {"crying": 0.3, "screaming": 0.3}, 0.48, 0.96)
PUBLISHED = {
    0: {
        "pairs": [8, 11],
        "event_f1": [0.533333333, 0.628571429],
    },
    1: {
        "pairs": [4, 9],
        "event_f1": [0.333333333, 0.620689655],
    },
    2: {
        "pairs": [4, 4],
        "event_f1": [0.296296296, 0.285714286],
    },
    3: {
        "pairs": [5, 10],
        "event_f1": [0.454545455, 0.588235294],
    },
}


def score_by_level(patches):
    """Tell a cry by its level and a scream by its zero crossings: a row depends on its own patch alone."""
    cry = np.clip(np.abs(patches).mean(axis=1) * 4, 0, 1)
    scream = (np.diff(np.signbit(patches), axis=1).mean(axis=1) * 2).clip(0, 1) * (1 - cry)
    return np.stack([cry, scream, 1 - cry - scream], axis=1)


def loudest_around(around):
    """Answer for a frame as if its sound were the loudest of the patches around it, a scorer with context."""
    return np.stack([rows[rows[:, config.CLASS_ID["normal"]].argmin()] for rows in around])


BY_PATCH = stream.mean_of_patches(score_by_level)
WITH_CONTEXT = Scorer(score_by_level, loudest_around, context=3)


def noise_stream(seed, seconds):
    """Return noise whose level and colour wander: events of both labels come and go."""
    rng = np.random.default_rng(seed)
    n_samples = round(seconds * SAMPLE_RATE_HZ)
    level = np.repeat(rng.random(n_samples // 6000 + 1) ** 3, 6000)[:n_samples]
    return (level * rng.choice([-0.4, 0.4], n_samples)).astype(np.float32)


def patches_of(waveform):
    """Cut a whole recording as the module says: patches each 0.48 s, and one more that ends with it."""
    if len(waveform) < stream.PATCH_SAMPLES:
        return np.resize(waveform, (1, stream.PATCH_SAMPLES))
    starts = list(range(0, len(waveform) - stream.PATCH_SAMPLES + 1, stream.PATCH_HOP_SAMPLES))
    if starts[-1] + stream.PATCH_SAMPLES < len(waveform):
        starts.append(len(waveform) - stream.PATCH_SAMPLES)
    return np.stack([waveform[start : start + stream.PATCH_SAMPLES] for start in starts])


def pieces(samples, first, length):
    cuts = [0, *range(first, len(samples), length), len(samples)]
    return [samples[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def run(samples, parts, scorer=None):
    detector = StreamDetector(scorer or BY_PATCH, LOOSE)
    events = [event for part in parts for event in detector.push(part)]
    return sorted(events + detector.finish())


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    seconds=st.floats(0.1, 45),
    chunk_seconds=st.sampled_from([5, 10, 15]),
    phase=st.floats(0, 1),
    scorer=st.sampled_from([BY_PATCH, WITH_CONTEXT]),
)
def test_chunks_of_5_10_and_15_s_at_any_phase_give_the_same_events(seed, seconds, chunk_seconds, phase, scorer):
    samples = noise_stream(seed, seconds)
    length = chunk_seconds * SAMPLE_RATE_HZ
    cut = run(samples, pieces(samples, round(phase * length), length), scorer)
    assert cut == run(samples, [samples], scorer)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), seconds=st.floats(0.1, 20), cuts=st.lists(st.floats(0, 1), max_size=30))
def test_any_cutting_gives_the_frames_of_the_whole(seed, seconds, cuts):
    samples = noise_stream(seed, seconds)
    parts = np.split(samples, sorted(round(cut * len(samples)) for cut in cuts))
    rows = score_by_level(patches_of(samples))
    reach = WITH_CONTEXT.context + 1
    around = [rows[max(0, frame - reach) : frame + reach] for frame in range(len(rows) + 1)]
    wanted = {BY_PATCH: (np.r_[rows[:1], rows] + np.r_[rows, rows[-1:]]) / 2, WITH_CONTEXT: loudest_around(around)}
    for scorer, expected in wanted.items():
        cut = FrameStream(scorer)
        found = np.concatenate([*(cut.push(part) for part in parts), cut.finish()])
        assert len(found) == len(rows) + 1
        np.testing.assert_array_equal(found, expected)


def test_a_frame_is_known_when_its_context_has_been_heard():
    samples = noise_stream(3, 20.0)
    for scorer in (BY_PATCH, WITH_CONTEXT):
        heard = FrameStream(scorer)
        n_known = len(heard.push(samples))
        assert 20.0 - n_known * HOP_SECONDS == pytest.approx(scorer.look_ahead_seconds, abs=HOP_SECONDS)


def test_the_streams_above_hold_events_of_both_labels():
    events = run(None, [noise_stream(7, 60.0)])
    assert {event.label for event in events} == set(EVENT_LABELS)
    assert len(events) > 5


def test_the_grid_is_yamnets():
    from lib import yamnet

    assert (stream.PATCH_SAMPLES, stream.PATCH_HOP_SAMPLES) == (yamnet.PATCH_SAMPLES, yamnet.PATCH_HOP_SAMPLES)
    for n_samples in (9000, 15_600, 15_601, 60_000):
        samples = noise_stream(1, n_samples / SAMPLE_RATE_HZ)
        np.testing.assert_array_equal(patches_of(samples), yamnet.cut_patches(samples))


def test_a_frame_lies_where_its_sound_is():
    """A burst of 2 s is found within a frame of its place: patches are not ahead of their frames."""
    samples = np.full(20 * SAMPLE_RATE_HZ, 1e-4, dtype=np.float32)
    samples[8 * SAMPLE_RATE_HZ : 10 * SAMPLE_RATE_HZ] = 0.25
    (event,) = run(samples, [samples])
    assert event.onset_seconds == pytest.approx(8, abs=HOP_SECONDS)
    assert event.offset_seconds == pytest.approx(10, abs=HOP_SECONDS)


def test_a_level_may_be_taken_out_patch_by_patch():
    """A cry 40 dB down is heard as loudly, and the cutting still changes nothing."""
    seen = []

    def score(patches):
        seen.append(np.sqrt(np.square(patches).mean(axis=1)))
        return score_by_level(patches)

    samples = noise_stream(7, 30.0)
    scorer = stream.at_one_level(stream.mean_of_patches(score))
    whole = stream.frames(samples, scorer)
    faint = stream.frames(samples * np.float32(0.1), scorer, chunk_seconds=7.3)
    np.testing.assert_allclose(whole, faint, atol=1e-3)
    assert np.ptp(np.concatenate(seen)) < 0.05


def test_an_empty_stream_has_no_events_and_bad_scores_are_refused():
    assert StreamDetector(BY_PATCH, PLAIN).finish() == []
    broken = stream.mean_of_patches(lambda patches: np.full((len(patches), 3), np.nan))
    with pytest.raises(ValueError, match="NaN"):
        StreamDetector(broken, PLAIN).push(np.zeros(16_000))


def test_sustained_crying_is_the_services():
    from temporal_workflow.shared import StreamSettings

    assert StreamSettings().sustained_seconds == detection.SUSTAINED_SECONDS
    events = [Event(0, 29.9, "crying"), Event(40, 70, "crying"), Event(80, 120, "screaming")]
    assert detection.sustained(events) == events[1:2]


def scene(times, probabilities, *, name="s", n_frames=1250, background="quiet"):
    references = tuple(
        Reference(Event(a, b, label), snr_db, f"{label}_{a % 7:.0f}", (f"clip_{a:.0f}",))
        for (a, b, label), snr_db in zip(times, np.resize([0.0, 10.0], len(times)), strict=True)
    )
    return ScoredSoundscape(name, background, n_frames * HOP_SECONDS, references, probabilities)


def frames_of(times, n_frames=1250, *, shift=0.0):
    """Return perfect probabilities: 1 in each frame that lies in an event by half."""
    centres = (np.arange(n_frames) + 0.5) * HOP_SECONDS - shift
    rows = np.tile([0.0, 0.0, 1.0], (n_frames, 1))
    for a, b, label in times:
        rows[(centres >= a) & (centres < b)] = np.eye(3)[config.CLASS_ID[label]]
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


def find(scored, wanted=PLAIN):
    return [wanted.events(scape.probabilities) for scape in scored]


def test_perfect_probabilities_score_one_at_once_without_a_false_alarm():
    result = detection.findings(scenes(frames_of), PLAIN, n_bootstrap=50).figures
    one = {"value": 1.0, "low": 1.0, "high": 1.0}
    for label in EVENT_LABELS:
        assert result["event_f1"][label] == one | {"n_found": 56}
        assert result["recall"][label] == one
        assert result["false_alarms_per_hour"][label] == {"value": 0.0, "low": 0.0, "high": 0.0}
        assert result["delay_seconds"][label]["p95"] <= HOP_SECONDS * 1.5  # frames in an event by half count
    assert result["event_f1"]["mean"] == one


def test_a_frame_that_holds_the_onset_makes_the_delay_at_most_a_hop():
    times = [(100.1, 104.0, "crying")]
    probabilities = frames_of([(99.9, 104.0, "crying")])
    probabilities[int(100.1 / HOP_SECONDS)] = [1, 0, 0]
    scored = [scene(times, probabilities)]
    (delay,) = detection.delays(scored, find(scored), PLAIN)["delay_seconds"]
    assert 0 <= delay <= HOP_SECONDS
    (later,) = detection.delays(scored, find(scored), DetectionSettings(PLAIN.on, PLAIN.off, 1.44, 0.96))[
        "delay_seconds"
    ]
    assert later == pytest.approx(delay + 2 * HOP_SECONDS)


def test_a_detector_that_never_fires_finds_nothing():
    result = detection.findings(scenes(lambda times: frames_of([])), PLAIN, n_bootstrap=50).figures
    assert result["event_f1"]["mean"]["value"] == 0
    assert result["recall"]["crying"]["value"] == 0
    assert result["false_alarms_per_hour"]["crying"]["value"] == 0
    assert result["delay_seconds"] == {}


def test_a_detector_that_always_fires_alarms_all_day():
    scored = scenes(lambda times: np.tile([1.0, 0.0, 0.0], (1250, 1)))
    result = detection.findings(scored, PLAIN, n_bootstrap=50).figures
    assert result["recall"]["crying"]["value"] == 1
    assert result["false_alarms_per_hour"]["crying"]["value"] > 150  # of 240 stretches of 15 s an hour
    assert result["event_f1"]["crying"]["value"] == 0


def test_what_comes_ten_seconds_late_scores_nothing():
    scored = scenes(lambda times: frames_of(times, shift=10.0))
    counts = detection.event_counts(scored, find(scored))
    assert counts[..., 0].sum() == 0
    assert detection.event_f1(counts.sum(axis=0)).tolist() == [0, 0]
    assert detection.alarm_counts(scored, find(scored))[..., 2].sum() == counts[..., 1].sum()


def test_the_label_must_be_right():
    scored = scenes(lambda times: frames_of(times)[:, [1, 0, 2]])
    assert detection.event_f1(detection.event_counts(scored, find(scored)).sum(axis=0)).tolist() == [0, 0]


def test_collars_are_a_second_at_the_onset_and_half_the_length_at_the_offset():
    reference = [Event(100, 110, "crying")]
    assert detection.n_pairs(reference, [Event(101, 105, "crying")]) == 1
    assert detection.n_pairs(reference, [Event(101.1, 110, "crying")]) == 0
    assert detection.n_pairs(reference, [Event(100, 104.9, "crying")]) == 0
    assert detection.n_pairs(reference, [Event(100, 110, "crying")] * 3) == 1
    pair = [Event(100, 103, "crying"), Event(101.5, 104, "crying")]
    assert detection.n_pairs(pair, [Event(100.8, 103.5, "crying"), Event(99.5, 102.5, "crying")]) == 2


def random_case(seed, *, n_scapes=3, n_frames=400):
    """Return soundscapes with blurred and wrong answers; two decimals, so that every threshold is one of 101."""
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
        seconds = n_frames * HOP_SECONDS
        made.append(ScoredSoundscape(f"s{number}", "quiet", seconds, tuple(references), np.round(rows, 2)))
    return made


@pytest.mark.parametrize("seed", PUBLISHED)
def test_event_f1_equals_that_of_the_published_tool(seed):
    scored, expected = random_case(seed), PUBLISHED[seed]
    counts = detection.event_counts(scored, find(scored, RANDOM_CASE)).sum(axis=0)
    assert counts[:, 0].tolist() == expected["pairs"]
    assert detection.event_f1(counts) == pytest.approx(expected["event_f1"])


def test_tuning_finds_the_threshold_between_noise_and_events():
    """Noise reaches 0.55, events 0.85: settings from 0.6 to 0.8 are perfect, those outside are not."""
    rng = np.random.default_rng(1)
    scored = scenes(lambda times: np.maximum(frames_of(times) * 0.85, rng.uniform(0, 0.55, (1250, 3))), n_scenes=1)
    chosen, tries = detection.tune(scored)
    assert all(0.55 < chosen.on[label] <= 0.8 for label in EVENT_LABELS)
    counts = detection.event_counts(scored, find(scored, chosen)).sum(axis=0)
    assert detection.event_f1(counts).tolist() == [1, 1]
    assert tries.loc[tries["on"] < 0.4, "event_f1"].max() < 0.5
    assert tries["event_f1"].max() == 1


def test_tuning_keeps_to_the_false_alarms_allowed():
    """Half the cries stand at 0.45, and two bursts at 0.5 are none: the best F1 costs false alarms."""

    def frames(times):
        rows = np.tile([0.0, 0.0, 1.0], (1250, 1))
        rows[[*range(10, 14), *range(1232, 1236)], 0] = 0.5
        for number, (a, b, label) in enumerate(times):
            here = frames_of([(a, b, label)])[:, config.CLASS_ID[label]] > 0
            rows[here, config.CLASS_ID[label]] = 0.9 if number % 4 < 2 else 0.45
        return rows

    scored = scenes(frames, n_scenes=1)
    rate = {}
    for limit in (None, 0.0):
        chosen, _ = detection.tune(scored, max_false_alarms_per_hour=limit)
        rate[limit] = detection.alarm_counts(scored, find(scored, chosen))[..., 2].sum()
    assert rate[None] > 0
    assert rate[0.0] == 0


def test_recall_falls_and_false_alarms_fade_as_the_threshold_rises():
    rng = np.random.default_rng(3)
    scored = scenes(
        lambda times: np.minimum(1, frames_of(times) * rng.random((1250, 1)) + rng.random((1250, 3)) ** 4 * 0.6)
    )
    table = detection.curve(scored, PLAIN)
    for _, rows in table.groupby("label"):
        assert rows["threshold"].is_monotonic_increasing
        assert rows["recall"].iloc[0] == 1
        assert rows["recall"].iloc[-1] < 1
        assert rows["false_alarms_per_hour"].iloc[0] > rows["false_alarms_per_hour"].iloc[-1]


def test_recall_by_ratio_and_background_counts_what_was_found():
    """Only what stands at 10 dB is heard."""
    scored = scenes(lambda times: frames_of(times[1::2]))
    table = detection.recall_table(scored, find(scored), by="snr_db", n_bootstrap=50)
    by_ratio = table.groupby("snr_db")["value"].mean()
    assert by_ratio.to_dict() == {0.0: 0.0, 10.0: 1.0}
    assert table["n_events"].sum() == 8 * 14
    assert set(detection.recall_table(scored, find(scored), by="background", n_bootstrap=50)["background"]) == {
        "quiet",
        "speech",
    }


def test_the_sustained_cry_alert_is_counted():
    times = [(50.0, 90.0, "crying"), (200.0, 205.0, "crying")]
    heard = scene(times, frames_of(times))
    missed = scene(times, frames_of([(50.0, 75.0, "crying"), (300.0, 340.0, "crying")]))
    result = detection.findings([heard, missed], PLAIN, n_bootstrap=20).figures
    assert result["sustained_cry"] == {"n_references": 2, "n_recalled": 1, "n_false": 1}
    assert result["event_f1"]["crying"]["low"] is None  # two soundscapes are too few for an interval


def test_findings_can_be_written_and_drawn(tmp_path):
    import json

    chosen, tries = detection.tune(scenes(frames_of, n_scenes=1))
    found = detection.findings(scenes(frames_of), chosen, tries=tries, n_bootstrap=20)
    json.dumps(found.figures)
    assert found.figures["n_soundscapes"] == 8
    assert found.figures["hours"] == pytest.approx(8 * 600 / 3600)
    for name, table in found.tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    drawn = {
        "soundscape_curve": long_recordings.draw_false_alarms,
        "soundscape_recall_by_snr": long_recordings.draw_recall_by_snr,
        "soundscape_recall_by_background": long_recordings.draw_recall_by_background,
        "soundscape_example": long_recordings.draw_timeline,
    }
    for name, draw in drawn.items():
        figure, ax = plt.subplots()
        draw(ax, pd.read_csv(tmp_path / f"{name}.csv"))  # as the notebook reads them
        assert ax.has_data()
        assert ax.get_xlabel()
        plt.close(figure)
