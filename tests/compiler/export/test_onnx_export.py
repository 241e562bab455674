from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from leptonc.compiler.errors import (
    BakedDimensionError,
    ExportError,
    ExportUnsupportedError,
    RecipeError,
)
from leptonc.compiler.export.onnx_export import export
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.sources.dimensions import DynamicDim
from leptonc.compiler.sources.source import Source
from leptonc.compiler.sources.torch_reference import TorchReference
from leptonc.compiler.sources.user_code import line_of_trace
from leptonc.compiler.verification.comparison import compare_outputs
from leptonc.compiler.verification.shape_probe import probe_dimensions
from leptonc.compiler.verification.trials import reference_trials
from leptonc.passes.pipeline import LINE_KEY

BATCH = DynamicDim("batch", 1, 8)
LENGTH = DynamicDim("length", 1, None)


def source_of(forward, inputs, axes=None, *, weights=None):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embedding = torch.nn.Embedding(10, 4)
            self.linear = torch.nn.Linear(4, 4)

    Net.forward = forward
    module = Net().eval()
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    return Source(
        kind="recipe",
        name="net",
        inputs=arrays,
        axes=axes or {},
        reference=TorchReference(module),
        fingerprint="0",
        program=module,
    )


def exported(source):
    return export(source, list(reference_trials(source)[0].expected))


def assert_equal_everywhere(source, model):
    runner = GraphRunner(model)
    for trial in reference_trials(source):
        for error in compare_outputs(trial.expected, runner(trial.inputs), Tolerance()):
            assert error.problem is None, (trial.sizes, error)


def test_names_and_dimensions_are_the_users(tmp_path):
    def forward(self, mask, ids):
        x = self.embedding(ids) * mask[..., None]
        return {"embedding": self.linear(x), "pooled": (x.sum(1),), "gone": None}

    ids = np.arange(6).reshape(1, 6)
    axes = {name: {0: BATCH, 1: LENGTH} for name in ("ids", "mask")}
    source = source_of(forward, {"mask": np.ones((1, 6), np.float32), "ids": ids}, axes)
    result = exported(source)
    graph = result.model.graph
    assert [value.name for value in graph.inputs] == ["mask", "ids"]
    assert [value.name for value in graph.outputs] == ["embedding", "pooled.0"]
    assert [str(size) for size in graph.inputs[1].shape] == ["batch", "length"]
    assert str(graph.outputs[0].shape[0]) == "batch"
    assert not any(value.name == "embedding" for node in graph for value in node.outputs[1:])
    assert_equal_everywhere(source, result.model)


def test_an_input_that_is_an_output_and_an_output_given_twice():
    def forward(self, x):
        y = self.linear(x)
        return {"x_again": x, "y": y, "y_again": y, "x_third": x}

    source = source_of(forward, {"x": np.ones((2, 4), np.float32)}, {"x": {0: BATCH}})
    model = exported(source).model
    names = [value.name for value in model.graph.outputs]
    assert names == ["x_again", "y", "y_again", "x_third"]
    assert len({id(value) for value in (*model.graph.inputs, *model.graph.outputs)}) == 5
    assert_equal_everywhere(source, model)


def test_swapped_names_of_outputs_do_not_collide():
    def forward(self, x):
        return {"add": x * 2, "mul": x + 2}

    source = source_of(forward, {"x": np.ones((2, 4), np.float32)})
    model = exported(source).model
    assert [value.name for value in model.graph.outputs] == ["add", "mul"]
    assert_equal_everywhere(source, model)


def test_a_name_that_is_a_weight_elsewhere():
    def forward(self, x):
        return {"linear.weight": self.linear(x), "linear.bias": x + self.linear.bias}

    source = source_of(forward, {"x": np.ones((2, 4), np.float32)})
    model = exported(source).model
    assert [value.name for value in model.graph.outputs] == ["linear.weight", "linear.bias"]
    assert_equal_everywhere(source, model)


def test_each_node_knows_the_users_line_and_nothing_else():
    def forward(self, x):
        return torch.relu(x) + 1

    model = exported(source_of(forward, {"x": np.ones((2, 4), np.float32)})).model
    for node in model.graph:
        assert node.metadata_props.keys() == {LINE_KEY}
        assert "test_onnx_export.py" in node.metadata_props[LINE_KEY]
    assert "/" not in str(ir.to_proto(model).metadata_props)


def refused_control_flow(self, x):
    if x.sum() > 0:
        return x
    return -x


def refused_loop(self, x):
    for _ in range(int(x.max().item())):
        x = x + 1
    return x


@pytest.mark.parametrize("forward", [refused_control_flow, refused_loop])
def test_a_module_that_cannot_be_traced_names_the_line(forward):
    source = source_of(forward, {"x": np.ones((2, 4), np.float32)})
    with pytest.raises(ExportError) as caught:
        exported(source)
    assert caught.value.exit_code == 3
    assert "test_onnx_export.py" in (caught.value.where or "")
    assert forward.__name__ in (caught.value.where or "")


def test_a_size_that_the_module_fixes_is_named_with_its_line():
    def forward(self, x):
        y = x + 1
        return y.reshape(2, -1)

    source = source_of(forward, {"x": np.ones((2, 4), np.float32)}, {"x": {0: BATCH}})
    with pytest.raises(BakedDimensionError, match="'batch'.*fixes it to 2") as caught:
        export(source, ["output"])
    assert "return y.reshape(2, -1)" in (caught.value.where or "")


