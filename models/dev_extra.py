"""The packages that recipes need beyond the compiler's own, and what to do without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def dev_extra() -> Iterator[None]:
    """Say how to install what an import in the block does not find.

    Raises:
        ImportError: A package is missing; the message names it and the command.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"this recipe needs the package {error.name!r}: pip install 'leptonc[dev]'",
            name=error.name,
            path=error.path,
        ) from error
