"""Split schemes: what is trained on, what is left out, and that nothing is in both."""

from __future__ import annotations

import pandas as pd
import pytest

from lib import config, manifest, schemes

SPLITS = manifest.SPLITS
SOURCES = ("esc10", "esc10_lasiyan", "donateacry", "ladytuna")


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Write a split by group and one at random, of 4 sources with 3 clips a split."""
    rows = []
    for source in SOURCES:
        for number in range(9):
            rows.append(
                {
                    "clip_id": f"{source}-{number}", "path": f"processed/{source}-{number}.wav",
                    "label": config.CLASS_NAMES[number % 3], "subtype": "any", "source": source,
                    "group_id": f"{source}:{number}", "split": SPLITS[number // 3], "start_seconds": 0.0,
                    "duration_seconds": 1.0, "sample_rate_hz": 16000, "bandwidth_hz": 4000.0, "licence": "CC0-1.0",
                    "sha256": f"{len(rows):064x}",
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows)[list(manifest.COLUMNS)]
    monkeypatch.setattr(config, "MANIFEST_PATH", tmp_path / "manifest.csv")
    monkeypatch.setattr(config, "RANDOM_MANIFEST_PATH", tmp_path / "random.csv")
    manifest.write(frame, config.MANIFEST_PATH)
    manifest.write(frame.assign(split=frame["split"].to_numpy()[::-1]), config.RANDOM_MANIFEST_PATH)
    return frame


def ids(scheme, *splits):
    return set(schemes.read(scheme, splits=splits)["clip_id"])


def test_copies_of_a_collection_are_one_family(clips):
    assert schemes.left_out_schemes() == ["without_donateacry", "without_esc50", "without_kaggle_screams"]
    assert schemes.family(pd.Series(["giulbia", "nobody"])).tolist() == ["esc50", "nobody"]


def test_a_family_left_out_is_all_tested_and_never_trained_on(clips):
    for scheme in schemes.left_out_schemes():
        name = scheme.removeprefix(schemes.LEFT_OUT)
        test = schemes.read(scheme, splits=("test",))
        seen = schemes.read(scheme, splits=("train", "validation"))
        assert set(schemes.family(test["source"])) == {name}
        assert len(test) == (schemes.family(clips["source"]) == name).sum()
        assert name not in set(schemes.family(seen["source"]))
        grouped_test = set(clips.loc[clips["split"] == "test", "clip_id"])
        assert not grouped_test & set(seen["clip_id"]), "test groups of other families stay unseen"


def test_released_trains_on_validation_and_leaves_the_test_groups_alone(clips):
    assert ids("released", "train") == ids("grouped", "train", "validation")
    assert ids("released", "validation") == set()
    assert ids("released", "test") == ids("grouped", "test")
    assert not ids("released", "train") & ids("released", "test")


def test_initial_is_the_grouped_split_and_random_is_not(clips):
    for split in SPLITS:
        assert ids("initial", split) == ids("grouped", split)
    assert ids("random", "train") == ids("grouped", "test")
    assert set(schemes.read("random", splits=("train",))["split"]) == {"train"}


@pytest.mark.parametrize("scheme", ["", "without_", "without_nobody", "Grouped"])
def test_an_unknown_scheme_is_refused(clips, scheme):
    with pytest.raises(ValueError, match=r"no (split scheme|clip)"):
        schemes.read(scheme, splits=("train",))


def test_the_study_leaves_out_every_family_of_the_default_clips():
    """params/left_out.yaml names the families; a new source must not be forgotten there."""
    import yaml

    sources = pd.read_csv(config.PROJECT_DIR / "lib" / "corpora" / "clips.csv")["source"]
    wanted = sorted({f"{schemes.LEFT_OUT}{name}" for name in schemes.family(sources)})
    given = yaml.safe_load((config.PROJECT_DIR / "params" / "left_out.yaml").read_text(encoding="utf-8"))
    for notebook in ("03_yamnet", "04_wav2vec2"):
        assert sorted(given[notebook]["split_schemes"]) == wanted
