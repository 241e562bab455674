"""The process that builds one TensorRT plan; it is run as a script and imports nothing of ours.

It reads a request (JSON), writes the plan and a result (JSON) beside it, and sends a line of JSON
for each step of the build through a pipe. A builder that crashes takes this process with it and
nothing else.

Two builds of one graph give the same bytes: names inside a plan come from addresses and from the
order of threads, so the process turns the randomisation of addresses off and stays on one CPU.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

_NO_RANDOMIZE = 0x0040000
_PARENT_DEATH_SIGNAL = 1
_MAJOR, _MINOR = 75, 76
_SAME_PLACE = "LEPTONC_TENSORRT_SAME_PLACE"


def main() -> int:
    """Build what the request names; the result file says how it went."""
    request_path, pipe = Path(sys.argv[1]), int(sys.argv[2])
    request = json.loads(request_path.read_text(encoding="utf-8"))
    fixed = _stay_in_one_place()
    _die_with_parent(int(request["parent"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    start = time.perf_counter()
    result = _attempt(request, pipe)
    result["seconds"] = time.perf_counter() - start
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result["addresses_fixed"] = fixed
    Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")
    return 0


def _stay_in_one_place() -> bool:
    """Start again without randomised addresses, on one CPU, where the system allows it."""
    again = os.environ.pop(_SAME_PLACE, None)
    if again is not None:
        return again == "1"
    try:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        libc = ctypes.CDLL(None)
        current = libc.personality(0xFFFFFFFF)
        fixed = current >= 0 and bool(libc.personality(current | _NO_RANDOMIZE) >= 0)
    except (OSError, AttributeError):
        fixed = False
    if fixed:
        environment = {**os.environ, _SAME_PLACE: "1"}
        os.execve(sys.executable, [sys.executable, "-P", *sys.argv], environment)
    return fixed


def _die_with_parent(parent: int) -> None:
    try:
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        sys.exit(1)


def _attempt(request: dict[str, Any], pipe: int) -> dict[str, Any]:
    try:
        trt = _import(request["flavour"])
    except ImportError as error:
        return {"failed": "missing", "message": str(error)}
    log: list[str] = []
    logger = _logger(trt, log)
    builder = trt.Builder(logger)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(request["model"]):
        errors = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
        return {"failed": "parse", "errors": errors, "log": log, "version": trt.__version__}
    answer: dict[str, Any] = {"version": trt.__version__, "layers": network.num_layers}
    shapes = _shape_inputs(network)
    if shapes:
        return {**answer, "failed": "parse", "errors": shapes}
    if request["parse_only"]:
        return answer
    monitor = _monitor(trt, pipe)
    config = _config(trt, builder, request, network)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        failed = "cancelled" if monitor.cancelled else "build"
        return {**answer, "failed": failed, "log": log, "phase": monitor.phase}
    with Path(request["plan"]).open("wb") as file:
        answer["plan_bytes"] = file.write(plan)
    answer["capabilities"] = request["capabilities"] or _own_capability()
    if "STRIP_PLAN" in request["flags"]:
        answer["stripped"] = _stripped_weights(trt, logger, request["plan"])
    _save_timing_cache(config, request)
    return answer


def _shape_inputs(network: Any) -> list[dict[str, str]]:
    """Return an error for each input whose values decide a shape or an axis."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    reason = "its values decide shapes or axes, for which a plan would need their range"
    return [
        {"message": reason, "node": each.name, "operator": "graph input"}
        for each in inputs
        if each.is_shape_tensor
    ]


def _import(flavour: str) -> Any:
    if flavour == "rtx":
        import tensorrt_rtx_bindings as trt
    else:
        import tensorrt as trt
    return trt


def _logger(trt: Any, log: list[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of a library without types
        """Keeps what the library calls an error."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                log.append(message)

    return Logger()


def _monitor(trt: Any, pipe: int) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of a library without types
        """Sends each step to the parent, and stops the build when the parent asks or is gone."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self.phase = ""
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.cancel)

        def cancel(self, *_: object) -> None:
            self.cancelled = True

        def send(self, **event: object) -> None:
            try:
                os.write(pipe, (json.dumps(event) + "\n").encode())
            except OSError:
                self.cancelled = True

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.phase = phase
            self.send(phase=phase, parent=parent, steps=steps)

        def step_complete(self, phase: str, step: int) -> bool:
            self.send(phase=phase, step=step)
            return not self.cancelled

        def phase_finish(self, phase: str) -> None:
            self.send(phase=phase, finished=True)

    return Monitor()


def _config(trt: Any, builder: Any, request: dict[str, Any], network: Any) -> Any:
    config = builder.create_builder_config()
    for name in request["flags"]:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if request["level"] is not None:
        config.builder_optimization_level = request["level"]
    if request["workspace"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace"])
    if request["hardware"] != "none":
        level = getattr(trt.HardwareCompatibilityLevel, request["hardware"].upper())
        config.hardware_compatibility_level = level
    if request["capabilities"]:
        config.num_compute_capabilities = len(request["capabilities"])
        for index, name in enumerate(request["capabilities"]):
            capability = getattr(trt.ComputeCapability, "SM" + name.replace(".", ""))
            config.set_compute_capability(capability, index)
    if request["timing_cache"] is not None:
        path = Path(request["timing_cache"])
        cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
        config.set_timing_cache(cache, False)
    dynamic = {
        network.get_input(index).name
        for index in range(network.num_inputs)
        if -1 in tuple(network.get_input(index).shape)
    }
    for ranges in request["profiles"] if dynamic else ():
        profile = builder.create_optimization_profile()
        for name in sorted(dynamic):
            profile.set_shape(name, *(ranges[name][key] for key in ("min", "opt", "max")))
        config.add_optimization_profile(profile)
    return config


def _save_timing_cache(config: Any, request: dict[str, Any]) -> None:
    if request["timing_cache"] is None:
        return
    path = Path(request["timing_cache"])
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(bytes(config.get_timing_cache().serialize()))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _stripped_weights(trt: Any, logger: Any, plan: str) -> list[str]:
    """Return the weights that the plan must be given before it runs; needs the GPU."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(Path(plan).read_bytes())
    return sorted(trt.Refitter(engine, logger).get_all_weights())


def _own_capability() -> list[str]:
    """Return the compute capability of the GPU that TensorRT built for, the first one."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
    for number, attribute in ((major, _MAJOR), (minor, _MINOR)):
        failed = failed or driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
    if failed:
        raise OSError(f"the CUDA driver does not say what the GPU is: error {failed}")
    return [f"{major.value}.{minor.value}"]


def _parser_error(error: Any) -> dict[str, Any]:
    return {
        "message": error.desc(),
        "node": error.node_name(),
        "operator": error.node_operator(),
        "code": error.code().name,
    }


if __name__ == "__main__":
    sys.exit(main())
