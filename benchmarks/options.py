"""The options that every benchmark has."""

from __future__ import annotations

import argparse
from pathlib import Path

import tables


def parser(description: str | None, *, rounds: int, of_what: str) -> argparse.ArgumentParser:
    """Return a parser with `--only`, `--rounds` and `--results`.

    Args:
        description: The docstring of the script.
        rounds: How many rounds there are by default.
        of_what: What a round is.
    """
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--only", nargs="+", metavar="RECIPE", help="these recipes only")
    made.add_argument("--rounds", type=int, default=rounds, help=of_what)
    made.add_argument("--results", type=Path, default=tables.FOLDER, help="where to write")
    return made


def add_threads(made: argparse.ArgumentParser) -> None:
    """Add `--threads`."""
    made.add_argument("--threads", type=int, default=2, help="of the engine, for each contender")
