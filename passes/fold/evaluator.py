"""Evaluates a plan: small results together, large ones one at a time.

Opening an engine costs more than computing most small results, hence together. A large result
is computed to see that it can be, and thrown away: what goes into the graph is a lazy tensor
that computes it again when it is read. So folding needs memory for one large result at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from leptonc.passes.facts.facts import Facts
from leptonc.passes.fold.program import Program, make_program, relabelled
from leptonc.passes.fold.region import Plan, cone, heavy_nodes

Results = dict[ir.Value, ir.TensorProtocol]
Failures = dict[ir.Node, str]


class EvaluationError(Exception):
    """The engine could not compute a program; the message is its own."""


@dataclass(frozen=True)
class Evaluator:
    """Computes the frontier of a plan.

    Attributes:
        plan: What to compute.
        facts: The types and shapes that the plan was made with.
        opsets: The operator versions of the graph.
        run: The engine: computes the outputs of a program, or raises EvaluationError.
    """

    plan: Plan
    facts: Facts
    opsets: dict[str, int]
    run: Callable[[Program], list[ir.TensorProtocol]]

    def evaluate(self) -> tuple[Results, Failures]:
        """Return the frontier's tensors, and the nodes that failed with what the engine said."""
        results: Results = {}
        failures: Failures = {}
        heavy = heavy_nodes(self.plan.nodes, self.facts)
        small = [value for value in self.plan.frontier if value.producer() not in heavy]
        try:
            results.update(self._compute(small))
        except EvaluationError:
            for value in small:
                self._compute_alone(value, results, failures)
        for value in self.plan.frontier:
            if value.producer() not in heavy:
                continue
            moved = relabelled(value, self.plan.nodes, self.facts)
            if moved is not None:
                results[value] = moved
                continue
            self._compute_alone(value, results, failures)
            if value in results:
                results[value] = self._again(value, results[value])
        return results, failures

    def _compute(self, values: Sequence[ir.Value]) -> Results:
        if not values:
            return {}
        results = dict(zip(values, self.run(self._program(values)), strict=True))
        for value, tensor in results.items():
            if tensor.dtype != self.facts.dtype(value):
                raise EvaluationError(f"the engine computed {tensor.dtype.name}, of all types")
            if tensor.nbytes > self.plan.frontier.get(value, tensor.nbytes):
                raise EvaluationError("its result is larger than its shape allows")
        return results

    def _compute_alone(self, value: ir.Value, results: Results, failures: Failures) -> None:
        """Compute one value; when that fails, blame the first node that fails."""
        try:
            results.update(self._compute([value]))
            return
        except EvaluationError as error:
            reason = str(error)
        for node in cone([value], self.plan.nodes):
            try:
                self._compute([output for output in node.outputs if output.name])
            except EvaluationError as error:
                failures[node] = str(error)
                return
        producer = value.producer()
        assert producer is not None
        failures[producer] = reason

    def _program(self, values: Sequence[ir.Value]) -> Program:
        return make_program(cone(values, self.plan.nodes), values, self.facts, self.opsets)

    def _again(self, value: ir.Value, result: ir.TensorProtocol) -> ir.LazyTensor:
        """Return a tensor that computes `value` anew whenever it is read."""
        program, run = self._program([value]), self.run

        def compute() -> ir.TensorProtocol:
            return run(program)[0]

        shape = ir.Shape(result.shape.numpy())
        return ir.LazyTensor(compute, dtype=result.dtype, shape=shape, name=value.name)
