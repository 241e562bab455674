"""A mask that only says which keys are padding, and so is the same for all heads and rows.

    Where(keep, 0, fill)        keep [batch, 1, 1, columns] from [batch, columns]

`keep` may be joined by And to what is true everywhere, and be expanded.

In float16 no number is so low that a score is lost beside it in float32, in which operators for
attention add: a row without any key would then weigh its keys by their scores, and not alike. Only
an example of nothing but padding has such a row where the mask tells padding apart and no more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from leptonc.passes.facts.sizes import ONE
from leptonc.passes.fusions.attention.mask import Mask
from leptonc.passes.fusions.attention.scores import Choice, Term
from leptonc.passes.rewriting.broadcasting import all_true
from leptonc.passes.rewriting.site import Site, commuted

# A finite number below this in a mask means that keys are left out.
_LEAVES_OUT = -1e3

# Nobody wraps a condition more often.
_MOST_STEPS = 16


@dataclass(frozen=True)
class Padding:
    """Which keys are no padding.

    Attributes:
        keep: Boolean [batch, columns].
        fill: What is added to the scores of the others.
    """

    keep: ir.Value
    fill: float


def read_padding(site: Site, mask: Mask) -> Padding | None:
    """Return what `mask` says of the keys, or None when it says anything else."""
    if len(mask.terms) != 1:
        return None
    chosen = _chosen(site, mask.terms[0])
    if chosen is None or not np.isfinite(chosen.fill):
        return None
    keep = _stripped(site, chosen.keep)
    if keep is None or site.facts.dtype(keep) != ir.DataType.BOOL:
        return None
    if site.facts.symbolic(keep) != (mask.dims[0], mask.dims[3]):
        return None
    return Padding(keep, chosen.fill)


def half_obstacle(site: Site, mask: Mask, dtype: ir.DataType) -> str | None:
    """Return why float16 scores cannot be masked in float32, or None."""
    if dtype != ir.DataType.FLOAT16 or not mask.terms or read_padding(site, mask) is not None:
        return None
    if mask.bounds is not None and mask.bounds.low > _LEAVES_OUT:
        return None
    return "the mask might have a row without any key, which depends on rounding in float16"


def _chosen(site: Site, term: Term) -> Padding | None:
    if isinstance(term, Choice):
        fill = site.scalar(term.fill)
        return None if fill is None else _kept(site, term.condition, fill, keeps=term.keeps)
    node = site.producer(term, "Where")
    if node is None or node.inputs[0] is None:
        return None
    then, other = site.scalar(node.inputs[1]), site.scalar(node.inputs[2])
    if then == 0 and other is not None:
        return _kept(site, node.inputs[0], other, keeps=True)
    if other == 0 and then is not None:
        return _kept(site, node.inputs[0], then, keeps=False)
    return None


def _kept(site: Site, condition: ir.Value, fill: float, *, keeps: bool) -> Padding | None:
    if keeps:
        return Padding(condition, fill)
    flip = site.producer(condition, "Not")
    kept = None if flip is None else flip.inputs[0]
    return None if kept is None else Padding(kept, fill)


def _stripped(site: Site, condition: ir.Value) -> ir.Value | None:
    """Return the boolean [batch, columns] that `condition` repeats for heads and rows, or None."""
    value: ir.Value | None = condition
    for _ in range(_MOST_STEPS):
        node = site.producer(value, "And", "Expand", "Unsqueeze", "Reshape")
        if node is None or value is None:
            return None
        if node.op_type == "Expand":
            value = node.inputs[0]
        elif node.op_type == "And":
            rest = [right for left, right in commuted(node) if all_true(left, site)]
            value = rest[0] if rest else None
        else:
            return _flat(site, node)
    return None


def _flat(site: Site, node: ir.Node) -> ir.Value | None:
    flat, whole = site.facts.symbolic(node.inputs[0]), site.facts.symbolic(node.outputs[0])
    if flat is None or whole is None or len(flat) != 2:
        return None
    return node.inputs[0] if whole == (flat[0], ONE, ONE, flat[1]) else None
