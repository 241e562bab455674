from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Neither the flags of an outer `make test` nor its job server may reach this one.
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def old_python(tmp_path: Path) -> Path:
    script = tmp_path / "python3.8"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.18" && exit 0\nexit 1\n')
    script.chmod(0o755)
    return script


def test_an_old_python_is_refused_by_name_and_version(old_python, tmp_path):
    done = make("setup", f"VENV={tmp_path}/venv", f"PYTHON={old_python}")
    assert done.returncode == 2
    assert "leptonc needs Python 3.11 or later" in done.stderr
    assert "Python 3.8.18" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_no_python_at_all_is_explained(tmp_path):
    done = make("setup", f"VENV={tmp_path}/venv", "PYTHON=")
    assert done.returncode == 2
    assert "none was found" in done.stderr
    assert "make setup PYTHON=/path/to/python3.11" in done.stderr


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench", "coverage"])
def test_every_target_sets_up_first(target, tmp_path):
    done = make("--dry-run", target, f"VENV={tmp_path}/venv")
    lines = done.stdout.splitlines()
    torch = next(n for n, line in enumerate(lines) if "pip install" in line and "torch==" in line)
    rest = next(n for n, line in enumerate(lines) if ".[compile,ort,tensorrt,dev]" in line)
    assert torch < rest < len(lines) - 1


def test_a_finished_setup_is_not_repeated(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / ".setup-done").touch()
    done = make("setup", f"VENV={tmp_path}/venv")
    assert done.returncode == 0
    assert "pip" not in done.stdout


def test_ci_runs_what_the_readme_says():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert "make lint test" in script.read_text()
    assert "make lint test" in (ROOT / "README.md").read_text()
