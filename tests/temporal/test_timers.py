"""Timers of a stream and long waits for a worker: the workflows by themselves, given one workflow task after the other.

What a task is done again with after its worker was killed, timers that fired meanwhile included, is put together here
job by job: a real server would need luck for it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio import workflow
from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import TimeoutType
from temporalio.api.failure.v1 import ActivityFailureInfo, Failure, TimeoutFailureInfo
from temporalio.bridge.proto.activity_result import ActivityResolution, Success
from temporalio.bridge.proto.activity_result import Failure as FailedActivity
from temporalio.bridge.proto.workflow_activation import (
    FireTimer,
    InitializeWorkflow,
    ResolveActivity,
    SignalWorkflow,
    WorkflowActivation,
    WorkflowActivationJob,
)
from temporalio.bridge.proto.workflow_commands import ScheduleLocalActivity, WorkflowCommand
from temporalio.converter import DefaultFailureConverter
from temporalio.worker import UnsandboxedWorkflowRunner
from temporalio.worker._workflow_instance import WorkflowInstance, WorkflowInstanceDetails

from lib import config
from temporal_workflow import codec, shared
from temporal_workflow.workflow import ClassifyFileWorkflow, MonitorStreamWorkflow

CONVERTER = codec.data_converter(None).payload_converter
GAP_SECONDS, SILENT_SECONDS = 7.0, 60.0
ACTIVITY, LOCAL = "schedule_activity", "schedule_local_activity"
ENDS = CARRIED_ON, COMPLETED = "continue_as_new_workflow_execution", "complete_workflow_execution"
SETTINGS = shared.StreamSettings(gap_seconds=GAP_SECONDS, name="nursery" * 20)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Run:
    """One run of a workflow; `do` gives it the jobs of a workflow task and keeps the commands that follow."""

    def __init__(self, defined: type, given: object, *, now: datetime = START) -> None:
        definition = workflow._Definition.must_from_class(defined)
        info = Mock(task_queue=shared.ORCHESTRATION_QUEUE, workflow_id="stream-0")
        info.get_current_history_length.return_value, info.is_continue_as_new_suggested.return_value = 0, False
        info._logger_details.return_value = {}
        details = WorkflowInstanceDetails(
            payload_converter_factory=lambda: CONVERTER,
            failure_converter_class=DefaultFailureConverter,
            interceptor_classes=[],
            defn=definition,
            info=info,
            randomness_seed=7,
            extern_functions={"__temporal_assert_local_activity_valid": lambda _: None},
            disable_eager_activity_execution=False,
            worker_level_failure_exception_types=[],
            patch_activation_callback=None,
            last_completion_result=Payloads(),
            last_failure=None,
        )

        async def made() -> WorkflowInstance:  # where a loop runs
            return UnsandboxedWorkflowRunner().create_instance(details)

        self._instance = asyncio.run(made())
        self._timers: dict[float, int] = {}  # newest timer of each length in seconds
        self.now = now
        self.commands: list[WorkflowCommand] = []
        self.led_to: list[str] = []
        self._open: dict[int, Any] = {}  # activities that the workflow waits for, by number
        start = InitializeWorkflow(workflow_type=definition.name, arguments=CONVERTER.to_payloads([given]))
        self.do(WorkflowActivationJob(initialize_workflow=start))

    def do(self, *jobs: WorkflowActivationJob, seconds: float = 0.1) -> None:
        """Go on with the jobs of one workflow task, which comes `seconds` after the last."""
        self.now += timedelta(seconds=seconds)
        activation = WorkflowActivation(run_id="run", jobs=jobs)
        activation.timestamp.FromDatetime(self.now)
        completion = self._instance.activate(activation)
        assert not completion.HasField("failed"), completion.failed
        self.commands = list(completion.successful.commands)
        self.led_to += self.kinds()
        for job in jobs:
            self._open.pop(job.resolve_activity.seq, None)
        for command in self.commands:
            if command.HasField("start_timer"):
                length = command.start_timer.start_to_fire_timeout
                self._timers[round(length.ToTimedelta().total_seconds(), 3)] = command.start_timer.seq
            for kind in (ACTIVITY, LOCAL):
                if command.HasField(kind):
                    asked = getattr(command, kind)
                    self._open[asked.seq] = asked

    def fired(self, seconds: float) -> WorkflowActivationJob:
        return WorkflowActivationJob(fire_timer=FireTimer(seq=self._timers[seconds]))

    def fired_last(self) -> WorkflowActivationJob:
        """Return that the timer fired that was started last; it is the end of a day of silence."""
        seconds, seq = max(self._timers.items(), key=lambda timer: timer[1])
        assert seconds == pytest.approx(86_400.0 - 7_200.0 - SILENT_SECONDS, abs=2)
        return WorkflowActivationJob(fire_timer=FireTimer(seq=seq))

    def send(self, *sequences: int) -> None:
        """Have chunks come."""
        self.do(*(self.signalled("add_chunk", _chunk(sequence)) for sequence in sequences))

    def signalled(self, name: str, *given: object) -> WorkflowActivationJob:
        signal = SignalWorkflow(signal_name=name, input=CONVERTER.to_payloads(given))
        return WorkflowActivationJob(signal_workflow=signal)

    def kinds(self) -> list[str]:
        """Return what the last jobs led to, timers and markers left out."""
        found = [str(command.WhichOneof("variant")) for command in self.commands]
        return [kind for kind in found if kind in (ACTIVITY, LOCAL, *ENDS)]

    def carried_on(self, kind: type) -> Any:
        """Return what the next run is given, of a kind."""
        assert self.kinds() == [CARRIED_ON]
        command = next(command for command in self.commands if command.HasField(CARRIED_ON))
        return CONVERTER.from_payloads(list(command.continue_as_new_workflow_execution.arguments), [kind])[0]

    def rounds(self) -> list[list[shared.ChunkReference]]:
        """Return the chunks of each round that waits to be classified."""
        asked = [each for each in self._open.values() if each.activity_type == "classify_round"]
        return [CONVERTER.from_payloads(list(each.arguments), [shared.ClassifyRound])[0].chunks for each in asked]

    def stored(self) -> list[shared.StoreInput]:
        """Return what is being stored."""
        found: list[shared.StoreInput] = []
        for each in self._open.values():
            if each.activity_type == "store_round":
                found += CONVERTER.from_payloads(list(each.arguments), [list[shared.StoreInput]])[0]
            elif each.activity_type == "store":
                found += CONVERTER.from_payloads(list(each.arguments), [shared.StoreInput])
        return found

    def done(self, result: object = None) -> WorkflowActivationJob:
        """Return that the activity is done that the workflow waits for first."""
        (payload,) = CONVERTER.to_payloads([result])
        return _resolved(next(iter(self._open.values())), ActivityResolution(completed=Success(result=payload)))

    def classified(self) -> WorkflowActivationJob:
        """Return that the only round is classified."""
        (chunks,) = self.rounds()
        return self.done([_classified(chunk) for chunk in chunks])

    def timed_out(
        self, kind: TimeoutType.ValueType = TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
    ) -> list[WorkflowActivationJob]:
        """Return that no worker took any of the rounds, or that they ended in another timeout."""
        cause = Failure(timeout_failure_info=TimeoutFailureInfo(timeout_type=kind))
        failure = Failure(cause=cause, activity_failure_info=ActivityFailureInfo())
        failed = ActivityResolution(failed=FailedActivity(failure=failure))
        return [_resolved(asked, failed) for asked in self._open.values() if asked.activity_type == "classify_round"]

    def finish_stores(self) -> None:
        """Have everything stored that is being stored."""
        while self.stored():
            self.do(self.done())


def _resolved(asked: Any, result: ActivityResolution) -> WorkflowActivationJob:
    is_local = isinstance(asked, ScheduleLocalActivity)
    return WorkflowActivationJob(resolve_activity=ResolveActivity(seq=asked.seq, result=result, is_local=is_local))


def _chunk(sequence: int) -> shared.ChunkReference:
    return shared.ChunkReference(sequence, f"{sequence:064x}", 80_000, start_seconds=5.0 * sequence)


def _classified(chunk: shared.ChunkReference) -> shared.ClassifiedChunk:
    probabilities = [0.9 if name == "crying" else 0.05 for name in config.CLASS_NAMES]
    return shared.ClassifiedChunk(chunk.sequence, shared.ClassifyResult("crying", probabilities, "v1"))


def numbers(stored: Sequence[shared.StoreInput]) -> list[tuple[int, str, str]]:
    return [(change.change, change.kind, change.label) for each in stored for change in each.changes]


def stream(*sequences: int) -> Run:
    """Return a new stream that was sent chunks."""
    run = Run(MonitorStreamWorkflow, shared.MonitorStreamInput(SETTINGS))
    run.send(*sequences)
    return run


def behind_a_gap() -> Run:
    """Return a stream that misses chunk 1 and has chunk 3 classified now."""
    run = stream(0, 2)
    run.do(run.classified())
    run.finish_stores()
    run.send(3)
    return run


@pytest.mark.parametrize("is_timer_first", [True, False])
@pytest.mark.parametrize("length", [GAP_SECONDS, SILENT_SECONDS])
def test_a_task_done_again_after_a_timer_stores_the_same_changes(length: float, is_timer_first: bool) -> None:
    """Its worker was killed after the local activity: the rows stand already, and a number stays what it was."""
    killed, again = behind_a_gap(), behind_a_gap()
    killed.do(killed.classified())
    jobs = [again.classified(), again.fired(length)]
    again.do(*(jobs[::-1] if is_timer_first else jobs), seconds=SILENT_SECONDS)
    assert again.stored() == killed.stored()
    assert again.kinds() == killed.kinds() == [LOCAL]

    n_changes = len(numbers(again.stored())) + 1  # and the start of the cry in chunk 0
    again.do(again.done())
    told = numbers(again.stored())
    assert [number for number, *_ in told] == list(range(n_changes + 1, n_changes + 1 + len(told)))
    assert (shared.SENDER_SILENT if length == SILENT_SECONDS else shared.SOUND_LOST) in [label for *_, label in told]


@pytest.mark.parametrize("length", [GAP_SECONDS, SILENT_SECONDS])
def test_what_a_timer_led_to_is_stored_once_temporal_knows_of_it(length: float) -> None:
    """A local activity would be lost with its task, which may be done again with a chunk before the timer."""
    run = behind_a_gap()
    run.do(run.classified())
    run.finish_stores()
    run.do(run.fired(length), seconds=SILENT_SECONDS)
    assert run.kinds() == [ACTIVITY]
    label = shared.SENDER_SILENT if length == SILENT_SECONDS else shared.SOUND_LOST
    assert label in [label for *_, label in numbers(run.stored())]


def test_a_chunk_that_comes_after_the_timer_and_before_the_round_ends_closes_the_gap() -> None:
    run = behind_a_gap()
    run.do(run.fired(GAP_SECONDS), seconds=GAP_SECONDS)
    assert run.kinds() == []
    run.send(1)
    run.do(run.classified())
    run.finish_stores()
    assert [chunk.sequence for chunk in run.rounds()[0]] == [1]
    run.do(run.classified())
    (stored,) = run.stored()
    assert (stored.outcome.late, stored.name) == (False, SETTINGS.name[:80])
    assert shared.SOUND_LOST not in [change.label for change in stored.changes]


def test_silence_is_told_once_although_a_chunk_came_before_the_round_ended() -> None:
    run = behind_a_gap()
    run.do(run.fired(SILENT_SECONDS), seconds=SILENT_SECONDS)
    run.send(1)
    run.do(run.classified())
    run.finish_stores()
    run.do(run.classified())
    told = [kind for _, kind, label in numbers(run.stored()) if label == shared.SENDER_SILENT]
    assert told == ["SILENT", "RESUMED"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 3)), max_size=12))
def test_chunks_and_results_in_other_workflow_tasks_give_the_same_commands(tasks) -> None:
    """A worker that stood still saw them one by one; a replay is given them in one task, chunks before results."""
    worker, replay = stream(0), stream(0)
    chunks = (worker.signalled("add_chunk", _chunk(sequence)) for sequence in itertools.count(1))
    for n_before, is_classified, n_after in tasks:
        before, after = list(itertools.islice(chunks, n_before)), []
        is_new = not worker.rounds()  # the round follows from these chunks: its result comes in a later task
        for chunk in before:
            worker.do(chunk)
        if is_new:
            replay.do(*before)
            before = []
        result: list[WorkflowActivationJob] = []
        if worker.rounds() and is_classified:  # a task with a local activity is lost with it: nothing comes after
            found = [_classified(chunk) for chunk in worker.rounds()[0]]
            worker.do(worker.done(found))
            result = [replay.done(found)]
        elif worker.rounds():
            worker.do(*worker.timed_out())
            result, after = replay.timed_out(), list(itertools.islice(chunks, n_after))
            for chunk in after:
                worker.do(chunk)
        replay.do(*before, *after, *result)
        assert replay.stored() == worker.stored()
        worker.finish_stores()
        replay.finish_stores()
        assert replay.led_to == worker.led_to


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "ROUNDS_PER_RUN", 6)


def wait_out(run: Run, kind: type) -> Any:
    """Let no worker take anything until the run ends; return what the next one is given, of a kind."""
    for _ in range(20):
        run.do(*run.timed_out(), seconds=30)
        run.finish_stores()
        if not run.rounds():
            return run.carried_on(kind)
    pytest.fail("the run goes on and on")


def test_chunks_that_come_while_a_run_ends_are_carried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender is told that they are there: it does not send them again."""
    monkeypatch.setattr(shared, "ROUNDS_PER_RUN", 1)
    run = stream(0)
    run.do(run.fired(SILENT_SECONDS), seconds=SILENT_SECONDS)
    run.do(run.classified())
    run.do(run.done())
    assert [label for *_, label in numbers(run.stored())] == [shared.SENDER_SILENT]  # takes a while
    run.do(run.signalled("add_chunk", _chunk(1)), run.signalled("finish", 2, ""))
    run.finish_stores()
    state = run.carried_on(shared.MonitorStreamInput).state
    assert ([chunk.sequence for chunk in state.pending], state.end) == ([1], 2)


