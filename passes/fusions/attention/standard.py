"""Attention as the standard operator of opset 23.

    Attention(Q, K, V, mask, past K, past V) = softmax(scale * Q @ K^T + mask) @ V

Q, K and V have three dimensions [batch, rows, heads*width], and so has the result, where the
graph cuts and joins the heads anyhow; four [batch, heads, rows, width] where it does not. Fewer
heads of keys and values than of queries serve as many queries in a row each. `present` is the
past with the new rows behind it.

The operator answers 0 for a row whose mask is -inf everywhere, where the Softmax alone answers
NaN: it stands for the guarded form, or for masks that are known not to be so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from leptonc.passes.fusions.attention.core import Attention, obstacle, read_attention
from leptonc.passes.fusions.attention.heads import Heads, without_past
from leptonc.passes.fusions.attention.key_padding import half_obstacle
from leptonc.passes.fusions.attention.mask import Mask, build_mask, may_be_lowest, read_mask
from leptonc.passes.graph.insertion import AttributeValue
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site
from leptonc.passes.targets import GENERIC, ORT_CPU, ORT_CUDA

_TYPES = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)

# With few bits the engine's own kernel of the operator is now and then off by more than ONNX's
# tests allow, where the nodes it replaces are not.
_NARROW = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})

OPSET = 23


def with_past(site: Site) -> Attention | None:
    """Return an attention whose keys and values are joined to those of the past."""
    found = read_attention(site)
    return found if isinstance(found, Attention) and found.key.past is not None else None


def without_join(site: Site) -> Attention | None:
    """Return an attention, with its keys and values as they are joined."""
    found = read_attention(site)
    if not isinstance(found, Attention):
        return None
    key, value = without_past(site, found.key), without_past(site, found.value)
    if key is None or value is None:
        return None
    return replace(found, key=key, value=value)


def check(site: Site, found: Attention) -> str | None:
    """Return why the operator may not stand for `found`."""
    if found.dtype not in _TYPES:
        return f"there is no attention on {found.dtype}"
    if found.dtype in _NARROW and ("n" not in found.query.axes or not _is_flat(found)):
        return f"on {found.dtype} it rounds otherwise, and no cutting of heads would go for it"
    reason = obstacle(site, found)
    if reason is not None:
        return reason
    mask = read_mask(site, found)
    if isinstance(mask, str):
        return mask
    return _unlike_rows(found, mask) or half_obstacle(site, mask, found.dtype)


def _unlike_rows(found: Attention, mask: Mask) -> str | None:
    """Return why a row without any key might come out differently, or None."""
    if not mask.terms:
        return None
    if mask.bounds is None:
        return "the mask might have a row of nothing but -inf"
    if not mask.bounds.infinite:
        return None
    if mask.bounds.empty_rows and not found.guarded:
        return "the mask might have a row of nothing but -inf, which makes NaN"
    if found.guarded and may_be_lowest(mask, found.dtype):
        return "the mask holds -inf as well as the lowest number"
    return None


def _is_flat(found: Attention) -> bool:
    """Whether the operator can take three dimensions, and cut and join the heads itself."""
    heads = (found.query, found.key, found.value)
    return found.merged is not None and all(one.is_flat for one in heads)


def rewrite(site: Site, found: Attention, build: Build) -> Rewritten:
    """Make the operator."""
    mask = read_mask(site, found)
    assert isinstance(mask, Mask)
    finite = mask.bounds is not None and not mask.bounds.infinite
    raised = bool(mask.terms) and finite and may_be_lowest(mask, found.dtype)
    heads = (found.query, found.key, found.value)
    flat = _is_flat(found)
    scale = found.scores.scale
    if flat:
        scale *= flat_factor(found.query) * flat_factor(found.key)
    attributes: dict[str, AttributeValue] = {"scale": scale}
    if flat:
        attributes["q_num_heads"] = found.query.heads
        attributes["kv_num_heads"] = found.key.heads
    if found.scores.softcap:
        attributes["softcap"] = found.scores.softcap
    if found.dtype != ir.DataType.FLOAT and _in_float(site, found):
        attributes["softmax_precision"] = ir.DataType.FLOAT.value
    inputs: list[ir.Value | None] = [
        *(flat_inputs(build, found) if flat else [whole_heads(build, one) for one in heads]),
        build_mask(site, build, found, mask, raised=raised),
    ]
    return emit(found, build, Operator("Attention", "", attributes, flat=flat), inputs)


def _in_float(site: Site, found: Attention) -> bool:
    softmax = [node for node in found.nodes if node.op_type == "Softmax"]
    return site.facts.dtype(softmax[0].outputs[0]) == ir.DataType.FLOAT


@dataclass(frozen=True)
class Operator:
    """What stands for an attention.

    Attributes:
        op_type: The operator.
        domain: Its domain.
        attributes: Its attributes.
        flat: Whether its first output is [batch, rows, heads*width].
    """

    op_type: str
    domain: str
    attributes: dict[str, AttributeValue]
    flat: bool


def emit(
    found: Attention, build: Build, operator: Operator, inputs: list[ir.Value | None]
) -> Rewritten:
    """Make the node of `inputs` and the past, and put it in the place of the old ones."""
    merged = found.merged if operator.flat else None
    old = found.context if merged is None else merged.value
    like = old if merged is None or merged.joined else None
    outputs: list[ir.Value | None] = [like]
    key, value = found.key.past, found.value.past
    if key is not None and value is not None:
        inputs += [key.before, value.before]
        outputs += [key.joined, value.joined]
    while inputs[-1] is None:
        inputs.pop()
    made = build.ops(
        operator.op_type, inputs, operator.attributes, domain=operator.domain, outputs=outputs
    )
    result = made[0]
    if merged is not None and not merged.joined:
        shape = np.array([0, 0, found.query.heads, found.value.width], np.int64)
        result = build.op("Reshape", [result, build.constant(shape)], like=old)
    replaced = {old: result}
    if key is not None and value is not None:
        replaced[key.joined], replaced[value.joined] = made[1:]
    return replaced


def flat_factor(heads: Heads) -> float:
    """Return what `flat_heads` leaves out."""
    return 1.0 if heads.flat is None else heads.factor


def flat_inputs(build: Build, found: Attention) -> list[ir.Value]:
    """Return queries and keys, but for `flat_factor`, and values as [batch, rows, heads*width]."""
    value = found.value
    if value.factor != 1.0:
        value = replace(value, flat=None)
    return [_flat(build, heads) for heads in (found.query, found.key, value)]


def _flat(build: Build, heads: Heads) -> ir.Value:
    if heads.flat is not None:
        return heads.flat
    if heads.split is None:
        return build.op("Transpose", [heads.value], {"perm": [0, 2, 1]})
    shape = np.array([0, 0, heads.heads * heads.width], np.int64)
    return build.op("Reshape", [heads.split, build.constant(shape)])


def whole_heads(build: Build, heads: Heads) -> ir.Value:
    """Return the heads as [batch, heads, rows, width]."""
    if heads.whole is not None:
        return heads.whole
    perm = [heads.axes.index(axis) for axis in "bnsd"]
    return build.op("Transpose", [heads.value], {"perm": perm})


def _pattern(site: Site) -> Attention | str | None:
    """Return an attention, or why a product with a Softmax is none."""
    found = without_join(site)
    if found is not None:
        return found
    reason = read_attention(site)
    return reason if isinstance(reason, str) else None


def _check(site: Site, found: Attention | str) -> str | None:
    return found if isinstance(found, str) else check(site, found)


def _rewrite(site: Site, found: Attention | str, build: Build) -> Rewritten:
    assert isinstance(found, Attention)
    return rewrite(site, found, build)


_TARGETS = frozenset({GENERIC, ORT_CPU, ORT_CUDA})

RULES: tuple[Rule[Any], ...] = (
    Rule("attention-past", ("MatMul",), with_past, check, rewrite, _TARGETS, OPSET),
    Rule("attention", ("MatMul",), _pattern, _check, _rewrite, _TARGETS, OPSET),
)
