"""How each layer of a quantised variant is computed, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Account = Mapping[str, Any]


def render_quantization(
    accounts: Mapping[str, Account],
    integers: Mapping[str, Mapping[str, str]],
    console: Console,
    *,
    most: int | None = None,
) -> None:
    """Print a table for each variant.

    Args:
        accounts: `quantization` of the manifest, by the name of the variant.
        integers: `evidence.integers` of the manifest: what the engine reads each integer weight
            with, by variant and layer.
        console: Where to.
        most: Layers of each to show, those with the lowest SQNR, or the largest where none was
            measured; None for all, in graph order.
    """
    for variant, account in accounts.items():
        rows = list(account["layers"])
        shown = rows if most is None else sorted(rows, key=_weight)[:most]
        console.print()
        console.print(f"[bold]{escape(f'layers of {variant}')}[/]: {escape(_summary(account))}")
        console.print(_table(shown, integers.get(variant, {})))
        if len(shown) < len(rows):
            console.print(f"and {len(rows) - len(shown)} more; --json has them all")


def _weight(row: Mapping[str, Any]) -> tuple[float, int, str]:
    measured = row.get("sqnr_db")
    return (float("inf") if measured is None else measured, -row["parameters"], row["layer"])


def _summary(account: Account) -> str:
    methods = Counter(row["method"] for row in account["layers"])
    parts = [f"{count} {method}" for method, count in sorted(methods.items())]
    calibration = account.get("calibration")
    if calibration:
        parts.append(f"ranges of {calibration['samples']} samples")
    if account.get("latency") == "estimated":
        parts.append("times estimated from multiplications")
    if "goals" in account:
        kept = "kept" if account["reached"] else "missed"
        goals = "; ".join(account["goals"])
        parts.append(f"goals {kept} in {account['evaluations']} evaluations: {goals}")
    return ", ".join(parts)


def _table(rows: list[Mapping[str, Any]], ran: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("layer", "operator", "precision", "method", "weight", "range"):
        table.add_column(name, overflow="fold")
    for name in ("SQNR dB", "time"):
        table.add_column(name, justify="right", overflow="fold")
    for name in ("runs as", "because"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, _cells(row, ran.get(row["layer"], ""))))
    return table


def _cells(row: Mapping[str, Any], ran: str) -> tuple[str, ...]:
    is_float = row["method"] == "float"
    weight = "" if is_float else row["rounding"]
    if row.get("block"):
        weight += f", blocks of {row['block']}"
    if "bias" in row:
        weight += f", bias {row['bias']}"
    held = row.get("range")
    share = row.get("latency_share")
    measured = row.get("sqnr_db")
    return (
        row["layer"],
        row["operator"],
        "float32" if is_float else f"int{row['bits']}",
        row["method"],
        weight,
        "" if held is None else f"{held['low']:.4g} .. {held['high']:.4g} ({row['range_method']})",
        "" if measured is None else f"{measured:.1f}",
        "" if share is None else f"{share:.1%}",
        ran,
        row.get("reason", ""),
    )
