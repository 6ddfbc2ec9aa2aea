"""Every model by its contract, one battery for all kinds; then JMVAE's and the hierarchy's own."""

import math
from copy import deepcopy

import pytest
import torch
from by_hand import gaussian_of, kl, log_likelihoods, moments, set_decoders, set_encoder, set_head
from torch.distributions import Distribution, MultivariateNormal, Normal
from toys import (
    FIVE,
    JOINT,
    KINDS,
    ONE_WAY,
    REGISTRY,
    Numbers,
    OneDevice,
    batches,
    differing,
    gradients,
    observations,
    toy_modalities,
    toy_model,
    training,
)

from mmgen import model
from mmgen.batch import Batch
from mmgen.errors import ConfigError
from mmgen.inference.importance import importance_sample
from mmgen.inference.sample import inferred, sample_latent
from mmgen.latent.base import sample
from mmgen.latent.gaussian import GaussianHead
from mmgen.nets.by_modality import ByModality
from mmgen.objective import MODEL
from mmgen.subsets import name, proper
from mmgen.training.loop import Epoch, fit

PAIR = {n: FIVE[n] for n in ("colour", "point")}
ABC = {n: FIVE[n] for n in ("colour", "point", "picture")}

DIRECTIONS = {
    "one from one": (PAIR, {"targets": ("point",), "given": ("colour",)}),
    "the others if none is named": (PAIR, {"targets": ("colour",)}),
    "one left out": (ABC, {"targets": ("picture",), "given": ("colour",)}),
    "two from one": (ABC, {"targets": ("picture", "colour")}),
    "one from two": (ABC, {"targets": ("point",), "given": ("picture", "colour")}),
}

# Kind, modalities, settings.
CASES = {
    **{f"{kind} of {K}": (kind, toy_modalities(K), {}) for kind in JOINT for K in (2, 3)},
    **{f"{kind} {told}": (kind, *way) for kind in ONE_WAY for told, way in DIRECTIONS.items()},
    "jmvae-kl of singles": ("jmvae-kl", ABC, {"subsets": "single"}),
    "jmvae-kl with a flow": ("jmvae-kl", ABC, {"subset_posterior": "flow", "flow_widths": (9,)}),
    "jmvae-kl of full Gaussians": ("jmvae-kl", ABC, {"subset_posterior": "full"}),
    "jmvae-kl of mixtures": (
        "jmvae-kl",
        ABC,
        {"subset_posterior": "mixture", "mixture_components": 2},
    ),
    "jmvae-kl drawing mixtures of shared nets": (
        "jmvae-kl",
        ABC,
        {
            "subset_encoder": "shared",
            "subsets_per_step": 6,
            "subset_posterior": "mixture",
            "mixture_covariance": "low-rank",
            "subset_gradient": False,
        },
    ),
    "jmvae-kl of shared nets": ("jmvae-kl", ABC, {"subset_encoder": "shared"}),
    "jmvae-kl of products": ("jmvae-kl", ABC, {"subset_encoder": "product"}),
    "jmvae-kl drawing subsets": ("jmvae-kl", ABC, {"subsets_per_step": 6}),
    "jmvae-kl drawing products": (
        "jmvae-kl",
        ABC,
        {"subset_encoder": "product", "subsets_per_step": 6},
    ),
    "jmvae-kl drawing flows of shared nets": (
        "jmvae-kl",
        ABC,
        {
            "subset_encoder": "shared",
            "subsets_per_step": 6,
            "subset_posterior": "flow",
            "flow_widths": (9,),
            "subset_gradient": False,
        },
    ),
    "hierarchical of 1 layer": ("hierarchical", ABC, {"layers": 1}),
    "hierarchical of 3 layers": ("hierarchical", ABC, {"layers": 3}),
    "hierarchical by means": ("hierarchical", ABC, {"layers": 3, "bottom_up": "mean"}),
    "hierarchical by draws": ("hierarchical", ABC, {"layers": 3, "bottom_up": "sample"}),
    "hierarchical of 1 drawn layer": ("hierarchical", PAIR, {"layers": 1, "bottom_up": "sample"}),
}


@pytest.fixture(params=CASES)
def case(request):
    """A kind with settings, and the modalities of its experiment."""
    return CASES[request.param]


@pytest.fixture
def of(case):
    """The model of a case, and a batch of the modalities that it is of."""
    kind, modalities, settings = case
    built = toy_model(kind, modalities, **settings)
    return built, observations(modalities, 4).select(built.names)


def known(built, x):
    """What is given: x_C of a model of one direction, nothing of another."""
    return x.select(built.directions.given if built.directions else ())


def loss(built, x, beta=1.0):
    return built.objective(x).losses(beta=beta)[MODEL]


# What the contract says.


