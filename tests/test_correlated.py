"""Gaussians whose dimensions depend on each other, against torch's and against draws."""

import math

import pytest
import torch
from torch.distributions import (
    Categorical,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    kl_divergence,
)

from mmgen.latent.base import sample
from mmgen.latent.correlated import FullGaussian
from mmgen.latent.family import FullGaussians, Gaussians, LowRankGaussians, Mixtures
from mmgen.latent.gaussian import DiagonalGaussian, gaussian, standard_normal

Z = 3
FAMILIES = {"diagonal": Gaussians(Z), "low-rank": LowRankGaussians(Z, 2), "full": FullGaussians(Z)}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def made(family, *batch, size=1.5):
    return family(size * torch.randn(*batch, family.size), "q(z | x_S)")


def covariance(p):
    """Writes the covariance out by the definition of each class."""
    if isinstance(p, DiagonalGaussian):
        return torch.diag_embed(p.scale**2)
    if isinstance(p, FullGaussian):
        precision = p.coupling @ torch.diag_embed(p.innovation**-2) @ p.coupling.mT
        return precision.inverse()
    D = torch.diag_embed(p.scale)
    return D @ (torch.eye(Z) + p.directions @ p.directions.mT) @ D


def reference(p):
    return MultivariateNormal(p.loc, covariance(p))


def reference_mixture(q):
    """torch's, whose components are the last dimension of the batch."""
    each = reference(q.components)
    loc, matrix = each.loc.movedim(0, -2), each.covariance_matrix.movedim(0, -3)
    weights = Categorical(logits=q.log_weights.movedim(0, -1))
    return MixtureSameFamily(weights, MultivariateNormal(loc, matrix))


def test_density_moments_and_shapes_are_those_of_torchs_multivariate_normal(family):
    p = made(family, 2, 4)
    other = reference(p)
    assert (p.batch_shape, p.event_shape, p.symbol) == ((2, 4), (Z,), "q(z | x_S)")
    z = p.rsample((5, 6))
    assert z.shape == (5, 6, 2, 4, Z)
    torch.testing.assert_close(p.log_prob(z), other.log_prob(z))
    torch.testing.assert_close(p.log_prob(z[0, 0, 0]), other.log_prob(z[0, 0, 0]))  # broadcast
    torch.testing.assert_close(p.variance, other.variance)
    torch.testing.assert_close(p.stddev, other.stddev)
    torch.testing.assert_close(p[1].log_prob(z[0, 0, 1]), other.log_prob(z[0, 0])[1])
    torch.testing.assert_close(p[:, [0, 2]].mean, p.loc[:, [0, 2]])


def test_low_rank_is_torchs_low_rank():
    p = made(FAMILIES["low-rank"], 4)
    other = LowRankMultivariateNormal(p.loc, p.scale.unsqueeze(-1) * p.directions, p.scale**2)
    z = p.rsample((7,))
    torch.testing.assert_close(p.log_prob(z), other.log_prob(z))


def test_draws_have_the_mean_and_the_covariance_and_a_temperature_scales_it(family):
    p = made(family)
    for temperature in (1.0, 0.5):
        q = p.tempered(temperature)
        expected = temperature**2 * covariance(p)
        torch.testing.assert_close(covariance(q), expected)
        torch.testing.assert_close(q.log_prob(p.loc), reference(q).log_prob(p.loc))
        z = sample(p, temperature, (100_000,))
        deviation = expected.diagonal().sqrt()
        assert ((z.mean(0) - p.loc).abs() < 0.02 * deviation).all()
        assert ((z.T.cov() - expected).abs() < 0.02 * torch.outer(deviation, deviation)).all()
    assert torch.equal(sample(p, 0.0, (2,)), p.loc.expand(2, Z))


def test_of_covariance_inverts_covariance():
    A = torch.randn(4, Z, Z)
    matrix = A @ A.mT + 0.1 * torch.eye(Z)
    p = FullGaussian.of_covariance(torch.zeros(4, Z), matrix)
    torch.testing.assert_close(p.covariance, matrix)
    torch.testing.assert_close(covariance(p), matrix)
    torch.testing.assert_close(p.coupling, p.coupling.tril())
    torch.testing.assert_close(p.coupling.diagonal(dim1=1, dim2=2), torch.ones(4, Z))


@pytest.mark.parametrize("kinds", [("diagonal", "full"), ("full", "full"), ("full", "diagonal")])
def test_divergences_are_torchs_and_those_of_draws(kinds):
    q, p = (made(FAMILIES[kind], 4, size=0.7) for kind in kinds)
    kl = kl_divergence(q, p)
    torch.testing.assert_close(kl, kl_divergence(reference(q), reference(p)))
    z = q.rsample((50_000,))
    each = q.log_prob(z) - p.log_prob(z)
    error = each.std(0) / math.sqrt(len(z))
    assert ((each.mean(0) - kl).abs() < 5 * error).all()
    torch.testing.assert_close(kl_divergence(p, p), torch.zeros(4), atol=1e-12, rtol=0)


def test_a_divergence_of_every_subset_at_once_is_that_of_each():
    q, p = made(FAMILIES["diagonal"], 4), made(FAMILIES["full"], 5, 4)
    each = torch.stack([kl_divergence(q, p[s]) for s in range(5)])
    torch.testing.assert_close(kl_divergence(q, p), each)


