"""Attention in every form that exporters write, in every surrounding: the outputs stay."""

from __future__ import annotations

import pytest
from attention_graphs import Form, attention, draw_form, fuse
from hypothesis import given, settings
from hypothesis import strategies as st
from surroundings import Surrounded, check_kept, surround

TARGETS = ("generic", "primitive", "ort-cpu", "ort-cuda")


def plain(form: Form, *, opset: int = 20) -> Surrounded:
    """Return the model of one attention with its sizes declared."""

    class Still:
        """Draws the first of everything: no surroundings."""

        def __call__(self, strategy):
            return {"integers": 1, "booleans": False}.get(_kind(strategy))

    return surround(Still(), attention(form), opset=opset)


def _kind(strategy):
    text = repr(strategy)
    return next((name for name in ("integers", "booleans") if name in text), "")


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_outputs_stay(target, data):
    pattern = attention(draw_form(data.draw), data.draw(st.integers(0, 3)))
    model = check_kept(surround(data.draw, pattern), fuse(target))
    assert not fuse(target)(model).changed