def test_the_kinds_are_those_of_the_hook_and_each_has_cases():
    assert {kind for kind, _, _ in CASES.values()} == {*KINDS} == {*JOINT, *ONE_WAY}
    for kind in KINDS:
        cls = REGISTRY.model(kind)
        assert issubclass(cls, model.Model)
        assert cls.kind == kind


def test_shapes(of):
    built, x = of
    q, p = built.posterior(x), built.prior(known(built, x))
    event = tuple(q.event_shape)
    assert q.batch_shape == built.imputed_posterior(x).batch_shape == (4,)
    assert p.batch_shape in ((), (4,))
    assert event[-1] == built.latent == 3
    assert event == built.imputed_posterior(x).event_shape == p.event_shape
    for temperature in (0, 0.5, 1):
        assert sample(q, temperature, (5,)).shape == (5, 4, *event)
    z = q.rsample()
    decoded = built.decode(z, x)
    assert list(decoded) == list(built.targets)
    for n, distribution in decoded.items():
        assert isinstance(distribution, Distribution)
        assert distribution.batch_shape == (4,)
        assert distribution.event_shape == built.modalities[n].shape
    assert list(built.decode(z, x, built.targets[-1:])) == [*built.targets[-1:]]
    found = model.log_likelihoods(built, x, z)
    assert {n: value.shape for n, value in found.items()} == dict.fromkeys(built.targets, (4,))


def test_an_objective_has_a_value_per_row_and_a_loss_per_group(of):
    built, x = of
    objective = built.objective(x)
    assert all(term.value.shape == (4,) for term in objective)
    scalars = [*objective.means().values(), *objective.losses().values(), objective.bound()]
    assert {value.shape for value in scalars} == {()}
    assert list(objective.losses()) == list(built.parameter_groups()) == [MODEL]
    assert all(term.title for term in objective)
    assert {*built.targets} <= {n for term in objective for n in term.about} <= {*built.names}


def test_the_call_of_a_model_is_its_objective(of):
    built, x = of
    torch.manual_seed(0)
    called = built(x)
    torch.manual_seed(0)
    for one, other in zip(called, built.objective(x), strict=True):
        assert torch.equal(one.value, other.value)


def test_the_terms_are_named_after_modalities_and_subsets(of):
    built, x = of
    found = {term.name: term for term in built.objective(x)}
    layers = built.posterior(x).event_shape[:-1].numel()
    divergences = ["kl/prior"]
    if built.kind == "hierarchical":
        divergences = [f"kl/z{level + 1}" for level in range(layers)]
    subsets = getattr(built, "subsets", [])
    expected = [f"reconstruction/{n}" for n in built.targets]
    terms = {f"subset/{name(s)}": s for s in subsets}
    if getattr(built, "subsets_per_step", None):  # one, whichever are drawn
        terms = {"subsets": built.names}
    assert list(found) == [*expected, *divergences, *terms]
    assert [n for n, term in found.items() if term.warmed_up] == divergences
    assert {n: found[n].about for n in terms} == terms


def refused(built):
    """Whether a model with these settings says that it does not train on incomplete rows."""
    try:
        built.check_patterns(())
    except ConfigError:
        return True
    return False


def test_rows_that_lack_a_modality_are_left_out_of_its_terms_alone(of):
    built, x = of
    (target, *_), there = built.targets, torch.tensor([True, False, True, False])
    mask = there.view(-1, *[1] * (x[target].dim() - 1))
    holes = Batch({**x, target: torch.where(mask, x[target], 0)}, {target: there})
    if refused(built):
        with pytest.raises(ConfigError, match="where rows lack modalities"):
            built.objective(holes)
        return
    objective = built.objective(holes)
    rest = tuple(n for n in built.names if n != target)
    for term in objective:
        lacking = term.name == f"reconstruction/{target}"
        if term.name.startswith("subset/"):  # those of proper subsets of what a row has
            lacking = target in term.about or term.about == rest
        expected = term.value[there] if lacking else term.value
        torch.testing.assert_close(term.mean, expected.mean())
    objective.losses()[MODEL].backward()
    assert all(p.grad.isfinite().all() for p in built.parameters())


def test_every_parameter_gets_a_gradient_and_belongs_to_one_group(case):
    kind, modalities, settings = case
    built = toy_model(kind, modalities, **settings)
    loss(built, observations(modalities, 16), 0.5).backward()
    for n, p in built.named_parameters():
        assert p.grad is not None, n
        assert p.grad.isfinite().all(), n
        assert p.grad.abs().sum() > 0, n
    owned = [id(p) for group in built.parameter_groups().values() for p in group.parameters]
    assert sorted(owned) == sorted(id(p) for p in built.parameters())


