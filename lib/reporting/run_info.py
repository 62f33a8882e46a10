"""The facts of a build: commit, data, base weights, parameters, versions, seconds and energy. Standard library only."""

from __future__ import annotations

import os
import platform
import subprocess

from lib import config
from lib.reporting import environment, steps
from lib.reporting.steps import Plan

STEP_FACTS = ("seconds", "energy_kwh", "energy_reason", "energy_method", "finished", "commit", "dirty")


def _run(*command: str) -> str | None:
    """Return what a program prints; None where it is not there, or fails, as git outside a checkout does."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=config.PROJECT_DIR)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def commit() -> dict:
    """Return {"commit", "dirty"}; what a build itself writes does not count as a change."""
    changes = _run("git", "status", "--porcelain", "--", ".", ":!reports", ":!docs", ":!README.md")
    head = _run("git", "rev-parse", "HEAD") or "unknown"
    return {"commit": head, "dirty": None if changes is None else bool(changes)}


def machine() -> dict:
    """Return the cores, memory and accelerator that a build ran on."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "n_cores": config.n_cores(),
        "memory_gb": round(pages / 1e9, 1),
        "gpu": (_run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or "none").splitlines()[0],
    }


def base_weights(profile: str) -> dict[str, str]:
    """Return the description of the weights that each model started from, as its training.json states it."""
    found = {}
    for name in config.CHECKPOINT_FILES:
        paths = sorted((config.build_dir(profile) / "models" / name).glob("*/training.json"))
        stated = (config.read_json(path).get("base_weights") for path in paths)
        if paths:
            found[name] = next(filter(None, stated), "not stated")
    return found


def ensemble_rule(profile: str) -> str | None:
    """Return the name of the combination rule that notebook 05 chose, or None before it ran."""
    return config.read_json(config.build_dir(profile) / "models" / config.RULE_FILE).get("rule")


def _energy(facts: dict[str, dict]) -> dict:
    """Sum the energy of the steps; say how it was measured, or why it was not."""
    measured = [step["energy_kwh"] for step in facts.values() if step["energy_kwh"] is not None]
    said = ({step[f"energy_{kind}"] for step in facts.values()} - {""} for kind in ("method", "reason"))
    method, reason = ("; ".join(sorted(texts)) for texts in said)
    kwh = round(sum(measured), 6) if measured else None
    return {"kwh": kwh, "n_steps_measured": len(measured), "method": method, "not_measured_because": reason}


def collect(plan: Plan) -> dict:
    """Return everything that reports/<profile>/run_info.json holds."""
    stamps = {step.name: steps.read_stamp(plan, step) for step in plan.steps}
    facts: dict[str, dict] = {n: {key: stamp.get(key) for key in STEP_FACTS} for n, stamp in stamps.items() if stamp}
    return {
        "profile": plan.profile,
        **commit(),
        "data": environment.acquisition(),
        "base_weights": base_weights(plan.profile),
        "ensemble_rule": ensemble_rule(plan.profile),
        "parameters": plan.parameters,
        "seconds": round(sum(step["seconds"] for step in facts.values()), 1),
        "energy": _energy(facts),
        "steps": facts,
        "machine": machine(),
        "python": platform.python_version(),
        "versions": {item.name: environment.installed_version(item.name) for item in environment.requirements()},
    }
