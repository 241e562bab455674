from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from leptonc.compiler.export.onnx_export import export
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.sources.source import Source
from leptonc.compiler.sources.torch_reference import TorchReference
from leptonc.compiler.verification.first_difference import (
    EXPORTER,
    blame,
    first_difference,
    graph_values,
    module_values,
)
from leptonc.passes.pipeline import PASS_KEY

LENGTH = 12


def chain(wrong: int | None = None) -> ir.Model:
    """Return v0 = x + 1, v1 = v0 + 1, ...; the wrong node adds 2."""
    body = []
    for index in range(LENGTH):
        source = "x" if index == 0 else f"v{index - 1}"
        body.append(f"v{index} = Add ({source}, {'two' if index == wrong else 'one'})")
    text = (
        '<ir_version: 9, opset_import: ["" : 20]>\n'
        f"g (float[n] x) => (float[n] v{LENGTH - 1})\n"
        "<float[1] one = {1.0}, float[1] two = {2.0}> {" + "\n".join(body) + "}"
    )
    return ir.from_onnx_text(text)


INPUTS = {"x": np.arange(4, dtype=np.float32)}


@pytest.mark.parametrize("wrong", range(LENGTH))
def test_the_first_wrong_node_is_found_wherever_it_is(wrong):
    candidate = chain(wrong)
    found = first_difference(candidate, graph_values(chain(), INPUTS), INPUTS, Tolerance())
    assert found is not None
    assert found[0].outputs[0].name == f"v{wrong}"
    assert [value.name for value in candidate.graph.outputs] == [f"v{LENGTH - 1}"]


def test_equal_graphs_have_none():
    assert first_difference(chain(), graph_values(chain(), INPUTS), INPUTS, Tolerance()) is None


def test_blame_names_the_node_its_inputs_and_the_pass():
    candidate = chain(3)
    candidate.graph[3].metadata_props[PASS_KEY] = "fold"
    found = first_difference(candidate, graph_values(chain(), INPUTS), INPUTS, Tolerance())
    assert found is not None
    text = str(blame(found, candidate))
    assert "Add node" in text and "(v2, two) -> v3" in text
    assert "last changed by fold" in text
    assert blame(found, chain(3)).culprit == EXPORTER


def test_a_difference_in_an_engines_graph_is_not_blamed_on_a_pass():
    candidate = chain(3)
    found = first_difference(candidate, graph_values(chain(), INPUTS), INPUTS, Tolerance())
    assert found is not None
    assert "the build for ort-cpu" in blame(found, chain(), engine="ort-cpu").culprit


def test_values_of_a_pytorch_program_carry_the_names_of_the_graph():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear = torch.nn.Linear(4, 4)
            self.register_buffer("offset", torch.arange(4.0))

        def forward(self, x):
            relu = torch.relu(self.linear(x) + self.offset)
            return {"relu": torch.sigmoid(relu), "z": relu * 3}

    module = Net().eval()
    inputs = {"x": np.ones((2, 4), np.float32)}
    source = Source("recipe", "net", inputs, {}, TorchReference(module), "0", program=module)
    exported = export(source, ["relu", "z"])
    values = module_values(exported, inputs)
    assert first_difference(exported.model, values, inputs, Tolerance()) is None
    sigmoid = next(node for node in exported.model.graph if node.op_type == "Sigmoid")
    sigmoid.op_type = "Tanh"
    sigmoid.metadata_props[PASS_KEY] = "clean"
    found = first_difference(exported.model, values, inputs, Tolerance())
    assert found is not None and found[0] is sigmoid
    difference = blame(found, exported.model)
    assert difference.culprit == "clean"
    assert "torch.sigmoid(relu)" in (difference.line or "")
