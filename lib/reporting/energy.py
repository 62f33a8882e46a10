"""Energy of each build step by CodeCarbon's offline tracker; a build never fails for want of a measurement."""

from __future__ import annotations

import logging

SAMPLING_SECONDS = 15.0
# CodeCarbon wants a country for its emission factor. Only energy is kept, which does not depend on it.
_COUNTRY = "DEU"


class EnergyMeter:
    """Measures energy in kWh by named task; `reason` says why not, where it cannot."""

    def __init__(self) -> None:
        self.reason = ""
        self.method = ""
        self._tracker = None
        try:
            self._tracker = self._start()
        except Exception as error:  # any failure of the meter is worth less than the build
            self.reason = f"{type(error).__name__}: {error}"

    @staticmethod
    def _start() -> object:
        from codecarbon import OfflineEmissionsTracker

        logging.disable(logging.CRITICAL)  # it greets before it reads its log level
        try:
            return OfflineEmissionsTracker(
                country_iso_code=_COUNTRY,
                measure_power_secs=SAMPLING_SECONDS,
                save_to_file=False,
                log_level="critical",
                allow_multiple_runs=True,
            )
        finally:
            logging.disable(logging.NOTSET)

    def start(self, task: str) -> None:
        """Begin a task."""
        if self._tracker is None:
            return
        try:
            self._tracker.start_task(task)
        except Exception as error:
            self._give_up(error)

    def stop(self, task: str) -> float | None:
        """End a task and return its energy in kWh, or None when it could not be measured."""
        if self._tracker is None:
            return None
        try:
            data = self._tracker.stop_task(task)
            self.method = f"CodeCarbon {data.codecarbon_version}, {data.tracking_mode} mode, {data.cpu_model}"
            return float(data.energy_consumed)
        except Exception as error:
            self._give_up(error)
            return None

    def close(self) -> None:
        """Stop the tracker's threads."""
        if self._tracker is None:
            return
        try:
            self._tracker.stop()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.reason = f"{type(error).__name__}: {error}"
        self._tracker = None