def test_the_same_seed_gives_the_same_loss_and_another_seed_another(of):
    built, x = of

    def drawn(seed):
        torch.manual_seed(seed)
        return loss(built, x).item(), sample(built.posterior(x)).tolist()

    assert drawn(0) == drawn(0)
    assert all(one != other for one, other in zip(drawn(0), drawn(1), strict=True))
    assert torch.equal(built.posterior(x).mean, built.posterior(x).mean)


def test_saved_weights_give_the_same_model(case):
    kind, modalities, settings = case
    built, other = (toy_model(kind, modalities, **settings) for _ in range(2))
    x = observations(modalities, 4).select(built.names)
    with torch.no_grad():
        for p in other.parameters():
            p.normal_()

    def values(of):
        q, p = of.posterior(x), of.prior(known(of, x))
        z = sample(of.imputed_posterior(x), 0)
        means = [decoded.mean for decoded in of.decode(z, x).values()]
        return [q.mean, q.log_prob(z), p.log_prob(z), *means]

    assert not any(
        torch.equal(a, b) for a, b in zip(values(built)[:2], values(other)[:2], strict=True)
    )
    other.load_state_dict(built.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(values(built), values(other), strict=True))


def test_the_seed_decides_the_first_weights(case):
    kind, modalities, settings = case
    first, again, other = (
        dict(training(kind, modalities, settings, seed=seed).model.named_parameters())
        for seed in (0, 0, 1)
    )
    assert differing(first, again) == []
    assert differing(first, other) == list(first)


def test_warmup_weighs_the_kl_to_the_prior_alone(of):
    built, x = of
    objective = built.objective(x)
    prior_kl = sum(term.mean for term in objective if term.name.startswith("kl/"))
    at = {beta: objective.losses(beta=beta)[MODEL] for beta in (0.0, 0.25, 1.0)}
    torch.testing.assert_close(at[1.0] - at[0.0], prior_kl)
    torch.testing.assert_close(at[0.25] - at[0.0], 0.25 * prior_kl)
    torch.testing.assert_close(objective.losses(beta=torch.tensor(0.25))[MODEL], at[0.25])
    assert torch.equal(objective.losses()[MODEL], at[1.0])
    assert torch.equal(objective.bound(), at[1.0])


def test_the_order_of_a_batch_does_not_matter(of):
    built, x = of
    backwards = Batch(dict(reversed([*x.items()])))
    losses = []
    for batch in (x, backwards):
        torch.manual_seed(0)
        losses.append(loss(built, batch))
    assert torch.equal(*losses)
    assert torch.equal(built.posterior(x).mean, built.posterior(backwards).mean)


def test_rows_do_not_see_each_other(of):
    built, x = of
    z = built.posterior(x).mean
    alone = x.slice(2, 3)
    torch.testing.assert_close(built.posterior(alone).mean, z[2:3])
    for n, p in built.decode(z[2:3], alone).items():
        torch.testing.assert_close(p.mean, built.decode(z, x)[n].mean[2:3])


def test_z_of_any_batch_shape_is_decoded_as_if_it_were_flat(of):
    built, x = of
    z = torch.randn(2, 5, 4, *built.posterior(x).event_shape)
    whole = built.decode(z, x)
    flat = built.decode(
        z.flatten(0, 2), Batch({n: v.repeat(10, *[1] * (v.dim() - 1)) for n, v in x.items()})
    )
    for n, p in whole.items():
        assert p.batch_shape == (2, 5, 4)
        torch.testing.assert_close(p.mean.flatten(0, 2), flat[n].mean)
        one_by_one = [
            built.decode(z[s, t], x)[n].log_prob(x[n]) for s in range(2) for t in range(5)
        ]
        torch.testing.assert_close(p.log_prob(x[n]).flatten(0, 1), torch.stack(one_by_one))


def test_a_posterior_is_of_exactly_what_is_there(of):
    built, x = of
    subsets = [s for s in proper(built.names) if built.posterior(x.select(s)) is not None]
    assert subsets == list(getattr(built, "subsets", []))
    assert built.posterior(Batch({})) is None
    for subset in subsets:
        q = built.posterior(x.select(subset))
        assert q.batch_shape == (4,)
        assert q.symbol == f"q(z | {', '.join(subset)})"
    assert built.posterior(x).symbol == "q(z | x)"


def test_a_model_goes_its_direction_and_no_other(case):
    kind, modalities, settings = case
    built = toy_model(kind, modalities, **settings)
    if built.directions is None:
        for subset in ((), *proper(built.names)):
            assert built.generates(subset, [n for n in built.names if n not in subset])
        assert inferred(built, ()).symbol in ("N(0, I)", "p(z)")
        return
    T = tuple(n for n in modalities if n in settings["targets"])
    C = tuple(
        n for n in modalities if n in settings.get("given", [n for n in modalities if n not in T])
    )
    assert (built.directions.given, built.directions.targets, built.targets) == (C, T, T)
    assert built.names == tuple(n for n in modalities if n in (*T, *C))
    assert built.generates(C, T)
    assert built.generates(C, T[:1])
    assert built.generates((*T, *C), T)  # reconstruction
    assert not built.generates((), T)
    assert not built.generates(T, C)
    for n in (n for n in modalities if n not in built.names):
        assert not built.generates(C, [n])
        assert not built.generates((*C, n), T)
    if len(C) > 1:
        assert not built.generates(C[:1], T)
    assert [inferred(built, s) is not None for s in ((), T, C, built.names)] == [
        False,
        False,
        True,
        True,
    ]
    assert built.direction() == f"{', '.join(T)} from {', '.join(C)}"


