"""The distributions, built once per test run however many workers there are."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = (
    ".git",
    ".venv",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
)


@dataclass(frozen=True)
class Distributions:
    """Paths of what `python -m build` made: the wheel comes out of the sdist."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class BareEnvironment:
    """A virtual environment with the wheel, NumPy and onnxruntime, and nothing else of ours."""

    folder: Path

    def python(self, code: str, *args: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-c", code, *args)

    def run(self, script: str, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "bin" / script), *args],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
            check=False,
        )


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Run `make(folder)` in the first worker that asks; the others wait and share the folder."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def checked(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    def build(folder: Path) -> None:
        # A copy: setuptools leaves build/lib behind, and stale modules there enter the wheel.
        source = folder / "source"
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*GENERATED))
        checked([sys.executable, "-m", "build", "--no-isolation", "-o", str(folder), "."], source)
        shutil.rmtree(source)

    folder = once(tmp_path_factory, "distributions", build)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Distributions(wheel, sdist)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory, distributions: Distributions) -> BareEnvironment:
    def install(folder: Path) -> None:
        checked([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
        checked(
            [*pip, "-q", "-c", str(ROOT / "constraints.txt"), f"{distributions.wheel}[ort]"], ROOT
        )

    return BareEnvironment(once(tmp_path_factory, "bare", install))