def test_a_stream_that_no_worker_takes_goes_on_in_another_run(short_runs: None) -> None:
    """Else its history would reach the server's limit, which ends the workflow."""
    given = wait_out(stream(0, 1, 2, 3, 4, 5), shared.MonitorStreamInput)
    assert [chunk.sequence for chunk in given.state.pending] == [0, 1, 2, 3, 4, 5]
    assert list(given.state.problems) == [shared.UNCLASSIFIED]

    run, found = Run(MonitorStreamWorkflow, given), []
    run.send(5)  # once more
    for _ in range(2):
        run.do(run.classified())
        found += run.stored()
        run.finish_stores()
    assert [stored.outcome.sequence for stored in found] == [0, 1, 2, 3, 4, 5]
    changes = numbers(found)
    assert [number for number, *_ in changes] == list(range(2, 2 + len(changes)))  # the run before stored the first
    run.do(run.signalled("finish", 6, ""))
    (last,) = run.stored()
    assert (last.summary.n_classified, last.summary.n_duplicates, last.summary.state) == (6, 1, "finished")


def test_a_file_that_no_worker_takes_goes_on_in_another_run(short_runs: None) -> None:
    run = Run(ClassifyFileWorkflow, shared.ClassifyFileInput(shared.RecordingReference("0" * 64)))
    run.do(run.done(shared.CutResult([_chunk(n) for n in range(8)], 8)))
    given = wait_out(run, shared.ClassifyFileInput)
    assert sorted(chunk.sequence for chunk in given.state.pending) == list(range(8))

    run = Run(ClassifyFileWorkflow, given)  # cuts nothing again
    assert run.kinds() == [ACTIVITY, ACTIVITY]
    assert sorted(chunk.sequence for chunks in run.rounds() for chunk in chunks) == list(range(8))


