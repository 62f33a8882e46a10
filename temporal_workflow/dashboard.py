"""`python -m temporal_workflow.client dashboard`: one page on loopback that shows what the service is doing now.

Streams with their health and probabilities, what is open, and the last events with players where audio is kept. It
reads the results table and changes nothing; standard library's http.server.
Grafana (deploy/) shows counts and rates to who runs the machines; it neither plays a chunk nor names an event.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lib import config
from temporal_workflow import shared
from temporal_workflow.devserver import check_port
from temporal_workflow.results import CHUNKS, EVENTS, RUNNING, STREAMS, ResultsTable, with_zone
from temporal_workflow.settings import Settings
from temporal_workflow.store import ChunkStore, StoreError

HOST = "127.0.0.1"
N_STREAMS, N_EVENTS, N_CHUNKS = 24, 60, 12  # newest ones on the page; chunks whose frames are drawn
RUNNING_SECONDS = 300.0  # nobody knows whether a stream without end goes on whose last result is older
UNKNOWN = {"name": "", "state": RUNNING}  # a stream whose first chunk an earlier version stored
PAGE_PATH = Path(__file__).with_name("dashboard.html")
STYLE_PATH = config.PROJECT_DIR / "lib" / "reporting" / "templates" / "style.css"  # all pages look alike
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; media-src blob:; img-src data:",
    "X-Content-Type-Options": "nosniff",
}


class Dashboard:
    """What the page shows, read anew for each request."""

    def __init__(self, settings: Settings) -> None:
        self.results, self.store = ResultsTable(settings.results_url), ChunkStore(settings.chunks_dir)

    def state(self) -> dict[str, Any]:
        """Return the newest streams, what is open and the last events, ready for JSON."""
        event = EVENTS.c.change, EVENTS.c.stream_id, EVENTS.c.number
        newest = self._newest(CHUNKS.c.sequence, CHUNKS.c.stream_id, limit=N_STREAMS)
        events = self._newest(*event, limit=N_EVENTS)
        shown = {row["stream_id"] for row in (*newest, *events)}
        rows = self.results.rows(sa.select(STREAMS).where(STREAMS.c.stream_id.in_(shown)))
        known = {row["stream_id"]: row for row in rows}
        problems = self._newest(*event, where=EVENTS.c.label.in_(shared.PROBLEMS) & EVENTS.c.stream_id.in_(shown))
        open_problems = [row for row in problems if row["kind"] != "RESUMED"]
        return {
            "now": datetime.now(UTC),
            "labels": config.CLASS_NAMES[:2],
            "streams": [self._stream(row, known.get(row["stream_id"], UNKNOWN), open_problems) for row in newest],
            "events": [self._event(row, known.get(row["stream_id"], UNKNOWN)) for row in events],
        }

    def _newest(
        self, column: sa.Column, *keys: sa.Column, where: sa.ColumnElement[bool] | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Return the row with the highest `column` for each of `keys`, newest first, and the number of its rows."""
        table = column.table
        last = sa.select(*keys, sa.func.max(column).label("last"), sa.func.count().label("n")).group_by(*keys)
        found = (last if where is None else last.where(where)).subquery()
        here = sa.and_(table.c.stream_id == found.c.stream_id, column == found.c.last)
        query = sa.select(table, found.c.n).join(found, here).order_by(table.c.stored_at.desc())
        return self.results.rows(query.limit(limit))

    def _stream(self, newest: dict[str, Any], known: dict[str, Any], problems: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a stream by its newest chunk, its row in the table of streams and all open problems."""
        stream_id, stored_at = newest["stream_id"], with_zone(newest["stored_at"])
        rows = self.results.rows(
            sa.select(CHUNKS.c.frames)
            .where(CHUNKS.c.stream_id == stream_id, CHUNKS.c.sequence > newest["sequence"] - N_CHUNKS)
            .order_by(CHUNKS.c.sequence)
        )
        state, sent_at = known["state"], newest["sent_at"] or stored_at
        is_running, is_new = state == RUNNING, (datetime.now(UTC) - stored_at).total_seconds() < RUNNING_SECONDS
        return {
            "stream_id": stream_id,
            "name": known["name"],
            "state": "not known" if is_running and not is_new else state,
            "label": newest["label"] or newest["status"],
            "level_db": newest["level_db"],
            "problems": [row["label"] for row in problems if is_running and row["stream_id"] == stream_id],
            "lag_seconds": max(0.0, (stored_at - with_zone(sent_at)).total_seconds()) if is_running else None,
            "seconds": newest["stop_seconds"],
            "n_chunks": newest["n"],
            "stored_at": stored_at,
            "frames": _frames(row["frames"] for row in rows if row["frames"]),
        }

    def _event(self, row: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
        over = known["state"] != RUNNING or row["kind"] in ("END", "RESUMED")
        shown = ("stream_id", "number", "label", "onset_seconds", "offset_seconds", "peak_probability", "sustained")
        return {
            **{name: row[name] for name in shown},
            "name": known["name"],
            "is_open": not over,
            "stored_at": with_zone(row["stored_at"]),
            "audio": self._audio(row) if row["label"] in config.CLASS_NAMES else [],
        }

    def _audio(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the chunks of an event whose audio is kept."""
        columns = (CHUNKS.c.sha256, CHUNKS.c.start_seconds, CHUNKS.c.stop_seconds)
        query = sa.select(*columns).where(
            CHUNKS.c.stream_id == event["stream_id"],
            CHUNKS.c.stop_seconds > event["onset_seconds"],
            CHUNKS.c.start_seconds < event["offset_seconds"],
        )
        return [
            row
            for row in self.results.rows(query.order_by(CHUNKS.c.sequence).limit(6))
            if self.store.holds(row["sha256"])
        ]


def _frames(packed: Iterable[dict[str, Any]]) -> list[list[float]]:
    """Return frames [time in seconds, crying, screaming] of chunks in order; a later chunk corrects an earlier one."""
    rows: dict[int, tuple[float, ...]] = {}
    for frames in packed:
        found = shared.FrameProbabilities(**frames)
        rows |= dict(enumerate(found.rows(), start=found.first_frame))
    return [[round(number * shared.HOP_SECONDS, 2), *rows[number]] for number in sorted(rows)]


class Server(ThreadingHTTPServer):
    """Serves a dashboard on loopback; port 0: a free one. `devserver.PortError` for one that cannot be used."""

    daemon_threads = True

    def __init__(self, dashboard: Dashboard, port: int) -> None:
        self.dashboard = dashboard
        check_port(port)
        super().__init__((HOST, port), _Handler)
        self.address = f"http://{HOST}:{self.server_port}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        """Answer with the page, its data, or a chunk's audio."""
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
            return self._answer(403, "text/plain", b"asked for under a foreign name")  # a site that points here
        if self.path == "/":
            style = STYLE_PATH.read_text(encoding="utf-8")
            return self._answer(
                200, "text/html", PAGE_PATH.read_text(encoding="utf-8").replace("@STYLE@", style).encode()
            )
        if self.path == "/state.json":
            text = json.dumps(self.server.dashboard.state(), default=datetime.isoformat)
            return self._answer(200, "application/json", text.encode())
        if found := re.fullmatch(r"/audio/([0-9a-f]{64})", self.path):
            try:
                return self._answer(200, "audio/flac", self.server.dashboard.store.path(found[1]).read_bytes())
            except (OSError, StoreError):
                pass  # deleted since the page was made
        return self._answer(404, "text/plain", b"not found")

    def _answer(self, code: int, kind: str, content: bytes) -> None:
        self.send_response(code)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing: paths name audio."""
