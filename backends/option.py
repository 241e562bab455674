"""What can be asked for: one field of a dataclass is a flag, a key in TOML, a check and a help.

    level: int | None = option(None, "Optimisation level.", bounds=(0, 5))

is the flag `--level` with its help, the key `level` of a settings file, and the refusal of 6.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

_KEY = "leptonc.option"
_KINDS = {str: "a text", int: "a whole number", float: "a number", Path: "a path"}
T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """How a field is asked for.

    Attributes:
        help: What `--help` says of it.
        short: The short form of its flag: "-t".
        flag: How its flag is spelt; the name of the field with dashes by default.
        choices: The values that it takes, where they are few.
        bounds: The smallest and the largest number that it takes; None for no largest one.
        joined: Whether one text holds all values of a tuple; else each is given on its own.
        parse: Reads what was written: a text on the command line, anything in a settings file.
            Raises TypeError or ValueError.
        wrong: What other values are, for errors; by its type if empty.
        words: The field in words, given all fields, where it is echoed whatever it holds.
        stated: Whether the flag itself has the default, and `--help` shows it.
        name: Of the field. This and what follows is filled in by `options_of`.
        kind: The type of the field, or of one of its values.
        repeated: Whether it can be given several times.
        default: What the field holds when nobody asks.
    """

    help: str
    short: str = ""
    flag: str = ""
    choices: tuple[Any, ...] = ()
    bounds: tuple[Any, Any] | None = None
    joined: bool = False
    parse: Callable[[Any], Any] | None = None
    wrong: str = ""
    words: Callable[[Any], str] | None = None
    stated: bool = False
    name: str = ""
    kind: type = str
    repeated: bool = False
    default: Any = None

    @property
    def field_metadata(self) -> Mapping[str, Option]:
        """Metadata for a field without a default; any other is an `option`."""
        return {_KEY: self}

    @property
    def spelt(self) -> str:
        """The name of the field with dashes."""
        return self.name.replace("_", "-")

    @property
    def flags(self) -> tuple[str, ...]:
        """Its spellings on the command line, the short one first."""
        return tuple(filter(None, (self.short, self.flag or f"--{self.spelt}")))

    def read(self, value: Any, folder: Path = Path()) -> Any:
        """Return what the field holds when `value` is asked for.

        Args:
            value: As the command line or TOML has it.
            folder: What a relative path starts from.

        Raises:
            TypeError: It is of another type.
            ValueError: It is none of the choices, or out of bounds.
        """
        if not self.repeated:
            return self._read_one(value, folder)
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list | tuple) or not all(
            isinstance(one, str) for one in several
        ):
            raise TypeError(f"{value!r} is {self.wrong or 'not a list of texts'}")
        return tuple(self._read_one(one, folder) for one in several)

    def _read_one(self, value: Any, folder: Path) -> Any:
        if self.parse is not None:
            return self.parse(value)
        if self.kind is Path and isinstance(value, str | Path):
            return folder / value
        if self.kind is float and type(value) is int:
            value = float(value)
        # A bool is an int to Python, and to nobody who writes `opset = true`.
        typed = type(value) is self.kind
        if typed and self._possible(value):
            return value
        error = ValueError if typed else TypeError
        raise error(f"{value!r} is {self.wrong or self._usually_wrong()}")

    def _possible(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if self.bounds is None:
            return True
        low, high = self.bounds
        return bool(low <= value and (high is None or value <= high))

    def _usually_wrong(self) -> str:
        if self.choices:
            return f"not one of {', '.join(map(str, self.choices))}"
        if self.kind is bool:
            return "neither true nor false"
        if self.bounds:
            low, high = self.bounds
            return f"not {low} or more" if high is None else f"not from {low} to {high}"
        return f"not {_KINDS[self.kind]}"


def option(default: T, text: str, **how: Any) -> T:
    """Return the field of a dataclass that can be asked for.

    Args:
        default: What it holds when nobody asks.
        text: The help of its flag.
        how: The further fields of `Option`.
    """
    return field(default=default, metadata=Option(text, **how).field_metadata)


def options_of(owner: type[Any]) -> dict[str, Option]:
    """Return the options among the fields of the dataclass `owner` by name, in their order."""
    hints = get_type_hints(owner)
    found = {}
    for each in fields(owner):
        if _KEY in each.metadata:
            how, hint = each.metadata[_KEY], hints[each.name]
            repeated = get_origin(hint) is tuple and not how.joined
            filled = {"kind": _kind(hint), "repeated": repeated, "default": each.default}
            found[each.name] = replace(how, name=each.name, **filled)
    return found


def described(options: Any) -> dict[str, str]:
    """Return in words what differs from the defaults, and what is echoed in any case."""
    found = {}
    for name, each in options_of(type(options)).items():
        value = getattr(options, name)
        if each.words is not None:
            found[each.spelt] = each.words(options)
        elif value != each.default:
            found[each.spelt] = "yes" if value is True else str(value)
    return found


def _kind(hint: Any) -> Any:
    """Return X of `X`, `X | None` and `tuple[X, ...]`."""
    if get_origin(hint) in (types.UnionType, Union, tuple):
        return _kind(get_args(hint)[0])
    return hint
