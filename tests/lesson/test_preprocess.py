"""Recordings to clips: level, segments, what is lost and why, and nothing done twice."""

import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from lib import audio, config, manifest, preprocess, waveforms
from lib.preprocess import Options

SAMPLE_RATE_HZ = 16_000


def record(data_dir, name, samples, *, rate_hz=SAMPLE_RATE_HZ, label="normal"):
    """Write a recording below data_dir and return its row of the raw manifest."""
    path = data_dir / "raw" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz, subtype="PCM_16")
    row = dict.fromkeys(manifest.RAW_COLUMNS, "x") | {"clip_id": name, "path": f"raw/{name}.wav", "label": label}
    row |= {"group_id": f"group-{name}", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return row | {
        "duration_seconds": len(samples) / rate_hz,
        "sample_rate_hz": rate_hz,
        "channels": 1,
        "bandwidth_hz": 1,
    }


def run(rows, data_dir, options=None, **kwargs):
    return preprocess.process_all(
        pd.DataFrame(rows), options or Options(), data_dir=data_dir, **{"n_workers": 1} | kwargs
    )


@pytest.fixture
def noisy(rng):
    def make(seconds, amplitude=0.3):
        return (amplitude * rng.uniform(-1, 1, round(seconds * SAMPLE_RATE_HZ))).astype(np.float32)

    return make


def test_clips_come_out_at_one_rate_and_level_and_can_be_read_back(tmp_path, noisy, tone, monkeypatch):
    stereo = np.stack([tone(300, 2, sample_rate_hz=44_100, amplitude=0.01) + 0.2] * 2, axis=1)
    rows = [record(tmp_path, "quiet", stereo, rate_hz=44_100), record(tmp_path, "loud", noisy(1, 0.9), label="crying")]
    result = run(rows, tmp_path)
    clips = result.clips.assign(split="train")[list(manifest.COLUMNS)]
    manifest.validate(clips)
    monkeypatch.setattr(config, "DATA_DIR", tmp_path)
    for waveform, clip in zip(manifest.load_waveforms(clips), result.clips.itertuples(), strict=True):
        assert len(waveform) == round(clip.duration_seconds * SAMPLE_RATE_HZ)
        assert abs(waveform.mean()) < 1e-3
        assert preprocess.measure(waveform)["level_db"] == pytest.approx(-26, abs=0.3)
        assert audio.sha256_of_samples(waveform) == clip.sha256
        assert clip.path == f"processed/{clip.sha256[:2]}/{clip.clip_id}.wav"
    quiet = result.clips.set_index("clip_id").loc["quiet"]
    assert quiet["level_db_before"] == pytest.approx(-14, abs=0.3)  # the offset of 0.2, which is gone afterwards
    assert result.attrition["outcome"].tolist() == ["kept", "kept"]


def test_long_recordings_are_cut_and_held_to_a_maximum(tmp_path, noisy):
    rows = [
        record(tmp_path, "short", noisy(15)),
        record(tmp_path, "long", noisy(32)),
        record(tmp_path, "endless", noisy(121)),
    ]
    result = run(rows, tmp_path)
    by_recording = result.clips.groupby("recording_id")
    assert by_recording.size().to_dict() == {"endless": 6, "long": 3, "short": 1}
    assert result.clips["duration_seconds"].between(5, 15).all()
    assert by_recording["duration_seconds"].sum()["long"] == pytest.approx(32, abs=0.01)
    starts = by_recording.get_group("endless")["start_seconds"]
    assert np.diff(starts).min() > 15  # spread over the two minutes
    assert starts.max() > 100
    assert set(result.clips["clip_id"]) >= {"short", "long-00", "long-01", "long-02", "endless-05"}
    endless = result.attrition.set_index("clip_id").loc["endless"]
    assert (endless["n_segments"], endless["n_clips"]) == (12, 6)


def test_every_loss_has_a_row_and_a_reason(tmp_path, noisy):
    rows = [record(tmp_path, name, noisy(1)) for name in ("fine", "gone", "text", "empty")]
    rows.append(record(tmp_path, "silent", np.zeros(SAMPLE_RATE_HZ)))
    (tmp_path / "raw" / "gone.wav").unlink()
    (tmp_path / "raw" / "text.wav").write_text("<html>404</html>")
    record(tmp_path, "empty", np.zeros(0))
    result = run(rows, tmp_path)
    table = result.attrition.set_index("clip_id")
    assert table["outcome"].to_dict() == {
        "fine": "kept", "gone": "not decodable", "text": "not decodable", "empty": "not decodable", "silent": "silent",
    }  # fmt: skip
    assert "MissingAudio" in table.loc["gone", "reason"]
    assert (table.loc[table["outcome"] != "kept", "reason"].str.len() > 10).all()
    assert result.clips["clip_id"].tolist() == ["fine"]


def test_silent_stretches_are_left_out_of_a_long_recording(tmp_path, noisy):
    samples = np.concatenate([noisy(10), np.zeros(10 * SAMPLE_RATE_HZ, np.float32), noisy(10)])
    result = run([record(tmp_path, "long", samples)], tmp_path)
    assert result.clips["clip_id"].tolist() == ["long-00", "long-02"]
    assert result.attrition.loc[0, ["n_segments", "n_clips"]].tolist() == [3, 2]


def test_padding_is_trimmed_but_quiet_sound_is_not(tmp_path, noisy):
    padding, hush = np.full(SAMPLE_RATE_HZ, 0.1, np.float32), noisy(1, 0.001)
    padded = np.concatenate([padding, noisy(2), np.zeros(3 * SAMPLE_RATE_HZ, np.float32)])
    quiet = np.concatenate([hush, noisy(2), hush])
    rows = [record(tmp_path, "padded", padded), record(tmp_path, "quiet", quiet)]
    clips = run(rows, tmp_path).clips.set_index("clip_id")
    assert clips["duration_seconds"].to_dict() == pytest.approx({"padded": 2.2, "quiet": 4.0}, abs=0.001)
    assert clips["start_seconds"].to_dict() == pytest.approx({"padded": 0.9, "quiet": 0.0}, abs=0.001)
    untrimmed = run(rows, tmp_path, Options(trim_padding=False)).clips.set_index("clip_id")
    assert untrimmed.loc["padded", "duration_seconds"] == 6


def test_equal_audio_is_kept_once_and_not_at_all_under_two_labels(tmp_path, noisy):
    same, doubtful = noisy(1), noisy(1)
    rows = [record(tmp_path, "a", same), record(tmp_path, "b", same)]
    rows += [record(tmp_path, "c", doubtful), record(tmp_path, "d", doubtful, label="crying")]
    result = run(rows, tmp_path)
    assert result.clips["clip_id"].tolist() == ["a"]
    table = result.attrition.set_index("clip_id")
    assert table["outcome"].to_dict() == {"a": "kept", "b": "duplicate", "c": "duplicate", "d": "duplicate"}
    assert table["n_clips"].tolist() == [1, 0, 0, 0]


def test_nothing_is_done_twice_and_damage_is_replaced(tmp_path, noisy, monkeypatch):
    rows = [record(tmp_path, name, noisy(1)) for name in ("a", "b")]
    first = run(rows, tmp_path)
    shutil.rmtree(tmp_path / "raw")  # nothing to start from: the clips must be found
    pd.testing.assert_frame_equal(run(rows, tmp_path).clips, first.clips)
    audio.write_pcm16(tmp_path / first.clips.loc[0, "path"], noisy(1))
    assert run(rows, tmp_path).attrition["outcome"].tolist() == ["not decodable", "kept"]
    rows = [record(tmp_path, name, noisy(1)) for name in ("a", "b")]  # other bytes under the same names
    again = run(rows, tmp_path)
    assert set(again.clips["sha256"]).isdisjoint(first.clips["sha256"])
    other = run(rows, tmp_path, Options(segment_seconds=8.0))  # other options never reuse these
    assert Options().digest() != Options(segment_seconds=8.0).digest()
    pd.testing.assert_frame_equal(other.clips, again.clips)


def test_two_processes_give_what_one_gives(tmp_path, noisy):
    rows = [record(tmp_path, f"r{i:02d}", noisy(0.5 + i / 10)) for i in range(6)]
    seen = []
    result = run(rows, tmp_path, n_workers=2, progress=lambda items: (seen.append(item) or item for item in items))
    assert len(seen) == 6
    shutil.rmtree(tmp_path / "processed")
    pd.testing.assert_frame_equal(run(rows, tmp_path).clips, result.clips)


def test_noise_reduction_lowers_a_steady_hiss_and_keeps_the_sound(tone, noisy):
    sound = tone(800, 4, amplitude=0.4)
    sound[: 2 * SAMPLE_RATE_HZ] = 0
    hissing = sound + noisy(4, 0.02)
    quiet, loud = slice(8000, 24_000), slice(40_000, 56_000)
    reduced = preprocess.reduce_noise(hissing)
    assert reduced.shape == hissing.shape and reduced.dtype == np.float32
    assert np.std(reduced[quiet]) < 0.6 * np.std(hissing[quiet])
    assert np.corrcoef(reduced[loud], sound[loud])[0, 1] > 0.95


def test_pitch_moves_towards_the_reference_by_a_limited_step(rng, noisy):
    def voice(pitch_hz):
        times = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
        return (0.2 * sum(np.sin(2 * np.pi * k * pitch_hz * times) / k for k in range(1, 6))).astype(np.float32)

    def pitch(waveform):
        lags = np.correlate(waveform[8000:12_000], waveform[8000:12_000], "full")[3999:]
        return SAMPLE_RATE_HZ / (16 + lags[16:200].argmax())

    assert pitch(preprocess.normalise_pitch(voice(300))) == pytest.approx(350, rel=0.03)
    assert pitch(preprocess.normalise_pitch(voice(150))) == pytest.approx(150 * 2 ** (4 / 12), rel=0.03)
    hiss = noisy(1)
    np.testing.assert_array_equal(preprocess.normalise_pitch(hiss), hiss)
    np.testing.assert_array_equal(preprocess.normalise_pitch(hiss[:500]), hiss[:500])


def test_options_are_applied(tone, noisy):
    waveform = tone(300, 2) + noisy(2, 0.05)
    plain = preprocess.process_waveform(waveform, Options())
    np.testing.assert_array_equal(plain, waveforms.equalise_level(waveforms.remove_dc(waveform)))
    for options in (Options(reduce_noise=True), Options(normalise_pitch=True)):
        assert not np.allclose(preprocess.process_waveform(waveform, options), plain, atol=1e-3)


@pytest.mark.real_audio
def test_real_recordings_become_clips(mirror_dir, tmp_path):
    index = pd.read_csv(mirror_dir / "index.csv", keep_default_na=False).groupby("label").head(8)
    rows = []
    for item in index.to_dict("records"):
        source = mirror_dir / item["repository"] / item["commit"] / item["path"]
        target = tmp_path / "raw" / f"{item['sha256']}{source.suffix}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
        row = {name: item.get(name, "mirror") for name in manifest.RAW_COLUMNS}
        rows.append(row | {"clip_id": item["sha256"], "path": f"raw/{target.name}"})
    result = run(rows, tmp_path)
    assert (result.attrition["outcome"] == "kept").all()
    spread_before, spread_after = (result.clips[f"level_db_{when}"].std() for when in ("before", "after"))
    assert spread_after < 0.6 * spread_before
