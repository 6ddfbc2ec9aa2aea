"""Draws of an encoder that are moved to where a fitted prior has z."""

import pytest
import torch
from torch.distributions import MultivariateNormal
from toys import made, observations, toy_modalities

from mmgen.batch import Batch
from mmgen.inference.sample import infer, sample_latent
from mmgen.latent import resampled
from mmgen.latent.aggregate import FittedMixture
from mmgen.latent.base import sample
from mmgen.latent.correlated import FullGaussian
from mmgen.latent.gaussian import DiagonalGaussian, standard_normal
from mmgen.latent.mixture import Mixture
from mmgen.latent.resampled import Resampled
from mmgen.rows import inference
from mmgen.rows.noise import shared_noise

MODALITIES = toy_modalities(2)
PLAIN = standard_normal(2, like=torch.zeros(()))


def test_of_gaussians_it_is_their_product_over_the_third(monkeypatch):
    """q r / p of Gaussians is a Gaussian whose precisions add up."""
    monkeypatch.setattr(resampled, "CANDIDATES", 200)
    q = DiagonalGaussian(torch.tensor([[0.5, -0.3]]), torch.tensor([[0.8, 0.6]]))
    covariance = torch.tensor([[0.9, 0.4], [0.4, 0.7]])
    r = FullGaussian.of_covariance(torch.tensor([0.2, 0.4]), covariance)
    precision = torch.diag(q.variance[0].reciprocal()) + covariance.inverse() - torch.eye(2)
    shift = q.loc[0] / q.variance[0] + covariance.inverse() @ r.loc
    exact = MultivariateNormal(precision.inverse() @ shift, precision_matrix=precision)
    torch.manual_seed(0)
    z = Resampled(q, r, PLAIN).rsample((20_000,))[:, 0]
    torch.testing.assert_close(z.mean(0), exact.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(z.T.cov(), exact.covariance_matrix, atol=0.03, rtol=0)


def test_z_between_two_places_go_to_one_of_them():
    components = DiagonalGaussian(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), torch.full((2, 2), 0.3))
    r = Mixture(components, log_weights=torch.tensor([0.5, 0.5]).log())
    q = DiagonalGaussian(torch.zeros(1, 2), torch.tensor([[2.0, 1.0]]))
    torch.manual_seed(0)
    z = Resampled(q, r, PLAIN).rsample((2000,))[:, 0]
    near = (z[:, 0].abs() - 2).abs() < 1
    assert near.float().mean() > 0.95
    assert (z[:, 0] > 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    own = q.rsample((2000,))[:, 0]
    assert ((own[:, 0].abs() - 2).abs() < 1).float().mean() < 0.6


def test_with_one_candidate_it_is_the_encoders(monkeypatch):
    monkeypatch.setattr(resampled, "CANDIDATES", 1)
    q = DiagonalGaussian(torch.randn(3, 2), torch.rand(3, 2) + 0.1, "q(z | a)")
    r = DiagonalGaussian(torch.zeros(2), torch.full((2,), 0.1))
    torch.manual_seed(0)
    z = Resampled(q, r, PLAIN).rsample((5,))
    torch.manual_seed(0)
    assert torch.equal(z, q.rsample((5,)))


def test_it_has_a_centre_and_no_density():
    q = DiagonalGaussian(torch.randn(3, 2), torch.rand(3, 2) + 0.1, "q(z | a)")
    both = Resampled(q, PLAIN, PLAIN)
    assert torch.equal(sample(both, 0.0), q.mean)
    assert both.symbol == "q(z | a)"
    with pytest.raises(NotImplementedError, match="no density"):
        both.log_prob(torch.zeros(3, 2))
    cold = both.tempered(0.1).rsample((500,))
    torch.testing.assert_close(cold.std(0), 0.1 * q.scale, atol=0.01, rtol=0.2)


def test_a_row_is_drawn_the_same_whatever_the_others_are():
    torch.manual_seed(0)
    q = DiagonalGaussian(torch.randn(3, 2), torch.rand(3, 2) + 0.1)
    r = DiagonalGaussian(torch.ones(2), torch.full((2,), 0.5))
    device = torch.device("cpu")
    with shared_noise(device, 3, 6, 0):
        together = Resampled(q, r, PLAIN).rsample((6,))
    for row in range(3):
        with shared_noise(device, 1, 6, 0):
            alone = Resampled(q[[row]], r, PLAIN).rsample((6,))
        torch.testing.assert_close(alone[:, 0], together[:, row])


# A model.


@pytest.fixture
def model():
    """One whose rows are far from where its encoders are unsure."""
    torch.manual_seed(0)
    model = made("jmvae-kl", MODALITIES, latent=3, sampling_posterior="fitted").eval()
    z = torch.tensor([1.5, 0.0, 0.0]) + 0.2 * torch.randn(400, 3)
    model.fitted_prior = FittedMixture.of_draws(z, z, (1,))
    return model


@torch.no_grad()
def test_a_part_is_drawn_from_near_the_prior_and_all_together_from_the_encoder(model):
    x = observations(MODALITIES, 6)
    part = x.select(["colour"])
    assert isinstance(infer(model, part), Resampled)
    for given in (x, part):
        assert not isinstance(infer(model, given, fitted=False), Resampled)
        assert not isinstance(infer(model, given, resampled=False), Resampled)
    assert not isinstance(infer(model, x), Resampled)
    far = torch.tensor([1.5, 0.0, 0.0])
    moved, own = (sample_latent(model, part, 40, resampled=r) for r in (True, False))
    assert (moved - far).norm(dim=-1).mean() < 0.7 * (own - far).norm(dim=-1).mean()
    masked = Batch(part.tensors, {"colour": torch.ones(6, dtype=torch.bool)})
    assert not isinstance(infer(model, masked), Resampled)


@torch.no_grad()
def test_without_the_setting_or_a_fitted_prior_nothing_is_moved(model):
    part = observations(MODALITIES, 2).select(["colour"])
    model.fitted_prior = None
    assert not isinstance(infer(model, part), Resampled)
    plain = made("jmvae-kl", MODALITIES, latent=3).eval()
    plain.fitted_prior = FittedMixture.of_draws(torch.randn(99, 3), torch.randn(99, 3), (1,))
    assert not isinstance(infer(plain, part), Resampled)


@torch.no_grad()
def test_what_is_expected_has_the_encoders_draws_and_what_is_drawn_has_not(model, monkeypatch):
    part = observations(MODALITIES, 2).select(["colour"])
    expected, drawn = [], []
    for candidates in (32, 1):
        monkeypatch.setattr(resampled, "CANDIDATES", candidates)
        expected.append(inference.moments(model, part, 2, ["point"])["point"])
        torch.manual_seed(0)
        drawn.append(inference.draw(model, part, 2, ["point"], 3)["point"])
    torch.testing.assert_close(*expected)
    assert not torch.allclose(*drawn)
