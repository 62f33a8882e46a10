"""Builds a report: the notebooks and the studies, unchanged ones skipped, then pages, PDF, cards and README.

The order: data (01, 02), networks and their figures on unseen corpora (03, 04), ensemble (05), evaluation (06), service
(07), an appendix, studies, report, cards and README. The appendix and what follows but the report are the full
build's alone.
``run_all.sh`` calls ``python -m lib.reporting.build quick|full [--data ...] [--from NN] [--force]``.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib import config
from lib.reporting import environment, report, run_info, steps
from lib.reporting.energy import EnergyMeter
from lib.reporting.steps import BuildError, Plan, Step

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def say(text: str, *, end: str = "\n") -> None:
    """Write a progress line at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


@contextmanager
def only_build(profile: str) -> Iterator[None]:
    """Hold the profile's lock; two builds in one folder would overwrite each other.

    Raises
    ------
    BuildError
        If another build of the same profile holds it.
    """
    folder = config.build_dir(profile)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(f"Another build of `{profile}` is running in {folder}. Wait for it or stop it.") from None
        yield


def kernel_environment(profile: str) -> None:
    """Set the variables that every kernel inherits: this environment's own kernel, quiet frameworks, plain output."""
    os.environ.update(environment.QUIET_VARIABLES)
    os.environ.update(
        JUPYTER_PREFER_ENV_PATH="1",
        JUPYTER_PLATFORM_DIRS="1",
        PYDEVD_DISABLE_FILE_VALIDATION="1",
        IPYTHONDIR=str(config.build_dir(profile) / "ipython"),  # no start-up files of whoever runs the build
        TQDM_MININTERVAL="5",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        PYTHONUNBUFFERED="1",
    )
    own = str(Path(sys.prefix) / "share" / "jupyter")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [own, os.environ.get("JUPYTER_PATH")]))
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    for name in ("TF_USE_LEGACY_KERAS", "MPLBACKEND"):
        os.environ.pop(name, None)


@contextmanager
def native_messages_to(path: Path) -> Iterator[None]:
    """Send what kernels write past Python to a file: TensorFlow greets on stderr before it reads its log level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with path.open("w", encoding="utf-8") as log:
            os.dup2(log.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def execute(plan: Plan, step: Step) -> None:
    """Run one notebook; on success its executed form appears in one move, on failure it is kept as *.failed.ipynb.

    Raises
    ------
    BuildError
        If a cell fails or the kernel dies; the message holds the cell's error and the path of the kept notebook.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    plan.executed_dir.mkdir(parents=True, exist_ok=True)
    running = plan.executed_dir / f"{step.name}.running.ipynb"
    failed = plan.executed_dir / f"{step.name}.failed.ipynb"
    failed.unlink(missing_ok=True)
    try:
        papermill.execute_notebook(
            str(plan.notebook(step)),
            str(running),
            parameters=plan.parameters[step.name],
            kernel_name="python3",
            progress_bar=False,
            start_timeout=180,
            cwd=str(config.PROJECT_DIR / "notebooks"),
            # Kernels listen on loopback only; without the first each one warns that it does so unencrypted. The second
            # leaves what TensorFlow's C++ says to `native_messages_to`, out of the page.
            extra_arguments=["--IPKernelApp.log_level=40", "--IPKernelApp.capture_fd_output=False"],
        )
    except PapermillExecutionError as error:
        running.replace(failed)
        raise BuildError(_failure_text(step, error, failed)) from None
    except RuntimeError as error:  # nbclient's DeadKernelError
        raise BuildError(
            f"{step.name} stopped: {error}, in most cases for want of memory. Next: end other programs, then "
            f"`./run_all.sh {plan.profile}`, which goes on from this notebook."
        ) from None
    running.replace(plan.executed(step))


def _failure_text(step: Step, error: Any, kept: Path) -> str:
    """Return the failing cell's error, the last 25 lines of its traceback and where the notebook was kept."""
    lines = _ANSI.sub("", "\n".join(error.traceback)).splitlines()[-25:]
    head = f"{step.name} failed in cell {error.cell_index}: {error.ename}: {error.evalue}"
    return "\n".join([*("    " + line for line in lines), "", head, f"The notebook is kept: {kept}"])


