"""Names, limits and messages of the service: all that workflow, activities, worker and client agree on.

Pure Python only: workflows import this module, and the orchestration worker starts in under 2 s. Messages leave out
fields that have their default (`codec`), so a default is part of their format: another one is a new field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from lib.config import LEVEL_FLOOR_DB, MAX_SEGMENT_SECONDS, MIN_SEGMENT_SECONDS, SAMPLE_RATE_HZ, STILL_DB
from lib.events import EventChange, EventSettings, EventState

ORCHESTRATION_QUEUE = "cry-scream-orchestration"  # workflows and the results table: no machine learning import
INFERENCE_QUEUE = "cry-scream-inference"  # decoding and the ensemble

CLASSIFIED = "classified"
REJECTED = "rejected"
# What can be wrong with a stream: labels of changes of kind HEALTH; RESUMED ends each, with the stream at the latest.
NO_SIGNAL = "no signal"  # zeros, a constant, or a level that does not move: nothing that a microphone in a room sends
CLIPPING = "clipping"
SOUND_LOST = "sound lost"  # a gap in the stream: overflow, an interrupted source, chunks that never came
UNCLASSIFIED = "nothing classified"  # every chunk is rejected, or none is done
SENDER_SILENT = "sender silent"  # no chunk for longer than expected; of kind SILENT
PROBLEMS = (NO_SIGNAL, CLIPPING, SOUND_LOST, UNCLASSIFIED, SENDER_SILENT)
ALERT_KINDS = ("START", "SUSTAINED", "END", "SILENT", "HEALTH", "RESUMED")  # what someone may be told about
SAME_SECONDS = 0.01  # times that are no further apart are the same
STILL_SECONDS = 20.0  # a level that does not move for so long is no signal
CLIPPED_SHARE = 0.001  # of a chunk's samples at full scale
WHOLE_RECORDING = -1  # sequence under which a file stands in the chunk store

CONTEXT_SECONDS = 5.0  # of the stream before a chunk that travels in its file: what the detector's frames look back on
HOP_SECONDS = 0.48  # from one frame to the next; frame i covers [i, i + 1) hops of the stream
CHUNK_EVENTS = EventSettings.create(on=0.5, off=0.35)  # for classifiers without frame probabilities

MAX_MESSAGE_BYTES = 16_000  # the size guard refuses a larger payload; an argument over 2 MB would hang a workflow
CHUNKS_PER_RUN = 500  # then continue-as-new, unless Temporal suggests it or the history is long before that
HISTORY_EVENTS_PER_RUN = 2_500  # a new worker replays them in about 1 s, within WORKFLOW_TASK_TIMEOUT
WINDOW = 8  # chunks of a file in flight at a time
CHUNKS_PER_ROUND = 4  # of a stream that are worked on together; their messages must stay small
ROUNDS_PER_RUN = 200  # of 11 to 14 history events each: about HISTORY_EVENTS_PER_RUN
MAX_PENDING = 32  # accepted chunks that wait for a slot; each is about 300 bytes of the state carried on
MAX_AHEAD = 32  # how far past the first missing chunk a sequence may run
MAX_HASHES = 48  # of chunks, kept to refuse other content under the same sequence
MAX_GAP_RANGES = 64  # older gaps are forgotten: their chunks count as duplicates if they come after all
MAX_CHANGES = 40  # event changes in one message
MAX_NAME = 80  # characters of a stream's name

# A killed worker is noticed by the heartbeat timeout of its activities and by the workflow task timeout.
HEARTBEAT_EVERY = timedelta(seconds=0.5)
HEARTBEAT_TIMEOUT = timedelta(seconds=2)
PREPROCESS_TIMEOUT = timedelta(seconds=60)
CLASSIFY_TIMEOUT = timedelta(seconds=120)
STORE_TIMEOUT = timedelta(seconds=60)
CUT_TIMEOUT = timedelta(minutes=10)
WORKFLOW_TASK_TIMEOUT = timedelta(seconds=2)
STICKY_TIMEOUT = timedelta(seconds=1)  # a dead worker's cached workflows go to another after this long
RETRY_FIRST = timedelta(seconds=0.2)
RETRY_LONGEST = timedelta(seconds=5)
MAX_CRASHES = 30  # a chunk that takes down its worker this often is rejected, so that the stream goes on
INFRASTRUCTURE = "infrastructure"  # error type: disk, database or store are at fault, not the chunk; retried for ever

_DIGITS = "0123456789abcdefghijklmnopqrstuv"


@dataclass(frozen=True)
class ChunkReference:
    """Where a chunk's audio is stored; the audio itself never travels in a message."""

    sequence: int
    sha256: str  # the file's content, and so its place in the chunk store
    n_samples: int
    sample_rate_hz: int = SAMPLE_RATE_HZ
    start_seconds: float = 0.0  # place in the stream
    sent_seconds: float = 0.0  # Unix time at which the sender handed it over
    n_context_samples: int = 0  # at the head of the file, before start_seconds; not counted in n_samples

    @property
    def stop_seconds(self) -> float:
        """End of the chunk in the stream."""
        return self.start_seconds + self.n_samples / self.sample_rate_hz


