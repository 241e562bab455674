"""The verb `inspect`: what is in an artifact."""

from __future__ import annotations

from pathlib import Path

import click

from leptonc.compiler.commands.options import answer_options, show


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--passes",
    is_flag=True,
    help="Show what passes did and nearly did, and how layers are quantised; nothing else.",
)
@answer_options
def inspect(artifact: Path, passes: bool, as_json: bool) -> None:
    """Show what is in ARTIFACT: signature, variants, sizes, passes, evidence."""
    if passes:
        from leptonc.compiler.inspection.passes import explain

        show(explain(artifact), as_json)
        return
    from leptonc.compiler.inspection.describe import describe

    show(describe(artifact), as_json)
