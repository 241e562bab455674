"""The verbs of the command line: what each takes, what each prints.

Progress and settings go to standard error, answers to standard output; with `--json` the
answer is exactly one JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from leptonc.compiler.errors import CompileExtraMissingError, UsageError
from leptonc.compiler.settings import (
    BLOCKS,
    FIRST_OPSET,
    LAST_OPSET,
    METHODS,
    PRECISIONS,
    RANGE_METHODS,
    REQUIREMENTS,
    resolve_settings,
)

Command = Callable[..., Any]


class _Terminal(Console):
    """Standard output, whose reader may go away: `cli` answers that, not rich."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _terminal() -> Console:
    return _Terminal(soft_wrap=True)


NEEDED_TO_COMPILE = ("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime")


def _json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def _debug_option(command: Command) -> Command:
    text = "Show tracebacks and what libraries print."
    return click.option("--debug", is_flag=True, help=text)(command)


def _print_json(answer: object) -> None:
    click.echo(json.dumps(answer, indent=2, allow_nan=False))


def _require_compile_extra() -> None:
    missing = [name for name in NEEDED_TO_COMPILE if find_spec(name) is None]
    if missing:
        raise CompileExtraMissingError(
            f"not installed: {', '.join(missing)}",
            fix="pip install 'leptonc[compile]' (`leptonc doctor` shows what is there)",
        )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("leptonc"), prog_name="leptonc")
def leptonc() -> None:
    r"""Compile PyTorch models ahead of time into one file that NumPy and an engine can run.

    \b
    Exit codes:  0 done                   4 not supported: operator, precision, target
                 1 a bug in leptonc       5 environment: engine or extra missing, disk
                 2 wrong usage            6 verification failed
                 3 bad input              7 a gate was breached     130 interrupted
    """


