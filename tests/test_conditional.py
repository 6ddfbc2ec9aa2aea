"""CVAE and CMMA: their mathematics, their one direction, training and settings."""

import math

import pytest
import torch
from by_hand import gaussian_of, kl, log_likelihoods, raw
from torch import nn
from torch.distributions import MultivariateNormal
from toys import (
    CPU,
    FIVE,
    ONE_WAY,
    REGISTRY,
    Numbers,
    Word,
    batches,
    experiment,
    observations,
    toy_model,
    training,
)

from mmgen import build
from mmgen.batch import Batch
from mmgen.errors import ConfigError, GenerationError
from mmgen.evaluation import latent
from mmgen.inference.divergence import subset_divergences
from mmgen.inference.importance import importance_sample
from mmgen.inference.sample import sample_latent
from mmgen.latent.gaussian import DiagonalGaussian
from mmgen.model import log_likelihoods as decoded_likelihoods
from mmgen.nets.by_modality import ByModality
from mmgen.objective import MODEL
from mmgen.training import memory, nonfinite
from mmgen.training.loop import fit

ABC = {n: FIVE[n] for n in ("colour", "point", "picture")}
PAIR = {n: FIVE[n] for n in ("colour", "point")}

DIRECTIONS = {  # modalities, targets, given as it is written, C
    "one from one": (PAIR, ("point",), ("colour",), ("colour",)),
    "the others if none is named": (PAIR, ("colour",), (), ("point",)),
    "one left out": (ABC, ("picture",), ("colour",), ("colour",)),
    "two from one": (ABC, ("picture", "colour"), (), ("point",)),
    "one from two": (ABC, ("point",), ("picture", "colour"), ("colour", "picture")),
}

every_kind = pytest.mark.parametrize("kind", ONE_WAY)
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)


def model_of(kind, direction, **settings):
    modalities, targets, given, _ = DIRECTIONS[direction]
    return toy_model(kind, modalities, targets=targets, given=given, **settings)


def training_of(kind, direction, device=CPU, **train):
    modalities, targets, given, _ = DIRECTIONS[direction]
    return training(kind, modalities, {"targets": targets, "given": given}, device, **train)


def sides(direction):
    """Returns T and C in the order of the experiment, and what is left out."""
    modalities, targets, _, C = DIRECTIONS[direction]
    T = tuple(n for n in modalities if n in targets)
    return T, C, [n for n in modalities if n not in (*T, *C)]


# The objective, from the weights of the nets.


def posterior_of(model, x):
    return gaussian_of(model.encoder, x, model.names)


def prior_of(model, x):
    """Mean and variance of p(z | x_C), ``(B, Z)``."""
    if model.kind == "cmma":
        return gaussian_of(model.prior_encoder, x, model.directions.given)
    rows = torch.zeros_like(posterior_of(model, x)[0])
    return rows, torch.ones_like(rows)


def read_by_hand(model, z, x):
    """What decoders read: z of a CMMA, the features of what is given beside it of a CVAE."""
    if model.kind == "cmma":
        return z
    return torch.cat([z, *(net(x[n]) for n, net in model.conditions.items())], dim=-1)


@every_direction
@every_kind
def test_the_objective_is_the_equation(kind, direction):
    model = model_of(kind, direction)
    T, _, _ = sides(direction)
    x = observations(model.modalities, 6)
    mean, variance = posterior_of(model, x)
    torch.manual_seed(3)
    z = mean + variance.sqrt() * torch.randn_like(mean)
    log_p = log_likelihoods(model, x, read_by_hand(model, z, x))
    divergence = kl(mean, variance, *prior_of(model, x))
    torch.manual_seed(3)
    objective = model.objective(x)
    for beta in (0.0, 0.3, 1.0):
        loss = -(sum(log_p.values()) - beta * divergence).mean()
        found = objective.losses(beta=beta)[MODEL]
        torch.testing.assert_close(found, loss, rtol=1e-4, atol=1e-4)
    expected = {f"reconstruction/{n}": log_p[n] for n in T} | {"kl/prior": divergence}
    assert [term.name for term in objective] == list(expected)
    for term in objective:
        torch.testing.assert_close(term.value, expected[term.name], rtol=1e-4, atol=1e-4)


