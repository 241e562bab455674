"""What a machine has of all that the checks on a GPU use, without failing for what it lacks.

Everything is asked in a process of its own: a library that is installed and broken, or one that
crashes when it looks for a GPU, becomes a line of the answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_TIMEOUT_S = 300

# Each prints one JSON object, or ends with the error that says what is missing.
_QUESTIONS: Mapping[str, tuple[str, str]] = {
    "gpu": (
        """
import ctypes, json
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError:
    raise RuntimeError("there is no NVIDIA driver") from None
code = cuda.cuInit(0)
assert code == 0, f"the NVIDIA driver does not start (cuInit gave error {code})"
device, name = ctypes.c_int(), ctypes.create_string_buffer(128)
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0, "the NVIDIA driver finds no GPU"
cuda.cuDeviceGetName(name, 128, device)
numbers = [ctypes.c_int() for _ in range(3)]
cuda.cuDeviceGetAttribute(ctypes.byref(numbers[0]), 75, device)
cuda.cuDeviceGetAttribute(ctypes.byref(numbers[1]), 76, device)
cuda.cuDriverGetVersion(ctypes.byref(numbers[2]))
major, minor, driver = (number.value for number in numbers)
print(json.dumps({"version": name.value.decode(), "sm": f"{major}.{minor}", "cuda": driver}))
""",
        "a machine with an NVIDIA GPU and its driver",
    ),
    "torch": (
        """
import json, torch
assert torch.cuda.is_available(), f"torch {torch.__version__} finds no GPU"
p = torch.cuda.get_device_properties(0)
print(json.dumps({"version": torch.__version__, "gpu": p.name, "sm": f"{p.major}.{p.minor}",
    "memory": p.total_memory, "cuda": torch.version.cuda}))
""",
        "a build of PyTorch with CUDA",
    ),
    "leptonc": (
        """
import json
from importlib import metadata
import onnx_ir, onnxscript, onnx, torch
import leptonc.compiler.driver
print(json.dumps({"version": metadata.version("leptonc")}))
""",
        "pip install --no-deps --no-build-isolation -e . in the repository, and what its "
        "[compile] extra lists",
    ),
    "onnxruntime-cuda": (
        """
import json
from leptonc.runtime.engines.ort.library import import_engine
from leptonc.runtime.engines.ort.cuda_provider import require_cuda
engine = import_engine()
require_cuda(engine)
print(json.dumps({"version": engine.__version__}))
""",
        "pip uninstall onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'",
    ),
    "tensorrt-rtx": (
        """
import json, tensorrt_rtx_bindings as t
print(json.dumps({"version": t.__version__}))
""",
        "pip install 'leptonc[tensorrt]'",
    ),
    "tensorrt": (
        """
import json, tensorrt as t
print(json.dumps({"version": t.__version__}))
""",
        "TensorRT 10 or 11, from NVIDIA",
    ),
    "pytest": ('import json, pytest; print(json.dumps({"version": pytest.__version__}))', "pytest"),
}


@dataclass(frozen=True)
class Part:
    """One thing that checks need.

    Attributes:
        name: A key of the survey.
        found: What it says of itself, or None when it is not usable.
        missing: Why it is not.
        fix: How to get it.
    """

    name: str
    found: Mapping[str, Any] | None
    missing: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Survey:
    """All parts by name."""

    parts: Mapping[str, Part] = field(default_factory=dict)

    def lacks(self, names: Sequence[str]) -> str | None:
        """Return which of `names` is not usable and why, or None when all are."""
        for name in names:
            part = self.parts[name]
            if part.found is None:
                return f"{name}: {part.missing}"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return what is there and what is not."""
        return {name: asdict(part) for name, part in self.parts.items()}


def survey(questions: Mapping[str, tuple[str, str]] = _QUESTIONS) -> Survey:
    """Ask for every part."""
    return Survey({name: _ask(name, code, fix) for name, (code, fix) in questions.items()})


def _ask(name: str, code: str, fix: str) -> Part:
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return Part(name, None, f"gave no answer in {_TIMEOUT_S} s", fix)
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return Part(name, found)
    if done.returncode < 0:
        return Part(name, None, f"was killed by signal {-done.returncode}", fix)
    return Part(name, None, _reason(done.stderr), fix)


def _reason(stderr: str) -> str:
    """Return the message of the error that ended a process, without its kind."""
    lines = [line for line in stderr.strip().splitlines() if line and not line.startswith(" ")]
    last = lines[-1] if lines else "ended without a word"
    starts = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
    text = starts[-1] if starts else last
    return text.partition(": ")[2] or text
