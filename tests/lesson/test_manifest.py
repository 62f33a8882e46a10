"""The manifest's schema, the two splits and the checks that no group crosses them."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import config, manifest


def clips(groups):
    """A manifest without its split: `groups` lists (group_id, source, labels of its clips)."""
    rows = [(group, source, label) for group, source, labels in groups for label in labels]
    frame = pd.DataFrame(rows, columns=["group_id", "source", "label"])
    frame["clip_id"] = [f"clip-{number:05d}" for number in range(len(frame))]
    frame["sha256"] = [hashlib.sha256(name.encode()).hexdigest() for name in frame["clip_id"]]
    frame["path"] = [f"processed/{sha[:2]}/{name}.wav" for sha, name in zip(frame.sha256, frame.clip_id, strict=True)]
    constants = {"subtype": "any", "start_seconds": 0.0, "duration_seconds": 2.5, "sample_rate_hz": 16000}
    frame = frame.assign(**constants, bandwidth_hz=4000, licence="CC0")
    return frame[[name for name in manifest.COLUMNS if name != "split"]]


def equal_groups(n_groups, n_clips=1):
    return clips(
        [
            (f"{label}-{i}", f"source-{i % 3}", [label] * n_clips)
            for label in config.CLASS_NAMES
            for i in range(n_groups)
        ]
    )


def with_split(frame, splits):
    return frame.assign(split=splits)[list(manifest.COLUMNS)]


@st.composite
def corpora(draw):
    groups = [(f"{label}-{i}", "a", [label]) for label in config.CLASS_NAMES for i in range(3)]
    labels = st.lists(st.sampled_from(config.CLASS_NAMES), min_size=1, max_size=12)
    for number, (source, members) in enumerate(draw(st.lists(st.tuples(st.sampled_from("abc"), labels), max_size=40))):
        groups.append((f"mixed-{number}", source, members))
    return clips(groups)


@settings(deadline=None, max_examples=60)
@given(frame=corpora(), seed=st.integers(0, 2**32 - 1))
def test_a_group_never_crosses_splits_and_every_class_is_in_each(frame, seed):
    split = with_split(frame, manifest.split_by_group(frame, seed=seed))
    assert manifest.shared_values(split, "group_id") == []
    manifest.check_no_leakage(split)
    assert (pd.crosstab(split["label"], split["split"]) > 0).to_numpy().all()
    assert (split.groupby("group_id")["split"].nunique() == 1).all()


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 3), min_size=60, max_size=120), seed=st.integers(0, 1000))
def test_shares_are_close_when_groups_are_small(sizes, seed):
    names = config.CLASS_NAMES
    frame = clips([(f"g{i}", "ab"[i % 2], [names[i % 3]] * size) for i, size in enumerate(sizes)])
    shares = pd.crosstab(frame["label"], manifest.split_by_group(frame, seed=seed), normalize="index")
    expected = pd.Series(dict(zip(manifest.SPLITS, manifest.FRACTIONS, strict=True)))
    assert (shares - expected).abs().max().max() < 0.08


def test_split_depends_on_content_and_seed_alone():
    frame = equal_groups(40, 2)
    once = manifest.split_by_group(frame, seed=7)
    shuffled = frame.sample(frac=1, random_state=3)
    pd.testing.assert_series_equal(manifest.split_by_group(shuffled, seed=7).sort_index(), once)
    assert (manifest.split_by_group(frame, seed=8) != once).any()
    random = manifest.split_at_random(frame, seed=7)
    pd.testing.assert_series_equal(manifest.split_at_random(shuffled, seed=7).sort_index(), random)


def test_sources_and_large_groups_keep_their_share():
    groups = [(f"cry-{i}", "many", ["crying"]) for i in range(100)]
    groups += [(f"scream-{i}", "many", ["screaming"]) for i in range(100)]
    groups += [(f"speaker-{i}", "few", ["normal"] * 10) for i in range(20)]
    groups += [(f"n-{i}", "many", ["normal"]) for i in range(400)]
    frame = clips(groups)
    by_source = pd.crosstab(
        [frame["label"], frame["source"]], manifest.split_by_group(frame, seed=1), normalize="index"
    )
    assert by_source["train"].between(0.65, 0.75).all()
    assert by_source["test"].between(0.1, 0.2).all()


def test_three_groups_of_a_class_fill_three_splits_and_two_are_refused():
    frame = clips([(f"{label}-{i}", "a", [label] * (5 * i + 1)) for label in config.CLASS_NAMES for i in range(3)])
    split = manifest.split_by_group(frame, seed=0)
    assert split[frame["group_id"] == "crying-2"].eq("train").all()  # the largest group teaches
    short = frame[frame["group_id"] != "screaming-0"]
    with pytest.raises(manifest.SplitError, match="no screaming clip falls in train"):
        manifest.split_by_group(short, seed=0)


def test_other_fractions_are_kept_and_bad_ones_refused():
    frame = equal_groups(100)
    shares = manifest.split_by_group(frame, fractions=(0.5, 0.3, 0.2), seed=0).value_counts(normalize=True)
    np.testing.assert_allclose(shares[list(manifest.SPLITS)], (0.5, 0.3, 0.2), atol=0.02)
    for bad in ((0.7, 0.3), (0.7, 0.3, 0.0), (0.7, 0.2, 0.2)):
        with pytest.raises(manifest.SplitError, match="three positive shares"):
            manifest.split_by_group(frame, fractions=bad, seed=0)


def test_random_split_keeps_class_shares_but_shares_groups():
    frame = equal_groups(10, 10)
    split = with_split(frame, manifest.split_at_random(frame, seed=7))
    counts = pd.crosstab(split["label"], split["split"])[list(manifest.SPLITS)]
    assert (counts == [70, 15, 15]).to_numpy().all()
    with pytest.raises(manifest.LeakageError, match="group"):
        manifest.check_no_leakage(split)


def test_planted_leaks_are_found():
    frame = equal_groups(10, 3)
    split = with_split(frame, manifest.split_by_group(frame, seed=7))
    manifest.check_no_leakage(split)
    train, test = (split.index[split["split"] == name][0] for name in ("train", "test"))
    same_audio = split.copy()
    same_audio.loc[test, "sha256"] = same_audio.loc[train, "sha256"]
    with pytest.raises(manifest.LeakageError, match=r"1 audio hash"):
        manifest.check_no_leakage(same_audio)
    same_group = split.copy()
    same_group.loc[test, "group_id"] = same_group.loc[train, "group_id"]
    with pytest.raises(manifest.LeakageError, match=same_group.loc[train, "group_id"]):
        manifest.check_no_leakage(same_group)


def test_write_and_read_round_trip(tmp_path):
    frame = equal_groups(5)
    frame = with_split(frame, manifest.split_by_group(frame, seed=7))
    frame.loc[0, ["group_id", "subtype", "source"]] = ["007", "NA", "null"]
    path = manifest.write(frame.sample(frac=1, random_state=0), tmp_path / "deep" / "manifest.csv")
    pd.testing.assert_frame_equal(manifest.read(path), frame, check_dtype=False)
    assert [file.name for file in path.parent.iterdir()] == ["manifest.csv"]
    seen = manifest.read(path, splits=("train", "validation"))
    assert set(seen["split"]) == {"train", "validation"}
    assert len(seen) == (frame["split"] != "test").sum()
    with pytest.raises(manifest.ManifestError, match="cannot select"):
        manifest.read(path, splits=("dev",))
    with pytest.raises(FileNotFoundError, match="notebooks 01 and 02"):
        manifest.read(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("path", "/etc/passwd", "stay inside"),
        ("path", "processed/../../secret.wav", "stay inside"),
        ("path", "processed/a\nb.wav", "stay inside"),
        ("path", "processed\\b.wav", "stay inside"),
        ("path", "", "stay inside"),
        ("clip_id", "../x", "plain file name"),
        ("clip_id", "clip-00001", "appears twice"),
        ("label", "Crying", "label is none of"),
        ("split", "dev", "split is none of"),
        ("sha256", "abc", "no SHA-256"),
        ("duration_seconds", float("nan"), "duration_seconds"),
        ("sample_rate_hz", 0, "sample_rate_hz"),
        ("group_id", "", "group_id is empty"),
        ("source", "", "source is empty"),
    ],
)
def test_a_row_out_of_schema_is_refused(column, value, message):
    frame = equal_groups(3)
    frame = with_split(frame, manifest.split_by_group(frame, seed=7))
    frame.loc[0, column] = value
    with pytest.raises(manifest.ManifestError, match=message):
        manifest.validate(frame)


def test_columns_and_their_order_are_checked():
    frame = equal_groups(3)
    frame = with_split(frame, manifest.split_by_group(frame, seed=7))
    for wrong in (frame.drop(columns="licence"), frame[frame.columns[::-1]], frame.assign(extra=1)):
        with pytest.raises(manifest.ManifestError, match="columns are"):
            manifest.validate(wrong)


def test_a_path_out_of_the_data_folder_is_not_opened():
    with pytest.raises(manifest.ManifestError, match="stay inside"):
        manifest.load_waveforms(pd.DataFrame({"path": ["../outside.wav"]}))


def test_class_ids_follow_the_projects_order_and_refuse_other_labels():
    rows = pd.DataFrame({"label": ["normal", "crying", "screaming"]})
    assert manifest.class_ids(rows).tolist() == [2, 0, 1]
    with pytest.raises(KeyError, match="laughing"):
        manifest.class_ids(rows.assign(label="laughing"))
