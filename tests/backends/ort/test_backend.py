"""What the ONNX Runtime backend makes of a graph: the same answers, one form, one place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import small_artifacts
from small_artifacts import build, parse, spec

from leptonc.backends import find_backend, parse_target
from leptonc.backends.base import Payload
from leptonc.runtime import load
from leptonc.runtime.machine import instruction_sets

RNG = np.random.default_rng(3)


def payload_of(model: ir.Model, folder: Path, require: str | None = None) -> Payload:
    target = parse_target("ort-cpu", require=require)
    return find_backend(target).build(model, target, folder)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


MLP = """
<ir_version: 10, opset_import: ["" : 20]>
mlp (float[batch, 32] x) => (float[batch, 8] y) {
  a = MatMul(x, w)
  b = Add(a, bias)
  c = Relu(b)
  y = MatMul(c, v)
}
"""


def mlp() -> ir.Model:
    return parse(MLP, {"w": floats(32, 64), "bias": floats(64), "v": floats(64, 8)})


def test_large_weights_leave_the_graph_and_small_ones_stay(tmp_path: Path) -> None:
    payload = payload_of(mlp(), tmp_path)
    assert [(w.name, w.dtype) for w in payload.weights] == [("v", "float32"), ("w", "float32")]
    assert len(payload.graph) < 1500
    assert b"".join(payload.weights[0].chunks()) == mlp_weight(payload, "v").tobytes()


def mlp_weight(payload: Payload, name: str) -> np.ndarray:
    tensor = payload.model().graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def test_the_variant_says_what_it_needs(tmp_path: Path) -> None:
    variant = payload_of(mlp(), tmp_path).variant
    assert variant["name"] == "ort-cpu"
    assert variant["graph"] == "ort-cpu/graph"
    assert variant["demands"]["engine"] == "onnxruntime"
    assert variant["demands"]["opset"] == 20
    assert variant["demands"]["instructions"] == []
    assert variant["options"]["optimize"] == "none"


def test_every_node_is_reported_on_the_cpu(tmp_path: Path) -> None:
    payload = payload_of(mlp(), tmp_path)
    nodes = [node.op_type for node in payload.model().graph]
    [(provider, counts)] = payload.placement.items()
    assert provider == "CPUExecutionProvider"
    assert sum(counts.values()) == len(nodes)
    assert set(counts) == set(nodes)


def test_the_model_given_is_left_as_it_is(tmp_path: Path) -> None:
    model = mlp()
    model.graph.doc_string = "kept"
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    payload_of(model, tmp_path)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_only_the_weights_are_left_in_the_work_folder(tmp_path: Path) -> None:
    payload_of(mlp(), tmp_path)
    assert {path.name for path in (tmp_path / "ort-cpu").iterdir()} == {
        "optimised.onnx",
        "optimised.data",
    }


def test_the_payload_carries_no_paths_traces_or_documentation(tmp_path: Path) -> None:
    model = mlp()
    model.doc_string = model.graph.doc_string = "secret-doc"
    model.producer_name = "secret-producer"
    model.metadata_props["path"] = "/secret/path"
    for node in model.graph:
        node.doc_string = "secret-doc"
        node.metadata_props["pkg.torch.onnx.stack_trace"] = "File /secret/file.py"
        node.outputs[0].metadata_props["x"] = "/secret/value"
    payload = payload_of(model, tmp_path)
    assert b"secret" not in payload.graph
    assert str(tmp_path).encode() not in payload.graph
    assert payload.graph == payload_of(mlp_like(model), tmp_path / "other").graph


def mlp_like(model: ir.Model) -> ir.Model:
    """Return a plain model with the weights of another."""
    arrays = {
        name: v.const_value.numpy() for name, v in model.graph.initializers.items() if v.const_value
    }
    return parse(MLP, arrays)


SCRIPT = """
import sys; from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[3]]
from test_backend import branches, mlp, payload_of
for name, make in (("mlp", mlp), ("branches", branches)):
    payload = payload_of(make(), Path(sys.argv[1]) / name)
    Path(sys.argv[1], name + ".graph").write_bytes(payload.graph)
    Path(sys.argv[1], name + ".data").write_bytes(b"".join(b"".join(w.chunks()) for w in payload.weights))
