"""Live sound: URLs that end, hang up, stand still or refuse, and a microphone that drops sound or is unplugged."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from audio_bytes import by_av, film_alone, tone, wav
from live_sources import AWAY_SECONDS, CLOCK, Camera, Radio, mulaw, on_air

from lib import audio
from temporal_workflow import listening, microphone
from temporal_workflow.chunks import Block, live_parts, send_live
from temporal_workflow.listening import Source, SourceError
from temporal_workflow.microphone import NoMicrophone, open_microphone
from temporal_workflow.store import ChunkStore


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(listening, "time", SimpleNamespace(monotonic=lambda: CLOCK.seconds))
    monkeypatch.setattr(listening, "PAUSES_SECONDS", (0.05,))


def cut(blocks: Iterable[Block], stop: threading.Event, folder: Path, *, max_chunks=None, stop_after=None) -> list:
    """Return (start, seconds, seconds of context, pitch in Hz) of each chunk of 5 s, and why the microphone is gone."""
    store, rows = ChunkStore(folder), []

    async def collect() -> None:
        async for chunk in send_live(store, blocks, stop, stream_id="s", chunk_seconds=5.0):
            waveform = audio.load(store.path(chunk.sha256))
            assert abs(waveform).max() <= 1
            pitch_hz = np.abs(np.fft.rfft(waveform)).argmax() * 16_000 / len(waveform)
            n_context = chunk.n_context_samples / 16_000
            rows.append((chunk.start_seconds, chunk.stop_seconds - chunk.start_seconds, n_context, pitch_hz))
            if len(rows) == stop_after:
                stop.set()
            if len(rows) == max_chunks:
                break

    try:
        asyncio.run(asyncio.wait_for(collect(), 60))
    except NoMicrophone as error:
        rows.append(str(error))
    return rows


def heard(url: str, folder: Path, **until: int) -> tuple[list, list[str]]:
    """Listen to a URL; return the chunks and the notes."""
    stop, notes = threading.Event(), []
    return cut(Source(url, stop, notes.append).blocks(), stop, folder, **until), notes


def endless_wav(rate_hz: int, seconds: float, channels: int = 1) -> bytes:
    samples = (tone(rate_hz, seconds, channels).T * 32767).astype("<i2").tobytes()
    return wav(samples, rate_hz=rate_hz, channels=channels, data_size=0xFFFFFFFF)


PROGRAMMES = {
    "mp3": by_av("mp3", "libmp3lame", 44_100, "stereo", 7.0),
    "opus": by_av("ogg", "libopus", 48_000, "mono", 7.0),
    "wav": endless_wav(22_050, 7.0),
    "aac": by_av("adts", "aac", 16_000, "mono", 7.0),
    "film": by_av("mpegts", "aac", 48_000, "stereo", 7.0, film=True),
    "mono after stereo": b"".join(by_av("adts", "aac", 16_000, layout, 3.5) for layout in ("stereo", "mono")),
}


@pytest.mark.parametrize("kind", PROGRAMMES)
def test_a_station_that_hangs_up_is_a_gap_and_the_clock_holds(kind, tmp_path):
    with on_air(Radio, (PROGRAMMES[kind], 7.0)) as address:
        rows, notes = heard(f"http://user:secret@{address}/live?token=1", tmp_path, max_chunks=4)
    starts = [row[0] for row in rows]
    assert starts[:2] == [0.0, 5.0]
    assert [row[1] for row in rows] == pytest.approx([5.0, 2.0, 5.0, 2.0], abs=0.2)
    assert [row[2] for row in rows] == [0.0, 5.0, 0.0, 5.0]  # no context across the gap
    assert starts[2] == pytest.approx(7.0 + AWAY_SECONDS, abs=8.0)  # the sound may wait before it is read
    assert all(row[3] == pytest.approx(440, abs=5) for row in rows)
    assert "; connecting again in 0.05 s" in notes[0]
    assert f"sound again, after {starts[2] - starts[1] - rows[1][1]:.1f} s without any" in notes[1]
    assert not any("secret" in note or "token" in note for note in notes)


def test_a_camera_is_heard_and_connected_again(tmp_path):
    sound = mulaw(0.5 * np.sin(2 * np.pi * 440 * np.arange(8 * 8_000) / 8_000))
    with on_air(Camera, (sound, 6.0), (sound, 8.0)) as address:
        rows, notes = heard(f"rtsp://{address}/live", tmp_path, max_chunks=3)
    assert [row[1] for row in rows] == pytest.approx([5.0, 1.0, 5.0], abs=0.2)
    assert rows[2][0] == pytest.approx(6.0 + AWAY_SECONDS, abs=8.0)
    assert all(row[3] == pytest.approx(440, abs=5) for row in rows)
    assert "connecting again" in notes[0]
    assert "sound again" in notes[1]


def test_stopping_ends_it_at_once(tmp_path):
    with on_air(Radio, (endless_wav(8_000, 400.0), 400.0)) as address:
        rows, notes = heard(f"http://{address}/", tmp_path, stop_after=1)
    assert [row[0] for row in rows] == [5.0 * index for index in range(len(rows))]
    assert len(rows) < 80
    assert notes == []


def test_a_source_that_stands_still_is_connected_again(tmp_path, monkeypatch):
    monkeypatch.setattr(listening, "READ_SECONDS", 0.5)
    with on_air(Radio, (PROGRAMMES["wav"], 7.0), hold=5.0) as address:
        rows, notes = heard(f"http://{address}/", tmp_path, max_chunks=3)
    assert "nothing came for 0.5 s; connecting again" in notes[0]
    assert rows[2][0] > 30.0


@pytest.mark.parametrize(
    ("handler", "url", "status", "programme", "says"),
    [
        (Radio, "http://u:p@pw@{}/a", "401 Unauthorized", b"", "check user and password"),
        (Radio, "http://{}/a", "404 Not Found", b"", "404 Not Found"),
        (Radio, "http://{}/a", "200 OK", b"<html>no sound</html>" * 100, "no sound that FFmpeg knows"),
        (Radio, "http://{}/a", "200 OK", film_alone("mpegts"), "no sound track"),
        (Radio, "gopherx://{}/a", "200 OK", b"", "rotocol not found"),
        (Camera, "rtsp://{}/a", "401 Unauthorized", b"", "check user and password"),
        (Camera, "rtsp://{}/a", "404 Not Found", b"", "404 Not Found"),
    ],
)
def test_what_cannot_work_is_said_at_once(handler, url, status, programme, says, tmp_path):
    start = time.monotonic()
    with on_air(handler, (programme, 0.0), status=status) as address, pytest.raises(SourceError) as caught:
        heard(url.format(address), tmp_path)
    assert says in str(caught.value)
    assert "pw" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("user", ["u:hidden@", "u:hid/den@", "u:hid?den@"])
def test_a_password_is_never_shown_however_it_is_written(user):
    assert Source(f"rtsp://{user}camera/a?b=c", threading.Event(), print).shown == "rtsp://camera/a"


def test_a_file_ends(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(rate_hz=16_000))
    rows, notes = heard(str(tmp_path / "a.wav"), tmp_path / "store")
    assert [(row[0], row[1]) for row in rows] == [(0.0, 1.0)]
    assert notes == []


def test_live_sound_is_cut_by_the_clock():
    ones = np.ones(16_000, np.float32)
    blocks = [(float(second), second * ones) for second in (0, 1, 2, 3, 4, 5, 6, 20, 21, 30, 31)]
    parts = list(live_parts([*blocks, (40.0, ones[:1000])], chunk_seconds=5.0))
    assert [(part.start / 16_000, len(part.waveform) / 16_000, part.n_context / 16_000) for part in parts] == [
        (0.0, 5.0, 0.0),
        (5.0, 7.0, 5.0),
        (20.0, 2.0, 0.0),
        (30.0, 2.0, 0.0),  # the last 0.06 s are too short to be judged
    ]
    assert parts[1].waveform[-1] == 6
    assert parts[2].waveform[0] == 20


class PortAudioError(Exception):
    """sounddevice's."""


