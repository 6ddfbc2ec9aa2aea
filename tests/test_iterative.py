"""Iterative sampling: what is encoded when, and draws from the exact conditional in the end."""

import math
from itertools import pairwise

import pytest
import torch
from by_hand import raw
from toys import JOINT, REGISTRY, Numbers, observations, toy_modalities, toy_model

from mmgen.batch import Batch
from mmgen.inference.iterative import ITERATIONS, Partwise, _encoded, iterate
from mmgen.inference.sample import sample_latent
from mmgen.latent.base import Latent

every_partwise = pytest.mark.parametrize(
    "kind", [kind for kind in JOINT if hasattr(REGISTRY.model(kind), "encode_each")]
)


class Recorder:
    """Stands between ``iterate`` and a model, and keeps what each iteration encodes and draws."""

    def __init__(self, model):
        self.model = model
        self.encoded = []
        self.seen = []
        self.temperatures = []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def encode_each(self, x):
        self.encoded.append(dict(x))
        return self.model.encode_each(x)

    def join(self, encoded):
        self.seen.append(self.encoded[-1])
        self.joined = encoded
        return Drawn(self.model.join(encoded), self.temperatures)


class Drawn(Latent):
    """A posterior that notes at which temperature it is drawn from."""

    def __init__(self, q, temperatures):
        self.q, self.temperatures = q, temperatures
        super().__init__(q.batch_shape, q.event_shape, q.symbol)

    @property
    def mean(self):
        self.temperatures.append(0)
        return self.q.mean

    def rsample(self, sample_shape=()):
        self.temperatures.append(1)
        return self.q.rsample(sample_shape)

    def log_prob(self, value):
        return self.q.log_prob(value)

    def tempered(self, temperature):
        self.temperatures.append(temperature)
        return self.q.tempered(temperature)


class Whole:
    """A model that does not say that it can encode modalities one by one."""

    def __init__(self, model):
        self.names, self.modalities, self.directions = model.names, model.modalities, None
        self.decode, self.blank = model.decode, model.blank
        self.sampling_prior = model.sampling_prior
        self.posterior, self.imputed_posterior = model.posterior, model.imputed_posterior


def recorded(kind="jmvae", K=3, **options):
    modalities = toy_modalities(K)
    model = Recorder(toy_model(kind, modalities).eval())
    x = observations(modalities, 4)
    torch.manual_seed(0)
    with torch.no_grad():
        z = list(iterate(model, x.select(["point"]), **options))
    return model, x["point"], z


@every_partwise
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_each_iteration_yields_z(kind, iterations):
    model, _, z = recorded(kind, samples=3, iterations=iterations)
    event = model.prior(Batch({})).event_shape
    assert [step.shape for step in z] == [(3, 4, *event)] * iterations
    assert len(model.seen) == iterations


@pytest.mark.parametrize("start", ["zero", "prior"])
def test_given_values_are_encoded_once_and_never_changed(start):
    model, point, _ = recorded(samples=3, iterations=4, start=start)
    given, *imputed = model.encoded
    assert set(given) == {"point"}
    assert torch.equal(given["point"], point)
    assert [set(x) for x in imputed] == [{"colour", "picture"}] * 4
    known = model.model.encode_each(Batch({"point": point}))["point"]
    assert torch.equal(model.joined["point"].unflatten(0, (3, 4)), known.expand(3, 4, -1))


@every_partwise
@torch.no_grad()
def test_what_is_encoded_one_by_one_and_joined_is_the_imputed_posterior(kind):
    modalities = toy_modalities(3)
    model = toy_model(kind, modalities).eval()
    assert isinstance(model, Partwise)
    assert not isinstance(Whole(model), Partwise)
    x = observations(modalities, 4)
    some = x.select(["picture"])
    rest = x.select(["colour", "point"])
    joined = model.join({**model.encode_each(rest), **model.encode_each(some)})
    whole = model.imputed_posterior(x)
    assert torch.equal(joined.mean, whole.mean)
    assert joined.symbol == whole.symbol
    if kind != "hierarchical":  # which comes down from its top layer instead
        torch.testing.assert_close(whole.mean, model.posterior(x).mean)


