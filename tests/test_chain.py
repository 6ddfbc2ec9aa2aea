"""Several layers of latents: the sum of their densities, draws from the top, and temperatures."""

import pytest
import torch
from torch.distributions import Independent, Normal

from mmgen.inference.divergence import divergence
from mmgen.latent.base import sample
from mmgen.latent.chain import Ascent, Chain, Layers
from mmgen.latent.gaussian import DiagonalGaussian, GaussianHead, standard_normal

Z, L = 2, 3


def layers(seed=0, batch=(4,)):
    torch.manual_seed(seed)
    gaussians = [
        DiagonalGaussian(torch.randn(*batch, Z), torch.rand(*batch, Z) + 0.2) for _ in range(L)
    ]
    return Layers(gaussians, "q(z | x)")


def chain(seed=0):
    """p(z_3) N(W_2 z_3 + ..), N(W_1 z_2 + ..) of batch shape ()."""
    torch.manual_seed(seed)
    heads = [GaussianHead(Z, Z).double() for _ in range(L - 1)]
    top = DiagonalGaussian(torch.tensor([0.5, -1.0]).double(), torch.tensor([0.7, 1.5]).double())
    return Chain(top, heads, "p(z)")


def ascent(seed=0):
    """N(.., ..) of z_1, N(W_2 z_1 + ..), N(W_3 z_2 + ..) of batch shape ()."""
    p = chain(seed)
    return Ascent(p.top, p.downwards, "q(z | x)")


def normal(q):
    return Independent(Normal(q.loc, q.scale), 1)


def test_shapes():
    for q, batch in ((layers(), (4,)), (chain(), ()), (ascent(), ())):
        assert (q.batch_shape, q.event_shape) == (batch, (L, Z))
        assert q.mean.shape == (*batch, L, Z)
        z = q.rsample((5,))
        assert z.shape == (5, *batch, L, Z)
        assert q.log_prob(z).shape == (5, *batch)
        assert q.log_prob(torch.zeros(7, 4, L, Z).to(z)).shape == (7, 4)


def test_the_density_of_layers_is_the_sum_of_theirs():
    q, z = layers(), torch.randn(5, 4, L, Z)
    expected = sum(normal(q_l).log_prob(z[..., level, :]) for level, q_l in enumerate(q.layers))
    torch.testing.assert_close(q.log_prob(z), expected)
    torch.manual_seed(1)
    drawn = q.rsample((5,))
    torch.manual_seed(1)
    for level, q_l in enumerate(q.layers):  # z_1 first
        assert torch.equal(drawn[..., level, :], q_l.rsample((5,)))


@torch.no_grad()
def test_the_density_of_a_chain_is_that_of_each_layer_given_the_one_above():
    p, z = chain(), torch.randn(5, L, Z).double()
    expected = normal(p.top).log_prob(z[:, 2])
    for level, head in enumerate(p.downwards):
        expected = expected + normal(head(z[:, level + 1])).log_prob(z[:, level])
    torch.testing.assert_close(p.log_prob(z), expected)
    each = p.given(z)
    assert len(each) == L
    found = sum(p_l.log_prob(z[:, level]) for level, p_l in enumerate(each))
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_the_density_of_a_chain_integrates_to_one():
    torch.manual_seed(0)
    p = Chain(
        standard_normal(1, like=torch.ones(1).double()), [GaussianHead(1, 1).double()], "p(z)"
    )
    line = torch.linspace(-9, 9, 401).double()
    grid = torch.cartesian_prod(line, line).unsqueeze(-1)
    total = p.log_prob(grid).exp().sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.4])
@torch.no_grad()
def test_draws_have_the_moments_of_the_linear_chain(temperature):
    """A head without what comes before it is linear in its mean; its variance is made constant."""
    p = chain()
    for head in p.downwards:
        head.linear.weight[Z:] = 0
    mean, covariance = p.top.loc, (temperature * p.top.scale).square().diag()
    means, covariances = [mean], [covariance]
    for head in reversed(p.downwards):
        W = head.linear.weight[:Z]
        below = head(means[0])
        covariance = W @ covariances[0] @ W.T + (temperature * below.scale).square().diag()
        means.insert(0, below.loc)
        covariances.insert(0, covariance)
    torch.manual_seed(0)
    z = sample(p, temperature, (60_000,))
    for level in range(L):
        torch.testing.assert_close(z[:, level].mean(0), means[level], atol=0.03, rtol=0)
        torch.testing.assert_close(z[:, level].T.cov(), covariances[level], atol=0.05, rtol=0.05)


