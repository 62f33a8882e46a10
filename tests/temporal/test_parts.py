"""The service's parts by themselves: progress of a stream, stores, codec, size guard, imports."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import numpy as np
import pytest
import soundfile
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHistory
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from lib import audio, config
from lib.events import EventChange
from lib.inference import Prediction
from lib.waveforms import level_range_db
from temporal_workflow import client, codec, pitch_classifier, shared
from temporal_workflow.activities import InferenceActivities
from temporal_workflow.chunks import put_waveform
from temporal_workflow.pitch_classifier import PitchDetector
from temporal_workflow.progress import StreamProgress
from temporal_workflow.settings import JsonFormatter, Settings, connect
from temporal_workflow.store import AlteredChunk, ChunkStore, ForeignReference, MissingChunk
from tests.chaos.audit import replay
from tests.chaos.harness import another_run, apply, classify_round, inference, outcome
from tests.chaos.record import HISTORIES_DIR

SHA = "ab" * 32


def _chunk(sequence: int) -> shared.ChunkReference:
    return shared.ChunkReference(sequence, SHA, 160_000, 16_000, sequence * 10.0, 1.8e9 + 0.123, 80_000)


def _progress() -> StreamProgress:
    return StreamProgress(shared.StreamSettings(), shared.StreamState())


def test_worst_state_fits_in_one_message() -> None:
    progress = _progress()
    for sequence in range(1, 500):
        progress.accept(_chunk(sequence))
    while progress.can_start():
        progress.start_round(1)
    progress.state.missing = [[10_000 + 2 * n, 10_000 + 2 * n] for n in range(shared.MAX_GAP_RANGES)]
    given_state = shared.MonitorStreamInput(progress.settings, progress.state)
    converter = codec.data_converter(os.urandom(32))
    asyncio.run(converter.encode([given_state]))  # pending
    longest = shared.FrameProbabilities.pack([(1.0, 1.0)] * 36, first_frame=999_999, n_final=33)  # 15 s
    progress.use_settings(shared.CHUNK_EVENTS, "0123456789ab")
    for sequence in range(1, shared.MAX_AHEAD):
        health = shared.ChunkHealth(-89.99, -89.99, 0.1234)
        progress.record(outcome(_chunk(sequence), frames=longest, health=health), now=0.0)
    progress.state.tail = longest
    progress.state.pending = []
    asyncio.run(converter.encode([shared.MonitorStreamInput(progress.settings, progress.state)]))  # waiting
    assert len(progress.state.waiting) == shared.MAX_AHEAD - 1
    assert progress.state.n_refused == 499 - (shared.MAX_AHEAD - 1)


def test_full_round_fits_in_one_message() -> None:
    change = EventChange(99, 1, "SUSTAINED", "screaming", 123_456.789, 123_456.789, 0.1234, True)
    longest = shared.FrameProbabilities.pack([(1.0, 1.0)] * 36, first_frame=999_999, n_final=33)  # 15 s
    classified = outcome(
        _chunk(99_999),
        probabilities=[0.333333] * 3,
        members={name: [0.333333] * 3 for name in ("yamnet", "wav2vec2")},
        model_version="v" * 100,
        frames=longest,
        health=shared.ChunkHealth(-89.123, -12.345, 0.1234),
    )
    stored = [shared.StoreInput("stream-0123456789abcdef", classified, audio=[SHA, SHA])] * shared.CHUNKS_PER_ROUND
    changes = [dataclasses.replace(change, change=99_999 + n) for n in range(shared.MAX_CHANGES)]
    stored[-1] = dataclasses.replace(stored[-1], changes=changes)
    rejected = dataclasses.replace(classified, reason="r" * 400, frames=None)
    for message in (stored, [dataclasses.replace(each, outcome=rejected) for each in stored]):
        asyncio.run(codec.data_converter(os.urandom(32)).encode([message]))


STILL, CLIPPED = shared.ChunkHealth(-90.0, -90.0, 0.0), shared.ChunkHealth(-40.0, -3.0, 0.01)


def test_problems_of_a_stream_are_raised_counted_and_ended() -> None:
    """By chunks of 10 s: sound, zeros, clipping, rejected ones, and one that is 7 s later than it should be."""
    progress, told = _progress(), []
    found = [None, STILL, STILL, STILL, CLIPPED, "bad", "bad", "bad", CLIPPED]
    for sequence, health in enumerate(found):
        chunk = dataclasses.replace(_chunk(sequence), start_seconds=10.0 * sequence + 7 * (sequence == 8))
        rejected = {"status": shared.REJECTED, "probabilities": []}
        apply(progress, chunk, "normal", **(rejected if health == "bad" else {"health": health}))
        progress = another_run(progress)
        told += progress.take_changes()
    assert [change.label for change in progress.status().problems] == ["clipping", "sound lost"]
    progress.end_events()
    told += progress.take_changes()
    assert [(change.kind, change.label, change.onset_seconds, change.offset_seconds) for change in told] == [
        ("HEALTH", "no signal", 10.0, 30.0),
        ("RESUMED", "no signal", 10.0, 40.0),
        ("HEALTH", "clipping", 40.0, 50.0),
        ("HEALTH", "nothing classified", 50.0, 80.0),
        ("HEALTH", "sound lost", 80.0, 87.0),
        ("RESUMED", "nothing classified", 50.0, 80.0),
        ("RESUMED", "clipping", 40.0, 97.0),
        ("RESUMED", "sound lost", 80.0, 87.0),
    ]
    assert len({change.change for change in told}) == len(told)
    seconds = {"no signal": 30.0, "clipping": 57.0, "nothing classified": 30.0, "sound lost": 7.0}
    assert progress.summary("stream").problem_seconds == seconds


@pytest.mark.parametrize(("health", "expected"), [(STILL, 5.0), (shared.ChunkHealth(-20.0, -20.0, 0.0), None)])
def test_a_short_stream_of_silence_is_no_signal_a_short_tone_is_not(health, expected) -> None:
    progress = _progress()
    apply(progress, dataclasses.replace(_chunk(0), n_samples=80_000), "normal", health=health)
    progress.end_events()
    assert progress.summary("stream").problem_seconds.get("no signal") == expected


def test_a_recording_that_waited_for_a_worker_has_no_remark() -> None:
    progress = _progress()
    progress.accept(_chunk(0))
    progress.finish(1)
    progress.start_round(1)
    progress.note_wait()
    progress.record(outcome(_chunk(0)), now=1.8e9 + 2.123)
    assert [change.kind for change in progress.take_changes()][:2] == ["HEALTH", "RESUMED"]
    assert (progress.summary("file").remarks, progress.status().lag_seconds) == ([], 2.0)


def test_an_event_that_version_0_1_left_open_goes_on() -> None:
    old = {"n_events": 2, "number": 2, "n_changes": 9, "label": "crying", "onset_seconds": 5.0, "offset_seconds": 20.0}
    old |= {"peak_probability": 0.9, "sustained": False, "silent_number": 1}
    progress = _progress()
    progress.state = shared.StreamState(next_sequence=2, seconds=20.0, events=old)
    progress = another_run(progress)
    apply(progress, _chunk(2))
    changes = [(change.kind, change.number, change.change, change.onset_seconds) for change in progress.take_changes()]
    assert changes == [("UPDATE", 2, 10, 5.0)]
    assert progress.state.events is None


def test_store_keeps_shared_audio_until_its_last_claim(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    first = store.put(b"silence", stream_id="a", sequence=0)
    assert store.put(b"silence", stream_id="a", sequence=1) == first
    store.release(first, stream_id="a", sequence=0)
    assert store.path(first).read_bytes() == b"silence"
    store.release(first, stream_id="a", sequence=1)
    with pytest.raises(MissingChunk):
        store.path(first)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]


def test_store_has_one_mark_although_a_process_was_killed_while_it_made_it(tmp_path: Path) -> None:
    (tmp_path / ".mark").touch()
    with ThreadPoolExecutor(8) as others:
        marks = set(others.map(lambda _: ChunkStore(tmp_path).mark(), range(8)))
    assert [len(mark) for mark in marks] == [8]


def test_store_refuses_foreign_references(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path / "chunks")
    sha256 = store.put(b"audio", stream_id="a", sequence=0)
    (tmp_path / "secret.flac").write_bytes(b"secret")
    for bad in ("../../secret", "file:///etc/passwd", sha256 + "/..", sha256.upper(), sha256[:-1], sha256 + "\n", ""):
        with pytest.raises(ForeignReference):
            store.path(bad)
    for stream_id in ("../a", "a/b", "", "a.b", "x" * 81):
        with pytest.raises(ForeignReference):
            store.put(b"other audio", stream_id=stream_id, sequence=0)
    assert [path.stem for path in store.root.rglob("*.flac")] == [sha256]  # nothing stays that no claim holds


def test_store_notices_altered_audio_and_mends_it_on_resend(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    sha256 = store.put(b"audio", stream_id="a", sequence=0)
    path = store.path(sha256)
    path.write_bytes(b"other")
    with pytest.raises(AlteredChunk):
        store.path(sha256)
    store.put(b"audio", stream_id="a", sequence=0)
    assert store.path(sha256) == path


def test_sweep_releases_what_is_stored_and_old_orphans_but_nothing_that_is_kept(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    hashes = [store.put(content, stream_id="a", sequence=n) for n, content in enumerate((b"done", b"orphan", b"kept"))]
    store.put(b"kept", stream_id="b", sequence=5)
    store.keep(hashes[2], stream_id="a", sequence=2)
    store.release(hashes[2], stream_id="b", sequence=5)
    with pytest.MonkeyPatch.context() as killed, pytest.raises(KeyboardInterrupt):  # between its temporary and its name
        killed.setattr(Path, "replace", Mock(side_effect=KeyboardInterrupt))
        store.put(b"half", stream_id="c", sequence=0)

    def held_after(**ages: float) -> list[bool]:
        store.sweep(lambda _, sequence: sequence == 0, **ages)
        return [store.holds(sha256) for sha256 in hashes]

    assert held_after(older_than_seconds=3600, orphans_seconds=60) == [True, True, True]
    assert held_after(older_than_seconds=0) == [False, True, True]
    assert held_after(older_than_seconds=0, orphans_seconds=0) == [False, False, True]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("url", ["nothing", "sqlite:////nowhere/results.sqlite"])
def test_results_that_cannot_be_used_are_one_line(tmp_path: Path, monkeypatch, capsys, url) -> None:
    monkeypatch.setenv("AUDIO_SERVICE_DIR", str(tmp_path))
    monkeypatch.setenv("AUDIO_RESULTS_URL", url)
    assert client.main(["results"]) == client.EX_BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "AUDIO_RESULTS_URL" in line


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What `audio.load` is asked for."""
    asked, load = [], audio.load
    monkeypatch.setattr(audio, "load", lambda *given, **options: asked.append(given) or load(*given, **options))
    return asked