def short_hash(sha256: str) -> str:
    """Return enough of a hash to tell one chunk from another."""
    return sha256[:8]


def check_chunk_seconds(seconds: float) -> None:
    """Raise ValueError for chunks that are not 5 to 15 s long."""
    if not MIN_SEGMENT_SECONDS <= seconds <= MAX_SEGMENT_SECONDS:
        raise ValueError(f"chunks of {seconds:g} s: choose {MIN_SEGMENT_SECONDS:g} to {MAX_SEGMENT_SECONDS:g} s.")


@dataclass(frozen=True)
class RecordingReference:
    """A whole file in the chunk store, to be cut by the file workflow."""

    sha256: str


@dataclass(frozen=True)
class ChunkHealth:
    """What a chunk's samples tell about the microphone or line that they came through."""

    low_db: float  # lowest and highest level of its half seconds in dBFS, without offset, at least -90
    high_db: float
    clipped_share: float  # of its samples

    def problems(self, seconds: float = math.inf) -> list[str]:
        """Return what is wrong with a chunk of so many seconds by itself; in under one, a level has no time to move."""
        is_still = self.high_db - self.low_db <= STILL_DB if seconds >= 1 else self.high_db <= LEVEL_FLOOR_DB
        is_clipped = self.clipped_share > CLIPPED_SHARE
        return [NO_SIGNAL] * is_still + [CLIPPING] * is_clipped


