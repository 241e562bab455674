"""The verb `check`: whether an artifact will load on this machine or another."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from leptonc.compiler.commands.options import answer_options, show
from leptonc.runtime.variant_choice import DEVICES

NOT_LOADABLE = 4


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--sm", help="Compute capability of the GPU, e.g. 89; none for no GPU.")
@click.option("--tensorrt-rtx", help="Version of TensorRT for RTX, e.g. 1.7; none without it.")
@click.option("--tensorrt", help="Version of TensorRT, e.g. 10.9; none without it.")
@click.option("--onnxruntime", help="Version of ONNX Runtime, e.g. 1.31; none without it.")
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
    tensorrt_rtx: str | None,
    tensorrt: str | None,
    onnxruntime: str | None,
    system: str | None,
    device: str | None,
    variant: str | None,
    record: Path | None,
    as_json: bool,
) -> None:
    """Say whether ARTIFACT will load: on this machine, or on one that the options describe.

    Needs no GPU and deserialises nothing. What the options leave out is not judged, and said to
    be not known. With a GPU or a TensorRT among them the default is --device gpu: a variant for
    the CPU is then no answer. Exit code 0 when a load would work, 4 when it would be refused.
    """
    from leptonc.compiler.inspection.loadable import check_loadable
    from leptonc.compiler.machines.target_machine import describe_machine, this_machine

    given = {"tensorrt-rtx": tensorrt_rtx, "tensorrt": tensorrt, "onnxruntime": onnxruntime}
    versions = {name: text for name, text in given.items() if text is not None}
    if sm is None and system is None and not versions:
        machine = this_machine()
    else:
        machine = describe_machine(sm=sm, system=system, versions=versions)
    about_gpu = any(text not in (None, "none") for text in (sm, tensorrt_rtx, tensorrt))
    wanted = device or ("gpu" if about_gpu and variant is None else "auto")
    report = check_loadable(artifact, machine, device=wanted, variant=variant, record=record)
    show(report, as_json)
    if report.chosen is None:
        sys.exit(NOT_LOADABLE)
