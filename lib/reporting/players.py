"""Sound in pages: data addresses, and MP3, which every browser plays."""

from __future__ import annotations

import base64
import io
import re

import av
import numpy as np

from lib import config

MP3_BITS_PER_SECOND = 32_000
NOTEBOOK_BITS_PER_SECOND = 64_000  # a lesson's players show what processing does to a sound
_WAV = re.compile(r"data:audio/(?:x-)?wav;base64,([A-Za-z0-9+/=\s]+)")


def address(kind: str, data: bytes) -> str:
    """Return bytes of a media type as a data address."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def encode_mp3(
    waveform: np.ndarray,
    *,
    sample_rate_hz: int = config.SAMPLE_RATE_HZ,
    bits_per_second: int = MP3_BITS_PER_SECOND,
) -> bytes:
    """Return a waveform (n_samples,) as MP3, which every browser plays: 4 kB per second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as file:
        stream = file.add_stream("libmp3lame", rate=sample_rate_hz, layout="mono")
        stream.bit_rate = bits_per_second
        frame = av.AudioFrame.from_ndarray(waveform[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = sample_rate_hz
        file.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()


def smaller(html: str) -> str:
    """Return a page's HTML with its embedded WAV sounds as MP3; one that cannot be read stays as it is."""
    return _WAV.sub(lambda match: _smaller(match) or match[0], html)


def _smaller(match: re.Match[str]) -> str:
    import soundfile

    try:
        samples, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(match[1])), dtype="float32", always_2d=True)
        sound = encode_mp3(samples.mean(axis=1), sample_rate_hz=rate_hz, bits_per_second=NOTEBOOK_BITS_PER_SECOND)
    except (ValueError, OSError, RuntimeError):  # not Base64, not WAV, a rate that MP3 does not have
        return ""
    return address("audio/mpeg", sound)
