"""lib.audio on generated signals: shapes, units, round trips and named errors."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import soundfile

from lib import audio, waveforms

RATE_HZ = 16_000


def rms_db(waveform: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


@pytest.fixture
def wav(tmp_path):
    def write(samples, rate_hz=RATE_HZ, name="clip.wav", **how):
        path = tmp_path / name
        soundfile.write(path, samples, rate_hz, **how)
        return path

    return write


@pytest.mark.parametrize("rate_hz", [4_000, 8_000, 11_025, 12_345, 22_050, 44_100, 48_000, 96_000, 384_000])
def test_any_rate_comes_out_at_16_khz_and_the_shortest_recording_is_valid(wav, tone, rate_hz):
    sound = tone(440, 1.5, sample_rate_hz=rate_hz)
    waveform = audio.load(wav(sound, rate_hz))
    assert abs(len(waveform) - 24_000) <= 1
    assert waveforms.bandwidth_hz(waveform, RATE_HZ) == pytest.approx(440, abs=5)
    shortest = audio.load(wav(sound[: -(-rate_hz // 10)], rate_hz))  # 0.1 s, rounded up
    audio.check_waveform(shortest, sample_rate_hz=RATE_HZ)


def test_inspect_reads_the_header_and_the_name_says_nothing_about_the_content(wav, tone, tmp_path):
    info = audio.inspect(wav(np.stack([tone(440, 2.0)] * 2, axis=1), 8_000))
    assert (str(info), info.duration_seconds) == ("WAV PCM_16, 8000 Hz, 2 ch", 4.0)
    path = wav(tone(440, 1.0), name="a.flac")
    assert audio.inspect(path.rename(tmp_path / "a.wav")).container == "FLAC"


def test_remove_dc_leaves_full_scale(tone):
    shifted = waveforms.remove_dc(tone(300, 0.5) + np.float32(0.4))
    assert abs(shifted.mean()) < 1e-6
    square = np.where(np.arange(1_000) % 10 == 0, 1, -1).astype(np.float32)
    assert np.abs(waveforms.remove_dc(square)).max() <= 1


def test_equalise_level_brings_all_to_the_target_ignores_pauses_and_never_clips(tone, rng):
    for amplitude in (0.005, 0.05, 0.9):
        assert rms_db(waveforms.equalise_level(tone(300, 1.0, amplitude=amplitude))) == pytest.approx(-26, abs=0.1)
    half_silent = np.concatenate([tone(300, 1.0), np.zeros(16_000, dtype=np.float32)])
    assert rms_db(waveforms.equalise_level(half_silent)[:16_000]) == pytest.approx(-26, abs=0.1)
    assert not waveforms.equalise_level(np.zeros(1_000, dtype=np.float32)).any()
    click = rng.normal(0, 1e-2, 16_000).astype(np.float32)
    click[5_000] = 0.95
    assert np.abs(waveforms.equalise_level(click)).max() == pytest.approx(10 ** (-1 / 20), abs=1e-6)
    faint = tone(300, 1.0, amplitude=1e-5)
    assert np.abs(waveforms.equalise_level(faint)).max() == pytest.approx(1e-3, rel=1e-3)  # the gain is limited


@pytest.mark.parametrize("seconds", [0.3, 5.0, 14.99, 15.0, 15.01, 16.0, 29.9, 31.0, 60.0, 3_600.5])
@pytest.mark.parametrize("segment_seconds", [5.0, 10.0, 15.0])
def test_segments_cover_a_clip_in_equal_windows(seconds, segment_seconds):
    n_samples = round(seconds * RATE_HZ)
    bounds = waveforms.segment_bounds(n_samples, segment_seconds=segment_seconds)
    lengths = [stop - start for start, stop in bounds]
    assert [stop for _, stop in bounds[:-1]] == [start for start, _ in bounds[1:]]
    assert (bounds[0][0], bounds[-1][1]) == (0, n_samples)
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= 15 * RATE_HZ
    assert len(bounds) == 1 if seconds <= 15 else min(lengths) >= 5 * RATE_HZ
    assert waveforms.segment_bounds(0) == []


def test_bandwidth(tone, rng):
    assert waveforms.bandwidth_hz(tone(1_000, 1.0), RATE_HZ) == pytest.approx(1_000, abs=2)
    assert waveforms.bandwidth_hz(rng.normal(size=16_000), RATE_HZ) == pytest.approx(7_920, abs=40)
    assert waveforms.bandwidth_hz(np.zeros(100, dtype=np.float32), RATE_HZ) == 0


def test_pcm16_and_flac_round_trips_are_exact(tmp_path, rng):
    waveform = rng.uniform(-1, 1, 16_000).astype(np.float32)
    waveform[:2] = 1, -1
    path = tmp_path / "folder" / "clip.wav"
    audio.write_pcm16(path, waveform)
    first = audio.read_pcm16(path)
    audio.write_pcm16(path, first)
    assert np.array_equal(audio.read_pcm16(path), first) and np.abs(first - waveform).max() <= 1 / 32768
    (tmp_path / "a.flac").write_bytes(audio.encode_flac(waveform))
    for again in (first, audio.load(tmp_path / "a.flac")):
        assert audio.sha256_of_samples(again) == audio.sha256_of_samples(waveform)
    assert [entry.name for entry in path.parent.iterdir()] == ["clip.wav"]


def test_read_pcm16_refuses_other_audio(wav, tone):
    with pytest.raises(audio.InvalidWaveform, match="44100"):
        audio.read_pcm16(wav(tone(440, 1.0), 44_100))


@pytest.mark.parametrize(
    ("waveform", "rate_hz", "error"),
    [
        (np.zeros(0, np.float32), RATE_HZ, audio.EmptyAudio),
        (np.zeros(1_598, np.float32), RATE_HZ, audio.TooShort),
        (np.zeros(16_000, np.float64), RATE_HZ, audio.InvalidWaveform),
        (np.zeros((16_000, 1), np.float32), RATE_HZ, audio.InvalidWaveform),
        ([0.0] * 16_000, RATE_HZ, audio.InvalidWaveform),
        (np.zeros(16_000, np.float32), 44_100, audio.InvalidWaveform),
        (np.full(16_000, 1.01, np.float32), RATE_HZ, audio.InvalidWaveform),
        (np.full(16_000, np.nan, np.float32), RATE_HZ, audio.NonFiniteAudio),
        (np.full(16_000, -np.inf, np.float32), RATE_HZ, audio.NonFiniteAudio),
    ],
)
def test_check_waveform_refuses_with_a_named_error(waveform, rate_hz, error):
    with pytest.raises(error):
        audio.check_waveform(waveform, sample_rate_hz=rate_hz)


def test_errors_say_what_where_and_what_next_on_one_line(tmp_path):
    with pytest.raises(audio.MissingAudio, match="No such file") as caught:
        audio.load(tmp_path / "absent.wav")
    message = str(caught.value)
    assert str(tmp_path / "absent.wav") in message and message.endswith("Check the path and its permissions.")
    assert str(copy.copy(caught.value)) == message  # made anew from its arguments, as between processes
    assert "\n" not in str(audio.NotAudio("odd", "a\nb.wav"))
    str(audio.NotAudio("odd", "\udcff.wav")).encode()


def test_too_long_is_named(wav, tone):
    with pytest.raises(audio.TooLong, match="2.0 s or more, the maximum here is 1 s"):
        audio.load(wav(tone(440, 2.0)), max_seconds=1)
    assert len(audio.load(wav(tone(440, 2.0)), max_seconds=2.0, sample_rate_hz=8_000)) == 16_000
