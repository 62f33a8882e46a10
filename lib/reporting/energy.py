"""Energy of each build step by CodeCarbon's offline tracker; a build never fails because it cannot be measured."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any


class EnergyMeter:
    """Measures energy in kWh by named task, from the first task on; `reason` says why not, where it cannot."""

    def __init__(self) -> None:
        self.reason = ""
        self.method = ""
        self._tracker: Any = None

    def start(self, task: str) -> None:
        """Begin a task."""
        if self._tracker is None and not self.reason:
            self._tracker = self._attempt(_new_tracker)
        if self._tracker is not None:
            self._attempt(lambda: self._tracker.start_task(task))

    def stop(self, task: str) -> float | None:
        """End a task and return its energy in kWh, or None when it could not be measured."""
        data = self._attempt(lambda: self._tracker.stop_task(task)) if self._tracker is not None else None
        if data is None:
            return None
        self.method = f"CodeCarbon {data.codecarbon_version}, {data.tracking_mode} mode, {data.cpu_model}"
        return float(data.energy_consumed)

    def close(self) -> None:
        """Stop the tracker's threads."""
        if self._tracker is not None:
            self._attempt(self._tracker.stop)

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
