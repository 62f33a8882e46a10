"""Splits: no group crosses, every class keeps its share, leaks are found; split schemes hold nothing in both."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import config, manifest, splits
from lib.manifest import SPLITS

SOURCES = ("esc10", "esc10_lasiyan", "donateacry", "ladytuna")


def clips(groups):
    """A manifest without its split: `groups` lists (group_id, source, labels of its clips)."""
    rows = [(group, source, label) for group, source, labels in groups for label in labels]
    frame = pd.DataFrame(rows, columns=["group_id", "source", "label"])
    frame["clip_id"] = [f"clip-{number:05d}" for number in range(len(frame))]
    frame["sha256"] = [f"{number:064x}" for number in range(len(frame))]
    frame["path"] = "processed/ab/" + frame["clip_id"] + ".wav"
    constants = {"subtype": "any", "start_seconds": 0.0, "duration_seconds": 2.5, "sample_rate_hz": 16000}
    frame = frame.assign(**constants, bandwidth_hz=4000, licence="CC0")
    return frame[[name for name in manifest.COLUMNS if name != "split"]]


def equal_groups(n_groups, n_clips=1):
    names = [(label, i) for label in config.CLASS_NAMES for i in range(n_groups)]
    return clips([(f"{label}-{i}", f"source-{i % 3}", [label] * n_clips) for label, i in names])


def with_split(frame, split):
    return frame.assign(split=split)[list(manifest.COLUMNS)]


@st.composite
def corpora(draw):
    groups = [(f"{label}-{i}", "a", [label]) for label in config.CLASS_NAMES for i in range(3)]
    labels = st.lists(st.sampled_from(config.CLASS_NAMES), min_size=1, max_size=12)
    for number, (source, members) in enumerate(draw(st.lists(st.tuples(st.sampled_from("abc"), labels), max_size=40))):
        groups.append((f"mixed-{number}", source, members))
    return clips(groups)


@settings(deadline=None, max_examples=15)
@given(frame=corpora(), seed=st.integers(0, 2**32 - 1))
def test_a_group_never_crosses_splits_and_every_class_is_in_each(frame, seed):
    split = with_split(frame, splits.split_by_group(frame, seed=seed))
    assert splits.shared_values(split, "group_id") == []
    splits.check_no_leakage(split)
    assert (pd.crosstab(split["label"], split["split"]) > 0).to_numpy().all()
    assert (split.groupby("group_id")["split"].nunique() == 1).all()


def test_split_depends_on_content_and_seed_alone():
    frame = equal_groups(40, 2)
    once = splits.split_by_group(frame, seed=7)
    shuffled = frame.sample(frac=1, random_state=3)
    pd.testing.assert_series_equal(splits.split_by_group(shuffled, seed=7).sort_index(), once)
    assert (splits.split_by_group(frame, seed=8) != once).any()
    random = splits.split_at_random(frame, seed=7)
    pd.testing.assert_series_equal(splits.split_at_random(shuffled, seed=7).sort_index(), random)


def test_sources_and_large_groups_keep_their_share():
    groups = [(f"cry-{i}", "many", ["crying"]) for i in range(100)]
    groups += [(f"scream-{i}", "many", ["screaming"]) for i in range(100)]
    groups += [(f"speaker-{i}", "few", ["normal"] * 10) for i in range(20)]
    groups += [(f"n-{i}", "many", ["normal"]) for i in range(400)]
    frame = clips(groups)
    by_source = pd.crosstab([frame["label"], frame["source"]], splits.split_by_group(frame, seed=1), normalize="index")
    assert by_source["train"].between(0.65, 0.75).all()
    assert by_source["test"].between(0.1, 0.2).all()


def test_three_groups_of_a_class_fill_three_splits_and_two_are_refused():
    frame = clips([(f"{label}-{i}", "a", [label] * (5 * i + 1)) for label in config.CLASS_NAMES for i in range(3)])
    split = splits.split_by_group(frame, seed=0)
    assert split[frame["group_id"] == "crying-2"].eq("train").all()  # the largest group teaches
    short = frame[frame["group_id"] != "screaming-0"]
    with pytest.raises(splits.SplitError, match="no screaming clip falls in train"):
        splits.split_by_group(short, seed=0)


def test_groups_that_keep_their_split_do_and_the_others_are_drawn_around_them():
    frame = equal_groups(40)
    names = frame["group_id"].unique()[::3]
    kept = pd.Series(np.resize(["test", "train", "train"], len(names)), index=names)
    split = splits.split_by_group(frame, seed=7, kept=kept)
    fixed = frame["group_id"].isin(names)
    assert (split[fixed] == frame.loc[fixed, "group_id"].map(kept)).all()
    shares = pd.crosstab(frame["label"], split, normalize="index")[list(SPLITS)]
    assert (abs(shares - splits.FRACTIONS) < 0.03).to_numpy().all()


def test_the_kept_splits_are_what_the_code_draws_for_the_index():
    """Version 0.1's groups are given; version 0.2 drew the rest around them."""
    index = pd.read_csv(config.PROJECT_DIR / "lib" / "corpora" / "clips.csv", keep_default_na=False)
    table = pd.read_csv(splits.KEPT_SPLITS_PATH, dtype=str).set_index("group_id")
    assert set(table.index) == set(index["group_id"])
    first = table.loc[table["release"] == "0.1", "split"]
    assert len(first) == 1148
    drawn = splits.split_by_group(index, seed=7, kept=first)
    assert (drawn == index["group_id"].map(splits.kept_splits())).all()
    shares = pd.crosstab(index["label"], drawn, normalize="index")[list(SPLITS)]
    assert (abs(shares.loc[["crying", "normal"]] - splits.FRACTIONS) < 0.02).to_numpy().all()
    scream = index[(index["label"] == "screaming") & (index["source"] != "screamingstrike")]  # one group of 82
    assert abs((drawn[scream.index] == "test").mean() - 0.15) < 0.02


