"""An HTTP server on 127.0.0.1 for tests: serves bytes by path, resumes, and misbehaves as it is told to."""

import contextlib
import socket
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

DRIP_BYTES, DRIP_SECONDS = 200, 0.05


class MisbehavingServer(ThreadingHTTPServer):
    """`files` maps paths to bytes (or a function of the path gives them); `faults` to what goes wrong, in turn.

    Faults: "404", "500", "429 <Retry-After>", "cut" (half, then gone), "wrong" (other bytes of the same length),
    "long" (too many bytes), "short" (fewer, and a header that says so), "drip", "loop" (redirects to itself), "hang",
    "no range" (sends all again), "other range", "416". The last fault of a list that ends with "always" stays.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files if callable(files) else lambda path: files.get(path)
        self.faults = defaultdict(list)
        self.requests = []  # (method, path, Range header)
        self.stopped = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def next_fault(self, path):
        faults = self.faults[path]
        if not faults:
            return None
        return faults[0] if faults[1:] == ["always"] else faults.pop(0)

    def handle_error(self, request, client_address):
        """A client that hung up is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.server.requests.append(("HEAD", self.path, None))
        self._head(200, 0)

    def do_GET(self):
        path = unquote(self.path).lstrip("/")
        wanted = self.headers.get("Range")
        self.server.requests.append(("GET", path, wanted))
        content, fault = self.server.files(path), self.server.next_fault(path) or ""
        if content is None or fault == "404":
            self._head(404, 0)
        elif fault in ("500", "416"):
            self._head(int(fault), 0)
        elif fault.startswith("429"):
            self._head(429, 0, **{"Retry-After": fault.partition(" ")[2]})
        elif fault == "loop":
            self._head(302, 0, Location=self.path)
        elif fault == "hang":
            self.server.stopped.wait(5)
            self.close_connection = True
        else:
            self._send(content, fault, wanted)

    def _send(self, content, fault, wanted):
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and fault != "no range" else 0
        if fault == "wrong":
            content = bytes(255 - value for value in content)
        content = content + b"more" if fault == "long" else content[:-7] if fault == "short" else content
        body = content[start:]
        if start:
            said = start + 1 if fault == "other range" else start
            self._head(206, len(body), **{"Content-Range": f"bytes {said}-{len(content) - 1}/{len(content)}"})
        else:
            self._head(200, len(body))
        with contextlib.suppress(OSError):
            self._write(body, fault)

    def _write(self, body, fault):
        if fault == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif fault == "drip":
            for start in range(0, len(body), DRIP_BYTES):
                self.wfile.write(body[start : start + DRIP_BYTES])
                self.wfile.flush()
                time.sleep(DRIP_SECONDS)
        else:
            self.wfile.write(body)

    def _head(self, status, length, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": length, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()


@contextlib.contextmanager
def serving(files):
    """Run a server for the length of a with block."""
    server = MisbehavingServer(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