@every_kind
def test_the_divergence_is_that_of_samples(kind):
    model = model_of(kind, "one from two")
    x = observations(model.modalities, 3)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.mul_(2)  # a posterior some way from the prior
        closed = model.objective(x).means()["kl/prior"]
        log_weight = importance_sample(model, x, model.directions.given, 100_000).log_weight
    error = log_weight.std(0).mean() / math.sqrt(3 * 100_000)
    assert closed > 20 * error
    assert float(-log_weight.mean()) == pytest.approx(float(closed), abs=5 * float(error))


@every_kind
def test_a_modality_left_out_changes_nothing(kind):
    model = model_of(kind, "one left out")
    x = observations(ABC, 4)
    losses = []
    without = x.select(model.names)
    for batch in (x, Batch({**x, "point": x["point"] + 9}), without):
        torch.manual_seed(1)
        losses.append(model.objective(batch).losses()[MODEL].item())
    assert losses[0] == losses[1] == losses[2]
    assert list(without) == ["colour", "picture"]
    assert "point" not in model.modalities
    assert not [n for n in model.state_dict() if "point" in n]


# What depends on what.


def gradient(value, x):
    (found,) = torch.autograd.grad(value.sum(), x, allow_unused=True, retain_graph=True)
    return torch.zeros_like(x) if found is None else found


def test_the_prior_of_a_cvae_is_standard_whatever_is_given():
    model = model_of("cvae", "one from two")
    x = observations(model.modalities, 5)
    p = model.prior(x.select(model.directions.given))
    assert torch.equal(p.mean, torch.zeros(3))
    assert torch.equal(p.variance, torch.ones(3))
    z = torch.randn(5, 3)
    by_hand = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)
    torch.testing.assert_close(p.log_prob(z), by_hand)


def test_the_prior_of_a_cmma_depends_on_everything_given_and_on_no_target():
    model = model_of("cmma", "one from two")
    x = Batch({n: v.requires_grad_() for n, v in observations(model.modalities, 5).items()})
    p = model.prior(x)
    assert p.symbol == "p(z | colour, picture)"
    for moment in (p.mean, p.variance):
        for n in ("colour", "picture"):
            assert gradient(moment.pow(2), x[n]).abs().sum() > 0
        assert gradient(moment, x["point"]).abs().sum() == 0


@every_kind
def test_decoders_read_what_is_given_beside_z_only_in_a_cvae(kind):
    model = model_of(kind, "two from one")
    x = observations(model.modalities, 5)
    x["point"].requires_grad_()
    z = torch.randn(2, 5, 3, requires_grad=True)
    read = model.decoder_input(z, x)
    torch.testing.assert_close(read[1], read_by_hand(model, z[1], x))
    assert model.decoder_given == (("point",) if kind == "cvae" else ())
    for n, p in model.decode(z, x).items():
        assert gradient(p.log_prob(x[n]), z).abs().sum() > 0
        found = gradient(p.log_prob(x[n]), x["point"])
        assert (found.abs().sum() > 0) == (kind == "cvae"), n
        # Each row reads its own condition, whatever z it is read beside.
        first = gradient(p.log_prob(x[n])[:, 0], x["point"])
        assert not first[1:].any()


# Inference.


@every_kind
@torch.no_grad()
def test_z_given_c_is_the_priors_and_z_given_all_the_posteriors(kind):
    model = model_of(kind, "one left out").eval()
    x = observations(ABC, 3)
    for given, (mean, variance) in (
        (x.select(["colour"]), prior_of(model, x)),
        (x.select(["colour", "picture"]), posterior_of(model, x)),
    ):
        drawn = sample_latent(model, given, 40_000)
        assert drawn.shape == (40_000, 3, 3)
        torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.03)
        torch.testing.assert_close(drawn.var(0), variance, rtol=0.05, atol=0)
        at_mean = sample_latent(model, given, 2, temperature=0)
        torch.testing.assert_close(at_mean, mean.expand(2, -1, -1))
        found = decoded_likelihoods(model, x, at_mean[0])
        expected = log_likelihoods(model, x, read_by_hand(model, mean, x))
        torch.testing.assert_close(found, expected)


