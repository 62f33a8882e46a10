"""What the numbers of the full build are worth: `python -m lib.studies [NAME ...]`, or `./run_all.sh studies`.

Needs the full build on real recordings. Writes to build/studies: tables/*.csv, figures/*, studies.json. `product`,
which also trains models/detector anew, runs only where it is named. A study whose sources have not changed is skipped.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Iterable

from lib import config, plots
from lib.reporting import environment, steps
from lib.reporting.steps import Plan, Step
from lib.studies import result
from lib.studies.inputs import Inputs
from lib.studies.registry import STUDIES

BY_NAME = "product"  # runs only where it is named: it replaces models/detector
LOG = logging.getLogger("lib.studies")


def run(plan: Plan, step: Step, inputs: Inputs) -> None:
    """Run a study, write what it found, draw it, and stamp it."""
    steps.check_inputs(plan, step)
    facts, module = {"fingerprint": steps.fingerprint(plan, step)}, importlib.import_module(step.module)
    result.write(step.name, module.run(inputs), config.STUDIES_DIR)
    if hasattr(module, "draw"):
        for name, figure in module.draw(result.read_tables(config.STUDIES_DIR)).items():
            plots.save(figure, name, directory=config.STUDIES_DIR / "figures")
            plots.close(figure)
    steps.write_stamp(plan, step, facts=facts)


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the studies asked for, by default all but `product`, where they are not current, in their order."""
    known = [step.name.replace("_", "-") for step in STUDIES]
    parser = argparse.ArgumentParser(prog="./run_all.sh studies", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)} (default: all but {BY_NAME})")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    wanted = {name.replace("_", "-") for name in options.names} or {*known} - {BY_NAME}
    if wanted - set(known):
        parser.error(f"no study is called {', '.join(sorted(wanted - set(known)))}: there are {', '.join(known)}.")
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    LOG.setLevel(logging.INFO)  # not that of the fonts in PDFs
    LOG.info("%s", environment.tier_banner())
    plan, inputs = steps.STUDIES_PLAN, Inputs(steps.FULL)
    for step, name in zip(STUDIES, known, strict=True):
        if name not in wanted:
            continue
        if steps.is_current(plan, step):
            LOG.info("%s: unchanged, skipped", step.name)
        else:
            LOG.info("%s ...", step.name)
            run(plan, step, inputs)
    LOG.info("written: %s", config.STUDIES_DIR / result.FILE_NAME)
    return 0


if __name__ == "__main__":
    sys.exit(main())
