"""The settings of a compile: one frozen dataclass, filled from a TOML file and from flags.

Every field can stand in a file beside the recipe (`recipe.toml` for `recipe.py`) under
`[compile]`, spelt as its flag with underscores; flags win over the file.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leptonc.compiler.errors import UsageError
from leptonc.compiler.release.gates import Gate
from leptonc.compiler.settings.goals import Goal, parse_goals
from leptonc.compiler.verification.comparison import Tolerance

if TYPE_CHECKING:
    from leptonc.backends.tensorrt.options import TensorRTOptions
    from leptonc.passes.quantize.default_plan import Quantization

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4", "auto")
QUANTIZED = ("int8", "int4")
REQUIREMENTS = ("portable", "native")
TENSORRT = "tensorrt"
# The fields of TensorRTOptions, which needs the extra `compile` to be imported.
TENSORRT_OPTIONS = (
    *("flavour", "sm", "profile", "builder_level", "workspace", "weight_streaming"),
    *("timing_cache", "version_compatible", "hardware_compatible", "strip_weights"),
)
# As in leptonc.passes.quantize.default_plan and range_methods, which take a second to import.
METHODS = ("auto", "static", "dynamic", "weight-only")
RANGE_METHODS = ("minmax", "average", "percentile", "entropy", "mse")
BLOCKS = (16, 32, 64, 128, 256)
CHOICES = {
    "precision": PRECISIONS,
    "require": REQUIREMENTS,
    "quantization": METHODS,
    "range_method": RANGE_METHODS,
}
FIRST_OPSET, LAST_OPSET = 18, 23


@dataclass(frozen=True)
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
        tensorrt: Options of the target tensorrt, None without it.
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

    source: str
    output: Path
    target: tuple[str, ...] = ("ort-cpu",)
    precision: str = "fp32"
    verify: bool = True
    tolerance: Tolerance | None = None
    opset: int = 20
    require: str = "portable"
    simplify: bool = False
    plugins: bool = True
    inputs: Path | None = None
    gate: tuple[Gate, ...] = ()
    tensorrt: TensorRTOptions | None = None

    calibration: Path | None = None
    quantization: str | None = None
    range_method: str | None = None
    percentile: float | None = None
    block_size: int | None = None
    max_error: str | None = None
    evaluate: str | None = None
    max_drop: str | None = None
    recovery: bool = True

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
            **self._tensorrt_described(),
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

    def _tensorrt_described(self) -> dict[str, str]:
        if self.tensorrt is None:
            return {}
        from leptonc.compiler.settings.tensorrt import describe_options

        return describe_options(self.tensorrt)

    def _described_quantization(self) -> dict[str, str]:
        if self.precision not in QUANTIZED:
            return {}
        asked = self.how_to_quantize
        ranges = f", ranges by {asked.range_method}" if asked.method in ("auto", "static") else ""
        blocks = f", blocks of {asked.block}" if asked.block else ""
        table = str(self.calibration) if self.calibration else "from the source, if needed"
        return {"quantize": f"{asked.method}{ranges}{blocks}", "ranges": table}


def resolve_settings(source: str, flags: Mapping[str, Any]) -> CompileSettings:
    """Combine the TOML file beside the source, if there is one, with the flags given.

    Args:
        source: The source as the user named it.
        flags: Settings by field name; None or an empty tuple means "not given".

    Raises:
        UsageError: The file is not TOML, or holds an unknown name or a wrong type.
    """
    values = _from_file(Path(source).with_suffix(".toml")) if source.endswith(".py") else {}
    values |= {name: value for name, value in flags.items() if value is not None and value != ()}
    values.setdefault("output", Path(f"{Path(source.rpartition(':')[2] or source).stem}.lepton"))
    precision = values.get("precision", "fp32")
    if isinstance(values.get("tolerance"), str):
        values["tolerance"] = Tolerance.parse(values["tolerance"], precision)
    values["gate"] = tuple(
        gate if isinstance(gate, Gate) else Gate.parse(gate) for gate in values.get("gate", ())
    )
    options = {name: values.pop(name) for name in TENSORRT_OPTIONS if name in values}
    values["tensorrt"] = _tensorrt_options(options, values.get("target", ()), source)
    settings = CompileSettings(source=source, **values)
    # Malformed goals are found out now, not after the model is exported.
    _ = settings.goals
    _require_quantized(settings)
    _require_other_file(settings)
    return settings


def _tensorrt_options(
    options: Mapping[str, Any], targets: tuple[str, ...], source: str
) -> TensorRTOptions | None:
    if TENSORRT in targets:
        from leptonc.compiler.settings.tensorrt import read_options

        return read_options(options, source)
    if options:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise UsageError(
            f"{flags}: only the target tensorrt has this",
            fix="add -t tensorrt, or leave it out",
        )
    return None


def _require_quantized(settings: CompileSettings) -> None:
    """Refuse settings of quantisation that mean nothing, or nothing that exists."""
    if settings.precision not in QUANTIZED:
        for name in ("calibration", "quantization", "range_method", "percentile", "block_size"):
            if getattr(settings, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} is for quantised models; the precision is "
                    f"{settings.precision}",
                    fix="add -p int8, or leave it out",
                )
    elif settings.percentile is not None:
        if settings.range_method != "percentile":
            raise UsageError(
                "--percentile is for --range-method percentile", fix="add it, or leave both out"
            )
        if not 50.0 < settings.percentile <= 100.0:
            raise UsageError(
                f"a percentile of {settings.percentile:g} leaves nothing to quantise",
                fix="use a number above 50 and up to 100, such as 99.99",
            )


def _require_other_file(settings: CompileSettings) -> None:
    """Refuse to write the artifact over what it is made from."""
    for name, path in (
        ("source", Path(settings.source)),
        ("inputs", settings.inputs),
        ("calibration table", settings.calibration),
    ):
        if path is None or not path.is_file() or not settings.output.is_file():
            continue
        if path.samefile(settings.output):
            raise UsageError(
                f"the output would overwrite the {name}",
                where=str(settings.output),
                fix="give the artifact another name with -o",
            )


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the settings file is not valid TOML: {error}", where=str(path)
        ) from error
    table = tables.get("compile", {})
    if tables.keys() - {"compile"} or not isinstance(table, dict):
        raise UsageError(
            f"the settings file holds {', '.join(tables)}; its only table is [compile]",
            where=str(path),
            fix="write every setting under [compile]",
        )
    known = {field.name for field in dataclasses.fields(CompileSettings)}
    known = known - {"source", "tensorrt"} | set(TENSORRT_OPTIONS)
    for name in table:
        if name not in known:
            raise UsageError(
                f"unknown setting {name!r} in [compile]",
                where=str(path),
                fix=f"use one of: {', '.join(sorted(known))}",
            )
    return {name: _converted(name, value, path) for name, value in table.items()}


def _converted(name: str, value: Any, path: Path) -> Any:
    if name == "timing_cache" and isinstance(value, str):
        return path.parent / value
    if name in TENSORRT_OPTIONS:
        return value
    if name in {"output", "inputs", "calibration"} and isinstance(value, str):
        return path.parent / value
    if name in {"target", "gate"}:
        several = [value] if isinstance(value, str) else value
        if isinstance(several, list) and all(isinstance(each, str) for each in several):
            return tuple(several)
    elif name in {"max_error", "evaluate"} and isinstance(value, str):
        return value
    elif (
        name == "max_drop" and isinstance(value, str | int | float) and not isinstance(value, bool)
    ):
        return str(value)
    elif name in {"verify", "simplify", "plugins", "recovery"} and isinstance(value, bool):
        return value
    elif name == "opset" and isinstance(value, int) and not isinstance(value, bool):
        if FIRST_OPSET <= value <= LAST_OPSET:
            return value
        raise UsageError(
            f"opset = {value} is not from {FIRST_OPSET} to {LAST_OPSET}", where=str(path)
        )
    elif name == "tolerance" and isinstance(value, str):
        Tolerance.parse(value)
        return value
    elif name == "percentile" and isinstance(value, float | int) and not isinstance(value, bool):
        return float(value)
    elif name == "block_size" and value in BLOCKS and not isinstance(value, bool):
        return value
    elif name in CHOICES and isinstance(value, str):
        choices = CHOICES[name]
        if value in choices:
            return value
        raise UsageError(f"{name} = {value!r} is not one of {', '.join(choices)}", where=str(path))
    raise UsageError(f"the setting {name} = {value!r} has the wrong type", where=str(path))
