"""The deployment files, as far as they can be checked without a Docker engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from prometheus_client import Counter, Histogram

from lib import config
from temporal_workflow import codec, metrics
from temporal_workflow.worker import EX_UNAVAILABLE

DEPLOY_DIR = config.PROJECT_DIR / "temporal_workflow" / "deploy"
COMPOSE = yaml.safe_load((DEPLOY_DIR / "docker-compose.yml").read_text())
for _section, _parts in yaml.safe_load((DEPLOY_DIR / "docker-compose.alerts.yml").read_text()).items():
    for _name, _part in _parts.items():  # merged as compose does it
        for _key, _value in _part.items():
            _old = COMPOSE[_section].setdefault(_name, {}).get(_key, type(_value)())
            COMPOSE[_section][_name][_key] = _old | _value if isinstance(_value, dict) else _old + _value
        COMPOSE[_section].setdefault(_name, {})
DOCKERFILE = (DEPLOY_DIR / "Dockerfile").read_text()
DEBIAN_GROUPS = (  # base-passwd's, in every Debian image: useradd refuses a user of such a name
    "root daemon bin sys adm tty disk lp mail news uucp man proxy kmem dialout fax voice cdrom floppy tape sudo audio "
    "dip www-data backup operator list irc src shadow utmp video sasl plugdev staff games users nogroup"
)
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+[\w.-]*")


def test_images_are_pinned_and_ports_are_on_loopback() -> None:
    for name, service in COMPOSE["services"].items():
        assert PINNED.fullmatch(service["image"]), name
        assert service["restart"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert PINNED.fullmatch(re.search(r"^FROM (\S+)", DOCKERFILE, re.M)[1])


def test_compose_names_only_what_exists() -> None:
    for service in COMPOSE["services"].values():
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY_DIR / source).exists(), volume
        assert set(service.get("depends_on", [])) <= set(COMPOSE["services"])
    for name in ("orchestration", "inference"):
        worker = COMPOSE["services"][name]
        assert worker["command"][:2] == ["--queue", name]
        code = "".join(path.read_text() for path in (DEPLOY_DIR.parent).glob("*.py"))
        known = {*re.findall(r"\b(?:AUDIO|TEMPORAL)_[A-Z_]+\b", code), "PGPASSFILE"}
        assert set(worker["environment"]) <= known


def test_dockerfile_keeps_to_the_rules() -> None:
    assert re.search(r"^USER \d+$", DOCKERFILE, re.M), "not root, by number"
    user = re.search(r"useradd .* (\w+) \\$", DOCKERFILE, re.M)[1]
    assert user not in DEBIAN_GROUPS.split()
    assert f"--owner={user} " in DOCKERFILE
    assert f"FROM python:{sys.version_info.major}.{sys.version_info.minor}." in DOCKERFILE
    for secret in ("PASSWORD", "API_KEY", "CODEC_KEY="):
        assert secret not in DOCKERFILE


def test_dashboard_and_alerts_ask_for_metrics_that_exist() -> None:
    kinds = (Counter, Histogram)
    ours = {each.name for made in vars(metrics).values() if isinstance(made, kinds) for each in made.describe()}
    dashboard = json.loads((DEPLOY_DIR / "grafana/dashboards/listening-service.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    alerts = yaml.safe_load((DEPLOY_DIR / "alerts.yml").read_text())
    asked += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    used = {re.sub("_(total|bucket)$", "", name) for expr in asked for name in re.findall(r"\baudio_\w+", expr)}
    assert len(used) >= 6
    assert used <= ours, used - ours
    targets = yaml.safe_load((DEPLOY_DIR / "prometheus.yml").read_text())["scrape_configs"]
    assert {name for job in targets for dns in job["dns_sd_configs"] for name in dns["names"]} <= set(
        COMPOSE["services"]
    )


def test_image_steps_in_a_clean_directory(tmp_path: Path) -> None:
    """Copy what the image copies, without what .dockerignore leaves out, and start the worker there."""
    lines = (DEPLOY_DIR / "Dockerfile.dockerignore").read_text().splitlines()
    ignored = [Path(line).name for line in lines if line and line[0] not in "#!" and line != "*"]
    for source in re.findall(r"^COPY (\S+) ", DOCKERFILE, re.M):
        path = config.PROJECT_DIR / source
        if path.is_dir():
            shutil.copytree(path, tmp_path / source, ignore=shutil.ignore_patterns(*ignored))
        else:
            shutil.copy(path, tmp_path / source)
    assert not list(tmp_path.rglob("__pycache__"))
    assert not (tmp_path / "temporal_workflow" / "deploy").exists()
    place = {"AUDIO_SERVICE_DIR": str(tmp_path / "state"), "PYTHONPATH": "", "TEMPORAL_ADDRESS": "127.0.0.1:1"}
    entrypoint, given = (json.loads(re.search(f"^{word} (.*)$", DOCKERFILE, re.M)[1]) for word in ("ENTRYPOINT", "CMD"))
    command = [sys.executable, *entrypoint[entrypoint.index("-m") :], *given]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **place}, capture_output=True, timeout=60)
    assert done.returncode == EX_UNAVAILABLE, done.stderr  # it looks for Temporal


def test_secrets_are_made_once(tmp_path: Path) -> None:
    shutil.copy(DEPLOY_DIR / "make_secrets.sh", tmp_path)

    def make() -> dict[str, bytes]:
        subprocess.run(["sh", str(tmp_path / "make_secrets.sh")], check=True, capture_output=True)
        return {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}

    first = make()
    assert make() == first
    assert {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()} <= set(first)
    assert first["pgpass"].strip().endswith(first["database_password"])
    assert len(codec.read_key(file=tmp_path / "secrets" / "codec_key", text=None)) == codec.KEY_BYTES
    assert all((tmp_path / "secrets" / name).stat().st_mode & 0o077 == 0 for name in first)
