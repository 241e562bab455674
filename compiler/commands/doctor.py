"""The verb `doctor`: what this machine has, and what it lacks."""

from __future__ import annotations

import click

from leptonc.compiler.commands.options import answer_options, show


@click.command()
@answer_options
def doctor(as_json: bool) -> None:
    """Say what is installed, what each backend needs, and how to get what is missing."""
    from leptonc.compiler.machines.doctor import diagnose

    show(diagnose(), as_json)
