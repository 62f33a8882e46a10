"""What is wrong is said: no sound, other sound under the same name, a stream nobody knows, settings that do not fit."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lib.config import PROJECT_DIR
from temporal_workflow import client as cli
from temporal_workflow import devserver, shared
from temporal_workflow.chunks import cut_live
from temporal_workflow.progress import StreamProgress
from temporal_workflow.sender import StreamSender, new_stream_id
from temporal_workflow.serve import EX_UNAVAILABLE, LocalService
from temporal_workflow.settings import Settings
from tests.chaos.harness import PITCH_HZ, Service, ended_streams, tone


def test_half_a_minute_of_zeros_is_no_calm(service: Service, client, tmp_path) -> None:
    soundfile.write(tmp_path / "off.wav", np.zeros(30 * 16_000), 16_000)
    code, out, err = client("stream", str(tmp_path / "off.wav"))
    stream_id = out.splitlines()[0]
    assert (code, "no sound arrived" in err, "no signal for 30.0 s" in out) == (2, True, True)
    kinds = [(row["kind"], row["label"]) for row in service.results.changes(stream_id)]
    assert kinds == [("HEALTH", "no signal"), ("RESUMED", "no signal")]
    assert [(row["level_db"], row["problems"]) for row in service.results.chunks(stream_id)] == [(-90, "no signal")] * 3
    followed = client("follow", stream_id)[1]
    assert (followed.count("(no signal)"), "HEALTH" in followed) == (3, True)
    code, out, err = client("submit", str(tmp_path / "off.wav"))
    assert (code, "no sound arrived" in err) == (2, True)


def test_other_sound_under_the_same_name_is_refused(service: Service, client, tmp_path) -> None:
    for name in ("normal", "crying"):
        soundfile.write(tmp_path / f"{name}.wav", tone(PITCH_HZ[name], 40), 16_000)
    stream_id, path = new_stream_id(), tmp_path / "normal.wav"

    async def begin() -> None:
        sender = StreamSender(await service.client(), stream_id)
        async for chunk in cut_live(service.chunks, path, stream_id=stream_id):
            await sender.send(chunk)
            if chunk.sequence == 1:
                break
        await sender.delivered()

    asyncio.run(begin())
    for other in ([str(tmp_path / "crying.wav")], [str(path), "--chunk-seconds", "5"]):
        code, out, err = client("stream", *other, "--stream", stream_id)
        assert (code, out, f"{stream_id} holds other sound as chunk 0" in err) == (2, "", True)
    assert client("stream", str(path), "--stream", stream_id)[0] == 0
    assert [row["label"] for row in service.results.chunks(stream_id)] == ["normal"] * 4
    code, _, err = client("stream", str(path), "--stream", stream_id)
    assert (code, "has ended" in err, len(err.splitlines())) == (2, True, 1)


def test_a_source_that_fails_ends_its_stream_as_interrupted(service: Service) -> None:
    stream_id = new_stream_id()

    async def failing() -> AsyncIterator[shared.ChunkReference]:
        yield service.put(stream_id, ["normal"])[0]
        raise OSError("the microphone is gone")

    summary = asyncio.run(service.send(stream_id, failing()))
    assert (summary.state, summary.n_classified) == ("interrupted", 1)
    assert summary.remarks == ["interrupted: the microphone is gone"]
    assert ended_streams(service.results)[-1]["state"] == "interrupted"


def test_chunks_that_no_worker_takes_are_told_of(service: Service) -> None:
    stream_id = new_stream_id()
    worker = service.children["inference-1"].process

    async def send() -> shared.StreamSummary:
        settings = shared.StreamSettings(unclassified_seconds=1.0)
        sender = StreamSender(await service.client(), stream_id, settings=settings)
        worker.send_signal(signal.SIGSTOP)
        try:
            await sender.send(service.put(stream_id, ["normal"])[0])
            while not service.results.changes(stream_id):
                await asyncio.sleep(0.2)
        finally:
            worker.send_signal(signal.SIGCONT)
        await sender.finish(1)
        return await sender.result()

    assert asyncio.run(asyncio.wait_for(send(), 90)).n_classified == 1
    kinds = [(row["kind"], row["label"]) for row in service.results.changes(stream_id)]
    assert kinds == [("HEALTH", "nothing classified"), ("RESUMED", "nothing classified")]


def test_while_workers_load_the_client_says_that_they_may(monkeypatch, tmp_path, capsys) -> None:
    """The server answers seconds before the first worker asks it for work."""
    port = devserver.free_port()
    monkeypatch.setenv("AUDIO_SERVICE_DIR", str(tmp_path))
    monkeypatch.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{port}")
    server = devserver.start(tmp_path / "temporal.sqlite", port=port, ui_port=None, log_path=tmp_path / "log")
    try:
        assert cli.main(["status", "stream-nowhere"]) == cli.EX_BAD_INPUT
        assert capsys.readouterr().err.splitlines()[0] == cli.NO_WORKER
        assert all(part in cli.NO_WORKER for part in ("load", "wait", "./run_all.sh serve"))
    finally:
        devserver.stop(server)


@pytest.mark.parametrize("command", ["events", "results", "follow", "status", "export"])
def test_a_stream_that_nobody_knows(client, tmp_path, command) -> None:
    given = [str(tmp_path / "x.csv"), "--stream"] if command == "export" else ["--stream"] * (command[0] in "er")
    code, out, err = client(command, *given, "stream-nowhere")
    assert (code, out, len(err.splitlines()), "no such stream" in err) == (2, "", 1, True)


@pytest.mark.parametrize("seconds", ["4", "20", "nan", "ten"])
@pytest.mark.parametrize("command", [["stream", "x.wav"], ["submit", "x.wav"], ["microphone"], ["listen", "rtsp://x"]])
def test_chunks_of_other_lengths_are_refused_first(capsys, command, seconds) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--chunk-seconds", seconds])
    assert left.value.code == 2
    assert "5 to 15 s" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0.1, 0.05])
def test_the_shortest_sound_is_classified_and_a_shorter_one_refused(client, tmp_path, seconds) -> None:
    soundfile.write(tmp_path / "short.wav", tone(PITCH_HZ["crying"], seconds), 16_000)
    for command in ("submit", "stream"):
        code, out, err = client(command, str(tmp_path / "short.wav"))
        if seconds < 0.1:
            assert (code, "the minimum is 0.1 s" in err) == (2, True)
            assert command == "submit" or out == ""
        else:
            assert (code, "crying; 1 chunks" in out, "no signal" in out) == (0, True, False)


def test_a_source_without_sound_is_no_stream(service: Service) -> None:
    async def nothing() -> AsyncIterator[shared.ChunkReference]:
        return
        yield

    with pytest.raises(ValueError, match="nothing was sent"):
        asyncio.run(service.send(new_stream_id(), nothing()))


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_port_that_cannot_be_used_is_one_line(service: Service, client, tmp_path, caplog, is_taken) -> None:
    port, free = str(service.port if is_taken else 99_999), str(devserver.free_port())
    code, out, err = client("dashboard", "--port", port)
    assert (code, out, len(err.splitlines()), f"port {port}" in err) == (2, "", 1, True)
    other = LocalService(Settings.below(tmp_path), port=int(free), metrics_port=int(port))
    assert other.run(threading.Event(), int) == EX_UNAVAILABLE
    assert f"port {port}" in caplog.text
    command = [sys.executable, "-m", "temporal_workflow.worker", "--queue=orchestration", f"--metrics-port={port}"]
    worker = subprocess.run(command, env={**os.environ, **service.settings.environment()}, capture_output=True)
    assert (worker.returncode, worker.stderr.count(b"\n"), port.encode() in worker.stderr) == (EX_UNAVAILABLE, 1, True)


OTHER_KEY = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("AUDIO_CODEC_KEY", OTHER_KEY, "AUDIO_CODEC_KEY_FILE"),
        ("AUDIO_CHUNKS_DIR", "elsewhere", "AUDIO_SERVICE_DIR"),
        ("TEMPORAL_NAMESPACE", "nowhere", "TEMPORAL_NAMESPACE"),
        ("TEMPORAL_API_KEY", "key", "does not speak TLS"),  # that a key switches on
    ],
)
def test_settings_that_do_not_fit_are_named_at_once(client, tmp_path, monkeypatch, variable, value, named) -> None:
    soundfile.write(tmp_path / "tone.wav", tone(500, 10), 16_000)
    monkeypatch.setenv(variable, str(tmp_path / value) if variable == "AUDIO_CHUNKS_DIR" else value)
    code, out, err = client("stream", str(tmp_path / "tone.wav"))
    assert (code, out, len(err.splitlines()), named in err) == (2, "", 1, True)


def test_one_service_per_folder_and_the_lock_of_a_killed_one_is_free(tmp_path: Path, caplog) -> None:
    code = (
        f"import os, pathlib; from temporal_workflow.serve import LocalService, Settings\n"
        f"with LocalService(Settings.below(pathlib.Path({str(tmp_path)!r})))._only_one(): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_DIR, timeout=60).returncode == -9
    first, second = (LocalService(Settings.below(tmp_path)) for _ in range(2))
    with first._only_one():
        assert second.run(threading.Event(), int) == EX_UNAVAILABLE
    assert "another service runs on" in caplog.text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"n_classified": 0}, "nothing classified"),
        ({"problem_seconds": {"no signal": 60.0}}, "no sound arrived"),
    ],
)
def test_what_makes_a_summary_worthless(changes, expected) -> None:
    found = StreamProgress(shared.StreamSettings(), shared.StreamState()).summary("stream")
    changes = {"n_chunks": 6, "n_classified": 6, "seconds": 60.0, **changes}
    assert dataclasses.replace(found, **changes).fault() == expected
