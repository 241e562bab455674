"""Which passes run, in which order, and until when.

canonical: what computes nothing goes, what is constant is computed, what is equal is stored
    once. Exact: every output keeps its bits. Calibration tables bind to the graph after it.
fuse: several nodes that compute one thing become that thing. Outputs may change by rounding.
merge: layers become whole: factors go into weights, layers of one input become one product.
lower: what the target runs best, in operators that only its engine has.

Each stage runs until it changes nothing, and all of them until none changes anything: a second
`optimize` finds nothing to do. Half the width and integers come between `merge` and `lower`: they
are made of standard operators, and `lower` sees what is left in float.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from leptonc.passes.base import PassStats
from leptonc.passes.clean.clean import Clean
from leptonc.passes.errors import PassError
from leptonc.passes.facts.facts import Facts, infer_facts
from leptonc.passes.fold.fold import Fold
from leptonc.passes.fusions.activation.fuse import FUSE_ACTIVATION
from leptonc.passes.fusions.attention.fuse import FUSE_ATTENTION, LOWER_ATTENTION, SPLIT_ATTENTION
from leptonc.passes.fusions.conv.fuse import FUSE_CONVOLUTION
from leptonc.passes.fusions.linear.fuse import FUSE_LINEAR, LOWER_LINEAR, PLAIN_LINEAR
from leptonc.passes.fusions.norm.fuse import FUSE_NORMALIZATION
from leptonc.passes.fusions.residual.fuse import FUSE_RESIDUAL
from leptonc.passes.fusions.rotary.fuse import FUSE_ROTARY
from leptonc.passes.lower.conv_activation import LOWER_CONVOLUTION
from leptonc.passes.lower.slices import LOWER_SLICES
from leptonc.passes.lower.standard_operators import STANDARD_OPERATORS
from leptonc.passes.movement.movement import SHAPES
from leptonc.passes.pipeline import Context, Pass, require_valid, run_on_valid
from leptonc.passes.plugins import Plugin, plugin_passes
from leptonc.passes.precision.precision import Precision
from leptonc.passes.share.share import Share
from leptonc.passes.simplify import Simplify
from leptonc.passes.targets import TARGETS
from leptonc.runtime.errors import UnsupportedError

# Each round after the first needs something that the one before made possible. A chain of shape
# computations takes a round per link that the inference cannot see through.
_MOST_ROUNDS = 64

CANONICAL, MERGE, LOWER = "canonical", "merge", "lower"


@dataclass(frozen=True)
class Stage:
    """Passes that run one after the other until none changes anything.

    Attributes:
        name: "canonical", "fuse", "merge" or "lower".
        passes: In their order.
        any_order: Whether the same nodes come out whichever of the passes runs first.
    """

    name: str
    passes: tuple[Pass, ...]
    any_order: bool = False


STAGES = (
    Stage(CANONICAL, (Clean(), Fold(), SHAPES, Share()), any_order=True),
    Stage(
        "fuse",
        (
            PLAIN_LINEAR,
            FUSE_CONVOLUTION,
            FUSE_ACTIVATION,
            FUSE_NORMALIZATION,
            FUSE_ROTARY,
            FUSE_ATTENTION,
            Clean(),
        ),
    ),
    Stage(MERGE, (FUSE_LINEAR, LOWER_SLICES, Clean()), any_order=True),
    Stage(
        LOWER,
        (LOWER_LINEAR, LOWER_ATTENTION, FUSE_RESIDUAL, LOWER_CONVOLUTION, Clean()),
        any_order=True,
    ),
)

# Those that only run where the target, the precision or the user asks for them.
ON_DEMAND: tuple[Pass, ...] = (STANDARD_OPERATORS, SPLIT_ATTENTION, Precision(), Simplify())

# Each once, in the order in which they first run.
PASSES: tuple[Pass, ...] = tuple(
    {
        step.name: step for step in (*(one for stage in STAGES for one in stage.passes), *ON_DEMAND)
    }.values()
)


def optimize(
    model: ir.Model,
    *,
    target: str = "generic",
    plugins: Sequence[Plugin] = (),
    since: str = CANONICAL,
    upto: str = LOWER,
) -> tuple[PassStats, ...]:
    """Rewrite `model` in place for `target`, until there is nothing left to do.

    The inputs and outputs of the graph keep their names, order, types and shapes.

    Args:
        model: Any valid model; weights may be external and are not read as a whole.
        target: What the model is for, one of `TARGETS`.
        plugins: Passes of others, which run at the end of their stages: `load_plugins()` of
            `leptonc.passes.plugins` finds those that are installed.
        since: The first stage: "lower" for a graph that is quantised, whose constants the stages
            before would compute.
        upto: The last stage: "canonical" for what calibration tables bind to, "merge" for a graph
            that is still to be quantised or narrowed.

    Returns:
        What each pass did, in the order they ran; a pass that ran before is listed again only
        when it changed something. Refusals are those that still stand in the end, with the
        last entry of their pass.

    Raises:
        ModelError: `model` is invalid.
        UnsupportedError: `target` is not known.
        PassError: A pass broke the graph, or the passes do not come to an end.
        PluginError: One of `plugins` failed or broke the graph.
    """
    _require_target(target)
    # Checks the model before anything else looks at it.
    require_valid(model)
    work = _Work(model, target, plugins)
    names = [stage.name for stage in STAGES]
    stages = STAGES[names.index(since) : names.index(upto) + 1]
    settled: dict[str, int] = {}
    while any(settled.get(stage.name) != work.version for stage in stages):
        for stage in stages:
            work.settle(stage)
            settled[stage.name] = work.version
    return summary(work.results)


def _require_target(target: str) -> None:
    if target not in TARGETS:
        raise UnsupportedError(
            f"there is no target {target!r}",
            where="leptonc.passes.optimize",
            fix=f"choose one of {', '.join(TARGETS)}",
        )


class _Work:
    """The state of one `optimize`."""

    def __init__(self, model: ir.Model, target: str, plugins: Sequence[Plugin]) -> None:
        self.model = model
        self.target = target
        self.plugins = plugins
        self.version = 0
        self.results: list[PassStats] = []
        self._facts: tuple[int, Facts] | None = None
        self._moved_sizes = False
        self._idle: dict[str, tuple[int, Facts]] = {}
        self._rounds = 0

    def settle(self, stage: Stage) -> None:
        """Run the passes of `stage` until they change nothing."""
        while True:
            before = self.version
            stats = self._round(stage)
            if self.version == before:
                return
            self._rounds += 1
            if self._rounds > _MOST_ROUNDS:
                restless = ", ".join(step.name for step in stats if step.changed)
                raise PassError(
                    "the passes do not come to an end",
                    where=f"stage {stage.name!r}, where these go on changing it: {restless}",
                    fix="this is a bug in leptonc, or in a plugin among these: "
                    "please report it with the model",
                )

    def _round(self, stage: Stage) -> tuple[PassStats, ...]:
        """Run each pass once, but for those that just found nothing to do in this very graph."""
        facts = self._current_facts()
        ours = [one for one in stage.passes if self._idle.get(one.name) != (self.version, facts)]
        passes = (*ours, *plugin_passes(self.plugins, stage.name, self.target))
        stats = run_on_valid(self.model, passes, Context(self.target, facts))
        for number, found in enumerate(stats):
            if found.changed:
                self.version += 1
                self._moved_sizes |= stage.name == CANONICAL
            elif number < len(ours):
                self._idle[found.name] = self.version, facts
        self.results.extend(stats)
        return stats

    def _current_facts(self) -> Facts:
        """Return the facts of the graph as it is now.

        Rules that fuse carry over what is known of the values they replace. Inference is only
        needed where they could not, and where sizes became known that were not.
        """
        if self._facts is None or self._moved_sizes:
            self._facts = self.version, infer_facts(self.model)
        elif self._facts[0] != self.version:
            facts = self._facts[1]
            self._facts = (
                self.version,
                facts if facts.cover(self.model) else infer_facts(self.model),
            )
        self._moved_sizes = False
        return self._facts[1]


def summary(results: Sequence[PassStats]) -> tuple[PassStats, ...]:
    """Drop repeated runs that did nothing; keep the refusals of the last run of each pass."""
    last = {step.name: step.refused for step in results}
    seen: set[str] = set()
    kept: list[PassStats] = []
    for step in results:
        if step.changed or step.name not in seen:
            seen.add(step.name)
            kept.append(replace(step, refused=()))
    final = {step.name: number for number, step in enumerate(kept)}
    for name, number in final.items():
        kept[number] = replace(kept[number], refused=last[name])
    return tuple(kept)
