"""The results table in SQLite and in a real PostgreSQL, from Debian's packages (`apt-get install postgresql`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from temporal_workflow import devserver, shared
from temporal_workflow.results import FIRST_VERSION, NEW_COLUMNS, SCHEMA, STREAMS, ResultsTable, SchemaError
from temporal_workflow.sender import new_stream_id
from tests.chaos.audit import assert_clean, audit
from tests.chaos.harness import Service, ended_streams, outcome, random_labels, wait_until


def _programs() -> Path | None:
    """Folder of initdb and postgres; Debian keeps them off PATH."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return Path(found).parent if found else next(iter(folders[::-1]), None)


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return None
    with_name = [entry.pw_name for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody")]
    return "postgres" if "postgres" in with_name else with_name[0]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    programs, user, port = _programs(), _user(), devserver.free_port()
    if programs is None:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user:
        shutil.chown(folder, user)
    options = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    data = str(folder / "data")
    subprocess.run([programs / "initdb", "-D", data, "-U", "audio", "-A", "trust", "--no-sync"], check=True, **options)
    places = ["-D", data, "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
    server = subprocess.Popen([programs / "postgres", *places], **options)
    try:
        address = f"postgresql+psycopg://audio@127.0.0.1:{port}/postgres"
        wait_until(lambda: _answers(address), seconds=20)
        yield address
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: does not wait for clients
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(address: str) -> bool:
    with contextlib.suppress(sa.exc.OperationalError), sa.create_engine(address).connect():
        return True
    return False


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'results.sqlite'}"
    address = request.getfixturevalue("postgresql")
    with sa.create_engine(address).begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    return address


def stored(sequence: int, **found: object) -> shared.StoreInput:
    chunk = shared.ChunkReference(sequence, "ab" * 32, 160_000, start_seconds=10.0 * sequence, sent_seconds=1.8e9)
    changes = [shared.EventChange(1, 1, "START", "crying", 30, 40, 0.9, False)]
    return shared.StoreInput("s", outcome(chunk, **found), changes=changes)


def test_many_writers_make_the_tables_once_and_rows_once(url: str) -> None:
    with ThreadPoolExecutor(6) as writers:
        list(writers.map(lambda _: ResultsTable(url).store(stored(3)), range(6)))
    results = ResultsTable(url)
    (row,) = results.chunks("s")
    assert (row["label"], row["crying"], row["n_writes"]) == ("crying", 0.9, 6)
    assert [event["kind"] for event in results.events("s")] == ["START"]
    assert (results.has("s", 3), results.has("s", 1)) == (True, False)


def test_a_worker_remembers_no_stream(url: str) -> None:
    """It runs for months: whether a stream has its row, the table alone knows."""
    results = ResultsTable(url)
    for _ in range(2):
        results.store(stored(0))
        assert [row["stream_id"] for row in results.rows(sa.select(STREAMS))] == ["s"]
        with results.engine.begin() as connection:
            connection.execute(STREAMS.delete())


def test_results_of_version_0_1_are_kept(url: str) -> None:
    results = ResultsTable(url)
    results.store(stored(0))
    with results.engine.begin() as connection:
        for name in NEW_COLUMNS:
            connection.exec_driver_sql(f"ALTER TABLE chunks DROP COLUMN {name}")
        connection.execute(SCHEMA.update().values(version=FIRST_VERSION))
    results = ResultsTable(url)
    results.store(stored(1, health=shared.ChunkHealth(-90.0, -90.0, 0.5)))
    found = [(row["label"], row["level_db"], row["problems"]) for row in results.chunks("s")]
    assert found == [("crying", None, None), ("crying", -90.0, "no signal, clipping")]


def test_other_schema_is_refused_and_no_password_is_told(url: str) -> None:
    with ResultsTable(url).engine.begin() as connection:
        connection.execute(SCHEMA.update().values(version=999))
    with pytest.raises(SchemaError, match="999") as raised:
        ResultsTable(url.replace("audio@", "audio:secret@"))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_service_with_postgresql_and_a_killed_worker(url: str, tmp_path: Path) -> None:
    with Service(tmp_path, results_url=url) as service:
        stream_id = new_stream_id()
        chunks = service.put(stream_id, random_labels(20, seed=7))

        def kill(chunk: shared.ChunkReference) -> None:
            if chunk.sequence == 8:
                service.kill("orchestration")

        summary = asyncio.run(service.send(stream_id, chunks, on_sent=kill))
        assert_clean(audit(service.results, stream_id, chunks))
        assert ended_streams(service.results)[-1]["summary"]["n_chunks"] == summary.n_chunks == 20
