import json
import math
from functools import cache
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import MultivariateNormal
from toys import CPU, Grid, Numbers, OneDevice, Word, batches, differing, observations

from mmgen.batch import Batch
from mmgen.errors import ConfigError
from mmgen.evaluation.growth import growth
from mmgen.inference.importance import importance_sample
from mmgen.inference.sample import infer, sample_latent, source
from mmgen.latent.gaussian import VARIANCE_FLOOR, DiagonalGaussian
from mmgen.latent.mixture import Mixture
from mmgen.model import log_likelihoods
from mmgen.settings import TrainConfig
from mmgen.subsets import subset_encoder_nets
from mmgen.testing import Setup, parametrize_with_checks
from mmgen.training import run_folder
from mmgen.training.loop import Epoch, Training, fit
from mmgen_experts import mmgen_models
from mmgen_experts.mvae import random_subset

CLASSES = {cls.kind: cls for cls in mmgen_models()}
SETTINGS = {
    "mvae": {"random_subsets": 2},
    "mmvae": {"samples": 3},
    "mopoe": {"beta": 1.7},
    "mvtcae": {"alpha": 0.3, "beta": 1.7},
}
every_model = pytest.mark.parametrize("kind", CLASSES)
seeds = pytest.mark.parametrize("seed", range(3))

MODALITIES = {"point": Numbers(), "colour": Word(), "picture": Grid()}
NAMES = tuple(MODALITIES)
SUBSETS = [s for size in (1, 2, 3) for s in combinations(NAMES, size)]
ROWS, Z = 6, 3


def built(kind, modalities=MODALITIES, seed=0, **settings):
    """A model whose weights are larger than first ones are."""
    torch.manual_seed(seed)
    cls = CLASSES[kind]
    model = cls(modalities, cls.Settings(**{"latent": Z, **SETTINGS[kind], **settings}))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.5)
    return model


def exactly(kind, seed, **settings):
    """A model and rows in double precision."""
    x = rows(seed=seed)
    return built(kind, seed=seed, **settings).double(), Batch({n: v.double() for n, v in x.items()})


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def rows(count=ROWS, seed=0, modalities=MODALITIES):
    return Batch.of(observations(modalities, count, seed))


def with_holes(x):
    """A complete row, one that has the point alone, and others; and what each has."""
    held = [SUBSETS[i] for i in (6, 0, 5, 3, 1, 2)]
    masks = {n: torch.tensor([n in h for h in held]) for n in NAMES}
    # What a row lacks is some number that must not matter.
    tensors = {n: v + 3 * ~masks[n].view(-1, *[1] * (v.dim() - 1)) for n, v in x.items()}
    return Batch(tensors, masks), held


# The objectives, written out by hand, row by row, from encoders to likelihoods.


def expert(model, x, n):
    h = model.encoder({n: x[n]}, (n,))[0]
    return h[:, :Z], F.softplus(h[:, Z:]) + VARIANCE_FLOOR


def joined(experts, subset, prior):
    precision = sum(1 / experts[n][1] for n in subset) + prior
    mean = sum(experts[n][0] / experts[n][1] for n in subset) / precision
    return mean, 1 / precision


def kl(mean, variance, other_mean=0.0, other_variance=1.0):
    ratio, distance = variance / other_variance, (mean - other_mean) ** 2 / other_variance
    return 0.5 * (ratio + distance - 1 - torch.log(torch.as_tensor(ratio))).sum(-1)


def log_normal(z, mean, variance):
    variance = torch.as_tensor(variance, dtype=torch.float64)
    return -0.5 * ((z - mean) ** 2 / variance + (2 * math.pi * variance).log()).sum(-1)


def log_p(model, x, z, n):
    """log p(x_n|z) ``(B,)`` from the decoder's net alone, by the family's density."""
    out = model.decoders[n].net(z)
    if n == "colour":
        return (out.log_softmax(-1) * x[n]).sum(-1)
    if n == "picture":
        return -F.binary_cross_entropy_with_logits(out, x[n], reduction="none").sum((1, 2, 3))
    return log_normal(x[n], out, 0.25)


def mvae(model, x, beta, subsets, P=NAMES, noise=normal):
    experts, value = {n: expert(model, x, n) for n in P}, 0
    for subset in [NAMES, *((n,) for n in NAMES), *subsets]:
        if known := [n for n in subset if n in P]:
            mean, variance = joined(experts, known, prior=1)
            z = mean + variance.sqrt() * noise(x.rows, Z)
            value = value + sum(log_p(model, x, z, n) for n in known) - beta * kl(mean, variance)
    return value