class Device:
    """Reads like sounddevice's InputStream, on a clock of its own: a tone, with whatever is planned by block."""

    def __init__(self, *, samplerate: float = 16_000, plan: dict[int, object] | None = None, **_: object) -> None:
        self.samplerate, self.plan = samplerate, plan or {}
        self.seconds, self.n_blocks, self.opened = 0.0, 0, 0

    def __enter__(self) -> Device:
        self.opened += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.opened -= 1

    def read(self, n_samples: int) -> tuple[np.ndarray, bool]:
        planned = self.plan.get(self.n_blocks, 0.0)
        self.n_blocks += 1
        if isinstance(planned, threading.Event):
            planned.set()
        elif isinstance(planned, str):
            raise PortAudioError(planned)
        else:
            self.seconds += planned
        self.seconds += n_samples / self.samplerate
        times = np.arange(n_samples) / self.samplerate
        samples = (0.5 * np.sin(2 * np.pi * 500 * times)).astype(np.float32)[:, None]
        samples[:2, 0] = 3.0, np.nan
        return samples, isinstance(planned, float) and planned > 0


def recorded(device: Device, folder: Path, monkeypatch) -> list[tuple[float, float] | str]:
    """Record until the planned end; return (start, seconds) of each chunk and the error."""
    monkeypatch.setattr(microphone, "time", SimpleNamespace(monotonic=lambda: device.seconds))
    stop = next((each for each in device.plan.values() if isinstance(each, threading.Event)), threading.Event())
    rows = cut(microphone.recorded(device, stop), stop, folder)
    assert device.opened == 0
    error = [rows.pop()] if isinstance(rows[-1], str) else []
    assert [row[3] for row in rows] == pytest.approx([500] * len(rows), abs=1)
    return [(row[0], round(row[1], 2)) for row in rows] + error


