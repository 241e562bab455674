"""What can go wrong between an optimised graph and an engine's payload.

LeptonError (runtime/errors.py)
├── UnsupportedError              exit code 4
│   ├── UnsupportedTargetError            4   no such backend, device or precision
│   ├── UnsupportedOperatorError          4   the engine has no kernel for a node
│   └── UnsupportedInterfaceError         4   an input or output that is not a NumPy tensor
├── EnvironmentProblem            exit code 5
│   └── PluginError                       5   a backend of another distribution cannot be used
├── PlacementError                        4   a node did not land on the device that was asked for
└── BuildError                            1   the engine's result is not the model: a bug
"""

from __future__ import annotations

from leptonc.runtime.errors import EnvironmentProblem, LeptonError, UnsupportedError


class UnsupportedTargetError(UnsupportedError):
    """No such backend, device or precision."""


class UnsupportedOperatorError(UnsupportedError):
    """The engine has no kernel for a node of the graph."""


class UnsupportedInterfaceError(UnsupportedError):
    """An input or output that no NumPy array can carry."""


class PluginError(EnvironmentProblem):
    """A backend of another distribution cannot be imported, is none, or takes a name of ours."""


class PlacementError(LeptonError):
    """A node did not land on the device that was asked for."""

    exit_code = 4


class BuildError(LeptonError):
    """The engine's optimiser returned something that is not the model it was given."""
