"""Sound from a URL as chunks: cameras (RTSP), radio and other HTTP streams, whatever FFmpeg opens.

A connection that ends, fails or stands still is opened again after growing pauses. The time without sound is a gap:
what comes later stays at its true time.
"""

from __future__ import annotations

import contextlib
import errno
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator

import av
import numpy as np

from lib.audio import to_mono
from temporal_workflow.chunks import RATE, Block

OPEN_SECONDS, READ_SECONDS = 15.0, 10.0  # without an answer, without a packet: the connection counts as lost
PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
BLOCK_SECONDS = 1.0  # several channels become one a block at a time
MONO_SECONDS = 0.2  # what may wait in a block of one channel, and is lost when it stops
GAP_SECONDS = 0.5  # time stamps that run ahead by less are jitter; by more than READ_SECONDS, another clock
PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,srtp,rtsp,rtsps,rtmp,rtmps,rtmpt,mmsh,mmst,srt,hls,crypto,ftp,icecast"
DENIED = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)
# Before any sound came; later they may pass, as a radio station answers "not found" while it restarts.
PERMANENT = (av.error.HTTPClientError, LookupError, av.error.InvalidDataError, FileNotFoundError, PermissionError)
ADVICE = {
    av.error.HTTPUnauthorizedError: "check user and password in the URL",
    av.error.InvalidDataError: "what it sends is no sound that FFmpeg knows",
}


class SourceError(ValueError):
    """The source cannot be listened to, now or later; the message says why."""


class Source:
    """Decodes a URL for as long as it sends.

    Parameters
    ----------
    url : str
        Anything that FFmpeg opens; user and password in it are never shown.
    stop : threading.Event
        Ends `blocks`.
    note : callable
        Told in plain words when the connection is lost and when sound comes again.
    """

    def __init__(self, url: str, stop: threading.Event, note: Callable[[str], None]) -> None:
        self.url, self._stop, self._note = url, stop, note
        self.shown = re.sub(r"//.*@", "//", re.sub(r"//[^/]*@", "//", url).partition("?")[0])  # a / may be in it
        self._origin: float | None = None  # of the stream's time, on the monotonic clock
        self._waiting: list[np.ndarray] = []  # samples (n_samples, n_channels) that make the next block
        self._end = 0.0  # of the sound so far, in seconds of the stream

    def blocks(self) -> Iterator[Block]:
        """Yield 16 kHz mono blocks until the source ends for good or `stop` is set.

        Raises
        ------
        SourceError
            If it makes no sense to try again.
        """
        n_failed = 0
        while not self._stop.is_set():
            before, reason, is_over = self._end, "the stream ended", False
            try:
                is_over = yield from self._listen()
            except (av.error.FFmpegError, OSError) as error:
                if isinstance(error, PERMANENT if self._origin is None else DENIED):
                    advice = next((text for kind, text in ADVICE.items() if isinstance(error, kind)), "")
                    raise SourceError(f"{self.shown}: {_what(error)}{advice and f': {advice}'}.") from None
                reason = _what(error)
            yield from self._flush()
            if is_over:
                return
            n_failed = 0 if self._end > before else n_failed + 1
            pause = PAUSES_SECONDS[min(n_failed, len(PAUSES_SECONDS) - 1)]
            self._note(f"{self.shown}: {reason}; connecting again in {pause:g} s")
            self._stop.wait(pause)

    def _listen(self) -> Generator[Block, None, bool]:
        """Decode one connection to its end; return whether the source ends with it, as a file does and a stream not."""
        whitelist = PROTOCOLS if "://" in self.url else "file,pipe,fd"
        options = {"protocol_whitelist": whitelist, "rtsp_flags": "prefer_tcp"}
        with av.open(
            self.url, options=options, timeout=(OPEN_SECONDS, READ_SECONDS), metadata_errors="replace"
        ) as given:
            if not given.streams.audio or given.streams.audio[0].codec_context is None:
                raise SourceError(f"{self.shown}: it has no sound track that can be decoded.")
            offset = None  # from the connection's time stamps to the stream's time
            for stamp, samples in _frames(given):
                offset = self._resume() - stamp if offset is None else offset
                ahead = stamp + offset - self._end
                if GAP_SECONDS < ahead <= READ_SECONDS:
                    yield from self._flush()
                    self._end += ahead
                elif abs(ahead) > GAP_SECONDS:  # another clock
                    offset -= ahead
                if self._waiting and self._waiting[-1].shape[1] != samples.shape[1]:  # mono after stereo
                    yield from self._flush()
                self._waiting.append(samples)
                self._end += len(samples) / RATE
                if sum(map(len, self._waiting)) >= (MONO_SECONDS if samples.shape[1] == 1 else BLOCK_SECONDS) * RATE:
                    yield from self._flush()
                if self._stop.is_set():
                    break
            return given.size > 0 or self._stop.is_set()

    def _flush(self) -> Iterator[Block]:
        if self._waiting:
            block = to_mono(np.concatenate(self._waiting), RATE)
            self._waiting.clear()
            yield max(self._end - len(block) / RATE, 0.0), block

    def _resume(self) -> float:
        """Return the time of the stream at which a connection's sound begins."""
        now = time.monotonic()
        if self._origin is None:
            self._origin = now
        elif (gap := now - self._origin - self._end) > GAP_SECONDS:
            self._note(f"{self.shown}: sound again, after {gap:.1f} s without any from {self._end:.1f} s on")
            self._end += gap
        return self._end


def _frames(given: av.container.InputContainer) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (time stamp in seconds, 16 kHz samples (n_samples, n_channels)); packets that do not decode are skipped."""
    key, resampler, stop, heard_at = None, av.AudioResampler(), 0.0, time.monotonic()
    for packet in given.demux(given.streams.audio[0]):
        with contextlib.suppress(av.error.InvalidDataError):
            for frame in packet.decode():
                heard_at = time.monotonic()
                if key != (key := (frame.sample_rate, frame.layout.name, frame.format.name)):
                    resampler = av.AudioResampler("flt", layout=frame.layout.name, rate=RATE)
                stamp = stop if frame.pts is None else float(frame.pts * (frame.time_base or 0))
                for each in resampler.resample(frame):
                    yield stamp, each.to_ndarray().reshape(-1, each.layout.nb_channels)
                stop = stamp + frame.samples / frame.sample_rate
        if time.monotonic() - heard_at > READ_SECONDS:
            raise TimeoutError(f"no packet has decoded for {READ_SECONDS:g} s")


def _what(error: BaseException) -> str:
    if isinstance(error, av.error.ExitError):
        return f"nothing came for {READ_SECONDS:g} s"
    if getattr(error, "errno", None) == errno.EIO:  # FFmpeg's word for it
        return "the connection broke"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
