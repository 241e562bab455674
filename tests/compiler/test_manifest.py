"""What an artifact says about itself: entries that other modules do not write."""

from __future__ import annotations

import json

from leptonc.compiler.manifest import NAMED, pass_entry
from leptonc.passes.base import Firing, PassStats, Refusal

SUMS = PassStats(
    "sums",
    (("[bold]", 2), ("pad", 1)),
    9,
    6,
    (
        Refusal("add_3", "'a' is also read by 'b'", "pad"),
        Refusal("add_1", "'a' is also read by 'b'", "pad"),
        Refusal("", "it is too wide"),
    ),
    (Firing("pad", "add_2"), Firing("[bold]", "mul_1"), Firing("[bold]", "mul_2")),
    ("add_2", "mul_0", "mul_1"),
    ("new",),
)


def test_an_entry_groups_by_rule_and_reason():
    assert pass_entry(SUMS) == {
        "name": "sums",
        "counts": {"[bold]": 2, "pad": 1},
        "nodes_before": 9,
        "nodes_after": 6,
        "fired": [
            {"rule": "[bold]", "count": 2, "nodes": ["mul_1", "mul_2"]},
            {"rule": "pad", "count": 1, "nodes": ["add_2"]},
        ],
        "refused": [
            {"rule": "", "reason": "it is too wide", "count": 1, "nodes": [""]},
            {
                "rule": "pad",
                "reason": "'a' is also read by 'b'",
                "count": 2,
                "nodes": ["add_3", "add_1"],
            },
        ],
        "refused_count": 3,
        "removed": {"count": 3, "nodes": ["add_2", "mul_0", "mul_1"]},
        "rewritten": {"count": 1, "nodes": ["new"]},
    }


def test_counts_are_complete_where_names_are_too_many():
    many = 3 * NAMED
    stats = PassStats(
        "p",
        (("r", many),),
        many,
        0,
        tuple(Refusal(f"n{i}", f"reason {i:05}", "r") for i in range(many)),
        tuple(Firing("rs"[i % 2], f"n{i}") for i in range(many)),
        tuple(f"n{i}" for i in range(many)),
    )
    entry = pass_entry(stats)
    assert [(group["count"], len(group["nodes"])) for group in entry["fired"]] == [
        (many // 2, NAMED),
        (many // 2, 0),
    ]
    assert len(entry["refused"]) == NAMED
    assert entry["refused_count"] == many
    assert entry["removed"] == {"count": many, "nodes": [f"n{i}" for i in range(NAMED)]}
    assert len(json.dumps(entry)) < 200 * NAMED
