"""One field is a flag, a key, a check and a help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from leptonc.backends.option import described, option, options_of


@dataclass(frozen=True)
class Asked:
    hidden: int = 0
    name: str | None = option(None, "A text.")
    level: int = option(1, "A number.", bounds=(0, 5))
    ratio: float | None = option(None, "Another.", bounds=(0.0, None))
    mode: str = option("plain", "One of two.", choices=("plain", "fancy"))
    fast_path: bool = option(False, "Yes or no.", short="-f")
    file: Path | None = option(None, "A path.")
    parts: tuple[str, ...] = option((), "Several.")
    sizes: tuple[int, ...] = option(
        (),
        "One text for several.",
        joined=True,
        parse=lambda text: tuple(map(int, text.split(","))),
        words=lambda asked: f"{len(asked.sizes)} sizes",
    )


OPTIONS = options_of(Asked)


def test_options_know_their_field():
    assert [*OPTIONS][:3] == ["name", "level", "ratio"] and "hidden" not in OPTIONS
    assert OPTIONS["file"].kind is Path
    assert OPTIONS["parts"].kind is str
    assert (OPTIONS["fast_path"].kind, OPTIONS["fast_path"].default) == (bool, False)
    assert OPTIONS["fast_path"].flags == ("-f", "--fast-path")
    assert (OPTIONS["parts"].repeated, OPTIONS["sizes"].repeated) == (True, False)
    assert Asked().level == 1


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("name", "x", "x"),
        ("level", 5, 5),
        ("ratio", 2, 2.0),
        ("mode", "fancy", "fancy"),
        ("fast_path", True, True),
        ("file", "a", Path("/in/a")),
        ("file", Path("/b"), Path("/b")),
        ("parts", "x", ("x",)),
        ("parts", ["x", "y"], ("x", "y")),
        ("sizes", "3,4", (3, 4)),
    ],
)
def test_what_is_written_is_read(name, value, held):
    assert OPTIONS[name].read(value, Path("/in")) == held
    assert type(OPTIONS[name].read(value, Path("/in"))) is type(held)


@pytest.mark.parametrize(
    ("name", "value", "error", "told"),
    [
        ("name", 3, TypeError, "3 is not a text"),
        ("level", 6, ValueError, "6 is not from 0 to 5"),
        ("level", True, TypeError, "True is not from 0 to 5"),
        ("ratio", -1.0, ValueError, "-1.0 is not 0.0 or more"),
        ("mode", "odd", ValueError, "'odd' is not one of plain, fancy"),
        ("mode", 3, TypeError, "3 is not one of plain, fancy"),
        ("fast_path", 1, TypeError, "1 is neither true nor false"),
        ("file", 3, TypeError, "3 is not a path"),
        ("parts", [3], TypeError, r"\[3\] is not a list of texts"),
        ("sizes", "3,x", ValueError, "invalid literal"),
    ],
)
def test_other_values_are_refused_with_what_is_possible(name, value, error, told):
    with pytest.raises(error, match=told):
        OPTIONS[name].read(value)


def test_what_differs_is_echoed_and_what_always_is():
    assert described(Asked()) == {"sizes": "0 sizes"}
    asked = Asked(level=2, fast_path=True, sizes=(1,))
    assert described(asked) == {"level": "2", "fast-path": "yes", "sizes": "1 sizes"}
