"""Diagonal Gaussians of z: torch's own to the last bit, their heads, and draws at a temperature."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from mmgen.latent.base import sample
from mmgen.latent.family import Gaussians
from mmgen.latent.gaussian import DiagonalGaussian, GaussianHead, gaussian, standard_normal

SHAPES = [(3,), (4, 3), (2, 4, 3)]


def pair(*shape, dtype=torch.float32, seed=0):
    """The same distribution as mmgen has it and as torch has it."""
    torch.manual_seed(seed)
    mean, deviation = torch.randn(shape, dtype=dtype), torch.rand(shape, dtype=dtype) + 0.1
    theirs = Independent(Normal(mean, deviation, validate_args=False), 1, validate_args=False)
    return DiagonalGaussian(mean, deviation), theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_torchs_to_the_last_bit(shape, dtype):
    ours, theirs = pair(*shape, dtype=dtype)
    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)
    for moment in ("mean", "stddev", "variance"):
        assert torch.equal(getattr(ours, moment), getattr(theirs, moment))
    drawn = []
    for q in (ours, theirs):
        torch.manual_seed(1)
        drawn.append(q.rsample((5,)))
    assert torch.equal(*drawn)
    z = 3 * torch.randn(5, *shape, dtype=dtype)
    assert torch.equal(ours.log_prob(z), theirs.log_prob(z))
    for others in (pair(*shape, dtype=dtype, seed=2), pair(3, dtype=dtype, seed=3)):
        assert torch.equal(kl_divergence(ours, others[0]), kl_divergence(theirs, others[1]))
        assert torch.equal(kl_divergence(others[0], ours), kl_divergence(others[1], theirs))


def test_gradients_are_torchs():
    found = []
    for which in (0, 1):
        torch.manual_seed(0)
        mean, deviation = torch.randn(4, 3).requires_grad_(), torch.ones(4, 3).requires_grad_()
        ours = DiagonalGaussian(mean, deviation)
        theirs = Independent(Normal(mean, deviation), 1)
        q, p = (ours, pair(3)[0]) if which else (theirs, pair(3)[1])
        torch.manual_seed(1)
        (q.log_prob(torch.ones(3)) + kl_divergence(q, p) + q.rsample().sum(-1)).sum().backward()
        found.append((mean.grad, deviation.grad))
    torch.testing.assert_close(*found)


def test_the_divergence_is_that_of_a_monte_carlo_estimate():
    q, _ = pair(4, 3, dtype=torch.float64)
    others = (standard_normal(4, 3, like=q.mean), pair(2, 4, 3, dtype=torch.float64, seed=1)[0])
    for p in others:
        z = q.sample((40_000,)).unsqueeze(1)  # (N, 1, 4, 3), against p of (4,) or (2, 4)
        ratio = q.log_prob(z) - p.log_prob(z)
        standard_error = ratio.std(0) / math.sqrt(len(z))
        assert ((ratio.mean(0) - kl_divergence(q, p)).abs() < 4 * standard_error).all()


def test_parts_of_the_batch():
    q, _ = pair(3, 4, 2)
    assert torch.equal(q[-1].mean, q.mean[-1])
    assert torch.equal(q[:-1].stddev, q.stddev[:-1])
    assert q[-1].batch_shape == (4,)
    assert q[:0].batch_shape == (0, 4)
    assert q.named("q(z | x)")[1].symbol == "q(z | x)"


def test_no_gradient_flows_through_what_is_detached():
    mean = torch.zeros(2, requires_grad=True)
    q = DiagonalGaussian(mean, torch.ones(2))
    assert q.rsample().requires_grad
    assert not q.sample().requires_grad
    assert not q.detach().rsample().requires_grad
    assert torch.equal(q.detach().mean, q.mean)


def test_a_temperature_multiplies_the_deviation_and_zero_is_the_mean():
    q = DiagonalGaussian(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 3.0]]), "q(z | x)")
    torch.manual_seed(0)
    plain = q.rsample((50_000,))
    for temperature in (0.5, 2.0):
        torch.manual_seed(0)
        z = sample(q, temperature, (50_000,))
        torch.testing.assert_close(z, q.mean + temperature * (plain - q.mean))
        torch.testing.assert_close(z.std(0), temperature * q.stddev, rtol=0.02, atol=0)
        tempered = q.tempered(temperature)
        assert tempered.symbol == q.symbol
        assert torch.equal(tempered.stddev, temperature * q.stddev)
        torch.testing.assert_close(tempered.tempered(1 / temperature).stddev, q.stddev)
    torch.manual_seed(0)
    assert torch.equal(sample(q, 1.0, (50_000,)), plain)
    assert torch.equal(sample(q, 0.0, (3,)), q.mean.expand(3, 1, 2))


# What parameters mean.


def test_a_collapsed_variance_stays_above_zero():
    q = gaussian(torch.tensor([[0.0, -1e4], [5.0, -100.0]]))
    assert torch.allclose(q.variance, torch.tensor(1e-6))
    assert torch.isfinite(kl_divergence(standard_normal(2, 1, like=q.mean), q)).all()


def test_mean_and_softplus_variance_are_read_off_the_two_halves():
    q = gaussian(torch.tensor([[1.0, 2.0, 0.0, 3.0]]))
    assert q.mean.tolist() == [[1.0, 2.0]]
    expected = [math.log(2), math.log(1 + math.e**3)]
    assert q.variance[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert q.event_shape == (2,)
    assert q.batch_shape == (1,)


def test_the_family_reads_what_the_head_reads():
    family, parameters = Gaussians(2), torch.randn(5, 4)
    assert family.size == 4
    q = family(parameters, "q(z | a)")
    assert (q.symbol, q.batch_shape) == ("q(z | a)", (5,))
    assert torch.equal(q.stddev, gaussian(parameters).stddev)


def test_half_precision_features_give_full_precision_posteriors():
    head = GaussianHead(4, 2).to(torch.bfloat16)
    assert head(torch.ones(3, 4, dtype=torch.bfloat16)).mean.dtype == torch.float32
    assert head.double()(torch.ones(3, 4).double()).mean.dtype == torch.float64
    assert standard_normal(2, like=torch.ones(1, dtype=torch.bfloat16)).mean.dtype == torch.float32
