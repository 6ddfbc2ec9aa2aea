import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from toys import (
    KINDS,
    Numbers,
    OneDevice,
    Word,
    batches,
    differing,
    gradients,
    observations,
    toy_modalities,
    toy_model,
    training,
)

from mmgen import build
from mmgen.errors import ConfigError, DataError, PluginError
from mmgen.experiment import Experiment
from mmgen.models import MODELS, Model
from mmgen.nets.blocks import Likelihood, mlp
from mmgen.nets.posterior import VARIANCE_FLOOR, GaussianHead
from mmgen.inference.sample import sample_latent
from mmgen.subsets import name, proper

EVERY = [(kind, K) for kind in KINDS for K in (2, 3)]
every_model = pytest.mark.parametrize(("kind", "K"), EVERY)


def kl(mean, variance, other_mean, other_variance):
    """KL(N(mean, variance) ‖ N(other_mean, other_variance)) of diagonal Gaussians, written out."""
    ratio = variance / other_variance
    distance = (mean - other_mean) ** 2 / other_variance
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


def test_the_table_of_models_is_what_a_configuration_may_name():
    tags = Experiment.model_json_schema()["properties"]["model"]["discriminator"]["mapping"]
    assert set(MODELS) == set(tags) == {*KINDS, "cvae", "cmma"}


@every_model
def test_shapes(kind, K):
    modalities = toy_modalities(K)
    model = toy_model(kind, modalities)
    x = observations(modalities, 4)
    z = model.infer(x, 5)
    assert z.shape == (5, 4, 3)
    assert model.infer(x, 5, temperature=0.0).shape == (5, 4, 3)
    assert model.revise(model.parts(x), 2).shape == (2, 4, 3)
    assert model.prior(6, z).shape == (6, 3)
    assert model.encodes(x)
    p = model.decode(z[0])
    assert list(p) == list(modalities)
    for n, distribution in p.items():
        assert isinstance(distribution, Distribution)
        assert distribution.batch_shape == (4,)
        assert distribution.event_shape == modalities[n].shape
    assert {n: t.shape for n, t in model.log_likelihoods(x, z[0]).items()} == dict.fromkeys(
        modalities, (4,)
    )
    objective = model.objective(x, 0.5)
    for scalar in (*objective.losses.values(), *objective.terms.values()):
        assert scalar.shape == ()
    assert list(objective.losses) == list(model.players())


@every_model
def test_the_terms_are_named_after_modalities_and_subsets(kind, K):
    modalities = toy_modalities(K)
    model = toy_model(kind, modalities)
    found = set(model.objective(observations(modalities, 4), 1.0).terms)
    expected = {f"reconstruction/{n}" for n in modalities}
    if kind == "hierarchical":
        expected |= {"kl/z1", "kl/z2"}
    else:
        expected |= {"kl/prior"}
    if kind == "jmvae-kl":
        expected |= {f"kl/{name(s)}" for s in proper(tuple(modalities))}
    assert found == expected


@every_model
def test_every_parameter_gets_a_gradient_and_belongs_to_one_player(kind, K):
    modalities = toy_modalities(K)
    model = toy_model(kind, modalities)
    model.objective(observations(modalities, 16), 0.5).losses["model"].backward()
    for n, p in model.named_parameters():
        assert p.grad is not None, n
        assert p.grad.isfinite().all(), n
        assert p.grad.abs().sum() > 0, n
    owned = [id(p) for group in model.players().values() for p in group]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())


@every_model
def test_the_same_seed_gives_the_same_loss_and_another_seed_another(kind, K):
    modalities = toy_modalities(K)
    model = toy_model(kind, modalities).eval()
    x = observations(modalities, 4)

    def loss(seed):
        torch.manual_seed(seed)
        return model.objective(x, 1.0).losses["model"].item()

    assert loss(0) == loss(0) != loss(1)
    assert torch.equal(model.infer(x, temperature=0.0), model.infer(x, temperature=0.0))
    assert not torch.equal(model.infer(x), model.infer(x))


