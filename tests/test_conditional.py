"""CVAE and CMMA: their mathematics, their one direction, training and settings."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import MultivariateNormal
from toys import (
    CPU,
    FIVE,
    ONE_WAY,
    Numbers,
    OneDevice,
    Word,
    batches,
    differing,
    experiment,
    observations,
    toy_model,
    training,
)

from mmgen import build
from mmgen.errors import ConfigError, GenerationError
from mmgen.evaluation import latent
from mmgen.models import CMMA, CVAE
from mmgen.nets.posterior import VARIANCE_FLOOR, normal
from mmgen.inference.sample import sample_latent
from mmgen.training import memory, nonfinite, run_folder
from mmgen.training.loop import Epoch, fit

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


def gaussian_of(encoder, x):
    """Mean and variance of a subset encoder's only Gaussian, layer by layer."""
    total = encoder.first.bias[0]
    for net, weight, name in zip(
        encoder.encoders, encoder.first.weights, encoder.names, strict=True
    ):
        total = total + net(x[name])[0] @ weight[0]
    for layer in encoder.rest:
        total = total.relu() @ layer.weight[0] + layer.bias[0]
    mean, raw = total.chunk(2, dim=-1)
    return mean, F.softplus(raw) + VARIANCE_FLOOR


def prior_of(model, x, like):
    if isinstance(model, CVAE):
        return torch.zeros_like(like), torch.ones_like(like)
    return gaussian_of(model.prior_encoder, x)


def read_by_hand(model, z, x):
    if isinstance(model, CMMA):
        return z
    features = [net(x[n]) for n, net in zip(model.given, model.conditions, strict=True)]
    return torch.cat([z, *features], dim=-1)


def log_likelihoods(model, x, read):
    """log p(x_k|·) in nats from the decoders' nets alone, by each family's density."""
    log_p = {}
    for n, decoder in zip(model.targets, model.decoders, strict=True):
        out = decoder.net(read)
        if model.modalities[n].kind == "word":
            log_p[n] = (out.log_softmax(-1) * x[n]).sum(-1)
        elif model.modalities[n].kind == "grid":
            bits = F.binary_cross_entropy_with_logits(out, x[n], reduction="none")
            log_p[n] = -bits.sum((1, 2, 3))
        else:
            variance = model.modalities[n].deviation ** 2
            density = (x[n] - out) ** 2 / variance + math.log(2 * math.pi * variance)
            log_p[n] = -0.5 * density.sum(-1)
    return log_p


def kl(mean, variance, other_mean, other_variance):
    ratio = variance / other_variance
    distance = (mean - other_mean) ** 2 / other_variance
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


@every_direction
@every_kind
def test_the_objective_is_the_equation(kind, direction):
    model = model_of(kind, direction)
    T, C, _ = sides(direction)
    x = observations(model.modalities, 6)
    assert (model.targets, model.given) == (T, C)
    assert model.names == tuple(n for n in DIRECTIONS[direction][0] if n in (*T, *C))

    mean, variance = gaussian_of(model.encoder, x)
    torch.manual_seed(3)
    z = mean + variance.sqrt() * torch.randn_like(mean)
    log_p = log_likelihoods(model, x, read_by_hand(model, z, x))
    divergence = kl(mean, variance, *prior_of(model, x, mean))
    for beta in (0.0, 0.3, 1.0):
        torch.manual_seed(3)
        objective = model.objective(x, beta)
        loss = -(sum(log_p.values()) - beta * divergence).mean()
        torch.testing.assert_close(objective.losses["model"], loss, rtol=1e-4, atol=1e-4)
    terms = {f"reconstruction/{n}": value.mean() for n, value in log_p.items()}
    terms["kl/prior"] = divergence.mean()
    assert list(objective.losses) == ["model"]
    assert objective.terms.keys() == terms.keys()
    for n, value in terms.items():
        torch.testing.assert_close(objective.terms[n], value, rtol=1e-4, atol=1e-4)


