"""The other side of strictness: what common encoders write at common settings is accepted, whole and at its level."""

from __future__ import annotations

import numpy as np
import pytest
from audio_bytes import by_ffmpeg

from lib import audio

FILM = ("-f", "lavfi", "-i", "color=s=32x32", "-shortest", "-c:v", "mpeg4")
CASES = {
    **{
        f"wav {codec}": ("wav", "-c:a", codec)
        for codec in ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le")
    },
    **{f"wav {codec}": ("wav", "-c:a", codec) for codec in ("pcm_f64le", "pcm_alaw", "pcm_mulaw", "adpcm_ima_wav")},
    **{f"wav {codec}": ("wav", "-c:a", codec) for codec in ("adpcm_ms", "libmp3lame")},
    **{f"wav {n} channels": ("wav", "-ac", str(n)) for n in (2, 3, 4, 6, 8)},
    **{
        f"mp3 {rate} Hz": ("mp3", "-ar", str(rate))
        for rate in (8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000)
    },
    **{f"mp3 {kbps} kbit/s": ("mp3", "-b:a", f"{kbps}k", "-ar", "44100", "-ac", "2") for kbps in (32, 64, 128, 320)},
    **{f"mp3 quality {quality}": ("mp3", "-q:a", str(quality)) for quality in (0, 5, 9)},
    "mp3 untagged, constant rate": ("mp3", "-write_xing", "0", "-b:a", "64k"),
    "mp3 untagged, variable rate": ("mp3", "-write_xing", "0", "-q:a", "5"),
    "mp3 with both ID3 tags": ("mp3", "-metadata", "title=tone", "-write_id3v1", "1"),
    "mp2": ("mp2", "-ar", "44100"),
    **{f"flac {rate} Hz": ("flac", "-ar", str(rate)) for rate in (8_000, 22_050, 44_100, 96_000, 192_000)},
    "flac 24 bits": ("flac", "-sample_fmt", "s32"),
    "flac 8 channels": ("flac", "-ac", "8"),
    "flac with a title": ("flac", "-metadata", "title=tone"),
    **{f"vorbis quality {quality}": ("ogg", "-c:a", "libvorbis", "-q:a", str(quality)) for quality in (0, 5, 10)},
    **{f"vorbis {rate} Hz": ("ogg", "-c:a", "libvorbis", "-ar", str(rate)) for rate in (8_000, 22_050, 44_100, 48_000)},
    **{f"opus {kbps} kbit/s": ("opus", "-c:a", "libopus", "-b:a", f"{kbps}k") for kbps in (12, 32, 128)},
    **{f"opus {ms} ms": ("opus", "-c:a", "libopus", "-frame_duration", ms) for ms in ("2.5", "20", "60")},
    "opus stereo": ("opus", "-c:a", "libopus", "-ac", "2"),
    **{
        f"aiff {codec}": ("aiff", "-c:a", codec)
        for codec in ("pcm_s8", "pcm_s16be", "pcm_s24be", "pcm_f32be", "pcm_s16le")
    },
    **{f"caf {codec}": ("caf", "-c:a", codec) for codec in ("pcm_s16le", "pcm_s24be", "pcm_f32le", "pcm_alaw", "alac")},
    **{f"m4a {rate} Hz": ("m4a", "-c:a", "aac", "-ar", str(rate)) for rate in (8_000, 22_050, 44_100, 96_000)},
    "aiff ima": ("aiff", "-c:a", "adpcm_ima_qt"),
    "caf ima": ("caf", "-c:a", "adpcm_ima_qt"),
    "m4a alac": ("m4a", "-c:a", "alac"),
    "m4a stereo, index first": ("m4a", "-c:a", "aac", "-ac", "2", "-movflags", "+faststart"),
    "m4a in fragments": ("mp4", "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"),
    "mp4 opus": ("mp4", "-c:a", "libopus"),
    "mp4 flac": ("mp4", "-c:a", "flac"),
    "mp4 film": ("mp4", *FILM, "-c:a", "aac"),
    "mov film": ("mov", *FILM, "-c:a", "aac"),
    "webm vorbis": ("webm", "-c:a", "libvorbis"),
    "webm opus, live": ("webm", "-c:a", "libopus", "-live", "1"),
    "mka aac": ("mka", "-c:a", "aac"),
    "mka flac": ("mka", "-c:a", "flac"),
    "mkv film": ("mkv", *FILM, "-c:a", "libopus"),
    "3gp aac": ("3gp", "-c:a", "aac"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_encoders_write_is_accepted(tmp_path, name):
    path = tmp_path / "tone"
    path.write_bytes(by_ffmpeg(*CASES[name]))
    waveform = audio.load(path)
    audio.check_waveform(waveform, sample_rate_hz=16_000)
    seconds = len(waveform) / 16_000
    assert seconds == pytest.approx(1.0, abs=0.15)
    rms = np.sqrt(np.square(waveform, dtype=np.float64).mean())
    assert -16 < 20 * np.log10(rms) < -8  # ffmpeg spreads one channel over several at -3 dB and less
    assert audio.inspect(path).duration_seconds == pytest.approx(seconds, abs=0.15)
    assert audio.bandwidth_hz(waveform, 16_000) == pytest.approx(440, abs=100)
