"""`python -m temporal_workflow.client`: submit files and streams, watch them, read results.

Every command may be repeated: a chunk or file that is already there is not done again.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy.exc
from temporalio.client import Client, WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from temporal_workflow import shared
from temporal_workflow.results import ResultsTable, SchemaError, export, follow
from temporal_workflow.sender import (
    ConflictError,
    SendError,
    StreamClosedError,
    StreamSender,
    new_stream_id,
    send_stream,
    submit_file,
)
from temporal_workflow.settings import Settings, check, chunk_seconds, connect, leave
from temporal_workflow.store import ChunkStore

if TYPE_CHECKING:
    from temporal_workflow.chunks import Block

EX_OK, EX_BAD_INPUT, EX_UNAVAILABLE = 0, 2, 69
NO_WORKER = (
    "no worker is ready: after ./run_all.sh serve they load for some seconds, so wait; if it does not run, start it. "
    "What is sent is done once a worker is ready."
)


async def _submit(chosen: argparse.Namespace, settings: Settings) -> int:
    """Submit each file; go on past a bad one and say so at the end."""
    from lib import audio

    paths, skipped = audio.expand(chosen.paths)
    for line in skipped:
        _complain(f"skipped: {line}")
    if not paths:
        raise ValueError("no audio files there")
    client = await _connect(settings)
    codes = []
    for path in paths:
        try:
            handle = await submit_file(
                client, settings, path, chunk_seconds=chosen.chunk_seconds, keep_audio=chosen.keep_audio
            )
            _print(f"{audio.printable(path)}: {handle.id}")
            codes.append(_print_summary(handle.id, await handle.result(), settings))
        except (ValueError, OSError, WorkflowFailureError) as error:
            codes.append(_complain(_cause(error, path)))
    n_bad = sum(code != EX_OK for code in codes)
    if n_bad:
        _complain(f"{n_bad} of {len(paths)} files could not be used.")
    return max(codes, default=EX_OK)


async def _connect(settings: Settings) -> Client:
    """Connect, and tell at once what waiting would not change."""
    client = await connect(settings)
    if not await check(client, settings):
        _complain(NO_WORKER)
    return client


async def _stream(chosen: argparse.Namespace, settings: Settings) -> int:
    from temporal_workflow.chunks import cut_live

    given = {"path": chosen.path, "realtime": chosen.realtime, "on_remark": lambda text: _print(f"remark: {text}")}
    return await _send(chosen, settings, functools.partial(cut_live, **given))


async def _microphone(chosen: argparse.Namespace, settings: Settings) -> int:
    from temporal_workflow.microphone import open_microphone, recorded

    return await _send_live(chosen, settings, lambda stop: recorded(open_microphone(chosen.device), stop))


async def _listen(chosen: argparse.Namespace, settings: Settings) -> int:
    from temporal_workflow.listening import Source

    return await _send_live(chosen, settings, lambda stop: Source(chosen.url, stop, _print).blocks())


async def _send_live(
    chosen: argparse.Namespace, settings: Settings, source: Callable[[threading.Event], Iterator[Block]]
) -> int:
    """Send what a source gives in blocks until Ctrl+C."""
    from temporal_workflow.chunks import send_live

    stop, loop = threading.Event(), asyncio.get_running_loop()

    def interrupt() -> None:  # the first Ctrl+C: the sound in hand is sent; the second ends the program
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, interrupt)
    return await _send(chosen, settings, functools.partial(send_live, blocks=source(stop), stop=stop))


async def _send(
    chosen: argparse.Namespace, settings: Settings, source: Callable[..., AsyncIterator[shared.ChunkReference]]
) -> int:
    """Send what a source gives, called with store, stream_id and chunk_seconds, as a stream; print what comes out."""
    client, results = await _connect(settings), ResultsTable(settings.results_url)
    stream_id = chosen.stream or new_stream_id()
    if results.has_ended(stream_id):
        raise StreamClosedError(stream_id)
    sender = StreamSender(
        client,
        stream_id,
        settings=shared.StreamSettings(name=chosen.name, keep_audio=chosen.keep_audio),
        stored={row["sequence"]: row["sha256"] for row in results.chunks(stream_id)} if chosen.stream else None,
    )
    chunks = source(ChunkStore(settings.chunks_dir), stream_id=stream_id, chunk_seconds=chosen.chunk_seconds)

    def on_sent(chunk: shared.ChunkReference) -> None:
        if chunk.sequence == 0:  # accepted: before, the stream might have been refused
            _print(stream_id)
        _print(f"sent chunk {chunk.sequence}, from {chunk.start_seconds:.1f} s")

    summary = await send_stream(
        sender,
        chunks,
        on_sent=on_sent,
        on_problem=lambda problem: _complain(f"{problem.label} from {problem.onset_seconds:.1f} s on"),
    )
    return _print_summary(stream_id, summary, settings)


async def _status(chosen: argparse.Namespace, settings: Settings) -> int:
    client = await _connect(settings)
    _print_json(await client.get_workflow_handle(chosen.stream).query("status", rpc_timeout=timedelta(seconds=30)))
    return EX_OK


async def _rows(chosen: argparse.Namespace, settings: Settings) -> int:
    rows = _found(chosen, settings, chosen.command)
    if chosen.json:
        _print_json(rows)
    else:
        _print(*map(_event_line if chosen.command == "events" else _chunk_line, rows))
    return EX_OK


async def _follow(chosen: argparse.Namespace, settings: Settings) -> int:
    results = ResultsTable(settings.results_url)
    if not results.knows(chosen.stream):  # it may have just begun
        await (await _connect(settings)).get_workflow_handle(chosen.stream).describe()
    for kind, row in follow(results, chosen.stream):
        change = "" if kind == "chunk" else f"{row['stream_id']} {row['kind']:>9} {_interval(row)}  {row['label']}"
        _print(change or _chunk_line(row))
    return EX_OK


async def _export(chosen: argparse.Namespace, settings: Settings) -> int:
    rows = _found(chosen, settings, chosen.what)
    export(rows, chosen.path)
    _print(f"{chosen.path}: {len(rows)} rows")
    return EX_OK


async def _dashboard(chosen: argparse.Namespace, settings: Settings) -> int:
    from temporal_workflow import dashboard

    server = dashboard.Server(dashboard.Dashboard(settings), chosen.port)
    _print(f"{server.address}   Stop: Ctrl+C")
    await asyncio.Event().wait()
    return EX_OK


def _print_summary(stream_id: str, summary: shared.StreamSummary, settings: Settings) -> int:
    """Print what came out; return the exit code."""
    results = ResultsTable(settings.results_url)
    lines = [*map(_chunk_line, results.chunks(stream_id)), *map(_event_line, results.events(stream_id))]
    _print(*lines, *(f"remark: {remark}" for remark in summary.remarks))
    labels = ", ".join(f"{count} {label}" for label, count in sorted(summary.n_by_label.items()))
    counts = f"{summary.n_chunks} chunks ({labels}), {summary.n_rejected} rejected"
    fault = summary.fault()
    _print(f"{stream_id} {summary.state}: {fault or summary.label}; {counts}")
    if fault:
        _complain(f"{stream_id}: {fault}. This says nothing about whether somebody cried or screamed.")
    return EX_BAD_INPUT if fault or summary.state == "interrupted" else EX_OK


def _chunk_line(row: dict[str, Any]) -> str:
    what = row["label"] if row["status"] == shared.CLASSIFIED else f"rejected: {row['reason']}"
    what += f" ({row['problems']})" if row["problems"] else ""
    return f"{row['stream_id']} {row['sequence']:>5} {row['start_seconds']:9.1f} - {row['stop_seconds']:.1f} s  {what}"


def _event_line(row: dict[str, Any]) -> str:
    state = "ended" if row["kind"] in ("END", "RESUMED") else "open"
    sustained = ", sustained" if row["sustained"] else ""
    return f"{row['stream_id']} event {row['number']:>3} {_interval(row)}  {row['label']}, {state}{sustained}"


def _interval(row: dict[str, Any]) -> str:
    return f"{row['onset_seconds']:9.1f} - {row['offset_seconds']:.1f} s"


def _found(chosen: argparse.Namespace, settings: Settings, what: str) -> list[dict[str, Any]]:
    """Return the rows that are asked for."""
    results = ResultsTable(settings.results_url)
    if chosen.stream and not results.knows(chosen.stream):
        raise ValueError(f"{chosen.stream}: there is no such stream or file in {settings.results_url}.")
    rows = (results.events if what == "events" else results.chunks)(chosen.stream)
    if not rows and not chosen.stream:
        _complain(f"no {what} in {settings.results_url}; AUDIO_SERVICE_DIR and AUDIO_RESULTS_URL choose another place.")
    return rows


def _print_json(value: Any) -> None:
    _print(json.dumps(value, indent=2, default=datetime.isoformat))


def _print(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _complain(line: str, code: int = EX_BAD_INPUT) -> int:
    """Write to standard error; return the exit code that goes with it."""
    sys.stderr.write(line + "\n")
    return code


def _cause(error: BaseException, path: Path) -> str:
    """Return the file and the innermost message: what is wrong with it, not that a workflow failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    what = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    return what if str(path) in what else f"{path}: {what}"


