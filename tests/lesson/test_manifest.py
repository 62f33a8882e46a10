"""The manifest's schema: what is written is read back, and a row that breaks the schema is named."""

import numpy as np
import pandas as pd
import pytest

from lib import config, manifest


@pytest.fixture
def clips():
    """Return a manifest of 30 clips, ten per split."""
    frame = pd.DataFrame({"clip_id": [f"clip-{number:05d}" for number in range(30)]})
    frame["label"] = np.resize(config.CLASS_NAMES, 30)
    frame["split"] = np.repeat(manifest.SPLITS, 10)
    frame["path"] = "processed/ab/" + frame["clip_id"] + ".wav"
    frame["group_id"] = "group-" + frame["clip_id"]
    frame["sha256"] = [f"{number:064x}" for number in range(30)]
    constants = {"subtype": "any", "source": "a", "start_seconds": 0.0, "duration_seconds": 2.5}
    frame = frame.assign(**constants, sample_rate_hz=16000, bandwidth_hz=4000, licence="CC0")
    return frame[list(manifest.COLUMNS)]


def test_write_and_read_round_trip(clips, tmp_path):
    frame = clips
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
def test_a_row_out_of_schema_is_refused(column, value, message, clips):
    clips.loc[0, column] = value
    with pytest.raises(manifest.ManifestError, match=message):
        manifest.validate(clips)


def test_columns_paths_and_labels_are_checked(clips):
    for wrong in (clips.drop(columns="licence"), clips[clips.columns[::-1]], clips.assign(extra=1)):
        with pytest.raises(manifest.ManifestError, match="columns are"):
            manifest.validate(wrong)
    with pytest.raises(manifest.ManifestError, match="stay inside"):
        manifest.load_waveforms(pd.DataFrame({"path": ["../outside.wav"]}))
    rows = pd.DataFrame({"label": ["normal", "crying", "screaming"]})
    assert manifest.class_ids(rows).tolist() == [2, 0, 1]
    with pytest.raises(KeyError, match="laughing"):
        manifest.class_ids(rows.assign(label="laughing"))
