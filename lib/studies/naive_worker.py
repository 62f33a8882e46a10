"""A Temporal worker as a first attempt makes it: the benchmark's baseline for `temporal_workflow`.

It loads both networks inside each activity call, and the samples travel in the payload, as base64 of float32.
`python -m lib.studies.naive_worker N SECONDS` classifies N chunks one after the other on a development server of its
own, and prints one JSON object.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from temporalio import activity, workflow
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE = "naive"
RATE_HZ = 16_000


@activity.defn
def classify_samples(samples: str) -> str:
    """Load the networks, classify the samples, return the label."""
    from lib.studies import framework_path

    waveform = np.frombuffer(base64.b64decode(samples), dtype=np.float32)
    return framework_path.load().predict(waveform).label


@workflow.defn(sandboxed=False)
class NaiveWorkflow:
    """One chunk."""

    @workflow.run
    async def run(self, samples: str) -> str:
        """Classify one chunk."""
        timeout = timedelta(minutes=5)
        return await workflow.execute_activity(classify_samples, samples, start_to_close_timeout=timeout)


async def measure(n_chunks: int, chunk_seconds: float) -> dict[str, Any]:
    """Return the seconds of each chunk from start to result, and the bytes of history of each."""
    beside = Path(sys.executable).parent / "temporal"
    binary = str(beside) if beside.is_file() else shutil.which("temporal")
    rng, seconds, sizes = np.random.default_rng(7), [], []
    environment = await WorkflowEnvironment.start_local(dev_server_existing_path=binary)
    worker = Worker(
        environment.client,
        task_queue=QUEUE,
        workflows=[NaiveWorkflow],
        activities=[classify_samples],
        activity_executor=ThreadPoolExecutor(1),
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with environment, worker:
        for number in range(n_chunks):
            samples = (0.05 * rng.standard_normal(round(chunk_seconds * RATE_HZ))).clip(-1, 1).astype(np.float32)
            payload, started = base64.b64encode(samples.tobytes()).decode(), time.monotonic()
            call = environment.client.start_workflow(NaiveWorkflow.run, payload, id=f"naive-{number}", task_queue=QUEUE)
            handle = await call
            await handle.result()
            seconds.append(time.monotonic() - started)
            sizes.append(sum(event.ByteSize() for event in (await handle.fetch_history()).events))
    return {"seconds": seconds, "history_bytes": sizes}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(measure(int(sys.argv[1]), float(sys.argv[2])))) + "\n")
