"""Chunks from the live microphone, through the optional package sounddevice.

The device is read by a thread of its own, so that a slow sender costs no sound. Times follow the clock: sound that
the device dropped is a gap, and what comes later stays at its true time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import soxr

from lib import config
from temporal_workflow.chunks import RATE, Block

BLOCK_SECONDS = 0.5
OVERFLOW_SECONDS, LATE_SECONDS = 0.05, 1.0  # behind the clock: lost where the device says so, and in any case


class NoMicrophone(OSError):  # noqa: N818 - named for what is wrong
    """No microphone, no package to read it with, or it went away; the message says what to do."""


def open_microphone(device: str | None = None) -> Any:
    """Return sounddevice's input stream, not yet started: mono float32 at 16 kHz, or at the device's own rate.

    `device`: its number, or words of its name; None: the system's.

    Raises
    ------
    NoMicrophone
        If the package, PortAudio or a microphone is missing.
    """
    try:
        import sounddevice
    except ImportError:
        raise NoMicrophone("the microphone needs the package sounddevice: pip install sounddevice.") from None
    except OSError as error:
        raise NoMicrophone(f"sounddevice finds no PortAudio ({error}): apt-get install libportaudio2.") from None

    wanted = int(device) if device and device.isdecimal() else device  # text is looked for in names

    def opened(rate_hz: float) -> Any:
        n_block = round(BLOCK_SECONDS * rate_hz)
        return sounddevice.InputStream(
            samplerate=rate_hz, channels=1, dtype="float32", blocksize=n_block, device=wanted
        )

    try:
        try:
            return opened(config.SAMPLE_RATE_HZ)
        except sounddevice.PortAudioError:  # many devices know 44.1 and 48 kHz alone
            return opened(sounddevice.query_devices(wanted, "input")["default_samplerate"])
    except (sounddevice.PortAudioError, ValueError) as error:
        raise NoMicrophone(f"no microphone can be opened ({error}): `python -m sounddevice` lists devices.") from None


def recorded(microphone: Any, stop: threading.Event) -> Iterator[Block]:
    """Yield 16 kHz blocks until `stop` is set; NoMicrophone if the device fails.

    `microphone`: a context manager with `read(n_samples)` -> (samples (n, 1), whether some were dropped).
    """
    try:
        with microphone:
            yield from _at_16_khz(microphone, stop)
    except Exception as error:  # PortAudioError, of a package that need not be there
        raise NoMicrophone(f"the microphone is gone ({error}): plug it in and start again.") from None


def _at_16_khz(microphone: Any, stop: threading.Event) -> Iterator[Block]:
    """Resample what was read without a gap as one piece."""
    resampler, start, n_done, rate_hz = None, 0.0, 0, microphone.samplerate
    for seconds, samples in _read(microphone, stop):
        if resampler is None or seconds is not None:
            resampler, start, n_done = soxr.ResampleStream(rate_hz, RATE, 1), seconds or 0.0, 0
        block = samples if rate_hz == RATE else resampler.resample_chunk(samples)
        yield start + n_done / RATE, np.clip(block, -1, 1)
        n_done += len(block)


def _read(microphone: Any, stop: threading.Event) -> Iterator[tuple[float | None, np.ndarray]]:
    """Yield blocks as the device gives them, the first one after a gap with its start by the clock."""
    rate_hz = microphone.samplerate
    began, read_seconds, usual = time.monotonic(), 0.0, None
    while not stop.is_set():
        samples, overflowed = microphone.read(round(BLOCK_SECONDS * rate_hz))
        waiting = getattr(microphone, "read_available", 0) / rate_hz
        late = time.monotonic() - began - read_seconds - len(samples) / rate_hz - waiting
        usual = late if usual is None else usual  # what the device needs to start
        jump = late - usual if late - usual > (OVERFLOW_SECONDS if overflowed else LATE_SECONDS) else 0.0
        usual += 0 if jump else 0.05 * (late - usual)  # two clocks never run alike
        read_seconds += jump
        yield (read_seconds if jump else None), np.nan_to_num(samples[:, 0]).astype(np.float32)
        read_seconds += len(samples) / rate_hz
