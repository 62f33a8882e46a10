"""Results table: one row per chunk, keyed (stream_id, sequence), so that a chunk done twice is stored once.

SQLite by default, PostgreSQL by URL (`postgresql+psycopg://user@host/database`).
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lib.config import CLASS_NAMES
from temporal_workflow import shared

SCHEMA_VERSION = 3
FIRST_VERSION = 1  # of version 0.1, whose chunks lack:
NEW_COLUMNS = {"members": "JSON", "frames": "JSON", "level_db": "FLOAT", "problems": "TEXT"}
RUNNING = "running"  # state of what is not finished
POLL_SECONDS = 0.5
LOOK_BACK = 256  # sequences: chunks in flight may be stored out of order, late ones much later

_METADATA = sa.MetaData()
SCHEMA = sa.Table("schema_version", _METADATA, sa.Column("version", sa.Integer, primary_key=True))
STREAMS = sa.Table(
    "streams",
    _METADATA,
    sa.Column("stream_id", sa.String(80), primary_key=True),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("summary", sa.JSON, nullable=False),
    sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
)
CHUNKS = sa.Table(
    "chunks",
    _METADATA,
    sa.Column("stream_id", sa.String(80), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("start_seconds", sa.Float, nullable=False),
    sa.Column("stop_seconds", sa.Float, nullable=False),
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("label", sa.String(20), nullable=False),
    *(sa.Column(name, sa.Float) for name in CLASS_NAMES),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("late", sa.Boolean, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("members", sa.JSON),
    sa.Column("frames", sa.JSON(none_as_null=True)),  # see shared.FrameProbabilities
    sa.Column("level_db", sa.Float),  # of its loudest half second, dBFS
    sa.Column("problems", sa.Text),  # see shared.ChunkHealth; empty: none
    sa.Column("sent_at", sa.DateTime(timezone=True)),
    sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("n_writes", sa.Integer, nullable=False),  # over 1: a worker was killed between writing and reporting
)
EVENTS = sa.Table(
    "event_changes",
    _METADATA,
    sa.Column("stream_id", sa.String(80), primary_key=True),
    sa.Column("change", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("label", sa.String(20), nullable=False),
    sa.Column("onset_seconds", sa.Float, nullable=False),
    sa.Column("offset_seconds", sa.Float, nullable=False),
    sa.Column("peak_probability", sa.Float, nullable=False),
    sa.Column("sustained", sa.Boolean, nullable=False),
    sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("event_changes_by_time", "stored_at"),
)
DELIVERED = sa.Table(
    "alerts_delivered",
    _METADATA,
    sa.Column("target", sa.String(20), primary_key=True),
    sa.Column("stream_id", sa.String(80), primary_key=True),
    sa.Column("change", sa.Integer, primary_key=True),
)


class SchemaError(RuntimeError):
    """The database was written by another version of this schema."""


class ResultsTable:
    """Reads and writes results at an SQLAlchemy URL; safe for many threads and processes.

    The tables are made if missing; `SchemaError` is raised if the database holds another schema version.
    """

    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url, pool_pre_ping=True)
        if self.engine.dialect.name == "sqlite":
            sa.event.listen(self.engine, "connect", _set_up_sqlite)
        self._insert = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
        self._prepare()

    def store(self, stored: shared.StoreInput, *, kind: str = "stream") -> None:
        """Write one message of the workflow in one transaction; repeating it changes nothing. `kind`: stream or file.

        The first one makes the row of a stream or file; nobody is alerted to the events of a file.
        """
        now = datetime.now(UTC)
        values = {"kind": kind, "name": stored.name, "state": RUNNING, "summary": {}, "stored_at": now}
        row = self._insert(STREAMS).values(stream_id=stored.stream_id, **values).on_conflict_do_nothing()
        if stored.summary is not None:
            summary = vars(stored.summary)
            values |= {name: summary[name] for name in ("kind", "name", "state")} | {"summary": summary}
            row = self._insert(STREAMS).values(stream_id=stored.stream_id, **values)
            row = row.on_conflict_do_update(index_elements=["stream_id"], set_=values)
        with self.engine.begin() as connection:
            connection.execute(row)
            for change in stored.changes:
                row = self._insert(EVENTS).values(stream_id=stored.stream_id, stored_at=now, **vars(change))
                connection.execute(row.on_conflict_do_nothing())
            if stored.outcome is not None:
                self._store_outcome(connection, stored.stream_id, stored.outcome, now=now)

    def has(self, stream_id: str, sequence: int) -> bool:
        """Return whether a chunk's result is stored."""
        key = CHUNKS.c.stream_id == stream_id, CHUNKS.c.sequence == sequence
        return bool(self.rows(sa.select(CHUNKS.c.sequence).where(*key)))

    def knows(self, stream_id: str) -> bool:
        """Return whether anything is stored of a stream or file."""
        tables = (STREAMS, CHUNKS)  # a stream that an earlier version began has no row until it goes on
        return any(self.rows(sa.select(t.c.stream_id).where(t.c.stream_id == stream_id).limit(1)) for t in tables)

    def has_ended(self, stream_id: str) -> bool:
        """Return whether a stream or file is finished."""
        key = STREAMS.c.stream_id == stream_id, STREAMS.c.state != RUNNING
        return bool(self.rows(sa.select(STREAMS.c.state).where(*key)))

    def chunks(self, stream_id: str | None = None, *, after: int = -1) -> list[dict[str, Any]]:
        """Return rows of one stream (or all), in order, with `sequence` greater than `after`."""
        query = sa.select(CHUNKS).where(CHUNKS.c.sequence > after).order_by(CHUNKS.c.stream_id, CHUNKS.c.sequence)
        return self.rows(query if stream_id is None else query.where(CHUNKS.c.stream_id == stream_id))

    def changes(self, stream_id: str | None = None, *, after: int = 0) -> list[dict[str, Any]]:
        """Return the steps in the life of events (`shared.ALERT_KINDS` and UPDATE), in order."""
        query = sa.select(EVENTS).where(EVENTS.c.change > after).order_by(EVENTS.c.stream_id, EVENTS.c.change)
        return self.rows(query if stream_id is None else query.where(EVENTS.c.stream_id == stream_id))

    def alerts(self, target: str, *, is_new: bool, max_age: timedelta, memory: timedelta) -> list[dict[str, Any]]:
        """Return changes of live streams, oldest first: what `target` is still to be told, or what is past.

        Past is what it was told in the last `memory`, and what is older than `max_age` and will not be told.
        """
        is_old = EVENTS.c.stored_at <= datetime.now(UTC) - max_age
        match = (DELIVERED.c.stream_id == EVENTS.c.stream_id) & (DELIVERED.c.change == EVENTS.c.change)
        is_delivered = sa.exists().where(match, DELIVERED.c.target == target)
        query = sa.select(EVENTS).where(
            EVENTS.c.stored_at > datetime.now(UTC) - memory,
            EVENTS.c.kind.in_(shared.ALERT_KINDS),
            ~sa.exists().where(STREAMS.c.stream_id == EVENTS.c.stream_id, STREAMS.c.kind == "file"),
            ~is_delivered & ~is_old if is_new else is_delivered | is_old,
        )
        return self.rows(query.order_by(EVENTS.c.stored_at, EVENTS.c.stream_id, EVENTS.c.change))

    def mark_delivered(self, target: str, stream_id: str, change: int) -> None:
        """Note that `target` was told about a change."""
        statement = self._insert(DELIVERED).values(target=target, stream_id=stream_id, change=change)
        with self.engine.begin() as connection:
            connection.execute(statement.on_conflict_do_nothing())

    def events(self, stream_id: str | None = None) -> list[dict[str, Any]]:
        """Return each event as its newest change shows it."""
        newest = {(row["stream_id"], row["number"]): row for row in self.changes(stream_id)}
        return [newest[key] for key in sorted(newest)]

    def rows(self, query: sa.Select) -> list[dict[str, Any]]:
        """Return what a query of these tables finds."""
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _store_outcome(
        self, connection: sa.Connection, stream_id: str, outcome: shared.ChunkOutcome, *, now: datetime
    ) -> None:
        left_out = ("probabilities", "sent_seconds", "health")
        values = {name: value for name, value in vars(outcome).items() if name not in left_out}
        values |= dict(zip(CLASS_NAMES, outcome.probabilities, strict=False))
        values["frames"] = outcome.frames and asdict(outcome.frames)
        values["level_db"] = outcome.health and outcome.health.high_db
        values["problems"] = outcome.health and ", ".join(outcome.problems())
        values["sent_at"] = datetime.fromtimestamp(outcome.sent_seconds, UTC) if outcome.sent_seconds else None
        statement = self._insert(CHUNKS).values(stream_id=stream_id, stored_at=now, n_writes=1, **values)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["stream_id", "sequence"], set_={**values, "n_writes": CHUNKS.c.n_writes + 1}
            )
        )

    def _prepare(self) -> None:
        lock = "BEGIN IMMEDIATE" if self.engine.dialect.name == "sqlite" else "SELECT pg_advisory_xact_lock(7215)"
        with self.engine.begin() as connection:
            connection.execute(sa.text(lock))  # one process at a time makes the tables
            _METADATA.create_all(connection)
            for index in EVENTS.indexes:
                index.create(connection, checkfirst=True)
            found = connection.execute(sa.select(SCHEMA.c.version)).scalar()
            if found is None:
                connection.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))
            if found == FIRST_VERSION:
                _migrate(connection)
                found = SCHEMA_VERSION
        if found not in (None, SCHEMA_VERSION):
            raise SchemaError(
                f"{self.engine.url.render_as_string()} holds schema {found}, this code needs "
                f"{SCHEMA_VERSION}: export the old results with the version that wrote them, then use a new database."
            )


