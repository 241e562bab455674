"""Names of values, and the scopes in which they hold.

ONNX gives names to values and scopes to names: a subgraph (the body of If, Loop, Scan) sees the
values of the graphs around it. The IR links objects, so a rewrite works on objects, and the
names only have to be right when the graph is written down.
"""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.graph.structure import graphs, roots, subgraphs, values_of


class Names:
    """The names taken in a model, to give out new ones that are free everywhere."""

    def __init__(self, model: ir.Model) -> None:
        """Take the model whose names are collected when the first new one is asked for."""
        self._model = model
        self._taken: set[str | None] | None = None

    def fresh(self, stem: str) -> str:
        """Return `stem`, or `stem` with the first number that makes it unique."""
        if self._taken is None:
            self._taken = {
                value.name
                for root in roots(self._model)
                for graph in graphs(root.graph)
                for value in values_of(graph)
            }
        name, number = stem, 0
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name


def separate_scopes(model: ir.Model) -> int:
    """Rename each value inside a subgraph whose name a surrounding graph uses as well.

    ONNX allows `t` in a branch and another `t` after the If. A rewrite that moves either of
    them would then change what the name means.

    Returns:
        How many values got a new name.
    """
    names: Names | None = None
    renamed = 0
    for root in roots(model):
        pending: list[tuple[ir.Graph, frozenset[str]]] = [(root.graph, frozenset())]
        while pending:
            graph, outer = pending.pop()
            children = [inner for node in graph for inner in subgraphs(node)]
            if not children and not outer:
                continue
            for value in list(values_of(graph)):
                if value.name in outer:
                    names = names or Names(model)
                    value.name = names.fresh(f"{value.name}_inner")
                    renamed += 1
            if children:
                visible = outer | {value.name or "" for value in values_of(graph)}
                pending.extend((inner, visible) for inner in reversed(children))
    return renamed
