"""The verb `bench`: which of several files is faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from leptonc.compiler.commands.options import answer_options, show


def _parse_sizes(context: click.Context, option: click.Parameter, values: Any) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for value in values:
        name, _, size = value.partition("=")
        if not size.isdecimal():
            raise click.BadParameter(f"{value!r} is not NAME=SIZE", context, option)
        sizes[name] = int(size)
    return sizes


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--inputs", type=click.Path(path_type=Path), help="Arrays as .npz.")
@click.option("--threads", type=click.IntRange(1), help="[default: the engine's own]")
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True)
@click.option("--size", multiple=True, callback=_parse_sizes, help="NAME=SIZE; repeatable.")
@answer_options
def bench(
    *,
    files: tuple[Path, ...],
    inputs: Path | None,
    threads: int | None,
    iterations: int,
    size: dict[str, int],
    as_json: bool,
) -> None:
    """Time artifacts and .onnx FILES against one another, interleaved in one run."""
    from leptonc.compiler.measure.bench import run_bench

    report = run_bench(
        list(files), inputs=inputs, threads=threads, iterations=iterations, shapes=size or None
    )
    show(report, as_json)
