"""Attentions as exporters write them, drawn for the tests of their recognition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from surroundings import Pattern, Surrounded, clone, with_output_types

from leptonc.passes.base import PassStats
from leptonc.passes.fusions.attention.fuse import FUSE_ATTENTION
from leptonc.passes.pipeline import Context

Draw = Callable[..., Any]
Array = np.ndarray[Any, Any]

LOWEST = float(np.finfo(np.float32).min)

MASKS = (
    *("none", "added", "lowest", "infinite", "chosen", "two", "input", "flat", "padding"),
    *("causal", "triangle"),
)

SOURCES = ("flat", "whole", "projected", "packed", "scaled", "gathered", "unbound", "single")


def fuse(target: str) -> Callable[[ir.Model], PassStats]:
    """Return the pass for `target`, as a rewrite."""
    return lambda model: FUSE_ATTENTION.run(model, Context(target))


def still(pattern: Pattern, *, opset: int = 20) -> Surrounded:
    """Return the model of `pattern` alone, with all sizes declared."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in pattern.inputs.items()
    ]
    graph = helper.make_graph(
        [clone(node) for node in pattern.nodes],
        "still",
        inputs,
        [onnx.ValueInfoProto(name=name) for name in pattern.outputs],
        [numpy_helper.from_array(array, name) for name, array in pattern.weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return Surrounded(with_output_types(model, pattern.inputs), pattern.inputs)


@dataclass
class Sizes:
    """How large an attention is."""

    batch: int = 2
    heads: int = 4
    shared: int = 1
    rows: int = 3
    columns: int = 5
    width: int = 8
    value_width: int = 8
    past: int = 0

    @property
    def key_heads(self) -> int:
        return self.heads // self.shared


@dataclass
class Form:
    """How an attention is written."""

    source: str = "flat"
    scale: str = "scores"
    turn: str = "once"
    mask: str = "none"
    guard: bool = False
    softcap: bool = False
    merge: str = "joined"
    sizes: Sizes = field(default_factory=Sizes)


def draw_form(draw: Draw) -> Form:
    """Draw how an attention is written."""
    source = draw(st.sampled_from(SOURCES))
    same = source in ("projected", "packed", "gathered", "unbound")
    single = source == "single"
    alone = single or (same and source != "projected")
    shared = 1 if alone else draw(st.sampled_from([1, 1, 2, 4]))
    rows = draw(st.integers(1, 4))
    past = 0 if single else draw(st.sampled_from([0, 0, 2]))
    width = draw(st.sampled_from([4, 8]))
    sizes = Sizes(
        batch=draw(st.integers(1, 3)),
        heads=1 if single else 4,
        shared=shared,
        rows=rows,
        columns=rows if same else draw(st.integers(1, 5)),
        width=width,
        value_width=width if same and source != "projected" else draw(st.sampled_from([width, 8])),
        past=past,
    )
    return Form(
        source=source,
        scale=draw(st.sampled_from(["none", "scores", "divided", "query", "both"])),
        turn=draw(st.sampled_from(["once", "twice", "flattened"])),
        mask=draw(st.sampled_from(MASKS)),
        guard=draw(st.booleans()),
        softcap=draw(st.sampled_from([False, False, True])),
        merge="none" if single else draw(st.sampled_from([*["joined"] * 3, "turned", "none"])),
        sizes=sizes,
    )


def attention(form: Form, seed: int = 0) -> Pattern:
    """Write an attention down."""
    return _Writer(form, np.random.default_rng(seed)).write()


class _Writer:
    """Writes one attention."""

    def __init__(self, form: Form, random: np.random.Generator) -> None:
        self.form = form
        self.sizes = form.sizes
        self.random = random
        self.pattern = Pattern()

    def write(self) -> Pattern:
        pattern, sizes = self.pattern, self.sizes
        query, key, value = self._sources()
        query = self._heads(query, sizes.heads, sizes.width)
        if self.form.scale in ("query", "both"):
            query = pattern.add("Mul", query, self._number(0.5))
        key, new_key = self._stored(key, sizes.width)
        key = self._turned(key)
        value, new_value = self._stored(value, sizes.value_width)
        if self.form.scale == "both":
            key = pattern.add("Mul", self._number(0.5), key)
        scores = pattern.add("MatMul", query, key)
        if self.form.scale == "scores":
            scores = pattern.add("Mul", scores, self._number(0.25))
        if self.form.scale == "divided":
            scores = pattern.add("Div", scores, self._number(4.0))
        if self.form.softcap:
            scores = pattern.add("Div", scores, self._number(2.0))
            scores = pattern.add("Mul", pattern.add("Tanh", scores), self._number(2.0))
        weights = pattern.add("Softmax", self._masked(scores), axis=-1)
        if self.form.guard:
            empty = pattern.add("IsNaN", weights)
            weights = pattern.add("Where", empty, self._number(0.0), weights)
        result = pattern.add("MatMul", weights, value)
        if self.form.merge != "none":
            result = pattern.add("Transpose", result, perm=[0, 2, 1, 3])
        if self.form.merge == "joined":
            shape = self._ints(0, 0, sizes.heads * sizes.value_width)
            result = pattern.add("Reshape", result, shape)
        pattern.outputs = [result, *new_key, *new_value]
        return pattern

    def _number(self, value: float) -> str:
        return self.pattern.weight(np.array(value, np.float32))

    def _ints(self, *values: int) -> str:
        return self.pattern.weight(np.array(values, np.int64))

    def _normal(self, *shape: int) -> Array:
        return self.random.standard_normal(shape).astype(np.float32)

    def _sources(self) -> tuple[str, str, str]:
        """Return queries, keys and values before they are cut into heads."""
        sizes, pattern = self.sizes, self.pattern
        widths = [
            sizes.heads * sizes.width,
            sizes.key_heads * sizes.width,
            sizes.key_heads * sizes.value_width,
        ]
        rows = [sizes.rows, sizes.columns, sizes.columns]
        if self.form.source in ("flat", "scaled", "single"):
            given = [
                pattern.input(self._normal(sizes.batch, count, width))
                for count, width in zip(rows, widths, strict=True)
            ]
            if self.form.source == "scaled":
                given = [pattern.add("Mul", one, self._number(0.5)) for one in given]
            return given[0], given[1], given[2]
        if self.form.source == "whole":
            heads = [sizes.heads, sizes.key_heads, sizes.key_heads]
            each = [sizes.width, sizes.width, sizes.value_width]
            given = [
                pattern.input(self._normal(sizes.batch, count, number, width))
                for count, number, width in zip(rows, heads, each, strict=True)
            ]
            return given[0], given[1], given[2]
        x = pattern.input(self._normal(sizes.batch, sizes.rows, 6))
        if self.form.source in ("packed", "gathered", "unbound"):
            product = pattern.add("MatMul", x, pattern.weight(self._normal(6, sum(widths))))
            layer = pattern.add("Add", product, pattern.weight(self._normal(sum(widths))))
            if self.form.source == "packed":
                parts = pattern.add("Split", layer, self._ints(*widths), outputs=3, axis=-1)
            else:
                parts = self._thirds(layer)
            return parts[0], parts[1], parts[2]
        layers = [
            pattern.add("MatMul", x, pattern.weight(self._normal(6, width))) for width in widths
        ]
        layers[0] = pattern.add("Add", layers[0], pattern.weight(self._normal(widths[0])))
        return layers[0], layers[1], layers[2]

    def _thirds(self, layer: str) -> list[str]:
        """Return [batch, heads, rows, width] thirds of a product."""
        pattern, sizes = self.pattern, self.sizes
        shape = self._ints(0, 0, 3, sizes.heads, sizes.width)
        cut = pattern.add("Reshape", layer, shape)
        turned = pattern.add("Transpose", cut, perm=[2, 0, 3, 1, 4])
        if self.form.source == "gathered":
            places = [pattern.weight(np.int64(place)) for place in (0, 1, -1)]
            return [pattern.add("Gather", turned, place, axis=0) for place in places]
        parts = pattern.add("Split", turned, self._ints(1, 1, 1), outputs=3, axis=0)
        return [pattern.add("Squeeze", part, self._ints(0)) for part in parts]

    def _heads(self, value: str, number: int, width: int) -> str:
        if self.form.source in ("gathered", "unbound", "single"):
            return value
        if self.form.source != "whole":
            value = self.pattern.add("Reshape", value, self._ints(0, 0, number, width))
        return self.pattern.add("Transpose", value, perm=[0, 2, 1, 3])

    def _stored(self, value: str, width: int) -> tuple[str, list[str]]:
        """Return keys or values for each query, and what is to be kept of them."""
        sizes, pattern = self.sizes, self.pattern
        value = self._heads(value, sizes.key_heads, width)
        kept = []
        if sizes.past:
            shape = (sizes.batch, sizes.key_heads, sizes.past, width)
            value = pattern.add("Concat", pattern.input(self._normal(*shape)), value, axis=-2)
            kept = [value]
        if sizes.shared > 1:
            columns = sizes.columns + sizes.past
            wide = (sizes.batch, sizes.key_heads, sizes.shared, columns, width)
            value = pattern.add("Unsqueeze", value, self._ints(2))
            value = pattern.add("Expand", value, self._ints(*wide))
            shape = (sizes.batch, sizes.heads, columns, width)
            value = pattern.add("Reshape", value, self._ints(*shape))
        return value, kept

    def _turned(self, key: str) -> str:
        """Turn the last two axes of the keys."""
        sizes, pattern = self.sizes, self.pattern
        if self.form.source == "single":
            return pattern.add("Transpose", key, perm=[0, 2, 1])
        if self.form.turn == "flattened":
            columns = sizes.columns + sizes.past
            flat = pattern.add("Reshape", key, self._ints(-1, columns, sizes.width))
            flat = pattern.add("Transpose", flat, perm=[0, 2, 1])
            shape = self._ints(sizes.batch, sizes.heads, sizes.width, columns)
            return pattern.add("Reshape", flat, shape)
        last = pattern.nodes[-1]
        if self.form.turn == "once" and last.op_type == "Transpose" and last.output[0] == key:
            # Heads and axes are turned at once.
            return pattern.add("Transpose", last.input[0], perm=[0, 2, 3, 1])
        return pattern.add("Transpose", key, perm=[0, 1, 3, 2])

    def _padding(self, keep: Array) -> str:
        """Return the condition for a mask of keys, as exporters write it for encoders."""
        pattern = self.pattern
        given = pattern.add("Cast", pattern.input(keep.astype(np.int64)), to=ir.DataType.BOOL.value)
        single = self.form.source == "single"
        given = pattern.add("Unsqueeze", given, self._ints(*([1] if single else [1, 2])))
        rows = pattern.add("Range", *(pattern.weight(np.int64(n)) for n in (0, self.sizes.rows, 1)))
        rows = pattern.add("Unsqueeze", rows, self._ints(*([0, 2] if single else [0, 1, 3])))
        always = pattern.add("GreaterOrEqual", rows, pattern.weight(np.int64(0)))
        return pattern.add("And", always, given)

    def _masked(self, scores: str) -> str:
        kind, pattern, sizes = self.form.mask, self.pattern, self.sizes
        columns = sizes.columns + sizes.past
        single = self.form.source == "single"
        shape = (sizes.batch, sizes.rows, columns)
        keep = self.random.random(shape) > 0.4
        # Each other example has a row without any key.
        keep[1::2, 0] = False
        if not single:
            keep = keep[:, None]
        if kind == "none":
            return scores
        if kind == "added":
            bias = self._normal(*[1] * (not single), sizes.heads, *shape[1:])
            return pattern.add("Add", pattern.weight(bias), scores)
        if kind == "input":
            return pattern.add("Add", scores, pattern.input(self._normal(*keep.shape)))
        if kind in ("causal", "triangle"):
            return self._causal(scores, columns)
        if kind == "flat":
            keep = keep[..., :1, :]
        last = keep.reshape(shape)[:, -1] if kind == "padding" else None
        condition = pattern.input(keep) if last is None else self._padding(last)
        if kind == "chosen":
            flipped = pattern.add("Not", condition)
            return pattern.add("Where", flipped, self._number(LOWEST), scores)
        fill = -np.inf if kind == "infinite" else LOWEST
        mask = pattern.add("Where", condition, self._number(0.0), self._number(fill))
        if kind == "two":
            bias = pattern.weight(self._normal(sizes.heads, *shape[1:]))
            scores = pattern.add("Add", scores, bias)
        return pattern.add("Add", scores, mask)

    def _causal(self, scores: str, columns: int) -> str:
        """Mask what is behind the diagonal with -inf, in rows that always keep their first key."""
        pattern = self.pattern
        ones = 1.0 if self.form.mask == "causal" else -np.inf
        full = pattern.add("Expand", self._number(ones), self._ints(self.sizes.rows, columns))
        if self.form.mask == "triangle":
            one = pattern.weight(np.int64(1))
            return pattern.add("Add", scores, pattern.add("Trilu", full, one))
        behind = pattern.add("Equal", pattern.add("Trilu", full, upper=0), self._number(0.0))
        return pattern.add("Where", behind, self._number(-np.inf), scores)
