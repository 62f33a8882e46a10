"""`python -m tests.chaos.record`: record histories of today's workflows, to be replayed against tomorrow's code.

A change of the workflows that breaks their replay would break every stream that runs while it is deployed: then use
`workflow.patched` and keep the old recordings. Record anew only when no old stream can be running anywhere.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from temporalio.client import WorkflowHistory

from lib import config
from temporal_workflow.sender import submit_file
from tests.chaos.audit import histories
from tests.chaos.harness import LABELS, PITCH_HZ, Service, send_eventful, tone

HISTORIES_DIR = config.PROJECT_DIR / "tests" / "histories"


async def record(service: Service) -> dict[str, str]:
    """Return histories as JSON by name: a stream of several runs with all that can happen, and a file."""
    client, stream_id = await service.client(), "stream-recorded"
    await send_eventful(service, stream_id)
    path = service.settings.service_dir / "recording.flac"
    soundfile.write(path, np.concatenate([tone(PITCH_HZ[label]) for label in LABELS]), config.SAMPLE_RATE_HZ)
    handle = await submit_file(client, service.settings, path)
    await handle.result()
    found = {f"timers-stream-run-{n}": _text(h) for n, h in enumerate((await histories(client, stream_id))[::-1], 1)}
    found["timers-file-run-1"] = _text((await histories(client, handle.id))[0])
    return found


def _text(history: WorkflowHistory) -> str:
    """Return the history as JSON without stack traces: they name this machine's folders."""
    return re.sub(r'"stackTrace": "(?:[^"\\]|\\.)*"', '"stackTrace": ""', history.to_json())


def main() -> None:
    """Record into tests/histories."""
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder)) as service:
        recorded = asyncio.run(record(service))
    HISTORIES_DIR.mkdir(exist_ok=True)
    for name, text in recorded.items():
        (HISTORIES_DIR / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        sys.stdout.write(f"{name}: {len(text)} bytes\n")


if __name__ == "__main__":
    main()
