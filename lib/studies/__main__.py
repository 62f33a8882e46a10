"""What the numbers of the full build are worth: `python -m lib.studies [NAME ...]`, or `./run_all.sh studies`.

Needs the full build on real recordings. Writes to build/studies alone: tables/*.csv, figures/*, studies.json.
A study whose sources have not changed is skipped; `--draw` draws the figures again from the tables.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property

from lib import config, plots
from lib.reporting import environment, steps
from lib.reporting.energy import EnergyMeter
from lib.reporting.steps import Step
from lib.studies import result
from lib.studies.inputs import Inputs
from lib.studies.registry import STUDIES

PROFILE = "full"
LOG = logging.getLogger("lib.studies")


class Runner:
    """Runs studies one after the other; what they share is read once."""

    def __init__(self) -> None:
        self.plan, self.inputs = steps.studies_plan(), Inputs(PROFILE)

    @cached_property
    def meter(self) -> EnergyMeter:
        """Measures the energy of each study."""
        return EnergyMeter()

    def run(self, step: Step) -> None:
        """Run a study, write what it found, draw it, and stamp it."""
        steps.check_inputs(self.plan, step)
        facts = {"fingerprint": steps.fingerprint(self.plan, step)}
        networks = self.inputs.versions if any("{full}/models" in path for path in step.inputs) else {}
        self.meter.start(step.name)
        found = importlib.import_module(step.module).run(self.inputs)
        energy = {"energy_kwh": self.meter.stop(step.name), "energy_method": self.meter.method or self.meter.reason}
        found = result.Result({**found.figures, **energy}, found.tables)
        result.write(step.name, found, config.STUDIES_DIR, networks=networks)
        draw(step)
        steps.write_stamp(self.plan, step, facts=facts)


def draw(step: Step) -> None:
    """Draw a study's figures from its tables, where it has any."""
    module = importlib.import_module(step.module)
    if hasattr(module, "draw"):
        for name, figure in module.draw(result.read_tables(config.STUDIES_DIR)).items():
            plots.save(figure, name, directory=config.STUDIES_DIR / "figures")
            plots.close(figure)


def choose(names: Sequence[str]) -> list[Step]:
    """Return the studies of these names, all where none is given, in the order in which they run.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    wanted = {name.replace("-", "_") for name in names}
    unknown = wanted - {step.name for step in STUDIES}
    if unknown:
        raise ValueError(f"no study is called {', '.join(sorted(unknown))}: there are {_known()}.")
    return [step for step in STUDIES if not wanted or step.name in wanted]


def _known() -> str:
    return ", ".join(step.name.replace("_", "-") for step in STUDIES)


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the studies asked for, all by default, where they are not current."""
    parser = argparse.ArgumentParser(prog="./run_all.sh studies", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {_known()} (default: all)")
    parser.add_argument("--draw", action="store_true", help="draw the figures again, compute nothing")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    try:
        chosen = choose(options.names)
    except ValueError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    LOG.info("%s", environment.tier_banner())
    runner = Runner()
    for step in chosen:
        if options.draw:
            draw(step)
        elif steps.is_current(runner.plan, step):
            LOG.info("%s: unchanged, skipped", step.name)
        else:
            LOG.info("%s ...", step.name)
            runner.run(step)
    LOG.info("written: %s", config.STUDIES_DIR / result.FILE_NAME)
    return 0


if __name__ == "__main__":
    sys.exit(main())