@dataclass(frozen=True)
class FrameProbabilities:
    """The detector's probabilities for a chunk's frames, packed into a short text."""

    first_frame: int  # counted from the start of the stream
    n_final: int  # so many frames do not depend on what follows the chunk; the others do
    packed: str  # two digits of base 32 for each probability in thousandths: crying, screaming, crying, ...

    @classmethod
    def pack(cls, rows: Sequence[Sequence[float]], *, first_frame: int, n_final: int) -> FrameProbabilities:
        """Pack rows (n_frames, 2) of probabilities that are multiples of 0.001."""
        numbers = [round(1000 * value) for row in rows for value in row]
        text = "".join(_DIGITS[number // 32] + _DIGITS[number % 32] for number in numbers)
        return cls(first_frame, n_final, text)

    def rows(self) -> list[tuple[float, ...]]:
        """Return the probabilities (n_frames, 2)."""
        numbers = [int(self.packed[at : at + 2], 32) / 1000 for at in range(0, len(self.packed), 2)]
        return [tuple(numbers[at : at + 2]) for at in range(0, len(numbers), 2)]


@dataclass(frozen=True)
class ClassifyInput:
    """One chunk, of a stream of version 0.1, and the event settings that the workflow has already."""

    chunk: ChunkReference
    settings_version: str = ""


@dataclass(frozen=True)
class ClassifyResult:
    """What ensemble and detector predict for one chunk, and the detector's frames; in the project's class order."""

    label: str
    probabilities: list[float]
    model_version: str
    members: dict[str, list[float]] = field(default_factory=dict)  # probabilities by network
    frames: FrameProbabilities | None = None
    settings: EventSettings | None = None  # the detector's, where the workflow has others
    settings_version: str = ""
    health: ChunkHealth | None = None


@dataclass(frozen=True)
class ClassifyRound:
    """The next chunks of a stream, and the event settings that the workflow has already."""

    chunks: list[ChunkReference]
    settings_version: str = ""


@dataclass(frozen=True)
class ClassifiedChunk:
    """One chunk of a round after classification, or why it is rejected."""

    sequence: int
    result: ClassifyResult | None = None
    reason: str = ""


@dataclass(frozen=True)
class ChunkOutcome:
    """One row of the results table; without what the table alone needs, it waits for earlier chunks in the state."""

    sequence: int
    start_seconds: float
    stop_seconds: float
    sent_seconds: float
    status: str
    label: str = ""
    probabilities: list[float] = field(default_factory=list)
    frames: FrameProbabilities | None = None
    health: ChunkHealth | None = None
    sha256: str = ""
    reason: str = ""
    model_version: str = ""
    late: bool = False
    members: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def for_chunk(cls, chunk: ChunkReference, status: str, **found: Any) -> ChunkOutcome:
        """Return the row of a chunk."""
        place = {name: getattr(chunk, name) for name in ("sha256", "start_seconds", "stop_seconds", "sent_seconds")}
        return cls(chunk.sequence, status=status, **place, **found)

    def waiting(self) -> ChunkOutcome:
        """Return what an outcome tells the stream; with frames its probabilities do not count."""
        counting = self.probabilities if self.frames is None else []
        return replace(self, probabilities=counting, sha256="", reason="", model_version="", members={})

    def problems(self) -> list[str]:
        """Return what is wrong with the chunk's sound."""
        return self.health.problems(self.stop_seconds - self.start_seconds) if self.health else []


@dataclass(frozen=True)
class StreamSummary:
    """What a stream or file holds so far; also the result of both workflows."""

    state: str  # running, silent, finished, interrupted, abandoned
    kind: str  # stream or file
    name: str
    n_chunks: int
    n_classified: int
    n_rejected: int
    n_duplicates: int
    n_refused: int
    n_late: int
    n_missing: int
    n_events: int
    n_by_label: dict[str, int]
    last_label: str
    seconds: float  # end of the last chunk that was applied in order
    remarks: list[str] = field(default_factory=list)  # about a file, for example that its end is missing
    label: str = "normal"  # of the strongest event that has ended; of a stream of one chunk, the chunk's
    problem_seconds: dict[str, float] = field(default_factory=dict)  # of the stream, by problem

    def fault(self) -> str:
        """Return why this tells nothing about the sound: none arrived, or none was classified; else nothing."""
        if not self.n_classified:
            return UNCLASSIFIED if self.n_chunks else "nothing was sent"
        sounding = self.seconds - self.problem_seconds.get(SOUND_LOST, 0.0) - self.problem_seconds.get(NO_SIGNAL, 0.0)
        return "no sound arrived" if sounding <= SAME_SECONDS else ""


@dataclass(frozen=True)
class StoreInput:
    """A chunk's outcome (if any), the changes of events since the last store, and the summary when it ends."""

    stream_id: str
    outcome: ChunkOutcome | None = None
    changes: list[EventChange] = field(default_factory=list)
    summary: StreamSummary | None = None
    audio: list[str] = field(default_factory=list)  # sha256 of the audio that is done with once the row stands
    keep_audio: bool = False  # else it is deleted
    name: str = ""  # the beginning of the stream's: a round repeats it


@dataclass(frozen=True)
class CutInput:
    """Cut up to `n_chunks` chunks from a recording, starting at `first_sequence`."""

    stream_id: str
    recording: RecordingReference
    chunk_seconds: float
    first_sequence: int
    n_chunks: int


@dataclass(frozen=True)
class CutResult:
    """The chunks that were cut, and how many the whole recording has: -1 until its end is reached."""

    chunks: list[ChunkReference]
    n_total: int
    remarks: list[str] = field(default_factory=list)  # what is odd about the recording, known at its end


@dataclass
class StreamState:
    """What a stream carries across continue-as-new."""

    next_sequence: int = 0  # every sequence below it was applied or declared missing
    seen: list[int] = field(default_factory=list)  # accepted sequences from next_sequence on
    missing: list[list[int]] = field(default_factory=list)  # [first, last] ranges declared missing
    pending: list[ChunkReference] = field(default_factory=list)
    waiting: list[ChunkOutcome] = field(default_factory=list)  # classified, waiting for an earlier chunk
    outbox: list[EventChange] = field(default_factory=list)
    tracker: EventState = field(default_factory=EventState)
    events: dict[str, Any] | None = None  # of version 0.1: one event at most; read from its streams, never written
    silent_number: int = 0  # event that says the sender is silent
    tail: FrameProbabilities | None = None  # of the last chunk applied: used if no chunk follows it
    next_frame: int = 0  # first frame that the tracker has not had
    event_settings: EventSettings | None = None  # the detector's
    settings_version: str = ""
    n_by_label: dict[str, int] = field(default_factory=dict)
    n_classified: int = 0
    n_rejected: int = 0
    n_duplicates: int = 0
    n_refused: int = 0
    n_late: int = 0
    n_runs: int = 1
    last_label: str = ""
    label: str = "normal"  # of the strongest event that has ended
    peak_probability: float = 0.0  # its highest
    lag_seconds: float = 0.0
    seconds: float = 0.0
    end: int = -1  # number of chunks the sender announced; -1 while it still sends
    silent: bool = False
    silent_since: float = 0.0  # Unix time
    abandoned: bool = False
    interrupted: str = ""  # why the sender stopped before the stream's end
    problems: dict[str, EventChange] = field(default_factory=dict)  # open ones, as they were raised
    problem_seconds: dict[str, float] = field(default_factory=dict)
    still: list[float] = field(default_factory=list)  # lowest and highest level, seconds of a level that does not move
    unclassified_seconds: float = 0.0  # since the last classified chunk
    level_db: float | None = None
    reason: str = ""  # of the last rejected chunk
    hashes: dict[str, str] = field(default_factory=dict)  # by sequence, of those known and a few before them
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StreamSettings:
    """What can be chosen for a stream or file."""

    name: str = ""  # free text of the owner, shown in results; encrypted in messages when the codec is on
    keep_audio: bool = False
    gap_seconds: float = 30.0
    silent_seconds: float = 60.0
    unclassified_seconds: float = 30.0
    abandon_seconds: float = 86_400.0
    chunks_per_run: int = CHUNKS_PER_RUN


@dataclass(frozen=True)
class MonitorStreamInput:
    """Start of a stream's workflow, or of its next run."""

    settings: StreamSettings = field(default_factory=StreamSettings)
    state: StreamState | None = None


@dataclass(frozen=True)
class StreamStatus:
    """What the status query returns."""

    summary: StreamSummary
    next_sequence: int
    seen: list[int]
    missing: list[list[int]]
    n_pending: int
    n_in_flight: int
    open_events: list[EventChange]
    lag_seconds: float  # from sending to result, of the newest chunk applied
    silent: bool
    n_runs: int
    problems: list[EventChange] = field(default_factory=list)  # open ones, of kind HEALTH or SILENT
    level_db: float | None = None  # highest of the newest chunk applied
    hashes: dict[str, str] = field(default_factory=dict)  # by sequence, of what was accepted last; see `short_hash`


@dataclass(frozen=True)
class ClassifyFileInput:
    """Start of a file's workflow, or of its next run."""

    recording: RecordingReference
    chunk_seconds: float = 10.0
    settings: StreamSettings = field(default_factory=StreamSettings)
    state: StreamState | None = None
