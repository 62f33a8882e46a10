"""Chunks from the live microphone, through the optional package sounddevice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from lib import config
from temporal_workflow import shared
from temporal_workflow.chunks import CONTEXT_SAMPLES, put_waveform
from temporal_workflow.store import ChunkStore

BLOCK_SECONDS = 0.5


class NoMicrophone(OSError):  # noqa: N818 - named for what is wrong
    """No microphone, or no package to read it with; the message says what to do."""


def open_microphone(device: str | None = None) -> Any:
    """Return sounddevice's input stream: mono float32 at 16 kHz, not yet started.

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
    try:
        return sounddevice.InputStream(
            samplerate=config.SAMPLE_RATE_HZ,
            channels=1,
            dtype="float32",
            blocksize=round(BLOCK_SECONDS * config.SAMPLE_RATE_HZ),
            device=device,
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise NoMicrophone(f"no microphone can be opened ({error}): `python -m sounddevice` lists devices.") from None


async def record(
    store: ChunkStore,
    *,
    stream_id: str,
    microphone: Any,
    chunk_seconds: float = 10.0,
    max_chunks: int | None = None,
) -> AsyncIterator[shared.ChunkReference]:
    """Yield one chunk after the other until `max_chunks`, or until the task is cancelled.

    `microphone` is what `open_microphone` returns: a context manager with `read(n_samples)` -> (samples (n, 1), bool).
    """
    n_samples = round(chunk_seconds * config.SAMPLE_RATE_HZ)
    context = np.empty(0, np.float32)
    sequence = 0
    with microphone:
        while max_chunks is None or sequence < max_chunks:
            samples, _overflowed = await asyncio.to_thread(microphone.read, n_samples)
            waveform = np.concatenate([context, np.clip(np.nan_to_num(samples[:, 0]), -1, 1).astype(np.float32)])
            yield await asyncio.to_thread(
                put_waveform,
                store,
                waveform,
                stream_id=stream_id,
                sequence=sequence,
                start_seconds=sequence * chunk_seconds,
                n_context_samples=len(context),
            )
            context = waveform[-CONTEXT_SAMPLES:]
            sequence += 1
