"""Run a graph over calibration data and add up what its tensors hold.

The samples go through the graph one at a time. While the engine computes one, a thread adds up
what the one before it showed. The totals hold whole samples only, at any time, so an
interrupted run leaves a checkpoint from which it can go on, and counts nothing twice.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import onnx_ir as ir

from leptonc.compiler.calibration.data import open_batches
from leptonc.compiler.calibration.samples import Cut, Sample, find_cut
from leptonc.compiler.errors import CalibrationError
from leptonc.compiler.export.interface import signature_of
from leptonc.compiler.running.graph_runner import GraphRunner
from leptonc.compiler.settings.calibration_settings import Checkpoint
from leptonc.compiler.sources.source import Source
from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.graph.fingerprint import fingerprint
from leptonc.passes.ranges.file import read_checkpoint, write_ranges
from leptonc.passes.ranges.observed import Observed, observed_tensors
from leptonc.passes.ranges.table import Ranges
from leptonc.passes.ranges.totals import NotObservableError, RangeTotals
from leptonc.runtime.arrays import Arrays
from leptonc.runtime.errors import EngineError, LeptonError

# Gets how many samples were run, and which part of the data that is, or None when unknown.
Report = Callable[[int, float | None], None]


def observe_ranges(
    model: ir.Model,
    source: Source,
    *,
    data: str | None = None,
    limit: int | None = None,
    checkpoint: Checkpoint | None = None,
    report: Report | None = None,
) -> Ranges:
    """Return the calibration table of a graph.

    Args:
        model: The graph after the `canonical` stage; unchanged.
        source: What it was exported from, with its example inputs and dynamic dimensions.
        data: As `open_batches` takes it; None for the data of the recipe.
        limit: Use at most so many samples.
        checkpoint: Where to keep an unfinished run, or None to lose it. It stays there: the
            caller removes it once the table is safe.
        report: Called after each sample.

    Raises:
        CalibrationError: There is no data, or data or activations that cannot be right.
        RangesError: The checkpoint is of another graph, or damaged.
        RecipeError: The user's data code failed.
        EngineError: ONNX Runtime refuses the graph, or fails while running it.
    """
    batches = open_batches(data, source)
    run = _Run.start(model, source, checkpoint)
    samples = run.cut.samples(batches, limit=limit)
    inputs = _InputValues()
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            for sample in samples:
                inputs.look(sample)
                if sample.number < run.resumed:
                    run.skip(sample)
                    continue
                run.observe(sample, pool)
                if report is not None:
                    report(sample.number + 1, sample.share)
            run.settle()
            run.require_all(inputs.samples, batches.name)
            inputs.require_variety()
        except BaseException as error:
            pool.shutdown()
            run.keep(error)
            raise
    return run.totals.ranges()


class _Run:
    """The state of one run: the session, the totals, and the sample that is being added."""

    def __init__(
        self, runner: Callable[[Mapping[str, np.ndarray]], Arrays], cut: Cut, totals: RangeTotals
    ) -> None:
        self.cut = cut
        self.totals = totals
        self.resumed = totals.samples
        self._runner = runner
        self._checkpoint: Checkpoint | None = None
        self._expected_chain: str | None = None
        # Of the samples in their order: data that changed in between cannot be resumed.
        self._chain = hashlib.sha256()
        self._pending: Future[None] | None = None
        self._saved = time.monotonic()

    @classmethod
    def start(cls, model: ir.Model, source: Source, checkpoint: Checkpoint | None) -> _Run:
        """Open a session on the graph, and go back to the checkpoint if there is one."""
        tensors, aliases = observed_tensors(model, infer_facts(model))
        if not tensors:
            raise CalibrationError(
                "the model has nothing to quantise: no convolution and no matrix product",
                where=source.name,
            )
        graph = fingerprint(model)
        earlier, chain = _earlier(checkpoint)
        if earlier is not None:
            earlier.require_graph(graph)
            earlier.require_tensors(each.name for each in tensors)
        inputs = {value.name for value in model.graph.inputs}
        outputs = [str(value.name) for value in model.graph.outputs]
        inner = [each.name for each in tensors if each.name not in {*inputs, *outputs}]
        runner = GraphRunner(model, extra_outputs=inner, optimised=True)

        def answer(arrays: Mapping[str, np.ndarray]) -> Arrays:
            found = runner(arrays)
            return {name: found[name] for name in outputs}

        signature = signature_of(model, source.axes)
        cut = find_cut(source, signature, answer)
        run = cls(runner, cut, RangeTotals(graph, tensors, aliases, earlier))
        run._checkpoint, run._expected_chain = checkpoint, chain
        return run

    def skip(self, sample: Sample) -> None:
        """Pass over a sample that the checkpoint holds, and see that it is the same one."""
        self._chain.update(sample.digest)
        last = sample.number + 1 == self.resumed
        if last and self._chain.hexdigest() != self._expected_chain:
            raise CalibrationError(
                f"the first {self.resumed} samples are not those that the checkpoint was made of",
                where=str(self._checkpoint.path) if self._checkpoint else None,
                fix="calibrate with the same data in the same order, or delete the checkpoint "
                "and start again",
            )

    def observe(self, sample: Sample, pool: ThreadPoolExecutor) -> None:
        """Compute one sample, and let what it shows be added while the next one is computed."""
        try:
            found = self._runner(sample.inputs)
        except EngineError as error:
            error.where = f"{sample}; {error.where}"
            raise
        self.settle()
        arrays = {**sample.inputs, **found}
        self._pending = pool.submit(self._add, sample, arrays)
        checkpoint = self._checkpoint
        if checkpoint is not None and time.monotonic() - self._saved >= checkpoint.seconds:
            self.settle()
            self._save(checkpoint)

    def settle(self) -> None:
        """Wait until the last sample is added."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _add(self, sample: Sample, arrays: Arrays) -> None:
        try:
            self.totals.add(arrays, sample.digest)
        except NotObservableError as error:
            raise _not_observable(error.tensor, str(error), sample) from error
        self._chain.update(sample.digest)

    def require_all(self, samples: int, name: str) -> None:
        """Refuse data without a sample, or with fewer than the checkpoint holds.

        Args:
            samples: How many there were, those of the checkpoint included.
            name: What to call the data.

        Raises:
            CalibrationError: There were too few.
        """
        if samples < self.resumed:
            raise CalibrationError(
                f"the checkpoint holds {self.resumed} samples, but the data ends after {samples}",
                where=name,
                fix="calibrate with the same data, without a lower --samples, or delete the "
                "checkpoint and start again",
            )
        if samples == 0:
            raise CalibrationError(
                "no data, no INT8: there is not a single sample",
                where=name,
                fix="give at least one; a few hundred are usual",
            )

    def keep(self, error: BaseException) -> None:
        """Write the checkpoint of a run that ends early, and say so in the error."""
        done = self.totals.samples
        if self._checkpoint is None or not done:
            return
        if done > self.resumed:
            self._save(self._checkpoint)
        told = f"the first {done} samples are kept in {self._checkpoint.path}: go on with --resume"
        if isinstance(error, LeptonError):
            error.fix = f"{error.fix}; {told}" if error.fix else told
        elif isinstance(error, KeyboardInterrupt):
            error.args = (f"interrupted: {told}",)

    def _save(self, checkpoint: Checkpoint) -> None:
        progress = {"chain": self._chain.hexdigest()}
        write_ranges(checkpoint.path, self.totals.ranges(), progress)
        self._saved = time.monotonic()