@every_kind
def test_the_divergence_is_that_of_samples(kind):
    model = model_of(kind, "one from two")
    x = observations(model.modalities, 3)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.mul_(2)  # a posterior some way from the prior
        closed = model.objective(x, 1.0).terms["kl/prior"]
        log_weight = model.propose(x, model.given, 100_000).log_weight
    error = log_weight.std(0).mean() / math.sqrt(3 * 100_000)
    assert closed > 20 * error
    assert float(-log_weight.mean()) == pytest.approx(float(closed), abs=5 * float(error))


@every_kind
def test_a_modality_left_out_changes_nothing(kind):
    model = model_of(kind, "one left out")
    x = observations(ABC, 4)
    losses = []
    for point in (x["point"], x["point"] + 9, None):
        torch.manual_seed(1)
        losses.append(model.objective({**x, "point": point}, 1.0).losses["model"].item())
    assert losses[0] == losses[1] == losses[2]
    assert "point" not in model.modalities
    assert all("point" not in owners for owners in model.owners().values())


# What depends on what.


def gradient(value, x):
    (found,) = torch.autograd.grad(value.sum(), x, allow_unused=True, retain_graph=True)
    return torch.zeros_like(x) if found is None else found


def test_the_prior_of_a_cvae_is_standard_whatever_is_given():
    model = model_of("cvae", "one from two")
    x = observations(model.modalities, 5)
    p = model.conditional_prior(x, torch.zeros(5, 3))
    assert torch.equal(p.mean, torch.zeros(5, 3))
    assert torch.equal(p.variance, torch.ones(5, 3))
    z = torch.randn(5, 3)
    by_hand = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)
    torch.testing.assert_close(p.log_prob(z), by_hand)


def test_the_prior_of_a_cmma_depends_on_everything_given_and_on_no_target():
    model = model_of("cmma", "one from two")
    x = {n: v.requires_grad_() for n, v in observations(model.modalities, 5).items()}
    p = model.conditional_prior(x, torch.zeros(5, 3))
    for moment in (p.mean, p.variance):
        for n in ("colour", "picture"):
            assert gradient(moment.pow(2), x[n]).abs().sum() > 0
        assert gradient(moment, x["point"]).abs().sum() == 0


@every_kind
def test_decoders_read_what_is_given_beside_z_only_in_a_cvae(kind):
    model = model_of(kind, "two from one")
    x = observations(model.modalities, 5)
    x["point"].requires_grad_()
    z = torch.randn(2, 5, 3)
    read = model.read(z, x)
    assert read.shape == (2, 5, model.latent)
    assert torch.equal(read[..., :3], z)
    for n, p in model.decode(read[1]).items():
        found = gradient(p.log_prob(x[n]), x["point"]) if read.requires_grad else torch.zeros(1)
        assert (found.abs().sum() > 0) == (kind == "cvae"), n
    assert model.latent == (3 + 8 if kind == "cvae" else 3)


@every_direction
@every_kind
def test_every_parameter_gets_a_gradient_and_belongs_to_one_player(kind, direction):
    model = model_of(kind, direction)
    model.objective(observations(model.modalities, 16), 0.5).losses["model"].backward()
    for n, p in model.named_parameters():
        assert p.grad is not None, n
        assert p.grad.isfinite().all(), n
        assert p.grad.abs().sum() > 0, n
    owned = [id(p) for group in model.players().values() for p in group]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())


# Inference.


@every_kind
def test_z_given_c_is_the_priors_and_z_given_all_the_posteriors(kind):
    model = model_of(kind, "one left out").eval()
    x = observations(ABC, 3)
    given = {"colour": x["colour"]}
    with torch.no_grad():
        mean, variance = prior_of(model, x, torch.zeros(3, 3))
        drawn = model.infer(given, 40_000)[..., :3]
        torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.03)
        torch.testing.assert_close(drawn.var(0), variance, rtol=0.05, atol=0)
        at_mean = read_by_hand(model, mean, x)
        torch.testing.assert_close(
            model.infer(given, 2, temperature=0.0), at_mean.expand(2, -1, -1)
        )
        assert torch.equal(sample_latent(model, given, 1, temperature=0.0)[0], at_mean)

        mean, variance = gaussian_of(model.encoder, x)
        pair = {**given, "picture": x["picture"]}
        drawn = model.infer(pair, 40_000)[..., :3]
        torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.03)
        torch.testing.assert_close(drawn.var(0), variance, rtol=0.05, atol=0)
        # What takes no part makes no difference.
        assert torch.equal(model.infer(pair, temperature=0.0), model.infer(x, temperature=0.0))
        torch.testing.assert_close(model.infer(x, temperature=0.0)[0], read_by_hand(model, mean, x))