def run_step(plan: Plan, step: Step, *, meter: EnergyMeter) -> None:
    """Execute a step, measure it and stamp it."""
    steps.check_inputs(plan, step)
    fingerprint = steps.fingerprint(plan, step)
    (plan.stamps_dir / f"{step.name}.json").unlink(missing_ok=True)
    for old in config.report_dir(plan.profile).glob(f"*/{step.number}_*"):
        old.unlink()  # tables and figures that the notebook no longer writes
    meter.start(step.name)
    started = time.monotonic()
    try:
        with native_messages_to(config.build_dir(plan.profile) / "logs" / f"{step.name}.log"):
            execute(plan, step)
    finally:
        energy_kwh = meter.stop(step.name)
        seconds = time.monotonic() - started
    missing = [str(path) for path in plan.paths(step.outputs) if not path.exists()]
    if missing:
        raise BuildError(f"{step.name} ran but did not write {', '.join(missing)}.")
    facts = {
        "fingerprint": fingerprint,
        "seconds": round(seconds, 1),
        "energy_kwh": energy_kwh,
        "energy_reason": meter.reason,
        "energy_method": meter.method,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    steps.write_stamp(plan, step, facts=facts | run_info.commit())


def run_steps(plan: Plan, *, first: str = "01", force: bool = False) -> int:
    """Run every notebook that has to run and return how many did.

    Those before the number `first` are left as they are; with `force`, nothing from there on is skipped.
    """
    meter, n_run = EnergyMeter(), 0
    for position, step in enumerate(plan.steps, start=1):
        say(f"[{position}/{len(plan.steps)}] {step.name + ' ':<22}", end="")
        if step.number < first:
            say("left as it is (--from)")
        elif not force and steps.is_current(plan, step):
            say("unchanged, skipped")
        else:
            started = time.monotonic()
            say("running ... ", end="")
            run_step(plan, step, meter=meter)
            n_run += 1
            say(f"done in {time.monotonic() - started:.0f} s")
    meter.close()
    return n_run


def run_studies() -> None:
    """Run the studies that are not current, but for those on request.

    Raises
    ------
    BuildError
        If a study fails.
    """
    from lib.studies.registry import STUDIES

    due = [s.name for s in STUDIES if not s.on_request and not steps.is_current(steps.STUDIES_PLAN, s)]
    say(f"[studies] {'':<15}{', '.join(due) or 'unchanged, skipped'}")
    if due and subprocess.run([sys.executable, "-m", "lib.studies", *due], cwd=config.PROJECT_DIR).returncode:
        raise BuildError(f"The studies stopped. Next: `./run_all.sh studies {' '.join(due)}`.")


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Read and check the parameters of the profile that was asked for."""
    parameters = steps.load_parameters(arguments.profile)
    if arguments.data:
        parameters["01_data_acquisition"]["data_tier"] = arguments.data
    plan = Plan(arguments.profile, parameters)
    steps.check_parameters(plan)
    return plan


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="run_all.sh", description="Build the report from the seven notebooks.")
    parser.add_argument("profile", nargs="?", default="quick", help="a file of params/ without .yaml: quick or full")
    parser.add_argument("--data", choices=("auto", "real", "synthetic"), help="which audio (default: auto)")
    parser.add_argument("--from", dest="first", metavar="NN", help="leave earlier notebooks, rerun from this one")
    parser.add_argument("--force", action="store_true", help="rerun everything")
    parser.add_argument("--without-studies", action="store_true", help="full: leave the studies as they are")
    options = parser.parse_args(arguments)
    numbers = [step.number for step in steps.STEPS]
    if options.first is not None and options.first.zfill(2) not in numbers:
        parser.error(f"--from takes one of {', '.join(numbers)}")
    return options


def build(options: argparse.Namespace) -> Path:
    """Run the steps and the report; return the report's index page."""
    started = time.monotonic()
    plan = make_plan(options)
    first = (options.first or "01").zfill(2)
    with only_build(plan.profile):
        kernel_environment(plan.profile)
        say(f"{plan.profile} build, data {plan.parameters['01_data_acquisition'].get('data_tier', 'auto')}")
        force = options.force or options.first is not None
        n_run = run_steps(plan, first=first, force=force)
        if plan.profile == steps.FULL and not options.without_studies:
            run_studies()
        say(str(environment.tier_banner()))
        say(f"[report] {'':<16}", end="")
        index = report.make(plan)
        if plan.profile == steps.FULL and config.OUTPUT_DIR == config.PROJECT_DIR:
            say(f"[cards] {'':<17}", end="")
            from lib.reporting import cards

            say(", ".join(os.path.relpath(path) for path in cards.write_committed()) or "unchanged, skipped")
    seconds = time.monotonic() - started
    say(f"Done in {seconds:.0f} s ({n_run} of {len(plan.steps)} notebooks run): {os.path.relpath(index)}")
    return index


def main(arguments: list[str] | None = None) -> int:
    """Build, and turn an expected failure into one message and exit status 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        build(parse(arguments))
    except BuildError as error:
        sys.stdout.flush()
        sys.stderr.write(f"\n{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. The next run goes on from here.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
