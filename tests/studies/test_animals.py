"""Which clips the environmental-audio lesson takes."""

import pandas as pd
import pytest

from lib import config
from lib.corpora import acquisition
from lib.studies import animals, esc10


def rows(*items: tuple[str, str, str]) -> pd.DataFrame:
    """Raw manifest rows of (path, subtype, group)."""
    frame = pd.DataFrame(items, columns=["path", "subtype", "group_id"])
    return frame.assign(source=frame["path"].str.split("/").str[1], clip_id=[f"c{n}" for n in range(len(frame))])


@pytest.mark.parametrize(
    ("path", "subtype", "group", "expected"),
    [
        ("raw/esc50/audio/1-100032-A-0.wav", "animal", "fs:100032", "dog"),
        ("raw/esc50/audio/1-100210-A-36.wav", "household", "fs:100210", ""),
        ("raw/yashnita/Inek/inek_60.wav", "animal", "yashnita:inek:60", "cow"),
        ("raw/antummt/sounds/sounds_pigeon.ogg", "bird", "antum:pigeon", ""),
        ("raw/blackstone/chick/idle (1).ogg", "animal", "blackstone:mob_chikn", "hen"),
        ("raw/openclonk/Dog/Talk1.wav", "voice_fx", "openclonk:Dog", ""),  # a game's voice, no animal's
    ],
)
def test_an_animal_is_read_from_name_or_group(path, subtype, group, expected):
    assert animals.animals(rows((path, subtype, group))).fillna("").tolist() == [expected]


def test_esc50_alone_is_taken_in_its_own_folds_where_all_of_it_is_there():
    clips = [
        (
            f"raw/esc50/audio/{fold}-{1000 * number + 10 * fold + take}-A-{number}.wav",
            "animal",
            f"{number}.{fold}.{take}",
        )
        for number in range(len(animals.CLASSES))
        for fold in range(1, 6)
        for take in range(8)
    ]
    found = animals.material(rows(("raw/yashnita/Inek/inek_1.wav", "animal", "y:1"), *clips))
    assert found.is_published and len(found.clips) == 400
    assert found.clips["fold"].tolist() == esc10.names(found.clips["path"])["fold"].tolist()
    assert not animals.material(rows(*clips[1:])).is_published  # 39 of 40 dogs


def test_without_it_groups_stay_in_one_fold_and_small_classes_are_left_out():
    cows = [(f"raw/yashnita/Inek/inek_{n}.wav", "animal", f"y:{n // 2}") for n in range(8)]
    found = animals.material(rows(*cows, ("raw/yashnita/Kopek/dog_1.wav", "dog", "y:dog:1")))
    assert set(found.clips["class_name"]) == {"cow"} and not found.is_published
    assert found.clips.groupby("group_id")["fold"].nunique().eq(1).all() and found.clips["fold"].nunique() == 4


def test_the_index_has_all_ten_animals():
    clips = acquisition.clips()
    found = animals.material(clips.assign(path="raw/" + clips["source"] + "/" + clips["path"])).clips
    assert set(found["class_name"]) == set(animals.CLASSES)
    assert found.groupby("group_id")["fold"].nunique().eq(1).all()


def test_generated_audio_has_kinds_instead():
    made = [
        (f"raw/synthetic/a/{kind}-{n}.wav", kind, f"{kind}{n}")
        for kind in ("cry", "speech", "ambience")
        for n in range(3)
    ]
    found = animals.material(rows(*made))
    assert set(found.clips["class_name"]) == {"cry", "speech"} and "generated" in found.description


def test_esc50_is_not_fetched_for_generated_audio_or_offline(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "RAW_DIR", tmp_path)
    monkeypatch.setattr(animals.download, "why_unreachable", lambda url: pytest.fail("a connection was opened"))
    assert animals.fetch_esc50("synthetic")[0].empty
    monkeypatch.setenv("AUDIO_OFFLINE", "1")
    assert animals.fetch_esc50("mirror")[0].empty
