"""What a verification on some machine found, in a file beside the artifact and bound to it.

An artifact is not changed after it was written: its digest is what a deployment pins. So the proof
that an engine computes the right values on its own GPU travels in a file of its own, which names
the artifact by that digest. It is no signature: it says what was seen, and not by whom.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from leptonc.runtime.artifact import canonical_json as canonical
from leptonc.runtime.errors import EnvironmentProblem, InputError

FORMAT = 1
KEYS = {
    *("format", "artifact", "variant", "device", "machine", "compared"),
    *("source", "tolerance", "trials"),
}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record whole or not at all, as canonical JSON.

    Raises:
        EnvironmentProblem: The file cannot be written; an old one is untouched.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            file.write(canonical.encode(dict(record)))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise EnvironmentProblem(
            f"the record cannot be written: {error.strerror or error}",
            where=str(path),
            fix="choose another file with --record",
        ) from error


def read_record(path: Path, digest: str) -> Mapping[str, Any]:
    """Read a record and check that it is of this artifact.

    Args:
        path: The file.
        digest: The artifact's.

    Raises:
        InputError: No record, or one of another artifact.
    """
    try:
        value = canonical.decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}", where=str(path)) from error
    except canonical.NotCanonicalError as error:
        raise InputError(f"it is not a record: {error}", where=str(path), fix=_FIX) from error
    if not isinstance(value, dict) or set(value) != KEYS or value["format"] != FORMAT:
        raise InputError("it is not a record of this version", where=str(path), fix=_FIX)
    if value["artifact"] != digest:
        raise InputError(
            f"the record is of another artifact: {value['artifact']!r}; this one is {digest!r}",
            where=str(path),
            fix="verify this artifact again with --record",
        )
    return value


_FIX = "write it again with `leptonc verify model.lepton source --record FILE`"
