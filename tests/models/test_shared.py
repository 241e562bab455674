"""The files that recipes share: seeds, statistics, ranks, missing packages."""

from __future__ import annotations

import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def random_weights(recipe):
    return recipe("random_weights")


def test_seeded_draws_the_same_and_restores_state_and_threads(random_weights):
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    drawn = []
    for _ in range(2):
        with random_weights.seeded(3):
            assert torch.get_num_threads() == 1
            drawn.append(torch.randn(4))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_perturb_constants_leaves_varied_parameters_alone(random_weights):
    module = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    weight = module[0].weight.clone()
    with random_weights.seeded(0):
        random_weights.perturb_constants(module)
    assert torch.equal(module[0].weight, weight)
    assert float((module[1].weight.detach() - 1).abs().max()) < 0.5
    assert module[1].weight.unique().numel() == 3
    assert module[1].bias.unique().numel() == 3


def test_settle_batch_norms_sets_the_statistics_of_the_batch(random_weights):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x):
            return self.norm(x)

    module = Named()
    batch = torch.randn(8, 2, 5, 5) * 3 + 7
    random_weights.settle_batch_norms(module, x=batch)
    torch.testing.assert_close(module.norm.running_mean, batch.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(module.norm.running_var, batch.var(dim=(0, 2, 3)))
    assert module.norm.momentum == 0.1
    assert not module.training


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [10, 20, 15], 0.5),
        ([1, 2, 3], [-1, -2, -3], -1),
        # Two equal values share rank 1.5: ranks (1.5, 1.5, 3) against (1, 2, 3).
        ([0, 0, 1], [5, 6, 7], 3**0.5 / 2),
    ],
)
def test_spearman(recipe, first, second, expected):
    assert recipe("rank_correlation").spearman(first, second) == pytest.approx(expected)


def test_a_missing_package_is_named_with_the_command(recipe):
    wanted = r"'no_such_package': pip install 'leptonc\[dev\]'"
    with pytest.raises(ImportError, match=wanted), recipe("dev_extra").dev_extra():
        import no_such_package  # noqa: F401 - the import is what fails
