"""What common encoders write at common settings is accepted, whole, at its level and without a remark."""

from __future__ import annotations

import numpy as np
import pytest
from audio_bytes import by_av

from lib import audio

PLAIN = ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw")
CASES = [
    *(("wav", codec) for codec in (*PLAIN, "adpcm_ima_wav", "adpcm_ms", "libmp3lame")),
    *(("wav", "pcm_s16le", 16_000, layout) for layout in ("stereo", "2.1", "4.0", "5.1", "7.1")),
    *(("mp3", "libmp3lame", rate) for rate in (8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000)),
    *(("mp3", "libmp3lame", 44_100, "stereo", {"bit_rate": bits}) for bits in (32_000, 64_000, 128_000, 320_000)),
    *(("mp3", "libmp3lame", 16_000, "mono", {"compression_level": level}) for level in ("0", "5", "9")),
    ("mp3", "libmp3lame", 16_000, "mono", {"write_xing": "0"}),
    ("mp3", "libmp3lame", 16_000, "mono", {"id3v2_version": "3", "write_id3v1": "1"}),
    ("mp2", "mp2", 44_100),
    *(("flac", "flac", rate) for rate in (8_000, 22_050, 44_100, 96_000, 192_000)),
    ("flac", "flac", 16_000, "7.1"),
    *(("opus", "libopus", 48_000, "mono", {"bit_rate": bits}) for bits in (12_000, 32_000, 128_000)),
    *(("opus", "libopus", 48_000, "mono", {"frame_duration": ms}) for ms in ("2.5", "20", "60")),
    ("opus", "libopus", 48_000, "stereo"),
    *(("aiff", codec) for codec in ("pcm_s8", "pcm_s16be", "pcm_s24be", "pcm_f32be", "pcm_s16le", "adpcm_ima_qt")),
    *(("caf", codec) for codec in ("pcm_s16le", "pcm_s24be", "pcm_f32le", "pcm_alaw", "adpcm_ima_qt")),
    *(("ipod", "aac", rate) for rate in (8_000, 22_050, 44_100, 96_000)),
    *(("ipod", "alac", 96_000), ("caf", "alac", 48_000)),
    ("ipod", "aac", 16_000, "stereo", {"movflags": "+faststart"}),
    ("mp4", "aac", 16_000, "mono", {"movflags": "frag_keyframe+empty_moov"}),
    ("mp4", "libopus", 48_000),
    ("mp4", "flac"),
    *((container, "aac", 16_000, "mono", {"film": True}) for container in ("mp4", "mov", "mpegts")),
    ("matroska", "libopus", 48_000, "mono", {"film": True}),
    ("avi", "libmp3lame", 44_100, "mono", {"film": True}),
    ("webm", "libopus", 48_000, "mono", {"live": "1"}),
    *(("matroska", codec) for codec in ("aac", "flac")),
    *(("3gp", "aac"), ("adts", "aac"), ("au", "pcm_s16be"), ("w64", "pcm_s16le"), ("tta", "tta")),
    ("ac3", "ac3", 48_000),
    ("wav", "pcm_s16le", 16_000, "mono", {"rf64": "always"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case)))
def test_what_encoders_write_is_accepted(tmp_path, case):
    how = case[-1] if isinstance(case[-1], dict) else {}
    path = tmp_path / "tone"
    path.write_bytes(by_av(*(part for part in case if part is not how), **how))
    recording = audio.read(path)
    audio.check_waveform(recording.waveform, sample_rate_hz=16_000)
    seconds = len(recording.waveform) / 16_000
    assert seconds == pytest.approx(1.0, abs=0.1)
    assert recording.remarks == []
    rms = np.sqrt(np.square(recording.waveform, dtype=np.float64).mean())
    assert -10.5 < 20 * np.log10(rms) < -8.5
    assert audio.inspect(path).duration_seconds == pytest.approx(seconds, abs=0.1)
    assert audio.bandwidth_hz(recording.waveform, 16_000) == pytest.approx(440, abs=100)
