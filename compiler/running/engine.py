"""The engine that graphs are run on while compiling: the one place of the compiler that names it."""

from leptonc.backends.ort import running as engine
from leptonc.passes.targets import ORT_CPU as PLATFORM

__all__ = ["PLATFORM", "engine"]
