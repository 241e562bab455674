"""Torch's own export of a recipe in a process of its own: `RECIPE.py OUTPUT.onnx`.

It uses nothing of leptonc and no option but the recipe's dynamic axes, and writes one file.
Prints one line of JSON: seconds, and the bytes of the weights.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any


def main(recipe: str, output: str) -> None:
    """Build, export, save and report."""
    began = time.perf_counter()
    loaded = _load(Path(recipe))
    import torch

    module = loaded.build().eval()
    inputs = loaded.example_inputs()
    built = time.perf_counter()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        program = torch.onnx.export(
            module, (), kwargs=inputs, dynamo=True, dynamic_shapes=_dynamic(loaded.dynamic_shapes())
        )
    if program is None:
        raise SystemExit("torch.onnx.export returned nothing")
    exported = time.perf_counter()
    program.save(output, external_data=False)
    saved = time.perf_counter()
    weights = {tensor.data_ptr(): tensor.nbytes for tensor in module.state_dict().values()}
    seconds = {"build_s": built - began, "export_s": exported - built, "save_s": saved - exported}
    print(json.dumps({**seconds, "weight_bytes": sum(weights.values())}))


def _load(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _dynamic(
    declared: dict[str, dict[int, tuple[str, int, int]]],
) -> dict[str, dict[int, Any]]:
    from torch.export import Dim

    dims: dict[str, Any] = {}
    return {
        name: {
            axis: dims.setdefault(dim, Dim(dim, min=low, max=high))
            for axis, (dim, low, high) in axes.items()
        }
        for name, axes in declared.items()
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
