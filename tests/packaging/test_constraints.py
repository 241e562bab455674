"""constraints.txt pins what `make setup` installs, in a form that any index can satisfy."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("compile", "ort", "dev")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): version for name, version in found}


def required() -> dict[str, str]:
    """Return what leptonc needs here, directly or not, with the versions installed."""
    found: dict[str, str] = {}
    queue = [(line, EXTRAS) for line in metadata.requires("leptonc") or ()]
    while queue:
        line, extras = queue.pop()
        wanted = Requirement(line)
        applies = [
            not wanted.marker or wanted.marker.evaluate({"extra": e}) for e in extras or ("",)
        ]
        if not any(applies) or normal(wanted.name) in found:
            continue
        try:
            distribution = metadata.distribution(wanted.name)
        except metadata.PackageNotFoundError:
            continue
        found[normal(wanted.name)] = distribution.version
        queue.extend((each, tuple(wanted.extras)) for each in distribution.requires or ())
    return found


def test_everything_that_setup_installs_is_pinned_at_its_version():
    wanted = {name: version.split("+")[0] for name, version in required().items()}
    pinned = pins()
    assert {name: pinned.get(name) for name in wanted} == wanted
    assert {"torch", "numpy", "onnxruntime", "pytest", "protobuf", "setuptools"} <= set(wanted)


def test_pins_are_plain_versions_in_order():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    rows = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==\d[\w.]*", row) for row in rows)
    assert rows == sorted(rows, key=str.lower)


def test_the_makefile_installs_the_torch_that_is_pinned():
    (version,) = re.findall(r"torch==(\S+)", (ROOT / "Makefile").read_text())
    assert version == pins()["torch"]
