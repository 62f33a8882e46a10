"""The facts of a build: commit, data, base weights, parameters, versions, seconds and energy. Standard library only."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess

from lib import config
from lib.reporting import environment, steps
from lib.reporting.steps import Plan

MODEL_NAMES = ("yamnet", "wav2vec2")
STEP_FACTS = ("seconds", "energy_kwh", "energy_reason", "energy_method", "finished", "commit", "dirty")


def _git(*arguments: str) -> str | None:
    """Return what git prints, or None outside a checkout or without git."""
    try:
        result = subprocess.run(["git", "-C", str(config.PROJECT_DIR), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def commit() -> dict:
    """Return {"commit", "dirty"}; what a build itself writes does not count as a change."""
    changes = _git("status", "--porcelain", "--", ".", ":!reports", ":!docs", ":!README.md")
    return {"commit": _git("rev-parse", "HEAD") or "unknown", "dirty": None if changes is None else bool(changes)}


def machine() -> dict:
    """Return the cores, memory and accelerator that a build ran on."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "n_cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 1e9, 1),
        "gpu": gpu_name(),
    }


def gpu_name() -> str:
    """Return the first NVIDIA GPU's name, or ``none``."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return result.stdout.splitlines()[0].strip() if result.returncode == 0 and result.stdout.strip() else "none"


def base_weights(profile: str) -> dict[str, str]:
    """Return the description of the weights that each model started from, as its training.json states it."""
    found = {}
    for name in MODEL_NAMES:
        paths = sorted((config.build_dir(profile) / "models" / name).glob("*/training.json"))
        stated = (environment.read_json(path).get("base_weights") for path in paths)
        if paths:
            found[name] = next(filter(None, stated), "not stated")
    return found


def ensemble_rule(profile: str) -> str | None:
    """Return the name of the combination rule that notebook 05 chose, or None before it ran."""
    return environment.read_json(config.build_dir(profile) / "models" / config.RULE_FILE).get("rule")


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


def write(plan: Plan) -> dict:
    """Write run_info.json into the report's folder and return what it holds."""
    record = collect(plan)
    path = config.report_dir(plan.profile) / "run_info.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return record
