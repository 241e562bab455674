"""Runs a variant of an artifact on ONNX Runtime's CUDA provider.

Bound arrays have places on the GPU that stay the same from run to run: a run copies the inputs in,
computes, and copies the outputs out, and allocates nothing. With CUDA graphs the kernels of a bound
run are recorded once and replayed, which takes the time to launch them off small models.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact
from leptonc.runtime.engines.ort.cuda_provider import session_on_cuda
from leptonc.runtime.engines.ort.library import (
    engine_failures,
    no_asynchronous_runs,
    no_device_arrays,
    session_options,
)
from leptonc.runtime.engines.ort.weights import give_file
from leptonc.runtime.errors import EngineError, UnsupportedError
from leptonc.runtime.inputs import Array, Arrays

_DEVICE = "cuda"
_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"


@dataclass(frozen=True)
class CudaBinding:
    """Arrays with their places on the GPU.

    Attributes:
        binding: The engine's own.
        inputs: Each array with its copy on the GPU.
        outputs: The same for what is computed.
        run_options: Which recorded run this is.
    """

    binding: Any
    inputs: tuple[tuple[Array, Any], ...]
    outputs: tuple[tuple[Array, Any], ...]
    run_options: Any


class CudaEngine:
    """ONNX Runtime on a GPU, over a variant of an artifact."""

    def __init__(
        self, engine: Any, artifact: Artifact, variant: Variant, *, graphs: bool = False
    ) -> None:
        """Hand the graph and its weights to the GPU.

        Args:
            engine: The onnxruntime module.
            artifact: Open, and verified if it is to be.
            variant: One of its variants for this engine, of device "gpu".
            graphs: Record bound runs and replay them.

        Raises:
            EngineMissingError: This onnxruntime has no CUDA provider.
            MachineError: There is no GPU that it can use.
            EngineError: ONNX Runtime refuses the graph.
        """
        self._engine = engine
        self._variant = variant
        self._where = artifact.path
        self._graphs = graphs
        self._failures = engine_failures(engine)
        self._numbers = itertools.count(1)
        options = session_options(engine)
        graph = bytes(artifact.view(variant.graph))
        declared, kept = give_file(options, artifact, variant)
        try:
            self._session = session_on_cuda(
                engine, graph + declared, options, variant.options, graphs=graphs
            )
        except self._failures as error:
            raise EngineError(
                f"ONNX Runtime cannot load the graph on the GPU: {_first_line(error)}",
                where=f"{artifact.path}, variant {variant.name!r}",
                fix="compile the model again with this version of onnxruntime-gpu"
                + ("; or load it without CUDA graphs" if graphs else ""),
            ) from error
        artifact.check_not_replaced()
        # The weights are on the GPU now.
        del kept
        artifact.release_pages()
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Run once; safe to call from many threads.

        Raises:
            EngineError: ONNX Runtime fails; the message is its own.
        """
        options = self._run_options(_NO_GRAPH) if self._graphs else None
        try:
            values = self._session.run(self._outputs, dict(inputs), options)
        except self._failures as error:
            raise _failed(error, inputs) from error
        return dict(zip(self._outputs, values, strict=False))

    def start(self, inputs: Mapping[str, Array]) -> NoReturn:
        """Refuse: every run is waited for."""
        del inputs
        raise no_asynchronous_runs(self._variant, self._where)

    def finish(self) -> None:
        """Return when runs go at full speed: at once."""

    def bind(self, inputs: Arrays, outputs: Arrays) -> CudaBinding:
        """Give these arrays places on the GPU.

        Raises:
            UnsupportedError: An array of a type that the GPU has no place for.
        """
        make = self._engine.OrtValue
        placed = []
        for name, array in (*inputs.items(), *outputs.items()):
            if array.dtype.kind not in "biuf":
                raise UnsupportedError(
                    f"{name!r} of type {array.dtype} cannot be bound on a GPU",
                    where=name,
                    fix="call the session with it instead",
                )
            value = make.ortvalue_from_shape_and_type(array.shape, array.dtype.type, _DEVICE, 0)
            placed.append((name, array, value))
        binding = self._session.io_binding()
        count = len(inputs)
        for name, _, value in placed[:count]:
            binding.bind_ortvalue_input(name, value)
        for name, _, value in placed[count:]:
            binding.bind_ortvalue_output(name, value)
        number = str(next(self._numbers)) if self._graphs else _NO_GRAPH
        return CudaBinding(
            binding,
            tuple((array, value) for _, array, value in placed[:count]),
            tuple((array, value) for _, array, value in placed[count:]),
            self._run_options(number) if self._graphs else None,
        )

    def run_bound(self, bound: CudaBinding, inputs: Arrays) -> None:
        """Copy the inputs to the GPU, run, and copy the outputs back.

        Raises:
            EngineError: ONNX Runtime fails; the message is its own.
        """
        try:
            for array, value in bound.inputs:
                value.update_inplace(array)
            bound.binding.synchronize_inputs()
            self._session.run_with_iobinding(bound.binding, bound.run_options)
            bound.binding.synchronize_outputs()
            for array, value in bound.outputs:
                np.copyto(array, value.numpy())
        except self._failures as error:
            raise _failed(error, inputs) from error

    def on_gpu(self) -> NoReturn:
        """Refuse: it copies arrays of the host to places of its own."""
        raise no_device_arrays(self._variant, self._where)

    def close(self) -> None:
        """Do nothing: memory is let go of with the last run that refers to it."""

    def _run_options(self, graph: str) -> Any:
        options = self._engine.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, graph)
        return options


def _failed(error: BaseException, inputs: Mapping[str, Array]) -> EngineError:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
    return EngineError(
        f"ONNX Runtime failed on the GPU: {_first_line(error)}",
        where=f"inputs {shapes}" if shapes else None,
        fix="if it is out of memory, use smaller batches; else compile again to verify the artifact",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
