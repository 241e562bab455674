"""The verb `doctor`: what this machine has, and what it lacks."""

from __future__ import annotations

import click

from leptonc.compiler.commands.options import debug_option, json_option, show


@click.command()
@json_option
@debug_option
def doctor(as_json: bool, debug: bool) -> None:
    """Say what is installed, what each backend needs, and how to get what is missing."""
    del debug
    from leptonc.compiler.machines.doctor import diagnose

    show(diagnose(), as_json)