@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (44_100, 2)])
def test_a_chunk_is_decoded_once_and_classified_without_its_context(
    tmp_path: Path, rng, loads, rate_hz, channels
) -> None:
    store, samples = ChunkStore(tmp_path / "chunks"), 0.1 * rng.standard_normal((6 * rate_hz, channels))
    soundfile.write(tmp_path / "chunk.wav", samples, rate_hz)  # 16 bit
    sha256 = store.put((tmp_path / "chunk.wav").read_bytes(), stream_id="s", sequence=0)
    chunk = shared.ChunkReference(0, sha256, 5 * rate_hz, rate_hz, 1.0, n_context_samples=rate_hz)
    predict = Mock(return_value=Prediction("normal", dict.fromkeys(config.CLASS_NAMES, 1 / 3), {}))
    longer = dataclasses.replace(chunk, sequence=1, n_samples=4 * rate_hz)
    good, bad = classify_round(inference(store, predict), chunk, longer)
    assert len(loads) == 2
    own = audio.load(tmp_path / "chunk.wav")[16_000:]
    (seen,) = predict.call_args_list
    np.testing.assert_array_equal(seen.args[0], own)
    assert good.result.health == shared.ChunkHealth(*level_range_db(own), clipped_share=0.0)
    assert (bad.sequence, bad.result, bad.reason.split(":")[0]) == (1, None, "WrongLength")


