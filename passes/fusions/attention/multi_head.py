"""Attention as ONNX Runtime's own operators.

    com.microsoft.MultiHeadAttention(Q, K, V, attention_bias=mask, past_key, past_value)

Q, K and V are [batch, rows, heads*width]; the mask has four dimensions, of which the last two do
not broadcast. One that only tells padding apart is given as integers [batch, columns] instead,
greater than 0 for the keys that are kept. Rows without any key come out as from the Softmax: NaN for -inf, and all keys alike
for any other number.

Where Q, K and V are layers of one input, they become one product and a Split: a layer that is
whole, which `one_product` joins with the attention unless it is quantised. Measured on a CPU,
MultiHeadAttention takes 0.82 to 1.04 of the primitive form's time. What they cannot express is left to the standard operator.
"""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.fusions.attention.core import Attention, obstacle
from leptonc.passes.fusions.attention.key_padding import half_obstacle, read_padding
from leptonc.passes.fusions.attention.mask import Mask, build_mask, read_mask
from leptonc.passes.fusions.attention.projection import pack, read_outside, read_projections
from leptonc.passes.fusions.attention.standard import (
    Operator,
    emit,
    flat_factor,
    flat_inputs,
    with_past,
    without_join,
)
from leptonc.passes.fusions.linear.pack import split_columns
from leptonc.passes.fusions.linear.read import emit_product
from leptonc.passes.graph.insertion import AttributeValue
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rewritten, Rule
from leptonc.passes.rewriting.site import Site
from leptonc.passes.targets import CONTRIB, ORT_CPU, ORT_CUDA

_DOMAIN = "com.microsoft"

# What ONNX Runtime has kernels for.
_TYPES = {
    ORT_CPU: frozenset({ir.DataType.FLOAT}),
    ORT_CUDA: frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16}),
}


def _check(site: Site, found: Attention) -> str | None:
    reason = obstacle(site, found)
    if reason is not None:
        return reason
    if found.dtype not in _TYPES[site.target]:
        return f"there is no kernel for {found.dtype}"
    if found.scores.softcap:
        return "the scores are capped"
    if found.key.heads != found.query.heads:
        return "several heads of queries share those of keys and values"
    heads = (found.query, found.key, found.value)
    if found.merged is None or not all(one.is_flat for one in heads):
        return "the heads are not cut from three dimensions and joined again"
    mask = read_mask(site, found)
    if isinstance(mask, str):
        return mask
    reason = half_obstacle(site, mask, found.dtype)
    if reason is not None or not found.guarded or not mask.terms:
        return reason
    if mask.bounds is None or mask.bounds.empty_rows:
        return "the mask might have a row of nothing but -inf, which is guarded"
    return None


def _check_multi_head(site: Site, found: Attention) -> str | None:
    reason = _check(site, found)
    if reason is None and found.key.past is not None and found.key.width != found.value.width:
        return "keys and values of the past differ in width"
    return reason


def _mask(
    site: Site, build: Build, found: Attention, attributes: dict[str, AttributeValue]
) -> tuple[ir.Value | None, ir.Value | None]:
    """Return which keys are kept, or what is added to the scores."""
    mask = read_mask(site, found)
    assert isinstance(mask, Mask)
    padding = None if found.key.past is not None else read_padding(site, mask)
    if padding is None:
        return None, build_mask(site, build, found, mask, raised=False)
    attributes["mask_filter_value"] = padding.fill
    return build.op("Cast", [padding.keep], {"to": ir.DataType.INT32.value}), None


def _attributes(found: Attention) -> dict[str, AttributeValue]:
    scale = found.scores.scale * flat_factor(found.query) * flat_factor(found.key)
    return {"num_heads": found.query.heads, "scale": scale}


def _multi_head(site: Site, found: Attention, build: Build) -> Rewritten:
    attributes = _attributes(found)
    inputs = [*flat_inputs(build, found), None, *_mask(site, build, found, attributes)]
    operator = Operator("MultiHeadAttention", _DOMAIN, attributes, flat=True)
    return emit(found, build, operator, inputs)


def _projected(site: Site) -> Attention | None:
    """Return an attention of one input to itself."""
    found = without_join(site)
    if found is None or found.merged is None or read_projections(site, found) is None:
        return None
    return found


def _check_projected(site: Site, found: Attention) -> str | None:
    parts = read_projections(site, found)
    assert parts is not None
    if found.value.factor != 1.0:
        return "the values are scaled"
    # That they are projections of one input says that queries and keys have as many rows.
    return _check(site, found) or read_outside(site, found, parts)


def _whole(site: Site, found: Attention, build: Build) -> Rewritten:
    parts = read_projections(site, found)
    assert parts is not None
    product = emit_product(
        build, parts[0].layer.input, *pack(build, parts), gemm=False, transposed=False, like=None
    )
    widths = [part.stop - part.start for part in parts]
    flat = [heads.flat for heads in (found.query, found.key, found.value) if heads.flat is not None]
    attributes = _attributes(found)
    inputs: list[ir.Value | None] = [
        *split_columns(site, build, product, widths, flat),
        None,
        *_mask(site, build, found, attributes),
    ]
    return emit(
        found, build, Operator("MultiHeadAttention", _DOMAIN, attributes, flat=True), inputs
    )


RULES: tuple[Rule[Attention], ...] = (
    Rule("projected-attention", ("MatMul",), _projected, _check_projected, _whole, CONTRIB),
    Rule(
        "multi-head-attention-past", ("MatMul",), with_past, _check_multi_head, _multi_head, CONTRIB
    ),
    Rule(
        "multi-head-attention", ("MatMul",), without_join, _check_multi_head, _multi_head, CONTRIB
    ),
)
