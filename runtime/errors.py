"""The root of every error that leptonc raises, and the runtime's own.

LeptonError                      exit code 1   a bug in leptonc, unless a subclass says otherwise
├── ArtifactError                          3   the file is not a valid artifact
│   └── IntegrityError                     3   its bytes are not those that were written
├── InputError                             3   an array, a name or a shape that the model does not take
├── UnsupportedError                       4   a feature, target or device that this build does not offer
├── EnvironmentProblem                     5   something outside leptonc is missing or refuses
│   ├── EngineMissingError                 5   the engine is not installed
│   └── MachineError                       5   this machine lacks what the artifact demands
│       └── DeviceMemoryError              5   the GPU has not enough memory left
└── EngineError                            3   the engine refused the graph or failed while running it

The other packages add their own branches: passes/errors.py, backends/errors.py, compiler/errors.py.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ArtifactError",
    "DeviceMemoryError",
    "EngineError",
    "EngineMissingError",
    "EnvironmentProblem",
    "InputError",
    "IntegrityError",
    "LeptonError",
    "MachineError",
    "UnsupportedError",
]


class LeptonError(Exception):
    """What happened, where, and what to do about it.

    Attributes:
        what: One sentence that says what is wrong.
        where: The file, node, tensor or shape concerned, or None.
        fix: What the reader can do next, or None.
        exit_code: The exit status of the command line (DESIGN: "The CLI").
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.fix is not None:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class ArtifactError(LeptonError):
    """The file is not a valid artifact: format, version, bounds or contents."""

    exit_code = 3


class IntegrityError(ArtifactError):
    """The bytes in the file are not the bytes that were written."""


class InputError(LeptonError, ValueError):
    """An input name, dtype, rank or shape that the model does not take."""

    exit_code = 3


class UnsupportedError(LeptonError):
    """A feature, target or device that this build does not offer."""

    exit_code = 4


class EnvironmentProblem(LeptonError):
    """Something outside leptonc is missing or refuses."""

    exit_code = 5


class EngineMissingError(EnvironmentProblem):
    """The engine library is not installed."""


class MachineError(EnvironmentProblem):
    """This machine lacks what the artifact demands."""


class DeviceMemoryError(MachineError):
    """The GPU has not enough memory left."""


class EngineError(LeptonError):
    """The engine refused the graph or failed while running it."""

    exit_code = 3