@every_model
def test_saved_weights_give_the_same_model(kind, K):
    modalities = toy_modalities(K)
    model, other = toy_model(kind, modalities), toy_model(kind, modalities)
    with torch.no_grad():
        for p in other.parameters():
            p.normal_()
    x = observations(modalities, 4)
    assert not torch.equal(model.infer(x, temperature=0.0), other.infer(x, temperature=0.0))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.infer(x, temperature=0.0), other.infer(x, temperature=0.0))


@every_model
def test_the_seed_decides_the_first_weights(kind, K):
    modalities = toy_modalities(K)
    first = toy_model(kind, modalities).state_dict()
    assert differing(first, toy_model(kind, modalities).state_dict()) == []
    other = training(kind, modalities, seed=1).model.state_dict()
    assert differing(first, other) == list(first)


@every_model
def test_warmup_weighs_the_kl_to_the_prior_alone(kind, K):
    modalities = toy_modalities(K)
    model = toy_model(kind, modalities)
    x = observations(modalities, 4)

    def objective(beta):
        torch.manual_seed(0)
        return model.objective(x, beta)

    terms = objective(1.0).terms
    weighed = ("kl/z1", "kl/z2") if kind == "hierarchical" else ("kl/prior",)
    prior_kl = sum(terms[n] for n in weighed)
    at = {beta: objective(beta).losses["model"] for beta in (0.0, 0.25, 1.0)}
    torch.testing.assert_close(at[1.0] - at[0.0], prior_kl)
    torch.testing.assert_close(at[0.25] - at[0.0], 0.25 * prior_kl)
    torch.testing.assert_close(objective(torch.tensor(0.25)).losses["model"], at[0.25])


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize(("kind", "alpha"), [("jmvae", 0.0), ("jmvae-kl", 1.0), ("jmvae-kl", 0.3)])
def test_jmvaes_objective_is_equation_5_and_10(kind, alpha, K):
    modalities = toy_modalities(K)
    model = toy_model(kind, modalities, **({"alpha": alpha} if kind == "jmvae-kl" else {}))
    x = observations(modalities, 6)
    beta = 0.7

    # Each posterior on its own, by the path that generation takes.
    def posterior(subset):
        q = model.encoder({n: x[n] for n in subset}, subset)
        return q.mean[0], q.variance[0]

    mean, variance = posterior(tuple(modalities))
    torch.manual_seed(3)
    z = mean + variance.sqrt() * torch.randn_like(mean)
    log_p = log_likelihoods(model, x, z)
    prior_kl = kl(mean, variance, torch.zeros(()), torch.ones(()))
    subset_kl = {s: kl(mean, variance, *posterior(s)) for s in model.subsets}
    bound = sum(log_p.values()) - beta * prior_kl - alpha * sum(subset_kl.values())

    torch.manual_seed(3)
    objective = model.objective(x, beta)
    close = torch.testing.assert_close
    close(objective.losses["model"], -bound.mean(), rtol=1e-4, atol=1e-4)
    close(objective.terms["kl/prior"], prior_kl.mean(), rtol=1e-4, atol=1e-4)
    assert len(subset_kl) == (2**K - 2 if kind == "jmvae-kl" else 0)
    for subset, value in subset_kl.items():
        close(objective.terms[f"kl/{name(subset)}"], value.mean(), rtol=1e-4, atol=1e-4)
    for n, value in log_p.items():
        close(objective.terms[f"reconstruction/{n}"], value.mean(), rtol=1e-4, atol=1e-4)


def log_likelihoods(model, x, z):
    """log p(x_k|z) in nats from the decoders' nets alone, by each family's density."""
    log_p = {}
    for n, decoder in zip(model.names, model.decoders, strict=True):
        out = decoder.net(z)
        if model.modalities[n].kind == "word":
            log_p[n] = (out.log_softmax(-1) * x[n]).sum(-1)
        elif model.modalities[n].kind == "grid":
            log_p[n] = -F.binary_cross_entropy_with_logits(out, x[n], reduction="none").sum(
                (1, 2, 3)
            )
        else:
            variance = model.modalities[n].deviation ** 2
            density = (x[n] - out) ** 2 / variance + math.log(2 * math.pi * variance)
            log_p[n] = -0.5 * density.sum(-1)
    return log_p


