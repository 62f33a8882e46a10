"""The decoder processes (crashes, hangs, threads, forks), the need for ffmpeg, the quality report, real recordings."""

from __future__ import annotations

import csv
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from audio_bytes import TONE, aiff, caf, extensible, flac, float_wav, m4a, mp3, ogg, opus, wav, webm

from lib import audio
from lib.decoding import decoding, decoding_pool, ffmpeg


@pytest.fixture
def fresh_pool():
    while decoding_pool._idle:
        decoding_pool._idle.pop().close()
    yield decoding_pool._idle
    while decoding_pool._idle:
        decoding_pool._idle.pop().close()


@pytest.fixture
def ogg_path(tmp_path):
    path = tmp_path / "tone.ogg"
    path.write_bytes(ogg())
    return path


def pool_ids() -> list[int]:
    return [decoder._process.pid for decoder in decoding_pool._idle]


def test_plain_samples_need_no_process(fresh_pool, tmp_path):
    for index, data in enumerate((wav(), float_wav(TONE), aiff(), caf(), wav(tag=0xFFFE, tail=extensible()))):
        path = tmp_path / str(index)
        path.write_bytes(data)
        assert len(audio.load(path)) == 16_000
    assert not fresh_pool


def test_one_process_serves_many_recordings(fresh_pool, tmp_path):
    for index, data in enumerate((ogg(), flac(), opus(), mp3())):
        path = tmp_path / str(index)
        path.write_bytes(data)
        audio.load(path)
    assert len(fresh_pool) == 1


def test_a_decoder_that_died_while_idle_is_replaced(fresh_pool, ogg_path):
    audio.load(ogg_path)
    (process_id,) = pool_ids()
    os.kill(process_id, signal.SIGKILL)
    assert len(audio.load(ogg_path)) == 12 * 16_000
    assert pool_ids() != [process_id]


def test_a_decoder_that_always_crashes_means_damage(fresh_pool, ogg_path, monkeypatch):
    def crash(self, *_, **__):
        os.kill(self._process.pid, signal.SIGSEGV)
        self._read_line(time.monotonic() + 60)

    monkeypatch.setattr(decoding_pool.Decoder, "decode", crash)
    with pytest.raises(audio.DamagedAudio, match="crashes on it"):
        audio.load(ogg_path)


def test_a_decoder_that_hangs_is_ended(fresh_pool, ogg_path, monkeypatch):
    audio.load(ogg_path)
    (process_id,) = pool_ids()
    os.kill(process_id, signal.SIGSTOP)
    monkeypatch.setattr(decoding, "WALL_SECONDS", -40.0)
    with pytest.raises(audio.DecodeTimeout, match="has not finished"):
        audio.load(ogg_path)
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)
    monkeypatch.undo()
    assert len(audio.load(ogg_path)) == 12 * 16_000


def test_a_decoder_that_computes_for_ever_is_ended_by_the_kernel(fresh_pool, ogg_path):
    with pytest.raises(decoding_pool.DecoderTimeout), decoding_pool.borrow_decoder() as decoder:
        os.kill(decoder._process.pid, signal.SIGXCPU)  # what the kernel sends when RLIMIT_CPU is spent
        decoder.decode(ogg_path, max_frames=10**9, cpu_seconds=2.0, wall_seconds=60.0)
    assert not fresh_pool


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="only Linux shows the limits of a process")
def test_a_decoder_lives_within_limits(fresh_pool, ogg_path):
    audio.load(ogg_path)
    limits = Path(f"/proc/{pool_ids()[0]}/limits").read_text()
    assert re.search(r"Max cpu time +[3-6] ", limits)
    assert re.search(rf"Max address space +{2**31} ", limits)
    assert re.search(r"Max core file size +0 ", limits)
    assert re.search(r"Max file size +0 ", limits)


def test_threads_do_not_mix_their_recordings(fresh_pool, tmp_path):
    paths = []
    for n_tenths in range(2, 11):
        path = tmp_path / f"{n_tenths}.flac"
        path.write_bytes(audio.encode_flac(TONE[: n_tenths * 1_600]))
        paths.append(path)
    with ThreadPoolExecutor(8) as pool:
        lengths = list(pool.map(lambda path: len(audio.load(path)), paths * 5))
    assert lengths == [n_tenths * 1_600 for n_tenths in range(2, 11)] * 5
    assert len(fresh_pool) <= decoding_pool.MAX_IDLE


def test_a_forked_process_starts_its_own_decoder(fresh_pool, ogg_path):
    audio.load(ogg_path)
    process_id = os.fork()
    if process_id == 0:
        os._exit(0 if not decoding_pool._idle and len(audio.load(ogg_path)) == 192_000 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]) == 0
    assert len(audio.load(ogg_path)) == 192_000


@pytest.mark.parametrize("make", [m4a, webm], ids=["m4a", "webm"])
def test_without_ffmpeg_the_message_says_so(tmp_path, monkeypatch, make):
    path = tmp_path / "tone"
    path.write_bytes(make())
    assert audio.inspect(path).duration_seconds == pytest.approx(1.0, abs=0.1)
    monkeypatch.setattr(ffmpeg, "ffmpeg_path", lambda: None)
    with pytest.raises(audio.UnsupportedFormat, match="needs ffmpeg, which is not installed"):
        audio.load(path)


def test_a_clean_recording_has_no_remarks(tmp_path):
    path = tmp_path / "tone.wav"
    path.write_bytes(wav())
    report = audio.examine(path)
    assert report.remarks == []
    assert report.peak_db == pytest.approx(-6.02, abs=0.01)
    assert report.rms_db == pytest.approx(-9.03, abs=0.01)
    assert report.bandwidth_hz == pytest.approx(440, abs=2)
    assert report.info.codec == "PCM_16"


@pytest.mark.parametrize(
    ("samples", "remark"),
    [
        (np.zeros(16_000), "digital silence"),
        (np.clip(4 * TONE, -1, 1), "samples are clipped"),
        (np.clip(4 * TONE, -1, 1) * 0.3, "samples are clipped"),
        (TONE + 0.2, r"DC offset is \+0.20"),
        (TONE * 4, "over full scale"),
        (np.stack([TONE, -TONE], axis=1), "channels cancel"),
    ],
)
def test_the_report_remarks_on_what_load_would_hide(tmp_path, samples, remark):
    path = tmp_path / "tone.wav"
    path.write_bytes(float_wav(samples, channels=samples.ndim))
    remarks = audio.examine(path).remarks
    assert len(remarks) == 1
    assert re.search(remark, remarks[0])


@pytest.mark.real_audio
def test_real_recordings_decode_to_their_known_length(mirror_dir):
    with (mirror_dir / "index.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    suffixes = {row["path"].rsplit(".", 1)[-1]: row for row in rows}
    for row in rows[::20] + list(suffixes.values()):
        path = mirror_dir / row["repository"] / row["commit"] / row["path"]
        waveform = audio.load(path)
        audio.check_waveform(waveform, sample_rate_hz=16_000)
        assert len(waveform) / 16_000 == pytest.approx(float(row["duration_seconds"]), abs=0.002)
        info = audio.inspect(path)
        assert (info.sample_rate_hz, info.channels) == (float(row["sample_rate_hz"]), int(row["channels"]))