def _earlier(checkpoint: Checkpoint | None) -> tuple[Ranges | None, str | None]:
    if checkpoint is None or not checkpoint.resume or not checkpoint.path.exists():
        return None, None
    ranges, progress = read_checkpoint(checkpoint.path)
    chain = (progress or {}).get("chain")
    if not isinstance(chain, str):
        raise CalibrationError(
            "this is not the checkpoint of a calibration",
            where=str(checkpoint.path),
            fix="delete it and start again",
        )
    return ranges, chain


def _not_observable(tensor: Observed, what: str, sample: Sample) -> CalibrationError:
    place = f"{tensor.node}, {sample}" if tensor.node else str(sample)
    return CalibrationError(
        f"the activation {tensor.name!r} {what}",
        where=place,
        fix="run that sample through the model by itself: either the sample or the model is wrong",
    )


class _InputValues:
    """Finds inputs that hold one number only in all samples."""

    def __init__(self) -> None:
        self._values: dict[str, object] = {}
        self._constant: dict[str, bool] = {}
        self._floats: set[str] = set()
        self.samples = 0

    def look(self, sample: Sample) -> None:
        self.samples += 1
        for name, array in sample.inputs.items():
            if not self._constant.get(name, True):
                continue
            first = self._values.setdefault(name, array.flat[0])
            self._constant[name] = bool(np.all(array == first))
            if array.dtype.kind == "f" and array.size > 1:
                self._floats.add(name)

    def require_variety(self) -> None:
        """Refuse constant data.

        A mask of ones or a scalar setting may be constant; a signal may not, and not everything.

        Raises:
            CalibrationError: With the name of the input.
        """
        constant = [name for name, same in self._constant.items() if same]
        odd = constant if len(constant) == len(self._constant) else []
        for name in [*(name for name in constant if name in self._floats), *odd]:
            raise CalibrationError(
                f"the input {name!r} is constant: {self._values[name]} everywhere",
                where=f"samples 0 to {self.samples - 1}",
                fix="calibrate with real data: ranges of constant data fit nothing else",
            )