def follow(results: ResultsTable, stream_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("chunk", row) and ("event", row) of one stream as they are stored, until it ends."""
    shown: set[int] = set()
    newest, change = -1, 0
    while True:
        ended = results.has_ended(stream_id)
        for row in results.chunks(stream_id, after=newest - LOOK_BACK):
            newest = max(newest, row["sequence"])
            if row["sequence"] not in shown:
                shown.add(row["sequence"])
                yield "chunk", row
        for row in results.changes(stream_id, after=change):
            change = max(change, row["change"])
            yield "event", row
        if ended:
            return
        time.sleep(POLL_SECONDS)


def export(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as CSV; members and frames as JSON text. ValueError for a path that ends otherwise."""
    if path.suffix != ".csv":
        raise ValueError(f"{path.name}: export writes .csv.")
    plain = [{name: json.dumps(v) if isinstance(v, dict) else v for name, v in row.items()} for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, plain[0] if plain else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)


def with_zone(moment: datetime) -> datetime:
    """Return a stored time with its zone, UTC: SQLite forgets it."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """Let several processes write in turn, and lose nothing on power loss."""
    for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _migrate(connection: sa.Connection) -> None:
    """Bring the tables of version 0.1 to this one."""
    for name, kind in NEW_COLUMNS.items():
        connection.execute(sa.text(f"ALTER TABLE chunks ADD COLUMN {name} {kind}"))
    if connection.dialect.name == "postgresql":  # SQLite does not hold to lengths
        connection.execute(sa.text("ALTER TABLE streams ALTER COLUMN state TYPE VARCHAR(20)"))
    connection.execute(SCHEMA.update().values(version=SCHEMA_VERSION))
