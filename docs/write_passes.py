"""Write `passes.md`, the reference of all passes and rules, from the passes themselves."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from leptonc.passes.fusions.attention.fuse import SPLIT_ATTENTION
from leptonc.passes.lower.standard_operators import STANDARD_OPERATORS
from leptonc.passes.pipeline import Pass
from leptonc.passes.precision.precision import Precision
from leptonc.passes.rewriting.rule import Rule
from leptonc.passes.rewriting.rule_pass import RulePass
from leptonc.passes.schedule import STAGES
from leptonc.passes.simplify import Simplify
from leptonc.passes.targets import TARGETS

PAGE = Path(__file__).with_name("passes.md")

STAGE_TITLES = {
    "canonical": "what computes nothing goes, what is constant is computed: every bit is kept",
    "fuse": "what several nodes compute becomes the one thing that it is",
    "merge": "layers become whole, before half the width and integers",
    "lower": "what the target runs best, in operators that only its engine has",
}

HEAD = """\
# Passes and rules

`leptonc compile --explain` shows which of these fired on a model and where, and why others nearly did; [writing-a-pass.md](writing-a-pass.md) says how to add one. The stages run in this order, each until nothing in it changes anything, and all of them until none does. A rule is tried at the nodes in *looks at*, which are the last of what it replaces; *for* names the targets, and *opset* is the version of ONNX's operators that the result needs, where it needs one.

This page is written by `python docs/write_passes.py`.
"""


def generated() -> str:
    """Return the page."""
    lines = [HEAD]
    for stage in STAGES:
        lines.append(f"## Stage `{stage.name}`: {STAGE_TITLES[stage.name]}\n")
        lines.extend(line for one in stage.passes for line in _pass(one))
    lines.append("## In half the width: `-p fp16` and `-p bf16`\n")
    lines.extend(_pass(Precision()))
    lines.append("## For TensorRT, half the width and integers, before the stage `fuse`\n")
    lines.extend(line for one in (STANDARD_OPERATORS, SPLIT_ATTENTION) for line in _pass(one))
    lines.append("## On demand\n")
    lines.extend(_pass(Simplify()))
    return "\n".join(lines).rstrip() + "\n"


def _pass(one: Pass) -> Iterator[str]:
    yield f"### `{one.name}`\n"
    if not isinstance(one, RulePass):
        yield _document(sys.modules[type(one).__module__].__doc__)
        return
    yield _document(one.doc)
    targets: dict[str, set[str]] = {}
    by_module: dict[str, dict[str, Rule[Any]]] = {}
    for target, rule in itertools.product(TARGETS, (*one.rules, *one.then)):
        if target in rule.targets:
            targets.setdefault(rule.name, set()).add(target)
            by_module.setdefault(_home(rule), {}).setdefault(rule.name, rule)
    for module, rules in by_module.items():
        yield f"#### {_title(module)}\n"
        if sys.modules[module].__doc__ != one.doc:
            yield _document(sys.modules[module].__doc__)
        yield from _table([(rule, targets[name]) for name, rule in rules.items()])


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


def _document(text: str | None) -> str:
    """Return a docstring as it is laid out: its formulas are aligned by hand."""
    return f"```text\n{inspect.cleandoc(text or '')}\n```\n"


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
