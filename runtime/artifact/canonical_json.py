"""JSON with one spelling per value, so that equal contents are equal bytes.

Keys are sorted, there is no white space, text is UTF-8 without escapes that are not needed,
and NaN and infinities do not exist. The decoder accepts only what the encoder writes: a
file with a second spelling could show one thing to one reader and another to the next.
"""

from __future__ import annotations

import json
from typing import Any


class NotCanonicalError(ValueError):
    """The bytes are not the one spelling of a JSON value."""


def encode(value: object) -> bytes:
    """Return the canonical UTF-8 bytes of `value`.

    Raises:
        NotCanonicalError: NaN, an infinity, a lone surrogate, or a type that JSON lacks.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotCanonicalError(f"not representable as canonical JSON: {error}") from error


def decode(data: bytes) -> Any:
    """Return the value that `data` spells.

    Raises:
        NotCanonicalError: Not UTF-8, not JSON, a repeated key, NaN, nested too deeply, or
            another spelling than `encode` gives.
    """
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant
        )
    except NotCanonicalError:
        raise
    except UnicodeDecodeError as error:
        raise NotCanonicalError(f"not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise NotCanonicalError(f"not JSON: {error}") from error
    if encode(value) != data:
        raise NotCanonicalError("not in canonical form: keys sorted, no white space, shortest text")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise NotCanonicalError(f"the key {key!r} occurs twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise NotCanonicalError(f"{name} is not a JSON number")
