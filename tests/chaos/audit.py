"""What must hold after any fault: every chunk that was sent stands exactly once, in its place, with the right hash."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from lib.config import CLASS_NAMES
from lib.events import EVENT_LABELS
from temporal_workflow import shared
from temporal_workflow.codec import data_converter
from temporal_workflow.pitch_classifier import PitchDetector
from temporal_workflow.progress import StreamProgress
from temporal_workflow.results import ResultsTable
from temporal_workflow.serve import LocalService
from temporal_workflow.workflow import ClassifyFileWorkflow, MonitorStreamWorkflow

MAX_HISTORY_EVENTS = 10_240  # where Temporal warns


def assert_clean(row: dict[str, Any]) -> None:
    """Check what `audit` or `examined` found."""
    assert (row["lost"], row["duplicated"], row["out_of_order"]) == (0, 0, 0), row
    if "histories" in row:
        assert_replayed(row)


def assert_replayed(row: dict[str, Any]) -> None:
    """Check what `replayed` found."""
    assert row["replayed"] == row["histories"] >= 1, row
    assert row["largest_history_events"] < MAX_HISTORY_EVENTS, row
    assert row["largest_event_bytes"] < shared.MAX_MESSAGE_BYTES, row


def audit(results: ResultsTable, stream_id: str, sent: Sequence[shared.ChunkReference]) -> dict[str, int]:
    """Compare the results of one stream with what was sent.

    Out of order are rows in another chunk's place or with another hash, and events that rows in order do not give.
    """
    rows = results.chunks(stream_id)
    expected = {chunk.sequence: chunk for chunk in sent}
    found = Counter(row["sequence"] for row in rows)
    wrong = sum(
        (row["sha256"], row["start_seconds"])
        != (expected[row["sequence"]].sha256, expected[row["sequence"]].start_seconds)
        for row in rows
        if row["sequence"] in expected
    )
    return {
        "chunks": len(expected),
        "lost": len(expected.keys() - found.keys()),
        "duplicated": sum(found.values()) - len(found),
        "out_of_order": wrong + len(found.keys() - expected.keys()) + _wrong_events(results, stream_id, rows),
    }


def _wrong_events(results: ResultsTable, stream_id: str, rows: list[dict]) -> int:
    """Rebuild the events from the rows in order; count those that differ from the service's."""
    progress = StreamProgress(shared.StreamSettings(), shared.StreamState())
    progress.use_settings(PitchDetector.settings.events, PitchDetector.settings.version)
    for row in rows:
        if not row["late"]:
            progress.state.next_sequence = row["sequence"]
            progress.state.seen = [row["sequence"]]
            progress.record(_outcome(row), now=0.0)
    progress.end_events()
    expected = [_key(vars(change)) for change in progress.state.outbox if change.label in EVENT_LABELS]
    found = [_key(row) for row in results.changes(stream_id) if row["label"] in EVENT_LABELS]
    return sum((Counter(expected) - Counter(found)).values()) + sum((Counter(found) - Counter(expected)).values())


def _outcome(row: dict) -> shared.ChunkOutcome:
    values = {field.name: row[field.name] for field in dataclasses.fields(shared.ChunkOutcome) if field.name in row}
    known = row["status"] == shared.CLASSIFIED
    values["probabilities"] = [row[name] for name in CLASS_NAMES] if known else []
    values["frames"] = row["frames"] and shared.FrameProbabilities(**row["frames"])
    return shared.ChunkOutcome(**values, sent_seconds=0.0)


def _key(change: dict) -> tuple:
    return change["kind"], change["label"], change["onset_seconds"], change["offset_seconds"], change["sustained"]


async def histories(client: Client, stream_id: str) -> list[WorkflowHistory]:
    """Return the history of every run of one workflow."""
    return [
        await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
        async for run in client.list_workflows(f"WorkflowId = '{stream_id}'")
    ]


async def replay(found: Sequence[WorkflowHistory], *, key: bytes | None = None) -> int:
    """Replay histories against today's code; raise where it does not decide as it did. Return how many."""
    replayer = Replayer(workflows=[MonitorStreamWorkflow, ClassifyFileWorkflow], data_converter=data_converter(key))
    for history in found:
        await replayer.replay_workflow(history)
    return len(found)


async def examined(service: LocalService, stream_id: str, sent: Sequence[shared.ChunkReference]) -> dict[str, Any]:
    """Audit a stream and replay the history of each of its runs; return what every row of chaos.json holds."""
    return {**audit(service.results, stream_id, sent), **await replayed(service, stream_id)}


async def replayed(service: LocalService, stream_id: str) -> dict[str, int]:
    """Replay the history of each run of a stream or file; return how many there are and how large."""
    found = await histories(await service.client(), stream_id)
    return {
        "histories": len(found),
        "replayed": await replay(found, key=service.settings.key),
        "largest_history_events": max(len(history.events) for history in found),
        "largest_event_bytes": max(event.ByteSize() for history in found for event in history.events),
    }
