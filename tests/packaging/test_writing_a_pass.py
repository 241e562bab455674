"""The page on writing a pass: its package is built, installed and run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "writing-a-pass.md").read_text(encoding="utf-8")
LEPTONC = str(Path(sys.executable).with_name("leptonc"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Installed:
    """The page's package where pip put it, and its other files beside one another."""

    site: Path
    folder: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.site), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    (project,) = blocks("toml")
    module, recipe, test = blocks("python")
    package = tmp_path_factory.mktemp("acme-passes")
    (package / "pyproject.toml").write_text(project)
    (package / "acme_passes.py").write_text(module)
    found = Installed(tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work"))
    (found.folder / "norms.py").write_text(recipe)
    (found.folder / "test_acme_passes.py").write_text(test)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    # Without isolation and dependencies, so that no index is needed.
    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    done = found.run(*pip, *offline, "--target", str(found.site), str(package))
    assert done.returncode == 0, done.stderr
    return found


def test_the_pass_fires_and_is_explained_as_the_page_says(installed):
    done = installed.run(LEPTONC, "compile", "norms.py", "--explain")
    assert done.returncode == 0, done.stderr
    (shown,) = blocks("text")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert shown.splitlines() == lines[lines.index(shown.splitlines()[0]) :][: shown.count("\n")]
    again = installed.run(LEPTONC, "inspect", "--passes", "norms.lepton")
    assert shown in "\n".join(line.rstrip() for line in again.stdout.splitlines()) + "\n"


def test_the_doctor_lists_it(installed):
    done = installed.run(LEPTONC, "doctor")
    assert "acme-passes 1.2.0" in done.stdout
    assert "acme_passes:FUSE_SQUARE_SUM" in done.stdout


def test_without_plugins_it_does_not_take_part(installed):
    done = installed.run(
        LEPTONC, "compile", "norms.py", "--explain", "--without-plugins", "-o", "without.lepton"
    )
    assert done.returncode == 0, done.stderr
    assert "acme" not in done.stdout


def test_the_test_on_the_page_passes(installed):
    done = installed.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_every_stage_and_target_is_on_the_page():
    from leptonc.passes.plugins import DEFAULT_STAGE, GROUP, STAGE_NAMES
    from leptonc.passes.targets import TARGETS

    assert all(f"`{name}`" in PAGE for name in (*STAGE_NAMES, *TARGETS, GROUP))
    assert f"`{DEFAULT_STAGE}` (the default)" in PAGE
