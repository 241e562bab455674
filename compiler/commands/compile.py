"""The verb `compile`: what it takes, and what it prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from leptonc.backends.option import options_of
from leptonc.compiler.commands.options import (
    add_flags,
    debug_option,
    echo_settings,
    json_option,
    print_json,
    require_compile_extra,
    show,
    terminal,
)
from leptonc.compiler.settings.compile_settings import CompileSettings, backend_options
from leptonc.compiler.settings.resolve import resolve_settings
from leptonc.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from leptonc.compiler.console.progress import Steps
    from leptonc.compiler.driver import CompileResult

# What ships an artifact unproven is told last.
*_SETTINGS, _VERIFY = options_of(CompileSettings).values()


@click.command()
@click.argument("source")
@add_flags(*_SETTINGS, *backend_options().values())
@click.option(
    "--dry-run", is_flag=True, help="Say what TensorRT takes of the graph; build nothing."
)
@click.option(
    "--explain",
    is_flag=True,
    help="Show what each pass did and nearly did, and what each quantised layer costs.",
)
@add_flags(_VERIFY)
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
    from leptonc.compiler.console.progress import Steps, progress_stream
    from leptonc.compiler.driver import compile_model
    from leptonc.compiler.inspection.passes import explanation

    console = None if quiet or as_json else Console(file=progress_stream(), soft_wrap=True)
    if console is not None:
        echo_settings("compile", settings, console)
    steps = Steps(console, debug=debug)
    if dry_run:
        _dry_run(settings, steps, as_json=as_json)
        return
    manifest: dict[str, Any] = {}
    try:
        result = compile_model(settings, steps, manifest.update, measure=explain)
    except Exception:
        if debug and steps.chatter.text:
            click.echo(steps.chatter.text, err=True)
        if explain and manifest:
            explained = explanation(settings.output, manifest)
            explained.render(Console(stderr=True, soft_wrap=True))
        raise
    if as_json:
        print_json(result.to_json())
        return
    if not quiet:
        _print_result(result, terminal())
    if explain:
        explanation(settings.output, manifest).render(terminal())


def _dry_run(settings: CompileSettings, steps: Steps, *, as_json: bool) -> None:
    from leptonc.compiler.dry_run import dry_run

    report = dry_run(settings, steps)
    show(report, as_json)
    if not report.covered:
        raise click.exceptions.Exit(UnsupportedError.exit_code)


def _print_result(result: CompileResult, console: Console) -> None:
    """Print how each output compares, and what was written."""
    if result.results:
        table = Table("sizes", "output", "max abs", "cosine", "SQNR", title="proof")
        for trial in result.results:
            sizes = " ".join(f"{name}={size}" for name, size in trial.sizes.items()) or "static"
            for error in trial.errors:
                sqnr = "equal" if error.sqnr_db is None else f"{error.sqnr_db:.1f} dB"
                figures = (f"{error.max_abs:.3g}", f"{error.cosine:.7f}", sqnr)
                table.add_row(sizes, error.output, *figures)
        console.print(table)
    else:
        console.print("not verified (--no-verify), and the artifact says so")
    verification = result.manifest["evidence"]["verification"]
    for variant in verification.get("variants", ()):
        if not variant["engine_ran"]:
            console.print(_not_run_text(variant), highlight=False, markup=False)
    for name, took in result.builds.items():
        console.print(
            f"{name}: plan of {took['plan_bytes']:,} bytes built in {took['seconds']:.1f} s, "
            f"peak memory {took['peak_bytes'] / 1e6:,.0f} MB",
            highlight=False,
        )
    names = ", ".join(variant["name"] for variant in result.manifest["variants"])
    console.print(
        f"{result.artifact}: {result.bytes:,} bytes, {names}", highlight=False, markup=False
    )


def _not_run_text(variant: Mapping[str, Any]) -> str:
    """Return what an entry of the evidence says of an engine that has not run."""
    return (
        f"{variant['variant']}: the engine has not run ({variant['reason']}); "
        f"checked was {variant['checked']}"
    )
