"""One optimiser on one graph, in a process of its own: `TOOL INPUT.onnx OUTPUT.onnx RECIPE`.

Prints one line of JSON: the seconds that the optimiser took, from the graph in memory to the graph
in memory; the memory that it needed beyond the process with its libraries; and what it left: nodes,
and bytes of weights. What the result answers at the sizes of the benchmark goes beside it as .npz.
Graphs of onnx-ir refer to weights that are read or computed when they are
written, so for them the memory includes writing the result; protobufs hold everything before that.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from cases import OPTIMIZERS, arrays

# For onnxruntime.transformers: the type of the model, its heads, its width.
TRANSFORMERS = {
    "bert_base": ("bert", 12, 768),
    "minilm": ("bert", 12, 384),
    "vit_base": ("vit", 12, 768),
    "t5_encoder": ("t5", 8, 512),
    "gpt2": ("gpt2", 12, 768),
}

Model = ir.Model | onnx.ModelProto
Steps = tuple[Callable[[Path], Any], Callable[[Any], Model]]


def main(tool: str, source: Path, target: Path, recipe: str) -> None:
    """Load, optimise, save and report."""
    load, optimize = _steps(tool, recipe)
    # Forget the peak of the imports.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _memory("VmRSS")
    loaded = load(source)
    began = time.perf_counter()
    made = optimize(loaded)
    seconds = time.perf_counter() - began
    peak = _memory("VmHWM")
    _save(made, target)
    if isinstance(made, ir.Model):
        peak = _memory("VmHWM")
    np.savez(target.with_suffix(".npz"), *_answers(target, recipe))
    print(json.dumps({"seconds": seconds, "peak_bytes": peak - before, **measure(target)}))


def _steps(tool: str, recipe: str) -> Steps:
    """Import what `tool` needs and return how it loads and how it optimises."""
    if tool == "plain":
        return _load_proto, lambda model: model
    if tool == "leptonc":
        from leptonc.passes import optimize as leptonc_optimize

        def ours(model: ir.Model) -> Model:
            leptonc_optimize(model, target="ort-cpu")
            return model

        return ir.load, ours
    if tool == "onnxsim":
        import onnxsim

        return _load_proto, lambda model: onnxsim.simplify(model)[0]
    if tool == "onnxslim":
        import onnxslim

        return _load_proto, onnxslim.slim
    if tool == "ort_fusions":
        from onnxscript.rewriter.ort_fusions import optimize_for_ort

        def fused(model: ir.Model) -> Model:
            made: ir.Model = optimize_for_ort(model)[0]
            return made

        return ir.load, fused
    return _transformers(recipe, skip=tool == "transformers")


def _transformers(recipe: str, *, skip: bool) -> Steps:
    if recipe not in TRANSFORMERS:
        raise SystemExit("onnxruntime.transformers has no model type for it")
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    kind, heads, width = TRANSFORMERS[recipe]
    options = FusionOptions(kind)
    options.enable_skip_layer_norm = skip
    # At level 2 the engine's own fusions go first, SkipLayerNormalization among them.
    level = 2 if skip else 1

    def optimize(path: Path) -> Model:
        # Given a graph in memory it fails, for it cannot see the weights at level 1 and above.
        made = optimize_model(
            str(path),
            kind,
            num_heads=heads,
            hidden_size=width,
            optimization_options=options,
            opt_level=level,
        )
        found: onnx.ModelProto = made.model
        return found

    return Path, optimize


def _answers(path: Path, recipe: str) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = [arrays(case) for case in OPTIMIZERS if case.recipe == recipe]
    return [answer for feed in feeds for answer in session.run(None, feed)]


def _load_proto(path: Path) -> onnx.ModelProto:
    return onnx.load(str(path))


def _save(model: Model, path: Path) -> None:
    if isinstance(model, ir.Model):
        ir.save(model, path, external_data=f"{path.name}.data")
    else:
        onnx.save(model, str(path))


def measure(path: Path) -> dict[str, Any]:
    """Count the nodes and the bytes of the weights; constants are weights, whatever holds them."""
    model = ir.load(path)
    bodies = [model.graph, *(function.graph for function in model.functions.values())]
    nodes = [node for body in bodies for node in body.all_nodes()]
    held = [node.attributes["value"].as_tensor() for node in nodes if "value" in node.attributes]
    held += [
        value.const_value
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    operators = Counter(node.op_type for node in nodes if node.op_type != "Constant")
    return {
        "nodes": operators.total(),
        "operators": dict(operators.most_common()),
        "weight_bytes": sum(tensor.nbytes for tensor in held),
    }


def _memory(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"no {key} in /proc/self/status")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