Run = Callable[[argparse.Namespace, Settings], Coroutine[Any, Any, int]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m temporal_workflow.client", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run, stream=None)
        return command

    _add_senders(add)
    _add_readers(add)
    return parser


def _add_senders(add: Callable[[str, Run, str], argparse.ArgumentParser]) -> None:
    submit = add("submit", _submit, "classify files or folders")
    submit.add_argument("paths", type=Path, nargs="+")
    stream = add("stream", _stream, "send a file as a live stream")
    stream.add_argument("path", type=Path)
    stream.add_argument("--realtime", action="store_true", help="send each chunk when it would have been recorded")
    stream.add_argument("--stream", help="id of the stream (default: a new random one); give it again to resume")
    microphone = add("microphone", _microphone, "send what the microphone records, until Ctrl+C")
    microphone.add_argument("--device", help="name or number of the input device (default: the system's)")
    listen = add("listen", _listen, "send what an RTSP camera or HTTP stream sends, until Ctrl+C")
    listen.add_argument("url", help="anything that FFmpeg opens; user and password in it are never shown")
    for command in (stream, microphone, listen):
        command.add_argument("--name", default="", help="free text kept with the results")
    for command in (submit, stream, microphone, listen):
        command.add_argument("--chunk-seconds", type=chunk_seconds, default=10.0, help="5 to 15 (default 10)")
        command.add_argument("--keep-audio", action="store_true", help="do not delete audio once its result is stored")


def _add_readers(add: Callable[[str, Run, str], argparse.ArgumentParser]) -> None:
    add("status", _status, "query a running stream").add_argument("stream")
    following = add("follow", _follow, "show chunks and events of a stream as they are stored (tail -f)")
    following.add_argument("stream")
    results = add("results", _rows, "stored chunks")
    events = add("events", _rows, "events with onset and offset")
    export = add("export", _export, "write results to a CSV file")
    for command in (results, events):
        command.add_argument("--json", action="store_true")
    for command in (results, events, export):
        command.add_argument("--stream", help="only this stream or file")
    export.add_argument("path", type=Path)
    export.add_argument("--what", choices=("chunks", "events"), default="chunks")
    board = add("dashboard", _dashboard, "a page on this machine: streams, health, events, players")
    board.add_argument("--port", type=int, default=8234)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done; 2 bad input or a wrong setting, no sound arrived, nothing was classified, or the stream was interrupted; 69
    Temporal cannot be reached.
    """
    chosen = _parser().parse_args(arguments)
    try:
        return asyncio.run(chosen.run(chosen, Settings.from_environment()))
    except KeyboardInterrupt:
        return 130
    except (StreamClosedError, ConflictError, ValueError, OSError) as error:
        return _complain(str(error))
    except SendError as error:
        return _complain(str(error), EX_UNAVAILABLE)
    except WorkflowFailureError as error:  # somebody terminated it
        return _complain(f"it ended without a summary: {error.cause}")
    except (SchemaError, sqlalchemy.exc.SQLAlchemyError) as error:
        return _complain(f"the results cannot be used, see AUDIO_RESULTS_URL: {str(error).splitlines()[0]}")
    except (RPCError, RuntimeError) as error:
        if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
            return _complain(f"there is no such stream: {error}")
        text = f"Temporal cannot be reached, start it with ./run_all.sh serve: {str(error).splitlines()[0]}"
        return _complain(text, EX_UNAVAILABLE)


if __name__ == "__main__":
    leave(main())