def test_blank_rows_are_zeros_of_the_models_dtype(of):
    built, x = of
    blank = built.double().blank(built.names[:1], 3)
    assert list(blank) == [*built.names[:1]]
    assert blank[built.names[0]].shape == (3, *x[built.names[0]].shape[1:])
    assert blank[built.names[0]].dtype == torch.float64
    assert not blank[built.names[0]].any()


def test_every_kind_says_what_it_is_in_words(case):
    kind, modalities, settings = case
    built = toy_model(kind, modalities, **settings)
    assert built.equation
    assert len(built.about()) > 20
    assert "\n\n" not in built.about()
    given = tuple(modalities)
    assert toy_model(kind, modalities, **type(built).example_settings(given)).kind == kind


def test_encoder_nets_are_counted_each_once_and_by_the_formula(of):
    built, _ = of
    nets = [*built.encoder_nets()]
    assert len({id(net) for _, net in nets}) == len(nets)
    count = sum(copies for copies, _ in nets)
    formula = built.encoder_count(built.settings, len(built.names))
    assert formula in (None, count)
    if built.directions:
        assert count == len(built.targets) + 2 * len(built.directions.given)
    # Decoders read no observation.
    assert not {id(net) for _, net in nets} & {id(part) for part in built.decoders.modules()}


def test_weights_are_named_after_their_modality(of):
    built, _ = of
    for path, part in built.named_modules():
        if isinstance(part, ByModality):
            attributes = [
                n.removeprefix(f"{path}.").split(".")[0]
                for n in dict(built.named_parameters())
                if n.startswith(f"{path}.")
            ]
            assert list(dict.fromkeys(attributes)) == [n for n in part if n in attributes]
    decoders = {n.split(".")[1] for n in built.state_dict() if n.startswith("decoders.")}
    assert decoders == {*built.targets}


@pytest.mark.parametrize("kind", KINDS)
def test_modalities_may_have_any_name(kind):
    """Names of terms, of torch's attributes, of a dictionary's methods."""
    for names in (
        ("prior", "type", "items"),
        ("attributes", "z1", "z2"),
        ("values", "forward", "training"),
    ):
        modalities = dict(zip(names, FIVE.values(), strict=False))
        state = training(kind, modalities, epochs=1)
        x = observations(modalities, 4)
        terms = [term.name for term in state.model.objective(x)]
        assert len({*terms}) == len(terms) >= 2
        # A term about a modality is none of the divergence from the prior.
        losses = [item for item in fit(state, batches(modalities, 16)) if isinstance(item, Epoch)]
        assert {*losses[0].train} == {*terms, "loss"}
        again = toy_model(kind, modalities)
        again.load_state_dict(state.model.state_dict())
        assert list(again.decoders) == list(again.targets)
        x = x.select(again.names)
        z = sample_latent(again, known(again, x) or x, 2)
        assert list(again.decode(z, x)) == list(again.targets)


# Devices and precision.

META = torch.device("meta")


def test_a_step_makes_no_tensor_on_another_device(case):
    kind, modalities, settings = case
    state = training(kind, modalities, settings, META, gradient_clip=1.0)
    x = Batch({n: torch.empty(4, *m.shape, device=META) for n, m in modalities.items()})
    with OneDevice(META):
        losses = state.model.objective(x).losses(beta=torch.ones((), device=META))
        for _ in range(2):  # the second reads the optimiser's state of the first
            terms = state.step(x, 0.5)
    assert {t.device for t in [*losses.values(), *terms.values()]} == {META}
    moments = [
        t for s in state.optimisers[MODEL].state.values() for n, t in s.items() if n != "step"
    ]
    assert {t.device for t in [*moments, *state.model.parameters()]} == {META}


