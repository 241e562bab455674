"""Runs a TensorRT variant of an artifact on a GPU.

There is one execution context for each optimisation profile, made when a call first needs it. A
call of some shapes runs in the profile that takes them and was tuned nearest to them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from leptonc.runtime.artifact.signature import Signature
from leptonc.runtime.cuda.dlpack import DeviceArray
from leptonc.runtime.cuda.driver import Cuda
from leptonc.runtime.cuda.errors import memory_error
from leptonc.runtime.engines.tensorrt.binding import TensorRTBinding
from leptonc.runtime.engines.tensorrt.kernel_cache import CacheKey, read_cache, write_cache
from leptonc.runtime.engines.tensorrt.lane import Lane
from leptonc.runtime.engines.tensorrt.library import failure
from leptonc.runtime.engines.tensorrt.plan_demands import TENSORRT_RTX, PlanDemands
from leptonc.runtime.engines.tensorrt.profiles import choose_profile
from leptonc.runtime.engines.tensorrt.run import PendingRun, start
from leptonc.runtime.engines.tensorrt.tensors import read_tensors
from leptonc.runtime.errors import EngineError, LeptonError
from leptonc.runtime.inputs import REMEMBERED_SHAPES, Array, Arrays


@dataclass(frozen=True)
class CacheFile:
    """Where the kernels compiled on this machine are kept."""

    path: str
    key: CacheKey


@dataclass
class _Loaded:
    """What has to be freed, in one place that does not refer to the engine."""

    cuda: Cuda
    opened: Any
    runtime_cache: Any = None
    cache_file: CacheFile | None = None
    saved: bytes | None = None
    lanes: dict[int, Lane] = field(default_factory=dict)
    bound: list[Lane] = field(default_factory=list)

    def save_cache(self) -> None:
        """Write the kernels compiled so far, if there are new ones."""
        if self.runtime_cache is None or self.cache_file is None:
            return
        data = bytes(self.runtime_cache.serialize())
        if data != self.saved and write_cache(self.cache_file.path, data, self.cache_file.key):
            self.saved = data

    def close(self) -> None:
        """Wait for all runs, keep the cache, and free the GPU's memory."""
        if self.opened is None:
            return
        # After an error from which CUDA does not recover there is nothing left to free.
        with suppress(LeptonError):
            self.cuda.use()
            for lane in (*self.lanes.values(), *self.bound):
                with lane.lock:
                    lane.close()
            self.save_cache()
        self.lanes.clear()
        self.bound.clear()
        self.runtime_cache = self.opened = None