def mmvae(model, x, samples, P=NAMES, noise=normal):
    experts = {n: expert(model, x, n) for n in P}
    u, value = noise(samples, len(P), x.rows, Z), 0
    for m, (mean, variance) in enumerate(experts.values()):
        log_w = []
        for k in range(samples):
            z = mean + variance.sqrt() * u[k, m]
            q = torch.stack([log_normal(z, *each).exp() for each in experts.values()]).mean(0)
            log_joint = sum(log_p(model, x, z, n) for n in P) + log_normal(z, 0.0, 1.0)
            log_w.append(log_joint - q.log())
        value = value + torch.stack(log_w).exp().mean(0).log() / len(P)
    return value


def mopoe(model, x, beta, chosen, prior_expert, P=NAMES, noise=normal):
    experts = {n: expert(model, x, n) for n in P}
    in_it = {"full": lambda s: s == NAMES, "every": lambda s: True, "none": lambda s: False}
    A = [s for s in SUBSETS if {*s} <= {*P}]
    q = {s: joined(experts, s, prior=int(in_it[prior_expert](s))) for s in A}
    u = noise(x.rows, Z)
    each = [q[s][0][i] + q[s][1][i].sqrt() * u[i] for i, s in enumerate(chosen)]
    z, mean_kl = torch.stack(each), sum(kl(*each) for each in q.values()) / len(A)
    return sum(log_p(model, x, z, n) for n in P) - beta * mean_kl


def mvtcae(model, x, alpha, beta, P=NAMES, noise=normal):
    experts, M = {n: expert(model, x, n) for n in P}, len(NAMES)
    mean, variance = joined(experts, P, prior=0)
    z = mean + variance.sqrt() * noise(x.rows, Z)
    views = sum(kl(mean, variance, *each) for each in experts.values())
    said = (M - alpha) / M * sum(log_p(model, x, z, n) for n in P)
    return said - beta * (alpha / M * views + (1 - alpha) * kl(mean, variance))


def bits(subset):
    return sum(1 << NAMES.index(n) for n in subset) - 1


def loss_and_gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}


def same(model, value, x, beta=1.0):
    """Compares a hand-written L ``(B,)`` of noise from seed 5 with the objective."""
    torch.manual_seed(5)
    expected, by_hand = loss_and_gradients(model, -value().mean())
    torch.manual_seed(5)
    objective = model(x)
    assert set(objective.losses(beta=beta)) == {"model"}
    loss, gradients = loss_and_gradients(model, objective.losses(beta=beta)["model"])
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    for n, gradient in gradients.items():
        torch.testing.assert_close(gradient, by_hand[n], rtol=1e-8, atol=1e-10, msg=n)
    return objective


@seeds
@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_mvaes_objective_is_the_sum_of_the_bounds_of_subsets(monkeypatch, seed, beta):
    model, x = exactly("mvae", seed)
    pairs = [("colour", "picture"), ("point", "picture")]
    drawn = iter(pairs)
    monkeypatch.setattr("mmgen_experts.mvae.random_subset", lambda names: next(drawn))
    objective = same(model, lambda: mvae(model, x, beta, pairs), x, beta)
    assert [t.name for t in objective if t.bound] == [
        *(f"reconstruction/{n}" for n in NAMES),
        "kl/prior",
    ]
    model.eval()
    objective = same(model, lambda: mvae(model, x, beta, []), x, beta)
    assert not [t.name for t in objective if t.name.startswith("random")]


@seeds
@pytest.mark.parametrize("samples", [1, 4])
def test_mmvaes_objective_is_the_importance_weighted_bound(seed, samples):
    model, x = exactly("mmvae", seed, samples=samples, gradient="iwae")
    objective = same(model, lambda: mmvae(model, x, samples), x, beta=0.3)
    torch.testing.assert_close(objective.bound(beta=0.3), objective.losses()["model"])
    doubly, _ = exactly("mmvae", seed, samples=samples)
    doubly.load_state_dict(model.state_dict())
    torch.manual_seed(5)
    torch.testing.assert_close(doubly(x).losses(), objective.losses())  # the value is the bound


