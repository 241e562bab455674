"""The flags of `leptonc compile -t tensorrt`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_FLAGS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--flavour",),
        {"help": "tensorrt: rtx or classic. [default: the one that is installed]"},
    ),
    (("--sm",), {"help": "tensorrt rtx: GPUs to build for. [default: 86,89,120]"}),
    (
        ("--profile",),
        {
            "multiple": True,
            "help": "tensorrt: batch=1:8:64,sequence=16:128:512; repeatable. "
            "[default: the source's bounds]",
        },
    ),
    (
        ("--builder-level",),
        {"type": click.IntRange(0, 5), "help": "tensorrt: optimisation level, 0 to 5."},
    ),
    (("--workspace",), {"help": "tensorrt: memory for a kernel while it runs, e.g. 4GB."}),
    (
        ("--weight-streaming",),
        {
            "is_flag": True,
            "default": None,
            "help": "tensorrt: let the runtime keep weights in host memory.",
        },
    ),
    (
        ("--timing-cache",),
        {
            "type": click.Path(path_type=Path),
            "help": "tensorrt classic: measured kernel times, kept between builds.",
        },
    ),
    (
        ("--version-compatible",),
        {
            "is_flag": True,
            "default": None,
            "help": "tensorrt classic: later versions read the plan.",
        },
    ),
    (
        ("--hardware-compatible",),
        {"help": "tensorrt classic: ampere_plus or same_compute_capability."},
    ),
    (
        ("--strip-weights",),
        {
            "is_flag": True,
            "default": None,
            "help": "tensorrt classic: refit the plan with the artifact's weights at load.",
        },
    ),
)


def tensorrt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags to a command."""
    for names, settings in reversed(_FLAGS):
        command = click.option(*names, **settings)(command)
    return command
