"""Rewrites of an `onnx_ir.Model` that keep what it computes, and run it faster or smaller."""

from __future__ import annotations

from dataclasses import replace

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
        What each pass did, in the order they ran; runs that changed nothing are left out after
        the first round. Refusals are those that still stand in the end, with the last fold.

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
        results = [*(replace(step, refused=()) for step in results), *stats]
        if not any(step.changed for step in stats[len(first) :]):
            break
    return _summary(results)


def _summary(results: list[PassStats]) -> tuple[PassStats, ...]:
    """Drop the runs after the first round that did nothing; their refusals go to the last fold."""
    first_round = 1 + len((Fold, Share, Clean))
    kept = [step for number, step in enumerate(results) if number < first_round or step.changed]
    last = max(number for number, step in enumerate(kept) if step.name == Fold.name)
    refused = tuple(refusal for step in results for refusal in step.refused)
    kept[last] = replace(kept[last], refused=refused)
    return tuple(kept)