def test_generation_makes_no_tensor_on_another_device(case):
    kind, modalities, settings = case
    built = training(kind, modalities, settings, META).model.eval()
    whole = Batch({n: torch.empty(4, *m.shape, device=META) for n, m in modalities.items()})
    whole = whole.select(built.names)
    x = known(built, whole)
    some = whole.select(built.names[:1])
    with OneDevice(META):
        z = [sample_latent(built, whole, 2)]
        if built.directions is None:
            z += [sample_latent(built, x, 8).unflatten(0, (2, 4))]
            z += [sample_latent(built, some, 2, iterations=2, start=s) for s in ("zero", "prior")]
            z += [sample_latent(built, some, 2)]
        else:
            z += [sample_latent(built, x, 2)]
        samples = [p.sample() for latent in z for p in built.decode(latent, whole).values()]
        z += [importance_sample(built, whole, x or some, 2).z]
    assert {latent.shape for latent in z} == {(2, 4, *z[0].shape[2:])}
    assert {sample.device for sample in samples} == {META}


def test_the_guard_of_the_device_notices_what_the_meta_device_does_not():
    x, w = torch.empty(2, 3, device=META), torch.ones(3, 4)
    assert (x @ w).device == META
    for mixed in (lambda: x @ w, lambda: x.sum() + torch.zeros(3)):
        with pytest.raises(RuntimeError, match="cpu"), OneDevice(META):
            mixed()


def test_a_model_that_was_moved_gives_the_same_loss(of):
    """No net keeps a tensor of its own that ``to()`` does not find."""
    built, x = of
    moved = deepcopy(built).double()
    double = Batch({n: value.double() for n, value in x.items()})
    torch.manual_seed(0)
    found = loss(moved, double)
    assert found.dtype == torch.float64
    assert found.isfinite()
    q = built.posterior(x).mean
    torch.testing.assert_close(moved.posterior(double).mean, q.double(), rtol=1e-4, atol=1e-4)


# JMVAE and JMVAE-kl: equations 5 and 10.


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize(("kind", "alpha"), [("jmvae", 0.0), ("jmvae-kl", 1.0), ("jmvae-kl", 0.3)])
def test_jmvaes_objective_is_equation_5_and_10(kind, alpha, K):
    modalities = toy_modalities(K)
    built = toy_model(kind, modalities, **({"alpha": alpha} if kind == "jmvae-kl" else {}))
    x = observations(modalities, 6)
    beta = 0.7

    mean, variance = gaussian_of(built.encoder, x, built.names)
    torch.manual_seed(3)
    z = mean + variance.sqrt() * torch.randn_like(mean)
    log_p = log_likelihoods(built, x, z)
    prior_kl = kl(mean, variance, torch.zeros(()), torch.ones(()))
    subsets = proper(built.names) if kind == "jmvae-kl" else []
    subset_kl = {s: kl(mean, variance, *gaussian_of(built.encoder, x, s)) for s in subsets}
    bound = sum(log_p.values()) - beta * prior_kl - alpha * sum(subset_kl.values())

    torch.manual_seed(3)
    objective = built.objective(x)
    close = torch.testing.assert_close
    close(objective.losses(beta=beta)[MODEL], -bound.mean(), rtol=1e-4, atol=1e-4)
    expected = {f"reconstruction/{n}": value for n, value in log_p.items()}
    expected |= {"kl/prior": prior_kl, **{f"subset/{name(s)}": v for s, v in subset_kl.items()}}
    assert [term.name for term in objective] == list(expected)
    for term in objective:
        close(term.value, expected[term.name], rtol=1e-4, atol=1e-4)
    # Each posterior on its own, by the path that generation takes.
    for subset in [*subsets, built.names]:
        q = built.posterior(x.select(subset))
        close((q.mean, q.variance), gaussian_of(built.encoder, x, subset))


@pytest.mark.parametrize("K", [2, 3])
def test_jmvae_kl_with_alpha_0_is_jmvae(K):
    modalities = toy_modalities(K)
    jmvae = toy_model("jmvae", modalities)
    with_subsets = toy_model("jmvae-kl", modalities, alpha=0.0)
    copy_joint_encoder(jmvae, with_subsets)
    x = observations(modalities, 6)
    losses = []
    for built in (jmvae, with_subsets):
        torch.manual_seed(3)
        losses.append(loss(built, x, 0.5))
        losses[-1].backward()
    torch.testing.assert_close(*losses)
    ours, theirs = gradients(with_subsets), gradients(jmvae)
    for n, expected in theirs.items():
        found = ours[n]
        if n.startswith("encoder."):
            torch.testing.assert_close(found[-1:], expected, msg=lambda m, n=n: f"{n}: {m}")
            assert (found[:-1] == 0).all(), n
        else:
            torch.testing.assert_close(found, expected, msg=lambda m, n=n: f"{n}: {m}")


def copy_joint_encoder(jmvae, with_subsets):
    """Gives the joint encoder, the last of all copies, and the decoders the same weights."""
    with torch.no_grad():
        theirs = dict(with_subsets.named_parameters())
        for n, p in jmvae.named_parameters():
            if n.startswith("encoder."):
                theirs[n][-1:] = p
            else:
                theirs[n].copy_(p)


