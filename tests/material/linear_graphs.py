"""Rewrites of small graphs that are checked by running them, for the tests of linear layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Pattern, check_kept, run_plain, surround

from leptonc.passes.base import PassStats
from leptonc.passes.rewriting.rewriter import apply_rules
from leptonc.passes.rewriting.rule import Rule

HEADER = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>\n'

Draw = Callable[..., Any]

# The size of each dimension that has a name.
_OPEN = 3


def parsed(text: str) -> onnx.ModelProto:
    """Parse a model, or a graph that is given a header."""
    return onnx.parser.parse_model(text if text.startswith("<") else HEADER + text)


def rewritten(
    text: str, rules: Sequence[Rule[Any]], *, target: str = "generic"
) -> tuple[ir.Model, PassStats]:
    """Apply `rules`; the outputs must stay, and a second application must change nothing."""
    before = parsed(text)
    model = ir.from_proto(before)
    stats = apply_rules(model, "linear", rules, target=target)
    assert_same(before, ir.to_proto(model))
    assert not apply_rules(model, "linear", rules, target=target).changed
    return model, stats


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Compare the outputs of two models on the same random inputs."""
    onnx.checker.check_model(after)
    feeds = _feeds(before)
    expected, got = run_plain(before, feeds), run_plain(after, feeds)
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].shape == array.shape
        slack = 1e-2 if array.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(got[name], array, rtol=slack, atol=slack, err_msg=name)


def _feeds(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(7)
    feeds = {}
    for value in model.graph.input:
        if value.name in {tensor.name for tensor in model.graph.initializer}:
            continue
        kind = value.type.tensor_type
        dims = [dim.dim_value or _OPEN for dim in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        array = random.normal(size=dims) * 3
        feeds[value.name] = (array > 0) if dtype == np.bool_ else array.astype(dtype)
    return feeds


def operators(model: ir.Model) -> list[str]:
    """Return the operators of the main graph, in order."""
    return [node.op_type for node in model.graph]


def reasons(stats: PassStats, rule: str) -> list[str]:
    """Return why `rule` was refused."""
    return [refusal.reason for refusal in stats.refused if refusal.rule == rule]


def times_fired(
    drawn: Callable[[Draw], Pattern], rules: Sequence[Rule[Any]], *, target: str = "generic"
) -> int:
    """Rewrite drawn patterns in drawn surroundings; return in how many a rule fired.

    The outputs must stay, and a second application must change nothing.
    """
    fired = []

    @settings(max_examples=80, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        def rewrite(model: ir.Model) -> None:
            fired.append(bool(apply_rules(model, "linear", rules, target=target).changed))
            assert not apply_rules(model, "linear", rules, target=target).changed

        check_kept(surround(data.draw, drawn(data.draw)), rewrite)

    check()
    return sum(fired)
