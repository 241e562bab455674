"""Applies rules to a graph until none fires, and keeps account of what fired and what did not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from leptonc.passes.base import Firing, PassStats, Refusal
from leptonc.passes.errors import PassError
from leptonc.passes.facts.facts import Facts, infer_facts
from leptonc.passes.graph.editing import alias, detach
from leptonc.passes.graph.names import Names
from leptonc.passes.graph.operators import has_plain_attributes, is_removable
from leptonc.passes.graph.opset import obstacle_to_raising, raise_opset
from leptonc.passes.graph.structure import (
    Root,
    annotated_names,
    annotation,
    count_nodes,
    graphs,
    is_dead,
    opset_of,
    roots,
    subgraphs,
)
from leptonc.passes.graph.sweep import sweep
from leptonc.passes.rewriting.build import Build
from leptonc.passes.rewriting.rule import Rule
from leptonc.passes.rewriting.site import Site, operator

# Each sweep over the graph after the first needs something that the one before made possible.
_MOST_SWEEPS = 64


def apply_rules(
    model: ir.Model,
    name: str,
    rules: Sequence[Rule[Any]],
    *,
    target: str = "generic",
    facts: Facts | None = None,
) -> PassStats:
    """Apply `rules` to the main graph and its subgraphs, in place, until none fires.

    At each node the rules are tried in their order. Nodes are visited in graph order.

    Args:
        model: Rewritten in place. Functions are left alone: their values have no types.
        name: Of the pass, for the statistics.
        rules: Those for other targets are left out.
        target: One of `leptonc.passes.TARGETS`.
        facts: What is known of the values of `model`, or None to infer it.
    """
    before = count_nodes(model)
    by_anchor: defaultdict[str, list[Rule[Any]]] = defaultdict(list)
    for rule in rules:
        if target in rule.targets:
            for anchor in rule.anchors:
                by_anchor[anchor].append(rule)
    main = roots(model)[0]
    if not main.initializers or not _has_anchor(main.graph, by_anchor):
        return PassStats(name, (), before, before)
    facts = facts or infer_facts(model)
    work = _Work(model, facts, target, Names(model), by_anchor, main)
    for _ in range(_MOST_SWEEPS):
        work.refused.clear()
        fired = len(work.fired)
        for graph in graphs(model.graph):
            for node in list(graph):
                if node.graph is graph:
                    work.visit(node)
        if len(work.fired) == fired:
            break
    else:
        raise PassError(
            f"pass {name!r} does not come to an end",
            where=f"rule {work.fired[-1].rule!r} at node {work.fired[-1].node!r}",
            fix="this is a bug in leptonc: please report it with the model",
        )
    if work.fired:
        sweep(model, annotated_names(model))
        for graph in graphs(model.graph):
            restore_order(graph)
    counts = Counter(firing.rule for firing in work.fired)
    return PassStats(
        name=name,
        counts=tuple(sorted(counts.items())),
        nodes_before=before,
        nodes_after=count_nodes(model) if work.fired else before,
        refused=tuple(work.refused),
        fired=tuple(work.fired),
    )


def _has_anchor(main: ir.Graph, rules: Mapping[str, Sequence[Rule[Any]]]) -> bool:
    return any(operator(node) in rules for graph in graphs(main) for node in graph)


@dataclass
class _Work:
    """One run of one pass."""

    model: ir.Model
    facts: Facts
    target: str
    names: Names
    rules: Mapping[str, Sequence[Rule[Any]]]
    main: Root
    fired: list[Firing] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def visit(self, node: ir.Node) -> None:
        """Try the rules at `node`, and make the first rewrite that passes its check."""
        rules = self.rules.get(operator(node))
        if not rules or node.device_configurations or not has_plain_attributes(node):
            return
        if is_dead(node):
            return
        for rule in rules:
            opset = opset_of(self.model, self.main)
            site = Site(node, self.facts, opset, self.target)
            match = rule.pattern(site)
            if match is None:
                continue
            reason = None if rule.check is None else rule.check(site, match)
            reason = reason or self._obstacle(rule, site)
            if reason is None:
                reason = self._rewrite(rule, site, match)
            if reason is None:
                return
            self.refused.append(Refusal(node.name or "", reason, rule.name))

    def _obstacle(self, rule: Rule[Any], site: Site) -> str | None:
        if site.opset >= rule.opset:
            return None
        return obstacle_to_raising(self.model, rule.opset)

    def _rewrite(self, rule: Rule[Any], site: Site, match: Any) -> str | None:
        """Make the rewrite; return the reason when the graph around it does not allow it."""
        node = site.node
        graph, name = node.graph, node.name or ""
        assert isinstance(graph, ir.Graph)
        stem = (node.outputs[0].name or operator(node)) + f"_{rule.name.replace('-', '_')}"
        build = Build(self.names, self.facts, stem)
        replaced = rule.rewrite(site, match, build)
        for old in replaced:
            if annotation(old):
                return f"{old.name!r} carries a quantisation annotation"
        if len(replaced) > 1 and _reaches(build, replaced):
            return "one of the values that it replaces is needed to compute its inputs"
        self._accept(rule, node, build)
        for old, new in replaced.items():
            self._replace(graph, node, old, new, build)
        self._remove([old.producer() for old in replaced])
        for old, new in replaced.items():
            _keep_name(old, new, build)
        self.fired.append(Firing(rule.name, name))
        return None

    def _accept(self, rule: Rule[Any], node: ir.Node, build: Build) -> None:
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        used = {value for made in build.nodes for value in made.inputs}
        for value in build.weights:
            if value in used:
                self.model.graph.register_initializer(value)
        graph.insert_before(node, build.nodes)
        for made in build.nodes:
            # So that an error can name the line of the user's module.
            made.metadata_props.update(node.metadata_props)
            if made.domain:
                self.model.opset_imports.setdefault(made.domain, 1)
        raise_opset(self.model, rule.opset, self.names)

    def _replace(
        self, graph: ir.Graph, anchor: ir.Node, old: ir.Value, new: ir.Value, build: Build
    ) -> None:
        if new.type is None and new.producer() in build.nodes:
            new.type, new.shape = old.type, old.shape
            dtype = self.facts.dtype(old)
            if new.type is None and dtype is not None:
                # ONNX's inference asks for it behind an operator that it does not know.
                new.type = ir.TensorType(dtype)
        self.facts.carry(old, new)
        if alias(old, new):
            return
        # An output of the graph that equals an input, or another output.
        copy = ir.Value(name=self.names.fresh(f"{old.name}_copy"), type=old.type, shape=old.shape)
        same = ir.Node("", "Identity", [new], outputs=[copy], name=copy.name)
        graph.insert_before(anchor, same)
        self.facts.carry(old, copy)
        alias(old, copy)

    def _remove(self, dead: Sequence[ir.Node | None]) -> None:
        """Remove nodes that nothing reads any more, so that later matches count right."""
        functions = frozenset((key[0], key[1]) for key in self.model.functions)
        pending = list(dead)
        while pending:
            node = pending.pop()
            if node is None or node.graph is None or not is_dead(node):
                continue
            if not is_removable(node, functions):
                continue
            producers = [value.producer() for value in node.inputs if value is not None]
            detach(node)
            pending.extend(producers)


def _keep_name(old: ir.Value, new: ir.Value, build: Build) -> None:
    """Let a new value go under the name of the one it replaces, for people and comparisons."""
    producer = old.producer()
    gone = producer is None or producer.graph is None
    if not gone or not old.name or new.is_graph_output() or new.producer() not in build.nodes:
        return
    name, old.name = old.name, None
    new.name = name


def _reaches(build: Build, replaced: Mapping[ir.Value, ir.Value]) -> bool:
    """Whether an input of the new nodes depends on a value that they replace."""
    made = set(build.nodes)
    pending = [
        value
        for node in build.nodes
        for value in node.inputs
        if value is not None and value.producer() not in made
    ]
    seen: set[ir.Value] = set()
    while pending:
        value = pending.pop()
        if value in replaced:
            return True
        if value in seen:
            continue
        seen.add(value)
        producer = value.producer()
        if producer is not None:
            pending.extend(_reads(producer))
    return False


def _reads(node: ir.Node) -> list[ir.Value]:
    found = [value for value in node.inputs if value is not None]
    for body in subgraphs(node):
        for graph in graphs(body):
            found.extend(v for node in graph for v in node.inputs if v is not None)
            found.extend(graph.outputs)
    return found


def restore_order(graph: ir.Graph) -> None:
    """Sort the nodes of `graph` when one reads what a later one computes."""
    seen: set[ir.Node] = set()
    for node in graph:
        for value in _reads(node):
            producer = value.producer()
            if producer is not None and producer.graph is graph and producer not in seen:
                graph.sort()
                return
        seen.add(node)
