"""Backends of other distributions: found, refused with their name, never in the way of ours."""

from __future__ import annotations

import json

import onnx.parser
import pytest

from leptonc.backends import BACKENDS, find_backend, parse_target
from leptonc.backends.errors import PluginError, UnsupportedTargetError
from leptonc.backends.plugins import installed_rows
from leptonc.backends.rows import all_rows, find_row
from leptonc.compiler.cli import main

ROW = """
from leptonc.backends import BackendRow, TargetRow, Unsupported


class Acme:
    name = "acme"

    def supports(self, target):
        return Unsupported("acme is asleep", "wake it") if target.precision == "int8" else None


def load():
    {load}


ROW = BackendRow("{backend}", (TargetRow("{target}", "cpu", "primitive"),), load)
"""

MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[2] x) => (float[2] y) { y = Relu(x) }
"""


@pytest.fixture
def model(tmp_path) -> str:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(MODEL).SerializeToString())
    return str(path)


@pytest.fixture
def install(install_plugin):
    def install(
        backend: str = "acme",
        target: str = "acme-cpu",
        load: str = "return Acme()",
        distribution: str = "acme-backend",
    ) -> None:
        install_plugin(
            ROW.format(backend=backend, target=target, load=load),
            {backend: "ROW"},
            group="leptonc.backends",
            distribution=distribution,
        )

    return install


def test_its_targets_are_targets(install):
    with pytest.raises(UnsupportedTargetError, match="'acme-cpu' is not a target"):
        parse_target("acme-cpu")
    install()
    target = parse_target("acme-cpu")
    assert (target.backend, target.device, target.platform) == ("acme", "cpu", "primitive")
    assert find_backend(target).name == "acme"
    assert [row.name for row in all_rows()] == [*(row.name for row in BACKENDS), "acme"]
    with pytest.raises(UnsupportedTargetError) as refused:
        parse_target("acme-gpu")
    assert str(refused.value.fix).endswith("acme-cpu")


def test_what_it_does_not_support_is_refused_in_its_own_words(install):
    install()
    with pytest.raises(UnsupportedTargetError, match="acme is asleep") as refused:
        find_backend(parse_target("acme-cpu", precision="int8"))
    assert refused.value.fix == "wake it"


BROKEN = [
    ("raise ImportError('no chip')", "it cannot be imported: ImportError: no chip"),
    ("raise SystemExit(3)", "it cannot be imported: SystemExit: 3"),
    ("ROW = 'acme'", "it is of type str, not a BackendRow"),
    ("", "it cannot be imported: AttributeError"),
]


@pytest.mark.parametrize(("code", "why"), BROKEN)
def test_one_that_cannot_be_used_is_said_with_its_distribution(install_plugin, capfd, code, why):
    install_plugin(code, {"acme": "ROW"}, group="leptonc.backends", distribution="acme-backend")
    with pytest.raises(PluginError) as refused:
        parse_target("acme-cpu")
    assert refused.value.what.startswith(f"the backend 'acme' cannot be used: {why}")
    assert refused.value.where == "acme-backend 1.2.0, entry point acme = acme_backend:ROW"
    assert refused.value.fix == "correct or uninstall acme-backend"
    assert refused.value.exit_code == 5
    # Ours are found before any other is read.
    assert parse_target("ort-cpu").backend == "ort"
    assert find_row("tensorrt") is not None
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["capabilities"][-1]
    assert (found["name"], found["state"]) == ("acme", "broken")
    assert why in found["detail"]
    assert "acme-backend 1.2.0" in found["detail"]
    assert main(["doctor"]) == 0
    assert "broken" in capfd.readouterr().out


@pytest.mark.parametrize(("backend", "target"), [("ort", "acme-cpu"), ("acme", "ort-cpu")])
def test_no_name_of_ours_can_be_taken(install, backend, target):
    install(backend, target)
    taken = "ort" if backend == "ort" else "ort-cpu"
    with pytest.raises(PluginError, match=f"the name '{taken}' is taken by leptonc"):
        parse_target("nope")
    assert parse_target("ort-cpu").backend == "ort"


def test_the_first_by_name_keeps_a_name_that_two_take(install):
    install()
    install(distribution="zenith")
    (_, kept), (entry, refused) = installed_rows(BACKENDS)
    assert not isinstance(kept, PluginError)
    assert entry.dist is not None
    assert entry.dist.name == "zenith"
    assert "the name 'acme' is taken by acme-backend 1.2.0" in str(refused)


def test_a_backend_that_cannot_be_loaded_is_said_with_its_distribution(install):
    install(load="import leptonc_no_such_module")
    target = parse_target("acme-cpu")
    with pytest.raises(PluginError, match="ModuleNotFoundError: No module named") as refused:
        find_backend(target)
    assert "acme-backend 1.2.0" in str(refused.value.where)


def test_the_doctor_says_what_it_needs(install, capfd):
    install()
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["capabilities"][-1]
    assert found == {
        "name": "acme-cpu",
        "state": "ready",
        "detail": "acme-backend 1.2.0",
        "command": None,
    }


def test_without_plugins_concerns_no_target(install, model, tmp_path, capfd):
    install()
    options = [
        "-t",
        "acme-cpu",
        "-p",
        "int8",
        "--without-plugins",
        "-o",
        str(tmp_path / "m.lepton"),
    ]
    assert main(["compile", model, *options]) == 4
    assert "acme is asleep" in capfd.readouterr().err


def test_one_that_does_not_say_its_coverage_is_told_from_one_that_does(install, model, capfd):
    install()
    assert main(["compile", model, "-t", "acme-cpu", "--dry-run"]) == 2
    said = capfd.readouterr().err
    assert "reports on the target tensorrt only, not on acme-cpu" in said
    assert "use it with -t tensorrt alone" in said