@pytest.mark.parametrize(("K", "layers"), [(2, 2), (3, 3)])
def test_the_hierarchical_objective_is_equation_9(K, layers):
    modalities = toy_modalities(K)
    model = toy_model("hierarchical", modalities, layers=layers)
    x = observations(modalities, 6)
    beta = 0.7

    h = model.fusion(
        torch.cat([e(x[n]) for n, e in zip(modalities, model.encoders, strict=True)], dim=-1)
    )
    q = []
    for level, head in enumerate(model.posteriors):
        h = model.paths[level - 1](h) if level else h
        mean, raw = head.linear(h).chunk(2, dim=-1)
        q.append((mean, F.softplus(raw) + VARIANCE_FLOOR))
    torch.manual_seed(3)
    z = [mean + variance.sqrt() * torch.randn_like(mean) for mean, variance in q]
    divergences = []
    for level, (mean, variance) in enumerate(q):
        if level + 1 < layers:
            prior_mlp, head = model.priors[level]
            other_mean, raw = head.linear(prior_mlp(z[level + 1])).chunk(2, dim=-1)
            other = other_mean, F.softplus(raw) + VARIANCE_FLOOR
        else:
            other = torch.zeros(()), torch.ones(())
        divergences.append(kl(mean, variance, *other))
    bound = sum(log_likelihoods(model, x, z[0]).values()) - beta * sum(divergences)

    torch.manual_seed(3)
    objective = model.objective(x, beta)
    torch.testing.assert_close(objective.losses["model"], -bound.mean(), rtol=1e-4, atol=1e-4)
    for level, value in enumerate(divergences, start=1):
        torch.testing.assert_close(
            objective.terms[f"kl/z{level}"], value.mean(), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_hierarchy_has_one_encoder_net_a_modality_and_one_more_a_layer(layers):
    model = toy_model("hierarchical", toy_modalities(3), layers=layers)
    assert sum(copies for copies, _ in model.encoder_nets()) == 3 + layers - 1


@pytest.mark.parametrize("K", [2, 3])
def test_jmvae_kl_with_alpha_0_is_jmvae(K):
    modalities = toy_modalities(K)
    jmvae = toy_model("jmvae", modalities)
    with_subsets = toy_model("jmvae-kl", modalities, alpha=0.0)
    copy_joint_encoder(jmvae, with_subsets)
    x = observations(modalities, 6)
    losses = []
    for model in (jmvae, with_subsets):
        torch.manual_seed(3)
        loss = model.objective(x, 0.5).losses["model"]
        loss.backward()
        losses.append(loss)
    torch.testing.assert_close(*losses)
    ours, theirs = gradients(with_subsets), gradients(jmvae)
    for n, expected in theirs.items():
        found = ours[n]
        if n.startswith("encoder."):
            torch.testing.assert_close(found[-1:], expected, msg=lambda m, n=n: f"{n}: {m}")
            assert (found[:-1] == 0).all(), n
        else:
            torch.testing.assert_close(found, expected, msg=lambda m, n=n: f"{n}: {m}")


def copy_joint_encoder(jmvae: Model, with_subsets: Model) -> None:
    """Gives the joint encoder, the last of all copies, and the decoders the same weights."""
    with torch.no_grad():
        theirs = dict(with_subsets.named_parameters())
        for n, p in jmvae.named_parameters():
            if n.startswith("encoder."):
                theirs[n][-1:] = p
            else:
                theirs[n].copy_(p)


@pytest.mark.parametrize("K", [2, 3])
def test_a_hierarchy_of_one_layer_is_jmvae(K):
    modalities = toy_modalities(K)
    jmvae = toy_model("jmvae", modalities)
    flat = toy_model("hierarchical", modalities, layers=1)
    with torch.no_grad():
        # SumOfProjections keeps (in, out) for each modality, nn.Linear (out, in) for all of them.
        first, rest = jmvae.encoder.first, jmvae.encoder.rest
        flat.fusion[0].weight.copy_(torch.cat([w[0] for w in first.weights]).T)
        flat.fusion[0].bias.copy_(first.bias[0])
        flat.posteriors[0].linear.weight.copy_(rest[0].weight[0].T)
        flat.posteriors[0].linear.bias.copy_(rest[0].bias[0, 0])
        flat.decoders.load_state_dict(jmvae.decoders.state_dict())
        for net, copies in zip(flat.encoders, jmvae.encoder.encoders, strict=True):
            for p, wide in zip(net.parameters(), copies.parameters(), strict=True):
                p.copy_(wide[0].mT if p.dim() == 2 else wide[0])  # wide linear: (in, out)
    x = observations(modalities, 6)
    found = []
    for model in (jmvae, flat):
        torch.manual_seed(3)
        found.append(model.objective(x, 0.5))
    torch.testing.assert_close(found[0].losses["model"], found[1].losses["model"])
    torch.testing.assert_close(found[0].terms["kl/prior"], found[1].terms["kl/z1"])


# Linear-Gaussian models: p(x) is known.


LINEAR = {
    "a": Numbers(size=1, widths=(), deviation=0.8),
    "b": Numbers(size=2, widths=(), deviation=0.8),
}
NOISE = 0.8**2


def inverse_softplus(value):
    return torch.log(torch.expm1(value))


def set_head(linear, weight, bias, variance):
    """Makes a head's Gaussian N(weight h + bias, diag(variance)), whatever h."""
    with torch.no_grad():
        linear.weight.copy_(torch.cat([weight, torch.zeros_like(weight)]))
        linear.bias.copy_(torch.cat([bias, inverse_softplus(variance - VARIANCE_FLOOR)]))


def linear_decoders(model, W, c):
    """Makes x = W z + c + noise, the rows of W shared out to the modalities."""
    with torch.no_grad():
        for decoder, weight, bias in zip(
            model.decoders, W.split([1, 2]), c.split([1, 2]), strict=True
        ):
            decoder.net[0].weight.copy_(weight)
            decoder.net[0].bias.copy_(bias)


def bound(model, x, rows=20_000):
    """The Monte Carlo mean of the bound at one observation, and its standard error."""
    many = {n: t.expand(rows, -1) for n, t in x.items()}
    with torch.no_grad():
        draws = torch.stack([-model.objective(many, 1.0).losses["model"] for _ in range(10)])
    return draws.mean().item(), draws.std().item() / math.sqrt(len(draws))


def joined(x):
    return torch.cat([x["a"], x["b"]], dim=-1)[0]


@pytest.fixture
def linear_jmvae():
    """A JMVAE of two latent dimensions whose exact posterior is diagonal."""
    model = toy_model("jmvae", LINEAR, latent=2, fusion=()).double()
    # Orthogonal columns: then I + WᵀW / noise is diagonal.
    W = torch.tensor([[1.0, 1.0], [0.5, 1.0], [1.0, -1.5]]).double()
    c = torch.tensor([0.3, -0.2, 0.1]).double()
    linear_decoders(model, W, c)
    return model, W, c


def set_jmvae_posterior(model, weight, bias, variance):
    encoder = model.encoder.first
    with torch.no_grad():
        mean = torch.cat([weight, torch.zeros_like(weight)]).T  # (in, 2Z)
        for w, part in zip(encoder.weights, mean.split([1, 2]), strict=True):
            w[-1].copy_(part)
        encoder.bias[-1].copy_(torch.cat([bias, inverse_softplus(variance - VARIANCE_FLOOR)]))


def observation(*values):
    a, *b = values
    return {"a": torch.tensor([[a]]).double(), "b": torch.tensor([b]).double()}


def test_jmvaes_bound_is_tight_at_the_exact_posterior(linear_jmvae):
    model, W, c = linear_jmvae
    precision = torch.eye(2) + W.T @ W / NOISE
    assert precision[0, 1] == 0
    weight = torch.linalg.solve(precision, W.T / NOISE)
    set_jmvae_posterior(model, weight, -weight @ c, 1 / precision.diagonal())
    marginal = MultivariateNormal(c, W @ W.T + NOISE * torch.eye(3).double())
    torch.manual_seed(0)
    for x in (observation(0.4, -1.0, 2.0), observation(-2.0, 0.1, 0.5)):
        mean, standard_error = bound(model, x)
        assert standard_error < 0.01
        assert abs(mean - marginal.log_prob(joined(x)).item()) < 4 * standard_error + 1e-6


def test_jmvaes_bound_is_below_log_p_at_any_posterior(linear_jmvae):
    model, W, c = linear_jmvae
    marginal = MultivariateNormal(c, W @ W.T + NOISE * torch.eye(3).double())
    x = observation(0.4, -1.0, 2.0)
    gaps = []
    for seed in range(5):
        torch.manual_seed(seed)
        set_jmvae_posterior(
            model, torch.randn(2, 3) / 2, torch.randn(2) / 2, torch.rand(2).double() + 0.1
        )
        mean, standard_error = bound(model, x, rows=5_000)
        gaps.append(marginal.log_prob(joined(x)).item() - mean)
        assert gaps[-1] > -4 * standard_error
    assert max(gaps) > 0.1


@pytest.fixture
def linear_hierarchy():
    """z_2 → z_1 → x, all linear, of one latent dimension a layer."""
    model = toy_model("hierarchical", LINEAR, latent=1, fusion=(), layers=2).double()
    W = torch.tensor([[1.0], [-0.7], [0.4]]).double()
    c = torch.tensor([0.3, -0.2, 0.1]).double()
    linear_decoders(model, W, c)
    # Both posteriors are read off x itself, and p(z_1|z_2) off z_2 itself.
    model.paths[0] = torch.nn.Identity()
    model.posteriors[1] = GaussianHead(3, 1).double()
    model.priors[0] = GaussianHead(1, 1).double()
    return model, W, c


def hierarchy_log_p(x, W, c, slope, offset, variance):
    """log p(x), z_1 and z_2 integrated out: z_1 ~ N(offset, slope² + variance)."""
    covariance = W @ W.T * (slope**2 + variance) + NOISE * torch.eye(3).double()
    return MultivariateNormal(c + W[:, 0] * offset, covariance).log_prob(joined(x)).item()


@pytest.mark.parametrize("slope", [0.0, 0.9])
def test_the_hierarchical_bound_misses_log_p_by_what_independent_layers_cost(
    linear_hierarchy, slope
):
    """q(z_1|x) q(z_2|x) cannot hold the layers' correlation; the least gap is known.

    For a Gaussian posterior of precision P the best product of independent Gaussians has the same
    mean and the precisions P_ll, and the gap is ½ (Σ log P_ll − log det P), 0 if slope = 0.
    """
    model, W, c = linear_hierarchy
    offset, variance = 0.4, 0.5
    double = torch.float64
    set_head(
        model.priors[0].linear,
        torch.tensor([[slope]], dtype=double),
        torch.tensor([offset], dtype=double),
        torch.tensor([variance], dtype=double),
    )
    P = torch.tensor(
        [
            [(W.T @ W).item() / NOISE + 1 / variance, -slope / variance],
            [-slope / variance, 1 + slope**2 / variance],
        ],
        dtype=double,
    )
    # Mean of (z_1, z_2) given x: P⁻¹ (Wᵀ(x − c) / noise + offset / variance, −slope offset / ...).
    P_inverse = torch.linalg.inv(P)
    weight = P_inverse[:, :1] @ W.T / NOISE
    constant = torch.tensor([offset / variance, -slope * offset / variance], dtype=double)
    bias = P_inverse @ constant - weight @ c
    for level in (0, 1):
        set_head(
            model.posteriors[level].linear,
            weight[level : level + 1],
            bias[level : level + 1],
            1 / P[level, level].reshape(1),
        )
    gap = 0.5 * (P.diagonal().log().sum() - P.logdet()).item()
    assert (gap > 0.05) == (slope > 0)
    torch.manual_seed(0)
    for x in (observation(0.4, -1.0, 2.0), observation(-2.0, 0.1, 0.5)):
        mean, standard_error = bound(model, x)
        expected = hierarchy_log_p(x, W, c, slope, offset, variance) - gap
        assert standard_error < 0.01
        assert abs(mean - expected) < 4 * standard_error + 1e-6


def test_the_hierarchical_bound_is_below_log_p_at_any_posterior(linear_hierarchy):
    model, W, c = linear_hierarchy
    x = observation(0.4, -1.0, 2.0)
    gaps = []
    for seed in range(5):
        torch.manual_seed(seed)
        slope, offset, variance = torch.randn(3).double()
        variance = variance.exp()
        set_head(
            model.priors[0].linear,
            slope.reshape(1, 1),
            offset.reshape(1),
            variance.reshape(1),
        )
        for head in model.posteriors:
            set_head(
                head.linear,
                torch.randn(1, 3).double() / 2,
                torch.randn(1).double(),
                torch.rand(1).double() + 0.1,
            )
        mean, standard_error = bound(model, x, rows=5_000)
        log_p = hierarchy_log_p(x, W, c, slope.item(), offset.item(), variance.item())
        gaps.append(log_p - mean)
        assert gaps[-1] > -4 * standard_error
    assert max(gaps) > 0.1


# Five modalities: all subsets.


def test_five_modalities_train_and_any_subset_generates_all_others():
    modalities = toy_modalities(5)
    state = training("jmvae-kl", modalities, {"subsets": "all"}, learning_rate=2e-2)
    data = batches(modalities, 32, batch_size=32)
    losses = []
    for epoch in range(40):
        losses += [state.step(x, 1.0)["loss"].item() for x in data.epoch(0, epoch)]
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]

    model = state.model.eval()
    x = observations(modalities, 3)
    subsets = proper(tuple(modalities))
    assert len(subsets) == len(model.subsets) == 30
    for subset in subsets:
        assert model.encodes(subset)
        z = sample_latent(model, {n: x[n] for n in subset}, 2)
        assert z.shape == (2, 3, 3)
        targets = [n for n in modalities if n not in subset]
        p = model.decode(z.flatten(0, 1), targets)
        assert list(p) == targets
        for n in targets:
            assert p[n].sample().shape == (6, *modalities[n].shape)