UNPLUGGED = "the microphone is gone (Device unavailable): plug it in and start again."


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ({13: threading.Event()}, [(0.0, 5.0), (5.0, 2.0)]),  # stopped: the last chunk is the sound in hand
        ({14: 7.0, 30: threading.Event()}, [(0.0, 5.0), (5.0, 2.0), (14.0, 5.0), (19.0, 3.5)]),  # 7 s are dropped
        ({13: "Device unavailable"}, [(0.0, 5.0), (5.0, 1.5), UNPLUGGED]),
    ],
)
def test_what_a_device_does_is_a_gap_or_an_end_at_its_true_time(tmp_path, monkeypatch, plan, expected) -> None:
    assert recorded(Device(plan=plan), tmp_path, monkeypatch) == expected


def test_a_device_named_by_its_number_that_refuses_16_khz_is_resampled(tmp_path, monkeypatch) -> None:
    def opened(*, samplerate: float, **options: object) -> Device:
        assert options["device"] == 3
        if samplerate == 16_000:
            raise PortAudioError("Invalid sample rate")
        return Device(samplerate=samplerate, **options)

    fake = SimpleNamespace(
        InputStream=opened, PortAudioError=PortAudioError, query_devices=lambda *_: {"default_samplerate": 44_100.0}
    )
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    device = open_microphone("3")
    assert device.samplerate == 44_100
    device.plan[13] = threading.Event()
    assert recorded(device, tmp_path, monkeypatch) == [(0.0, 5.0), (5.0, 1.98)]  # the resampler holds the rest


def test_no_microphone_is_said_clearly(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(NoMicrophone, match="pip install sounddevice"):
        open_microphone()
