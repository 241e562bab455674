"""What can go wrong between a recipe and an artifact.

LeptonError (runtime/errors.py)
├── UsageError            exit code 2   options that contradict one another, an unknown setting
├── SourceError                    3   no such source, or not one of the kinds leptonc reads
│   ├── RecipeError                3   the recipe lacks a function, or one of them failed
│   ├── PickleRefusedError         3   the weights are a pickle, which is a program
│   └── OnnxFileError              3   an .onnx file that is invalid, truncated or lacks its data
├── CalibrationError               3   no data to calibrate with, or data that cannot be right
├── ExportError                    3   torch.export refused the module
│   └── BakedDimensionError        3   a dynamic dimension became a constant in the graph
├── ExportUnsupportedError         4   PyTorch has no ONNX form for an operator of the module
├── CompileExtraMissingError       5   a package of the `compile` extra is not installed
├── VerificationError              6   the artifact does not compute what the module computes
└── GateError                      7   a budget that the user set was breached
"""

from __future__ import annotations

from leptonc.runtime.errors import EnvironmentProblem, LeptonError


class UsageError(LeptonError):
    """Options that contradict one another, or a setting that does not exist."""

    exit_code = 2


class SourceError(LeptonError):
    """No such source, or not one of the kinds that leptonc reads."""

    exit_code = 3


class RecipeError(SourceError):
    """The recipe lacks a function, or one of its functions failed."""


class PickleRefusedError(SourceError):
    """The weights are stored as a pickle, which is a program that runs when it is read."""


class OnnxFileError(SourceError):
    """An .onnx file that is invalid, truncated, or whose external data is missing or unsafe."""


class CalibrationError(LeptonError):
    """There is no data to calibrate with, or it cannot be right."""

    exit_code = 3


class ExportError(LeptonError):
    """torch.export refused the module."""

    exit_code = 3


class BakedDimensionError(ExportError):
    """A dimension declared dynamic became a constant in the exported graph."""


class ExportUnsupportedError(LeptonError):
    """PyTorch's exporter has no ONNX form for an operator that the module uses."""

    exit_code = 4


class CompileExtraMissingError(EnvironmentProblem):
    """A package of the `compile` extra is not installed."""


class VerificationError(LeptonError):
    """The artifact does not compute what the source module computes."""

    exit_code = 6


class GateError(LeptonError):
    """A budget on size, load time, latency or error was breached; nothing was written."""

    exit_code = 7
