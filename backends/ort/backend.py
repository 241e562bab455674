"""Builds for ONNX Runtime. On CPU its own optimiser runs here, in CI, and not at load.

1. The graph goes to a file with external weights, so models over 2 GB are ordinary.
2. ONNX Runtime's optimiser rewrites it up to the extended level. The last level rearranges
   convolution weights for the instruction set of the machine it runs on; it runs at load,
   which takes little, unless the target is this kind of machine (`require="native"`).
3. The result is read back, put into canonical form, and opened as the runtime opens it; the
   engine's own report says which provider took each node.

For a GPU, see `leptonc.backends.ort.cuda`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from leptonc.backends.base import Payload, Progress, Target, Unsupported, ignore_progress
from leptonc.backends.canonical_graph import Detached, canonicalise
from leptonc.backends.errors import BuildError, UnsupportedInterfaceError
from leptonc.backends.ort.cuda import build_for_cuda
from leptonc.backends.ort.integers import read_integers
from leptonc.backends.ort.read_back import read_graph
from leptonc.backends.ort.session import demands, optimise, read_placement
from leptonc.backends.saved_graph import saved
from leptonc.passes.precision.half_types import HALF_TYPES
from leptonc.runtime.artifact.dtypes import ELEMENT_TYPES
from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact
from leptonc.runtime.engines.ort.library import import_engine
from leptonc.runtime.errors import UnsupportedError
from leptonc.runtime.machine import instruction_sets

MAX_OPSET = 26
MAX_IR = 13
MIN_IR = 8
# A quantised graph says in itself what is computed in integers.
PRECISIONS = ("fp32", "int8", "int4")
# Instruction sets that choose the block size and kernels of rearranged convolutions.
LAYOUT_INSTRUCTIONS = ("avx", "avx2", "fma", "avx512f", "asimd")
# Slower on CPU than what they replace: SkipLayerNormalization than Add and LayerNormalization,
# BiasGelu than Add and Gelu.
SLOW_ON_CPU = ("SkipLayerNormFusion", "BiasGeluFusion")
# It moves zeros that stand before a MaxPool into its own padding, which is minus infinity.
WRONG = ("Pad_Fusion",)
DISABLED = (*SLOW_ON_CPU, *WRONG)
_NCHWC = "com.microsoft.nchwc"
_OTHER = "use the target ort-cpu"
_OTHER_PRECISION = "use -p fp32, or a target that computes so: -t ort-cuda takes fp16 and bf16"
_HALF_ON_CPU = {"fp16": "few float16", "bf16": "no bfloat16"}


class OrtBackend:
    """ONNX Runtime, on its CPU or its CUDA execution provider."""

    name: ClassVar[str] = "ort"

    def supports(self, target: Target) -> Unsupported | None:
        """Return why this backend cannot build for `target`, or None when it can."""
        gpu, precision = target.device == "gpu", target.precision
        if target.device not in ("cpu", "gpu"):
            return Unsupported(f"the ort backend does not build for {target.device!r}", _OTHER)
        if not gpu and precision in HALF_TYPES:
            return Unsupported(
                f"ONNX Runtime has {_HALF_ON_CPU[precision]} kernels on a CPU, where it "
                f"would convert to fp32 and back around each node",
                _OTHER_PRECISION,
            )
        if gpu and precision not in ("fp32", *HALF_TYPES):
            return Unsupported(
                f"the ort backend does not build precision {precision!r} for a GPU yet",
                _OTHER_PRECISION,
            )
        if precision not in (*PRECISIONS, *HALF_TYPES):
            return Unsupported(
                f"the ort backend does not build precision {precision!r} yet", _OTHER_PRECISION
            )
        if gpu and target.require == "native":
            return Unsupported(
                "what an ort-cuda artifact demands does not depend on the CPU", _OTHER
            )
        return None

    def read(self, artifact: Artifact, variant: Variant) -> ir.Model:
        """Return the graph of a variant of an open artifact; weights stay in the file."""
        return read_graph(artifact, variant)

    def build(
        self,
        model: ir.Model,
        target: Target,
        workdir: Path,
        progress: Progress = ignore_progress,
    ) -> Payload:
        """Build `model`, which stays as it is.

        Args:
            model: Weights may be in memory or external.
            target: Device "cpu" in one of `PRECISIONS`, or device "gpu".
            workdir: Holds the weights; must outlive the payload.
            progress: Is not called: the engine does not say how far it is.

        Raises:
            UnsupportedOperatorError: ONNX Runtime has no kernel for a node.
            UnsupportedInterfaceError: An input or output is not a tensor of a NumPy type.
            UnsupportedError: The opset is newer than ONNX Runtime reads.
            PlacementError: A node did not land on the device that was asked for, or a quantised
                layer not in integers.
            BuildError: The optimiser changed the interface.
        """
        del progress
        engine = import_engine()
        source = _prepare(model)
        _check_interface(source)
        folder = workdir / target.name
        folder.mkdir(parents=True, exist_ok=True)
        if target.device == "gpu":
            return build_for_cuda(engine, source, target, folder, WRONG)
        convolutions = _has_chained_convolutions(source)
        native = target.require == "native"
        with saved(source, folder) as path:
            optimised = optimise(
                source,
                path,
                folder / "optimised.onnx",
                layout=native and convolutions,
                disabled=DISABLED,
            )
        detached = canonicalise(ir.load(optimised))
        check_same_interface(source, detached.model)
        options = {"disabled_optimizers": ",".join(DISABLED), "optimize": "none"}
        if convolutions and not native:
            options["optimize"] = "layout"
        placement = read_placement(engine, source, detached)
        instructions = _layout_instructions(detached)
        variant = target.variant(demands(engine, detached, instructions), options)
        integers = read_integers(source, detached.model)
        built = detached.model
        return Payload(
            variant, detached.graph, detached.weights, placement, built, integers=integers
        )


def _has_chained_convolutions(model: ir.Model) -> bool:
    """Return whether rearranging pays: a lone convolution converts its input and output back."""
    return sum(node.op_type == "Conv" for node in model.graph.all_nodes()) > 1


def _prepare(model: ir.Model) -> ir.Model:
    """Return a copy at versions that ONNX Runtime reads, without inputs that have defaults."""
    opset = model.opset_imports.get("", 0)
    if opset > MAX_OPSET:
        raise UnsupportedError(
            f"the graph is at opset {opset}; ONNX Runtime reads up to {MAX_OPSET}",
            fix=f"export it at opset {MAX_OPSET} or lower",
        )
    copy = model.clone()
    copy.ir_version = min(max(copy.ir_version or MIN_IR, MIN_IR), MAX_IR)
    required = [v for v in copy.graph.inputs if v.name not in copy.graph.initializers]
    copy.graph.inputs.clear()
    copy.graph.inputs.extend(required)
    return copy


def _check_interface(model: ir.Model) -> None:
    for role, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            if not isinstance(value.type, ir.TensorType):
                raise UnsupportedInterfaceError(
                    f"the {role} {value.name!r} is {value.type or 'of unknown type'}; "
                    "only tensors can cross the interface",
                    where=str(value.name),
                    fix="change the model so that it takes and returns tensors",
                )
            if element_name(value.type.dtype) is None:
                raise UnsupportedInterfaceError(
                    f"the {role} {value.name!r} has the type {value.type.dtype.name}, "
                    "which NumPy does not have",
                    where=str(value.name),
                    fix="cast it inside the model, e.g. to float32 and back",
                )


def element_name(dtype: ir.DataType) -> str | None:
    """Return how NumPy spells an ONNX type, or None when NumPy lacks it."""
    for element in ELEMENT_TYPES.values():
        if element.onnx == int(dtype):
            return element.name if element.native else None
    return None


def check_same_interface(source: ir.Model, built: ir.Model) -> None:
    """Refuse a result whose inputs or outputs are not those of the source.

    Raises:
        BuildError: Names, types or order differ.
    """
    for role, before, after in (
        ("inputs", source.graph.inputs, built.graph.inputs),
        ("outputs", source.graph.outputs, built.graph.outputs),
    ):
        wanted = [(value.name, value.dtype) for value in before]
        found = [(value.name, value.dtype) for value in after]
        if wanted != found:
            raise BuildError(
                f"ONNX Runtime's optimiser changed the {role} from {wanted} to {found}",
                fix="please report this with the model",
            )


def _layout_instructions(detached: Detached) -> list[str]:
    """Return the instruction sets of this machine that a rearranged graph was made for."""
    present = instruction_sets() if _NCHWC in detached.model.opset_imports else ()
    return [name for name in LAYOUT_INSTRUCTIONS if name in present]
