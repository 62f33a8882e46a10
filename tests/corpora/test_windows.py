"""Windows: the same again for the same seed, events where they are said to be, backgrounds of one corpus group."""

import numpy as np
import pandas as pd
import pytest

from lib import waveforms
from lib.corpora import windows
from lib.networks import frozen_features

SOURCES = {"crying": ("donateacry", "nevado"), "screaming": ("nevado",), "normal": ("nevado", "deeply")}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Return four clips of each class and source."""
    cells = [(label, source) for label, sources in SOURCES.items() for source in sources for _ in range(4)]
    frame = pd.DataFrame(cells, columns=["label", "source"])
    frame["clip_id"] = [f"{row.source}-{place}" for place, row in enumerate(frame.itertuples())]
    return frame.assign(group_id=frame["clip_id"])


@pytest.fixture(scope="module")
def clips(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return noise of 0.4 to 20 s per clip."""
    rng, lengths = np.random.default_rng(0), (0.4, 1.5, 6.0, 20.0)
    return {
        clip_id: rng.normal(0, 0.1, round(lengths[place % 4] * 16_000)).clip(-1, 1).astype(np.float32)
        for place, clip_id in enumerate(rows["clip_id"])
    }


def test_a_window_depends_on_its_id_and_seed_alone(rows, clips):
    table, drawn = windows.draw(rows, clips, per_clip=2, seed=3)
    shuffled = rows.sample(frac=1, random_state=0)
    again, drawn_again = windows.draw(shuffled, clips, per_clip=3, seed=3)
    place = again.reset_index().set_index("window_id")["index"]
    for window_id, window in zip(table["window_id"], drawn, strict=True):
        assert np.array_equal(window, drawn_again[place[window_id]])
    other = windows.draw(rows, clips, per_clip=2, seed=4)[1]
    assert not any(len(a) == len(b) and np.array_equal(a, b) for a, b in zip(drawn, other, strict=True))


@pytest.mark.parametrize("seconds", [None, 5.0, 15.0])
def test_windows_follow_the_contract_of_a_waveform(rows, clips, seconds):
    table, drawn = windows.draw(rows, clips, seconds=seconds)
    assert tuple(table.columns) == windows.COLUMNS and table["window_id"].is_unique
    for row, window in zip(table.itertuples(), drawn, strict=True):
        waveforms.check_waveform(window, sample_rate_hz=16_000)
        assert len(window) == round(row.seconds * 16_000)
        assert 0 <= row.onset_seconds < row.offset_seconds <= row.seconds + 1e-3
    assert (table["seconds"] == seconds).all() if seconds else table["seconds"].between(2, 15).all()


def test_the_event_is_where_the_table_says(clips, monkeypatch):
    monkeypatch.setattr(windows, "P_SILENCE", 1.0)
    for seed in range(8):
        facts, window = windows.draw_one(clips["nevado-5"], None, np.random.default_rng(seed))
        start, stop = (round(facts[name] * 16_000) for name in ("onset_seconds", "offset_seconds"))
        outside = np.concatenate([window[: max(start - 800, 0)], window[stop + 800 :]])  # codecs and filters smear
        inside = waveforms.active_rms(window[start:stop])
        assert np.sqrt(np.mean(outside**2)) < inside / 20


def test_classes_have_the_same_lengths_and_backgrounds(rows, clips):
    table, _ = windows.draw(rows[rows["source"] == "nevado"], clips, per_clip=12)
    by_label = table.groupby("label")
    assert np.ptp(by_label["seconds"].mean()) < 3
    for kind, share in (("silence", 0.1), ("clips", 0.5), ("noise", 0.4)):
        assert ((table["background"] == kind).groupby(table["label"]).mean() - share).abs().max() < 0.2
    assert table["snr_db"].between(-5, 25).all()


def test_noise_lies_at_the_stated_snr(clips, monkeypatch):
    rng, event = np.random.default_rng(5), clips["nevado-7"]
    for name, value in {"P_PIECE": 0, "P_SILENCE": 0, "P_CLIPS": 0, "SNR_DB": (10, 10)}.items():
        monkeypatch.setattr(windows, name, value)
    levels = []
    for _ in range(12):
        facts, window = windows.draw_one(event, None, rng, seconds=25)
        start, stop = (round(facts[name] * 16_000) for name in ("onset_seconds", "offset_seconds"))
        noise = np.concatenate([window[:start], window[stop:]])
        levels.append(20 * np.log10(waveforms.active_rms(window[start:stop]) / waveforms.active_rms(noise)))
    assert np.median(levels) == pytest.approx(10.4, abs=1.5)  # 10 dB, and the noise under the event


def test_a_left_out_corpus_group_is_judged_over_its_own_backgrounds(rows, clips):
    table, _ = windows.draw(rows, clips, per_clip=10, own_corpus=True)
    over_clips = table[table["background"] == "clips"]
    games = over_clips[over_clips["corpus_group"] != "donateacry"]
    assert (games["background_corpus_group"] == games["corpus_group"]).all()
    # donateacry has no normal clip: its windows take those of a group without cries
    assert set(over_clips.loc[over_clips["corpus_group"] == "donateacry", "background_corpus_group"]) == {"deeply"}


