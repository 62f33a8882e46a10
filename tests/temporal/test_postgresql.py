"""The results table on a real PostgreSQL, started from Debian's packages (`apt-get install postgresql`)."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from temporal_workflow import devserver, shared
from temporal_workflow.results import SCHEMA, SCHEMA_VERSION, ResultsTable, SchemaError
from temporal_workflow.sender import new_stream_id
from tests.chaos.audit import audit
from tests.chaos.harness import Service, random_labels


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
def url() -> Iterator[str]:
    programs, user, port = _programs(), _user(), devserver.free_port()
    if programs is None:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user:
        shutil.chown(folder, user)
    options = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    data = str(folder / "data")
    subprocess.run([programs / "initdb", "-D", data, "-U", "audio", "-A", "trust", "--no-sync"], check=True, **options)
    command = [
        programs / "postgres",
        "-D",
        data,
        "-p",
        str(port),
        "-k",
        str(folder),
        "-c",
        "listen_addresses=127.0.0.1",
    ]
    server = subprocess.Popen(command, **options)
    try:
        address = f"postgresql+psycopg://audio@127.0.0.1:{port}/postgres"
        _wait(address)
        yield address
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: does not wait for clients
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(address: str) -> None:
    for _ in range(200):
        try:
            with sa.create_engine(address).connect():
                return
        except sa.exc.OperationalError:
            threading.Event().wait(0.1)
    raise AssertionError("PostgreSQL does not answer")


def test_many_writers_make_the_tables_once_and_rows_once(url: str) -> None:
    outcome = shared.ChunkOutcome(
        3, "ab" * 32, 30.0, 40.0, 1.8e9, shared.CLASSIFIED, label="crying", probabilities=[0.9, 0.06, 0.04]
    )
    change = shared.EventChange(1, 1, "START", "crying", 30.0, 40.0, 0.9, False)
    faults: list[Exception] = []

    def write() -> None:
        try:
            ResultsTable(url).store(shared.StoreInput("stream-a", outcome=outcome, changes=[change]))
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    results = ResultsTable(url)
    (row,) = results.chunks("stream-a")
    assert (row["label"], row["crying"], row["n_writes"]) == ("crying", 0.9, 6)
    assert [event["kind"] for event in results.events("stream-a")] == ["START"]


def test_service_with_postgresql_and_a_killed_worker(url: str, tmp_path: Path) -> None:
    with Service(tmp_path, results_url=url) as service:
        stream_id = new_stream_id()
        chunks = service.put(stream_id, random_labels(20, seed=7))

        def kill(chunk: shared.ChunkReference) -> None:
            if chunk.sequence == 8:
                service.kill("orchestration")

        summary = asyncio.run(service.send(stream_id, chunks, on_sent=kill))
        audit(service.results, stream_id, chunks).assert_clean()
        assert service.results.streams()[-1]["summary"]["n_chunks"] == summary.n_chunks == 20


def test_other_schema_is_refused_and_no_password_is_told(url: str) -> None:
    ResultsTable(url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(SCHEMA.update().values(version=999))
    try:
        with pytest.raises(SchemaError, match="999") as raised:
            ResultsTable(url.replace("audio@", "audio:secret@"))
        assert "secret" not in str(raised.value)
    finally:
        with engine.begin() as connection:
            connection.execute(SCHEMA.update().values(version=SCHEMA_VERSION))