@leptonc.command()
@click.argument("source")
@click.option("-t", "--target", multiple=True, help="backend-device, e.g. ort-cpu; repeatable.")
@click.option("-p", "--precision", type=click.Choice(PRECISIONS), help="[default: fp32]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: NAME.lepton]")
@click.option(
    "--opset", type=click.IntRange(FIRST_OPSET, LAST_OPSET), help="ONNX operator set. [default: 20]"
)
@click.option("--require", type=click.Choice(REQUIREMENTS), help="[default: portable]")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Ranges from `leptonc calibrate`. [default: calibrate now, if ranges are needed]",
)
@click.option("--quantization", type=click.Choice(METHODS), help="[default: auto]")
@click.option("--range-method", type=click.Choice(RANGE_METHODS), help="[default: mse]")
@click.option("--percentile", type=float, help="For --range-method percentile. [default: 99.99]")
@click.option(
    "--block-size",
    type=click.Choice(BLOCKS),
    help="Rows of a weight that share a scale. [default: by method]",
)
@click.option("--inputs", type=click.Path(path_type=Path), help="Example inputs as .npz.")
@click.option("--tolerance", help="e.g. sqnr=70 (dB) or sqnr=60,relative=0.01.")
@click.option("--gate", multiple=True, help="size=400MB, load=0.5s, latency=20ms, sqnr=90dB.")
@click.option("--max-error", help="With -p int8 or int4: sqnr=30 (dB) or cosine=0.999.")
@click.option(
    "--evaluate", help="With --max-drop: a figure of evaluate(); NAME:min if lower is better."
)
@click.option("--max-drop", help="How much worse it may become: 0.5% of it, or 0.003 absolute.")
@click.option(
    "--no-recovery",
    "recovery",
    flag_value=False,
    default=None,
    help="Round to the nearest, and smooth nothing.",
)
@click.option("--simplify", is_flag=True, default=None, help="Run onnxsim as well.")
@click.option(
    "--without-plugins",
    "plugins",
    flag_value=False,
    default=None,
    help="Run no passes of other distributions.",
)
@click.option("--explain", is_flag=True, help="Show what each pass did, and what it nearly did.")
@click.option("--no-verify", "verify", flag_value=False, default=None, help="Ship unproven.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@_json_option
@_debug_option
def compile(
    *, source: str, explain: bool, quiet: bool, as_json: bool, debug: bool, **flags: Any
) -> None:
    """Compile SOURCE into one artifact and prove it against the source.

    SOURCE is a recipe.py (its code is run), module:attribute, an .onnx file, a .pt2 exported
    program or a Hugging Face folder with safetensors weights.
    """
    settings = resolve_settings(source, flags)
    _require_compile_extra()
    from leptonc.compiler.compile_view import echo_settings, print_result
    from leptonc.compiler.driver import compile_model
    from leptonc.compiler.explain import render
    from leptonc.compiler.stages import Stages, progress_stream

    console = None if quiet or as_json else Console(file=progress_stream(), soft_wrap=True)
    if console is not None:
        echo_settings(settings, console)
    stages = Stages(console, debug=debug)
    manifest: dict[str, Any] = {}
    try:
        result = compile_model(settings, stages, manifest.update, measure=explain)
    except Exception:
        if debug and stages.chatter.text:
            click.echo(stages.chatter.text, err=True)
        if explain and manifest:
            render(manifest["passes"], manifest["plugins"], Console(stderr=True, soft_wrap=True))
        raise
    if as_json:
        _print_json(result.to_json())
        return
    if not quiet:
        print_result(result, _terminal())
    if explain:
        render(manifest["passes"], manifest["plugins"], _terminal())


@leptonc.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--data", help="An .npz file, a folder of them, or module:iterable.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("ranges.json"),
    show_default=True,
)
@click.option("--samples", type=click.IntRange(1), help="At most so many. [default: all]")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@click.option("--merge", is_flag=True, help="SOURCES are tables of parts of the data: add them up.")
@click.option(
    "--checkpoint",
    type=click.FloatRange(0.0),
    default=60.0,
    show_default=True,
    help="Seconds between two checkpoints.",
)
@click.option("-t", "--target", multiple=True, help="As in the compile to come.")
@click.option(
    "--opset", type=click.IntRange(FIRST_OPSET, LAST_OPSET), help="As in the compile to come."
)
@click.option("--inputs", type=click.Path(path_type=Path), help="Example inputs as .npz.")
@click.option("--simplify", is_flag=True, default=None, help="Run onnxsim as well.")
@click.option(
    "--without-plugins",
    "plugins",
    flag_value=False,
    default=None,
    help="Run no passes of other distributions.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@_json_option
@_debug_option
def calibrate(
    *,
    sources: tuple[str, ...],
    data: str | None,
    output: Path,
    samples: int | None,
    resume: bool,
    merge: bool,
    checkpoint: float,
    quiet: bool,
    as_json: bool,
    debug: bool,
    **flags: Any,
) -> None:
    """Run SOURCE over calibration data and write the range of every tensor that matters.

    SOURCE is what `compile` takes, and its settings are those of the compile: the table is bound
    to the graph. Interrupted, it keeps what it has seen and goes on with --resume.
    """
    _require_compile_extra()
    from leptonc.compiler.calibrate import CalibrationSettings, merged_tables
    from leptonc.compiler.calibrate import calibrate as run_calibration
    from leptonc.compiler.calibrate_view import echo_settings, print_result, shown_progress
    from leptonc.compiler.stages import Stages, progress_stream

    console = None if quiet or as_json else Console(file=progress_stream(), soft_wrap=True)
    if merge:
        given = {"data": data, "samples": samples, "resume": resume or None, **flags}
        result = merged_tables([Path(path) for path in sources], output, given)
    else:
        source = _only(sources)
        settings = CalibrationSettings(
            resolve_settings(source, flags), output, data, samples, resume, checkpoint
        )
        if console is not None:
            echo_settings(settings, console)
        stages = Stages(console, debug=debug)
        try:
            with shown_progress(None if debug else console) as report:
                result = run_calibration(settings, stages, report)
        except Exception:
            if debug and stages.chatter.text:
                click.echo(stages.chatter.text, err=True)
            raise
    if as_json:
        _print_json(result.to_json())
    elif not quiet:
        print_result(result, _terminal())


def _only(sources: tuple[str, ...]) -> str:
    if len(sources) > 1:
        raise UsageError(
            f"one source is calibrated at a time; {len(sources)} are given",
            where=", ".join(sources),
            fix="calibrate one; to add up tables, use --merge",
        )
    return sources[0]


@leptonc.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("source", required=False)
@click.option("--inputs", type=click.Path(path_type=Path), help="Example inputs as .npz.")
@click.option("--tolerance", default="sqnr=70", show_default=True)
@_json_option
@_debug_option
def verify(
    *,
    artifact: Path,
    source: str | None,
    inputs: Path | None,
    tolerance: str,
    as_json: bool,
    debug: bool,
) -> None:
    """Check every hash of ARTIFACT and load it; with SOURCE, compare the two again."""
    from leptonc.compiler.compare import Tolerance
    from leptonc.compiler.recheck import recheck

    if source is not None:
        _require_compile_extra()
    report = recheck(artifact, source, Tolerance.parse(tolerance), inputs=inputs, debug=debug)
    if as_json:
        _print_json(report.to_json())
    else:
        report.render(_terminal())


@leptonc.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--passes", is_flag=True, help="Show what each pass did and nearly did, and nothing else."
)
@_json_option
@_debug_option
def inspect(artifact: Path, passes: bool, as_json: bool, debug: bool) -> None:
    """Show what is in ARTIFACT: signature, variants, sizes, passes, evidence."""
    del debug
    if passes:
        from leptonc.compiler.explain import explain

        _show(explain(artifact), as_json)
        return
    from leptonc.compiler.inspection import describe

    _show(describe(artifact), as_json)


