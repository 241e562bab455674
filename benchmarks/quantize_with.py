"""One quantiser on one graph, in a process of its own: `TOOL INPUT.onnx OUTPUT FOLDER RECIPE`.

FOLDER holds calibration data as `calibration-*.npz` and other data as `held-out-*.npz`. What the
result answers to the latter goes beside OUTPUT as .npz. Prints one line of JSON: the seconds that
quantising took, and the bytes of the result.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from optimize_with import TRANSFORMERS
from race import open_contender

# Quantisers of ONNX Runtime by name: what they are called with.
DYNAMIC = {"ort-dynamic": True, "ort-dynamic-tensor": False}
STATIC = {
    "ort-static-minmax": ("MinMax", "QDQ", None),
    "ort-static-entropy": ("Entropy", "QDQ", None),
    "ort-static-operators": ("MinMax", "QOperator", None),
    "ort-static-products": ("MinMax", "QDQ", ["MatMul", "Gemm"]),
}
OPTIMISED = "ort-optimised-dynamic"
PEERS = (*DYNAMIC, *STATIC, OPTIMISED)


def main(tool: str, source: Path, target: Path, folder: Path, recipe: str) -> None:
    """Quantise, answer and report."""
    began = time.perf_counter()
    if tool == "leptonc":
        _leptonc(recipe, target, folder)
    elif tool in PEERS:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            _onnxruntime(tool, source, target, folder, recipe=recipe, scratch=Path(scratch))
    elif tool != "plain":
        raise SystemExit(f"there is no quantiser {tool!r}")
    seconds = time.perf_counter() - began
    made = source if tool == "plain" else target
    run = open_contender(str(made), threads=2)
    answers: dict[str, np.ndarray[Any, Any]] = {}
    for path in sorted(folder.glob("held-out-*.npz")):
        with np.load(path) as arrays:
            for index, array in enumerate(run(dict(arrays))):
                answers[f"{path.stem}-{index}"] = array
    np.savez(target.with_name(f"{tool}.answers.npz"), **answers)  # type: ignore[arg-type]
    print(json.dumps({"seconds": seconds, "bytes": made.stat().st_size}))


def _leptonc(recipe: str, target: Path, folder: Path) -> None:
    """Compile the recipe with the calibration data of the benchmark."""
    models = Path(__file__).resolve().parents[1] / "models"
    wrapper = folder / f"{recipe}_with_data.py"
    wrapper.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(models)!r})\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        f"from {recipe} import *\n\n\n"
        "def calibration_data():\n"
        "    for path in sorted(Path(__file__).parent.glob('calibration-*.npz')):\n"
        "        yield dict(np.load(path))\n",
        encoding="utf-8",
    )
    from leptonc.compiler.cli import main as compile_main

    # It prints its own report; standard output belongs to ours.
    kept = os.dup(1)
    os.dup2(2, 1)
    code = compile_main(["compile", str(wrapper), "-p", "int8", "-q", "-o", str(target)])
    os.dup2(kept, 1)
    if code:
        raise SystemExit(f"leptonc compile exits with {code}")


def _onnxruntime(
    tool: str, source: Path, target: Path, folder: Path, *, recipe: str, scratch: Path
) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationMethod
    from onnxruntime.quantization.quant_utils import QuantFormat
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if tool == OPTIMISED:
        _optimised(source, scratch / "optimised.onnx", recipe)
        quantize_dynamic(
            scratch / "optimised.onnx",
            target,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": 1},
        )
        return
    ready = scratch / "ready.onnx"
    quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    if tool in DYNAMIC:
        quantize_dynamic(ready, target, per_channel=DYNAMIC[tool], weight_type=QuantType.QInt8)
        return
    method, form, operators = STATIC[tool]
    quantize_static(
        ready,
        target,
        _Reader(folder),
        quant_format=QuantFormat[form],
        op_types_to_quantize=operators,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
    )


def _optimised(source: Path, target: Path, recipe: str) -> None:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    if recipe not in TRANSFORMERS:
        raise SystemExit("onnxruntime.transformers has no model type for it")
    kind, heads, width = TRANSFORMERS[recipe]
    options = FusionOptions(kind)
    options.enable_skip_layer_norm = False
    made = optimize_model(
        str(source),
        kind,
        num_heads=heads,
        hidden_size=width,
        optimization_options=options,
        opt_level=1,
    )
    made.save_model_to_file(str(target))


class _Reader:
    """Gives ONNX Runtime's calibration one batch after the other."""

    def __init__(self, folder: Path) -> None:
        self._batches = self._read(folder)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None at the end."""
        return next(self._batches, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Return the batches that are left."""
        return self._batches

    @staticmethod
    def _read(folder: Path) -> Iterator[dict[str, Any]]:
        for path in sorted(folder.glob("calibration-*.npz")):
            with np.load(path) as arrays:
                yield dict(arrays)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
