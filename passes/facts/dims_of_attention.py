"""The dimensions of attention, standard and ONNX Runtime's own."""

from __future__ import annotations

from collections.abc import Callable

from leptonc.passes.facts.sizes import number
from leptonc.passes.facts.symbolic_view import Sizes, View


def standard_attention(view: View) -> Sizes | None:
    """Attention-23: `[B, heads, rows, width of V]`, or `[B, rows, heads * width of V]`."""
    query, value = view.dims(0), view.dims(2)
    if query is None or value is None or len(query) != len(value):
        return None
    if len(query) == 4:
        return (*query[:3], value[3])
    heads = view.node.attributes.get_int("q_num_heads", 0)
    shared = view.node.attributes.get_int("kv_num_heads", 0)
    if len(query) != 3 or not heads or not shared:
        return None
    width = value[2].over(number(shared))
    return None if width is None else (*query[:2], width.times(number(heads)))


def _packed_attention(view: View) -> Sizes | None:
    """`[B, rows, width of V]`, with the weights of Q, K and V side by side."""
    source, weights = view.dims(0), view.dims(1)
    if source is None or weights is None or len(source) != 3 or len(weights) != 2:
        return None
    given = view.node.attributes.get_ints("qkv_hidden_sizes")
    width = weights[1].over(number(3)) if not given else number(given[2])
    return None if width is None else (*source[:2], width)


def _multi_head_attention(view: View) -> Sizes | None:
    """`[B, rows of Q, width of V]`, each of three dimensions."""
    query, value = view.dims(0), view.dims(2)
    if query is None or value is None or len(query) != 3:
        return None
    if len(value) == 3:
        return (*query[:2], value[2])
    return (*query[:2], value[1].times(value[3])) if len(value) == 4 else None


def _grouped_attention(view: View) -> Sizes | None:
    """The shape of the query, where it comes apart from the keys."""
    return view.dims(0) if view.value(1) is not None else None


CONTRIB_ATTENTION: dict[str, Callable[[View], Sizes | None]] = {
    "Attention": _packed_attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _grouped_attention,
}
