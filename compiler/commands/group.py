"""The verbs of the command line: what each takes, what each prints.

Progress and settings go to standard error, answers to standard output; with `--json` the
answer is exactly one JSON object.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from leptonc.compiler.commands.calibrate import calibrate
from leptonc.compiler.commands.check import check, verify
from leptonc.compiler.commands.options import (
    debug_option,
    json_option,
    print_json,
    require_compile_extra,
    show,
    terminal,
)
from leptonc.compiler.commands.tensorrt_flags import tensorrt_options
from leptonc.compiler.settings.compile_settings import (
    BLOCKS,
    FIRST_OPSET,
    LAST_OPSET,
    METHODS,
    PRECISIONS,
    RANGE_METHODS,
    REQUIREMENTS,
    resolve_settings,
)
from leptonc.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from leptonc.compiler.console.progress import Stages
    from leptonc.compiler.settings.compile_settings import CompileSettings


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
@tensorrt_options
@click.option(
    "--dry-run", is_flag=True, help="Say what TensorRT takes of the graph; build nothing."
)
@click.option(
    "--explain",
    is_flag=True,
    help="Show what each pass did and nearly did, and what each quantised layer costs.",
)
@click.option("--no-verify", "verify", flag_value=False, default=None, help="Ship unproven.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@json_option
@debug_option
def compile(
    *,
    source: str,
    dry_run: bool,
    explain: bool,
    quiet: bool,
    as_json: bool,
    debug: bool,
    **flags: Any,
) -> None:
    """Compile SOURCE into one artifact and prove it against the source.

    SOURCE is a recipe.py (its code is run), module:attribute, an .onnx file, a .pt2 exported
    program or a Hugging Face folder with safetensors weights.
    """
    require_compile_extra()
    settings = resolve_settings(source, flags)
    from leptonc.compiler.compile_view import echo_settings, print_result
    from leptonc.compiler.console.progress import Stages, progress_stream
    from leptonc.compiler.driver import compile_model
    from leptonc.compiler.inspection.passes import explanation

    console = None if quiet or as_json else Console(file=progress_stream(), soft_wrap=True)
    if console is not None:
        echo_settings(settings, console)
    stages = Stages(console, debug=debug)
    if dry_run:
        _dry_run(settings, stages, as_json=as_json)
        return
    manifest: dict[str, Any] = {}
    try:
        result = compile_model(settings, stages, manifest.update, measure=explain)
    except Exception:
        if debug and stages.chatter.text:
            click.echo(stages.chatter.text, err=True)
        if explain and manifest:
            explained = explanation(settings.output, manifest)
            explained.render(Console(stderr=True, soft_wrap=True))
        raise
    if as_json:
        print_json(result.to_json())
        return
    if not quiet:
        print_result(result, terminal())
    if explain:
        explanation(settings.output, manifest).render(terminal())


def _dry_run(settings: CompileSettings, stages: Stages, *, as_json: bool) -> None:
    from leptonc.compiler.dry_run import report_coverage

    report = report_coverage(settings, stages)
    show(report, as_json)
    if not report.covered:
        raise click.exceptions.Exit(UnsupportedError.exit_code)


@leptonc.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--passes",
    is_flag=True,
    help="Show what passes did and nearly did, and how layers are quantised; nothing else.",
)
@json_option
@debug_option
def inspect(artifact: Path, passes: bool, as_json: bool, debug: bool) -> None:
    """Show what is in ARTIFACT: signature, variants, sizes, passes, evidence."""
    del debug
    if passes:
        from leptonc.compiler.inspection.passes import explain

        show(explain(artifact), as_json)
        return
    from leptonc.compiler.inspection.describe import describe

    show(describe(artifact), as_json)


@leptonc.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("inputs", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="An .npz.")
@click.option("--device", default="cpu", show_default=True, help="cpu, gpu or auto.")
@click.option("--threads", type=click.IntRange(1), help="[default: the engine's own]")
@json_option
@debug_option
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
        print_json({"output": str(output), "arrays": shapes})
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
@json_option
@debug_option
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
    from leptonc.compiler.measure.bench import run_bench

    report = run_bench(
        list(files), inputs=inputs, threads=threads, iterations=iterations, shapes=size or None
    )
    show(report, as_json)


@leptonc.command()
@json_option
@debug_option
def doctor(as_json: bool, debug: bool) -> None:
    """Say what is installed, what each backend needs, and how to get what is missing."""
    del debug
    from leptonc.compiler.machines.doctor import diagnose

    show(diagnose(), as_json)


leptonc.add_command(calibrate)
leptonc.add_command(verify)
leptonc.add_command(check)
