"""The engine that graphs are run on while compiling: the one place of the compiler that names it."""

from leptonc.backends.ort import running as engine

__all__ = ["engine"]