@pytest.mark.parametrize("kind", ["jmvae", "hierarchical"])
def test_models_with_a_joint_encoder_alone_say_so(kind):
    modalities = toy_modalities(3)
    model = toy_model(kind, modalities)
    assert model.encodes(modalities)
    assert not any(model.encodes(s) for s in proper(tuple(modalities)))


def test_the_mean_of_z_is_the_posteriors():
    modalities = toy_modalities(2)
    x = {"point": observations(modalities, 4)["point"]}
    model = toy_model("jmvae-kl", modalities)
    z = model.infer(x, 20_000).double()
    mean = model.infer(x, temperature=0.0)[0].double()
    assert ((z.mean(0) - mean).abs() < 5 * z.std(0) / math.sqrt(20_000)).all()


def test_the_hierarchical_prior_descends_from_a_standard_normal(linear_hierarchy):
    model, _, _ = linear_hierarchy
    double = torch.float64
    slope, offset, variance = (torch.tensor([v], dtype=double) for v in (0.9, 0.4, 0.5))
    set_head(model.priors[0].linear, slope.reshape(1, 1), offset, variance)
    torch.manual_seed(0)
    z = model.prior(40_000, slope)
    assert z.dtype == double
    assert z.mean().item() == pytest.approx(0.4, abs=0.03)
    assert z.var().item() == pytest.approx(0.9**2 + 0.5, rel=0.04)
    torch.testing.assert_close(model.prior(2, slope, temperature=0.0), offset.expand(2, 1))


