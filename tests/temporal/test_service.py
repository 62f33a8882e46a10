"""The service end to end: real server, real worker processes, stand-in classifier; killed, misled and overwhelmed."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile
from audio_bytes import wav
from live_sources import Radio, on_air
from temporalio.client import WorkflowFailureError

from lib.config import PROJECT_DIR
from temporal_workflow import shared
from temporal_workflow.sender import new_stream_id, submit_file
from temporal_workflow.serve import RESTART_SECONDS, Child, supervise
from tests.chaos.audit import assert_clean, assert_replayed, audit, replayed
from tests.chaos.harness import PITCH_HZ, Service, ended_streams, random_labels, send_eventful, tone, wait_until


def test_bad_chunks_are_rejected_by_name_and_audio_goes_once_its_result_is_stored(service: Service) -> None:
    """Over several runs of the stream; one chunk has the audio of another."""
    stream_id = new_stream_id()
    chunks = service.put(stream_id, random_labels(16, seed=7))
    same = service.chunks.put(service.chunks.path(chunks[2].sha256).read_bytes(), stream_id=stream_id, sequence=3)
    noise = service.chunks.put(b"not audio at all" * 100, stream_id=stream_id, sequence=10)
    for sequence, sha256 in ((3, same), (10, noise), (12, "../../etc/passwd")):
        chunks[sequence] = dataclasses.replace(chunks[sequence], sha256=sha256)
    summary = asyncio.run(service.send(stream_id, chunks, chunks_per_run=5, name="n" * 20_000))

    assert_clean(audit(service.results, stream_id, chunks))
    rows = service.results.chunks(stream_id)
    rejected = {row["sequence"]: row["reason"].split(":")[0] for row in rows if row["status"] == "rejected"}
    assert rejected == {10: "NotAudio", 12: "ForeignReference"}
    assert all(row["label"] and row["model_version"] for row in rows if row["status"] == "classified")
    assert (summary.state, summary.name, summary.n_classified) == ("finished", "n" * shared.MAX_NAME, 14)
    assert not any(service.chunks.holds(chunk.sha256) for chunk in chunks if chunk.sequence != 12)


def test_histories_replay_and_stay_small(service: Service) -> None:
    for row in ended_streams(service.results):
        assert_replayed(asyncio.run(replayed(service, row["stream_id"])))


def test_file_becomes_one_list_of_events(service: Service, tmp_path) -> None:
    parts = [("normal", 20), ("crying", 40), ("screaming", 10), ("normal", 20)]
    samples = np.concatenate([tone(PITCH_HZ[label], seconds) for label, seconds in parts])
    path = tmp_path / "long.wav"
    soundfile.write(path, np.stack([samples, samples], axis=1), 16_000)

    async def submit() -> tuple[str, shared.StreamSummary]:
        handle = await submit_file(await service.client(), service.settings, path)
        summary = await handle.result()
        status = await handle.query("status", result_type=shared.StreamStatus)  # the dashboard asks for it
        assert dataclasses.replace(status.summary, state=summary.state) == summary
        return handle.id, summary

    file_id, summary = asyncio.run(submit())
    assert (summary.state, summary.n_chunks, summary.label) == ("finished", 9, "crying")
    assert summary.n_by_label == {"normal": 4, "crying": 4, "screaming": 1}
    events = service.results.events(file_id)
    assert [(event["label"], event["sustained"]) for event in events] == [("crying", True), ("screaming", False)]
    borders = [seconds for event in events for seconds in (event["onset_seconds"], event["offset_seconds"])]
    np.testing.assert_allclose(borders, [20, 60, 60, 70], atol=0.48)
    assert not any(service.chunks.root.glob(f"??/*{file_id}*"))


def test_unreadable_file_fails_with_its_name(service: Service, tmp_path) -> None:
    path, samples = tmp_path / "damaged.wav", tone(500.0, 20)
    samples[200_000] = np.nan
    soundfile.write(path, samples, 16_000, subtype="FLOAT")

    async def submit() -> str:
        handle = await submit_file(await service.client(), service.settings, path)
        with pytest.raises(WorkflowFailureError) as raised:
            await handle.result()
        assert raised.value.cause.cause.type == "NonFiniteAudio"
        return handle.id

    file_id = asyncio.run(submit())
    assert [row["state"] for row in ended_streams(service.results) if row["stream_id"] == file_id] == ["rejected"]
    assert not any(service.chunks.root.glob(f"??/*{file_id}*"))


def test_gap_late_chunk_and_silent_sender(service: Service) -> None:
    stream_id = new_stream_id()
    summary = asyncio.run(send_eventful(service, stream_id))
    counts = summary.n_late, summary.n_missing, summary.n_classified, summary.n_rejected, summary.n_duplicates
    assert counts == (1, 1, 8, 1, 1)
    assert [row["sequence"] for row in service.results.chunks(stream_id) if row["late"]] == [5]
    kinds: dict[str, list[str]] = {}
    for row in service.results.changes(stream_id):
        kinds.setdefault(row["label"], []).append(row["kind"])
    assert kinds["sender silent"] == ["SILENT", "RESUMED"] * (len(kinds["sender silent"]) // 2)
    assert kinds["sound lost"] == ["HEALTH", "RESUMED"]
    assert [kind for kind in kinds["crying"] if kind != "UPDATE"] == ["START", "SUSTAINED", "END"]
    assert summary.problem_seconds == {"sound lost": 10.0}


def test_command_line(client, tmp_path) -> None:
    path, broken = tmp_path / "cry.wav", tmp_path / "broken.wav"
    soundfile.write(path, tone(PITCH_HZ["crying"], 30), 16_000)
    broken.write_bytes(b"nothing")

    code, out, _ = client("stream", str(path), "--chunk-seconds", "10")
    stream_id = out.splitlines()[0]
    assert (code, "3 crying" in out) == (0, True)
    assert [row["label"] for row in json.loads(client("results", "--stream", stream_id, "--json")[1])] == ["crying"] * 3
    assert "0.0 - 30.0 s  crying, ended, sustained" in client("events", "--stream", stream_id)[1]
    assert json.loads(client("status", stream_id)[1])["next_sequence"] == 3
    followed = client("follow", stream_id)[1].splitlines()
    assert [line.split()[1] for line in followed] == ["0", "1", "2", "START", *["UPDATE"] * 3, "SUSTAINED", "END"]
    for what, n_rows in (("chunks", 3), ("events", 1)):
        exported = tmp_path / f"{what}.csv"
        assert client("export", str(exported), "--stream", stream_id, "--what", what)[0] == 0
        assert len(pd.read_csv(exported)) == n_rows
    assert client("export", str(tmp_path / "chunks.parquet"))[0] == 2
    code, out, err = client("submit", str(broken), str(path))
    assert (code, "1 of 2 files" in err, "finished: crying; 3 chunks" in out) == (2, True, True)


def test_listening_ends_with_the_sound_in_hand_on_ctrl_c(service: Service) -> None:
    samples = (tone(PITCH_HZ["crying"], 7.0) * 32767).astype("<i2").tobytes()
    with on_air(Radio, (wav(samples, data_size=0xFFFFFFFF), 7.0), hold=60.0) as address:
        command = [sys.executable, *f"-m temporal_workflow.client listen http://{address}/ --chunk-seconds=5".split()]
        environment = {**os.environ, **service.settings.environment()}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            stream_id = process.stdout.readline().strip()
            assert process.stdout.readline() == "sent chunk 0, from 0.0 s\n"
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "sent chunk 1, from 5.0 s" in said
    rows = service.results.chunks(stream_id)
    assert [(row["start_seconds"], row["label"]) for row in rows] == [(0.0, "crying"), (5.0, "crying")]
    assert 5.0 < rows[1]["stop_seconds"] <= 7.0


@pytest.mark.parametrize(
    ("changes", "command", "code"),
    [
        ({"AUDIO_CLASSIFIER": "no.such:thing"}, ["worker", "--queue", "inference"], 78),  # starting again is pointless
        ({"AUDIO_CLASSIFIER": "lib.inference"}, ["worker", "--queue", "inference"], 78),
        ({"AUDIO_CODEC_KEY": "short"}, ["worker", "--queue", "orchestration"], 78),
        ({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, ["worker", "--queue", "orchestration"], 69),  # try again later
        ({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, ["client", "status", "stream-0"], 69),
    ],
)
def test_exit_codes_say_whether_to_try_again(tmp_path, changes, command, code) -> None:
    run = [sys.executable, "-m", f"temporal_workflow.{command[0]}", *command[1:]]
    environment = {**os.environ, "AUDIO_SERVICE_DIR": str(tmp_path), **changes}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1)


def test_nothing_outlives_a_killed_parent(tmp_path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.chaos.harness import Service\n"
        f"service = Service(Path({str(tmp_path)!r})); service.start()\n"
        "print(*(child.process.pid for child in service.children.values()), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_DIR, capture_output=True, text=True, timeout=120)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), seconds=40)


def _child(log_path: Path, code: str, *, ready: bytes = b"ready") -> Child:
    def start() -> subprocess.Popen:
        with log_path.open("ab") as log:
            return subprocess.Popen([sys.executable, "-S", "-c", code], stdout=log)

    return Child(log_path.stem, start, log_path, ready)


def test_supervisor_waits_longer_and_longer_only_for_what_cannot_start(tmp_path: Path) -> None:
    working = _child(tmp_path / "working.log", "print('ready')")
    broken = _child(tmp_path / "broken.log", "raise SystemExit(1)")
    stop = threading.Event()
    thread = threading.Thread(target=supervise, args=([working, broken],), kwargs={"stop": stop, "on_launched": int})
    thread.start()
    wait_until(lambda: broken.pause >= 8 * RESTART_SECONDS, seconds=30)
    stop.set()
    thread.join(20)
    n_starts = working.log_path.read_text().count("ready")
    assert n_starts > 4, "a child that cannot start must not keep the other waiting"
    assert working.pause == RESTART_SECONDS