def test_dreg_is_the_gradient_of_tucker_et_al():
    """Σ_k w_k² ∂ log w_k/∂z ∂z/∂φ for encoders, Σ_k w_k ∂ log w_k/∂θ for decoders."""
    (model, x), K, M = exactly("mmvae", 0, samples=4), 4, len(NAMES)
    torch.manual_seed(5)
    _, gradients = loss_and_gradients(model, model(x).losses()["model"])
    torch.manual_seed(5)
    q = model.posterior(x)
    z = q.stratified(K)
    at = z.detach().requires_grad_()
    log_w = sum(log_likelihoods(model, x, at).values()) + model.prior(x).log_prob(at)
    log_w = log_w - q.detach().log_prob(at)
    w = log_w.detach().softmax(0) / (M * ROWS)
    model.zero_grad()
    (-(w * log_w).sum()).backward()
    (z * (M * ROWS * w).unsqueeze(-1) * at.grad).sum().backward()
    for n, p in model.named_parameters():
        torch.testing.assert_close(gradients[n], p.grad, rtol=1e-8, atol=1e-10, msg=n)


def test_dreg_varies_less_than_the_bounds_own_gradient_and_is_unbiased_for_one_sample_alone():
    """Of more, z_m1 .. z_mK are of one expert, not draws from q(z|x), as which DReG takes them."""
    x = linear_rows().slice(0, 1)
    many = Batch({n: v.expand(2000, -1) for n, v in x.items()})

    def slopes(gradient, samples):
        model, found = linear("mmvae", gradient=gradient, samples=samples), []
        for _ in range(20):
            _, each = loss_and_gradients(model, model(many).losses()["model"])
            found.append(torch.cat([g.flatten() for n, g in each.items() if "encoder" in n]))
        return torch.stack(found)

    torch.manual_seed(0)
    for samples in (1, 5):
        doubly, plain = slopes("dreg", samples), slopes("iwae", samples)
        assert doubly.var(0).sum() < 0.9 * plain.var(0).sum()
        error = (doubly.var(0) + plain.var(0)).div(20).sqrt()
        away = (doubly.mean(0) - plain.mean(0)).abs()
        bias = away.norm() / plain.mean(0).norm()
        if samples == 1:
            assert (away < 5 * error).all()
        else:
            assert 0.2 < bias < 0.4
            assert (away > 10 * error).any()


@seeds
@pytest.mark.parametrize("prior_expert", ["full", "every", "none"])
def test_mopoes_objective_is_that_of_its_mixture_over_subsets(monkeypatch, seed, prior_expert):
    model, x = exactly("mopoe", seed, prior_expert=prior_expert)
    chosen = [SUBSETS[(i + seed) % 7] for i in range(ROWS)]
    numbers = torch.tensor([bits(s) for s in chosen])
    monkeypatch.setattr(Mixture, "choose", lambda q, shape=(): numbers)
    same(model, lambda: mopoe(model, x, 0.6 * 1.7, chosen, prior_expert), x, beta=0.6)


@seeds
def test_mvtcaes_objective_is_that_of_the_total_correlation(seed):
    model, x = exactly("mvtcae", seed)
    objective = same(model, lambda: mvtcae(model, x, 0.3, 0.6 * 1.7), x, beta=0.6)
    assert [t.name for t in objective][3:] == [*(f"subset/{n}" for n in NAMES), "kl/prior"]


@seeds
@every_model
def test_a_row_with_holes_has_the_objective_of_what_it_has(monkeypatch, kind, seed):
    model, complete = exactly(kind, seed)
    x, held = with_holes(complete)
    pair = ("point", "picture")
    monkeypatch.setattr("mmgen_experts.mvae.random_subset", lambda names: pair)
    monkeypatch.setattr(Mixture, "choose", lambda q, shape=(): torch.tensor([*map(bits, held)]))
    u = normal(ROWS, Z)  # the same for all that is drawn of a row
    monkeypatch.setattr(DiagonalGaussian, "rsample", lambda q, shape=(): q.loc + q.scale * u)
    monkeypatch.setattr(Mixture, "stratified", lambda q, n: q.components.rsample().unsqueeze(0))
    model.samples = 1
    found = torch.zeros(ROWS).double()
    for term in model(x):
        value = term.value if term.present is None else torch.where(term.present, term.value, 0)
        found += term.weight * value.detach()
    for i, P in enumerate(held):
        row = complete.slice(i, i + 1)
        settings = {
            "mvae": (1.0, [pair, pair]),
            "mmvae": (1,),
            "mopoe": (1.7, [P], "full"),
            "mvtcae": (0.3, 1.7),
        }
        by_hand = {"mvae": mvae, "mmvae": mmvae, "mopoe": mopoe, "mvtcae": mvtcae}[kind]
        expected = by_hand(model, row, *settings[kind], P, lambda *shape, i=i: u[i].expand(shape))
        torch.testing.assert_close(found[i : i + 1], -expected.detach())


