"""What `leptonc compile` prints: its settings before it starts, the proof when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from leptonc.compiler.driver import CompileResult
from leptonc.compiler.settings.compile_settings import CompileSettings


def not_run_text(variant: Mapping[str, Any]) -> str:
    """Return what an entry of the evidence says of an engine that has not run."""
    return (
        f"{variant['variant']}: the engine has not run ({variant['reason']}); "
        f"checked was {variant['checked']}"
    )


def echo_settings(settings: CompileSettings, console: Console) -> None:
    """Print every setting."""
    console.print("leptonc compile", highlight=False)
    for name, value in settings.described().items():
        console.print(f"  {name:<10} {value}", highlight=False, markup=False)


def print_result(result: CompileResult, console: Console) -> None:
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
            console.print(not_run_text(variant), highlight=False, markup=False)
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