def test_random_split_keeps_class_shares_but_leaks_and_planted_leaks_are_found():
    frame = equal_groups(10, 10)
    random = with_split(frame, splits.split_at_random(frame, seed=7))
    counts = pd.crosstab(random["label"], random["split"])[list(SPLITS)]
    assert (counts == [70, 15, 15]).to_numpy().all()
    with pytest.raises(splits.LeakageError, match="group"):
        splits.check_no_leakage(random)
    split = with_split(frame, splits.split_by_group(frame, seed=7))
    splits.check_no_leakage(split)
    train, test = (split.index[split["split"] == name][0] for name in ("train", "test"))
    for column, said in (("sha256", "1 audio hash"), ("group_id", split.loc[train, "group_id"])):
        leaking = split.copy()
        leaking.loc[test, column] = leaking.loc[train, column]
        with pytest.raises(splits.LeakageError, match=said):
            splits.check_no_leakage(leaking)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a split by group and one at random, of 4 sources with 3 clips per split."""
    frame = clips([(f"{s}:{n}", s, [config.CLASS_NAMES[n % 3]]) for s in SOURCES for n in range(9)])
    frame = with_split(frame, np.resize(np.repeat(SPLITS, 3), len(frame)))
    monkeypatch.setattr(config, "MANIFEST_PATH", tmp_path / "manifest.csv")
    monkeypatch.setattr(config, "RANDOM_MANIFEST_PATH", tmp_path / "random.csv")
    manifest.write(frame, config.MANIFEST_PATH)
    manifest.write(frame.assign(split=frame["split"].to_numpy()[::-1]), config.RANDOM_MANIFEST_PATH)
    return frame


def ids(scheme, *names):
    return set(splits.read(scheme, splits=names)["clip_id"])


def test_there_are_eight_corpus_groups_and_no_group_is_in_two():
    assert splits.corpus_group(pd.Series(["giulbia", "vyanev1", "nobody"])).tolist() == ["esc50", "esc50", "nobody"]
    index = pd.read_csv(config.PROJECT_DIR / "lib" / "corpora" / "clips.csv", keep_default_na=False)
    corpus_groups = splits.corpus_group(index["source"])
    assert corpus_groups.nunique() == 8
    assert (corpus_groups.groupby(index["group_id"]).nunique() == 1).all()


def test_released_trains_on_validation_and_leaves_the_test_groups_alone(written):
    assert ids("released", "train") == ids("grouped", "train", "validation")
    assert ids("released", "validation") == set()
    assert ids("released", "test") == ids("grouped", "test")
    assert not ids("released", "train") & ids("released", "test")
    assert ids("random", "train") == ids("grouped", "test")
    assert set(splits.read("random", splits=("train",))["split"]) == {"train"}
    for scheme in ("", "without_donateacry", "Grouped"):
        with pytest.raises(ValueError, match="no split scheme"):
            splits.read(scheme, splits=("train",))