@every_model
def test_the_posterior_of_a_row_with_holes_is_that_of_what_it_has(kind):
    model, complete = exactly(kind, 0)
    x, held = with_holes(complete)
    z = normal(7, 1, Z)
    for subset in SUBSETS:
        q = model.posterior(x.select(subset))
        for i, has in enumerate(held):
            known = [n for n in subset if n in has]
            row = complete.slice(i, i + 1).select(known)
            expected = model.posterior(row) if known else model.prior(row)
            if kind == "mopoe" and subset == NAMES and len(known) < 3:
                assert not q.usable[-1, i]  # the prior is in the product of all alone
            found = q.log_prob(z.expand(7, ROWS, Z))[:, i]
            torch.testing.assert_close(found, expected.log_prob(z).reshape(7))


@every_model
def test_gradients_of_rows_with_holes_are_finite_and_ignore_what_is_lacking(kind):
    x, _ = with_holes(rows())
    x = Batch(x.tensors, {**x.present, "colour": torch.zeros(ROWS, dtype=torch.bool)})
    model = built(kind)
    _, gradients = loss_and_gradients_of(model, x)
    for n, gradient in gradients.items():
        if gradient is not None:
            assert gradient.isfinite().all(), n
        if "colour" in n:
            assert gradient is None or not gradient.any(), n


def loss_and_gradients_of(model, x):
    loss = model(x).losses()["model"]
    loss.backward()
    return loss, {n: p.grad for n, p in model.named_parameters()}


# Every subset has a posterior.


@every_model
@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_subset_has_its_posterior(kind, subset):
    model, x = exactly(kind, 0)
    q = model.posterior(x.select(subset))
    assert (q.batch_shape, q.event_shape) == ((ROWS,), (Z,))
    assert q.symbol == ("q(z | x)" if subset == NAMES else f"q(z | {', '.join(subset)})")
    experts = {n: expert(model, x, n) for n in subset}
    z = normal(ROWS, Z)

    def density(members, prior):
        return log_normal(z, *joined(experts, members, prior))

    if kind in ("mvae", "mvtcae"):
        expected = density(subset, int(kind == "mvae"))
    else:
        sizes = [1] if kind == "mmvae" else range(1, len(subset) + 1)
        parts = [part for size in sizes for part in combinations(subset, size)]
        prior = {part: int(kind == "mopoe" and part == NAMES) for part in parts}
        each = torch.stack([density(part, prior[part]) for part in parts])
        expected = each.logsumexp(0) - math.log(len(parts))
    torch.testing.assert_close(q.log_prob(z), expected)
    assert source(model, subset) == q.symbol
    reverse = model.posterior(Batch({n: x[n] for n in reversed(subset)}))
    assert torch.equal(reverse.log_prob(z), q.log_prob(z))  # bit for bit


@every_model
def test_anything_generates_anything_without_iterating(monkeypatch, kind):
    def never(*_, **__):
        raise AssertionError("iterated")

    monkeypatch.setattr("mmgen.inference.sample.iterate", never)
    model, x = built(kind).eval(), rows(2)
    for given in ((), *SUBSETS):
        z = sample_latent(model, x.select(given), 5)
        assert z.shape == ((5, 2, Z) if given else (5, Z))
        for temperature in (0.0, 0.5):
            assert (
                sample_latent(model, x.select(given), 5, temperature=temperature).isfinite().all()
            )
        for targets in SUBSETS:
            assert model.generates(given, targets)
            found = model.decode(z, names=targets)
            assert tuple(found) == targets
            assert all(p.batch_shape == z.shape[:-1] for p in found.values())
    assert model.posterior(Batch({})) is None
    assert infer(model, Batch({})).symbol == "N(0, I)"


# Bounds, against models whose log p(x) is known.

WIDTH = {"a": 3, "b": 2}
LINEAR = {n: Numbers(size=size, widths=(), deviation=0.8) for n, size in WIDTH.items()}
MAP = {  # of orthogonal columns: each exact posterior is diagonal
    "a": torch.tensor([[1.0, 1.0], [0.5, 1.0], [1.0, -1.5]]),
    "b": torch.tensor([[0.6, -0.8], [0.8, 0.6]]),
}
SHIFT = {"a": torch.tensor([0.3, -0.2, 0.1]), "b": torch.tensor([-0.4, 0.5])}