@every_kind
def test_shapes_and_determinism(kind):
    model = model_of(kind, "two from one").eval()
    x = observations(model.modalities, 4)
    given = {"point": x["point"]}
    z = model.infer(given, 5)
    assert z.shape == (5, 4, model.latent)
    assert not torch.equal(z, model.infer(given, 5))
    proposal = model.propose(x, ["point"], 7)
    assert (proposal.z.shape, proposal.log_weight.shape) == ((7, 4, model.latent), (7, 4))
    p = model.decode(z[0])
    assert list(p) == ["colour", "picture"]
    assert {n: d.batch_shape + d.event_shape for n, d in p.items()} == {
        "colour": (4, 3),
        "picture": (4, 1, 6, 6),
    }
    assert list(model.decode(z[0], ["picture"])) == ["picture"]
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(model.objective(x, 1.0).losses["model"].item())
    assert losses[0] == losses[1] != losses[2]


@every_direction
@every_kind
def test_a_model_can_go_its_direction_and_no_other(kind, direction):
    model = model_of(kind, direction)
    T, C, absent = sides(direction)
    assert model.can(C, T)
    assert model.can(C, T[:1])
    assert model.can((*T, *C), T)  # reconstruction
    assert model.encodes(C)
    assert model.encodes((*C, *T))
    assert not model.can((), T)
    assert not model.can(T, C)
    assert not model.encodes(T)
    for n in absent:
        assert not model.can(C, [n])
        assert not model.can((*C, n), T)
    if len(C) > 1:
        assert not model.can(C[:1], T)
    assert model.direction() == f"{', '.join(T)} from {', '.join(C)}"


@every_kind
def test_what_cannot_be_inferred_is_an_error_that_says_the_direction(kind):
    model = model_of(kind, "one from one")
    x = observations(PAIR, 2)
    for attempt in (
        lambda: model.prior(3, x["point"]),
        lambda: model.parts(x),
        lambda: model.revise(x),
        lambda: sample_latent(model, {"point": x["point"]}, 1),
        lambda: sample_latent(model, {"colour": x["colour"]}, 1, iterations=3),
    ):
        with pytest.raises(GenerationError, match="point from colour"):
            attempt()


# Importance weights, where p(x_T|x_C) is known.


def set_raw(bias, weights, variance):
    """Makes a head's variance a constant."""
    with torch.no_grad():
        half = bias.shape[-1] // 2
        bias[..., half:] = math.log(math.expm1(variance - VARIANCE_FLOOR))
        for w in weights:
            w[..., half:] = 0


@every_kind
@pytest.mark.parametrize("direction", ["one from one", "two from one"])
def test_importance_weights_of_a_broad_posterior_have_the_mean_1(kind, direction):
    model = model_of(kind, direction, fusion=()).eval()
    set_raw(model.encoder.first.bias, model.encoder.first.weights, 3.0)
    x = observations(model.modalities, 4)
    torch.manual_seed(0)
    with torch.no_grad():
        weights = model.propose(x, model.given, 100_000).log_weight.exp().double()
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
        W = torch.cat([d.net[-1].weight for d in model.decoders])
        mean = torch.cat([d.net[-1].bias for d in model.decoders]).expand(len(x["c"]), -1)
        m, v = prior_of(model, x, x["c"].new_zeros(len(x["c"]), size))
        if kind == "cvae":
            mean = mean + x["c"] @ W[:, size:].T
        mean = mean + m @ W[:, :size].T
        spread = W[:, :size] @ torch.diag_embed(v) @ W[:, :size].T
        covariance = spread + NOISE * torch.eye(3, dtype=torch.float64)
        return MultivariateNormal(mean, covariance).log_prob(torch.cat([x["a"], x["b"]], 1))

    return model, exact


def linear_rows(rows=4):
    return {n: v.double() for n, v in observations(LINEAR, rows).items()}


