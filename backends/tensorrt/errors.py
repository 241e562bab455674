"""What TensorRT's refusals and crashes mean, in the terms of our graph."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from leptonc.backends.abilities import Refused
from leptonc.backends.errors import BuildError
from leptonc.backends.tensorrt.process import BuildOutcome
from leptonc.passes.graph.structure import all_nodes
from leptonc.runtime.errors import EnvironmentProblem, LeptonError

# The library asks for a GPU on the way to every error and adds that there is none.
_NO_GPU = re.compile(r"[\s,;.(]*(?:with )?(?:cudaError|Cuda [Ee]rror)\D*35\)?.*$", re.DOTALL)
# How it starts a message: "[file.cpp::function::123] Error Code 4: Internal Error (".
_ORIGIN = re.compile(r"^(?:\[[^\]]*\]\s*)?(?:IBuilder::\w+:\s*)?Error Code \d+: [\w ]+ \(")
# Where in its own sources it was: " In validate at /_src/optimizer/api/network.cpp:4081)".
_SOURCES = re.compile(r"(?:\s*In \w+ at \S+?:\d+)+\)?\s*$")
# The parser puts the condition that failed in front of what it means.
_CONDITION = re.compile(r'^(?:Assertion failed: .+?: |\(.*\) && )(?="?[A-Z])')
_NODE = re.compile(r"(?:node_of_|\bNode[: ]+|\(node )(?P<name>[^\s,:;)\]]+)")
_ADVICE = (
    (
        re.compile(r"values decide shapes"),
        "make it a constant, or compute it from the shapes of other inputs",
    ),
    (
        re.compile(r"Non-zero zero point", re.IGNORECASE),
        "quantise symmetrically: int8 with zero point 0",
    ),
    (
        re.compile(r"only allowed before DQ|Quantized constant", re.IGNORECASE),
        "quantise Conv, MatMul and Gemm only",
    ),
    (re.compile(r"type Int32", re.IGNORECASE), "do not quantise biases for TensorRT"),
    (
        re.compile(r"memory|allocat", re.IGNORECASE),
        "close other programs, or build with a smaller profile",
    ),
)
_OTHERWISE = "write that part of the model with other operators, or use the target ort-cpu"


def message_text(message: str) -> str:
    """Return a message of TensorRT without its own file names and remarks on the GPU."""
    text = _SOURCES.sub("", _NO_GPU.sub("", _ORIGIN.sub("", message.strip())))
    text = _CONDITION.sub("", " ".join(text.split())).strip('"')
    return text.rstrip(" .!") or message.strip()


def advice(message: str) -> str:
    """Return what to do about a message."""
    return next((fix for pattern, fix in _ADVICE if pattern.search(message)), _OTHERWISE)


def parser_refused(error: Mapping[str, Any], model: ir.Model) -> Refused:
    """Return the entry for an error of the parser."""
    reason = message_text(str(error["message"]))
    node = next((each for each in all_nodes(model) if each.name == error["node"]), None)
    if node is None:
        return Refused(str(error["node"]), str(error["operator"]), reason, advice(reason), None)
    return Refused.of(node, reason, advice(reason))


def build_refused(result: Mapping[str, Any], model: ir.Model) -> LeptonError:
    """Return the error for a build that gave no plan."""
    messages = [message_text(line) for line in result.get("log", ())]
    reason = messages[0] if messages else f"it stopped in {result.get('phase') or 'its work'}"
    place = _named_node(" ".join(messages), model)
    return BuildError(
        f"TensorRT cannot build the graph: {reason}",
        where=place.where if place else None,
        fix=advice(reason),
    )


def builder_died(outcome: BuildOutcome) -> LeptonError:
    """Return the error for a builder that ended without a result."""
    last = f"; it was at {outcome.phase!r}" if outcome.phase else ""
    if outcome.signal == "SIGKILL":
        return EnvironmentProblem(
            f"the process that builds the plan was killed (SIGKILL){last}",
            fix="most often the machine is out of memory: close other programs, or build on a "
            "larger machine",
        )
    if outcome.signal is not None:
        return BuildError(
            f"TensorRT crashed with {outcome.signal} while it built the plan{last}",
            fix="this is a bug in TensorRT: `leptonc compile --dry-run` checks the graph; "
            "another opset or precision may avoid it",
        )
    return BuildError(
        f"the process that builds the plan failed: {outcome.stderr or 'it says nothing'}{last}",
        fix="please report this with the model",
    )


def _named_node(text: str, model: ir.Model) -> Refused | None:
    """Return the node that a message names, the longest name first: names contain others."""
    names = {node.name: node for node in all_nodes(model) if node.name}
    words = set(re.findall(r"[^\s,;:()\[\]'\"]+", text))
    for match in _NODE.finditer(text):
        words.add(match["name"])
    for name in sorted(words & names.keys(), key=lambda each: (-len(each), each)):
        return Refused.of(names[name], "", "")
    return None
