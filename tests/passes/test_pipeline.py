from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from leptonc.passes.base import PassStats
from leptonc.passes.errors import ModelError, PassError, PassRefusedError
from leptonc.passes.graph.validity import find_problem
from leptonc.passes.pipeline import STAMP, Context, run_passes

GRAPH = """
agraph (float[2] x, bool c) => (float[2] y, float[2] z) <float[2] w = {1, 2}> {
  a = Neg(x)
  y = If(c) <
    then_branch = then () => (float[2] t) { t = Add(a, w) },
    else_branch = otherwise () => (float[2] e) { e = Abs(a) }>
  z = Mul(a, w)
}
"""


@dataclass(frozen=True)
class Edit:
    """A pass that does what a test tells it to."""

    edit: Callable[[ir.Model], object]
    refusal: str | None = None
    name: ClassVar[str] = "edit"

    def requires(self, model: ir.Model) -> str | None:
        return self.refusal

    def run(self, model: ir.Model, context: Context) -> PassStats:
        self.edit(model)
        return PassStats(self.name, (("edits", 1),), 5, 5)


def node(model: ir.Model, op_type: str) -> ir.Node:
    return next(found for found in model.graph.all_nodes() if found.op_type == op_type)


def test_valid_model_passes_every_check(parse):
    model = parse(GRAPH)
    assert find_problem(model) is None
    assert [stats.name for stats in run_passes(model, (Edit(lambda m: None),))] == ["edit"]


def read_a_stranger(model: ir.Model) -> None:
    node(model, "Mul").replace_input_with(0, ir.Value(name="stranger"))


def remove_a_producer(model: ir.Model) -> None:
    model.graph.remove(node(model, "Neg"))


def move_to_the_front(model: ir.Model) -> None:
    mul = node(model, "Mul")
    model.graph.remove(mul)
    model.graph.insert_before(model.graph[0], mul)


def move_the_subgraph_before_its_capture(model: ir.Model) -> None:
    branch = node(model, "If")
    model.graph.remove(branch)
    model.graph.insert_before(model.graph[0], branch)


def reuse_a_name(model: ir.Model) -> None:
    model.graph.append(ir.Node("", "Neg", [model.graph.inputs[0]], outputs=[ir.Value(name="a")]))


def reuse_an_outer_name_inside(model: ir.Model) -> None:
    node(model, "Abs").outputs[0].name = "a"


def reuse_an_initializer_name(model: ir.Model) -> None:
    node(model, "Neg").outputs[0].name = "w"


def read_from_the_other_branch(model: ir.Model) -> None:
    node(model, "Abs").replace_input_with(0, node(model, "Add").outputs[0])


def lose_the_data(model: ir.Model) -> None:
    model.graph.initializers["w"].const_value = None


def use_an_unknown_domain(model: ir.Model) -> None:
    node(model, "Mul").domain = "nobody.imports"


def rename_an_output(model: ir.Model) -> None:
    model.graph.outputs[0].name = "renamed"


def retype_an_output(model: ir.Model) -> None:
    model.graph.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)


def reshape_an_input(model: ir.Model) -> None:
    model.graph.inputs[0].shape = ir.Shape(["n"])


def swap_the_outputs(model: ir.Model) -> None:
    first, second = model.graph.outputs
    model.graph.outputs.clear()
    model.graph.outputs.extend([second, first])


def give_a_default(model: ir.Model) -> None:
    value = model.graph.inputs[0]
    value.const_value = ir.tensor(np.zeros(2, np.float32))
    model.graph.register_initializer(value)


BREAKS = [
    (read_a_stranger, "'stranger' is read and nothing defines it"),
    (remove_a_producer, "'a' is read and nothing defines it"),
    (move_to_the_front, "'a' is read where it is not yet defined or out of scope"),
    (move_the_subgraph_before_its_capture, "'a' is read where it is not yet defined"),
    (reuse_a_name, "'a' is defined twice"),
    (reuse_an_outer_name_inside, "'a' is defined twice"),
    (reuse_an_initializer_name, "'w' is defined twice"),
    (read_from_the_other_branch, "'t' is read where it is not yet defined or out of scope"),
    (lose_the_data, "initializer 'w' has no data"),
    (use_an_unknown_domain, "no opset version is imported for domain 'nobody.imports'"),
]