def linear(kind, exact=True, **settings):
    """A model with x_k = A_k z + b_k + noise; exact: each expert ∝ p(x_k|z) as a function of z."""
    model = built(kind, LINEAR, latent=2, **settings).double().eval()
    with torch.no_grad():
        for i, (n, A) in enumerate(MAP.items()):
            (decoder,) = model.decoders[n].net
            decoder.weight.copy_(A)
            decoder.bias.copy_(SHIFT[n])
            if exact:
                square = (A.T @ A).diagonal()
                mean = A.T / square.unsqueeze(1)
                weight, bias = model.encoder.first.weights[n][0], model.encoder.first.bias[i]
                weight.zero_()
                weight[:, :2] = mean.T
                variance = 0.64 / square - VARIANCE_FLOOR
                bias.copy_(torch.cat([-mean @ SHIFT[n], variance.expm1().log()]))
    return model


@cache
def linear_rows(count=5):
    torch.manual_seed(9)
    z = torch.randn(count, 2)
    noise = {n: 0.8 * torch.randn(count, size) for n, size in WIDTH.items()}
    return Batch({n: (z @ MAP[n].T + SHIFT[n] + noise[n]).double() for n in WIDTH})


def exact_log_p(x, subset):
    A = torch.cat([MAP[n] for n in subset]).double()
    covariance = A @ A.T + 0.64 * torch.eye(len(A)).double()
    mean = torch.cat([SHIFT[n] for n in subset]).double()
    density = MultivariateNormal(mean, covariance)
    return density.log_prob(torch.cat([x[n] for n in subset], dim=-1))


@pytest.mark.parametrize("subset", [("a",), ("b",), ("a", "b")], ids="+".join)
def test_products_of_exact_experts_are_the_exact_posterior(subset):
    model, x = linear("mvae"), linear_rows()
    weighted = importance_sample(model, x, subset, 20)
    log_p = sum(log_likelihoods(model, x, weighted.z, subset).values())
    exact = exact_log_p(x, subset).expand(20, -1)  # of every single z
    torch.testing.assert_close(log_p + weighted.log_weight, exact, rtol=0, atol=1e-4)
    # MoPoE's full product, which has the prior too, is that posterior as well.
    q = linear("mopoe").posterior(x)
    torch.testing.assert_close(q.components[-1].loc, model.posterior(x).loc)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "random"])
@pytest.mark.parametrize("kind", ["mvae", "mmvae", "mopoe"])
def test_the_bound_is_one_on_log_p(kind, exact):
    settings = {"mmvae": {"samples": 5}, "mopoe": {"beta": 1.0}}.get(kind, {})
    model, x = linear(kind, exact, **settings), linear_rows()
    many = Batch({n: v.repeat(100, 1) for n, v in x.items()})
    torch.manual_seed(0)
    with torch.no_grad():
        bounds = torch.stack([-model(many).bound() for _ in range(10)])
    log_p, error = exact_log_p(x, ("a", "b")).mean(), bounds.std() / 10**0.5
    assert bounds.mean() < log_p + 5 * error + 1e-4
    if kind == "mvae" and exact:
        torch.testing.assert_close(bounds.mean(), log_p, rtol=0, atol=1e-4 + 5 * float(error))


def test_more_samples_bring_mmvaes_bound_nearer_to_log_p():
    x, found = linear_rows(), []
    many = Batch({n: v.repeat(100, 1) for n, v in x.items()})
    for samples in (1, 10, 100):
        torch.manual_seed(0)
        with torch.no_grad():
            found.append(-linear("mmvae", samples=samples)(many).bound())
    log_p = exact_log_p(x, ("a", "b")).mean()
    assert found[0] < found[1] < found[2] < log_p + 0.02
    assert log_p - found[2] < 0.4


@every_model
@pytest.mark.parametrize("subset", [("a",), ("a", "b")], ids="+".join)
def test_importance_sampled_likelihoods_are_the_exact_ones(kind, subset):
    model, x = linear(kind), linear_rows()
    torch.manual_seed(1)
    with torch.no_grad():
        weighted = importance_sample(model, x, subset, 40_000)
        log_p = sum(log_likelihoods(model, x, weighted.z, subset).values())
    estimate = (log_p + weighted.log_weight).logsumexp(0) - math.log(40_000)
    torch.testing.assert_close(estimate, exact_log_p(x, subset), rtol=0, atol=0.05)


# The contract, and training.


