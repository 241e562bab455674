"""Says what an error of the CUDA runtime means for someone who loads a model.

The numbers are those of `cudaError_t` in the CUDA Runtime API, which never change.
"""

from __future__ import annotations

from leptonc.runtime.errors import DeviceMemoryError, EngineError, LeptonError, MachineError

INVALID_VALUE = 1
OUT_OF_MEMORY = 2
INSUFFICIENT_DRIVER = 35
NOT_READY = 600

_MACHINE = {
    3: "CUDA does not start (initialisation error)",
    46: "every GPU is busy or reserved by another process",
    100: "the NVIDIA driver finds no GPU",
    101: "there is no GPU of that number",
    209: "the plan has no code for this GPU",
    802: "the system of GPUs is not ready: its fabric manager is not running",
    803: "the NVIDIA driver and its libraries are of different versions",
    804: "the NVIDIA driver does not support forward compatibility on this GPU",
}
_MACHINE_FIX = "run `nvidia-smi` on this machine: it must list the GPU; or use a CPU variant"


def driver_error(driver: int, runtime: int) -> MachineError:
    """Return the error for a missing or old driver.

    Args:
        driver: The newest CUDA that the driver supports, as 1000 * major + 10 * minor; 0 for none.
        runtime: The CUDA of the installed runtime, in the same form.
    """
    if driver == 0:
        return MachineError(
            "there is no NVIDIA driver on this machine",
            fix="install the driver for the GPU, or load a variant for the CPU "
            '(device="cpu", or device="auto" to take it when there is no GPU)',
        )
    return MachineError(
        f"the NVIDIA driver is too old: it supports CUDA {version_text(driver)}; "
        f"CUDA {version_text(runtime)} is installed",
        fix=f"update the driver to one for CUDA {runtime // 1000}.x, or install cuda-bindings "
        f"for CUDA {driver // 1000}",
    )


def version_text(version: int) -> str:
    """Return CUDA's number of a version as people write it: 13050 is "13.5"."""
    return f"{version // 1000}.{version % 1000 // 10}"


def memory_error(
    asked: int, free: int | None, total: int | None, purpose: str
) -> DeviceMemoryError:
    """Return the error for memory that is not there.

    Args:
        asked: Bytes.
        free: Bytes that the GPU had left, None for memory of the host.
        total: Bytes of the GPU.
        purpose: What they were for.
    """
    if free is None or total is None:
        return DeviceMemoryError(
            f"the system gave no pinned memory: {megabytes(asked)} were asked for {purpose}",
            fix="raise the limit of locked memory (`ulimit -l`), or use smaller batches",
        )
    left = f"; {megabytes(free)} of {megabytes(total)} are free"
    return DeviceMemoryError(
        f"the GPU is out of memory: {megabytes(asked)} were asked for {purpose}{left}",
        fix="use smaller batches or fewer sessions at once, end other programs on the GPU, "
        "or compile with smaller profiles",
    )


def megabytes(count: int) -> str:
    """Return bytes as text, in MB of a million bytes, or kB when there is less than one."""
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1e3:.1f} kB"


def call_error(code: int, name: str, text: str, call: str) -> LeptonError:
    """Return the error for any other failure.

    Args:
        code: The number of the error.
        name: Its name in CUDA, e.g. "cudaErrorNoDevice".
        text: What CUDA says about it.
        call: The function of CUDA that gave it.
    """
    if code in _MACHINE:
        return MachineError(_MACHINE[code], where=f"{call}: {name} ({code})", fix=_MACHINE_FIX)
    return EngineError(
        f"the GPU failed: {text}",
        where=f"{call}: {name} ({code})",
        fix="load the model in a new process: after such an error CUDA answers nothing more; "
        "if it comes again, compile again to verify the artifact",
    )