@leptonc.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("inputs", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="An .npz.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="[default: the engine's own]")
@_json_option
@_debug_option
def run(
    *,
    artifact: Path,
    inputs: Path,
    output: Path,
    device: str,
    threads: int | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Run ARTIFACT on the arrays in INPUTS.npz and write its outputs to an .npz file."""
    del debug
    from leptonc.runtime import load
    from leptonc.runtime.arrays import load_arrays, save_arrays

    arrays = load_arrays(inputs)
    with load(artifact, device=device, threads=threads) as session:
        outputs = session.run(arrays)
    save_arrays(output, outputs)
    shapes = {
        name: {"dtype": str(array.dtype), "shape": list(array.shape)}
        for name, array in outputs.items()
    }
    if as_json:
        _print_json({"output": str(output), "arrays": shapes})
        return
    for name, entry in shapes.items():
        click.echo(f"{name}: {entry['dtype']} {entry['shape']}")
    click.echo(f"written to {output}")


def _parse_sizes(context: click.Context, option: click.Parameter, values: Any) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for value in values:
        name, _, size = value.partition("=")
        if not size.isdecimal():
            raise click.BadParameter(f"{value!r} is not NAME=SIZE", context, option)
        sizes[name] = int(size)
    return sizes


@leptonc.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--inputs", type=click.Path(path_type=Path), help="Arrays as .npz.")
@click.option("--threads", type=click.IntRange(1), help="[default: the engine's own]")
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True)
@click.option("--size", multiple=True, callback=_parse_sizes, help="NAME=SIZE; repeatable.")
@_json_option
@_debug_option
def bench(
    *,
    files: tuple[Path, ...],
    inputs: Path | None,
    threads: int | None,
    iterations: int,
    size: dict[str, int],
    as_json: bool,
    debug: bool,
) -> None:
    """Time artifacts and .onnx FILES against one another, interleaved in one run."""
    del debug
    from leptonc.compiler.bench import run_bench

    report = run_bench(
        list(files), inputs=inputs, threads=threads, iterations=iterations, shapes=size or None
    )
    _show(report, as_json)


@leptonc.command()
@_json_option
@_debug_option
def doctor(as_json: bool, debug: bool) -> None:
    """Say what is installed, what each backend needs, and how to get what is missing."""
    del debug
    from leptonc.compiler.doctor import diagnose

    _show(diagnose(), as_json)


def _show(report: Any, as_json: bool) -> None:
    if as_json:
        _print_json(report.to_json())
    else:
        report.render(_terminal())
