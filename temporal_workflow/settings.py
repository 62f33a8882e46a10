"""Settings of the service from the environment, so that another machine needs other settings and no other code.

Temporal's own variables (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_CLIENT_CERT_PATH,
TEMPORAL_TLS_CLIENT_KEY_PATH, TEMPORAL_TLS_SERVER_CA_CERT_PATH, ...) are read by Temporal's SDK.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import logging
import os
import pkgutil
import re
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from lib import config
from temporal_workflow.codec import data_converter, read_key
from temporal_workflow.shared import ORCHESTRATION_QUEUE, check_chunk_seconds
from temporal_workflow.store import ChunkStore

DEFAULT_ADDRESS = "127.0.0.1:7233"
REAL_CLASSIFIER = "lib.inference:Classifier.load"
PITCH_CLASSIFIER = "temporal_workflow.pitch_classifier:load"  # a stand-in

POLL_SECONDS = 90.0  # a worker asks for work at least once a minute
REFUSED = "the Temporal server at {} refuses this process: set TEMPORAL_API_KEY (or the TEMPORAL_TLS_ certificates)."
NO_TLS = (
    "the Temporal server at {} does not speak TLS, which TEMPORAL_API_KEY and TEMPORAL_TLS_ variables switch on: "
    "unset them, or set TEMPORAL_ADDRESS."
)
NO_NAMESPACE = "the Temporal server at {} has no namespace {!r}: set TEMPORAL_NAMESPACE."
OTHER_KEY = (
    "the workers encrypt with another key than this process, or one of both does not encrypt: set AUDIO_CODEC_KEY_FILE "
    "(or AUDIO_CODEC_KEY) alike for both."
)
OTHER_STORE = (
    "the workers read another chunk store than this process writes: set AUDIO_SERVICE_DIR (or AUDIO_CHUNKS_DIR) alike "
    "for both."
)
_MARKS = re.compile(r"-(plain|[0-9a-f]{8})-([0-9a-f]{8})$")  # at the end of a worker's name

_VARIABLES = {
    "chunks_dir": "AUDIO_CHUNKS_DIR",
    "results_url": "AUDIO_RESULTS_URL",
    "models_dir": "AUDIO_MODELS_DIR",
    "classifier": "AUDIO_CLASSIFIER",
}


class SettingsError(ValueError):
    """A setting is wrong; starting again without changing it is pointless."""


@dataclass(frozen=True)
class Settings:
    """Where things are stored and who may read them."""

    service_dir: Path
    chunks_dir: Path
    results_url: str
    models_dir: Path = config.MODELS_DIR
    classifier: str = REAL_CLASSIFIER
    address: str = DEFAULT_ADDRESS
    key: bytes | None = field(repr=False, default=None)

    @classmethod
    def below(cls, service_dir: Path, **chosen: Any) -> Settings:
        """Return settings with everything in one folder, which is made if missing."""
        service_dir = service_dir.resolve()
        service_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        usual = {"chunks_dir": service_dir / "chunks", "results_url": f"sqlite:///{service_dir / 'results.sqlite'}"}
        return cls(service_dir, **{**usual, **chosen})

    @classmethod
    def from_environment(cls) -> Settings:
        """Read AUDIO_SERVICE_DIR and the other AUDIO_ variables, and TEMPORAL_ADDRESS."""
        given = {name: os.environ.get(variable) for name, variable in _VARIABLES.items()}
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value}
        chosen |= {name: Path(chosen[name]) for name in ("chunks_dir", "models_dir") if name in chosen}
        key_file = os.environ.get("AUDIO_CODEC_KEY_FILE")
        return cls.below(
            Path(os.environ.get("AUDIO_SERVICE_DIR") or config.BUILD_DIR / "service"),
            address=ClientConfig.load_client_connect_config().get("target_host", DEFAULT_ADDRESS),
            key=read_key(file=Path(key_file) if key_file else None, text=os.environ.get("AUDIO_CODEC_KEY")),
            **chosen,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that give a child process these settings."""
        variables = {variable: str(getattr(self, name)) for name, variable in _VARIABLES.items()}
        variables |= {"AUDIO_SERVICE_DIR": str(self.service_dir), "TEMPORAL_ADDRESS": self.address}
        if self.key is not None:
            variables["AUDIO_CODEC_KEY"] = base64.b64encode(self.key).decode()
        return variables

    def marks(self) -> tuple[str, str]:
        """Return marks of the codec key and of the chunk store: alike where two processes share them."""
        key = "plain" if self.key is None else hashlib.sha256(b"mark of " + self.key).hexdigest()[:8]
        return key, ChunkStore(self.chunks_dir).mark()

    def load_classifier(self) -> Any:
        """Load the classifier that `classifier` names as "module:factory", called with the models' folder."""
        try:
            factory: Callable[[Path], Any] = pkgutil.resolve_name(self.classifier)
        except (ValueError, ImportError, AttributeError) as error:
            raise SettingsError(f"AUDIO_CLASSIFIER={self.classifier!r} cannot be imported: {error}") from error
        if not callable(factory):
            raise SettingsError(f"AUDIO_CLASSIFIER={self.classifier!r} is no module:factory")
        return factory(self.models_dir)


