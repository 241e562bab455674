"""The verb `check`: whether an artifact will load on this machine or another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from leptonc.compiler.commands.options import answer_options, show
from leptonc.runtime.engines.loaders import ROWS
from leptonc.runtime.variant_choice import DEVICES

NOT_LOADABLE = 4
# Those whose versions describe a machine, by name, in the order of the rows.
LIBRARIES = {library.name: library for row in ROWS for library in row.libraries}


def _library_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, library in reversed(LIBRARIES.items()):
        text = f"Version of {library.title}, e.g. {library.example}; none without it."
        command = click.option(f"--{name}", help=text)(command)
    return command


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--sm", help="Compute capability of the GPU, e.g. 89; none for no GPU.")
@_library_options
@click.option("--os", "system", help="Operating system and processor, e.g. linux-x86_64.")
@click.option("--device", type=click.Choice(DEVICES), help="As for load. [default: auto, or gpu]")
@click.option("--variant", help="Ask about this variant alone.")
@click.option(
    "--record", type=click.Path(path_type=Path), help="Also show a record of `leptonc verify`."
)
@answer_options
def check(
    *,
    artifact: Path,
    sm: str | None,
    system: str | None,
    device: str | None,
    variant: str | None,
    record: Path | None,
    as_json: bool,
    **libraries: str | None,
) -> None:
    """Say whether ARTIFACT will load: on this machine, or on one that the options describe.

    Needs no GPU and deserialises nothing. What the options leave out is not judged, and said to
    be not known. With a GPU or a TensorRT among them the default is --device gpu: a variant for
    the CPU is then no answer. Exit code 0 when a load would work, 4 when it would be refused.
    """
    from leptonc.compiler.inspection.loadable import check_loadable
    from leptonc.compiler.machines.target_machine import describe_machine, this_machine

    given = {name: libraries[name.replace("-", "_")] for name in LIBRARIES}
    versions = {name: text for name, text in given.items() if text is not None}
    if sm is None and system is None and not versions:
        machine = this_machine()
    else:
        machine = describe_machine(sm=sm, system=system, versions=versions)
    on_cpu = {library.name for row in ROWS if row.device == "cpu" for library in row.libraries}
    for_gpu = (text for name, text in given.items() if name not in on_cpu)
    about_gpu = any(text not in (None, "none") for text in (sm, *for_gpu))
    wanted = device or ("gpu" if about_gpu and variant is None else "auto")
    report = check_loadable(artifact, machine, device=wanted, variant=variant, record=record)
    show(report, as_json)
    if report.chosen is None:
        sys.exit(NOT_LOADABLE)
