"""Energy of each build step by CodeCarbon's offline tracker; a build never fails because it cannot be measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class EnergyMeter:
    """Measures energy by named task, from the first task on; `reason` says why not, where it cannot."""

    def __init__(self) -> None:
        self.reason = self.method = ""
        self.kwh: float | None = None  # of the last task
        self._tracker: Any = None

    @contextmanager
    def task(self, name: str) -> Iterator[None]:
        """Measure what runs inside: its energy is `kwh` afterwards, None when it could not be measured."""
        if self._tracker is None and not self.reason:
            self._tracker = self._attempt(_new_tracker)
        self._attempt(lambda: self._tracker and self._tracker.start_task(name))
        try:
            yield
        finally:
            data = self._attempt(lambda: self._tracker and self._tracker.stop_task(name))
            self.kwh = data and float(data.energy_consumed)
            if data:
                self.method = f"CodeCarbon {data.codecarbon_version}, {data.tracking_mode} mode, {data.cpu_model}"

    def close(self) -> None:
        """Stop the tracker's threads."""
        self._attempt(lambda: self._tracker and self._tracker.stop())

    def _attempt(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:  # any failure of the meter is worth less than the build
            self.reason = f"{type(error).__name__}: {error}"
            self._tracker = None
            return None


def _new_tracker() -> object:
    from codecarbon import OfflineEmissionsTracker

    logging.disable(logging.CRITICAL)  # it greets before it reads its log level
    try:
        return OfflineEmissionsTracker(
            country_iso_code="DEU",  # it wants one for emissions; only energy is kept, which does not depend on it
            measure_power_secs=15.0,
            save_to_file=False,
            log_level="critical",
            allow_multiple_runs=True,
        )
    finally:
        logging.disable(logging.NOTSET)
