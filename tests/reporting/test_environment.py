"""What the notebooks and the doctor say about packages, data tiers and machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lib import config
from lib.reporting import doctor, environment


def test_requirements_are_parsed_with_names_and_pins(tmp_path):
    path = tmp_path / "requirements.txt"
    (tmp_path / "few.txt").write_text("numpy==2.4.6  # why\n", encoding="utf-8")
    path.write_text("# a comment\n\n-r few.txt  # more\npsycopg[binary]==3.3.9\nsetuptools<81\n", encoding="utf-8")
    found = environment.requirements(path)
    assert [(item.name, item.specifier) for item in found] == [
        ("numpy", "==2.4.6"),
        ("psycopg", "==3.3.9"),
        ("setuptools", "<81"),
    ]
    assert found[1].line == "psycopg[binary]==3.3.9"


def test_prepare_passes_here_twice_and_names_what_is_missing_or_cannot_be_installed(monkeypatch):
    environment.prepare()
    environment.prepare()
    absent = environment.Requirement("no-such-package", "==1.0", "no-such-package==1.0")
    monkeypatch.setattr(environment, "requirements", lambda: [absent])
    with pytest.raises(RuntimeError, match=r"no-such-package.*run_all\.sh"):
        environment.prepare()
    monkeypatch.setattr(environment, "on_colab", lambda: True)
    failed = SimpleNamespace(returncode=1, stderr="no index")
    monkeypatch.setattr(environment.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="no index"):
        environment.prepare()


def test_versions_are_one_line_and_say_what_is_absent():
    line = environment.versions("numpy", "no-such-package")
    assert "\n" not in line
    assert re.search(r"numpy \d", line)
    assert "no-such-package not installed" in line


NETWORK, SYNTHETIC = {"tier": "network", "failures": ["x"]}, {"tier": "synthetic"}


@pytest.mark.parametrize(("record", "said"), [(NETWORK, "could not be read: 1"), (SYNTHETIC, "SYNTHETIC AUDIO")])
def test_the_banner_says_what_the_numbers_rest_on(monkeypatch, tmp_path, record, said):
    monkeypatch.setattr(config, "ACQUISITION_PATH", tmp_path / "acquisition.json")
    assert "No data yet" in str(environment.tier_banner())
    config.ACQUISITION_PATH.write_text(json.dumps(record), encoding="utf-8")
    banner = environment.tier_banner()
    assert said in str(banner) and said in banner._repr_html_()


def test_environment_and_steps_import_nothing_slow():
    slow = {"numpy", "pandas", "papermill", "nbconvert", "torch", "tensorflow", "nbformat", "matplotlib", "sklearn"}
    code = f"import sys; from lib.reporting import build, report; print(sorted(set(sys.modules) & {slow}))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=config.PROJECT_DIR, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_doctor_is_a_table_that_names_a_next_command_for_each_fault(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_is_reachable", lambda host: host == "pypi.org")
    monkeypatch.setenv("AUDIO_MIRROR", "/no/such/folder")
    assert doctor.main() == 1
    lines = capsys.readouterr().out.splitlines()
    starts = [lines[0].index(name) for name in doctor.COLUMNS]
    cells = [
        [line[start:stop].strip() for start, stop in zip(starts, [*starts[1:], None], strict=True)] for line in lines
    ]
    rows = {first: rest for first, *rest in cells}
    assert rows["pypi.org"][0] == "answers (packages)"
    assert rows["tfhub.dev"][:2] == ["", "no answer (YAMNet's own weights)"]
    assert rows["AUDIO_MIRROR"] == ["/no/such/folder", "no such folder", "unset AUDIO_MIRROR, or correct it"]
    faults = [line for line in lines if line.startswith("!")]
    assert faults and all(line[starts[3] :].strip() for line in faults)
    assert max(map(len, lines)) <= sum(doctor.COLUMNS.values()) + 8 and str(len(faults)) in lines[-1]


TORCHAUDIO = {
    "absent": ({"torch": "2.13.0+cpu"}, "not installed", False),
    "from PyTorch's own index": ({"torch": "2.13.0+cpu", "torchaudio": "2.11.1+cpu"}, "", False),
    "beside a CUDA build": ({"torch": "2.13.0", "torchaudio": "2.11.1"}, "", False),
    "Colab's": ({"torch": "2.9.0+cu126", "torchaudio": "2.9.0+cu126"}, "", False),
    "PyPI's beside a CPU build": ({"torch": "2.13.0+cpu", "torchaudio": "2.11.1"}, "another PyTorch", True),
}


@pytest.mark.parametrize(("versions", "reason", "is_fault"), TORCHAUDIO.values(), ids=TORCHAUDIO)
def test_torchaudio_is_used_where_it_was_built_for_the_pytorch_that_is_there(monkeypatch, versions, reason, is_fault):
    monkeypatch.setattr(environment, "installed_version", versions.get)
    why_not = environment.why_no_torchaudio()
    assert reason in why_not and bool(reason) == bool(why_not) and "\n" not in why_not
    finding = doctor._check_torchaudio()
    assert (finding.missing, finding.is_fault) == (why_not, is_fault) and bool(finding.next_step) == bool(why_not)


def test_doctor_runs_without_the_environment(tmp_path):
    # -S: no site-packages, as on a machine where set-up has not run.
    result = subprocess.run(
        [sys.executable, "-S", "-c", "from lib.reporting import doctor; print(len(list(doctor.check_installed())))"],
        cwd=config.PROJECT_DIR,
        capture_output=True,
        text=True,
        env={"PATH": os.environ.get("PATH", os.defpath), "AUDIO_OUTPUT_DIR": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