def test_five_modalities_train_and_any_subset_generates_all_others():
    modalities = toy_modalities(5)
    state = training("jmvae-kl", modalities, {"subsets": "all"}, learning_rate=2e-2)
    data = batches(modalities, 32, batch_size=32)
    losses = []
    for epoch in range(40):
        losses += [state.step(x, 1.0)["loss"].item() for x in data.epoch(0, epoch)]
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]

    built = state.model.eval()
    x = observations(modalities, 3)
    subsets = proper(tuple(modalities))
    assert len(subsets) == len(built.subsets) == 30
    for subset in subsets:
        assert built.posterior(x.select(subset)) is not None
        z = sample_latent(built, x.select(subset), 2)
        assert z.shape == (2, 3, 3)
        targets = [n for n in modalities if n not in subset]
        p = built.decode(z, names=targets)
        assert list(p) == targets
        for n in targets:
            assert p[n].sample().shape == (2, 3, *modalities[n].shape)


@torch.no_grad()
def test_the_mean_of_z_is_the_posteriors():
    modalities = toy_modalities(2)
    x = observations(modalities, 4).select(["point"])
    built = toy_model("jmvae-kl", modalities)
    z = sample_latent(built, x, 20_000).double()
    mean = sample_latent(built, x, 1, temperature=0)[0].double()
    assert ((z.mean(0) - mean).abs() < 5 * z.std(0) / math.sqrt(20_000)).all()


# The hierarchy: equation 9.


@pytest.mark.parametrize(("K", "layers"), [(2, 2), (3, 3)])
@pytest.mark.parametrize("bottom_up", ["features", "mean", "sample"])
def test_the_hierarchical_objective_is_equation_9(K, layers, bottom_up):
    modalities = toy_modalities(K)
    built = toy_model("hierarchical", modalities, layers=layers, bottom_up=bottom_up)
    x = observations(modalities, 6)
    beta = 0.7

    h = built.fusion(torch.cat([built.encoders[n](x[n]) for n in modalities], dim=-1))
    q, z = [], []
    torch.manual_seed(3)
    for level, head in enumerate(built.posteriors):
        if level:
            below = {"features": h, "mean": q[-1][0], "sample": z[-1]}[bottom_up]
            h = built.paths[level - 1](below)
        mean, variance = moments(head.linear(h))
        q.append((mean, variance))
        z.append(mean + variance.sqrt() * torch.randn_like(mean))
    divergences = []
    for level, (mean, variance) in enumerate(q):
        other = torch.zeros(()), torch.ones(())
        if level + 1 < layers:
            prior_mlp, head = built.priors[level]
            other = moments(head.linear(prior_mlp(z[level + 1])))
        if bottom_up == "sample" and level + 1 < layers:
            one, two = (Normal(m, v.sqrt()).log_prob(z[level]) for m, v in (q[level], other))
            divergences.append((one - two).sum(-1))
        else:
            divergences.append(kl(mean, variance, *other))
    bound = sum(log_likelihoods(built, x, z[0]).values()) - beta * sum(divergences)

    torch.manual_seed(3)
    objective = built.objective(x)
    loss = objective.losses(beta=beta)[MODEL]
    torch.testing.assert_close(loss, -bound.mean(), rtol=1e-4, atol=1e-4)
    found = {term.name: term.value for term in objective}
    for level, value in enumerate(divergences, start=1):
        torch.testing.assert_close(found[f"kl/z{level}"], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("K", [2, 3])
def test_a_hierarchy_of_one_layer_is_jmvae(K):
    modalities = toy_modalities(K)
    jmvae = toy_model("jmvae", modalities)
    flat = toy_model("hierarchical", modalities, layers=1)
    with torch.no_grad():
        # SumOfProjections keeps (in, out) for each modality, nn.Linear (out, in) for all of them.
        first, (last,) = jmvae.encoder.first, jmvae.encoder.rest
        flat.fusion[0].weight.copy_(torch.cat([first.weights[n][0] for n in modalities]).T)
        flat.fusion[0].bias.copy_(first.bias[0])
        flat.posteriors[0].linear.weight.copy_(last.weight[0].T)
        flat.posteriors[0].linear.bias.copy_(last.bias[0, 0])
        flat.decoders.load_state_dict(jmvae.decoders.state_dict())
        for n, net in flat.encoders.items():
            copies = jmvae.encoder.encoders[n]
            for p, wide in zip(net.parameters(), copies.parameters(), strict=True):
                p.copy_(wide[0].mT if p.dim() == 2 else wide[0])  # wide linear: (in, out)
    x = observations(modalities, 6)
    found = []
    for built in (jmvae, flat):
        torch.manual_seed(3)
        found.append(built.objective(x))
    torch.testing.assert_close(found[0].losses(beta=0.5)[MODEL], found[1].losses(beta=0.5)[MODEL])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.value, other.value)


