from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from leptonc.passes.errors import ModelError
from leptonc.passes.graph.content import digest, digest_transposed, head
from leptonc.passes.pipeline import run_passes
from leptonc.passes.share.share import Share

FIRES = {
    "equal weights": (
        """g (float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {1, 2}> {
          a = Mul(x, v)  y = Add(a, w)
        }""",
        """g (float[2] x) => (float[2] y) <float[2] v = {1, 2}> { a = Mul(x, v)  y = Add(a, v) }""",
    ),
    "equal strings": (
        """g (int64[1] i) => (string[1] y) <string[2] v = {"b", "c"}, string[2] w = {"b", "c"}> {
          s = StringConcat(v, w)  y = Gather(s, i)
        }""",
        """g (int64[1] i) => (string[1] y) <string[2] v = {"b", "c"}> {
          s = StringConcat(v, v)  y = Gather(s, i)
        }""",
    ),
    "a weight of a subgraph that its surroundings have": (
        """g (float[2] x, bool c) => (float[2] y) <float[2] v = {1, 2}> {
          a = Mul(x, v)
          y = If(c) <then_branch = t () => (float[2] p) <float[2] w = {1, 2}> { p = Mul(a, w) },
                     else_branch = e () => (float[2] q) { q = Abs(a) }>
        }""",
        """g (float[2] x, bool c) => (float[2] y) <float[2] v = {1, 2}> {
          a = Mul(x, v)
          y = If(c) <then_branch = t () => (float[2] p) { p = Mul(a, v) },
                     else_branch = e () => (float[2] q) { q = Abs(a) }>
        }""",
    ),
    "a weight that two branches have": (
        """g (float[2] x, bool c) => (float[2] y) {
          y = If(c) <then_branch = t () => (float[2] p) <float[2] w = {1, 2}> { p = Mul(x, w) },
                     else_branch = e () => (float[2] q) <float[2] v = {1, 2}> { q = Add(x, v) }>
        }""",
        """g (float[2] x, bool c) => (float[2] y) <float[2] w_1 = {1, 2}> {
          y = If(c) <then_branch = t () => (float[2] p) { p = Mul(x, w_1) },
                     else_branch = e () => (float[2] q) { q = Add(x, w_1) }>
        }""",
    ),
}

STAYS = {
    "other bytes": """g (float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {1, 3}> {
      a = Mul(x, v)  y = Add(a, w) }""",
    "zeros of both signs": """
      g (float[2] x) => (float[2] y) <float[2] v = {0, 1}, float[2] w = {-0.0, 1}> {
      a = Mul(x, v)  y = Add(a, w) }""",
    "another shape": """g (float[2] x) => (float[2] y) <float[1] v = {1}, float[1, 1] w = {1}> {
      a = Mul(x, v)  b = Mul(a, w)  y = Squeeze(b) }""",
    "another type": """g (int64[2] x) => (int64[2] y) <int64[2] v = {0, 0}, double[2] w = {0, 0}> {
      a = Add(x, v)  b = Cast<to = 7>(w)  y = Add(a, b) }""",
    "an input with a default": """
      g (float[2] x, float[2] v = {1, 2}) => (float[2] y) <float[2] w = {1, 2}> {
      a = Mul(x, v)  y = Add(a, w) }""",
    "two outputs": """
      g (float[2] x) => (float[2] v, float[2] w, float[2] y)
      <float[2] v = {1, 2}, float[2] w = {1, 2}> { y = Neg(x) }""",
    "IR version 3": """<ir_version: 3, opset_import: ["" : 9]>
      g (float[2] x, float[2] v = {1, 2}, float[2] w = {1, 2}) => (float[2] y) {
      a = Mul(x, v)  y = Add(a, w) }""",
}


@pytest.mark.parametrize("case", FIRES)
def test_it_fires(parse, assert_graph, counts, case):
    before, after = FIRES[case]
    model = parse(before)
    (stats,) = run_passes(model, (Share(),))
    assert counts(stats)["initializers shared"] > 0
    assert_graph(model, after)
    (again,) = run_passes(model, (Share(),))
    assert again.counts == ()


@pytest.mark.parametrize("case", STAYS)
def test_it_does_not_fire(parse, assert_graph, case):
    text = STAYS[case].strip()
    model = parse(text)
    (stats,) = run_passes(model, (Share(),))
    assert stats.counts == ()
    assert_graph(model, text)


def test_a_weight_named_by_an_annotation_keeps_its_own(parse):
    model = parse(
        """g (float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {1, 2}> {
          a = Mul(x, v)  y = Add(a, w)
        }"""
    )
    model.graph[0].outputs[0].meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "w"}
    (stats,) = run_passes(model, (Share(),))
    assert stats.counts == ()


def tied(shape: tuple[int, ...], other: np.ndarray) -> ir.Model:
    """Return a model with `v` of ascending numbers in `shape`, and `w`."""
    v = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    values = {}
    for name, array in {"v": v, "w": other}.items():
        values[name] = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=name),
        )
    sums = [ir.node("ReduceSum", [value], attributes={"keepdims": 0}) for value in values.values()]
    last = ir.node("Add", [node.outputs[0] for node in sums])
    for node, name in zip((*sums, last), "abc", strict=True):
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    last.outputs[0].shape = ir.Shape([])
    graph = ir.Graph(
        [],
        last.outputs,
        nodes=[*sums, last],
        initializers=list(values.values()),
        name="g",
        opset_imports={"": 20},
    )
    return ir.Model(graph, ir_version=10)