def test_without_couplings_each_family_is_the_diagonal_one_of_the_same_parameters(family):
    parameters = torch.randn(4, family.size)
    parameters[:, 2 * Z :] = 0
    p, other = family(parameters, "q(z)"), gaussian(parameters[:, : 2 * Z])
    z = p.rsample((5,))
    torch.testing.assert_close(p.log_prob(z), other.log_prob(z))
    torch.testing.assert_close(p.stddev, other.stddev)


def test_first_weights_give_nearly_the_diagonal_gaussian_whatever_z_is():
    for latent in (4, 64):
        full = FullGaussians(latent)
        parameters = torch.nn.Linear(100, full.size)(torch.randn(50, 100).relu())
        own = gaussian(parameters[:, : 2 * latent])
        each = kl_divergence(own, full(parameters, "q")) / latent
        assert each.max() < 0.2  # of nats a dimension


@pytest.mark.parametrize("kind", FAMILIES)
def test_gradients_of_densities_draws_and_divergences_are_right(kind):
    family = FAMILIES[kind]
    h = torch.randn(2, family.size, requires_grad=True)
    z = torch.randn(4, 2, Z, requires_grad=True)
    q = torch.randn(2, 2 * Z, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, z: family(h, "q").log_prob(z), (h, z))

    def drawn(h):
        torch.manual_seed(3)
        return family(h, "q").rsample((2,))

    assert torch.autograd.gradcheck(drawn, h)
    if kind == "full":
        both = (
            lambda h, q: kl_divergence(gaussian(q), family(h, "q")),
            lambda h, q: kl_divergence(family(h, "q"), gaussian(q)),
        )
        assert all(torch.autograd.gradcheck(kl, (h, q)) for kl in both)
        twice = torch.randn(2, family.size, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda h, g: kl_divergence(family(g, "q"), family(h, "q")), (h, twice)
        )


def test_extreme_parameters_stay_finite(family):
    for value in (-200.0, 0.0, 200.0):
        h = torch.full((2, family.size), value, dtype=torch.float32, requires_grad=True)
        p = family(h, "q(z)")
        z = p.rsample((3,))
        terms = [z, p.log_prob(z), p.stddev]
        if isinstance(p, FullGaussian):
            terms.append(kl_divergence(standard_normal(2, Z, like=h), p))
        assert all(t.isfinite().all() for t in terms)
        torch.stack([t.sum() for t in terms]).sum().backward()
        assert h.grad.isfinite().all()


def test_no_gradient_flows_through_a_detached_one(family):
    p = family(torch.randn(2, family.size, requires_grad=True), "q")
    assert p.log_prob(torch.zeros(Z)).requires_grad
    assert p.rsample().requires_grad
    assert not p.detach().log_prob(torch.zeros(Z)).requires_grad
    assert p.detach().symbol == "q"


@pytest.mark.parametrize("components", FAMILIES)
def test_a_mixture_is_torchs_in_density_and_moments_and_in_its_draws(components):
    family = Mixtures(FAMILIES[components], 4)
    assert family.size == 4 * (1 + FAMILIES[components].size)
    q = made(family, 2, 3)
    other = reference_mixture(q)
    assert (q.batch_shape, q.event_shape) == ((2, 3), (Z,))
    torch.testing.assert_close(q.log_weights.logsumexp(0), torch.zeros(2, 3))
    z = q.rsample((5,))
    assert z.shape == (5, 2, 3, Z)
    torch.testing.assert_close(q.log_prob(z), other.log_prob(z))
    torch.testing.assert_close(q.log_prob(z[0, 0]), other.log_prob(z[0, 0]))
    torch.testing.assert_close(q.mean, other.mean)
    torch.testing.assert_close(q.variance, other.variance)
    many = q.rsample((20_000,))
    assert ((many.mean(0) - q.mean).abs() < 0.05 * q.stddev).all()
    assert ((many.std(0) / q.stddev - 1).abs() < 0.05).all()
    chosen = q.choose((20_000,))
    share = torch.stack([(chosen == c).double().mean(0) for c in range(4)])
    assert (share - q.log_weights.exp()).abs().max() < 0.02
    cold = q.tempered(0.5)
    torch.testing.assert_close(covariance(cold.components), covariance(q.components) / 4)
    torch.testing.assert_close(cold.mean, q.mean)


def test_a_mixtures_draws_come_each_from_its_component():
    far = torch.zeros(3, 1, FAMILIES["full"].size)
    far[:, 0, 0] = torch.tensor([-100.0, 0.0, 100.0])
    q = FAMILIES["full"](far, "q")
    chosen = torch.tensor([[0], [2], [1], [2]])
    z = q.pick(chosen)
    assert torch.equal((z[..., 0] / 100).round().long() + 1, chosen)


def test_gradients_of_a_mixture_reach_weights_and_components():
    family = Mixtures(FAMILIES["full"], 2)
    h = torch.randn(2, family.size, requires_grad=True)
    z = torch.randn(2, Z)
    assert torch.autograd.gradcheck(lambda h: family(h, "q").log_prob(z), h)
    assert not family(h, "q").detach().log_prob(z).requires_grad


def test_parameters_of_half_precision_make_densities_of_single(family):
    for each in (family, Mixtures(family, 2)):
        h = torch.randn(2, each.size, dtype=torch.bfloat16)
        z = torch.zeros(2, Z, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            low, p = each(h, "q").log_prob(z), each(h, "q")
            assert p.rsample().dtype == torch.float32
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, each(h.float(), "q").log_prob(z))
