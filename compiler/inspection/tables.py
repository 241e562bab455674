"""An inspection as text: a few tables, the long ones cut to their largest rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leptonc.compiler.inspection.layers import render_quantization

# Rows of the tables of layers, operators and weights; `--json` has them all.
ROWS = 10
HASHES = {True: "every hash is intact", False: "this kind of file carries no hashes"}


def render(record: Mapping[str, Any], console: Console) -> None:
    """Print the JSON form of an inspection."""
    console.print(_head(record))
    _section(console, "interface", _interface(record["signature"]))
    for variant in record["variants"]:
        title = f"variant {variant['name']}"
        _section(console, title, _about(variant))
        _section(console, f"{title}: operators", _operators(variant["operators"]))
        _section(console, f"{title}: weights", _weights(variant["weights"]))
    integers = record["evidence"].get("integers", {})
    render_quantization(record["quantization"], integers, console, most=ROWS)
    if record["passes"]:
        _section(console, "passes", _passes(record["passes"]))
    if record["plugins"]:
        origins = {each["name"]: origin_text(each) for each in record["plugins"]}
        _section(console, "plugins", _pairs(origins))
    if record["evidence"]:
        _section(console, "verification", _verification(record["evidence"]["verification"]))
        _section(console, "placement", _pairs(record["evidence"].get("placement", {})))
        _section(console, "tools", _pairs(record["evidence"].get("tools", {})))
    if record["sections"]:
        _section(console, "sections", _sections(record["sections"]))


def size_text(size: int) -> str:
    """Return a number of bytes as people read it: `1.5 MB`, decimal units."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def origin_text(plugin: Mapping[str, Any]) -> str:
    """Return the distribution that a plugin comes from, with its version."""
    return f"{plugin['distribution']} {plugin['version']}"


def shape_text(shape: Sequence[Any]) -> str:
    """Return `[batch 1..64, 3]` for a shape as the manifest spells it."""
    return f"[{', '.join(_dim(size) for size in shape)}]"


def _dim(size: int | Mapping[str, Any]) -> str:
    if isinstance(size, int):
        return str(size)
    upper = "any" if size["max"] is None else size["max"]
    return f"{size['name']} {size['min']}..{upper}"


def _section(console: Console, title: str, table: Table) -> None:
    console.print()
    console.print(f"[bold]{escape(title)}[/]")
    console.print(table)


def _pairs(values: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in values.items():
        table.add_row(escape(name), escape(_text(value)))
    return table


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_text(each) for each in value) or "none"
    return "none" if value is None or value == "" else str(value)


def _head(record: Mapping[str, Any]) -> Table:
    rows = {
        "file": record["path"],
        "model": record["name"],
        "size": f"{size_text(record['bytes'])} ({record['bytes']} bytes)",
        "integrity": HASHES[record["verified"]],
    }
    if record["compiled_by"]:
        rows["compiled by"] = f"leptonc {record['compiled_by']}"
    if record["source"]:
        rows["source"] = record["source"]["kind"]
        rows["fingerprint"] = record["source"]["fingerprint"]
    return _pairs(rows)


def _interface(signature: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for role in ("inputs", "outputs"):
        for spec in signature[role]:
            kind = f"{spec['dtype']}{shape_text(spec['shape'])}"
            table.add_row(role[:-1], escape(spec["name"]), escape(kind))
    return table


def _about(variant: Mapping[str, Any]) -> Table:
    total = sum(weight["bytes"] for weight in variant["weights"])
    nodes = sum(operator["nodes"] for operator in variant["operators"])
    sizes = {"nodes": nodes, "weights": f"{len(variant['weights'])}, {size_text(total)}"}
    demands = {f"needs {name}": value for name, value in variant["demands"].items()}
    return _pairs({**variant["about"], **demands, **sizes})


def _operators(operators: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("operator", right=("nodes", "weights"))
    for each in _cut(operators, "op", "nodes", "weight_bytes"):
        table.add_row(escape(each["op"]), str(each["nodes"]), size_text(each["weight_bytes"]))
    return table


def _weights(weights: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("weight", "type", right=("size", "share"))
    for each in _cut(weights, "name", "bytes", "share"):
        kind = f"{each['dtype']}{list(each['shape'])}" if "dtype" in each else ""
        share = f"{each['share']:.1%}"
        table.add_row(escape(each["name"]), escape(kind), size_text(each["bytes"]), share)
    return table


def _table(*headings: str, right: Sequence[str] = ()) -> Table:
    table = Table(*headings, box=None, pad_edge=False)
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def _cut(rows: Sequence[Mapping[str, Any]], title: str, *sums: str) -> list[Mapping[str, Any]]:
    """Return the first rows, and one with the sums of the others under the title "n more"."""
    rest = rows[ROWS:]
    if not rest:
        return list(rows)
    more = {key: sum(each[key] for each in rest) for key in sums}
    return [*rows[:ROWS], {title: f"{len(rest)} more", **more}]


def _passes(passes: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("pass", "nodes", "changes")
    for each in passes:
        nodes = f"{each['nodes_before']} to {each['nodes_after']}"
        table.add_row(each["name"], nodes, escape(_text(each["counts"])))
    return table


def _verification(verification: Mapping[str, Any]) -> Table:
    if not verification["verified"]:
        return _pairs({"not verified": verification["reason"]})
    table = _table("shape", "output", "max abs", "cosine", "SQNR")
    for trial in verification["trials"]:
        shape = ", ".join(f"{name} {size}" for name, size in trial["sizes"].items()) or "fixed"
        for output in trial["outputs"]:
            decibels = output["sqnr_db"]
            table.add_row(
                escape(shape),
                escape(output["output"]),
                _text(output["max_abs"]),
                _text(output["cosine"]),
                "equal" if decibels is None else f"{decibels} dB",
            )
    unrun = [each for each in verification.get("variants", ()) if not each["engine_ran"]]
    notes = [f"the engine of {each['variant']} has not run: {each['reason']}" for each in unrun]
    table.caption = escape("\n".join([f"against {verification['reference']}", *notes]))
    return table


def _sections(sections: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("section", right=("offset", "bytes"))
    for each in sections:
        table.add_row(escape(each["name"]), str(each["offset"]), str(each["bytes"]))
    return table
