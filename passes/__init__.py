"""Rewrites of an `onnx_ir.Model` that keep what it computes, and run it faster or smaller."""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.base import Pass, PassStats, Refusal
from leptonc.passes.clean import Clean
from leptonc.passes.facts import infer_facts
from leptonc.passes.fold import Fold
from leptonc.passes.pipeline import run_passes
from leptonc.passes.share import Share
from leptonc.passes.simplify import Simplify
from leptonc.runtime.errors import UnsupportedError

__all__ = ["PASSES", "TARGETS", "Pass", "PassStats", "Refusal", "optimize"]

PASSES: tuple[type[Pass], ...] = (Clean, Fold, Share, Simplify)

TARGETS = ("generic", "ort-cpu")

# Each round after the first needs something that the one before made possible. A chain of shape
# computations takes a round per link that the inference cannot see through.
_MOST_ROUNDS = 16


def optimize(model: ir.Model, *, target: str = "generic") -> tuple[PassStats, ...]:
    """Bring `model` into its canonical form, in place.

    Cleans, folds and shares until nothing changes: a second call changes nothing. The inputs
    and outputs of the graph keep their names, order, types and shapes, and every output its
    bits.

    Args:
        model: Any valid model; weights may be external and are not read as a whole.
        target: What the model is for, one of `TARGETS`.

    Returns:
        What each pass did, in the order they ran; runs after the first round that changed
        nothing are left out.

    Raises:
        ModelError: `model` is invalid.
        UnsupportedError: `target` is not known.
        PassError: A pass broke the graph.
    """
    if target not in TARGETS:
        raise UnsupportedError(
            f"there is no target {target!r}",
            where="leptonc.passes.optimize",
            fix=f"choose one of {', '.join(TARGETS)}",
        )
    # Checks the model before anything else looks at it.
    run_passes(model, ())
    results: list[PassStats] = []
    for number in range(_MOST_ROUNDS):
        facts = infer_facts(model)
        first = (Clean(facts),) if number == 0 else ()
        stats = run_passes(model, (*first, Fold(facts=facts), Share(), Clean(facts)))
        changed = any(step.changed for step in stats[len(first) :])
        results.extend(step for step in stats if number == 0 or step.changed)
        if not changed:
            break
    return tuple(results)
