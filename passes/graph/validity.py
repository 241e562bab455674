"""What a valid graph is, checked in time linear in its size.

The rules are those of ONNX's IR specification: names are single static assignments, a value is
defined before it is read, a subgraph sees the values before its node in the graphs around it,
outputs belong to the graph that returns them, and each domain used has an opset version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.graph.structure import subgraphs

# Before this IR version a model need not import the standard operators: they are version 1.
_FIRST_WITH_OPSETS = 3


@dataclass(frozen=True)
class Problem:
    """The first thing wrong with a graph.

    Attributes:
        what: One sentence.
        where: The node and the value concerned.
    """

    what: str
    where: str


@dataclass(frozen=True)
class Interface:
    """What the users of a graph rely on.

    Attributes:
        inputs: Name, type, shape, and whether it has a default value; in order.
        outputs: The same.
    """

    inputs: tuple[tuple[str, str, str, bool], ...]
    outputs: tuple[tuple[str, str, str, bool], ...]

    @classmethod
    def of(cls, graph: ir.Graph) -> Interface:
        """Read the interface of `graph`."""
        return cls(tuple(map(_declaration, graph.inputs)), tuple(map(_declaration, graph.outputs)))


def _declaration(value: ir.Value) -> tuple[str, str, str, bool]:
    shape = "unknown" if value.shape is None else str(list(map(str, value.shape)))
    default = value.is_graph_input() and value.is_initializer()
    return value.name or "", str(value.type), shape, default


def find_problem(model: ir.Model) -> Problem | None:
    """Return the first thing that makes `model` invalid, or None."""
    imports = _domains(model.graph.opset_imports)
    if model.ir_version < _FIRST_WITH_OPSETS:
        imports |= {""}
    problem = _check_graph(model.graph, {}, imports, "the graph")
    if problem is not None:
        return problem
    for function in model.functions.values():
        where = f"function {function.domain}.{function.name}"
        inside = _domains(function.opset_imports) or imports
        problem = _check_graph(function.graph, {}, inside, where)
        if problem is not None:
            return problem
    return None


def _domains(imports: dict[str, int]) -> frozenset[str]:
    return frozenset("" if domain == "ai.onnx" else domain for domain in imports)


def _check_graph(
    graph: ir.Graph, outer: dict[str, ir.Value], imports: frozenset[str], where: str
) -> Problem | None:
    """Check one graph; `outer` maps the names it can see to their values and is left unchanged."""
    local: dict[str, ir.Value] = {}
    shadowed: dict[str, ir.Value] = {}

    def define(value: ir.Value) -> None:
        name = value.name or ""
        if name in outer and name not in local:
            shadowed[name] = outer[name]
        local[name] = outer[name] = value

    try:
        problem = _define_sources(graph, local, define, where)
        if problem is not None:
            return problem
        for node in graph:
            problem = (
                _check_inputs(node, outer, where)
                or _check_domain(node, imports)
                or _check_bodies(node, outer, imports)
            )
            if problem is not None:
                return problem
            for output in node.outputs:
                if not output.name:
                    continue
                if output.name in outer:
                    return _twice(output.name, _place(node, where))
                define(output)
        return _check_outputs(graph, local, where)
    finally:
        for name in local:
            del outer[name]
        outer.update(shadowed)


def _define_sources(
    graph: ir.Graph,
    local: dict[str, ir.Value],
    define: Callable[[ir.Value], None],
    where: str,
) -> Problem | None:
    for value in graph.inputs:
        if not value.name:
            return Problem("an input has no name", where)
        if value.name in local:
            return _twice(value.name, where)
        define(value)
    for name, value in graph.initializers.items():
        if name != value.name:
            return Problem(
                f"initializer {value.name!r} is registered as {name!r}", f"{where}, value {name!r}"
            )
        if value.const_value is None:
            return Problem(f"initializer {name!r} has no data", f"{where}, value {name!r}")
        if value.is_graph_input():
            continue
        if name in local:
            return _twice(name, where)
        define(value)
    return None


def _check_inputs(node: ir.Node, visible: dict[str, ir.Value], where: str) -> Problem | None:
    for value in node.inputs:
        if value is None or visible.get(value.name or "") is value:
            continue
        place = f"{_place(node, where)}, value {value.name!r}"
        producer = value.producer()
        if producer is not None and producer.graph is not None:
            return Problem(
                f"{value.name!r} is read where it is not yet defined or out of scope", place
            )
        return Problem(f"{value.name!r} is read and nothing defines it", place)
    return None


def _check_domain(node: ir.Node, imports: frozenset[str]) -> Problem | None:
    if node.domain in imports:
        return None
    return Problem(
        f"no opset version is imported for domain {node.domain or 'ai.onnx'!r}",
        f"node {node.name!r} ({node.op_type})",
    )


def _check_bodies(
    node: ir.Node, visible: dict[str, ir.Value], imports: frozenset[str]
) -> Problem | None:
    for body in subgraphs(node):
        problem = _check_graph(body, visible, imports, f"the body of {node.name!r}")
        if problem is not None:
            return problem
    return None


def _check_outputs(graph: ir.Graph, local: dict[str, ir.Value], where: str) -> Problem | None:
    for value in graph.outputs:
        if local.get(value.name or "") is not value:
            return Problem(
                f"output {value.name!r} is not computed in its graph",
                f"{where}, value {value.name!r}",
            )
    return None


def _twice(name: str, where: str) -> Problem:
    return Problem(f"{name!r} is defined twice", f"{where}, value {name!r}")


def _place(node: ir.Node, where: str) -> str:
    return f"{where}, node {node.name!r} ({node.op_type})"
