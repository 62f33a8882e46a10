"""The transfer-learning example: file names, choice of classes, and folds that leave nothing to remember."""

import re

import numpy as np
import pandas as pd
import pytest

from lib import plots
from lib.corpora import acquisition, rules
from lib.studies import esc10

PICKED = ("cat", "hen", "wind", "crickets", "footsteps", "snoring", "siren", "train", "engine", "airplane")


def test_names_give_fold_recording_and_class_by_number_or_folder():
    paths = [
        "audio/1-100032-A-0.wav",
        "data/301 - Crying baby/5-198411-C-20.wav",
        "010 - Fire crackling/3-157187-A.ogg",
    ]
    others = ["data/902 - Noise/1-47819-C.ogg", "audio/6-1-A-0.wav", "audio/1-1-A-50.wav", "cat.wav", "1-2-A.ogg"]
    found = esc10.names(pd.Series([*paths, *others]))
    assert found["fold"].tolist()[:3] == [1, 5, 3] and found[3:].isna().all(axis=None)
    assert found["class_name"].tolist()[:3] == ["dog", "crying baby", "crackling fire"]


def test_the_names_of_the_classes_stand_at_their_numbers():
    assert len(set(esc10.CLASSES)) == 50 == len(esc10.CLASSES)
    assert esc10.CLASSES[rules.ESC50_CRYING] == "crying baby"
    assert esc10.CLASSES[rules.ESC50_LAUGHING] == "laughing"
    assert {esc10.CLASSES[i] for i in rules.ESC50_SIRENS} == {"siren", "car horn"}


def test_folder_and_number_agree_wherever_the_index_has_both():
    both = [path for path in acquisition.clips()["path"] if re.search(r"\d+ - .+/[1-5]-\d+-[A-Z]-\d+\.wav$", path)]
    assert len(both) > 30
    folders = [path.split("/")[-2].split(" - ")[1].lower() for path in both]
    assert esc10.names(pd.Series(both))["class_name"].tolist() == folders


@pytest.fixture
def rows():
    """Return 20 clips of each of ten classes, four a fold, two a Freesound recording."""
    clips = []
    for name in PICKED:
        number = esc10.CLASSES.index(name)
        for i in range(20):
            freesound = 1000 * number + i // 2
            path = f"audio/{i // 4 + 1}-{freesound}-{'AB'[i % 2]}-{number}.wav"
            clips.append({"clip_id": f"{name} {i}", "path": path, "group_id": f"fs:{freesound}"})
    return pd.DataFrame(clips)


def test_embeddings_that_hold_the_class_are_all_right_and_others_at_chance(rows, rng):
    clear = np.eye(10)[np.repeat(range(10), 20)] + rng.normal(0, 0.1, (200, 10))
    found = esc10.classify(esc10.clips(rows), clear)
    assert found.figures["accuracy"]["value"] == 1
    table = found.tables["esc10"].set_index("class_name")
    assert table.loc["all", "n_clips"] == 200 and table.loc["cat", "n_groups"] == 10
    assert sorted(found.figures["classes"]) == sorted(PICKED)
    assert found.figures["fewest_clips"] == found.figures["most_clips"] == 20
    assert found.figures["n_animals"] == 2  # cat and hen
    (figure,) = esc10.draw(found.tables).values()
    assert "cat (n = 20)" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
    plots.close(figure)
    chance = esc10.classify(esc10.clips(rows), rng.normal(size=(200, 10))).figures["accuracy"]["value"]
    assert chance < 0.25


def test_what_is_heard_in_one_fold_alone_helps_nobody(rows):
    """An embedding that names the recording and nothing else: whoever mixed the folds would be right half the time."""
    recordings = rows["group_id"].astype("category").cat.codes.to_numpy()
    found = esc10.classify(esc10.clips(rows), np.eye(100)[recordings])
    assert found.figures["accuracy"]["value"] < 0.2


def test_a_recording_in_two_folds_is_refused(rows):
    rows.loc[19, "group_id"] = rows.loc[0, "group_id"]
    with pytest.raises(ValueError, match="two folds"):
        esc10.classify(esc10.clips(rows), np.eye(10)[np.repeat(range(10), 20)])


def test_the_ten_classes_with_most_clips_are_chosen_of_those_with_enough():
    def there(names, n=10):
        return pd.DataFrame([{"class_name": name, "fold": i % 5 + 1} for name in names for i in range(n)])

    assert set(esc10.choose_classes(pd.concat([there(esc10.CLASSES), there(PICKED, 3)]))) == set(PICKED)
    for too_few in (there(PICKED, 9), there(PICKED[:9], 20), there(PICKED, 20).query("fold < 3")):
        assert esc10.choose_classes(too_few) == ()
    assert esc10.draw({}) == {}