def test_the_same_sound_is_worked_out_once_for_each_place_on_the_grid_of_frames(tmp_path: Path, loads) -> None:
    store = ChunkStore(tmp_path)
    sound = 0.3 * np.sin(np.arange(160_000) * np.linspace(0.1, 0.6, 160_000)).astype(np.float32)
    sha256 = store.put(audio.encode_flac(sound), stream_id="s", sequence=0)
    chunks = [
        shared.ChunkReference(number, sha256, 80_000, start_seconds=seconds, n_context_samples=80_000)
        for number, seconds in enumerate([5.0, 24.2, 43.4, 43.5])  # from the stream's start on; 19.2 s are 40 hops
    ]

    def classify(*given: shared.ChunkReference) -> list[shared.ClassifyResult]:
        new, version = InferenceActivities(pitch_classifier.load(tmp_path), store), PitchDetector.settings.version
        return [each.result for each in classify_round(new, *given, settings_version=version)]

    each = [*map(classify, chunks)]
    loads.clear()
    found = classify(*chunks)
    assert [[result] for result in found] == each
    assert found[2].frames.first_frame == found[1].frames.first_frame + 40
    assert len(loads) == 3


@pytest.mark.parametrize(
    ("error", "attempt", "kind", "is_final"),
    [
        (audio.TooShort("0.01 s"), 1, "TooShort", True),
        (OSError("no space left"), 1, shared.INFRASTRUCTURE, False),
        (TypeError("a fault of ours"), 1, "TypeError", False),
        (audio.DamagedAudio("x"), 2, "DamagedAudio", False),  # a decoder that was killed looks like damage
        (audio.DamagedAudio("x"), 3, "DamagedAudio", True),
    ],
)
def test_errors_say_whose_fault_it_is(tmp_path: Path, error, attempt, kind, is_final) -> None:
    store, environment = ChunkStore(tmp_path), ActivityEnvironment()
    chunk = put_waveform(store, np.zeros(80_000, np.float32), stream_id="s", sequence=0, start_seconds=0)
    environment.info = dataclasses.replace(environment.info, attempt=attempt)
    with pytest.raises(ApplicationError) as told:
        environment.run(inference(store, Mock(side_effect=error)).classify, shared.ClassifyInput(chunk))
    assert (told.value.type, told.value.non_retryable) == (kind, is_final)


