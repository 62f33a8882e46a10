"""`python -m temporal_workflow.worker`: one worker process; stops gracefully on SIGTERM and SIGINT.

Exit codes, for supervisors: 0 stopped on request; 69 (EX_UNAVAILABLE) Temporal or the results database cannot be
reached, start again later; 78 (EX_CONFIG) a setting is wrong or a model is missing, starting again is pointless;
1 anything else, start again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import sqlalchemy.exc
from prometheus_client import start_http_server
from temporalio.client import Client
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from lib import config
from temporal_workflow import shared
from temporal_workflow.activities import InferenceActivities, StoreActivities
from temporal_workflow.alerts import alert_workers
from temporal_workflow.devserver import LIBC, PortError, check_port
from temporal_workflow.results import ResultsTable, SchemaError
from temporal_workflow.settings import JsonFormatter, Settings, check_access, connect, count, leave
from temporal_workflow.store import ChunkStore
from temporal_workflow.workflow import ClassifyFileWorkflow, MonitorStreamWorkflow

LOG = logging.getLogger(__name__)
EX_OK, EX_UNAVAILABLE, EX_CONFIG = 0, 69, 78  # sysexits.h
GRACE = timedelta(seconds=30)
STORE_SLOTS = 8
SLOTS = 2  # chunks that one worker classifies at a time
SWEEP_EVERY_SECONDS = 600.0
SWEEP_OLDER_THAN_SECONDS = 3600.0
_M_ARENA_MAX = -8  # mallopt(3)
ORPHANS_SECONDS = 7 * 86_400.0  # audio without a result, of streams that nobody finished


def orchestration_worker(client: Client, results: ResultsTable, chunks: ChunkStore) -> Worker:
    """Return the worker for workflows and the results table; no machine learning import, ready in under 2 s.

    Without the sandbox, which costs a third of this worker's time and imports the modules anew for every stream; the
    tests replay recorded histories in it.
    """
    activities = StoreActivities(results, chunks)
    return _worker(
        client,
        shared.ORCHESTRATION_QUEUE,
        slots=STORE_SLOTS,
        activities=[activities.store, activities.store_round],
        workflows=[MonitorStreamWorkflow, ClassifyFileWorkflow],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_local_activities=STORE_SLOTS,
        sticky_queue_schedule_to_start_timeout=shared.STICKY_TIMEOUT,
    )


def inference_worker(client: Client, inference: InferenceActivities, *, slots: int) -> Worker:
    """Return the worker that decodes and classifies, `slots` chunks at a time."""
    activities = [inference.classify_round, inference.cut, inference.preprocess, inference.classify]
    return _worker(client, shared.INFERENCE_QUEUE, slots=slots, activities=activities)


def _worker(client: Client, task_queue: str, *, slots: int, **options: Any) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        activity_executor=ThreadPoolExecutor(slots, thread_name_prefix=task_queue),
        max_concurrent_activities=slots,
        max_heartbeat_throttle_interval=shared.HEARTBEAT_EVERY,
        graceful_shutdown_timeout=GRACE,
        **options,
    )


async def run(settings: Settings, *, queue: str, slots: int, metrics_port: int) -> None:
    """Load what the queue needs, then poll until SIGTERM or SIGINT; finish the chunks in progress before returning."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    chunks = ChunkStore(settings.chunks_dir)
    if queue == "inference":
        inference = await asyncio.to_thread(lambda: InferenceActivities(settings.load_classifier(), chunks))
        await asyncio.to_thread(inference.warm_up)
    client = await connect(settings, runtime=_serve_metrics(metrics_port))
    await check_access(client, settings)
    if queue == "inference":
        workers = [inference_worker(client, inference, slots=slots)]
    else:
        results = ResultsTable(settings.results_url)
        workers = [orchestration_worker(client, results, chunks), *await alert_workers(client, results)]
        threading.Thread(target=_sweep_for_ever, args=(chunks, results), daemon=True).start()
    async with AsyncExitStack() as running:
        for worker in workers:
            await running.enter_async_context(worker)
        LOG.info("ready", extra={"fields": {"queue": queue, "pid": os.getpid()}})
        await stop.wait()
        LOG.info("stopping", extra={"fields": {"queue": queue}})
    LOG.info("stopped", extra={"fields": {"queue": queue}})


def _serve_metrics(port: int) -> Runtime | None:
    """Serve this process's metrics on `port` and the SDK's on the next one, both on loopback; 0 serves none."""
    if not port:
        return None
    host = os.environ.get("AUDIO_METRICS_HOST", "127.0.0.1")
    for each in (port, port + 1):
        check_port(each, host)
    start_http_server(port, addr=host)
    sdk = PrometheusConfig(bind_address=f"{host}:{port + 1}", durations_as_seconds=True)
    return Runtime(telemetry=TelemetryConfig(metrics=sdk))


def _sweep_for_ever(chunks: ChunkStore, results: ResultsTable) -> None:
    """Delete, every few minutes, audio whose result was stored but whose release failed or came too early."""
    pause = threading.Event()
    while not pause.wait(SWEEP_EVERY_SECONDS):
        try:
            n_released = chunks.sweep(
                results.has, older_than_seconds=SWEEP_OLDER_THAN_SECONDS, orphans_seconds=ORPHANS_SECONDS
            )
            LOG.info("swept", extra={"fields": {"n_released": n_released}})
        except (OSError, sqlalchemy.exc.SQLAlchemyError) as error:
            LOG.warning("sweep failed", extra={"fields": {"error": type(error).__name__}})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one worker and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m temporal_workflow.worker", description=__doc__)
    parser.add_argument("--queue", choices=("orchestration", "inference"), required=True)
    parser.add_argument("--slots", type=count, default=SLOTS, help=f"chunks classified at a time (default {SLOTS})")
    parser.add_argument("--metrics-port", type=int, default=0, help="Prometheus port; the SDK's is the next (0: none)")
    chosen = parser.parse_args(arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    mallopt = getattr(LIBC, "mallopt", None)  # of glibc
    if chosen.queue == "orchestration" and mallopt:
        mallopt(_M_ARENA_MAX, 2)  # all threads share two heaps: with one each, the default, memory grew in the soak
    os.environ[config.THREADS_VARIABLE] = str(config.n_threads(chosen.slots))
    try:
        asyncio.run(
            run(Settings.from_environment(), queue=chosen.queue, slots=chosen.slots, metrics_port=chosen.metrics_port)
        )
    except (ValueError, SchemaError, FileNotFoundError, PermissionError, sqlalchemy.exc.ArgumentError) as error:
        LOG.error("wrong setting: %s", error)
        return EX_CONFIG
    except (RPCError, RuntimeError, ConnectionError, PortError, sqlalchemy.exc.OperationalError) as error:
        LOG.error("not reachable: %s", str(error).splitlines()[0] if str(error) else type(error).__name__)
        return EX_UNAVAILABLE
    return EX_OK


if __name__ == "__main__":
    leave(main())