def test_a_day_of_silence_ends_a_stream_once_its_chunks_are_classified(short_runs: None) -> None:
    """However many runs the day takes, and however long no worker takes a chunk."""
    run = stream(0)
    run.do(run.fired(SILENT_SECONDS), seconds=SILENT_SECONDS)
    told_at = run.now + timedelta(seconds=30)  # once the round is given back
    given = wait_out(run, shared.MonitorStreamInput)
    assert given.state.silent
    assert given.state.silent_since == pytest.approx(told_at.timestamp(), abs=1)

    run = Run(MonitorStreamWorkflow, given, now=told_at + timedelta(hours=2))
    run.do(run.fired(SILENT_SECONDS), seconds=SILENT_SECONDS)
    run.do(run.fired_last(), seconds=86_400.0 - 7_200.0 - SILENT_SECONDS)
    assert run.kinds() == []
    run.do(*run.timed_out())
    assert [chunk.sequence for chunk in run.rounds()[0]] == [0]
    run.do(run.classified())
    (stored,) = run.stored()
    assert stored.outcome.sequence == 0
    run.do(run.done())
    (last,) = run.stored()
    assert (last.summary.state, last.summary.n_classified) == ("abandoned", 1)


def test_chunks_worked_on_alone_stay_alone_after_a_wait() -> None:
    """A round was lost with its worker: which chunk it was is still to be found out."""
    run = stream(0, 1)
    run.do(*run.timed_out(TimeoutType.TIMEOUT_TYPE_HEARTBEAT))
    assert [chunk.sequence for chunk in run.rounds()[0]] == [0]
    run.do(*run.timed_out())
    run.finish_stores()
    assert [chunk.sequence for chunk in run.rounds()[0]] == [0]
    run.do(run.classified())
    run.finish_stores()
    assert [chunk.sequence for chunk in run.rounds()[0]] == [1]