@every_partwise
@pytest.mark.parametrize("start", ["zero", "prior"])
@torch.no_grad()
def test_z_is_the_same_whether_what_is_given_is_encoded_once_or_always(kind, start):
    modalities = toy_modalities(3)
    model = toy_model(kind, modalities).double().eval()
    given = observations(modalities, 4).select(["point"])
    given = Batch({"point": given["point"].double()})
    found = []
    for asked in (model, Whole(model)):
        torch.manual_seed(0)
        found.append(torch.stack([*iterate(asked, given, 3, iterations=5, start=start)]))
    torch.testing.assert_close(*found)


def test_missing_values_start_at_zero_and_are_drawn_anew_at_each_iteration():
    model, _, _ = recorded(samples=3, iterations=3)
    pictures = [x["picture"] for x in model.seen]
    assert (pictures[0] == 0).all()
    for before, after in pairwise(pictures):
        assert set(after.unique().tolist()) == {0.0, 1.0}  # a sample, not a mean
        assert not torch.equal(before, after)


def test_missing_values_may_start_at_a_sample_of_the_prior():
    model, _, _ = recorded(samples=50, iterations=1, start="prior")
    (x,) = model.seen
    assert set(x["picture"].unique().tolist()) == {0.0, 1.0}
    # Of so few numbers the rows that agree are encoded once: of three colours three.
    assert (x["colour"].sum(-1) == 1).all()
    assert not torch.equal(x["picture"][0], x["picture"][1])


def test_chains_are_independent():
    _, _, z = recorded(samples=2, iterations=3)
    assert not torch.equal(z[-1][0], z[-1][1])


@pytest.mark.parametrize("temperature", [0, 0.5])
def test_the_temperature_is_that_of_the_last_iteration_alone(temperature):
    model, _, z = recorded(samples=2, iterations=3, temperature=temperature)
    assert model.temperatures == [1, 1, temperature]
    if not temperature:
        assert torch.equal(z[-1].flatten(0, 1), model.model.join(model.joined).mean)


@every_partwise
@torch.no_grad()
def test_rows_that_agree_are_encoded_once(kind):
    modalities = toy_modalities(3)
    model = Recorder(toy_model(kind, modalities).eval())
    x = observations(modalities, 8)
    x = Batch({n: value.repeat(5, *[1] * (value.dim() - 1)) for n, value in x.items()})
    parts = _encoded(model, x)
    (seen,) = model.encoded
    assert len(seen["colour"]) == len(x["colour"].unique(dim=0)) < 40
    for n, expected in model.model.encode_each(x).items():
        torch.testing.assert_close(parts[n], expected)


def test_fifty_iterations_are_run_where_there_is_no_encoder_and_one_pass_where_there_is():
    modalities = toy_modalities(3)
    x = observations(modalities, 4).select(["point"])
    for kind in ("jmvae", "jmvae-kl", "hierarchical"):
        model = Recorder(toy_model(kind, modalities).eval())
        has_encoder = model.posterior(x) is not None
        assert has_encoder == (kind == "jmvae-kl")
        sample_latent(model, x, 1)
        assert len(model.seen) == (0 if has_encoder else ITERATIONS)
        model.seen.clear()
        sample_latent(model, x, 1, iterations=2)
        assert len(model.seen) == 2


@torch.no_grad()
def test_a_hierarchy_descends_from_its_top_layer_through_the_prior():
    modalities = toy_modalities(2)
    model = toy_model("hierarchical", modalities, layers=3).eval()
    x = observations(modalities, 4)
    z = model.posterior(x).layers[2].mean
    for prior in (model.priors[1], model.priors[0]):
        z = prior(z).mean
    found = model.imputed_posterior(x).mean[..., 0, :]
    torch.testing.assert_close(found, z)
    # What the bottom posterior says of x is another matter.
    assert not torch.allclose(found, model.posterior(x).mean[..., 0, :])

    model.posteriors[0].linear.weight.fill_(math.nan)
    assert model.imputed_posterior(x).rsample().isfinite().all()


