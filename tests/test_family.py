"""Families of q(z | x_S): the right KL where a diagonal Gaussian has none, in all ways."""

import math

import pytest
import torch
from torch import _dynamo as dynamo
from torch.distributions import Distribution
from toys import OneDevice, differing, gradients, observations, toy_modalities, training

from mmgen.errors import ConfigError
from mmgen.inference.divergence import divergence
from mmgen.inference.importance import importance_sample
from mmgen.latent.correlated import FullGaussian
from mmgen.latent.family import FullGaussians, Gaussians, LowRankGaussians, Mixtures
from mmgen.latent.gaussian import DiagonalGaussian
from mmgen.latent.mixture import Mixture
from mmgen.training import memory

MODALITIES = toy_modalities(3)
FULL = {"subset_posterior": "full"}
MIXTURE = {"subset_posterior": "mixture", "mixture_components": 3}
EACH = {
    "full": FULL,
    "mixture": MIXTURE,
    "mixture of diagonal": {**MIXTURE, "mixture_covariance": "diagonal"},
    "mixture of low rank": {**MIXTURE, "mixture_covariance": "low-rank", "mixture_rank": 2},
}
WAYS = {
    "separate": {},
    "fusion": {"fusion": (7,)},
    "shared": {"subset_encoder": "shared"},
    "some": {"subsets_per_step": 6},
    "some of shared": {"subset_encoder": "shared", "subsets_per_step": 6},
    "singles": {"subsets": "single"},
}


# Posteriors of a class that no diagonal Gaussian is: q(z | x) of its rows, deviation NOISE, lie
# along a line, or at two places.

NOISE = 0.1


def least_kl(family, means, steps=300):
    """Learns the parameters of one class by E KL(q(z | x) ‖ q(z | class)), and returns that."""
    torch.manual_seed(0)
    q = DiagonalGaussian(means, torch.full_like(means, NOISE))
    h = (0.1 * torch.randn(family.size)).requires_grad_()
    adam = torch.optim.Adam([h], lr=0.1)
    for step in range(steps):
        if step == steps // 2:
            adam.param_groups[0]["lr"] = 0.01
        adam.zero_grad()
        divergence(q, family(h, "q"), q.rsample()).mean().backward()
        adam.step()
    with torch.no_grad():
        z = q.rsample((50,))
        return divergence(q, family(h, "q"), z).mean().item()


def entropy(dimensions):
    return dimensions * (0.5 * math.log(2 * math.pi * math.e) + math.log(NOISE))


def test_a_full_gaussian_reaches_the_kl_of_a_line_and_a_diagonal_one_its_own():
    torch.manual_seed(1)
    along = torch.randn(200, 1)
    means = torch.cat([along, 0.8 * along, -along], 1)
    aggregate = means.T.cov(correction=0) + NOISE**2 * torch.eye(3)
    least = 0.5 * (aggregate.logdet() - 6 * math.log(NOISE)).item()
    own = 0.5 * (aggregate.diagonal().log().sum() - 6 * math.log(NOISE)).item()
    assert own - least > 3
    assert least_kl(FullGaussians(3), means) == pytest.approx(least, abs=0.02)
    assert least_kl(Gaussians(3), means) == pytest.approx(own, abs=0.02)
    assert least_kl(LowRankGaussians(3, 1), means) < (least + own) / 2  # slower to learn


@pytest.mark.parametrize("components", [Gaussians(2), LowRankGaussians(2, 1), FullGaussians(2)])
def test_a_mixture_reaches_the_kl_of_two_places_and_a_gaussian_does_not(components):
    means = torch.tensor([[1.5, -1.0], [-1.5, 1.0]]).repeat(100, 1)
    # Which of the two a row is at, in nats: log 2.
    assert least_kl(Mixtures(components, 2), means) == pytest.approx(math.log(2), abs=0.06)
    aggregate = means.T.cov(correction=0) + NOISE**2 * torch.eye(2)
    one = 0.5 * (aggregate.logdet() - 4 * math.log(NOISE)).item()
    assert least_kl(FullGaussians(2), means) == pytest.approx(one, abs=0.02)
    assert one > 2 * math.log(2)


# Models.


@pytest.fixture(params=EACH)
def family(request):
    return EACH[request.param]


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def test_joint_posteriors_stay_diagonal_and_given_parts_they_are_of_the_family(family, way):
    model = training("jmvae-kl", MODALITIES, {**family, **way}).model.eval()
    x = observations(MODALITIES, 4)
    q = model.posterior(x)
    assert isinstance(q, DiagonalGaussian)
    assert q.symbol == "q(z | x)"
    part = model.posterior(x.select(["point"]))
    assert isinstance(part, FullGaussian if family is FULL else Mixture)
    assert (part.batch_shape, part.event_shape, part.symbol) == ((4,), (3,), "q(z | point)")
    joined = model.join(model.encode_each(x))
    torch.testing.assert_close(joined.mean, q.mean)


