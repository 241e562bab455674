"""Whether the source's own answers can prove anything: NaN equals NaN, whatever made it.

Infinities that the model itself holds as constants (scores masked with minus infinity) are
answers like any other, as long as something finite stands beside them. NaN, and infinities that
came of finite numbers, are not: the node that made them first is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.compiler.errors import SourceError
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.verification.trials import Trial
from leptonc.passes.pipeline import LINE_KEY
from leptonc.runtime.arrays import Arrays

# Inner values that one run returns: the whole graph at once may not fit in memory.
_BLOCK = 64
_FIX = "give other example inputs, of values that the model meets in use"


@dataclass(frozen=True)
class _Kinds:
    """What an array holds besides finite numbers."""

    nan: bool = False
    infinite: bool = False

    @classmethod
    def of(cls, array: np.ndarray) -> _Kinds:
        if array.dtype.kind not in "fc":
            return cls()
        return cls(bool(np.isnan(array).any()), bool(np.isinf(array).any()))


def require_finite(model: ir.Model, trials: Sequence[Trial]) -> None:
    """Refuse right answers that hold NaN, or infinities that came of finite numbers.

    Args:
        model: The exported graph, to find the node.
        trials: Inputs with what the source answers.

    Raises:
        SourceError: An answer proves nothing; the node that is to blame is named.
    """
    for trial in trials:
        for name, array in trial.expected.items():
            kinds = _Kinds.of(array)
            if kinds == _Kinds():
                continue
            where = _maker(model, trial.inputs, nan=kinds.nan)
            what = "NaN" if kinds.nan else "infinities"
            if where is None and (kinds.nan or not np.isfinite(array).any()):
                where = f"output {name!r}"
            if where is not None:
                sizes = ", ".join(f"{dim} {size}" for dim, size in trial.sizes.items())
                raise SourceError(
                    f"the source answers with {what} in {name!r} on its example inputs"
                    f"{f' ({sizes})' if sizes else ''}, which no result can be held against",
                    where=where,
                    fix=_FIX,
                )


def _maker(model: ir.Model, inputs: Mapping[str, np.ndarray], *, nan: bool) -> str | None:
    """Return the input, weight or node in which NaN or infinities begin, or None."""
    found: dict[str, _Kinds] = {name: _Kinds.of(array) for name, array in inputs.items()}
    for name, kinds in found.items():
        if kinds.nan or (not nan and kinds.infinite):
            return f"example input {name!r}"
    for values in _blocks(model, inputs):
        found |= {name: _Kinds.of(array) for name, array in values.items()}
    for node in model.graph:
        before = [_known(value, found) for value in node.inputs if value is not None]
        for value in node.outputs:
            after = found.get(str(value.name), _Kinds())
            made_nan = after.nan and not any(kinds.nan for kinds in before)
            made_infinite = after.infinite and not any(k.infinite or k.nan for k in before)
            if made_nan if nan else made_infinite:
                line = node.metadata_props.get(LINE_KEY)
                words = f"{node.op_type} node {node.name or '(unnamed)'!r} -> {value.name}"
                return f"{words}; from {line}" if line else words
    return _nan_weight(model) if nan else None


def _known(value: ir.Value, found: dict[str, _Kinds]) -> _Kinds:
    name = str(value.name)
    if name not in found:
        tensor = value.const_value
        found[name] = _Kinds() if tensor is None else _Kinds.of(tensor.numpy())
    return found[name]


def _nan_weight(model: ir.Model) -> str | None:
    for name, value in model.graph.initializers.items():
        if value.const_value is not None and _Kinds.of(value.const_value.numpy()).nan:
            return f"weight {name!r}"
    return None


def _blocks(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> Iterator[Arrays]:
    outputs = {str(value.name) for value in model.graph.outputs}
    names = [str(v.name) for node in model.graph for v in node.outputs if v.name]
    for start in range(0, len(names), _BLOCK):
        block = [name for name in names[start : start + _BLOCK] if name not in outputs]
        yield GraphRunner(model, extra_outputs=block)(inputs)
