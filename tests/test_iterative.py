import math
from itertools import pairwise

import pytest
import torch
from toys import Numbers, observations, toy_modalities, toy_model

from mmgen.models.iterative import encoded, iterate
from mmgen.nets.posterior import VARIANCE_FLOOR
from mmgen.inference.iterative import ITERATIONS
from mmgen.inference.sample import sample_latent

KINDS = ("jmvae", "hierarchical")


class Recorder:
    """Stands between ``iterate`` and a model, and keeps what each iteration encodes."""

    def __init__(self, model):
        self.model = model
        self.encoded = []
        self.seen = []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def parts(self, x):
        self.encoded.append(dict(x))
        return self.model.parts(x)

    def revise(self, parts, samples=1, *, temperature=1.0):
        self.seen.append((self.encoded[-1], temperature))
        self.revised = parts
        return self.model.revise(parts, samples, temperature=temperature)


def recorded(kind="jmvae", K=3, **options):
    modalities = toy_modalities(K)
    model = Recorder(toy_model(kind, modalities).eval())
    x = observations(modalities, 4)
    torch.manual_seed(0)
    z = list(iterate(model, {"point": x["point"]}, **options))
    return model, x["point"], z


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_each_iteration_yields_z(kind, iterations):
    model, _, z = recorded(kind, samples=3, iterations=iterations)
    assert [step.shape for step in z] == [(3, 4, 3)] * iterations
    assert len(model.seen) == iterations