class TensorRTEngine:
    """A plan on a GPU; safe to call from many threads."""

    def __init__(
        self,
        engine: Any,
        cuda: Cuda,
        opened: Any,
        signature: Signature,
        demands: PlanDemands,
        *,
        graphs: bool = False,
        cache_file: CacheFile | None = None,
        where: str = "",
    ) -> None:
        """Make the first context, so that what is missing is known when loading.

        Args:
            engine: The TensorRT module.
            cuda: The GPU.
            opened: TensorRT's engine, from `deserialize`.
            signature: Of the model.
            demands: Of the variant; its profiles are those of the plan.
            graphs: Record the kernels of shapes that repeat, and replay them.
            cache_file: Where compiled kernels are kept, None for nowhere.
            where: The artifact and the variant, for messages.

        Raises:
            EngineError: The plan is not that of the manifest, or TensorRT makes no context.
            DeviceMemoryError: The GPU has not enough memory.
        """
        self._engine = engine
        self._signature = signature
        self._profiles = demands.profiles
        self._graphs = graphs
        self._own_capture = graphs and demands.flavour != TENSORRT_RTX
        self._where = where
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._chosen: dict[tuple[tuple[int, ...], ...], int] = {}
        self._ran: set[int] = set()
        self._lock = threading.Lock()
        self._tensors = read_tensors(engine, opened, signature, where)
        if opened.num_optimization_profiles != len(demands.profiles):
            raise EngineError(
                f"the plan has {opened.num_optimization_profiles} profiles; "
                f"the manifest names {len(demands.profiles)}",
                where=where,
                fix="compile the model again",
            )
        self._loaded = _Loaded(cuda, opened, cache_file=cache_file)
        self._config = self._runtime_config() if demands.flavour == TENSORRT_RTX else None
        self._close = weakref.finalize(self, self._loaded.close)
        self._lane(0)

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Run once and wait.

        Raises:
            InputError: No profile takes the shapes.
            EngineError: TensorRT or the GPU fails.
            DeviceMemoryError: The GPU has not enough memory.
        """
        return self.start(inputs).result()

    def start(self, inputs: Mapping[str, Array]) -> PendingRun:
        """Start a run and return; see `run` for errors."""
        profile = self._profile_for({name: array.shape for name, array in inputs.items()})
        run = start(self._lane(profile), inputs, self._outputs)
        if profile not in self._ran:
            # The kernels of this profile were compiled just now.
            self._ran.add(profile)
            self._loaded.save_cache()
        return run

    def finish(self) -> None:
        """Make the contexts of all profiles.

        Raises:
            EngineError: TensorRT makes no context.
            DeviceMemoryError: The GPU has not enough memory.
        """
        for profile in range(len(self._profiles)):
            self._lane(profile)

    def bind(
        self,
        inputs: Mapping[str, Array | DeviceArray],
        outputs: Mapping[str, Array | DeviceArray],
    ) -> TensorRTBinding:
        """Give host arrays places on the GPU; arrays on the GPU are used where they lie.

        Raises:
            InputError: No profile takes the shapes.
            UnsupportedError: The size of an output depends on values.
        """
        profile = self._profile_for({name: array.shape for name, array in inputs.items()})
        if self._own_capture:
            # A recording is valid as long as its context runs nothing else.
            lane = self._new_lane(profile)
            self._loaded.bound.append(lane)
            return TensorRTBinding(lane, inputs, outputs, capture=True, lanes=self._loaded.bound)
        return TensorRTBinding(self._lane(profile), inputs, outputs, capture=False)

    def run_bound(self, bound: TensorRTBinding, inputs: Arrays) -> None:
        """Run on bound arrays and wait.

        Raises:
            EngineError: TensorRT or the GPU fails.
        """
        del inputs
        bound.run()

    def on_gpu(self) -> TensorRTEngine:
        """Return itself: it binds arrays on its GPU as it binds those of the host."""
        return self

    @property
    def device(self) -> int:
        """The number of the GPU."""
        return self._loaded.cuda.device

    def close(self) -> None:
        """Wait for all runs and free the GPU's memory."""
        self._close()

    def _profile_for(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        key = tuple(shapes[spec.name] for spec in self._signature.inputs)
        found = self._chosen.get(key)
        if found is None:
            found = choose_profile(self._profiles, shapes)
            if len(self._chosen) < REMEMBERED_SHAPES:
                self._chosen[key] = found
        return found

    def _lane(self, profile: int) -> Lane:
        with self._lock:
            lane = self._loaded.lanes.get(profile)
            if lane is None:
                lane = self._loaded.lanes[profile] = self._new_lane(profile)
            return lane

    def _new_lane(self, profile: int) -> Lane:
        loaded = self._loaded
        loaded.cuda.use()
        if self._config is not None:
            context = loaded.opened.create_execution_context(self._config)
        else:
            strategy = self._engine.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
            context = loaded.opened.create_execution_context(strategy)
        if context is None:
            raise self._no_context(profile)
        return Lane(self._engine, loaded.cuda, context, profile, self._tensors)

    def _no_context(self, profile: int) -> LeptonError:
        asked = int(self._loaded.opened.get_device_memory_size_for_profile_v2(profile))
        free, total = self._loaded.cuda.free_memory()
        if asked > free:
            return memory_error(asked, free, total, f"intermediate values of profile {profile}")
        return EngineError(
            f"TensorRT makes no context: {failure(self._engine, 'it gives no reason')}",
            where=self._where,
            fix="compile the model again to verify the artifact",
        )

    def _runtime_config(self) -> Any:
        """Return RTX's settings for all contexts, with the cache from the last start."""
        loaded, engine = self._loaded, self._engine
        config = loaded.opened.create_runtime_config()
        config.set_execution_context_allocation_strategy(
            engine.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        )
        if self._graphs:
            config.cuda_graph_strategy = engine.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if loaded.cache_file is not None:
            cache = config.create_runtime_cache()
            kept = read_cache(loaded.cache_file.path, loaded.cache_file.key)
            # A cache that the engine refuses costs the time to compile its kernels again.
            if kept is not None and cache.deserialize(kept):
                loaded.saved = kept
            config.set_runtime_cache(cache)
            loaded.runtime_cache = cache
        return config
