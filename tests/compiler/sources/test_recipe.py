from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from leptonc.compiler.errors import PickleRefusedError, RecipeError, SourceError
from leptonc.compiler.sources.opening import open_source
from leptonc.runtime.errors import InputError

GOOD = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x):
        return {"y": self.drop(self.linear(x)), "pair": (x, x + 1), "nothing": None}

def build():
    torch.manual_seed(0)
    return Net()

def example_inputs():
    return {"x": torch.ones(2, 4)}

def dynamic_shapes():
    return {"x": {0: ("batch", 1, 8)}}
"""


def write(folder, text, name="net.py"):
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def test_a_recipe_becomes_a_source_in_eval_mode(tmp_path):
    source = open_source(str(write(tmp_path, GOOD)))
    assert (source.kind, source.name) == ("recipe", "net")
    assert source.axes["x"][0].max == 8
    assert source.weight_bytes == (4 * 3 + 3) * 4
    first, second = source.reference(source.inputs), source.reference(source.inputs)
    assert list(first) == ["y", "pair.0", "pair.1"]
    assert np.array_equal(first["y"], second["y"])


def test_the_fingerprint_follows_code_and_weights_but_not_the_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = open_source(str(write(tmp_path / "a", GOOD))).fingerprint
    same = open_source(str(write(tmp_path / "b", GOOD, "other.py"))).fingerprint
    code = open_source(str(write(tmp_path / "b", GOOD + "\n# more\n"))).fingerprint
    weights = GOOD.replace("manual_seed(0)", "manual_seed(1)")
    assert one == same
    assert len({one, code, open_source(str(write(tmp_path / "b", weights))).fingerprint}) == 3


def test_a_recipe_can_import_the_files_beside_it(tmp_path):
    write(tmp_path, GOOD, "sibling_net.py")
    path = write(tmp_path, "from sibling_net import build, dynamic_shapes, example_inputs\n")
    try:
        assert open_source(str(path)).name == "net"
    finally:
        sys.modules.pop("sibling_net", None)
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("spec", ["NET:Namespace", "NET:make", "NET:module", "NET.py:Namespace"])
def test_an_attribute_of_a_module_is_a_recipe(tmp_path, monkeypatch, spec):
    extra = "\nimport sys\nclass Namespace:\n    build = staticmethod(build)\n"
    extra += "    example_inputs = staticmethod(example_inputs)\nmake = build\nmodule = build()\n"
    write(tmp_path, GOOD + extra, "attribute_net.py")
    monkeypatch.chdir(tmp_path)
    try:
        source = open_source(spec.replace("NET", "attribute_net"))
    finally:
        sys.modules.pop("attribute_net", None)
    assert list(source.inputs) == ["x"]


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("x = 1", "the recipe has no build()", "net.py"),
        ("def build(: pass", "loading the recipe failed: SyntaxError", "net.py:1"),
        ("\n\nimport no_such_package_at_all", "ModuleNotFoundError", "net.py:3"),
        ("raise SystemExit(3)", "SystemExit", "net.py:1"),
        ("def build():\n    x = 1\n    return x / 0", "build() failed: ZeroDivisionError", "net.py:3"),
        ("def build(): return 3", "build() returned int, not a torch.nn.Module", "net.py"),
        (GOOD.replace("def example_inputs", "def examples"), "no example_inputs()", "net.py"),
        (GOOD.replace('{"x": torch.ones(2, 4)}', "torch.ones(2)"), "returned Tensor", "net.py"),
        (GOOD.replace("torch.ones(2, 4)}", "[1, 2]}"), "is a list, not a tensor", "net.py"),
        (GOOD.replace("torch.ones(2, 4)}", "torch.ones(2).bfloat16()}"), "bfloat16", "x"),
        (GOOD.replace('("batch", 1, 8)', '("batch", 5, 8)'), "outside 5..8", "dynamic_shapes()"),
    ],
)  # fmt: skip
def test_a_broken_recipe_is_one_error_with_its_place(tmp_path, text, message, where):
    with pytest.raises(SourceError) as caught:
        open_source(str(write(tmp_path, text)))
    assert message in caught.value.what
    assert where in (caught.value.where or "")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("missing.py", "no such file"),
        ("missing.onnx", "no such file"),
        ("missing.pt2", "no such file"),
        ("missing", "no such file or folder"),
        ("no_such_module_here:net", "there is no module"),
        ("textwrap:nothing", "has no attribute 'nothing'"),
        ("weights.txt", "cannot tell what a '.txt' source is"),
    ],
)
def test_a_missing_or_unknown_source_is_named(tmp_path, monkeypatch, spec, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.txt").write_text("x")
    with pytest.raises(SourceError, match=message) as caught:
        open_source(spec)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin", "x.ckpt", "x.pkl"])
def test_pickles_are_refused_with_the_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(PickleRefusedError, match="a pickle is a program") as caught:
        open_source(str(tmp_path / name))
    assert "safetensors" in (caught.value.fix or "")


def test_a_module_attribute_without_examples_says_so(tmp_path, monkeypatch):
    write(tmp_path, "import torch\nnet = torch.nn.Linear(2, 2)\n", "bare_net.py")
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(RecipeError, match=r"no example_inputs\(\)"):
            open_source("bare_net:net")
    finally:
        sys.modules.pop("bare_net", None)


HOSTILE = "import sys, torch\nfrom torch import nn\ndef example_inputs(): return {'input': %s}\n"
DENSE = "torch.ones(2, 4)"


@pytest.mark.parametrize(
    ("build", "example", "message"),
    [
        ("torch.compile(nn.Linear(4, 4))", DENSE, "wrapped by torch.compile"),
        ("nn.DataParallel(nn.Linear(4, 4))", DENSE, "wrapped in DataParallel"),
        ("torch.jit.script(nn.ReLU())", DENSE, "TorchScript"),
        ("nn.LazyLinear(4)", DENSE, "'weight' has no shape yet"),
        ("nn.Linear(4, 4, device='meta')", DENSE, "'weight' is on the meta device"),
        ("nn.Linear", DENSE, "returned type, not a torch.nn.Module"),
        ("sys.exit(0)", DENSE, "build() failed: SystemExit"),
        ("(_ for _ in ()).throw(GeneratorExit)", DENSE, "build() failed: GeneratorExit"),
        ("nn.ReLU()", "torch.ones(2, dtype=torch.complex64)", "dtype complex64"),
        ("nn.ReLU()", "torch.ones(2, dtype=torch.bfloat16)", "dtype torch.bfloat16"),
        ("nn.ReLU()", "torch.eye(2).to_sparse()", "is a sparse_coo tensor"),
        ("nn.ReLU()", "torch.ones(2, device='meta')", "is a meta tensor"),
        ("nn.ReLU()", "torch.ones(2).numpy().astype(object)", "dtype object"),
    ],
)
def test_what_cannot_be_compiled_is_said_at_once(tmp_path, build, example, message):
    path = write(tmp_path, HOSTILE % example + f"def build(): return {build}\n")
    with pytest.raises(SourceError) as caught:
        open_source(str(path))
    assert message in str(caught.value)
    assert caught.value.fix or "returned type" in message


def test_a_foreign_byte_order_is_turned_round(tmp_path):
    example = "__import__('numpy').arange(3, dtype='>f4')"
    source = open_source(
        str(write(tmp_path, HOSTILE % example + "def build(): return nn.ReLU()\n"))
    )
    assert source.inputs["input"].dtype.isnative
    assert source.inputs["input"].tolist() == [0, 1, 2]


def test_a_recipe_cannot_move_us_to_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_source(str(write(tmp_path, GOOD + "\nimport os\nos.chdir('/')\n")))
    assert Path.cwd() == tmp_path


def test_arrays_that_do_not_fit_the_recipe_name_their_file(tmp_path):
    np.savez(tmp_path / "other.npz", z=np.ones((2, 4), np.float32))
    with pytest.raises(InputError, match="no array 'x'") as caught:
        open_source(str(write(tmp_path, GOOD)), inputs=tmp_path / "other.npz")
    assert "other.npz" in (caught.value.where or "")