@pytest.mark.parametrize("start", ["zero", "prior"])
def test_given_values_are_encoded_once_and_never_changed(start):
    model, point, _ = recorded(samples=3, iterations=4, start=start)
    given, *imputed = model.encoded
    assert set(given) == {"point"}
    assert torch.equal(given["point"], point)
    assert [set(x) for x in imputed] == [{"colour", "picture"}] * 4
    known = model.model.parts({"point": point})["point"]
    assert torch.equal(model.revised["point"].unflatten(0, (3, 4)), known.expand(3, 4, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_are_joined_are_the_joint_posterior(kind):
    modalities = toy_modalities(3)
    model = toy_model(kind, modalities).eval()
    x = observations(modalities, 4)
    some = {"picture": x["picture"]}
    parts = {**model.parts({n: x[n] for n in x if n not in some}), **model.parts(some)}
    whole = model.posterior(x)[-1] if kind == "hierarchical" else model.encoder(x, model.names)
    drawn = model.revise(parts, temperature=0.0)[0]
    if kind == "jmvae":
        assert torch.equal(drawn, whole.mean[0])
    else:
        torch.testing.assert_close(drawn, model.descend(whole.mean, temperature=0.0))


def test_missing_values_start_at_zero_and_are_drawn_anew_at_each_iteration():
    model, _, _ = recorded(samples=3, iterations=3)
    pictures = [x["picture"] for x, _ in model.seen]
    assert (pictures[0] == 0).all()
    for before, after in pairwise(pictures):
        assert set(after.unique().tolist()) == {0.0, 1.0}  # a sample, not a mean
        assert not torch.equal(before, after)


def test_missing_values_may_start_at_a_sample_of_the_prior():
    model, _, _ = recorded(samples=50, iterations=1, start="prior")
    (x, _), *_ = model.seen
    assert set(x["picture"].unique().tolist()) == {0.0, 1.0}
    assert (x["colour"].sum(-1) == 1).all()
    assert not torch.equal(x["picture"][0], x["picture"][1])


def test_chains_are_independent():
    _, _, z = recorded(samples=2, iterations=3)
    assert not torch.equal(z[-1][0], z[-1][1])


def test_the_temperature_is_that_of_the_last_iteration_alone():
    model, _, z = recorded(samples=2, iterations=3, temperature=0.0)
    assert [temperature for _, temperature in model.seen] == [1, 1, 0]
    expected = model.model.revise(model.revised, temperature=0.0)[0]
    assert torch.equal(z[-1].flatten(0, 1), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_agree_are_encoded_once(kind):
    modalities = toy_modalities(3)
    model = Recorder(toy_model(kind, modalities).eval())
    x = {
        n: value.repeat(5, *[1] * (value.dim() - 1))
        for n, value in observations(modalities, 8).items()
    }
    parts = encoded(model, x)
    (seen,) = model.encoded
    assert len(seen["colour"]) == len(x["colour"].unique(dim=0)) < 40
    for n, expected in model.model.parts(x).items():
        torch.testing.assert_close(parts[n], expected)


def test_fifty_iterations_are_run_where_there_is_no_encoder_and_one_pass_where_there_is():
    modalities = toy_modalities(3)
    x = observations(modalities, 4)
    counts = {}
    for kind in ("jmvae", "jmvae-kl", "hierarchical"):
        model = Recorder(toy_model(kind, modalities).eval())
        sample_latent(model, {"point": x["point"]}, 1)
        counts[kind] = len(model.seen)
        sample_latent(model, {"point": x["point"]}, 1, iterations=2)
        assert len(model.seen) == counts[kind] + 2
    assert counts == {"jmvae": ITERATIONS, "jmvae-kl": 0, "hierarchical": ITERATIONS}


def test_a_hierarchy_descends_from_its_top_layer_through_the_prior():
    modalities = toy_modalities(2)
    model = toy_model("hierarchical", modalities, layers=3).eval()
    x = observations(modalities, 4)
    z = model.posterior(x)[2].mean
    for prior in (model.priors[1], model.priors[0]):
        z = prior(z).mean
    found = model.revise(model.parts(x), temperature=0.0)[0]
    torch.testing.assert_close(found, z)
    # What the bottom posterior says of x is another matter.
    assert not torch.allclose(found, model.infer(x, temperature=0.0)[0])

    with torch.no_grad():
        model.posteriors[0].linear.weight.fill_(math.nan)
    assert model.revise(model.parts(x)).isfinite().all()


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
        raw = math.log(math.expm1(variance - VARIANCE_FLOOR))
        first.bias.copy_(torch.tensor([[0.0, raw]]))
        for k, (slope, deviation) in enumerate(zip(SLOPES, NOISE, strict=True)):
            first.weights[k].copy_(torch.tensor([[[variance * slope / deviation**2, 0.0]]]))
            model.decoders[k].net[0].weight.fill_(slope)
            model.decoders[k].net[0].bias.zero_()
    return model


X1 = 1.3
# p(z|x_1), exactly; then E[x_2|x_1] = slope_2 E[z|x_1].
VARIANCE = 1 / (1 + SLOPES[0] ** 2 / NOISE[0] ** 2)
MEAN = VARIANCE * SLOPES[0] / NOISE[0] ** 2 * X1
CHAINS = 20_000


def chains(model, iterations, start="zero"):
    """Returns z of the last iteration of many chains, given x_1."""
    torch.manual_seed(0)
    x = {"x1": torch.full((1, 1), X1, dtype=torch.float64)}
    return sample_latent(model, x, CHAINS, iterations=iterations, start=start).flatten()


@pytest.mark.parametrize("start", ["zero", "prior"])
def test_fifty_iterations_draw_from_the_exact_conditional(exact, start):
    z = chains(exact, 50, start)
    standard_error = z.std().item() / math.sqrt(CHAINS)
    assert z.mean().item() == pytest.approx(MEAN, abs=4 * standard_error)
    assert z.var().item() == pytest.approx(VARIANCE, rel=0.05)
    x2 = exact.decode(z.unsqueeze(1), ["x2"])["x2"].mean.mean().item()
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
    x = {"x1": torch.full((1, 1), X1, dtype=torch.float64)}
    torch.manual_seed(0)
    means = [z.mean().item() for z in iterate(exact, x, CHAINS, iterations=6)]
    joint = 1 / (1 + sum(a**2 / s**2 for a, s in zip(SLOPES, NOISE, strict=True)))
    rate = joint * SLOPES[1] ** 2 / NOISE[1] ** 2
    bias = (means[0] - MEAN) * rate ** torch.arange(6.0)
    for found, expected in zip(means, (MEAN + bias).tolist(), strict=True):
        assert found == pytest.approx(expected, abs=0.02)
