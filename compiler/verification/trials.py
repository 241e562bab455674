"""Prove a finished artifact against the source model.

The reference outputs come from the source itself, at the example's shape and at two further
ones. The artifact is loaded by the runtime in a process of its own, as a service would load
it, and every output is compared. What was seen becomes the evidence in the manifest.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leptonc.compiler.errors import ExportError, RecipeError, VerificationError
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.sources.dimensions import example_sizes, probe_sizes, resize_inputs
from leptonc.compiler.sources.source import Source
from leptonc.compiler.sources.user_code import line_of_error
from leptonc.compiler.verification.comparison import OutputError, compare_outputs
from leptonc.compiler.workspace import scratch_folder
from leptonc.runtime.arrays import Arrays, load_arrays, save_arrays
from leptonc.runtime.errors import EngineError, LeptonError


@dataclass(frozen=True)
class Trial:
    """Inputs at one setting of the dynamic dimensions, and the right outputs for them."""

    sizes: Mapping[str, int]
    inputs: Arrays
    expected: Arrays


@dataclass(frozen=True)
class TrialResult:
    """How the outputs of one trial compare."""

    sizes: Mapping[str, int]
    errors: tuple[OutputError, ...]

    @property
    def passed(self) -> bool:
        """Whether every output is within tolerance."""
        return all(error.problem is None for error in self.errors)

    def to_json(self) -> dict[str, object]:
        """Return the figures for the manifest."""
        return {
            "sizes": dict(self.sizes),
            "outputs": [error.to_json() for error in self.errors],
        }


def reference_trials(source: Source) -> tuple[Trial, ...]:
    """Run the source at the example's shape and at two further ones inside the bounds.

    An .onnx file declares dimensions that it may not honour in every combination; a shape at
    which the file itself cannot run is left out.

    Raises:
        VerificationError: The module fails on its own example inputs.
    """
    example = example_sizes(source.inputs, source.axes)
    trials: list[Trial] = []
    for sizes in (example, *probe_sizes(source.inputs, source.axes)):
        inputs = resize_inputs(source.inputs, source.axes, sizes)
        try:
            expected = source.reference(inputs)
        except LeptonError as error:
            if source.kind == "onnx" and trials and isinstance(error, EngineError):
                continue
            if source.kind == "onnx" and error.fix is None:
                error.fix = "give example inputs that the model takes: --inputs example.npz"
            raise
        except (Exception, SystemExit) as error:
            raise _module_failed(error, source, inputs, first=not trials) from error
        trials.append(Trial(sizes, inputs, expected))
    return tuple(trials)


def require_repeatable(source: Source, trial: Trial, tolerance: Tolerance) -> None:
    """Run the source on `trial` again and compare.

    Raises:
        ExportError: The answers differ.
    """
    again = source.reference(trial.inputs)
    for error in compare_outputs(trial.expected, again, tolerance):
        if error.problem is not None:
            raise ExportError(
                f"the model does not answer the same twice: output {error.output!r} differs for "
                f"the same inputs ({error.problem})",
                where=source.name,
                fix="a compiled model is a function of its inputs: take random numbers and what "
                "is remembered from call to call out of forward(), or make them inputs",
            )


def _module_failed(
    error: BaseException, source: Source, inputs: Mapping[str, np.ndarray], *, first: bool
) -> LeptonError:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
    line = line_of_error(error, source.user_code)
    if first:
        return RecipeError(
            f"the module fails on its example inputs: {type(error).__name__}: {error}",
            where=f"{line or source.name} with {shapes}",
            fix="make example_inputs() something that build()'s module accepts as keywords",
        )
    return RecipeError(
        "the module fails at a shape inside the bounds of dynamic_shapes(): "
        f"{type(error).__name__}: {error}",
        where=f"{line or source.name} with {shapes}",
        fix="narrow the bounds, or leave the dimension out of dynamic_shapes()",
    )


def run_trials(
    artifact: str,
    trials: Sequence[Trial],
    tolerance: Tolerance,
    *,
    device: str = "cpu",
    variant: str | None = None,
) -> tuple[TrialResult, ...]:
    """Load `artifact` with the runtime in a process of its own and compare every output.

    A large model answers its first call from the mapped weights and later ones from packed
    weights. Both must be right, so a single trial is run twice and its worse result returned.

    Raises:
        VerificationError: The process failed or died; a difference is a result, not an error.
    """
    runs = tuple(trials) * 2 if len(trials) == 1 else tuple(trials)
    with scratch_folder() as folder:
        arguments: list[str] = []
        for index, trial in enumerate(runs):
            save_arrays(folder / f"inputs-{index}.npz", trial.inputs)
            arguments += [str(folder / f"{kind}-{index}.npz") for kind in ("inputs", "outputs")]
        _run_child(artifact, arguments, device=device, variant=variant)
        results = tuple(
            TrialResult(
                trial.sizes,
                compare_outputs(
                    trial.expected, load_arrays(folder / f"outputs-{index}.npz"), tolerance
                ),
            )
            for index, trial in enumerate(runs)
        )
    if len(results) > len(trials):
        return results[:1] if not results[0].passed else results[1:]
    return results


def _run_child(
    artifact: str, arguments: Sequence[str], *, device: str, variant: str | None
) -> None:
    runtime = [sys.executable, "-P", "-m", "leptonc.runtime", "--device", device]
    chosen = [] if variant is None else ["--variant", variant]
    command = [*runtime, *chosen, artifact, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if done.returncode < 0:
        raise VerificationError(
            f"the process that loaded the artifact was killed by signal {-done.returncode}",
            fix="out of memory, or a crash in the engine: run `leptonc run` on it to see more",
        )
    raise VerificationError(
        f"the runtime could not run the artifact:\n{done.stderr.strip()}",
        fix="this is a bug in leptonc or in the engine; please report it with this message",
    )