CHANGES_OF_INTERFACE = [
    (rename_an_output, "outputs"),
    (retype_an_output, "outputs"),
    (swap_the_outputs, "outputs"),
    (reshape_an_input, "inputs"),
    (give_a_default, "inputs"),
]


@pytest.mark.parametrize(("damage", "what"), BREAKS)
def test_a_pass_that_breaks_the_graph_is_named(parse, damage, what):
    with pytest.raises(PassError) as caught:
        run_passes(parse(GRAPH), (Edit(damage),))
    assert what in caught.value.what
    assert caught.value.what.startswith("pass 'edit' left an invalid graph")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(("damage", "what"), BREAKS)
def test_an_invalid_model_is_refused_at_the_door(parse, damage, what):
    model = parse(GRAPH)
    damage(model)
    with pytest.raises(ModelError) as caught:
        run_passes(model, ())
    assert what in caught.value.what
    assert caught.value.where
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("damage", "side"), CHANGES_OF_INTERFACE)
def test_a_pass_that_changes_the_interface_is_named(parse, damage, side):
    with pytest.raises(PassError, match=f"pass 'edit' changed the {side} of the graph"):
        run_passes(parse(GRAPH), (Edit(damage),))


def test_the_error_names_node_and_value(parse):
    model = parse(GRAPH)
    node(model, "Mul").name = "scale"
    with pytest.raises(PassError) as caught:
        run_passes(model, (Edit(read_a_stranger),))
    assert caught.value.where == "the graph, node 'scale' (Mul), value 'stranger'"


def test_an_output_from_outside_its_subgraph_is_invalid(parse):
    model = parse(GRAPH)
    branch = node(model, "If").attributes["then_branch"].as_graph()
    branch.outputs[0] = ir.Value(name="elsewhere")
    with pytest.raises(ModelError, match="output 'elsewhere' is not computed in its graph"):
        run_passes(model, ())


def test_two_branches_may_use_the_same_names(parse):
    model = parse(GRAPH)
    node(model, "Abs").outputs[0].name = "t"
    assert find_problem(model) is None


def test_a_name_may_return_after_the_subgraph_that_used_it(parse):
    model = parse(
        """
        agraph (float[2] x, bool c) => (float[2] y) {
          z = If(c) <
            then_branch = then () => (float[2] o) { t = Abs(x)  o = Neg(t) },
            else_branch = otherwise () => (float[2] p) { p = Abs(x) }>
          t = Neg(x)
          y = Add(z, t)
        }
        """
    )
    assert find_problem(model) is None


def test_functions_are_checked_with_their_own_imports(parse):
    model = parse(
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        agraph (float[2] x) => (float[2] y) { y = local.twice(x) }
        <domain: "local", opset_import: ["" : 20]>
        twice (a) => (b) { b = Add(a, a) }
        """
    )
    assert find_problem(model) is None
    function = next(iter(model.functions.values()))
    function.graph[0].domain = "elsewhere"
    problem = find_problem(model)
    assert problem is not None
    assert problem.what == "no opset version is imported for domain 'elsewhere'"


def test_a_pass_that_cannot_run_says_why(parse):
    with pytest.raises(PassRefusedError, match="pass 'edit' cannot run on this model: too big"):
        run_passes(parse(GRAPH), (Edit(lambda m: None, refusal="too big"),))


def test_nodes_that_changed_carry_the_name_of_the_pass(parse):
    model = parse(GRAPH)
    untouched = node(model, "Neg")

    def edit(changing: ir.Model) -> None:
        node(changing, "Mul").replace_input_with(0, changing.graph.inputs[0])
        node(changing, "Abs").attributes["note"] = ir.AttrString("note", "")
        new = ir.Node("", "Relu", [changing.graph.inputs[0]], outputs=[ir.Value(name="new")])
        changing.graph.append(new)

    run_passes(model, (Edit(edit),))
    stamps = {found.op_type: found.metadata_props.get(STAMP) for found in model.graph.all_nodes()}
    assert stamps == {
        "Neg": None,
        "If": None,
        "Add": None,
        "Abs": "edit",
        "Mul": "edit",
        "Relu": "edit",
    }
    assert untouched.metadata_props == {}