@every_kind
def test_what_cannot_be_inferred_is_an_error_that_says_the_direction(kind):
    model = model_of(kind, "one from one")
    x = observations(PAIR, 2)
    for given, iterations in ((), None), (("point",), None), (("colour",), 3):
        with pytest.raises(GenerationError, match="point from colour"):
            sample_latent(model, x.select(given), 1, iterations=iterations)


# Importance weights, where p(x_T|x_C) is known.


def set_variance(encoder, variance):
    """Makes the variance of an encoder's Gaussians a constant."""
    with torch.no_grad():
        half = encoder.first.bias.shape[-1] // 2
        encoder.first.bias[..., half:] = raw(variance)
        for n in encoder.names:
            encoder.first.weights[n][..., half:] = 0


@every_kind
@pytest.mark.parametrize("direction", ["one from one", "two from one"])
def test_importance_weights_of_a_broad_posterior_have_the_mean_1(kind, direction):
    model = model_of(kind, direction, fusion=()).eval()
    set_variance(model.encoder, 3.0)
    x = observations(model.modalities, 4)
    torch.manual_seed(0)
    with torch.no_grad():
        weights = importance_sample(model, x, model.directions.given, 100_000)
        weights = weights.log_weight.exp().double()
    error = weights.std(0) / math.sqrt(len(weights))
    assert error.max() < 0.02
    assert ((weights.mean(0) - 1).abs() < 5 * error).all()


LINEAR = {
    "a": Numbers(size=2, widths=(), deviation=0.8),
    "b": Numbers(size=1, widths=(), deviation=0.8),
    "c": Numbers(size=2, widths=(), deviation=0.8),
}
NOISE = 0.8**2


def linear(kind, size=2):
    """A model whose decoders are linear, and log p(x_T|x_C) of rows, exactly."""
    model = toy_model(kind, LINEAR, targets=("a", "b"), fusion=(), latent=size).eval()
    model.double()

    def exact(x):
        W, b = weights_of(model)
        mean = b.expand(x.rows, -1)
        m, v = prior_of(model, x)
        if kind == "cvae":
            mean = mean + x["c"] @ W[:, size:].T
        mean = mean + m @ W[:, :size].T
        spread = W[:, :size] @ torch.diag_embed(v) @ W[:, :size].T
        covariance = spread + NOISE * torch.eye(3, dtype=torch.float64)
        return MultivariateNormal(mean, covariance).log_prob(torch.cat([x["a"], x["b"]], 1))

    return model, exact


def weights_of(model):
    """The weights and biases of linear decoders, those of all targets together."""
    layers = [model.decoders[n].net[-1] for n in model.targets]
    return torch.cat([layer.weight for layer in layers]), torch.cat(
        [layer.bias for layer in layers]
    )


def linear_rows(rows=4):
    return Batch({n: v.double() for n, v in observations(LINEAR, rows).items()})


