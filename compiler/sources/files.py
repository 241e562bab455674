"""Files that the user named: whether one can be read, what it holds, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

from leptonc.compiler.errors import PickleRefusedError, SourceError


def pickle_refused(where: str) -> PickleRefusedError:
    """Return the error for weights that are stored as a pickle."""
    return PickleRefusedError(
        "pickled checkpoints are refused: a pickle is a program, and reading it runs it",
        where=where,
        fix="convert the weights once, where you trust them: "
        "safetensors.torch.save_file(state_dict, 'model.safetensors'), then load that file "
        "in a recipe's build(); or torch.export.save(program, 'model.pt2')",
    )


def require_file(path: Path) -> None:
    """Raise SourceError unless `path` is a file that can be read."""
    if not path.exists():
        raise SourceError("there is no such file", where=str(path))
    if not path.is_file():
        raise SourceError("this is not a regular file", where=str(path))
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise SourceError(f"the file cannot be read: {error.strerror}", where=str(path)) from error


def hash_file(path: Path, digest: hashlib._Hash) -> None:
    """Add the contents of `path` to `digest` in blocks of 1 MiB."""
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