# Linear-Gaussian models: p(x) is known.


LINEAR = {
    "a": Numbers(size=1, widths=(), deviation=0.8),
    "b": Numbers(size=2, widths=(), deviation=0.8),
}
NOISE = 0.8**2


def bound(built, x, rows=20_000):
    """The Monte Carlo mean of the bound at one observation, and its standard error."""
    many = Batch({n: t.expand(rows, -1) for n, t in x.items()})
    with torch.no_grad():
        draws = torch.stack([-built.objective(many).bound() for _ in range(10)])
    return draws.mean().item(), draws.std().item() / math.sqrt(len(draws))


def joined(x):
    return torch.cat([x["a"], x["b"]], dim=-1)[0]


@pytest.fixture
def linear_jmvae():
    """A JMVAE of two latent dimensions whose exact posterior is diagonal."""
    built = toy_model("jmvae", LINEAR, latent=2, fusion=()).double()
    # Orthogonal columns: then I + WᵀW / noise is diagonal.
    W = torch.tensor([[1.0, 1.0], [0.5, 1.0], [1.0, -1.5]]).double()
    c = torch.tensor([0.3, -0.2, 0.1]).double()
    set_decoders(built, W, c)
    return built, W, c


def observation(*values):
    a, *b = values
    return Batch({"a": torch.tensor([[a]]).double(), "b": torch.tensor([b]).double()})


def test_jmvaes_bound_is_tight_at_the_exact_posterior(linear_jmvae):
    built, W, c = linear_jmvae
    precision = torch.eye(2) + W.T @ W / NOISE
    assert precision[0, 1] == 0
    weight = torch.linalg.solve(precision, W.T / NOISE)
    set_encoder(built.encoder, built.names, weight, -weight @ c, 1 / precision.diagonal())
    marginal = MultivariateNormal(c, W @ W.T + NOISE * torch.eye(3).double())
    torch.manual_seed(0)
    for x in (observation(0.4, -1.0, 2.0), observation(-2.0, 0.1, 0.5)):
        mean, standard_error = bound(built, x)
        assert standard_error < 0.01
        assert abs(mean - marginal.log_prob(joined(x)).item()) < 4 * standard_error + 1e-6


def test_jmvaes_bound_is_below_log_p_at_any_posterior(linear_jmvae):
    built, W, c = linear_jmvae
    marginal = MultivariateNormal(c, W @ W.T + NOISE * torch.eye(3).double())
    x = observation(0.4, -1.0, 2.0)
    gaps = []
    for seed in range(5):
        torch.manual_seed(seed)
        weight, bias = torch.randn(2, 3) / 2, torch.randn(2) / 2
        set_encoder(built.encoder, built.names, weight, bias, torch.rand(2).double() + 0.1)
        mean, standard_error = bound(built, x, rows=5_000)
        gaps.append(marginal.log_prob(joined(x)).item() - mean)
        assert gaps[-1] > -4 * standard_error
    assert max(gaps) > 0.1


@pytest.fixture
def linear_hierarchy():
    """z_2 → z_1 → x, all linear, of one latent dimension a layer."""
    built = toy_model("hierarchical", LINEAR, latent=1, fusion=(), layers=2).double()
    return linear(built, read=3)


def linear(built, read):
    """Makes all of a hierarchy linear; q(z_2|·) reads so many numbers."""
    W = torch.tensor([[1.0], [-0.7], [0.4]]).double()
    c = torch.tensor([0.3, -0.2, 0.1]).double()
    set_decoders(built, W, c)
    # Posteriors are read off x itself or z_1 itself, and p(z_1|z_2) off z_2 itself.
    built.paths[0] = torch.nn.Identity()
    built.posteriors[1] = GaussianHead(read, 1).double()
    built.priors[0] = GaussianHead(1, 1).double()
    return built, W, c


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
    built, W, c = linear_hierarchy
    offset, variance = 0.4, 0.5
    double = torch.float64
    set_head(
        built.priors[0],
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
            built.posteriors[level],
            weight[level : level + 1],
            bias[level : level + 1],
            1 / P[level, level].reshape(1),
        )
    gap = 0.5 * (P.diagonal().log().sum() - P.logdet()).item()
    assert (gap > 0.05) == (slope > 0)
    torch.manual_seed(0)
    for x in (observation(0.4, -1.0, 2.0), observation(-2.0, 0.1, 0.5)):
        mean, standard_error = bound(built, x)
        expected = hierarchy_log_p(x, W, c, slope, offset, variance) - gap
        assert standard_error < 0.01
        assert abs(mean - expected) < 4 * standard_error + 1e-6


