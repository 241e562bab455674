"""The verb `run`: arrays in, arrays out."""

from __future__ import annotations

from pathlib import Path

import click

from leptonc.compiler.commands.options import answer_options, print_json


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("inputs", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="An .npz.")
@click.option("--device", default="cpu", show_default=True, help="cpu, gpu or auto.")
@click.option("--threads", type=click.IntRange(1), help="[default: the engine's own]")
@answer_options
def run(
    *,
    artifact: Path,
    inputs: Path,
    output: Path,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run ARTIFACT on the arrays in INPUTS.npz and write its outputs to an .npz file."""
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
