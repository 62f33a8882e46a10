"""What the listening page plays: which stretches, whose sound, how it is drawn."""

import io
import json

import av
import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from lib.corpora import optional
from lib.detector import HOP_SECONDS, Detection
from lib.events import Event
from lib.reporting import players
from lib.studies import listening

FREE = {
    "antummt", "cdogs", "donateacry", "esc10", "librispeech", "mathevon", "nevado", "openclonk", "scpcb", "spagliarini",
    "wbwwb", "wilhelmsfx",
}  # fmt: skip


def test_the_sources_that_may_be_passed_on():
    rows = optional.table().fillna("").assign(group_id="fs:1").to_dict("records")
    assert {row["source"] for row in rows if listening.may_be_passed_on(row)} == FREE
    (freesound,) = [row for row in rows if row["source"] == "wilhelmsfx"]
    assert not listening.may_be_passed_on(freesound | {"group_id": "wilhelm:yell"})


def clip(name, label, peak, *, place="test_clip", source="donateacry", seconds=4.8):
    """A clip whose middle frame of crying is `peak`; an event from 0.5 on."""
    frames = np.zeros((round(seconds / HOP_SECONDS), 2))
    frames[len(frames) // 2, 0] = peak
    at = len(frames) // 2 * HOP_SECONDS
    events = [Event(at, at + HOP_SECONDS, "crying", peak)] if peak >= 0.5 else []
    row = {"clip_id": name, "label": label, "subtype": "cat", "source": source, "group_id": name}
    row |= {"licence": "CC0 1.0" if source == "donateacry" else "none stated"}
    sound = np.sin(np.arange(round(seconds * 16000)) * 0.3).astype(np.float32) * 0.1
    return row, listening.of_clip(place, row, sound, Detection(frames, events))


@pytest.mark.parametrize(
    ("label", "peak", "kinds"),
    [
        ("crying", 0.3, ["missed"]),
        ("crying", 0.9, ["found"]),
        ("normal", 0.9, ["false_alarm"]),
        ("normal", 0.3, ["left_alone"]),
        ("screaming", 0.9, ["false_alarm", "missed"]),
    ],
)
def test_kinds(label, peak, kinds):
    _, recording = clip("a", label, peak)
    assert sorted(each.kind for each in listening.candidates(recording)) == kinds


def test_the_worst_come_first_places_take_turns_and_no_group_comes_twice():
    peaks = {"a": 0.6, "b": 0.9, "c": 0.7, "d": 0.8}
    found = [each for name, peak in peaks.items() for each in listening.candidates(clip(name, "normal", peak)[1])]
    found += listening.candidates(clip("e", "normal", 0.5, place="left_out_clip")[1])
    groups = {name: name for name in "abce"} | {"d": "b"}
    chosen = [each.recording.name for each in listening.choose(found, groups=groups, n_per_kind=3)]
    assert chosen == ["b", "e", "c"]


def test_what_is_written(tmp_path):
    pairs = [clip("donateacry-1", "crying", 0.2), clip("donateacry-2", "crying", 0.9, seconds=9.6)]
    pairs += [clip("ravdess-3", "normal", 0.8, source="ravdess")]
    rows = pd.DataFrame([row for row, _ in pairs])
    listening.write(tmp_path / "x.json", [recording for _, recording in pairs], rows, "d1")
    content = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    missed, found = content["items"]
    assert content["version"] == "d1"
    assert (missed["kind"], found["kind"], missed["highest"]) == ("missed", "found", 0.2)
    assert missed["references"] == [[0, 4.8, "crying"]] and missed["gain_db"] == 19
    assert found["seconds"] == 5.76 and found["events"][0][2] == "crying" and len(found["frames"]) == 12
    assert [each["clips"][0]["clip_id"] for each in content["listed"]] == ["ravdess-3"]
    assert "audio" not in content["listed"][0] and sorted(content["sources"]) == ["donateacry", "ravdess"]


def test_drawings_and_sound(tone):
    sound = tone(1000.0, 3.0)
    picture = np.asarray(Image.open(io.BytesIO(listening.log_mel_png(sound))).convert("L"))
    assert picture.shape == (64, listening.N_COLUMNS) and 30 < picture.mean(axis=1).argmax() < 50
    assert listening.wave_path(sound).startswith("M0 25V76M1 25V76")
    with av.open(io.BytesIO(players.encode_mp3(sound))) as file:
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert len(decoded) == len(sound) and np.abs(decoded - sound)[400:-400].max() < 0.05


def test_sound_in_a_page_becomes_smaller(tone):
    wav = io.BytesIO()
    soundfile.write(wav, tone(440.0, 2.0), 16000, format="WAV")
    page = f'<audio src="{players.address("audio/wav", wav.getvalue())}"></audio>'
    small = players.smaller(page)
    assert "data:audio/mpeg" in small and len(small) < len(page) / 3
    assert players.smaller('<audio src="data:audio/wav;base64,AAAA">') == '<audio src="data:audio/wav;base64,AAAA">'
