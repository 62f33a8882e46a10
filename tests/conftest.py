"""Fixtures that every test file may use, and the rules for tests that need real audio or YAMNet's own weights."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.chaos.harness import Service

PROJECT_DIR = Path(__file__).resolve().parent.parent
for folder in ("", "tests", "tests/decoding", "tests/corpora"):
    if str(PROJECT_DIR / folder) not in sys.path:
        sys.path.insert(0, str(PROJECT_DIR / folder))

# Before lib.config is imported anywhere: the suite writes into a folder of its own, never into data/ or reports/.
_OUTPUT_DIR = tempfile.mkdtemp(prefix="cry-scream-tests-")
os.environ["AUDIO_OUTPUT_DIR"] = _OUTPUT_DIR
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

NEEDS = {
    "real_audio": ("AUDIO_MIRROR", "real recordings: set AUDIO_MIRROR to a mirror folder"),
    "hub": ("TFHUB_CACHE_DIR", "YAMNet's own weights: set TFHUB_CACHE_DIR to a TF-Hub cache"),
}


def _require(marker: str) -> Path:
    variable, reason = NEEDS[marker]
    folder = Path(os.environ.get(variable) or "/absent")
    return folder if folder.is_dir() else pytest.skip(f"needs {reason}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in NEEDS:
        if item.get_closest_marker(marker):
            _require(marker)
    if item.path.parent.name == "lesson":  # none of these measures time
        from tests.reporting import builds

        builds.begin_early(getattr(other, "fixturenames", []) for other in item.session.items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for variable, reason in NEEDS.values():
        count = sum(reason in str(report.longrepr) for report in skipped)
        if count:
            terminalreporter.write_line(f"{count} skipped for want of {reason} ({variable} names no folder)")


def pytest_unconfigure() -> None:
    for build in getattr(sys.modules.get("tests.reporting.builds"), "EARLY", []):
        build.stop()
    shutil.rmtree(_OUTPUT_DIR, ignore_errors=True)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A whole service with the stand-in classifier; tests leave it running."""
    from tests.chaos.harness import Service

    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def client(service: Service, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """The client's command line on `service`: client("events", "--json") -> exit code, output, errors."""
    from temporal_workflow import client as cli

    for variable, value in service.settings.environment().items():
        monkeypatch.setenv(variable, value)
    return lambda *arguments: (cli.main(arguments), *capsys.readouterr())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def mirror_dir() -> Path:
    """The mirror of real recordings, or a skip."""
    return _require("real_audio")


@pytest.fixture
def tone() -> Callable[..., np.ndarray]:
    """A factory: tone(frequency_hz, seconds) -> float32 sine of amplitude 0.5 at 16 kHz."""

    def make(
        frequency_hz: float, seconds: float, *, sample_rate_hz: int = 16_000, amplitude: float = 0.5
    ) -> np.ndarray:
        times = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
        return (amplitude * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)

    return make


@pytest.fixture(scope="module")
def chromium_program() -> str:
    """The path of the system's Chromium, or a skip."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return program or pytest.skip("needs Chromium: sudo apt-get install -y chromium")


@pytest.fixture(scope="module")
def chromium(chromium_program: str) -> Iterator[Browser]:
    """Chromium without a window; closed after each file, for its event loop blocks asyncio."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page_at(chromium: Browser) -> Callable[..., AbstractContextManager[Page]]:
    """A factory: with page_at(url, width=390, scheme="dark") as page. Fails on script errors and outside requests."""

    @contextmanager
    def open_page(url: str, *, width: int = 1280, scheme: str = "light", browser: Browser = chromium) -> Iterator[Page]:
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(url)
        yield page
        assert not errors
        own = (url.partition("#")[0].rpartition("/")[0], "data:", "blob:", "about:")
        assert not [address for address in asked if not address.startswith(own)]
        page.close()

    return open_page
