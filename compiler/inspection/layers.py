"""How each layer of a quantised variant is computed, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

Account = Mapping[str, Any]
RIGHT = frozenset({"SQNR", "time"})
WIDEST = 10_000


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
        console.print(_table(shown, integers.get(variant, {}), console), crop=False)
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


def _table(rows: Sequence[Mapping[str, Any]], ran: Mapping[str, str], console: Console) -> Table:
    cells = [_cells(row, ran.get(row["layer"], "")) for row in rows]
    table = Table(box=None, pad_edge=False)
    for title in cells[0] if cells else ():
        # A column that says nothing of any layer is left out.
        if any(row[title] for row in cells):
            side: JustifyMethod = "right" if title in RIGHT else "left"
            table.add_column(title, justify=side, no_wrap=True)
    for row in cells:
        table.add_row(*(escape(row[str(column.header)]) for column in table.columns))
    # As wide as it is: the name of a layer that is folded can be neither searched for nor copied.
    wide = console.options.update(width=WIDEST)
    table.width = table.__rich_measure__(console, wide).maximum
    return table


def _cells(row: Mapping[str, Any], ran: str) -> dict[str, str]:
    is_float = row["method"] == "float"
    weight = "" if is_float else row["rounding"]
    if row.get("block"):
        weight += f", blocks of {row['block']}"
    if "bias" in row:
        weight += f", bias {row['bias']}"
    share = row.get("latency_share")
    measured = row.get("sqnr_db")
    return {
        "layer": row["layer"],
        "operator": row["operator"],
        "precision": "float32" if is_float else f"int{row['bits']}",
        "method": row["method"],
        "weight": weight,
        "range": _range(row),
        "SQNR": "" if measured is None else f"{measured:.1f} dB",
        "time": "" if share is None else f"{share:.1%}",
        "runs as": ran,
        "because": row.get("reason", ""),
    }


def _range(row: Mapping[str, Any]) -> str:
    held = row.get("range")
    if held is None:
        return "of each call" if row["method"] == "dynamic" else ""
    return f"{held['low']:.4g} .. {held['high']:.4g} ({row['range_method']})"