@every_model
def test_a_step_makes_no_tensor_on_another_device(kind, K):
    modalities = toy_modalities(K)
    meta = torch.device("meta")
    state = training(kind, modalities, device=meta, gradient_clip=1.0)
    x = {n: torch.empty(4, *m.shape, device=meta) for n, m in modalities.items()}
    with OneDevice(meta):
        for _ in range(2):  # the second reads the optimiser's state of the first
            terms = state.step(x, 0.5)
    assert {t.device for t in terms.values()} == {meta}
    moments = [
        t for s in state.optimisers["model"].state.values() for n, t in s.items() if n != "step"
    ]
    assert {t.device for t in [*moments, *state.model.parameters()]} == {meta}


@every_model
def test_generation_makes_no_tensor_on_another_device(kind, K):
    modalities = toy_modalities(K)
    meta = torch.device("meta")
    model = training(kind, modalities, device=meta).model.eval()
    x = {n: torch.empty(4, *m.shape, device=meta) for n, m in modalities.items()}
    point = {"point": x["point"]}
    with OneDevice(meta):
        z = [model.infer(x, 2), model.prior(8, x["point"]).view(2, 4, -1)]
        z += [sample_latent(model, point, 2, iterations=2, start=s) for s in ("zero", "prior")]
        if kind == "jmvae-kl":
            z.append(sample_latent(model, point, 2))
        samples = [p.sample() for latent in z for p in model.decode(latent.flatten(0, 1)).values()]
    assert {latent.shape for latent in z} == {(2, 4, 3)}
    assert {sample.device for sample in samples} == {meta}