"""


def test_the_payload_is_the_same_in_every_process_and_folder(tmp_path: Path) -> None:
    here = Path(__file__).parent
    found: dict[str, set[bytes]] = {}
    for seed in ("1", "2", "3"):
        folder = tmp_path / f"run-{seed}" / ("deeper" * int(seed))
        folder.mkdir(parents=True)
        command = [
            sys.executable,
            "-c",
            SCRIPT,
            str(folder),
            str(here),
            str(Path(small_artifacts.__file__).parent),
        ]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        for path in (*folder.glob("*.graph"), *folder.glob("*.data")):
            found.setdefault(path.name, set()).add(path.read_bytes())
    assert len(found) == 4
    assert {name: len(contents) for name, contents in found.items()} == dict.fromkeys(found, 1)


def branches() -> ir.Model:
    """A model whose two branches have large weights of the same name, and capture one."""
    model = ir.from_onnx_text("""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 24] x, bool c) => (float[n, 24] y) {
      h = MatMul(x, outer)
      y = If (c) <
        then_branch = yes () => (float[n, 24] a) { t = MatMul(h, w) a = Add(t, outer_row) },
        else_branch = no () => (float[n, 24] b) { t = MatMul(h, w) b = Relu(t) }
      >
    }
    """)
    generator = np.random.default_rng(5)
    give(model.graph, "outer", generator.standard_normal((24, 24)).astype(np.float32))
    give(model.graph, "outer_row", generator.standard_normal(24).astype(np.float32))
    for branch in model.graph.subgraphs():
        give(branch, "w", generator.standard_normal((24, 24)).astype(np.float32))
    return model


def give(graph: ir.Graph, name: str, array: np.ndarray) -> None:
    """Make `name` an initialiser of `graph`, and let the nodes in it use it."""
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(
        name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
    )
    for node in graph.all_nodes():
        for index, used in enumerate(node.inputs):
            if used is not None and used.name == name and used.producer() is None:
                node.replace_input_with(index, value)
    graph.initializers[name] = value


@pytest.mark.parametrize("condition", [True, False])
def test_weights_of_subgraphs_are_shared_too(condition: bool, tmp_path: Path) -> None:
    model = branches()
    graphs = list(model.graph.subgraphs())
    weights = [g.initializers["w"].const_value.numpy() for g in graphs]
    outer = model.graph.initializers["outer"].const_value.numpy()
    row = model.graph.initializers["outer_row"].const_value.numpy()
    path = build(
        tmp_path / "m.lepton",
        model,
        [spec("x", "float32", 2, 24), spec("c", "bool")],
        [spec("y", "float32", 2, 24)],
        tmp_path,
    )
    session = load(path)
    stored = session.manifest["variants"][0]["weights"]
    assert len({entry["name"] for entry in stored}) == 3
    x = floats(2, 24)
    yes = x @ outer @ weights[0] + row
    no = np.maximum(x @ outer @ weights[1], 0)
    got = session(x=x, c=np.array(condition))["y"]
    np.testing.assert_allclose(got, yes if condition else no, rtol=1e-4, atol=1e-4)


CONV = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 3, 16, 16] x) => (float[n, 32, 16, 16] y) {
  a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
  b = Relu(a)
  y = Conv <kernel_shape = [1, 1]> (b, v)
}
"""


def conv() -> ir.Model:
    generator = np.random.default_rng(9)
    weights = {"w": (32, 3, 3, 3), "v": (32, 32, 1, 1)}
    return parse(
        CONV, {n: generator.standard_normal(s).astype(np.float32) for n, s in weights.items()}
    )


@pytest.mark.parametrize("require", ["portable", "native"])
def test_convolutions_are_rearranged_for_the_machine_at_load_or_by_demand(
    require: str, tmp_path: Path
) -> None:
    payload = payload_of(conv(), tmp_path / require, require)
    operators = {(node.domain, node.op_type) for node in payload.model().graph}
    demanded = payload.variant["demands"]["instructions"]
    if require == "portable":
        assert operators == {("com.microsoft", "FusedConv"), ("", "Conv")}
        assert payload.variant["options"]["optimize"] == "layout"
        assert demanded == []
        return
    assert ("com.microsoft.nchwc", "Conv") in operators
    assert payload.variant["options"]["optimize"] == "none"
    assert demanded
    assert set(demanded) <= instruction_sets()


def test_an_input_with_a_default_becomes_a_constant(tmp_path: Path) -> None:
    model = parse(MLP, {"w": floats(32, 64), "bias": floats(64), "v": floats(64, 8)})
    model.graph.inputs.append(model.graph.initializers["w"])
    payload = payload_of(model, tmp_path)
    assert [value.name for value in payload.model().graph.inputs] == ["x"]
    assert len(model.graph.inputs) == 2


PADDED_POOL = """
<ir_version: 10, opset_import: ["" : 20]>
pool (float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y)
<int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}>
{
  padded = Pad(x, pads)
  y = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(padded)
}
"""


def test_zeros_before_a_pooling_stay_zeros(tmp_path: Path) -> None:
    sides = [spec("x", "float32", 1, 1, 4, 4)], [spec("y", "float32", 1, 1, 2, 2)]
    path = build(tmp_path / "pool.lepton", parse(PADDED_POOL), *sides, tmp_path / "work")
    with load(path) as session:
        found = session(x=np.full((1, 1, 4, 4), -1, dtype=np.float32))["y"]
    assert found.flatten().tolist() == [0, 0, 0, -1]
