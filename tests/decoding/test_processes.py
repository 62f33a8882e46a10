"""The decoder processes: crashes, hangs, limits, threads, forks; and streams of any length."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from audio_bytes import TONE, by_av, extensible, flac, float_wav, m4a, mp3, ogg, opus, wav

from lib import audio
from lib.decoding import decode


@pytest.fixture
def fresh_pool():
    for decoder in (decode._idle.pop() for _ in range(len(decode._idle))):
        decoder.close()
    return decode._idle


@pytest.fixture
def ogg_path(tmp_path):
    path = tmp_path / "tone.ogg"
    path.write_bytes(ogg())
    return path


def pool_ids() -> list[int]:
    return [decoder.process.pid for decoder in decode._idle]


def test_plain_samples_need_no_process(fresh_pool, tmp_path):
    for index, data in enumerate((wav(), float_wav(TONE), wav(tag=0xFFFE, tail=extensible()))):
        path = tmp_path / str(index)
        path.write_bytes(data)
        assert len(audio.load(path)) == 16_000
    assert not fresh_pool


def test_one_process_serves_many_recordings_and_refusals(fresh_pool, tmp_path):
    for index, data in enumerate((ogg(), flac(), opus(), mp3(), m4a(), b"no sound", m4a()[:5000])):
        path = tmp_path / str(index)
        path.write_bytes(data)
        if index < 5:
            audio.load(path)
            audio.inspect(path)
        else:
            with pytest.raises(audio.AudioError):
                audio.load(path)
        assert len(set(pool_ids())) == 1


def test_a_decoder_that_died_while_idle_is_replaced(fresh_pool, ogg_path):
    audio.load(ogg_path)
    (process_id,) = pool_ids()
    os.kill(process_id, signal.SIGKILL)
    assert len(audio.load(ogg_path)) == 12 * 16_000
    assert pool_ids() != [process_id]


def test_a_decoder_that_always_crashes_means_damage(fresh_pool, ogg_path, monkeypatch):
    def crash(self, *_, **__):
        os.kill(self.process.pid, signal.SIGSEGV)
        return self.receive(60)

    monkeypatch.setattr(decode.Decoder, "ask", crash)
    with pytest.raises(audio.DamagedAudio, match="crashes on it"):
        audio.load(ogg_path)


def test_a_decoder_that_hangs_is_ended(fresh_pool, ogg_path, monkeypatch):
    audio.load(ogg_path)
    (process_id,) = pool_ids()
    os.kill(process_id, signal.SIGSTOP)
    monkeypatch.setattr(decode, "WALL_SECONDS", 0.1)
    with pytest.raises(audio.DamagedAudio, match="has not finished"):
        audio.load(ogg_path)
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)
    monkeypatch.undo()
    assert len(audio.load(ogg_path)) == 12 * 16_000


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="only Linux shows the limits of a process")
def test_a_decoder_lives_within_limits(fresh_pool, ogg_path):
    audio.load(ogg_path)
    limits = Path(f"/proc/{pool_ids()[0]}/limits").read_text()
    assert re.search(rf"Max address space +{2**31} ", limits)
    assert re.search(r"Max core file size +0 ", limits)
    assert re.search(r"Max file size +0 ", limits)


def test_threads_do_not_mix_their_recordings(fresh_pool, tmp_path):
    paths = []
    for n_tenths in range(2, 11):
        path = tmp_path / f"{n_tenths}.flac"
        path.write_bytes(audio.encode_flac(TONE[: n_tenths * 1_600]))
        paths.append(path)
    with ThreadPoolExecutor(4) as threads:
        lengths = list(threads.map(lambda path: len(audio.load(path)), paths * 2))
    assert lengths == [n_tenths * 1_600 for n_tenths in range(2, 11)] * 2
    assert len(fresh_pool) <= decode.MAX_IDLE


def test_a_forked_process_starts_its_own_decoder(fresh_pool, ogg_path):
    audio.load(ogg_path)
    process_id = os.fork()
    if process_id == 0:
        os._exit(0 if not decode._idle and len(audio.load(ogg_path)) == 192_000 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]) == 0
    assert len(audio.load(ogg_path)) == 192_000


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("how", [("wav", "pcm_s16le"), ("ipod", "aac"), ("flac", "flac")])
def test_the_blocks_of_a_stream_are_the_recording(tmp_path, rate_hz, how):
    (tmp_path / "a").write_bytes(by_av(*how, rate_hz, "stereo", 33.3))
    stream = audio.stream(tmp_path / "a")
    blocks = list(stream)
    assert max(map(len, blocks)) <= 11 * 16_000
    assert np.array_equal(np.concatenate(blocks), audio.load(tmp_path / "a"))
    assert np.array_equal(np.concatenate(list(stream)), np.concatenate(blocks))  # once more
    assert stream.remarks == []


def test_a_stream_that_is_left_half_way_leaves_no_process(fresh_pool, tmp_path):
    (tmp_path / "a").write_bytes(by_av("ipod", "aac", seconds=60.0))
    for _ in audio.stream(tmp_path / "a"):
        break
    assert not fresh_pool


def test_six_hours_stream_in_blocks_and_are_too_long_for_memory(tmp_path):
    n_bytes = 6 * 3600 * 4_000
    path = tmp_path / "night.wav"
    path.write_bytes(wav(b"", rate_hz=4_000, bits=8, data_size=n_bytes))
    os.truncate(path, 44 + n_bytes)
    with pytest.raises(audio.TooLong, match="lib.audio.stream"):
        audio.load(path)
    n_samples, start = 0, time.monotonic()
    for block in audio.stream(path):
        n_samples += len(block)
        if time.monotonic() - start > 5:
            break
    else:
        assert n_samples == 6 * 3600 * 16_000
    assert n_samples > 16_000 * 60


def test_loud_floats_are_turned_down_from_where_they_occur(tmp_path):
    samples = np.concatenate([np.tile(TONE, 20), 8 * np.tile(TONE, 20)])
    (tmp_path / "a.wav").write_bytes(float_wav(samples))
    waveform = np.concatenate(list(audio.stream(tmp_path / "a.wav")))
    assert np.abs(waveform).max() <= 1
    assert np.abs(waveform[:160_000]).max() == pytest.approx(0.5, abs=0.01)
    assert np.abs(waveform[-16_000:]).max() == pytest.approx(1.0, abs=0.01)


@pytest.fixture
def folder(tmp_path):
    """One of each kind: recordings, other files, hidden ones, an empty folder, a link, and one that may not be read."""
    for name in ("b.wav", "a.MOV", "notes.txt", ".hidden.wav", "deeper/c.opus", ".git/d.wav", "locked/e.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "deeper")
    (tmp_path / "locked").chmod(0)
    yield tmp_path
    (tmp_path / "locked").chmod(0o700)


@pytest.fixture
def no_root(monkeypatch):
    """Root may read every folder: it is refused what another user would be."""
    scandir = os.scandir

    def scan(path):
        if not Path(path).stat().st_mode & 0o400:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


def test_a_folder_names_what_it_passes_over(folder, no_root):
    files, skipped = audio.expand([folder, folder / "notes.txt", folder / "empty"])
    assert [path.name for path in files] == ["a.MOV", "b.wav", "c.opus", "notes.txt"]
    names = [line.split(": ")[0].rsplit("/", 1)[-1] for line in skipped]
    assert names == ["link", "locked", "notes.txt", "empty"]
    assert "Permission denied" in skipped[1]
    with pytest.raises(audio.MissingAudio, match="empty"):  # it would mean the current folder
        audio.expand([""])


@pytest.mark.parametrize("module", ["lib.inference", "temporal_workflow.client"])
def test_a_folder_with_nothing_to_classify_says_so_and_fails(module, folder, no_root, capsys):
    for path in (folder / "a.MOV", folder / "b.wav", folder / "deeper" / "c.opus"):
        path.unlink()
    command = ["submit"] if module.endswith("client") else []
    assert importlib.import_module(module).main([*command, str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.count("skipped: ") == 4  # the text, the link, the locked folder, and that there is no recording
    assert "notes.txt: not the name of a sound file" in said
    assert "locked: it cannot be read (Permission denied)" in said
    assert "no audio files there" in said
