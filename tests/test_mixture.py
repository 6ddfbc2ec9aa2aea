import math

import pytest
import torch
from test_product import CELL, GRID, experts

from mmgen.inference.divergence import divergence
from mmgen.latent.base import sample
from mmgen.latent.gaussian import DiagonalGaussian, standard_normal
from mmgen.latent.mixture import Mixture

HOLES = torch.tensor([[True, True, False, False], [True, False, True, False], [True] * 3 + [False]])
"""The components that four rows are a mixture of: all, two, two, and none, which means all."""


def of_rows(usable=None, Z=1):
    return Mixture(experts(3, 4, Z=Z), "q(z | x)", usable)


@pytest.mark.parametrize("usable", [None, HOLES], ids=["all", "holes"])
def test_the_density_is_the_mean_of_the_components_and_integrates_to_one(usable):
    q = of_rows(usable)
    density = q.log_prob(GRID.reshape(-1, 1, 1).expand(-1, 4, 1)).exp()  # (grid, 4)
    torch.testing.assert_close(density.sum(0) * CELL, torch.ones(4).double(), rtol=1e-6, atol=1e-6)
    for row in range(4):
        members = [c for c in range(3) if usable is None or HOLES[c, row] or row == 3]
        each = [q.components[c, row].log_prob(GRID.unsqueeze(-1)).exp() for c in members]
        torch.testing.assert_close(density[:, row], torch.stack(each).mean(0))


@pytest.mark.parametrize("usable", [None, HOLES], ids=["all", "holes"])
def test_mean_and_variance_are_those_of_the_density_and_of_samples(usable):
    torch.manual_seed(0)
    q = of_rows(usable)
    density = q.log_prob(GRID.reshape(-1, 1, 1).expand(-1, 4, 1)).exp() * CELL
    mean = (density * GRID.unsqueeze(1)).sum(0)
    variance = (density * (GRID.unsqueeze(1) - mean) ** 2).sum(0)
    torch.testing.assert_close(q.mean.squeeze(-1), mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(q.variance.squeeze(-1), variance, rtol=1e-6, atol=1e-6)
    z = q.rsample((40_000,)).squeeze(-1)
    assert z.shape == (40_000, 4)
    error = variance.sqrt() / math.sqrt(len(z))
    assert ((z.mean(0) - mean).abs() < 5 * error).all()
    assert ((z.var(0) - variance).abs() < 0.04 * variance + 0.01).all()


def test_components_are_drawn_alike_often_and_none_that_is_not_usable():
    torch.manual_seed(1)
    drawn = of_rows().choose((3000,))
    for c in range(3):
        assert ((drawn == c).double().mean(0) - 1 / 3).abs().max() < 0.05
    drawn = of_rows(HOLES).choose((3000,))
    share = torch.stack([(drawn == c).double().mean(0) for c in range(3)])
    expected = torch.where(HOLES, 1.0, 0.0).double()
    expected[:, 3] = 1
    expected = expected / expected.sum(0)
    assert (share - expected).abs().max() < 0.05
    assert (share[expected == 0] == 0).all()


def test_stratified_draws_are_of_each_component_and_average_to_the_mean():
    torch.manual_seed(2)
    q = of_rows(Z=2)
    z = q.stratified(20_000)
    assert z.shape == (20_000, 3, 4, 2)
    torch.testing.assert_close(z.mean(0), q.components.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(q.average(z.mean(0)), q.mean, atol=0.03, rtol=0)


def test_a_mixture_without_a_batch_and_one_of_two_batch_dimensions():
    z = Mixture(experts(3, Z=2)).rsample((7,))
    assert z.shape == (7, 2)
    q = Mixture(experts(3, 4, 5, Z=2))
    assert (q.batch_shape, q.event_shape) == ((4, 5), (2,))
    z = q.rsample((7,))
    assert z.shape == (7, 4, 5, 2)
    assert q.log_prob(z).shape == (7, 4, 5)
    assert q.log_prob(z[0, 0]).shape == (4, 5)


def test_the_temperature_narrows_components_and_leaves_their_centres():
    q = of_rows(HOLES, Z=2)
    cold = q.tempered(0.5)
    torch.testing.assert_close(cold.components.scale, 0.5 * q.components.scale)
    torch.testing.assert_close(cold.mean, q.mean)
    assert torch.equal(cold.usable, q.usable)
    assert torch.equal(sample(q, 0.0, (3,)), q.mean.expand(3, 4, 2))


def test_a_mixture_of_equal_components_is_that_component():
    one = experts(1, 4, Z=2)
    q = Mixture(DiagonalGaussian(one.loc.expand(3, -1, -1), one.scale.expand(3, -1, -1)))
    z = q.rsample((5,))
    torch.testing.assert_close(q.log_prob(z), one[0].log_prob(z))
    torch.testing.assert_close(q.variance, one[0].variance)


def test_the_kl_by_draws_is_the_mean_difference_of_log_densities():
    torch.manual_seed(3)
    q = of_rows()
    p = standard_normal(1, like=q.mean)
    kl = divergence(q, p, q.rsample((40_000,))).mean(0)
    grid = GRID.reshape(-1, 1, 1).expand(-1, 4, 1)
    log_q = q.log_prob(grid)
    exact = (log_q.exp() * (log_q - p.log_prob(grid))).sum(0) * CELL
    torch.testing.assert_close(kl, exact, atol=0.1, rtol=0.05)


def test_gradients_flow_to_the_chosen_component_alone_and_none_through_a_detached_one():
    torch.manual_seed(4)
    each = experts(3, 4, Z=2)
    loc = each.loc.requires_grad_()
    q = Mixture(each)
    with torch.random.fork_rng():
        chosen = q.choose()
    q.rsample().sum().backward()
    expected = torch.zeros_like(loc)
    expected[chosen, torch.arange(4)] = 1
    assert torch.equal(loc.grad, expected)
    assert not q.detach().log_prob(torch.zeros(4, 2)).requires_grad
    assert q.log_prob(torch.zeros(4, 2)).requires_grad