@parametrize_with_checks(*CLASSES.values(), Setup(CLASSES["mopoe"], {"prior_expert": "every"}))
def test_contract(model, check):
    check(model)


def trained(kind, epochs, stop=None, path=None):
    config = TrainConfig(epochs=epochs, batch_size=8, device="cpu", learning_rate=0.01)
    training = Training(built(kind), config, CPU)
    torch.manual_seed(3)
    if path is not None and stop is None:
        run_folder.resume(path, training)
    seen = []
    for number, item in enumerate(
        fit(training, batches(MODALITIES, 20), batches(MODALITIES, 8, 1))
    ):
        seen.append(item)
        if stop is not None and number == stop:
            run_folder.save_checkpoint(path, training)
            break
    return training, [item for item in seen if isinstance(item, Epoch)]


@every_model
def test_training_lowers_the_loss_and_a_resumed_one_is_the_same_bit_for_bit(tmp_path, kind):
    whole, epochs = trained(kind, 3)
    assert epochs[-1].train["loss"] < epochs[0].train["loss"]
    assert all(
        math.isfinite(v) for e in epochs for v in (*e.train.values(), *e.validation.values())
    )
    trained(kind, 3, stop=4, path=tmp_path)  # between two steps of the second epoch
    again, _ = trained(kind, 3, path=tmp_path)
    assert differing(whole.model.state_dict(), again.model.state_dict()) == []


@every_model
def test_every_parameter_gets_a_gradient(kind):
    model = built(kind)
    _, gradients = loss_and_gradients_of(model, rows(16))
    for n, gradient in gradients.items():
        assert gradient.isfinite().all(), n
        assert gradient.any(), n


@every_model
def test_a_step_makes_no_tensor_on_another_device_and_waits_for_none(monkeypatch, kind):
    # Which subsets are random is drawn on the CPU, where the loop over them is.
    monkeypatch.setattr("mmgen_experts.mvae.random_subset", lambda names: names[1:])
    meta, cls = torch.device("meta"), CLASSES[kind]
    with meta:
        model = cls(MODALITIES, cls.Settings(latent=Z, **SETTINGS[kind]))
        x = Batch({n: torch.empty(5, *m.shape) for n, m in MODALITIES.items()})
        holes = Batch(x.tensors, {n: torch.ones(5, dtype=torch.bool) for n in NAMES})
    for batch in (x, holes):
        with OneDevice(meta):
            model(batch).losses()["model"].backward()  # on meta, to read a value is an error
    assert all(p.grad.is_meta for p in model.parameters())


def test_random_subsets_are_of_every_size_between_and_of_every_modality():
    torch.manual_seed(0)
    names = ("a", "b", "c", "d", "e")
    drawn = [random_subset(names) for _ in range(600)]
    assert {len(s) for s in drawn} == {2, 3, 4}
    for size in (2, 3, 4):
        assert sum(len(s) == size for s in drawn) == pytest.approx(200, abs=50)
    assert {*drawn} == {s for size in (2, 3, 4) for s in combinations(names, size)}
    torch.manual_seed(0)
    assert drawn == [random_subset(names) for _ in range(600)]


def test_two_modalities_have_no_random_subset():
    two = {n: MODALITIES[n] for n in NAMES[:2]}
    model = built("mvae", two)
    assert not [t.name for t in model(rows(modalities=two)) if t.name.startswith("random")]


# What they say of themselves.


@every_model
def test_a_model_needs_one_net_for_each_modality(kind):
    cls = CLASSES[kind]
    found = growth({kind: cls}, Numbers(), [2, 3, 5], latent=4)
    assert [(row.nets, row.formula) for row in found] == [(K, K) for K in (2, 3, 5)]
    assert cls.formula == "K"
    for row in found:
        assert row.net_parameters == row.formula_parameters
    assert subset_encoder_nets(5) > found[-1].nets


def test_too_many_modalities_for_all_products_are_refused():
    many = {f"m{k}": Numbers() for k in range(15)}
    with pytest.raises(ConfigError, match=r"15 modalities have 2\^15 − 1 subsets; 14 .*=mvtcae"):
        built("mopoe", many)
    for kind in ("mvae", "mmvae", "mvtcae"):
        built(kind, many)


@every_model
def test_terms_and_the_model_speak_for_themselves(kind):
    model = built(kind)
    assert model.about().startswith("One latent z behind all modalities")
    assert model.equation
    assert all(term.title for term in model(rows()))
    json.dumps(type(model).Settings().model_dump())
