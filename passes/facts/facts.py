"""What is known of each value before the model runs: its element type and its dimensions.

The shapes that a model file declares for its inner values are remarks: engines recompute them,
and models whose inputs were edited by hand carry stale ones. Facts are therefore inferred by
ONNX's own shape inference from what is enforced: the inputs of the graph and its constants.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from leptonc.passes.facts.onnx_inference import Dims, infer_types
from leptonc.passes.facts.sizes import Size
from leptonc.passes.facts.symbolic import infer_symbolic
from leptonc.passes.facts.symbolic_view import Symbolic
from leptonc.passes.graph.constants import constant
from leptonc.passes.graph.structure import Root, graphs, roots


class Facts:
    """Element types and dimensions; a dimension that is not known is None."""

    def __init__(self, *, declared: bool = True) -> None:
        """Know nothing yet.

        Args:
            declared: Believe the declared element type of a value of which nothing else is
                known. Not in functions, which each call may give other types.
        """
        self._declared = declared
        self._symbols = Symbolic()
        self._dims: dict[ir.Value, Dims] = {}
        self._dtypes: dict[ir.Value, ir.DataType] = {}

    def learn(self, dtypes: Mapping[ir.Value, ir.DataType], dims: Mapping[ir.Value, Dims]) -> None:
        """Record element types and dimensions."""
        self._dtypes.update(dtypes)
        self._dims.update(dims)

    def carry(self, old: ir.Value, new: ir.Value) -> None:
        """Record that `new` holds what `old` held."""
        if old in self._dims:
            self._dims.setdefault(new, self._dims[old])
        if old in self._dtypes:
            self._dtypes.setdefault(new, self._dtypes[old])
        for known in (self._symbols.sizes, self._symbols.contents):
            if old in known:
                known.setdefault(new, known[old])

    def cover(self, model: ir.Model) -> bool:
        """Whether types and sizes are known of all that the nodes of `model` compute."""
        return all(
            not output.name or (output in self._dims and output in self._dtypes)
            for graph in graphs(model.graph)
            for node in graph
            for output in node.outputs
        )

    def dims(self, value: ir.Value | None) -> Dims | None:
        """Return the dimensions of `value`, or None when even its rank is not known."""
        if value is None:
            return None
        tensor = constant(value)
        if tensor is not None:
            return tuple(int(size) for size in tensor.shape.numpy())
        return self._dims.get(value)

    def static(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Return the dimensions of `value` when all are known."""
        dims = self.dims(value)
        if dims is None or any(size is None for size in dims):
            return None
        return tuple(size for size in dims if size is not None)

    def rank(self, value: ir.Value | None) -> int | None:
        """Return the number of dimensions of `value`, if known."""
        dims = self.dims(value)
        return None if dims is None else len(dims)

    def follow(self, model: ir.Model, root: Root) -> None:
        """Follow the sizes in one graph of `model` by name, from what is known as numbers."""
        self._symbols = infer_symbolic(model, root, self.dims)
        for value, sizes in self._symbols.sizes.items():
            self._dims.setdefault(value, tuple(size.number for size in sizes))

    def symbolic(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """Return the dimensions of `value` by name, or None when its rank is not known.

        Two that are equal are equal in every run.
        """
        return self._symbols.dims(value)

    def content(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """Return the elements of an INT64 vector or scalar that follow from sizes, or None."""
        return self._symbols.content(value)

    def ints(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Return what `content` does when all elements are the same in every run."""
        return self._symbols.ints(value)

    def dtype(self, value: ir.Value | None) -> ir.DataType | None:
        """Return the element type of a tensor; None for sequences, optionals and unknowns."""
        if value is None:
            return None
        tensor = constant(value)
        if tensor is not None:
            return tensor.dtype
        if value in self._dtypes:
            return self._dtypes[value]
        declared = self._declared and isinstance(value.type, ir.TensorType)
        return value.dtype if declared else None


def infer_facts(model: ir.Model) -> Facts:
    """Infer the facts of the main graph and its subgraphs; `model` is left unchanged."""
    facts = Facts()
    facts.learn(*infer_types(model))
    facts.follow(model, roots(model)[0])
    return facts


def function_facts(model: ir.Model, function: Root) -> Facts:
    """Infer what the constants in a function say; each call may bring other types and shapes."""
    facts = Facts(declared=False)
    facts.follow(model, function)
    return facts
