"""Candidates of an accuracy search: graphs of one model under one plan after the other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata

import numpy as np

from leptonc.backends.base import Payload
from leptonc.compiler.job import Job
from leptonc.compiler.measure.layer_seconds import estimated_seconds, layer_seconds
from leptonc.compiler.quantization.float_graph import FloatGraph, quantized
from leptonc.compiler.running.graph_runner import node_seconds
from leptonc.passes.quantize.plan import QuantizationPlan, find_layers

ENGINES = ("onnxruntime", "numpy", "leptonc")


class Candidates:
    """Builds and times them."""

    def __init__(self, job: Job, floats: FloatGraph) -> None:
        """Begin with none.

        Args:
            job: Says what to build for; its folder must outlive what is built.
            floats: The float graph that plans are for.
        """
        target = job.target
        self.floats = floats
        # Whether what is built is what runs later, so that its times mean something.
        self.timed = target.row.timed
        self._job = job
        self._numbers = itertools.count()

    def build(self, plan: QuantizationPlan) -> Payload:
        """Make the engine's graph under a plan; under one without choices the float graph."""
        target = self._job.target
        model, _ = quantized(replace(self.floats, plan=plan), target)
        if not target.row.timed:
            # It is built once, when the plan is settled; until then its graph with Q and DQ runs
            # on the CPU, as it is proven there.
            return Payload({"options": {}}, b"", (), {}, model)
        folder = self._job.folder / f"candidate-{target.name}-{next(self._numbers)}"
        folder.mkdir()
        return self._job.backend.build(model, target, folder)

    def seconds(
        self, plan: QuantizationPlan, inputs: Mapping[str, np.ndarray]
    ) -> Mapping[str, float]:
        """Return the seconds of each layer under a plan in one call, or an estimate of them."""
        model = self.floats.model
        if not self.timed:
            return estimated_seconds(model, plan)
        payload = self.build(plan)
        return layer_seconds(payload.model(), find_layers(model), node_seconds(payload, inputs))

    def depend_on(self) -> dict[str, str]:
        """Return what measurements depend on beside the graph: versions and target."""
        target = self._job.target
        versions = {name: metadata.version(name) for name in ENGINES}
        return {**versions, "target": target.name, "require": target.require}
