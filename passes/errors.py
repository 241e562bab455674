"""What can go wrong in a rewrite.

LeptonError (runtime/errors.py)
├── PassError        exit code 1   a pass broke the graph: a bug in leptonc, named with its pass
├── ModelError                 3   the graph was already invalid when it came in
├── PlanError                  3   a quantisation plan that contradicts itself or the graph
├── PassRefusedError           4   a pass that was asked for by name cannot run on this graph
└── PluginError                5   a pass of another distribution cannot be loaded, failed or broke the graph
"""

from __future__ import annotations

from leptonc.runtime.errors import EnvironmentProblem, LeptonError


class PassError(LeptonError):
    """A pass left an invalid graph behind."""


class ModelError(LeptonError):
    """The graph was invalid before any pass ran."""

    exit_code = 3


class RangesError(LeptonError):
    """A calibration table is damaged, was made with another graph, or lacks a tensor."""

    exit_code = 3


class PlanError(LeptonError):
    """A quantisation plan contradicts itself, or is for another graph."""

    exit_code = 3


class PassRefusedError(LeptonError):
    """A pass that was asked for by name cannot run on this graph."""

    exit_code = 4


class PluginError(EnvironmentProblem):
    """A pass of another distribution cannot be loaded, failed, or broke the graph."""