ASCENDING = np.arange(64 * 48, dtype=np.float32)


@pytest.mark.parametrize(
    ("other", "operator"),
    [
        (ASCENDING.reshape(64, 48).T.copy(), "Transpose"),
        (ASCENDING.reshape(32, 96), "Reshape"),
        (ASCENDING.reshape(64, 48, 1), "Reshape"),
    ],
)
def test_ties_are_computed_where_asked_for(run, counts, other, operator):
    model = tied((64, 48), other)
    before = run(model, {})
    (plain,) = run_passes(model, (Share(),))
    assert plain.counts == ()
    (stats,) = run_passes(model, (Share(ties=True),))
    assert counts(stats) == {"ties": 1}
    assert model.graph[0].op_type == operator
    assert "w" not in model.graph.initializers
    assert run(model, {}) == before
    (again,) = run_passes(model, (Share(ties=True),))
    assert again.counts == ()


@pytest.mark.parametrize(
    "other",
    [ASCENDING.reshape(48, 64), ASCENDING.reshape(64, 48).T + 1, np.ones((64, 48), np.float32)],
    ids=["reshaped and not transposed", "other numbers", "ones"],
)
def test_what_only_looks_like_a_transpose_is_none(counts, other):
    model = tied((64, 48), other)
    (stats,) = run_passes(model, (Share(ties=True),))
    assert "Transpose" not in {node.op_type for node in model.graph}
    assert counts(stats) == ({"ties": 1} if other.shape == (48, 64) and other[0, 1] == 1 else {})


def external(folder: Path, name: str, array: np.ndarray, offset: int = 0) -> ir.ExternalTensor:
    with (folder / "weights").open("ab") as file:
        start = file.tell()
        file.write(array.tobytes())
    return ir.ExternalTensor(
        "weights",
        start + offset,
        array.nbytes,
        ir.DataType.from_numpy(array.dtype),
        shape=ir.Shape(array.shape),
        name=name,
        base_dir=folder,
    )


def test_weights_in_files_are_shared_and_stay_there(tmp_path, counts):
    array = ASCENDING.reshape(64, 48)
    model = tied((64, 48), array)
    for name in ("v", "w"):
        model.graph.initializers[name].const_value = external(tmp_path, name, array)
    (stats,) = run_passes(model, (Share(),))
    assert counts(stats) == {"initializers shared": 1}
    assert isinstance(model.graph.initializers["v"].const_value, ir.ExternalTensor)


def test_weights_in_one_place_are_equal_without_reading(counts):
    model = tied((64, 48), ASCENDING.reshape(64, 48))
    for name in ("v", "w"):
        model.graph.initializers[name].const_value = ir.ExternalTensor(
            "nowhere", 0, 64 * 48 * 4, ir.DataType.FLOAT, shape=ir.Shape([64, 48]), name=name
        )
    (stats,) = run_passes(model, (Share(),))
    assert counts(stats) == {"initializers shared": 1}


def test_weights_that_differ_early_are_not_read_to_the_end(tmp_path, monkeypatch):
    read: list[str | None] = []
    monkeypatch.setattr(
        "leptonc.passes.share.share.digest", lambda tensor: read.append(tensor.name)
    )
    model = tied((64, 48), ASCENDING.reshape(64, 48))
    for name, number in (("v", 1), ("w", 2)):
        array = np.full((64, 48), number, np.float32)
        model.graph.initializers[name].const_value = external(tmp_path, name, array)
        assert head(external(tmp_path, name, array)) == array.reshape(-1)[:64].tobytes()
    run_passes(model, (Share(),))
    assert read == []


def test_a_missing_file_is_named(tmp_path):
    model = tied((64, 48), ASCENDING.reshape(64, 48))
    for name, offset in (("v", 0), ("w", 64 * 48 * 4)):
        model.graph.initializers[name].const_value = ir.ExternalTensor(
            "gone",
            offset,
            64 * 48 * 4,
            ir.DataType.FLOAT,
            shape=ir.Shape([64, 48]),
            name=name,
            base_dir=tmp_path,
        )
    with pytest.raises(ModelError, match="the data of tensor 'v' cannot be read") as caught:
        run_passes(model, (Share(),))
    assert caught.value.where == str(tmp_path / "gone")


def test_a_digest_needs_little_memory(tmp_path):
    array = np.arange(1 << 24, dtype=np.float32)
    tensor = external(tmp_path, "w", array)
    expected = hashlib.sha256(array.data).digest()
    del array
    tracemalloc.start()
    try:
        assert digest(tensor) == expected
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_digests_of_transposes(tmp_path):
    array = np.random.default_rng(0).normal(size=(700, 900)).astype(np.float32)
    original, transposed = ir.tensor(array), ir.tensor(array.T.copy())
    assert digest_transposed(original) == digest(transposed)
    assert digest_transposed(transposed) == digest(original)
    assert digest(original) == digest(external(tmp_path, "w", array))


@pytest.mark.parametrize("shape", [(), (0, 3), (1,)])
def test_small_tensors_have_digests(shape):
    array = np.ones(shape, np.float32)
    assert digest(ir.tensor(array)) == hashlib.sha256(array.tobytes()).digest()
