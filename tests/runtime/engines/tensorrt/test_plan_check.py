"""Whether a plan loads on a machine, said from names alone; and its header."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from plan_artifacts import demands, plan_artifact, real_plan, sizes

from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.engines.loaders import DEMANDS
from leptonc.runtime.engines.tensorrt.plan_check import objections, unknowns
from leptonc.runtime.engines.tensorrt.plan_demands import PlanDemands
from leptonc.runtime.engines.tensorrt.plan_header import check_plan_header, read_plan_header
from leptonc.runtime.errors import ArtifactError, EngineMissingError, MachineError
from leptonc.runtime.machine import Host, this_system

PLAN = PlanDemands("tensorrt-rtx", (1, 7, 1, 116), ("8.6", "8.9"), "linux-x86_64", ({},))
HERE = Host("linux-x86_64", {"tensorrt-rtx": (1, 7, 1, 116)}, "8.9")


def changed(**changes: Any) -> tuple[PlanDemands, Host]:
    host = {key: changes.pop(key) for key in ("system", "engines", "capability") if key in changes}
    return dataclasses.replace(PLAN, **changes), dataclasses.replace(HERE, **host)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"capability": "8.6"},
        {"capability": None, "system": None, "engines": {}},
        {"engines": {"tensorrt-rtx": (1, 7)}},
        {"engines": {"tensorrt": None, "tensorrt-rtx": (1, 7, 1, 116)}},
        {"version_compatible": True, "engines": {"tensorrt-rtx": (1, 8, 0, 2)}},
        {"hardware_compatibility": "ampere_plus", "capability": "12.0"},
        {"hardware_compatibility": "ampere_plus", "capability": "8.0"},
    ],
)
def test_a_machine_that_fits_has_no_objections(changes: dict[str, Any]) -> None:
    assert objections(*changed(**changes)) == ()


@pytest.mark.parametrize(
    ("changes", "about", "words"),
    [
        ({"capability": "9.0"}, "capability", ["9.0", "8.6 or 8.9", "--flavour classic"]),
        ({"capability": "12.0"}, "capability", ["12.0", "8.6 or 8.9", "--sm 120"]),
        ({"capability": ""}, "capability", ["there is no GPU", "8.6 or 8.9"]),
        ({"system": "windows-x86_64"}, "system", ["linux-x86_64", "windows-x86_64"]),
        ({"engines": {"tensorrt-rtx": None}}, "engine", ["not installed", "1.7.1.116", "pip"]),
        ({"engines": {"tensorrt-rtx": (1, 6)}}, "engine", ["1.6 is installed", "exactly"]),
        ({"engines": {"tensorrt-rtx": (1, 7, 1, 115)}}, "engine", ["1.7.1.115"]),
        ({"engines": {"tensorrt-rtx": (1, 7, 2, 1)}}, "engine", ["1.7.2.1"]),
        (
            {"version_compatible": True, "engines": {"tensorrt-rtx": (1, 6)}},
            "engine",
            ["1.7.1.116 or a later 1.x"],
        ),
        ({"version_compatible": True, "engines": {"tensorrt-rtx": (2, 0)}}, "engine", ["2.0"]),
        (
            {"hardware_compatibility": "ampere_plus", "capability": "7.5"},
            "capability",
            ["8.0 or later"],
        ),
        (
            {"hardware_compatibility": "same_compute_capability", "capability": "8.7"},
            "capability",
            ["8.7"],
        ),
    ],
)
def test_each_misfit_is_named_with_what_is_needed(
    changes: dict[str, Any], about: str, words: list[str]
) -> None:
    [found] = objections(*changed(**changes))
    assert found.about == about
    assert all(word in f"{found.what} {found.fix}" for word in words)
    kind = EngineMissingError if about == "engine" else MachineError
    error = found.error("m.lepton")
    assert type(error) is kind
    assert error.exit_code == 5


def test_every_misfit_is_listed() -> None:
    host = Host("windows-x86_64", {"tensorrt-rtx": None}, "7.0")
    assert [found.about for found in objections(PLAN, host)] == ["system", "engine", "capability"]


def test_what_is_not_known_is_said_and_does_not_object() -> None:
    nothing = Host(None, {}, None)
    assert objections(PLAN, nothing) == ()
    assert len(unknowns(PLAN, nothing)) == 3
    assert unknowns(PLAN, HERE) == ()
    part = Host("linux-x86_64", {"tensorrt-rtx": (1, 7)}, "8.9")
    assert unknowns(PLAN, part) == ("version of tensorrt-rtx: the plan needs exactly 1.7.1.116",)


def test_the_manifest_is_read_into_demands(tmp_path: Path) -> None:
    path = plan_artifact(tmp_path / "m.lepton", b"plan")
    [variant] = open_artifact(path, DEMANDS).manifest.variants
    plan = variant.demands.own
    assert isinstance(plan, PlanDemands)
    assert (plan.flavour, plan.version_text) == ("tensorrt-rtx", "1.7.1.116")
    assert plan.compute_capabilities == ("8.6", "8.9")
    assert plan.profiles[0]["x"].admits((8, 4))
    assert not plan.profiles[0]["x"].admits((9, 4))
    assert not plan.profiles[0]["x"].admits((8,))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "openvino"}, "not one of tensorrt-rtx, tensorrt"),
        ({"engine": 3}, "is not a name"),
        ({"version": "1.7.1.116.2"}, "not a version"),
        ({"version": "latest"}, "not a version"),
        ({"compute_capabilities": []}, "compute capabilities"),
        ({"compute_capabilities": ["89"]}, "'89' is not a compute capability"),
        ({"compute_capabilities": [8.9]}, "not a compute capability"),
        ({"os": ""}, "is not a name"),
        ({"profiles": []}, "not a list of profiles"),
        ({"profiles": [[]]}, "where an object belongs"),
        ({"profiles": [{"x": []}]}, "where an object belongs"),
        ({"profiles": [{"x": sizes([2, 4], [1, 4], [8, 4])}]}, "do not ascend"),
        ({"profiles": [{"x": sizes([1, 4], [1, 4], [8])}]}, "do not ascend"),
        ({"profiles": [{"x": sizes([True, 4], [1, 4], [8, 4])}]}, "not a list of sizes"),
        ({"profiles": [{"x": sizes([-1, 4], [1, 4], [8, 4])}]}, "not a list of sizes"),
        ({"profiles": [{"x": {"min": [1, 4]}}]}, "not a list of sizes"),
        ({"profiles": [{"z": sizes([1], [1], [8])}]}, "not an input of the model"),
        ({"profiles": [{"x": sizes([1], [1], [8])}]}, "'x' of rank 1"),
        ({"version_compatible": 1}, "neither true nor false"),
        ({"hardware_compatibility": "any"}, "not one of none"),
    ],
)
def test_demands_that_cannot_be_are_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = plan_artifact(tmp_path / "m.lepton", b"plan", demands=demands(**changes))
    with pytest.raises(ArtifactError, match=words) as caught:
        open_artifact(path, DEMANDS)
    assert "variants[0].demands" in str(caught.value.where)


def test_the_header_of_a_real_plan_is_read() -> None:
    plan = real_plan("8.6", "8.9")
    header = read_plan_header(plan, "here")
    assert (header.length, header.version) == (len(plan), (1, 7, 1, 116))
    assert header.capabilities == 4 | 8
    assert read_plan_header(real_plan("12.0"), "here").capabilities == 16
    check_plan_header(plan, PLAN, "here")
    check_plan_header(
        memoryview(plan), dataclasses.replace(PLAN, compute_capabilities=("8.9",)), ""
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"version": (1, 7, 1, 117)},
            "built by tensorrt-rtx 1.7.1.116; the manifest says 1.7.1.117",
        ),
        ({"compute_capabilities": ("8.9", "12.0")}, "code for compute capability 8.6, 8.9"),
        ({"compute_capabilities": ("9.0",)}, "the manifest says 9.0"),
    ],
)
def test_a_plan_that_is_not_the_manifests_is_refused(changes: dict[str, Any], words: str) -> None:
    plan = real_plan("8.6", "8.9")
    with pytest.raises(ArtifactError, match=words):
        check_plan_header(plan, dataclasses.replace(PLAN, **changes), "here")


def test_bytes_that_are_no_plan_are_refused() -> None:
    plan = real_plan("8.6", "8.9")
    for data in (b"", plan[:63], b"onnx" + plan[4:], plan[:28] + b"vtrx" + plan[32:]):
        with pytest.raises(ArtifactError, match="not a plan of TensorRT-RTX"):
            check_plan_header(data, PLAN, "here")
    with pytest.raises(ArtifactError, match="says that it has"):
        check_plan_header(plan[:-1], PLAN, "here")


def test_plans_of_tensorrt_itself_have_another_header() -> None:
    check_plan_header(b"ftrt", dataclasses.replace(PLAN, flavour="tensorrt"), "here")


def test_this_machine_has_a_name() -> None:
    system, _, processor = this_system().partition("-")
    assert system
    assert processor in {"x86_64", "aarch64"}
