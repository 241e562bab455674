"""The settings of a compile: one frozen dataclass, each field with its flag, check and help.

Every field but the source can stand in a file beside the recipe (`recipe.toml` for `recipe.py`)
under `[compile]`, spelt as its flag with underscores; flags win over the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonc.backends.option import Option, described, option, options_of
from leptonc.backends.rows import BACKENDS, REQUIREMENTS
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.gates import Gate
from leptonc.compiler.settings.goals import Goal, parse_goals
from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.passes.quantize.methods import BLOCKS, METHODS
from leptonc.passes.ranges.methods import METHODS as RANGE_METHODS

if TYPE_CHECKING:
    from leptonc.passes.quantize.default_plan import Quantization

QUANTIZED = ("int8", "int4")
PRECISIONS = ("fp32", "fp16", "bf16", *QUANTIZED, "auto")


def _understood(text: object) -> str:
    """Check a tolerance that is read later, when the precision is known."""
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is not a text")
    Tolerance.parse(text)
    return text


def _drop(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"{value!r} is not a drop such as 0.5% or 0.003")
    return str(value)


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """What to compile and how.

    Attributes:
        source: A recipe, `module:attribute`, .onnx, .pt2 or model folder.
        output: The artifact to write.
        target: Targets as `backend-device`, one variant each.
        precision: The arithmetic of the artifact.
        verify: Prove the artifact against the source.
        tolerance: What still counts as the same answer; None for the default of the precision.
        opset: The ONNX operator set to export to.
        require: `portable` runs on any machine, `native` only on machines with the
            instruction sets of this one.
        simplify: Run onnxsim as well.
        plugins: Run the passes that other distributions bring.
        inputs: An .npz file with example inputs.
        gate: Budgets that the artifact must keep.
        options: What is asked of the backends of the targets, by the name of the backend: of the
            type of its row's `options`.
        calibration: A table of ranges from `leptonc calibrate`, for static layers.
        quantization: "auto", "static", "dynamic" or "weight-only".
        range_method: How ranges follow from what calibration observed.
        percentile: For the range method "percentile": above 50, at most 100.
        block_size: Rows of a weight that share a scale; None for the default of the method.
        max_error: How far a quantised model may be from the source, e.g. `sqnr=30`.
        evaluate: A figure of the source's evaluation, e.g. `accuracy` or `bits_per_byte:min`.
        max_drop: How much worse that figure may become, e.g. `0.5%`.
        recovery: Win accuracy back by smoothing activations and careful rounding.
    """

    source: str = field(kw_only=False)
    target: tuple[str, ...] = option(
        (BACKENDS[0].targets[0].name,), "backend-device, e.g. ort-cpu; repeatable.", short="-t"
    )
    precision: str = option("fp32", "[default: fp32]", short="-p", choices=PRECISIONS)
    output: Path = field(
        kw_only=False, metadata=Option("[default: NAME.lepton]", short="-o").field_metadata
    )
    opset: int = option(20, "ONNX operator set. [default: 20]", bounds=(18, 23))
    require: str = option("portable", "[default: portable]", choices=REQUIREMENTS)
    calibration: Path | None = option(
        None, "Ranges from `leptonc calibrate`. [default: calibrate now, if ranges are needed]"
    )
    quantization: str | None = option(None, "[default: auto]", choices=METHODS)
    range_method: str | None = option(None, "[default: mse]", choices=tuple(RANGE_METHODS))
    percentile: float | None = option(None, "For --range-method percentile. [default: 99.99]")
    block_size: int | None = option(
        None, "Rows of a weight that share a scale. [default: by method]", choices=BLOCKS
    )
    inputs: Path | None = option(None, "Example inputs as .npz.")
    tolerance: Tolerance | None = option(
        None, "e.g. sqnr=70 (dB) or sqnr=60,relative=0.01.", parse=_understood
    )
    gate: tuple[Gate, ...] = option(
        (), "size=400MB, load=0.5s, latency=20ms, sqnr=90dB.", parse=Gate.parse
    )
    max_error: str | None = option(None, "With -p int8 or int4: sqnr=30 (dB) or cosine=0.999.")
    evaluate: str | None = option(
        None, "With --max-drop: a figure of evaluate(); NAME:min if lower is better."
    )
    max_drop: str | None = option(
        None, "How much worse it may become: 0.5% of it, or 0.003 absolute.", parse=_drop
    )
    recovery: bool = option(True, "Round to the nearest, and smooth nothing.", flag="--no-recovery")
    simplify: bool = option(False, "Run onnxsim as well.")
    plugins: bool = option(True, "Run no passes of other distributions.", flag="--without-plugins")
    options: Mapping[str, Any] = field(default_factory=dict)
    verify: bool = option(True, "Ship unproven.", flag="--no-verify")

    @property
    def accepted(self) -> Tolerance:
        """What still counts as the same answer of the artifact."""
        return self.tolerance or Tolerance.of(self.precision)

    @property
    def exact(self) -> Tolerance:
        """What is expected of the exported graph, which is in float32 whatever the precision."""
        return self.accepted if self.precision == "fp32" else Tolerance()

    @property
    def how_to_quantize(self) -> Quantization:
        """What the user said of quantisation, with the defaults for the rest."""
        from leptonc.passes.quantize.default_plan import Quantization

        default = Quantization()
        return Quantization(
            self.quantization or default.method,
            self.range_method or default.range_method,
            default.percent if self.percentile is None else self.percentile,
            default.block if self.block_size is None else self.block_size,
        )

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What the accuracy search has to keep; empty when there is nothing to search for.

        Raises:
            UsageError: A goal is malformed, or the precision has nothing to search for.
        """
        found = parse_goals(self.max_error, self.evaluate, self.max_drop)
        if found and self.precision not in QUANTIZED:
            raise UsageError(
                f"the goal {found[0].text} is for quantised models; the precision is "
                f"{self.precision}",
                fix="add -p int8, or use --gate sqnr=DECIBELS",
            )
        return found

    def described(self) -> dict[str, str]:
        """Return every setting in words, to be echoed before work starts."""
        return {
            "source": self.source,
            "target": ", ".join(self.target),
            "precision": self.precision,
            **self._described_options(),
            "opset": str(self.opset),
            "require": self.require,
            "simplify": "yes" if self.simplify else "no",
            "plugins": "all that are installed" if self.plugins else "no",
            "inputs": str(self.inputs) if self.inputs else "from the source",
            **self._described_quantization(),
            "verify": f"sqnr >= {self.accepted.sqnr_db:g} dB, "
            f"relative <= {self.accepted.relative:g}"
            if self.verify
            else "no",
            **({"goals": ", ".join(goal.text for goal in self.goals)} if self.goals else {}),
            "gates": ", ".join(gate.text for gate in self.gate) or "none",
            "output": str(self.output),
        }

    def _described_options(self) -> dict[str, str]:
        told = (described(options) for options in self.options.values())
        return {name: text for each in told for name, text in each.items()}

    def _described_quantization(self) -> dict[str, str]:
        if self.precision not in QUANTIZED:
            return {}
        asked = self.how_to_quantize
        ranges = f", ranges by {asked.range_method}" if asked.method in ("auto", "static") else ""
        blocks = f", blocks of {asked.block}" if asked.block else ""
        table = str(self.calibration) if self.calibration else "from the source, if needed"
        return {"quantize": f"{asked.method}{ranges}{blocks}", "ranges": table}


def backend_options() -> dict[str, Option]:
    """Return what can be asked of any backend, by name; where two share a name, the first's."""
    found: dict[str, Option] = {}
    for row in BACKENDS:
        found = (options_of(row.options) if row.options else {}) | found
    return found