async def connect(settings: Settings, *, runtime: Runtime | None = None) -> Client:
    """Connect to Temporal: loopback by default; another address by Temporal's own variables, with TLS and API key.

    Raises
    ------
    RuntimeError
        If the server cannot be reached.
    SettingsError
        If it refuses this process.
    """
    options: dict[str, Any] = {**ClientConfig.load_client_connect_config(), "target_host": settings.address}
    name = "-".join([Path(sys.argv[0]).stem, secrets.token_hex(4), *settings.marks()])  # the default names the machine
    try:
        return await Client.connect(
            **options, data_converter=data_converter(settings.key), identity=name, runtime=runtime
        )
    except RuntimeError as error:
        if any(word in str(error).lower() for word in ("unauthenticated", "permission")):
            raise SettingsError(REFUSED.format(settings.address)) from None
        if "InvalidContentType" in str(error):  # what TLS makes of an answer without it
            raise SettingsError(NO_TLS.format(settings.address)) from None
        raise


async def check_access(client: Client, settings: Settings) -> list[str]:
    """Return the names of the orchestration workers that are connected.

    Raises
    ------
    SettingsError
        If the server refuses this process or does not know the namespace; the message names the setting.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=ORCHESTRATION_QUEUE),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    try:
        found = await client.workflow_service.describe_task_queue(request)
    except RPCError as error:
        if error.status in (RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.PERMISSION_DENIED):
            raise SettingsError(REFUSED.format(settings.address)) from None
        if error.status == RPCStatusCode.NOT_FOUND and "amespace" in error.message:
            raise SettingsError(NO_NAMESPACE.format(settings.address, client.namespace)) from None
        raise
    newest = time.time() - POLL_SECONDS
    return [poller.identity for poller in found.pollers if poller.last_access_time.ToSeconds() >= newest]


async def check(client: Client, settings: Settings) -> bool:
    """Return whether workers are there that share this process's settings; False where there is none yet.

    Raises
    ------
    SettingsError
        As `check_access`; or if every worker has another codec key, or another chunk store.
    """
    names = await check_access(client, settings)
    found = [match.groups() for name in names if (match := _MARKS.search(name))]
    for mine, theirs, fault in zip(settings.marks(), zip(*found, strict=True), (OTHER_KEY, OTHER_STORE), strict=False):
        if mine not in theirs:
            raise SettingsError(fault)
    return bool(names)


def count(text: str) -> int:
    """Return a number from 1 on that a command was given."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)


def chunk_seconds(text: str) -> float:
    """Return the length of chunks that a command was given: 5 to 15 s."""
    try:
        check_chunk_seconds(seconds := float(text))
    except ValueError:
        lowest, highest = config.MIN_SEGMENT_SECONDS, config.MAX_SEGMENT_SECONDS
        raise argparse.ArgumentTypeError(f"{text}: choose {lowest:g} to {highest:g} s") from None
    return seconds


def leave(code: int) -> NoReturn:
    """End the process now; Temporal's native threads can crash it during the interpreter's ordinary shutdown."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message and the fields given as `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            entry["error"] = record.exc_info[0].__name__  # its text could repeat a message
        return json.dumps(entry)
