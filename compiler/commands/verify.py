"""The verb `verify`: whether an artifact is whole, and still gives the source's answers."""

from __future__ import annotations

from pathlib import Path

import click

from leptonc.compiler.commands.options import (
    debug_option,
    json_option,
    require_compile_extra,
    show,
)
from leptonc.runtime.variant_choice import DEVICES


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("source", required=False)
@click.option("--inputs", type=click.Path(path_type=Path), help="Example inputs as .npz.")
@click.option("--tolerance", help="e.g. sqnr=70. [default: that of the precision]")
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True)
@click.option("--variant", help="Load this variant and no other.")
@click.option("--record", type=click.Path(path_type=Path), help="Write what was found, as JSON.")
@json_option
@debug_option
def verify(
    *,
    artifact: Path,
    source: str | None,
    inputs: Path | None,
    tolerance: str | None,
    device: str,
    variant: str | None,
    record: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Check every hash of ARTIFACT and load it; with SOURCE, compare the two again.

    On a machine that has the GPU which the compiler lacked, this completes the proof; --record
    writes it to a file that names the artifact by its digest.
    """
    from leptonc.compiler.verification.finished_artifact import recheck
    from leptonc.compiler.verification.record import write_record

    if source is not None:
        require_compile_extra()
    report = recheck(
        artifact, source, tolerance, device=device, variant=variant, inputs=inputs, debug=debug
    )
    if record is not None:
        write_record(record, report.to_record())
    show(report, as_json)
