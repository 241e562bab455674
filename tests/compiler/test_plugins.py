"""Plugins as the command line meets them."""

from __future__ import annotations

import json

import pytest

from leptonc.compiler.cli import main
from leptonc.compiler.machines import installed_plugins
from leptonc.passes.plugins import GROUP
from leptonc.runtime import load

MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[2, 4] x) => (float[2, 4] y) { h = Exp(x)  y = Relu(h) }
"""

# Right for this model, where Relu gets what is above zero; wrong with `to` another operator.
TO = """
class Acme:
    name = "acme"

    def run(self, model, context):
        for node in model.graph:
            if node.op_type == "Relu":
                node.op_type = "{to}"
                return PassStats(self.name, (("to", 1),), 2, 2, (), (Firing("to", node.name),))
        return stats(self.name, 0)
"""


@pytest.fixture
def model(onnx_file):
    return str(onnx_file(MODEL))


def test_a_plugin_takes_part_and_is_recorded(install_plugin, model, tmp_path, capfd):
    install_plugin(TO.format(to="Abs"), {"acme": "Acme"})
    path = tmp_path / "m.lepton"
    assert main(["compile", model, "-o", str(path), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    plugin = {
        "name": "acme",
        "distribution": "acme-passes",
        "version": "1.2.0",
        "stage": "fuse",
    }
    assert answer["plugins"] == [plugin]
    with load(path) as session:
        assert session.manifest["plugins"] == [plugin]
    assert main(["inspect", str(path)]) == 0
    out = capfd.readouterr().out
    assert "acme-passes 1.2.0" in out and "Abs" in out


@pytest.mark.parametrize("how", ["flag", "file"])
def test_plugins_can_be_switched_off(install_plugin, how, tmp_path, capfd):
    install_plugin("raise ImportError('broken')", {"acme": "Acme"})
    recipe = tmp_path / "net.py"
    recipe.write_text(
        "import torch\n"
        "def build(): return torch.nn.ReLU()\n"
        "def example_inputs(): return {'input': torch.ones(2)}\n"
    )
    compile = ["compile", str(recipe), "--json", "-o", str(tmp_path / "m.lepton")]
    assert main(compile) == 5
    assert "cannot be imported: ImportError: broken" in capfd.readouterr().err
    if how == "flag":
        compile.append("--without-plugins")
    else:
        (tmp_path / "net.toml").write_text("[compile]\nplugins = false\n")
    assert main(compile) == 0
    assert json.loads(capfd.readouterr().out)["plugins"] == []


def test_the_proof_blames_a_plugin_by_name(install_plugin, model, tmp_path, capfd):
    install_plugin(TO.format(to="Neg"), {"acme": "Acme"})
    path = tmp_path / "m.lepton"
    assert main(["compile", model, "-q", "--explain", "-o", str(path)]) == 6
    out, err = capfd.readouterr()
    assert out == ""
    assert "last changed by acme, a plugin of acme-passes 1.2.0" in err
    assert "authors of acme-passes 1.2.0" in err and "--without-plugins" in err
    # What the passes did stands before the error.
    shown = err.index("acme (from acme-passes 1.2.0): nodes +0")
    assert shown < err.index("leptonc: the artifact is wrong")
    assert not path.exists()
    assert main(["compile", model, "-q", "--without-plugins", "-o", str(path)]) == 0


def test_the_doctor_lists_plugins_without_importing_them(install_plugin, capfd):
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["plugins"] == []
    install_plugin("raise ImportError('broken')", {"acme": "Acme"})
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["plugins"] == [
        {
            "name": "acme",
            "distribution": "acme-passes",
            "version": "1.2.0",
            "reference": "acme_passes:Acme",
        }
    ]
    assert main(["doctor"]) == 0
    assert "acme-passes 1.2.0" in capfd.readouterr().out


def test_the_doctor_looks_where_the_loader_looks():
    assert installed_plugins.GROUP == GROUP