def test_unseen_drops_events_and_backgrounds_of_the_judged_groups():
    training = pd.DataFrame(
        {"corpus_group": ["a", "b", "b", "c"], "background_corpus_group": ["", "a", "c", "c"]}, index=[4, 5, 6, 7]
    )
    judged = pd.DataFrame({"corpus_group": ["a"], "background_corpus_group": [""]})
    assert windows.unseen(training, judged).tolist() == [False, False, True, True]
    assert windows.unseen(training[["corpus_group"]], judged).tolist() == [False, True, True, True]  # clips as recorded


def test_balanced_counts_level_the_classes(rows):
    counts = pd.Series(windows.balanced_counts(rows, 90)).groupby(rows["label"]).sum()
    assert counts.sum() == pytest.approx(90, abs=8)
    assert np.ptp(counts) < 12
    assert windows.balanced_counts(rows, 10_000).max() == windows.MAX_PER_CLIP


@pytest.fixture
def read(rows, clips, monkeypatch):
    """Let `windows.examples` find half of the clips in train, half in validation, and one clip that random adds."""
    grouped = rows.assign(split=np.where(np.arange(len(rows)) % 2, "validation", "train"), duration_seconds=2.0)
    extra = grouped.iloc[:1].assign(clip_id="only-random")
    frames = {"grouped": grouped, "random": pd.concat([grouped.iloc[1:], extra])}
    monkeypatch.setattr(windows.splits, "read", lambda scheme, splits: frames[scheme].reset_index(drop=True))
    sounds = clips | {"only-random": clips[rows["clip_id"][0]]}
    monkeypatch.setattr(windows.manifest, "load_waveforms", lambda frame: [sounds[i] for i in frame["clip_id"]])


@pytest.mark.parametrize("seed", range(4))
def test_a_clip_at_another_speed_is_shorter_and_higher_or_longer_and_lower(tone, seed):
    changed = windows.at_other_speed(tone(400, 2), np.random.default_rng(seed))
    factor = 2 * 16_000 / len(changed)
    assert windows.SPEEDS[0] <= factor <= windows.SPEEDS[1] and abs(factor - 1) > 0.001
    peak_hz = np.argmax(np.abs(np.fft.rfft(changed))) * 16_000 / len(changed)
    assert peak_hz == pytest.approx(400 * factor, abs=1)


def test_examples_are_clips_training_windows_and_judged_windows_of_one_split_each(read, rows):
    table, sounds = windows.examples(n_training=30, n_judged=1000, seed=1)
    assert len(table) == len(sounds) and table["window_id"].is_unique
    assert table.loc[table["kind"] == "clip", "split"].value_counts().to_dict() == {
        "train": len(rows) // 2, "validation": len(rows) // 2, "test": 1,
    }  # fmt: skip
    taught = table[table["kind"] == "training window"]
    assert {"train", "validation"} <= set(taught["split"]) and (taught["split"] == "train").sum() == pytest.approx(
        30, abs=8
    )
    copies = table[table["kind"] == "clip, other speed"]
    assert set(copies["clip_id"]) == set(table.loc[table["kind"] == "clip", "clip_id"])
    assert [len(sounds[number]) / 16_000 for number in copies.index] == pytest.approx(copies["seconds"].tolist())
    judged = table[table["kind"] == "window"]
    assert set(judged["seconds"]) == set(windows.JUDGED_SECONDS) and set(judged["split"]) == {"train", "validation"}
    assert (judged[judged["label"] == "screaming"].groupby("clip_id").size() == 3).all()
    assert (judged[judged["label"] != "screaming"].groupby("clip_id").size() == 1).all()
    split_of = table[table["kind"] == "clip"].set_index("clip_id")["split"]
    assert (table["split"] == table["clip_id"].map(split_of)).all()


def test_excerpts_are_classified_of_what_is_judged_and_all_of_what_is_trained_on_alone(monkeypatch):
    monkeypatch.setattr(frozen_features, "excerpts", lambda sounds: [sound[1:2] for sound in sounds])
    kinds = ["clip, other speed", "window", "training window", "clip"]
    sounds = [np.arange(3) + 10 * place for place in range(len(kinds))]
    classified = windows.classified(pd.DataFrame({"kind": kinds}), sounds)
    assert [sound.tolist() for sound in classified] == [[0, 1, 2], [11], [20, 21, 22], [31]]


def test_clips_and_training_windows_weigh_alike_and_screams_half(read):
    table, _ = windows.examples(n_training=40, n_judged=10, seed=1)
    taught = table[(table["split"] == "train") & (table["kind"] != "window")]
    weights = pd.Series(windows.weights(taught), index=taught.index)
    assert weights.mean() == pytest.approx(1)
    is_clip = taught["kind"] == "clip"
    by_label = weights.groupby(taught["label"]).sum()
    assert weights[is_clip].sum() == pytest.approx(weights[~is_clip].sum())
    assert by_label["screaming"] == pytest.approx(by_label["normal"] / 2) and by_label["crying"] == pytest.approx(
        by_label["normal"]
    )
