"""Opens graphs on ONNX Runtime's CUDA provider, and refuses to run them anywhere else.

Asked for a GPU that it cannot use, ONNX Runtime prints a warning and computes on the CPU. Here
that is an error that says what is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from leptonc.runtime.engines.ort.library import session_options
from leptonc.runtime.errors import EngineMissingError, MachineError

CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_SILENT = 4
_EXTENDED = "extended"

# y = Identity(x), one float32: a graph that any provider can open.
_PROBE = bytes.fromhex(
    "08083a390a120a017812017922084964656e746974793a00120167"
    "5a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a02080142040a00100d"
)


def cuda_options(*, device: int = 0, graphs: bool = False) -> dict[str, str]:
    """Return the options of the provider.

    Args:
        device: The number of the GPU.
        graphs: Record the kernels of a run once and replay them, for sizes that repeat.
    """
    return {
        "device_id": str(device),
        # Memory is taken as it is needed, not doubled: a service shares its GPU with others.
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        "enable_cuda_graph": str(int(graphs)),
        # Products of float32 are computed in float32, as the compiler proved them.
        "use_tf32": "0",
    }


def require_cuda(engine: Any) -> None:
    """Refuse an engine that cannot run on a GPU here.

    Raises:
        EngineMissingError: This onnxruntime has no CUDA provider.
        MachineError: It has one, which finds no GPU, no driver or no CUDA libraries.
    """
    session_on_cuda(engine, _PROBE, session_options(engine), {})


def session_on_cuda(
    engine: Any,
    graph: bytes | str,
    options: Any,
    settings: Mapping[str, str],
    *,
    graphs: bool = False,
) -> Any:
    """Open a session on the GPU.

    Args:
        engine: The onnxruntime module.
        graph: A `ModelProto`, or the file that holds one.
        options: From `session_options`, with whatever lets the engine find the weights.
        settings: The variant's options: "optimize" and "disabled_optimizers".
        graphs: Whether runs are recorded and replayed.

    Raises:
        EngineMissingError: This onnxruntime has no CUDA provider.
        MachineError: It finds no GPU, no driver or no CUDA libraries.
        Exception: One of `engine_failures`.
    """
    if CUDA not in engine.get_available_providers():
        raise EngineMissingError(
            f"onnxruntime {engine.__version__} is installed without its CUDA provider",
            fix="pip uninstall onnxruntime && pip install 'leptonc[gpu]'",
        )
    levels = engine.GraphOptimizationLevel
    extended = settings.get("optimize") == _EXTENDED
    options.graph_optimization_level = (
        levels.ORT_ENABLE_EXTENDED if extended else levels.ORT_DISABLE_ALL
    )
    disabled = [name for name in settings.get("disabled_optimizers", "").split(",") if name]
    _load_libraries(engine)
    session = engine.InferenceSession(
        graph,
        options,
        providers=[(CUDA, cuda_options(graphs=graphs)), _CPU],
        disabled_optimizers=disabled,
        enable_fallback=0,
    )
    if CUDA not in session.get_providers():
        raise MachineError(
            f"ONNX Runtime cannot use a GPU here: {missing_part(engine)}",
            fix="install what is missing (CUDA and cuDNN also come with "
            "pip install 'onnxruntime-gpu[cuda,cudnn]'), or use a machine with a GPU",
        )
    return session


def _load_libraries(engine: Any) -> None:
    """Let the engine find CUDA's libraries where pip puts them; without its remarks."""
    engine.set_default_logger_severity(_SILENT)
    preload = getattr(engine, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


def missing_part(engine: Any, load: Callable[[str], Any] = ctypes.CDLL) -> str:
    """Return why the provider did not start, in the order in which its parts are needed.

    Args:
        engine: The onnxruntime module.
        load: Opens a shared library, or raises OSError.
    """
    try:
        driver = load("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1 is not found)"
    code = driver.cuInit(0)
    if code != 0:
        return f"the NVIDIA driver does not start (cuInit gave error {code})"
    count = ctypes.c_int(0)
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no GPU"
    folder = Path(engine.capi.onnxruntime_pybind11_state.__file__).parent
    try:
        load(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return f"a library of CUDA or cuDNN is missing: {error}"
    return "the driver, CUDA and cuDNN are there; they may be too old for this onnxruntime"