@every_kind
def test_the_importance_sampled_likelihood_is_the_exact_one_of_a_linear_model(kind):
    model, exact = linear(kind)
    set_variance(model.encoder, 2.0)
    x = linear_rows()
    torch.manual_seed(0)
    with torch.no_grad():
        proposal = importance_sample(model, x, ["c"], 50_000)
        ratio = proposal.log_weight + sum(decoded_likelihoods(model, x, proposal.z).values())
        found = ratio.logsumexp(0) - math.log(50_000)
        expected = exact(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
        bound = torch.stack([-model.objective(x).bound() for _ in range(200)]).mean()
    assert bound < expected.mean() - 0.01
    assert float(ratio.mean()) == pytest.approx(float(bound), abs=0.3)


@every_kind
def test_the_bound_is_tight_where_the_posterior_is_the_true_one(kind):
    """Then every draw of z alone tells log p(x_T|x_C), to the last digit."""
    model, exact = linear(kind, size=1)
    x = linear_rows()
    W, b = (value.detach() for value in weights_of(model))
    w = W[:, :1]
    first = model.encoder.first
    with torch.no_grad():
        if kind == "cmma":
            set_variance(model.prior_encoder, 0.5)
            head, prior_variance = model.prior_encoder.first, 0.5
            prior_weight, prior_bias = head.weights["c"][0, :, :1], head.bias[0, :1]
        else:
            prior_weight, prior_bias = torch.zeros(2, 1, dtype=torch.float64), torch.zeros(1)
            prior_variance = 1.0
        variance = 1 / (1 / prior_variance + (w.T @ w).item() / NOISE)
        given = prior_weight / prior_variance
        if kind == "cvae":
            given = given - W[:, 1:].T @ w / NOISE
        set_variance(model.encoder, variance)
        first.bias[0, :1] = variance * (prior_bias / prior_variance - b @ w / NOISE)
        first.weights["a"][0, :, :1] = variance * w[:2] / NOISE
        first.weights["b"][0, :, :1] = variance * w[2:] / NOISE
        first.weights["c"][0, :, :1] = variance * given

        for _ in range(3):
            proposal = importance_sample(model, x, ["c"], 1)
            log_p = sum(decoded_likelihoods(model, x, proposal.z[0]).values())
            torch.testing.assert_close(proposal.log_weight[0] + log_p, exact(x))


@every_kind
def test_the_importance_sampled_likelihood_is_the_integral_over_a_z_of_one_dimension(kind):
    modalities = {"word": Word(), "point": Numbers(size=2, deviation=0.7), "side": Word()}
    model = toy_model(kind, modalities, targets=("word", "point"), latent=1, fusion=()).eval()
    set_variance(model.encoder, 2.0)
    x = observations(modalities, 5)
    grid = torch.linspace(-8, 8, 2001).view(-1, 1, 1).expand(-1, 5, 1)

    def joint(z):
        """log p(x_T | z, x_C) by hand of z ``(count, 5, 1)``."""
        rows = {n: v.repeat(len(z), 1) for n, v in x.items()}
        read = read_by_hand(model, z.flatten(0, 1), rows)
        return sum(log_likelihoods(model, rows, read).values()).view(len(z), 5)

    torch.manual_seed(0)
    with torch.no_grad():
        mean, variance = prior_of(model, x)
        density = -0.5 * ((grid - mean) ** 2 / variance + (2 * math.pi * variance).log()).sum(-1)
        integral = torch.trapezoid((joint(grid) + density).exp(), grid[..., 0], dim=0).log()

        proposal = importance_sample(model, x, ["side"], 40_000)
        found = (proposal.log_weight + joint(proposal.z)).logsumexp(0)
    torch.testing.assert_close(found - math.log(40_000), integral, rtol=0, atol=0.03)


# What z holds.


@every_direction
@every_kind
def test_the_latent_space_is_that_of_the_posterior_given_t_and_c(kind, direction):
    model = model_of(kind, direction).eval()
    x = observations(DIRECTIONS[direction][0], 30)
    (means,) = latent.posterior_means(model, x)
    torch.testing.assert_close(means, posterior_of(model, x)[0].detach())
    assert means.shape == (30, 3)
    T, _, _ = sides(direction)
    assert list(latent.own_gains(model, x)) == list(latent.given_gains(model, x)) == list(T)
    assert subset_divergences(model, x, 10) == {}
    assert latent.given_gains(model, x.slice(0, 1)) == {}


class Channel(nn.Module):
    """N(s z + v c, 1), with z and the first feature of what is given, c."""

    def __init__(self, s, v):
        super().__init__()
        self.s, self.v = s, v

    def forward(self, read):
        mean = self.s * read[:, :1] + self.v * read[:, 1:2]
        return DiagonalGaussian(mean, torch.ones_like(mean))


@pytest.mark.parametrize(("s", "v"), [(0.0, 2.0), (1.5, 0.0), (1.5, 2.0), (0.0, 0.0)])
def test_what_z_knows_is_told_apart_from_what_is_given(s, v):
    modalities = {"a": Numbers(size=1, widths=()), "b": Numbers(size=2, widths=())}
    model = toy_model("cvae", modalities, targets=("a",), latent=1).eval()
    model.decoders = ByModality({"a": Channel(s, v)})

    # The second number of b is z itself, which the posterior reads exactly.
    def posterior(x):
        z = x["b"][:, 1:]
        return DiagonalGaussian(z, torch.full_like(z, 1e-6))

    model.posterior = posterior
    torch.manual_seed(0)
    b, noise = torch.randn(4000, 2), torch.randn(4000, 1)
    x = Batch({"a": s * b[:, 1:] + v * b[:, :1] + noise, "b": b})
    # Half the mean squared distance of two rows' means: s² of z, v² of what is given.
    assert latent.own_gains(model, x)["a"] == pytest.approx(s**2, rel=0.1, abs=1e-6)
    assert latent.given_gains(model, x)["a"] == pytest.approx(v**2, rel=0.1, abs=1e-6)


def test_models_of_all_directions_are_given_nothing_in_particular():
    assert latent.given_gains(toy_model("jmvae", PAIR), observations(PAIR, 4)) == {}


@every_kind
def test_training_learns_what_is_generated_from_what(kind):
    """Two words that share a class: after training one is generated from the other."""
    modalities = {"a": Word(), "b": Word(), "point": Numbers()}
    state = training(
        kind, modalities, {"targets": ("b",), "given": ("a",)}, epochs=15, learning_rate=0.02
    )
    list(fit(state, batches(modalities, 200, batch_size=20)))
    x = observations(modalities, 60, seed=5)
    given = x.select(["a"])
    z = sample_latent(state.model.eval(), given, 1, temperature=0)[0]
    p = state.model.decode(z, given)["b"].mean
    assert (p.argmax(1) == x["b"].argmax(1)).float().mean() > 0.95


# Settings, and names for people.


@every_kind
@pytest.mark.parametrize(
    ("targets", "given", "message"),
    [
        (["colur"], [], "model.targets: no modality 'colur'.*did you mean 'colour'"),
        (["colour"], ["piont"], "model.given: no modality 'piont'.*did you mean 'point'"),
        (["colour"], ["point", "colour"], "colour is both given and a target"),
        (["colour", "point", "picture"], [], "all modalities; leave one out"),
        ([], ["colour"], "model.*targets"),
    ],
)
def test_a_direction_that_cannot_be_is_one_clear_error(kind, targets, given, message):
    with pytest.raises(ConfigError, match=message):
        toy_model(kind, ABC, targets=targets, given=given)


@every_kind
def test_a_direction_must_be_named(kind):
    resolved = experiment(kind, ABC)
    resolved.model.model_extra.pop("targets")
    with pytest.raises(ConfigError, match=r"model\.targets: missing"):
        build.model(resolved, ABC, CPU, REGISTRY)


@every_direction
@every_kind
def test_each_net_is_listed_under_its_modality(kind, direction):
    model = model_of(kind, direction)
    T, C, _ = sides(direction)
    own = "conditions" if kind == "cvae" else "prior_encoder.encoders"
    both = {"decoders": T, "encoder.encoders": model.names, own: C}
    names = [net.name for net in memory.nets(model)]
    for path, owners in both.items():
        assert [n for n in names if n.startswith(path)] == [f"{path}.{owner}" for owner in owners]
    assert sum(net.parameters for net in memory.nets(model)) == sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("cvae", "conditions.picture"),
        ("cmma", "prior_encoder.encoders.picture"),
        ("cmma", "encoder.encoders.point"),
        ("cvae", "decoders.point"),
    ],
)
def test_a_net_that_breaks_is_named_by_its_modality(kind, name):
    state = training_of(kind, "one from two")
    with torch.no_grad():
        for p in state.model.get_submodule(name).parameters():
            p.fill_(math.nan)
    found = nonfinite.locate(state, batches(ABC, 16))
    assert found is not None
    assert found.what.startswith(f"the output of the net {name}")
    assert found.modality == name.rpartition(".")[2]