def test_real_cluster_by_settings_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"certificate")
    monkeypatch.setattr("temporal_workflow.settings.Client.connect", connected := AsyncMock())
    for variable, value in {
        "AUDIO_SERVICE_DIR": str(tmp_path),
        "TEMPORAL_ADDRESS": "cluster.example:7233",
        "TEMPORAL_NAMESPACE": "listening",
        "TEMPORAL_API_KEY": "secret-key",
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(tmp_path / "ca.pem"),
    }.items():
        monkeypatch.setenv(variable, value)
    chosen = Settings.from_environment()
    asyncio.run(connect(chosen))
    seen = connected.call_args.kwargs
    assert (seen["target_host"], seen["namespace"]) == ("cluster.example:7233", "listening")
    assert seen["api_key"] == "secret-key"
    assert seen["tls"].server_root_ca_cert == b"certificate"
    assert socket.gethostname() not in seen["identity"]
    assert "secret" not in repr(dataclasses.replace(chosen, key=b"secret" * 6))


def test_logs_are_json_without_the_text_of_errors() -> None:
    try:
        raise ValueError("what was said in the nursery")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", None, sys.exc_info())
    record.fields = {"sequence": 3}
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["message"], entry["sequence"], entry["error"]) == ("failed", 3, "ValueError")
    assert "nursery" not in json.dumps(entry)


def test_codec_hides_and_authenticates() -> None:
    key = os.urandom(32)
    clear = Payload(metadata={"encoding": b"json/plain"}, data=b'"crying"')
    encrypting = codec.Codec(key)
    (sealed,) = asyncio.run(encrypting.encode([clear]))
    assert b"crying" not in sealed.SerializeToString()
    assert asyncio.run(encrypting.decode([sealed])) == [clear]
    assert asyncio.run(encrypting.decode([clear])) == [clear]
    with pytest.raises(codec.KeyFileError):
        asyncio.run(codec.Codec(os.urandom(32)).decode([sealed]))
    with pytest.raises(codec.OversizedMessage):
        asyncio.run(encrypting.encode([Payload(data=b"x" * shared.MAX_MESSAGE_BYTES)]))
    with pytest.raises(codec.OversizedMessage):
        asyncio.run(codec.data_converter(None).encode([shared.StreamSettings(name="x" * shared.MAX_MESSAGE_BYTES)]))


def test_key_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    command = [sys.executable, "-m", "temporal_workflow.codec"]
    for given, code in ([path], 0), ([], 2):
        assert subprocess.run([*command, *given], cwd=config.PROJECT_DIR, stderr=subprocess.DEVNULL).returncode == code
    assert len(codec.read_key(file=path, text=None)) == 32
    with pytest.raises(FileExistsError):
        codec.write_key(path)
    path.chmod(0o644)
    with pytest.raises(codec.KeyFileError, match="chmod 600"):
        codec.read_key(file=path, text=None)
    with pytest.raises(codec.KeyFileError):
        codec.read_key(file=None, text="c2hvcnQ=")
    assert codec.read_key(file=None, text=None) is None


@pytest.mark.parametrize("path", sorted(HISTORIES_DIR.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_histories_replay(path: Path) -> None:
    """A stream that was running when today's code is deployed goes on as it decided before."""
    history = WorkflowHistory.from_json(path.stem, path.read_text(encoding="utf-8"))
    assert asyncio.run(replay([history])) == 1


def test_recordings_are_there() -> None:
    for kind in ("", "timers-"):  # of version 0.1, and of today's
        assert len(list(HISTORIES_DIR.glob(f"{kind}stream-*.json"))) >= 2
        assert list(HISTORIES_DIR.glob(f"{kind}file-*.json"))


def test_orchestration_worker_imports_no_machine_learning_and_starts_within_2_seconds() -> None:
    code = "import json, sys, time, temporal_workflow.worker; print(json.dumps([time.process_time(), *sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=config.PROJECT_DIR
    )
    seconds, *modules = json.loads(done.stdout)
    assert not set(modules) & {"numpy", "torch", "tensorflow", "sklearn", "transformers", "librosa"}
    assert seconds < 2  # of its own: the machine may be busy with something else