def test_the_guard_of_the_device_notices_what_the_meta_device_does_not():
    meta = torch.device("meta")
    x, w = torch.empty(2, 3, device=meta), torch.ones(3, 4)
    assert (x @ w).device == meta
    for mixed in (lambda: x @ w, lambda: x.sum() + torch.zeros(3)):
        with pytest.raises(RuntimeError, match="cpu"), OneDevice(meta):
            mixed()


def test_a_model_that_was_moved_gives_the_same_loss():
    """No net keeps a tensor of its own that ``to()`` does not find."""
    modalities = toy_modalities(3)
    x = {n: t.double() for n, t in observations(modalities, 4).items()}
    for kind in KINDS:
        model = toy_model(kind, modalities)
        moved = deepcopy(model).double()
        torch.manual_seed(0)
        loss = moved.objective(x, 1.0).losses["model"]
        assert loss.dtype == torch.float64
        assert loss.isfinite()


# Building: an experiment's settings laid over those of a data set.


class Plain(Numbers):
    """Numbers by an author who uses torch's distributions as they are."""

    kind = "plain"

    def decoder(self, in_features):
        def family(mean):
            return Independent(Normal(mean, 1.0), 1)

        return Likelihood(mlp(in_features, [], self.size), family)


class Broken(Numbers):
    kind = "broken"

    def encoder(self):
        return mlp(self.size + 1, [4])


