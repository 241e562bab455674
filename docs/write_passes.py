"""Write `passes.md`, the reference of all passes and rules, from the passes themselves.

Each pass of the pipeline is run once per target on an empty graph, with `apply_rules` replaced by
something that only looks at the rules it is given: what is listed is what runs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx_ir as ir

from leptonc.passes.base import Pass, PassStats
from leptonc.passes.facts.facts import Facts, infer_facts
from leptonc.passes.lower.plain_conv import PlainConvolution
from leptonc.passes.lower.standard_operators import StandardOperators
from leptonc.passes.precision.precision import Precision
from leptonc.passes.rewriting.rule import TARGETS, Rule
from leptonc.passes.schedule import STAGES
from leptonc.passes.simplify import Simplify

PAGE = Path(__file__).with_name("passes.md")

STAGE_TITLES = {
    "canonical": "what computes nothing goes, what is constant is computed: every bit is kept",
    "fuse": "what several nodes compute becomes the one thing that it is",
    "lower": "what the target runs best",
}

HEAD = """\
# Passes and rules

`leptonc compile --explain` shows which of these fired on a model and where, and why others nearly did; [writing-a-pass.md](writing-a-pass.md) says how to add one. The stages run in this order, each until nothing in it changes anything, and all of them until none does. A rule is tried at the nodes in *looks at*, which are the last of what it replaces; *for* names the targets, and *opset* is the version of ONNX's operators that the result needs, where it needs one.

This page is written by `python docs/write_passes.py`.
"""


@dataclass
class Entry:
    """One pass of a stage, and the rules that it applies for each target, in their order."""

    one: Pass
    rules: dict[str, tuple[Rule[Any], set[str]]] = field(default_factory=dict)


def generated() -> str:
    """Return the page."""
    lines = [HEAD]
    for stage in STAGES:
        lines.append(f"## Stage `{stage.name}`: {STAGE_TITLES[stage.name]}\n")
        lines.extend(line for make in stage.passes for line in _pass(_look(make)))
    lines.append("## In half the width: `-p fp16` and `-p bf16`\n")
    lines.extend(line for make in (_plain, _narrow) for line in _pass(_look(make)))
    lines.append("## For TensorRT, before all others\n")
    lines.extend(_pass(_look(_standard)))
    lines.append("## On demand\n")
    lines.extend(_pass(Entry(Simplify())))
    return "\n".join(lines).rstrip() + "\n"


def _plain(target: str, facts: Facts) -> Pass:
    return PlainConvolution(target, facts)


def _standard(target: str, facts: Facts) -> Pass:
    return StandardOperators(target, facts)


def _narrow(target: str, facts: Facts) -> Pass:
    return Precision(target=target, facts=facts)


def _look(make: Any) -> Entry:
    found: Entry | None = None
    for target in TARGETS:
        model = _empty()
        facts: Facts = infer_facts(model)
        one: Pass = make(target, facts)
        found = found or Entry(one)
        for rule in _applied(one, model):
            if target in rule.targets:
                found.rules.setdefault(rule.name, (rule, set()))[1].add(target)
    assert found is not None
    return found


def _empty() -> ir.Model:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="empty")
    return ir.Model(graph, ir_version=10)


def _applied(one: Pass, model: ir.Model) -> Sequence[Rule[Any]]:
    module = sys.modules[type(one).__module__]
    if not hasattr(module, "apply_rules"):
        return ()
    seen: list[Rule[Any]] = []

    def look(_: ir.Model, name: str, rules: Sequence[Rule[Any]], **__: object) -> PassStats:
        seen.extend(rules)
        return PassStats(name, (), 0, 0)

    with patch.object(module, "apply_rules", look):
        one.run(model)
    return seen


def _pass(entry: Entry) -> Iterator[str]:
    yield f"### `{entry.one.name}`\n"
    yield _document(sys.modules[type(entry.one).__module__])
    by_module: dict[str, list[tuple[Rule[Any], set[str]]]] = {}
    for rule, targets in entry.rules.values():
        by_module.setdefault(_home(rule), []).append((rule, targets))
    for module, rules in by_module.items():
        yield f"#### {_title(module)}\n"
        yield _document(sys.modules[module])
        yield from _table(rules)


def _home(rule: Rule[Any]) -> str:
    """Return the module in which the pattern of a rule is written."""
    pattern: Any = rule.pattern
    while isinstance(pattern, partial):
        pattern = pattern.func
    return str(pattern.__module__)


def _title(module: str) -> str:
    """Return what a module is about by where it stands: "Linear: einsum", "Movement: casts"."""
    folder, name = (part.replace("_", " ") for part in module.split(".")[-2:])
    return f"{folder.capitalize()}: {name}"


def _document(module: object) -> str:
    """Return a docstring as it is laid out: its formulas are aligned by hand."""
    return f"```text\n{inspect.getdoc(module)}\n```\n"


def _table(rules: Sequence[tuple[Rule[Any], set[str]]]) -> Iterator[str]:
    yield "| rule | looks at | for | opset |"
    yield "|---|---|---|---|"
    for rule, targets in rules:
        anchors = ", ".join(f"`{anchor}`" for anchor in rule.anchors)
        wanted = [target for target in TARGETS if target in targets]
        names = "all" if len(wanted) == len(TARGETS) else ", ".join(wanted)
        yield f"| `{rule.name}` | {anchors} | {names} | {rule.opset or ''} |"
    yield ""


def main() -> None:
    """Write the page."""
    PAGE.write_text(generated(), encoding="utf-8")


if __name__ == "__main__":
    main()
