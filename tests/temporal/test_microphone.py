"""The microphone: a device that drops sound, is unplugged, refuses 16 kHz, or gives samples that are none."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lib import audio
from temporal_workflow import microphone
from temporal_workflow.chunks import send_live
from temporal_workflow.microphone import NoMicrophone, open_microphone
from temporal_workflow.store import ChunkStore


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
    """Record chunks of 5 s; return (start, seconds) of each and the error, and check what they hold."""
    monkeypatch.setattr(microphone, "time", SimpleNamespace(monotonic=lambda: device.seconds))
    store, rows = ChunkStore(folder), []

    async def collect() -> None:
        ends = next((each for each in device.plan.values() if isinstance(each, threading.Event)), threading.Event())
        given = {"stream_id": "s", "chunk_seconds": 5.0}
        try:
            async for chunk in send_live(store, microphone.recorded(device, ends), ends, **given):
                waveform = audio.load(store.path(chunk.sha256))
                assert abs(waveform).max() <= 1
                assert abs(np.abs(np.fft.rfft(waveform)).argmax() * 16_000 / len(waveform) - 500) < 1
                rows.append((chunk.start_seconds, round(chunk.stop_seconds - chunk.start_seconds, 2)))
        finally:
            assert device.opened == 0

    try:
        asyncio.run(asyncio.wait_for(collect(), 30))
    except NoMicrophone as error:
        rows.append(str(error))
    return rows


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


def test_a_device_that_refuses_16_khz_is_resampled(tmp_path, monkeypatch) -> None:
    def opened(*, samplerate: float, **options: object) -> Device:
        if samplerate == 16_000:
            raise PortAudioError("Invalid sample rate")
        return Device(samplerate=samplerate, **options)

    fake = SimpleNamespace(
        InputStream=opened, PortAudioError=PortAudioError, query_devices=lambda *_: {"default_samplerate": 44_100.0}
    )
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    device = open_microphone()
    assert device.samplerate == 44_100
    device.plan[13] = threading.Event()
    assert recorded(device, tmp_path, monkeypatch) == [(0.0, 5.0), (5.0, 1.98)]  # the resampler holds the rest


def test_no_microphone_is_said_clearly(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(NoMicrophone, match="pip install sounddevice"):
        open_microphone()