REGISTRY = build.Registry((), {c.kind: c for c in (Numbers, Plain, Broken, Word)})
STORED = {
    "point": {"kind": "numbers", "size": 4, "deviation": 0.25},
    "colour": {"kind": "word"},
    "side": {"kind": "word", "words": ["left", "right"]},
}


def built(named, stored=STORED):
    table = {"data": {"path": "/there"}, "modalities": named, "model": {"kind": "jmvae"}}
    return build.modalities(Experiment.checked(table, "here"), REGISTRY, stored)


def test_all_modalities_of_the_data_set_take_part_unless_some_are_named():
    assert list(built({})) == ["point", "colour", "side"]
    assert list(built({"side": {}, "point": {}})) == ["side", "point"]


def test_settings_lie_over_those_of_the_data_set():
    found = built({"point": {"deviation": 0.5}, "side": {}})
    assert found["point"] == Numbers(size=4, deviation=0.5)
    assert found["side"] == Word(words=("left", "right"))


def test_another_kind_brings_settings_of_its_own():
    named = {"colour": {"kind": "numbers", "size": 2}, "side": {}}
    assert built(named)["colour"] == Numbers(size=2)


def test_a_modality_that_the_data_set_has_not_is_an_error_with_the_nearest():
    message = r"modalities\.colr: the data set /there has point, colour, side; did you.*'colour'"
    with pytest.raises(DataError, match=message):
        built({"colr": {}, "side": {}})


def test_one_modality_is_too_few():
    with pytest.raises(ConfigError, match="at least two"):
        built({}, {"point": STORED["point"]})


def test_a_data_set_whose_names_no_run_could_give_back_is_refused():
    """An experiment.json that names such a modality cannot be read: better now than afterwards."""
    stored = {"hair colour": {"kind": "word"}, "a+b": {"kind": "numbers"}}
    with pytest.raises((ConfigError, DataError), match="hair colour"):
        built({}, stored)


def test_nets_that_cannot_be_built_are_an_error_that_names_modality_and_plugin():
    with pytest.raises(PluginError, match=r"modalities\.point: .*kind 'broken'") as caught:
        built({"point": {"kind": "broken"}, "side": {}})
    assert "None" not in str(caught.value)
    assert "test_models" in str(caught.value)  # where the kind comes from


def test_a_plugin_whose_distributions_check_their_arguments_is_built():
    """torch's distributions do so unless told otherwise: an author need not know."""
    assert built({"point": {"kind": "plain"}, "side": {}})["point"] == Plain()
