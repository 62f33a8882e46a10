"""What the numbers of the full build are worth: `python -m lib.studies [NAME ...]`, or `./run_all.sh studies`.

Needs the full build on real recordings. Writes to build/studies alone: tables/*.csv, figures/*, studies.json.
A study whose sources have not changed is skipped; `--draw` draws the figures again from the tables.
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

LOG = logging.getLogger("lib.studies")


def run(plan: Plan, step: Step, inputs: Inputs) -> None:
    """Run a study, write what it found, draw it, and stamp it."""
    steps.check_inputs(plan, step)
    facts = {"fingerprint": steps.fingerprint(plan, step)}
    result.write(step.name, importlib.import_module(step.module).run(inputs), config.STUDIES_DIR)
    draw(step)
    steps.write_stamp(plan, step, facts=facts)


def draw(step: Step) -> None:
    """Draw a study's figures from its tables, where it has any."""
    module = importlib.import_module(step.module)
    if hasattr(module, "draw"):
        for name, figure in module.draw(result.read_tables(config.STUDIES_DIR)).items():
            plots.save(figure, name, directory=config.STUDIES_DIR / "figures")
            plots.close(figure)


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the studies asked for, all by default, where they are not current, in the order of the registry."""
    known = [step.name.replace("_", "-") for step in STUDIES]
    parser = argparse.ArgumentParser(prog="./run_all.sh studies", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)} (default: all)")
    parser.add_argument("--draw", action="store_true", help="draw the figures again, compute nothing")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    wanted = {name.replace("_", "-") for name in options.names}
    if wanted - set(known):
        parser.error(f"no study is called {', '.join(sorted(wanted - set(known)))}: there are {', '.join(known)}.")
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    LOG.setLevel(logging.INFO)  # not that of the fonts in PDFs
    LOG.info("%s", environment.tier_banner())
    plan, inputs = steps.STUDIES_PLAN, Inputs(steps.FULL)
    for step, name in zip(STUDIES, known, strict=True):
        if wanted and name not in wanted:
            continue
        if options.draw:
            draw(step)
        elif steps.is_current(plan, step):
            LOG.info("%s: unchanged, skipped", step.name)
        else:
            LOG.info("%s ...", step.name)
            run(plan, step, inputs)
    LOG.info("written: %s", config.STUDIES_DIR / result.FILE_NAME)
    return 0


if __name__ == "__main__":
    sys.exit(main())
