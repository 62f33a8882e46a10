"""`python -m temporal_workflow.client dashboard`: one page on loopback that shows what the service is doing now.

Streams with their health and probabilities, what is open, and the last events with players where audio is kept. It
reads the results table, asks running streams for their status, and changes nothing; standard library's http.server.
Grafana (deploy/) shows counts and rates to who runs the machines; it neither plays a chunk nor names an event.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError

from lib import config
from temporal_workflow import shared
from temporal_workflow.devserver import check_port
from temporal_workflow.results import CHUNKS, EVENTS, ResultsTable, with_zone
from temporal_workflow.settings import Settings, connect
from temporal_workflow.store import ChunkStore

HOST = "127.0.0.1"
N_STREAMS, N_EVENTS, N_CHUNKS = 24, 60, 12  # newest ones on the page; chunks whose frames are drawn
RUNNING_SECONDS = 300.0  # a stream without end whose last result is older is not asked for its status
REFRESH_SECONDS = 2.0
ASK_SECONDS = timedelta(seconds=2)
PAGE_PATH = Path(__file__).with_name("dashboard.html")
STYLE_PATH = config.PROJECT_DIR / "lib" / "reporting" / "templates" / "style.css"  # all pages look alike
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; media-src blob:; img-src data:",
    "X-Content-Type-Options": "nosniff",
}


class Dashboard:
    """What the page shows, read anew for each request; `statuses` are the running streams' own, by id."""

    def __init__(self, settings: Settings) -> None:
        self.results, self.store = ResultsTable(settings.results_url), ChunkStore(settings.chunks_dir)
        self.statuses: dict[str, shared.StreamStatus] = {}
        self.is_connected = False

    def state(self) -> dict[str, Any]:
        """Return the newest streams, what is open and the last events, ready for JSON."""
        ended = {row["stream_id"]: row for row in self.results.streams()}
        streams = [self._stream(row, ended.get(row["stream_id"])) for row in self._newest_chunks()]
        names = {stream["stream_id"]: stream["name"] for stream in streams}
        newest = self._newest(EVENTS.c.change, EVENTS.c.stream_id, EVENTS.c.number, limit=N_EVENTS)
        events = [self._event(row, names, row["stream_id"] in ended) for row in newest]
        return {
            "now": datetime.now(UTC),
            "is_connected": self.is_connected,
            "labels": config.CLASS_NAMES[:2],
            "streams": streams,
            "events": events,
        }

    def running(self) -> list[str]:
        """Return the streams that may still be going on."""
        ended, now = {row["stream_id"] for row in self.results.streams()}, datetime.now(UTC)
        return [
            row["stream_id"]
            for row in self._newest_chunks()
            if row["stream_id"] not in ended and (now - with_zone(row["stored_at"])).total_seconds() < RUNNING_SECONDS
        ]

    def _newest_chunks(self) -> list[dict[str, Any]]:
        """Return the newest row of each stream, newest first, with the number of its rows."""
        return self._newest(CHUNKS.c.sequence, CHUNKS.c.stream_id, limit=N_STREAMS)

    def _newest(self, column: sa.Column, *keys: sa.Column, limit: int) -> list[dict[str, Any]]:
        """Return the row with the highest `column` for each of `keys`, newest first."""
        table = column.table
        last = (
            sa.select(*keys, sa.func.max(column).label("last"), sa.func.count().label("n")).group_by(*keys).subquery()
        )
        here = sa.and_(table.c.stream_id == last.c.stream_id, column == last.c.last)
        return self.results.rows(
            sa.select(table, last.c.n).join(last, here).order_by(table.c.stored_at.desc()).limit(limit)
        )

    def _stream(self, newest: dict[str, Any], ended: dict[str, Any] | None) -> dict[str, Any]:
        stream_id = newest["stream_id"]
        status = None if ended else self.statuses.get(stream_id)
        rows = self.results.rows(
            sa.select(CHUNKS.c.frames)
            .where(CHUNKS.c.stream_id == stream_id, CHUNKS.c.sequence > newest["sequence"] - N_CHUNKS)
            .order_by(CHUNKS.c.sequence)
        )
        summary = status.summary if status else None
        return {
            "stream_id": stream_id,
            "name": ended["name"] if ended else summary.name if summary else "",
            "state": ended["state"] if ended else summary.state if summary else "not known",
            "label": newest["label"] or newest["status"],
            "level_db": newest["level_db"],
            "problems": [change.label for change in status.problems] if status else [],
            "lag_seconds": status.lag_seconds if status else None,
            "seconds": newest["stop_seconds"],
            "n_chunks": newest["n"],
            "stored_at": with_zone(newest["stored_at"]),
            "frames": _frames(row["frames"] for row in rows if row["frames"]),
        }

    def _event(self, row: dict[str, Any], names: dict[str, str], stream_is_over: bool) -> dict[str, Any]:
        over = stream_is_over or row["kind"] in ("END", "RESUMED")
        shown = ("stream_id", "number", "label", "onset_seconds", "offset_seconds", "peak_probability", "sustained")
        return {
            **{name: row[name] for name in shown},
            "name": names.get(row["stream_id"], ""),
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
        self.dashboard, self.asked_at = dashboard, 0.0
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
            self.server.asked_at = time.monotonic()
            text = json.dumps(self.server.dashboard.state(), default=datetime.isoformat)
            return self._answer(200, "application/json", text.encode())
        if found := re.fullmatch(r"/audio/([0-9a-f]{64})", self.path):
            try:
                return self._answer(200, "audio/flac", self.server.dashboard.store.read(found[1]))
            except OSError:
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


async def serve(settings: Settings, *, port: int, on_ready: Callable[[str], object]) -> None:
    """Serve the page until cancelled; without Temporal it shows what is stored."""
    dashboard = Dashboard(settings)
    server, client = Server(dashboard, port), None
    on_ready(server.address)
    try:
        while True:
            if time.monotonic() - server.asked_at < 5 * REFRESH_SECONDS:
                client = await _refresh(dashboard, settings, client)
            await asyncio.sleep(REFRESH_SECONDS)
    finally:
        server.shutdown()


async def _refresh(dashboard: Dashboard, settings: Settings, client: Client | None) -> Client | None:
    """Ask the running streams for their status; return the connection, or None where there is none."""
    try:
        client = client or await connect(settings)
        await client.service_client.check_health(timeout=ASK_SECONDS)
    except (RPCError, RuntimeError):
        dashboard.is_connected = False
        return None
    names = await asyncio.to_thread(dashboard.running)
    asked = await asyncio.gather(*(_status(client, name) for name in names))
    dashboard.statuses = {name: status for name, status in zip(names, asked, strict=True) if status}
    dashboard.is_connected = True
    return client


async def _status(client: Client, stream_id: str) -> shared.StreamStatus | None:
    """Return a stream's status; None where no worker answers in time, or the stream has just ended."""
    handle = client.get_workflow_handle(stream_id)
    try:
        return await handle.query("status", result_type=shared.StreamStatus, rpc_timeout=ASK_SECONDS)
    except (RPCError, WorkflowQueryFailedError, TypeError):  # the last from a worker of an earlier version
        return None