@every_kind
def test_the_importance_sampled_likelihood_is_the_exact_one_of_a_linear_model(kind):
    model, exact = linear(kind)
    set_raw(model.encoder.first.bias, model.encoder.first.weights, 2.0)
    x = linear_rows()
    torch.manual_seed(0)
    with torch.no_grad():
        proposal = model.propose(x, ["c"], 50_000)
        rows = {n: v.repeat(50_000, 1) for n, v in x.items()}
        log_p = model.log_likelihoods(rows, proposal.z.flatten(0, 1))
        ratio = proposal.log_weight + sum(log_p.values()).view(50_000, -1)
        found = ratio.logsumexp(0) - math.log(50_000)
        expected = exact(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
        bound = torch.stack([-model.objective(x, 1.0).losses["model"] for _ in range(200)]).mean()
    assert bound < expected.mean() - 0.01
    assert float(ratio.mean()) == pytest.approx(float(bound), abs=0.3)


@every_kind
def test_the_bound_is_tight_where_the_posterior_is_the_true_one(kind):
    """Then every draw of z alone tells log p(x_T|x_C), to the last digit."""
    model, exact = linear(kind, size=1)
    x = linear_rows()
    W = torch.cat([d.net[-1].weight for d in model.decoders]).detach()
    b = torch.cat([d.net[-1].bias for d in model.decoders]).detach()
    w = W[:, :1]
    first = model.encoder.first
    with torch.no_grad():
        if kind == "cmma":
            head = model.prior_encoder.first
            set_raw(head.bias, head.weights, 0.5)
            prior_weight, prior_bias, prior_variance = (
                head.weights[0][0, :, :1],
                head.bias[0, :1],
                0.5,
            )
        else:
            prior_weight, prior_bias = torch.zeros(2, 1, dtype=torch.float64), torch.zeros(1)
            prior_variance = 1.0
        variance = 1 / (1 / prior_variance + (w.T @ w).item() / NOISE)
        given = prior_weight / prior_variance
        if kind == "cvae":
            given = given - W[:, 1:].T @ w / NOISE
        set_raw(first.bias, first.weights, variance)
        first.bias[0, :1] = variance * (prior_bias / prior_variance - b @ w / NOISE)
        first.weights[0][0, :, :1] = variance * w[:2] / NOISE
        first.weights[1][0, :, :1] = variance * w[2:] / NOISE
        first.weights[2][0, :, :1] = variance * given

        for _ in range(3):
            proposal = model.propose(x, ["c"], 1)
            log_p = sum(model.log_likelihoods(x, proposal.z[0]).values())
            torch.testing.assert_close(proposal.log_weight[0] + log_p, exact(x))


@every_kind
def test_the_importance_sampled_likelihood_is_the_integral_over_a_z_of_one_dimension(kind):
    modalities = {"word": Word(), "point": Numbers(size=2, deviation=0.7), "side": Word()}
    model = toy_model(kind, modalities, targets=("word", "point"), latent=1, fusion=()).eval()
    set_raw(model.encoder.first.bias, model.encoder.first.weights, 2.0)
    x = observations(modalities, 5)
    grid = torch.linspace(-8, 8, 2001).view(-1, 1, 1).expand(-1, 5, 1)

    def joint(read, count):
        rows = {n: v.repeat(count, 1) for n, v in x.items()}
        values = log_likelihoods(model, rows, read.flatten(0, 1)).values()
        return sum(values).view(count, 5)

    torch.manual_seed(0)
    with torch.no_grad():
        mean, variance = prior_of(model, x, torch.zeros(5, 1))
        density = -0.5 * ((grid - mean) ** 2 / variance + (2 * math.pi * variance).log()).sum(-1)
        features = read_by_hand(model, torch.zeros(5, 1), x)[:, 1:]
        read = torch.cat([grid, features.expand(2001, -1, -1)], dim=-1)
        integral = torch.trapezoid((joint(read, 2001) + density).exp(), grid[..., 0], dim=0).log()

        proposal = model.propose(x, ["side"], 40_000)
        found = (proposal.log_weight + joint(proposal.z, 40_000)).logsumexp(0)
    torch.testing.assert_close(found - math.log(40_000), integral, rtol=0, atol=0.03)


# What z holds.


@every_direction
@every_kind
def test_the_latent_space_is_that_of_the_posterior_given_t_and_c(kind, direction):
    model = model_of(kind, direction).eval()
    x = observations(DIRECTIONS[direction][0], 30)
    (means,) = latent.posterior_means(model, x)
    torch.testing.assert_close(means, gaussian_of(model.encoder, x)[0].detach())
    assert means.shape == (30, 3)
    T, _, _ = sides(direction)
    assert list(latent.own_gains(model, x)) == list(latent.given_gains(model, x)) == list(T)
    assert latent.subset_divergences(model, x) == {}
    assert latent.given_gains(model, {n: v[:1] for n, v in x.items()}) == {}


class Channel(nn.Module):
    """N(s z + v c, 1), with z and the first feature of what is given, c."""

    def __init__(self, s, v):
        super().__init__()
        self.s, self.v = s, v

    def forward(self, read):
        mean = self.s * read[:, :1] + self.v * read[:, 1:2]
        return normal(mean, torch.ones_like(mean))


@pytest.mark.parametrize(("s", "v"), [(0.0, 2.0), (1.5, 0.0), (1.5, 2.0), (0.0, 0.0)])
def test_what_z_knows_is_told_apart_from_what_is_given(s, v):
    modalities = {"a": Numbers(size=1, widths=()), "b": Numbers(size=2, widths=())}
    model = toy_model("cvae", modalities, targets=("a",), latent=1).eval()
    model.decoders = nn.ModuleList([Channel(s, v)])
    # The second number of b is z itself, which the posterior reads exactly.
    model.posterior = lambda x: normal(x["b"][:, 1:], torch.full_like(x["b"][:, 1:], 1e-6))
    torch.manual_seed(0)
    b, noise = torch.randn(4000, 2), torch.randn(4000, 1)
    x = {"a": s * b[:, 1:] + v * b[:, :1] + noise, "b": b}
    # Half the mean squared distance of two rows' means: s² of z, v² of what is given.
    assert latent.own_gains(model, x)["a"] == pytest.approx(s**2, rel=0.1, abs=1e-6)
    assert latent.given_gains(model, x)["a"] == pytest.approx(v**2, rel=0.1, abs=1e-6)


def test_models_of_all_directions_are_given_nothing_in_particular():
    assert latent.given_gains(toy_model("jmvae", PAIR), observations(PAIR, 4)) == {}


# Training: weights kept, resumed, and on one device.


@every_kind
def test_saved_weights_give_the_same_model(kind, tmp_path):
    state = training_of(kind, "one from two")
    run_folder.save_weights(tmp_path, state, 1)
    other = training_of(kind, "one from two", seed=1).model
    x = observations(ABC, 4)
    assert differing(state.model.state_dict(), other.state_dict()) == [*other.state_dict()]
    run_folder.load_weights(tmp_path, other, "best")
    assert differing(state.model.state_dict(), other.state_dict()) == []
    for known in (x, {n: x[n] for n in ("colour", "picture")}):
        assert torch.equal(
            other.infer(known, temperature=0.0), state.model.infer(known, temperature=0.0)
        )


def everything(state):
    moments = state.optimisers["model"].state_dict()["state"]
    tensors = {f"{i}/{n}": t for i, values in moments.items() for n, t in values.items()}
    return {**state.model.state_dict(), **tensors}


@every_kind
@pytest.mark.parametrize("stop", [1, 3, 5], ids=["step 1", "epoch 1", "step 5"])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(kind, stop, tmp_path):
    def data(seed=0):
        return batches(ABC, 20, seed=seed)

    whole = training_of(kind, "one left out", epochs=3)
    epochs = [e for e in fit(whole, data(), data(1)) if isinstance(e, Epoch)]

    state = training_of(kind, "one left out", epochs=3)
    items = fit(state, data(), data(1))
    seen = [next(items) for _ in range(stop)]
    run_folder.save_checkpoint(tmp_path, state)
    items.close()
    torch.manual_seed(99)
    again = training_of(kind, "one left out", epochs=3, seed=0)
    run_folder.resume(tmp_path, again)
    seen += fit(again, data(), data(1))
    assert differing(everything(whole), everything(again)) == []
    losses = [e.validation["loss"] for e in seen if isinstance(e, Epoch)]
    assert losses == [e.validation["loss"] for e in epochs]
    assert len(set(losses)) == 3


@every_direction
@every_kind
def test_a_step_and_generation_make_no_tensor_on_another_device(kind, direction):
    meta = torch.device("meta")
    state = training_of(kind, direction, meta)
    x = {n: torch.empty(4, *m.shape, device=meta) for n, m in DIRECTIONS[direction][0].items()}
    given = {n: x[n] for n in state.model.given}
    with OneDevice(meta):
        for _ in range(2):  # the second reads the optimiser's state of the first
            terms = state.step(x, 0.5)
        state.model.eval()
        z = sample_latent(state.model, given, 2)
        samples = [p.sample() for p in state.model.decode(z.flatten(0, 1)).values()]
        weights = state.model.propose(x, given, 2).log_weight
    assert {t.device for t in [*terms.values(), *samples, weights]} == {meta}


@every_kind
def test_half_precision_inside_nets_leaves_the_objective_in_full(kind):
    modalities = {**ABC}
    state = training_of(kind, "one from two", precision="bfloat16")
    terms = state.step(observations(modalities, 8), 1.0)
    assert all(t.dtype == torch.float32 and t.isfinite() for t in terms.values())


@every_kind
def test_training_learns_what_is_generated_from_what(kind):
    """Two words that share a class: after training one is generated from the other."""
    modalities = {"a": Word(), "b": Word(), "point": Numbers()}
    state = training(
        kind, modalities, {"targets": ("b",), "given": ("a",)}, epochs=15, learning_rate=0.02
    )
    list(fit(state, batches(modalities, 200, batch_size=20)))
    x = observations(modalities, 60, seed=5)
    z = sample_latent(state.model.eval(), {"a": x["a"]}, 1, temperature=0.0)[0]
    p = state.model.decode(z)["b"].mean
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
        build.model(experiment(kind, ABC, {"targets": targets, "given": given}), ABC, CPU)


@every_kind
def test_a_direction_must_be_named_and_is_no_setting_of_other_models(kind):
    with pytest.raises(ConfigError, match="targets"):
        experiment(kind, ABC)
    with pytest.raises(ConfigError, match="targets"):
        experiment("jmvae", ABC, {"targets": ["colour"]})
    with pytest.raises(ConfigError, match="alpha"):
        experiment(kind, ABC, {"targets": ["colour"], "alpha": 1.0})


@every_direction
@every_kind
def test_each_net_is_listed_under_its_modality(kind, direction):
    model = model_of(kind, direction)
    T, C, _ = sides(direction)
    own = "conditions" if kind == "cvae" else "prior_encoder.encoders"
    both = {"decoders": T, "encoder.encoders": model.names, own: C}
    assert model.owners() == both
    names = [net.name for net in memory.nets(model)]
    for path, owners in both.items():
        assert [n for n in names if n.startswith(path)] == [f"{path}.{owner}" for owner in owners]
    assert sum(net.parameters for net in memory.nets(model)) == sum(
        p.numel() for p in model.parameters()
    )
    nets = model.encoder_nets()
    assert sum(copies for copies, _ in nets) == len(T) + 2 * len(C)
    assert len({id(net) for _, net in nets}) == len(nets)


@pytest.mark.parametrize(
    ("kind", "part", "name"),
    [
        ("cvae", "conditions.1", "conditions.picture"),
        ("cmma", "prior_encoder.encoders.1", "prior_encoder.encoders.picture"),
        ("cmma", "encoder.encoders.1", "encoder.encoders.point"),
        ("cvae", "decoders.0", "decoders.point"),
    ],
)
def test_a_net_that_breaks_is_named_by_its_modality(kind, part, name):
    state = training_of(kind, "one from two")
    with torch.no_grad():
        for p in state.model.get_submodule(part).parameters():
            p.fill_(math.nan)
    found = nonfinite.locate(state, batches(ABC, 16))
    assert found is not None
    assert found.what.startswith(f"the output of the net {name}")
    assert found.modality == name.rpartition(".")[2]
