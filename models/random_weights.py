"""Random weights that behave like trained ones, the same bits in every process.

A freshly built network has zero biases, unit scales and empty BatchNorm statistics. A compiler
folds those away or stores them once, so a benchmark on them flatters it; and without statistics
the activations of a deep network vanish.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

PERTURBATION = 0.05


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside the block; leave the caller's random state as it was.

    One thread, because the order of a sum depends on how many threads share it.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@torch.no_grad()
def perturb_constants(module: nn.Module) -> None:
    """Add noise of standard deviation 0.05 to each parameter whose elements are all equal."""
    for parameter in module.parameters():
        if bool((parameter == parameter.flatten()[0]).all()):
            parameter.add_(torch.randn(parameter.shape), alpha=PERTURBATION)


@torch.no_grad()
def settle_batch_norms(module: nn.Module, **inputs: torch.Tensor) -> None:
    """Set the running statistics of every BatchNorm to those of one forward pass.

    Args:
        module: A model; it is left in eval mode.
        inputs: One batch, large enough that each channel has a variance.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        # None means the plain average over the batches seen: here, over one.
        norm.momentum = None
        norm.reset_running_stats()
    module.train()
    module(**inputs)
    module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