def test_the_terms_are_those_of_posteriors_one_by_one(family, way):
    model = training("jmvae-kl", MODALITIES, {**family, **way}).model.eval()
    x = observations(MODALITIES, 4)
    torch.manual_seed(5)
    terms = {term.name: term.value for term in model(x)}
    torch.manual_seed(5)
    q = model.posterior(x)
    z = q.rsample()
    each = [divergence(q, model.posterior(x.select(S)), z) for S in model.subsets]
    found = [value for name, value in terms.items() if name.startswith("subset")]
    if "subsets_per_step" in way:
        each = [torch.stack(each).sum(0)]
    torch.testing.assert_close(torch.stack(found), torch.stack(each))


def test_every_parameter_learns(family, way):
    state = training("jmvae-kl", MODALITIES, {**family, **way})
    state.backward(observations(MODALITIES, 8), 1.0)
    for name, gradient in gradients(state.model).items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name


@pytest.mark.parametrize("gradient", [True, False])
def test_the_joint_posterior_is_left_alone_if_so_asked(family, gradient):
    found = []
    for alpha in (0.0, 1.0):
        settings = {**family, "alpha": alpha, "subset_gradient": gradient}
        state = training("jmvae-kl", MODALITIES, settings)
        torch.manual_seed(3)
        state.backward(observations(MODALITIES, 8), 1.0)
        found.append([p.grad for p in state.model.encoder.last.parameters()])
    assert all(map(torch.equal, *found)) == (not gradient)


def test_steps_stay_on_their_device_and_their_memory_is_predicted(family, way):
    meta = torch.device("meta")
    model = training("jmvae-kl", MODALITIES, {**family, **way}, device=meta).model
    with OneDevice(meta):
        assert memory.training_memory(model, MODALITIES, 8).step > 0
        assert memory.sample_memory(model, MODALITIES) > 0


def test_memory_grows_with_the_factors_of_a_batch():
    meta = torch.device("meta")

    def step(**settings):
        settings = {"latent": 64, "subsets": "single", **settings}
        model = training("jmvae-kl", MODALITIES, settings, device=meta).model
        return memory.training_memory(model, MODALITIES, 500).step

    factor = 3 * 500 * 64 * 64 * 4  # of three subsets
    assert 2 * factor < step(**FULL) - step() < 8 * factor


def test_two_trainings_of_one_seed_are_equal_bit_for_bit(family):
    states = []
    for _ in range(2):
        state = training("jmvae-kl", MODALITIES, family)
        for step in range(3):
            state.step(observations(MODALITIES, 8), step / 3)
        states.append(state.model.state_dict())
    assert differing(*states) == []


def test_bfloat16_keeps_densities_in_float32(family):
    state = training("jmvae-kl", MODALITIES, family, precision="bfloat16")
    terms = state.step(observations(MODALITIES, 8), 1.0)
    assert {value.dtype for value in terms.values()} == {torch.float32}


@torch.no_grad()
def test_likelihoods_weigh_draws_by_the_familys_density(family):
    model = training("jmvae-kl", MODALITIES, family).model.eval()
    x = observations(MODALITIES, 4)
    drawn = importance_sample(model, x, ["point"], 6)
    q = model.posterior(x.select(["point"]))
    expected = model.prior(x.select([])).log_prob(drawn.z) - q.log_prob(drawn.z)
    torch.testing.assert_close(drawn.log_weight, expected)


def test_products_refuse_what_is_no_diagonal_gaussian(family):
    with pytest.raises(ConfigError, match=r"subset_posterior = .*product of diagonal Gaussians"):
        training("jmvae-kl", MODALITIES, {**family, "subset_encoder": "product"})


def test_without_subsets_there_are_no_more_parameters_than_before(family):
    plain = training("jmvae-kl", MODALITIES, {"subsets": "none"}).model
    model = training("jmvae-kl", MODALITIES, {**family, "subsets": "none"}).model
    assert [*model.state_dict()] == [*plain.state_dict()]


@pytest.mark.ci
def test_a_compiled_step_is_the_plain_one_in_one_graph(family, monkeypatch):
    # torch turns it off when it compiles.
    monkeypatch.setattr(Distribution, "_validate_args", Distribution._validate_args)
    dynamo.reset()
    dynamo.utils.counters.clear()
    found = []
    for compiled in (False, True):
        state = training("jmvae-kl", MODALITIES, family)
        if compiled:
            state.objective = torch.compile(state.model, backend="aot_eager")
        torch.manual_seed(1)
        found.append(state.step(observations(MODALITIES, 8), 1.0))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    assert not dynamo.utils.counters["graph_break"]
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 1
