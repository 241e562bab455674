"""Recognises an attention.

    context = softmax(scores) @ V        scores: see `scores`

The Softmax goes over the last axis. Around it exporters write a Cast to float32 and back, in
half precision, and after it a guard that turns the NaN of a row without any key into zeros:

    p = Softmax(scores);  Where(IsNaN(p), 0, p)

The context [B, N, S, D] is mostly turned and joined to [B, S, N*D] at once. Where all of it has
three dimensions there is one head: [B, S, D].
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.sizes import Size, number
from leptonc.passes.fusions.attention.heads import Heads, read_heads, without_past
from leptonc.passes.fusions.attention.scores import Scores, read_scores
from leptonc.passes.rewriting.scalars import read_outside
from leptonc.passes.rewriting.site import Site

# From here on Softmax goes over one axis, and not over all that follow it.
_SOFTMAX_OPSET = 13


@dataclass(frozen=True)
class Merged:
    """What becomes of the context.

    Attributes:
        value: [batch, rows, heads*width], or where `joined` is false [batch, rows, heads, width].
        joined: Whether the heads are joined.
    """

    value: ir.Value
    joined: bool


@dataclass(frozen=True)
class Attention:
    """An attention.

    Attributes:
        query: The queries.
        key: The keys.
        value: The values.
        scores: How the scores are computed.
        guarded: Whether NaN becomes zero after the Softmax.
        nodes: All nodes between queries, keys, values and the context, the last one first.
        context: [batch, heads, rows, width].
        merged: What becomes of it, or None when it is read as it is.
        dtype: Of queries, keys, values and context.
    """

    query: Heads
    key: Heads
    value: Heads
    scores: Scores
    guarded: bool
    nodes: tuple[ir.Node, ...]
    context: ir.Value
    merged: Merged | None
    dtype: ir.DataType


@dataclass(frozen=True)
class _Probabilities:
    scores: ir.Value
    guarded: bool
    nodes: tuple[ir.Node, ...]


def read_attention(site: Site) -> Attention | str | None:
    """Return the attention whose last product is the node of `site`.

    Returns:
        The attention; or, where the node multiplies a Softmax, why it is none that is known; or
        None.
    """
    node = site.node
    if len(node.inputs) != 2 or node.inputs[1] is None or site.opset < _SOFTMAX_OPSET:
        return None
    found = _probabilities(site, node.inputs[0])
    if found is None or isinstance(found, str):
        return found
    scores = read_scores(site, found.scores)
    if scores is None:
        return f"{found.scores.name!r} is no scaled product of queries and keys with masks"
    query = read_heads(site, scores.query)
    key = read_heads(site, scores.key, turned=True)
    value = read_heads(site, node.inputs[1])
    if key is not None and value is not None and (key.past is None or value.past is None):
        key, value = without_past(site, key), without_past(site, value)
    for name, heads in (("queries", query), ("keys", key), ("values", value)):
        if heads is None:
            return f"the number and width of the heads of the {name} are not known"
    dtype = site.facts.dtype(node.inputs[1])
    if query is None or key is None or value is None or dtype is None:
        return None
    if query.past is not None or query.repeats != 1:
        return "the queries are joined to others, or repeated"
    if len({"n" in heads.axes for heads in (query, key, value)}) != 1:
        return "queries, keys and values have different numbers of dimensions"
    return Attention(
        query=query,
        key=key,
        value=value,
        scores=scores,
        guarded=found.guarded,
        nodes=(node, *found.nodes, *scores.nodes),
        context=node.outputs[0],
        merged=_merged(site, node.outputs[0], query, value),
        dtype=dtype,
    )


def _probabilities(site: Site, value: ir.Value | None) -> _Probabilities | str | None:
    """See through the casts and the guard around a Softmax over the last axis."""
    nodes: list[ir.Node] = []
    guarded = False
    current = value
    while True:
        node = site.producer(current, "Softmax", "Cast", "Where")
        if node is None:
            return None
        nodes.append(node)
        if node.op_type == "Softmax":
            break
        if node.op_type == "Cast":
            current = node.inputs[0]
            continue
        if guarded:
            return None
        current = guarded_value(site, node)
        test = None if current is None else node.inputs[0]
        if test is None:
            return None
        nodes.append(_producer(test))
        guarded = True
    rank = site.facts.rank(node.outputs[0])
    if rank is None or node.attributes.get_int("axis", -1) not in (-1, rank - 1):
        return f"{node.name!r} does not go over the last axis"
    scores = node.inputs[0]
    cast = site.producer(scores, "Cast")
    if cast is not None:
        nodes.append(cast)
        scores = cast.inputs[0]
    return None if scores is None else _Probabilities(scores, guarded, tuple(nodes))


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def guarded_value(site: Site, node: ir.Node) -> ir.Value | None:
    """Return p of `Where(IsNaN(p), 0, p)`, or None."""
    condition, zero, kept = node.inputs
    test = site.producer(condition, "IsNaN")
    if test is None or kept is None or site.scalar(zero) != 0 or test.inputs[0] is not kept:
        return None
    same_rank = site.facts.rank(kept) == site.facts.rank(node.outputs[0])
    return kept if same_rank else None


def _merged(site: Site, context: ir.Value, query: Heads, value: Heads) -> Merged | None:
    """Return where the heads of the context are turned behind the rows, and joined."""
    if "n" not in query.axes:
        return Merged(context, joined=True)
    turn = _only_reader(site, context, "Transpose")
    if turn is None or tuple(turn.attributes.get_ints("perm") or ()) != (0, 2, 1, 3):
        return None
    turned = turn.outputs[0]
    join = _only_reader(site, turned, "Reshape")
    wide: tuple[Size, ...] = (query.batch, query.rows, number(query.heads * value.width))
    if join is not None and site.facts.symbolic(join.outputs[0]) == wide:
        return Merged(join.outputs[0], joined=True)
    return Merged(turned, joined=False)


def _only_reader(site: Site, value: ir.Value, op_type: str) -> ir.Node | None:
    uses = tuple(value.uses())
    if value.is_graph_output() or len(uses) != 1 or uses[0].idx != 0:
        return None
    found = site.producer(uses[0].node.outputs[0], op_type)
    return found if found is uses[0].node else None


def obstacle(site: Site, found: Attention) -> str | None:
    """Return why no operator can stand for `found`, or None."""
    query, key, value = found.query, found.key, found.value
    reason = read_outside(site, found.nodes[1:])
    if reason is not None:
        return reason
    for name, heads in (("keys", key), ("values", value)):
        if heads.batch != query.batch:
            return f"the {name} are not known to have as many examples as the queries"
        if query.heads % heads.heads or heads.heads * heads.repeats not in (1, query.heads):
            return f"{query.heads} queries do not share {heads.heads} {name}"
    if key.heads != value.heads:
        return f"there are {key.heads} heads of keys and {value.heads} of values"
    # Without a past the last product is only defined where there are as many keys as values.
    if key.past is not None and key.rows != value.rows:
        return "keys and values are not known to have as many rows"
    if 0 in (query.batch.number, query.rows.number, key.rows.number):
        return "there is nothing to attend to"
    types = {site.facts.dtype(heads.value) for heads in (query, key, value)}
    if types != {found.dtype}:
        return "queries, keys and values have different types"
    return _unlike_casts(site, found)


def _unlike_casts(site: Site, found: Attention) -> str | None:
    """Return the cast that is neither to float32 for the Softmax nor back, or None."""
    allowed = (found.dtype, ir.DataType.FLOAT)
    for node in found.nodes:
        if node.op_type != "Cast":
            continue
        if site.facts.dtype(node.outputs[0]) not in allowed:
            return f"{node.name!r} casts to {node.outputs[0].dtype}"
    if site.facts.dtype(found.scores.product.outputs[0]) != found.dtype:
        return "the scores are of another type than the values"
    return None
