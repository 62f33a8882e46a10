"""The studies as steps of a build: what each reads and writes, and which notebook reads it. Standard library only."""

from __future__ import annotations

from lib.reporting.steps import Step

STUDIES: tuple[Step, ...] = ()
