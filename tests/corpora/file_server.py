"""An HTTP server on 127.0.0.1 for tests: serves bytes by path, and fails as it is told to."""

import contextlib
import socket
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class FileServer(ThreadingHTTPServer):
    """`files` maps paths to bytes, `faults` to what goes wrong, in turn.

    Faults: a status such as "404", "429 <Retry-After>", "cut" (half, then gone), "wrong" (other bytes of the same
    length). The last fault of a list that ends with "always" stays.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.faults = defaultdict(list)
        self.requests = []  # paths asked for

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def next_fault(self, path):
        faults = self.faults[path]
        if not faults:
            return ""
        return faults[0] if faults[1:] == ["always"] else faults.pop(0)

    def handle_error(self, request, client_address):
        """A client that hung up is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._reply(200, b"")

    def do_GET(self):
        path = unquote(self.path).lstrip("/")
        self.server.requests.append(path)
        content, fault = self.server.files.get(path), self.server.next_fault(path)
        if content is None:
            fault = "404"
        if fault[:3].isdigit():
            wait = {"Retry-After": fault[4:]} if fault[4:] else {}
            self._reply(int(fault[:3]), b"", **wait)
        elif fault == "cut":
            self._reply(200, content[: len(content) // 2], n_bytes=len(content))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self._reply(200, bytes(255 - value for value in content) if fault == "wrong" else content)

    def _reply(self, status, body, *, n_bytes=None, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": n_bytes or len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)


@contextlib.contextmanager
def serving(files):
    """Run a server for the length of a with block."""
    server = FileServer(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
