"""What the documents say can be typed, linked to and imported."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *(
        "docs/accuracy.md",
        "docs/architecture.md",
        "docs/artifact-format.md",
        "docs/calibration.md",
        "docs/coverage.md",
        "docs/gpu.md",
        "docs/passes.md",
        "docs/precision.md",
        "docs/python-api.md",
        "docs/quantisation.md",
        "docs/tensorrt.md",
        "docs/tensorrt-builds.md",
        "docs/writing-a-backend.md",
        "docs/tensorrt-runtime.md",
        "docs/writing-a-backend.md",
        "docs/writing-a-pass.md",
        "benchmarks/README.md",
    ),
)
SCRIPT = Path(sys.executable).with_name("leptonc")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(name), re.MULTILINE | re.DOTALL)


def console_lines() -> list[list[str]]:
    lines = [line for name in DOCUMENTS for b in blocks(name, "console") for line in b.splitlines()]
    return [
        shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line[:2] == "$ "
    ]


def commands(program: str) -> list[list[str]]:
    return [words[1:] for words in console_lines() if Path(words[0]).name == program]


@pytest.mark.parametrize("words", commands("make"), ids=" ".join)
def test_make_targets_in_the_documents_exist(words):
    target = next(word for word in words if "=" not in word)
    assert re.search(rf"^{target}:.*## ", text("Makefile"), re.MULTILINE)


def test_make_alone_lists_every_target():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make ([\w-]+) ", done.stdout, re.MULTILINE)
    assert listed == [
        "help",
        "setup",
        "demo",
        "test",
        "lint",
        "bench",
        "coverage",
        "gpu-check",
        "clean",
    ]


def help_of(verb: str) -> str:
    done = subprocess.run([SCRIPT, verb, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("words", commands("leptonc"), ids=" ".join)
def test_commands_in_the_documents_are_commands(words):
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_of(words[0])))
    assert {word.split("=")[0] for word in words if word.startswith("-")} <= known


def table_commands() -> list[str]:
    return re.findall(r"^\| `leptonc (\w+)", text("README.md"), re.MULTILINE)


def test_the_readme_lists_every_command():
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True)
    section = done.stdout.split("Commands:")[1]
    assert sorted(re.findall(r"^  (\w+)", section, re.MULTILINE)) == sorted(table_commands())


@pytest.mark.parametrize("verb", table_commands())
def test_every_command_can_speak_json(verb):
    assert "--json" in help_of(verb)
    assert "--debug" in help_of(verb)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text(name))
    missing = [
        link
        for link in links
        if not link.startswith("https://") and not (ROOT / name).parent.joinpath(link).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("block", [b for name in DOCUMENTS for b in blocks(name, "python")])
def test_python_in_the_documents_parses(block):
    assert ast.parse(block).body


def test_the_recipe_in_the_readme_compiles(tmp_path):
    (recipe,) = [block for block in blocks("README.md", "python") if "def build" in block]
    (tmp_path / "recipe.py").write_text(recipe, encoding="utf-8")
    done = subprocess.run(
        [SCRIPT, "compile", "recipe.py", "-o", "recipe.lepton"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "recipe.lepton").is_file()


def test_the_exit_codes_in_the_readme_are_those_of_the_errors():
    from leptonc.backends import errors as backends
    from leptonc.compiler import errors as compiler
    from leptonc.passes import errors as passes
    from leptonc.runtime import errors as runtime

    codes = {
        item.exit_code
        for module in (backends, compiler, passes, runtime)
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, runtime.LeptonError)
    }
    documented = {
        int(code) for code in re.findall(r"^\| (\d+) \| ", text("README.md"), re.MULTILINE)
    }
    assert codes <= documented


def test_the_version_has_its_place_in_the_changelog():
    assert "## [Unreleased]" in text("CHANGELOG.md")
