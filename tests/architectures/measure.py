"""What the passes make of a tiny model: how many nodes, by which rules, how far from the module."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx_ir as ir
from architectures import TinyModel
from exports import kept_export

from leptonc.compiler.export.onnx_export import ExportedGraph
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.sources.source import Source, open_source
from leptonc.compiler.verification.comparison import OutputError, Tolerance, compare_outputs
from leptonc.compiler.verification.trials import Trial, reference_trials
from leptonc.passes import PassStats, optimize
from leptonc.passes.graph.structure import count_nodes
from leptonc.passes.schedule import STAGES
from leptonc.passes.targets import GENERIC, ORT_CPU

RECIPES = Path(__file__).with_name("architectures.py")
TARGETS = (GENERIC, ORT_CPU)

# Rounding alone leaves 95 dB and more; a wrong mask or a missing scale leaves less than 40.
TOLERANCE = Tolerance(sqnr_db=85.0, relative=1e-4)


@dataclass(frozen=True)
class Subject:
    """A tiny model, the right answers at several shapes, and its export."""

    tiny: TinyModel
    source: Source
    trials: tuple[Trial, ...]
    exported: ExportedGraph

    @classmethod
    def of(cls, tiny: TinyModel) -> Subject:
        """Build, run and export `tiny` as the compiler does."""
        source = open_source(f"{RECIPES}:{tiny.name}")
        trials = reference_trials(source)
        return cls(tiny, source, trials, kept_export(source, list(trials[0].expected)))

    def rewritten(self, target: str) -> Rewritten:
        """Optimise a copy of the export for `target`."""
        model = self.exported.model.clone()
        return Rewritten(model, optimize(model, target=target), self.trials)


@dataclass(frozen=True)
class Rewritten:
    """A graph after the passes."""

    model: ir.Model
    stats: tuple[PassStats, ...]
    trials: tuple[Trial, ...]

    @property
    def nodes(self) -> int:
        """How many there are, those of subgraphs and functions included."""
        return count_nodes(self.model)

    @property
    def fused(self) -> Counter[str]:
        """How often each rule fired, but for those that only clean up."""
        tidy = _names_of_canonical_passes()
        return Counter(
            firing.rule for step in self.stats if step.name not in tidy for firing in step.fired
        )

    @cached_property
    def errors(self) -> tuple[OutputError, ...]:
        """Each output at each trial, on ONNX Runtime without rewrites of its own."""
        runner = GraphRunner(self.model)
        return tuple(
            error
            for trial in self.trials
            for error in compare_outputs(trial.expected, runner(trial.inputs), TOLERANCE)
        )

    @property
    def sqnr_db(self) -> float:
        """The lowest of all outputs and trials; infinite when every bit is right."""
        return min((e.sqnr_db for e in self.errors if e.sqnr_db is not None), default=math.inf)


@dataclass(frozen=True)
class Row:
    """One line of the coverage table.

    Attributes:
        architecture: Its name.
        attention: The implementation of attention that was exported.
        exported: Nodes before the passes.
        nodes: Nodes after them, by target.
        fused: How often each rule fired, by target.
        sqnr_db: The lowest of all outputs, shapes and targets.
    """

    architecture: str
    attention: str
    exported: int
    nodes: Mapping[str, int]
    fused: Mapping[str, Counter[str]]
    sqnr_db: float

    @property
    def key(self) -> tuple[str, str]:
        """What tells rows apart."""
        return self.architecture, self.attention


def row_of(subject: Subject, results: Mapping[str, Rewritten]) -> Row:
    """Return the line for what the passes made of `subject`, by target."""
    return Row(
        architecture=subject.tiny.architecture.name,
        attention=subject.tiny.attention,
        exported=count_nodes(subject.exported.model),
        nodes={target: result.nodes for target, result in results.items()},
        fused={target: result.fused for target, result in results.items()},
        sqnr_db=min(result.sqnr_db for result in results.values()),
    )


def _names_of_canonical_passes() -> frozenset[str]:
    return frozenset(one.name for one in STAGES[0].passes)