def test_the_hierarchical_bound_is_below_log_p_at_any_posterior(linear_hierarchy):
    built, W, c = linear_hierarchy
    x = observation(0.4, -1.0, 2.0)
    gaps = []
    for seed in range(5):
        torch.manual_seed(seed)
        slope, offset, variance = torch.randn(3).double()
        variance = variance.exp()
        set_head(built.priors[0], slope.reshape(1, 1), offset.reshape(1), variance.reshape(1))
        for head in built.posteriors:
            set_head(
                head,
                torch.randn(1, 3).double() / 2,
                torch.randn(1).double(),
                torch.rand(1).double() + 0.1,
            )
        mean, standard_error = bound(built, x, rows=5_000)
        log_p = hierarchy_log_p(x, W, c, slope.item(), offset.item(), variance.item())
        gaps.append(log_p - mean)
        assert gaps[-1] > -4 * standard_error
    assert max(gaps) > 0.1


def test_the_bound_of_a_hierarchy_that_reads_draws_is_tight_at_the_exact_posterior():
    """p(z_1, z_2|x) = p(z_1|x) p(z_2|z_1): unlike independent layers, the chain can hold it."""
    built = toy_model("hierarchical", LINEAR, latent=1, fusion=(), layers=2, bottom_up="sample")
    built, W, c = linear(built.double(), read=1)
    double = torch.float64
    slope, offset, variance = (torch.tensor([v], dtype=double) for v in (0.9, 0.4, 0.5))
    set_head(built.priors[0], slope.reshape(1, 1), offset, variance)
    marginal = slope**2 + variance  # of z_1
    precision = (W.T @ W)[0] / NOISE + 1 / marginal
    weight = W.T / NOISE / precision
    bias = offset / marginal / precision - weight @ c
    set_head(built.posteriors[0], weight, bias, 1 / precision)
    gain = slope / marginal
    set_head(built.posteriors[1], gain.reshape(1, 1), -gain * offset, 1 - slope * gain)
    torch.manual_seed(0)
    for x in (observation(0.4, -1.0, 2.0), observation(-2.0, 0.1, 0.5)):
        mean, standard_error = bound(built, x)
        expected = hierarchy_log_p(x, W, c, slope.item(), offset.item(), variance.item())
        assert standard_error < 0.01
        assert abs(mean - expected) < 4 * standard_error + 1e-6


@torch.no_grad()
def test_a_hierarchy_that_reads_draws_comes_down_from_a_top_that_is_drawn_anew():
    built = toy_model("hierarchical", toy_modalities(2), layers=2, bottom_up="sample").double()
    built.posteriors[1].linear.weight.mul_(30)  # so that z_1 matters
    x = Batch({n: v.double() for n, v in observations(toy_modalities(2), 2).items()})
    q, down = built.posterior(x), built.imputed_posterior(x)
    torch.manual_seed(0)
    climbed, drawn = q.rsample((30_000,))[..., 1, :], down.rsample((30_000,))[..., 1, :]
    error = climbed.std(0) / math.sqrt(30_000)
    assert ((climbed.mean(0) - drawn.mean(0)).abs() < 6 * error).all()
    torch.testing.assert_close(climbed.std(0), drawn.std(0), rtol=0.03, atol=0)
    # One climb for all draws would scatter less.
    one = q.given(q.mean)[1].scale
    assert (drawn.std(0) > 1.02 * one).any()
    with pytest.raises(NotImplementedError):
        down.log_prob(down.mean)


@torch.no_grad()
def test_the_hierarchical_prior_descends_from_a_standard_normal(linear_hierarchy):
    built, _, _ = linear_hierarchy
    double = torch.float64
    slope, offset, variance = (torch.tensor([v], dtype=double) for v in (0.9, 0.4, 0.5))
    set_head(built.priors[0], slope.reshape(1, 1), offset, variance)
    torch.manual_seed(0)
    z = sample_latent(built, Batch({}), 40_000)
    assert z.dtype == double
    assert z.shape == (40_000, 2, 1)
    assert z[:, 0].mean().item() == pytest.approx(0.4, abs=0.03)
    assert z[:, 0].var().item() == pytest.approx(0.9**2 + 0.5, rel=0.04)
    assert z[:, 1].var().item() == pytest.approx(1, rel=0.04)
    centre = sample_latent(built, Batch({}), 2, temperature=0)[:, 0]
    torch.testing.assert_close(centre, offset.expand(2, 1))


# Settings.


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_the_models_own(kind):
    with pytest.raises(ConfigError, match=r"model\.lattent: unknown key; did you mean 'latent'"):
        toy_model(kind, ABC, lattent=3)
    if kind != "jmvae-kl":
        with pytest.raises(ConfigError, match=r"model\.alpha: unknown key"):
            toy_model(kind, ABC, alpha=1.0)
    if kind in JOINT:
        with pytest.raises(ConfigError, match=r"model\.targets: unknown key"):
            toy_model(kind, ABC, targets=["colour"])