# On a linear-Gaussian model with the exact posterior, iteration is Gibbs sampling of p(z, x_2|x_1).

SLOPES, NOISE = (1.5, 1.2), (0.5, 0.7)


@pytest.fixture
def exact():
    """x_k = slope_k z + noise, z ~ N(0, 1), and the exact q(z|x_1, x_2)."""
    modalities = {
        f"x{k}": Numbers(size=1, widths=(), deviation=deviation)
        for k, deviation in enumerate(NOISE, start=1)
    }
    model = toy_model("jmvae", modalities, latent=1, fusion=()).eval().double()
    variance = 1 / (1 + sum(a**2 / s**2 for a, s in zip(SLOPES, NOISE, strict=True)))
    with torch.no_grad():
        first = model.encoder.first
        first.bias.copy_(torch.tensor([[0.0, raw(variance)]]))
        for n, slope, deviation in zip(modalities, SLOPES, NOISE, strict=True):
            first.weights[n].copy_(torch.tensor([[[variance * slope / deviation**2, 0.0]]]))
            model.decoders[n].net[0].weight.fill_(slope)
            model.decoders[n].net[0].bias.zero_()
    return model


X1 = 1.3
GIVEN = Batch({"x1": torch.full((1, 1), X1, dtype=torch.float64)})
# p(z|x_1), exactly; then E[x_2|x_1] = slope_2 E[z|x_1].
VARIANCE = 1 / (1 + SLOPES[0] ** 2 / NOISE[0] ** 2)
MEAN = VARIANCE * SLOPES[0] / NOISE[0] ** 2 * X1
CHAINS = 20_000


def chains(model, iterations, start="zero"):
    """Returns z of the last iteration of many chains, given x_1."""
    torch.manual_seed(0)
    return sample_latent(model, GIVEN, CHAINS, iterations=iterations, start=start).flatten()


@pytest.mark.parametrize("start", ["zero", "prior"])
def test_fifty_iterations_draw_from_the_exact_conditional(exact, start):
    z = chains(exact, 50, start)
    standard_error = z.std().item() / math.sqrt(CHAINS)
    assert z.mean().item() == pytest.approx(MEAN, abs=4 * standard_error)
    assert z.var().item() == pytest.approx(VARIANCE, rel=0.05)
    x2 = exact.decode(z.unsqueeze(1), names=["x2"])["x2"].mean.mean().item()
    assert x2 == pytest.approx(SLOPES[1] * MEAN, abs=4 * SLOPES[1] * standard_error)


def test_one_iteration_from_zero_is_pulled_towards_zero(exact):
    z = chains(exact, 1)
    standard_error = z.std().item() / math.sqrt(CHAINS)
    joint = 1 / (1 + sum(a**2 / s**2 for a, s in zip(SLOPES, NOISE, strict=True)))
    assert z.mean().item() == pytest.approx(
        joint * SLOPES[0] / NOISE[0] ** 2 * X1, abs=4 * standard_error
    )
    assert MEAN - z.mean().item() > 50 * standard_error


def test_the_bias_falls_with_every_iteration_by_the_rate_of_the_chain(exact):
    """E[z_t] = MEAN + rate (E[z_{t−1}] − MEAN), where rate is what x̃_2 weighs in q(z|x)."""
    torch.manual_seed(0)
    means = [z.mean().item() for z in iterate(exact, GIVEN, CHAINS, iterations=6)]
    joint = 1 / (1 + sum(a**2 / s**2 for a, s in zip(SLOPES, NOISE, strict=True)))
    rate = joint * SLOPES[1] ** 2 / NOISE[1] ** 2
    bias = (means[0] - MEAN) * rate ** torch.arange(6.0)
    for found, expected in zip(means, (MEAN + bias).tolist(), strict=True):
        assert found == pytest.approx(expected, abs=0.02)
