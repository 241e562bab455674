"""Stores equal weights once, across the graph and its subgraphs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.graph.content import digest, head, made_from, place
from leptonc.passes.graph.names import Names, separate_scopes
from leptonc.passes.graph.structure import annotated_names, annotation, count_nodes, graphs, roots
from leptonc.passes.pipeline import Context
from leptonc.passes.share.ties import tie_weights

_Mark = TypeVar("_Mark", bound=Hashable)
_Group = list[ir.Value]


@dataclass(frozen=True)
class Share:
    """Let equal initializers be one.

    Equal means: the same element type, shape and bytes. The first in graph order stays; a copy
    in a subgraph gives way to one in a graph around it, and copies in sibling subgraphs to a new
    one in the main graph. Initializers that are inputs, outputs, or named by a quantisation
    annotation keep their own.

    Attributes:
        ties: Also store a weight once that is another's transpose, or the same bytes in another
            shape, and compute it where it is read. Off for engines that would spend time on it.
    """

    name: ClassVar[str] = "share"
    ties: bool = False

    def run(self, model: ir.Model, _: Context = Context()) -> PassStats:
        """Rewire the readers of every copy to the first."""
        before = count_nodes(model)
        counts: Counter[str] = Counter()
        if roots(model)[0].initializers:
            counts["scopes separated"] = separate_scopes(model)
            names = Names(model)
            for group in _equal_groups(_candidates(model)):
                counts["initializers shared"] += _unite(model.graph, group, names)
            if self.ties:
                counts["ties"] = tie_weights(model, _candidates(model), names)
        return PassStats(
            name=self.name,
            counts=tuple(sorted((+counts).items())),
            nodes_before=before,
            nodes_after=count_nodes(model),
        )


def _candidates(model: ir.Model) -> list[ir.Value]:
    pinned = annotated_names(model)
    return [
        value
        for graph in graphs(model.graph)
        for value in graph.initializers.values()
        if value.const_value is not None
        and not value.is_graph_input()
        and not annotation(value)
        and value.name not in pinned
    ]


def _equal_groups(values: list[ir.Value]) -> list[_Group]:
    """Return the groups of two and more equal initializers, each in graph order.

    Looks at ever more of the bytes, and only where everything before was equal.
    """
    groups = _split([values], lambda value: _kind(_tensor(value)))
    # Computing a weight to compare it takes long: one that is made of others is taken to differ.
    groups = _split(groups, lambda value: made_from(_tensor(value)))
    found: list[_Group] = []
    for group in groups:
        places = {place(_tensor(value)) for value in group}
        if len(places) == 1 and None not in places:
            found.append(group)
            continue
        same_head = _split([group], lambda value: head(_tensor(value)))
        found.extend(_split(same_head, lambda value: digest(_tensor(value))))
    return found


def _kind(tensor: ir.TensorProtocol) -> tuple[ir.DataType, Sequence[int]]:
    return tensor.dtype, tensor.shape.numpy()


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None
    return value.const_value


def _split(groups: list[_Group], mark: Callable[[ir.Value], _Mark]) -> list[_Group]:
    """Split each group by `mark` and drop what is then alone."""
    result: list[_Group] = []
    for group in groups:
        parts: defaultdict[_Mark, _Group] = defaultdict(list)
        for value in group:
            parts[mark(value)].append(value)
        result.extend(part for part in parts.values() if len(part) > 1)
    return result


def _unite(main: ir.Graph, group: _Group, names: Names) -> int:
    """Rewire the readers of a group to one of it; return how many initializers went."""
    movable = [value for value in group if not value.is_graph_output()]
    keeper = next((value for value in group if value.graph is main), None)
    if keeper is None:
        if len(movable) < 2:
            return 0
        first = movable[0]
        keeper = ir.Value(
            name=names.fresh(first.name or "weight"),
            type=first.type,
            shape=first.shape,
            doc_string=first.doc_string,
            const_value=first.const_value,
        )
        main.register_initializer(keeper)
    gone = 0
    for value in movable:
        if value is keeper or value.graph is None:
            continue
        value.replace_all_uses_with(keeper)
        del value.graph.initializers[value.name or ""]
        gone += 1
    return gone
