"""The floors of the packages, held by reading every import: no arrow upward, no circle.

A file may import its own folder and folders on lower floors, never a higher one, and never a
neighbour on its own floor. Lazy imports count, and those for types alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("compiler", "backends", "passes", "runtime")
FACE = "__init__"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

# The floors of each package, top first. A name with a slash is a folder with all that is in it.
# The package's own face is above them all.
FLOORS: Mapping[str, str] = {
    "compiler": """
        cli
        commands/
        dry_run
        driver calibrate
        rewriting release/
        manifest
        accuracy/
        quantization/ inspection/
        job subject
        verification/ calibration/
        targets export/
        sources/
        measure/
        running/
        settings/ machines/
        console/ workspace errors
    """,
    "backends": """
        unpack
        rows
        ort/ tensorrt/ plugins
        pack canonical_graph saved_graph abilities row
        base
        option errors
    """,
    "passes": """
        schedule
        lower/ precision/ rescale/ fusions/attention/ fusions/residual/
        fusions/__init__ fusions/activation/ fusions/conv/ fusions/linear/ fusions/norm/ fusions/rotary/
        quantize/ clean/ movement/ bounds/
        fold/ ranges/ rewriting/ plugins share/ simplify
        pipeline
        facts/
        graph/
        base targets errors
    """,
    "runtime": """
        __main__
        session
        loading
        variant_choice binding
        engines/loaders
        engines/ort/ engines/tensorrt/
        engines/row
        engines/base engines/__init__
        engines/load_options
        cuda/
        inputs
        artifact/ machine arrays
        errors
    """,
}


@cache
def modules() -> Mapping[str, Path]:
    """Return every module by its path without the suffix."""
    return {
        path.relative_to(ROOT).with_suffix("").as_posix(): path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@cache
def arrows() -> Mapping[str, frozenset[str]]:
    """Return for each module those that it imports, the lazy and the typing ones too."""
    return {
        name: frozenset(imported(path.read_text(encoding="utf-8"))) - {name}
        for name, path in modules().items()
    }


def imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (found for name in names if (found := module_of(name)))


def module_of(dotted: str) -> str | None:
    """Return the module that a name is in: "leptonc.passes.base.Pass" is in "passes/base"."""
    first, *parts = dotted.split(".")
    for end in range(len(parts), 0, -1) if first == "leptonc" else ():
        path = "/".join(parts[:end])
        for name in (path, f"{path}/{FACE}"):
            if name in modules():
                return name
    return None


def place(module: str) -> tuple[int, str]:
    """Return how high a module stands in its package, 0 for the ground, and in which room."""
    package, _, rest = module.partition("/")
    floors = [line.split() for line in FLOORS[package].strip().splitlines()]
    if rest == FACE:
        return len(floors), module
    for number, rooms in enumerate(reversed(floors)):
        for name in rooms:
            if rest == name or (name.endswith("/") and rest.startswith(name)):
                return number, f"{package}/{name}"
    raise AssertionError(f"{module} stands on no floor: add it, or its folder, to FLOORS")


def climbs(module: str, other: str) -> bool:
    """Return whether `module` may not import `other`."""
    here, there = module.partition("/")[0], other.partition("/")[0]
    if here != there:
        return PACKAGES.index(there) < PACKAGES.index(here)
    (level, room), (other_level, other_room) = place(module), place(other)
    return room != other_room and other_level >= level


def circles(edges: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one module (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(edges.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            ring = [stack.pop()]
            while ring[-1] != name:
                ring.append(stack.pop())
            if len(ring) > 1:
                found.append(sorted(ring))

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return found


def test_every_module_stands_on_a_floor_and_every_floor_holds_one():
    rooms = {place(name)[1] for name in modules()}
    for package, text in FLOORS.items():
        for name in text.split():
            assert any(
                f"{room}/".startswith(f"{package}/{name}".rstrip("/") + "/") for room in rooms
            )


@pytest.mark.parametrize("package", PACKAGES)
def test_no_arrow_goes_up(package):
    found = [
        f"{module} -> {other}"
        for module, others in arrows().items()
        if module.startswith(f"{package}/")
        for other in sorted(others)
        if climbs(module, other)
    ]
    assert found == []


def test_no_circle():
    assert circles(arrows()) == []


def test_a_circle_is_seen():
    ring = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a"), "d": frozenset("a")}
    assert circles(ring) == [["a", "b", "c"]]


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("runtime/session", "passes/base"),
        ("passes/graph/structure", "passes/clean/clean"),
        ("passes/clean/clean", f"passes/{FACE}"),
        ("passes/clean/clean", "passes/movement/casts"),
        ("passes/fusions/conv/affine", "passes/fusions/linear/read"),
        ("passes/fusions/conv/fuse", "passes/lower/conv_activation"),
        ("compiler/settings/compile_settings", "compiler/driver"),
        ("runtime/engines/ort/cpu", "runtime/engines/tensorrt/engine"),
    ],
)
def test_an_arrow_upward_or_to_a_neighbour_is_seen(module: str, other: str):
    assert climbs(module, other)


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("compiler/driver", f"passes/{FACE}"),
        ("passes/clean/clean", "passes/clean/chains"),
        ("passes/fusions/conv/fuse", "passes/rewriting/rule"),
        (f"passes/{FACE}", "passes/schedule"),
    ],
)
def test_an_arrow_down_or_within_a_folder_is_none_upward(module: str, other: str):
    assert not climbs(module, other)


FACES = [name for name in modules() if name.endswith(FACE)]


@pytest.mark.parametrize("face", FACES)
def test_a_face_is_short_and_begins_with_its_sentence(face: str):
    text = modules()[face].read_text(encoding="utf-8")
    tree = ast.parse(text)
    sentence = (ast.get_docstring(tree) or "").partition("\n")[0]
    assert len(text.splitlines()) < 40
    assert sentence.endswith(".") and len(sentence.split()) >= 4
    defined = [n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    # A module's own `__getattr__` is how a face hands on what is dear to import.
    assert [name for name in defined if name != "__getattr__"] == []


def test_every_folder_has_a_face():
    folders = {name.rpartition("/")[0] for name in modules()}
    assert sorted(folder for folder in folders if f"{folder}/{FACE}" not in modules()) == []


@pytest.mark.parametrize("face", [face for face in FACES if face.count("/") > 1])
def test_the_page_has_each_folder_with_its_question(face: str):
    question = (ast.get_docstring(ast.parse(modules()[face].read_text())) or "").splitlines()[0]
    assert f"| `{face.removesuffix(FACE)}` | {question} |" in PAGE


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_has_the_floors(package: str):
    levels = FLOORS[package].strip().splitlines()
    rooms = [[f"`{room}`" for room in level.split() if not room.endswith(FACE)] for level in levels]
    assert f"Floors, top first: {' › '.join(' '.join(each) for each in rooms)}\n" in PAGE
