"""Files as people have them, which ordinary players play: read in full, on their own clock, with a remark at most."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from audio_bytes import opus, pages, wav

from lib import audio
from lib.inference import Classifier, run_inference

DATA_DIR = Path(__file__).resolve().parents[1] / "data"
CASES = {
    "elst_trim_12_20.m4a": (8.0, ""),  # a memo trimmed on the telephone, by an edit list
    "late_audio.mp4": (6.0, "begins 5.98 s into it"),  # a film whose sound begins later
    "no_eos.opus": (6.0, "the mark of its end is missing"),  # as Android's recorder leaves it
    "id3_twice.mp3": (6.0, ""),
    "hdr_data0_riff4088.wav": (6.0, "says 0.000 s of sound, and all 6.000 s"),  # the recorder died
    "two_tracks.mp4": (6.0, "2 sound tracks: number 2"),
}
REFUSED_BEFORE = [  # of the mirror: MP3 in WAV, zeros or junk between frames, the last frame cut
    *("aslan_28.wav", "inek_54.wav", "cat_171.wav", "dog_125.wav", "maymun_21.wav", "tavuk_2.wav", "whimper.mp3"),
    *("horror_scream.mp3", "scream3.mp3", "CscreamMan1.mp3", "EscreamMan1.mp3", "FscreamMan1.mp3"),
]


def remarks_and_seconds(path: Path) -> tuple[str, float]:
    recording = audio.read(path)
    audio.check_waveform(recording.waveform, sample_rate_hz=16_000)
    return "; ".join(recording.remarks), len(recording.waveform) / 16_000


@pytest.mark.parametrize("name", CASES)
def test_what_players_play_is_read(name):
    remarks, seconds = remarks_and_seconds(DATA_DIR / name)
    assert seconds == pytest.approx(CASES[name][0], abs=0.05)
    assert CASES[name][1] in remarks
    assert bool(remarks) == bool(CASES[name][1])
    assert np.sqrt(np.square(audio.load(DATA_DIR / name)).mean()) > 0.01  # the cry, no silence


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load()


@pytest.mark.parametrize("name", CASES)
def test_the_cry_in_it_is_found(classifier, name):
    found = run_inference(DATA_DIR / name, classifier=classifier)
    assert found.label == "crying"
    assert found.events[-1].offset_seconds == pytest.approx(CASES[name][0], abs=0.5)


def test_a_cry_behind_a_header_that_ends_in_silence_is_read(tmp_path):
    cry = audio.load(DATA_DIR / "id3_twice.mp3")
    samples = (np.concatenate([np.zeros(32_000), cry]) * 32767).astype("<i2").tobytes()
    (tmp_path / "a.wav").write_bytes(wav(samples, data_size=64_000))
    remarks, seconds = remarks_and_seconds(tmp_path / "a.wav")
    assert seconds == 8.0
    assert "says 2.000 s of sound, and all 8.000 s" in remarks
    assert np.abs(audio.load(tmp_path / "a.wav")[32_000:] - cry).max() < 1e-4


def test_a_gap_keeps_the_clock(tmp_path):
    """Opus whose pages from 5 to 6 s are damaged: what follows stays at its time."""
    whole = pages(opus())
    (tmp_path / "a.opus").write_bytes(b"".join(whole[:6] + whole[8:]))
    remarks, seconds = remarks_and_seconds(tmp_path / "a.opus")
    assert seconds == pytest.approx(12.0, abs=0.02)
    assert "gaps of 2.00 s" in remarks
    waveform = audio.load(tmp_path / "a.opus")
    assert (np.abs(waveform) == 0).sum() == pytest.approx(32_000, abs=700)


@pytest.mark.real_audio
def test_real_recordings_decode_to_their_known_length(mirror_dir):
    with (mirror_dir / "index.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    by_kind = {(row["path"].rsplit(".", 1)[-1], row["channels"]): row for row in rows}
    before = [row for row in rows if Path(row["path"]).name in REFUSED_BEFORE]
    assert len(before) >= len(REFUSED_BEFORE)
    for row in rows[::40] + list(by_kind.values()) + before:
        path = mirror_dir / row["repository"] / row["commit"] / row["path"]
        _, seconds = remarks_and_seconds(path)
        is_mp3_in_wav = row["repository"].startswith("YashNita")  # libsndfile, which measured them, stops early
        assert seconds == pytest.approx(float(row["duration_seconds"]), abs=1.3 if is_mp3_in_wav else 0.1)
        info = audio.inspect(path)
        assert (info.sample_rate_hz, info.channels) == (float(row["sample_rate_hz"]), int(row["channels"]))
