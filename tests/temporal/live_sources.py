"""Live sources for tests: an HTTP radio station and an RTSP camera on 127.0.0.1, which hang up on their listeners."""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np

AWAY_SECONDS = 40.0  # from one connection to the next, by the clock of these sources
CLOCK = SimpleNamespace(seconds=0.0)  # runs with the sound that is sent, however busy the machine is


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def __init__(self, handler: type, programmes: list[tuple[bytes, float]], *, status: str, hold: float) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.programmes = programmes  # (bytes, seconds of sound) for each connection in turn
        self.status, self.hold = status, hold
        self.n_connections = 0
        self.lock = threading.Lock()

    def next_programme(self) -> tuple[bytes, float]:
        with self.lock:
            self.n_connections += 1
            CLOCK.seconds += AWAY_SECONDS
            return self.programmes[min(self.n_connections, len(self.programmes)) - 1]

    def handle_error(self, request, client_address) -> None:
        """A listener that hung up is part of the test."""


class Radio(socketserver.StreamRequestHandler):
    """Sends a file, without its length unless it lasts 0 s, then hangs up."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        data, seconds = self.server.next_programme()
        length = "" if seconds else f"Content-Length: {len(data)}\r\n"
        self.wfile.write(f"HTTP/1.0 {self.server.status}\r\nContent-Type: audio/x-any\r\n{length}\r\n".encode())
        for part in np.array_split(np.frombuffer(data, np.uint8), round(5 * seconds) or 1):
            self.wfile.write(part.tobytes())
            CLOCK.seconds += 0.2
            time.sleep(0.002)
        time.sleep(self.server.hold)


class Camera(socketserver.StreamRequestHandler):
    """Speaks as much RTSP as FFmpeg asks for, and sends PCMU packets of 20 ms over the same connection."""

    def handle(self) -> None:
        status, playing = self.server.status, False
        while not playing and (line := self.rfile.readline().decode()):
            headers = dict(
                each.decode().strip().split(": ", 1) for each in iter(self.rfile.readline, b"\r\n") if b": " in each
            )
            method, playing = line.split()[0], line.startswith("PLAY")
            sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\na=control:track1\r\n"
            body = sdp if method == "DESCRIBE" and status == "200 OK" else ""
            self.wfile.write(
                f"RTSP/1.0 {status}\r\nCSeq: {headers['CSeq']}\r\nPublic: DESCRIBE, SETUP, PLAY\r\nSession: 1\r\n"
                "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nContent-Type: application/sdp\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
        data, seconds = self.server.next_programme()
        for index in range(round(seconds * 50)):
            packet = struct.pack(">BBHII", 0x80, 0, index, index * 160, 7) + data[index * 160 : (index + 1) * 160]
            self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)
            CLOCK.seconds += 0.02
            time.sleep(0.0002)


def mulaw(waveform: np.ndarray) -> bytes:
    """8 kHz samples (n_samples,) in [-1, 1] as G.711 mu-law."""
    magnitudes = np.minimum(np.abs(waveform * 32767).astype(int) + 132, 32767)
    exponents = np.floor(np.log2(magnitudes)).astype(int) - 7
    mantissas = (magnitudes >> (exponents + 3)) & 15
    return (~(np.where(waveform < 0, 128, 0) | (exponents << 4) | mantissas) & 255).astype(np.uint8).tobytes()


@contextlib.contextmanager
def on_air(handler: type, *programmes: tuple[bytes, float], status="200 OK", hold=0.0) -> Iterator[str]:
    """Run a source for the length of a with block; yield its host and port. It stands still for `hold` seconds."""
    with _Server(handler, list(programmes), status=status, hold=hold) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
