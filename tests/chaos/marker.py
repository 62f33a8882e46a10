"""With the codec on, nothing that a message says may stand in plain text outside the results table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import sqlite3
import urllib.request
from pathlib import Path
from typing import Any

from lib.config import CLASS_NAMES, PROJECT_DIR
from temporal_workflow import devserver, shared
from temporal_workflow.sender import new_stream_id
from tests.chaos.audit import examined
from tests.chaos.harness import Service, ended_streams, random_labels


def plain_text_marker(folder: Path, *, n_chunks: int, seed: int, encrypt: bool = True) -> dict[str, Any]:
    """Send a stream with a marker in its name and in an error; count where marker or labels can be read."""
    marker = f"marker{secrets.token_hex(8)}"
    key = os.urandom(32) if encrypt else None
    metrics_port = _first_of_free_ports(4)
    with Service(folder, key=key, metrics_port=metrics_port) as service:
        row = asyncio.run(_send(service, marker, n_chunks=n_chunks, seed=seed))
        metrics = b"".join(_read(port) for port in range(metrics_port, metrics_port + 4))
        assert not missing_in(metrics.decode())
        assert ended_streams(service.results)[0]["name"] == marker
        logs = service.logs().encode()
    database = _database_bytes(service.settings.service_dir / "temporal.sqlite")
    labels = [label.encode() for label in CLASS_NAMES if label != "normal"]  # "normal" is a word of Temporal's, too
    return {
        **row,
        "seed": seed,
        "markers_in_database": sum(database.count(word) for word in (marker.encode(), *labels)),
        "markers_in_logs": sum(logs.count(word) for word in (marker.encode(), *labels)),
        "markers_in_metrics": metrics.count(marker.encode()),
    }


def _first_of_free_ports(n_ports: int) -> int:
    while True:
        first = devserver.free_port()
        with contextlib.suppress(devserver.PortError):
            for port in range(first, first + n_ports):
                devserver.check_port(port)
            return first


def missing_in(metrics: str) -> list[str]:
    """Return the metrics of Temporal's SDK for which Grafana asks and which are not there; none fails in this run."""
    text = (PROJECT_DIR / "temporal_workflow/deploy/grafana/dashboards/listening-service.json").read_text()
    asked = set(re.findall(r"temporal_\w+", text)) - {"temporal_activity_execution_failed"}
    return sorted(name for name in asked if f"\n{name}{{" not in metrics)


async def _send(service: Service, marker: str, *, n_chunks: int, seed: int) -> dict[str, Any]:
    stream_id = new_stream_id()
    chunks = service.put(stream_id, random_labels(n_chunks, seed=seed), seed=seed)
    sha256 = service.chunks.put(marker.encode() * 9, stream_id=stream_id, sequence=1)
    chunks[1] = shared.ChunkReference(1, f"{sha256}?{marker}", 80_000, 16_000, 5.0)  # fails by name
    await service.send(stream_id, chunks, name=marker)
    return await examined(service, stream_id, chunks)


def _read(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        return page.read()


def _database_bytes(path: Path) -> bytes:
    """Return every byte of the database, its write-ahead log included."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint")
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
