"""`python -m leptonc.runtime [--device NAME] [--variant NAME] model.lepton inputs.npz outputs.npz`.

Runs an artifact with nothing but NumPy and the engine, on one or several sets of inputs; the
compiler proves finished artifacts with it, in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from leptonc.runtime.arrays import load_arrays, save_arrays
from leptonc.runtime.errors import LeptonError
from leptonc.runtime.session import load

_USAGE = (
    "usage: python -m leptonc.runtime [--device NAME] [--variant NAME] "
    "model.lepton inputs.npz outputs.npz [...]\n"
)


def main(arguments: Sequence[str]) -> int:
    """Run and return the exit status."""
    device = "cpu"
    if arguments[:1] == ["--device"] and len(arguments) > 1:
        device, arguments = arguments[1], arguments[2:]
    variant = None
    if arguments[:1] == ["--variant"] and len(arguments) > 1:
        variant, arguments = arguments[1], arguments[2:]
    if len(arguments) < 3 or len(arguments) % 2 == 0:
        sys.stderr.write(_USAGE)
        return 2
    model, *files = arguments
    try:
        with load(model, device=device, variant=variant) as session:
            for source, target in zip(files[::2], files[1::2], strict=True):
                inputs = load_arrays(Path(source), may_be_empty=True)
                save_arrays(Path(target), session.run(inputs))
                if len(files) > 2:
                    # The first set shows what a service answers first, the others what it
                    # answers from then on.
                    session.warm_up()
    except LeptonError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