def test_an_operator_without_an_onnx_form_is_named_with_its_line():
    def forward(self, x):
        return torch.linalg.qr(x)[0]

    source = source_of(forward, {"x": np.eye(4, dtype=np.float32)})
    with pytest.raises(ExportUnsupportedError, match="linalg_qr") as caught:
        exported(source)
    assert caught.value.exit_code == 4
    assert "torch.linalg.qr(x)" in (caught.value.where or "")


def test_an_output_that_is_no_tensor_is_refused():
    def forward(self, x):
        return {"x": x, "count": 3}

    with pytest.raises(ExportError, match="'count' is a int, not a tensor"):
        reference_trials(source_of(forward, {"x": np.ones((2, 4), np.float32)}))


BAKED = """<ir_version: 9, opset_import: ["" : 20]>
g (float[batch, length] x) => (float[batch, length] output) {{
    shape = Constant <value = int64[2] {{{shape}}}> ()
    ones = ConstantOfShape <value = float[1] {{1.0}}> (shape)
    product = Mul (x, ones)
    output = Add (product, x)
}}"""


@pytest.mark.parametrize(
    ("shape", "named"), [("2, 1", "'batch'"), ("1, 3", "'length'"), ("2, 3", "'batch'")]
)
def test_a_baked_dimension_is_found_by_running_other_shapes(shape, named):
    def forward(self, x):
        return x + x

    axes = {"x": {0: BATCH, 1: LENGTH}}
    source = source_of(forward, {"x": np.ones((2, 3), np.float32)}, axes)
    graph = ir.from_onnx_text(BAKED.format(shape=shape))
    with pytest.raises(BakedDimensionError, match=f"fixed dimension {named}"):
        probe_dimensions(graph, source, reference_trials(source), Tolerance())


def test_a_dynamic_graph_passes_the_probe():
    def forward(self, x):
        return x + x

    axes = {"x": {0: BATCH, 1: LENGTH}}
    source = source_of(forward, {"x": np.ones((2, 3), np.float32)}, axes)
    graph = ir.from_onnx_text(BAKED.format(shape="1, 1"))
    assert probe_dimensions(graph, source, reference_trials(source), Tolerance()) is None


def test_the_users_line_is_preferred_to_a_librarys(tmp_path):
    trace = (
        f'File "{tmp_path}/net.py", line 3, in forward\n    return self.linear(x)\n'
        'File "/x/site-packages/torch/nn/modules/linear.py", line 134, in forward\n    return F'
    )
    assert (
        line_of_trace(trace, tmp_path) == f"{tmp_path}/net.py:3 in forward(): return self.linear(x)"
    )


def test_a_module_that_remembers_is_told_from_a_baked_dimension():
    def forward(self, x):
        self.linear.bias.add_(1)
        return self.linear(x)

    source = source_of(forward, {"x": np.ones((2, 4), np.float32)}, {"x": {0: BATCH}})
    graph = ir.from_onnx_text(BAKED.format(shape="1, 1"))
    with pytest.raises(ExportError, match="does not answer the same twice"):
        probe_dimensions(graph, source, reference_trials(source), Tolerance())


def test_a_graph_that_is_wrong_at_the_example_is_not_called_baked():
    def forward(self, x):
        return x * 3

    source = source_of(forward, {"x": np.ones((2, 3), np.float32)}, {"x": {0: BATCH}})
    graph = ir.from_onnx_text(BAKED.format(shape="1, 1"))
    with pytest.raises(ExportError, match="does not compute what the module does"):
        probe_dimensions(graph, source, reference_trials(source), Tolerance())


def restricted_by_flow(self, x):
    if x.shape[0] > 3:
        return x * 2
    return x


def restricted_by_slice(self, x):
    return x[:-1]


@pytest.mark.parametrize(
    ("forward", "rows", "wanted"),
    [
        (restricted_by_flow, 2, "max=3"),
        (restricted_by_slice, 4, "batch) != 1"),
        (restricted_by_slice, 2, "fixes it to 2"),
    ],
)
def test_a_restriction_names_its_line_and_what_would_do(forward, rows, wanted):
    source = source_of(forward, {"x": np.ones((rows, 4), np.float32)}, {"x": {0: BATCH}})
    with pytest.raises(BakedDimensionError) as caught:
        export(source, ["output"])
    assert wanted in caught.value.what
    assert forward.__name__ in (caught.value.where or "")


@pytest.mark.parametrize(
    ("forward", "output", "message"),
    [
        (lambda self, x: x + 1, "x", "both named 'x'"),
        (lambda self, **named: named["x"] + 1, "y", "no parameter named 'x'"),
    ],
)
def test_names_that_the_graph_cannot_carry_are_refused(forward, output, message):
    source = source_of(forward, {"x": np.ones((2, 4), np.float32)})
    with pytest.raises(ExportError, match=message):
        export(source, [output])


def test_sys_exit_in_forward_is_the_modules_failure():
    def forward(self, x):
        raise SystemExit(0)

    with pytest.raises(RecipeError, match="SystemExit"):
        reference_trials(source_of(forward, {"x": np.ones((2, 4), np.float32)}))
