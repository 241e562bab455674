"""The command `leptonc`: its verbs, each in a file of its own.

Progress and settings go to standard error, answers to standard output; with `--json` the
answer is exactly one JSON object.
"""

from __future__ import annotations

from importlib import metadata

import click

from leptonc.compiler.commands.bench import bench
from leptonc.compiler.commands.calibrate import calibrate
from leptonc.compiler.commands.check import check
from leptonc.compiler.commands.compile import compile
from leptonc.compiler.commands.doctor import doctor
from leptonc.compiler.commands.inspect import inspect
from leptonc.compiler.commands.run import run
from leptonc.compiler.commands.verify import verify


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


for verb in (compile, calibrate, inspect, run, bench, verify, check, doctor):
    leptonc.add_command(verb)