@torch.no_grad()
def test_temperature_zero_is_each_layers_mean_given_the_one_above():
    p = chain()
    z3 = p.top.mean
    z2 = p.downwards[1](z3).mean
    z1 = p.downwards[0](z2).mean
    expected = torch.stack([z1, z2, z3])
    assert torch.equal(p.mean, expected)
    assert torch.equal(sample(p, 0, (2,)), expected.expand(2, L, Z))
    q = layers()
    expected = torch.stack([q_l.mean for q_l in q.layers], -2)
    assert torch.equal(sample(q, 0, (2,)), expected.expand(2, 4, L, Z))


@torch.no_grad()
def test_a_temperature_multiplies_the_deviation_of_every_layer():
    q = layers()
    for one, other in zip(q.tempered(0.3).layers, q.layers, strict=True):
        assert torch.equal(one.scale, 0.3 * other.scale)
    p, z = chain(), torch.randn(5, L, Z).double()
    twice = p.tempered(0.5).tempered(0.6)
    assert isinstance(twice, Chain)
    for one, other in zip(twice.given(z), p.given(z), strict=True):
        torch.testing.assert_close(one.scale, 0.3 * other.scale)
        assert torch.equal(one.loc, other.loc)
    # The density is that of the draws: −E[log p] is the entropy, sum of log deviations apart.
    torch.manual_seed(0)
    drawn = sample(p, 0.3, (4,))
    torch.manual_seed(0)
    assert torch.equal(drawn, p.tempered(0.3).rsample((4,)))
    expected = sum(
        normal(t).log_prob(drawn[:, i]) for i, t in enumerate(p.tempered(0.3).given(drawn))
    )
    torch.testing.assert_close(p.tempered(0.3).log_prob(drawn), expected)
    assert p.tempered(0.3).symbol == "p(z)"


@torch.no_grad()
def test_the_divergence_of_layers_from_a_chain_is_by_draws_and_right_on_average():
    q, p = (
        Layers(
            [DiagonalGaussian(q.loc.double(), q.scale.double()) for q in layers(batch=()).layers],
            "q",
        ),
        chain(),
    )
    torch.manual_seed(0)
    z = q.rsample((60_000,))
    found = divergence(q, p, z)
    assert found.shape == (60_000,)
    # By layers: the mean over z_{l+1} of the closed KL(q_l ‖ p(z_l|z_{l+1})).
    by_layers = sum(
        torch.distributions.kl_divergence(q_l, p_l)
        for q_l, p_l in zip(q.layers, p.given(z), strict=True)
    )
    error = (found.std() + by_layers.std()) / 60_000**0.5
    assert (found.mean() - by_layers.mean()).abs() < 4 * error
    assert found.mean() > 10 * error


@torch.no_grad()
def test_an_ascent_is_each_layer_given_the_one_below():
    q = ascent()
    z = torch.randn(5, L, Z).double()
    expected = [q.lowest, q.upwards[0](z[:, 0]), q.upwards[1](z[:, 1])]
    total = sum(normal(q_l).log_prob(z[:, level]) for level, q_l in enumerate(expected))
    torch.testing.assert_close(q.log_prob(z), total)
    for one, other in zip(q.given(z), expected, strict=True):
        assert torch.equal(one.loc, other.loc)
        assert torch.equal(one.scale, other.scale)
    centre = [q.lowest.loc]
    for up in q.upwards:
        centre.append(up(centre[-1]).loc)
    assert torch.equal(sample(q, 0, (2,)), torch.stack(centre).expand(2, L, Z))
    torch.manual_seed(0)
    drawn = sample(q, 0.3, (4,))
    torch.manual_seed(0)
    below = q.lowest.tempered(0.3).rsample((4,))
    assert torch.equal(drawn[:, 0], below)  # z_1 first
    assert torch.equal(drawn[:, 1], q.upwards[0](below).tempered(0.3).rsample())
    twice = q.tempered(0.5).tempered(0.6)
    assert isinstance(twice, Ascent)
    for one, other in zip(twice.given(z), expected, strict=True):
        torch.testing.assert_close(one.scale, 0.3 * other.scale)


@torch.no_grad()
def test_the_highest_layer_of_an_ascent_can_be_drawn_from_alone():
    q = ascent()
    assert q.highest.event_shape == (Z,)
    assert torch.equal(q.highest.mean, q.mean[-1])
    for temperature in (0.3, 1.0):
        torch.manual_seed(0)
        expected = sample(q, temperature, (6,))[:, -1]
        torch.manual_seed(0)
        assert torch.equal(sample(q.highest, temperature, (6,)), expected)
    with pytest.raises(NotImplementedError):
        q.highest.log_prob(q.highest.mean)
    assert Ascent(q.lowest, [], "q").highest is q.lowest
    assert layers().highest.loc.shape == (4, Z)
