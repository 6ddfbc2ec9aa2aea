"""JMVAE-kl made affordable: shared trunks, products of experts, and a few subsets a step."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from by_hand import kl, moments
from toys import (
    FIVE,
    Numbers,
    batches,
    differing,
    gradients,
    made,
    observations,
    toy_modalities,
    toy_model,
    training,
)

from mmgen.batch import Batch
from mmgen.errors import ConfigError
from mmgen.inference.bound import evidence_bound
from mmgen.inference.divergence import subset_divergences
from mmgen.latent.encoder import SubsetEncoder
from mmgen.latent.gaussian import gaussian
from mmgen.models.jmvae import JMVAEKL
from mmgen.nets.by_modality import ByModality
from mmgen.objective import MODEL
from mmgen.subsets import name, proper
from mmgen.training import run_folder
from mmgen.training.loop import Epoch, fit
from mmgen.training.memory import training_memory

ABC = {n: FIVE[n] for n in ("colour", "point", "picture")}
NAMES = tuple(ABC)
HOW = ("separate", "shared", "product")


def drawing(n, how="separate", modalities=ABC, **settings):
    """A small model that draws n subsets in each step."""
    return toy_model("jmvae-kl", modalities, subset_encoder=how, subsets_per_step=n, **settings)


def double(x):
    return Batch({n: values.double() for n, values in x.items()})


def seeded(model, x):
    torch.manual_seed(3)
    return model.objective(x)


def loss_and_gradients(model, x):
    model.zero_grad(set_to_none=True)
    loss = seeded(model, x).losses(beta=0.5)[MODEL]
    loss.backward()
    return loss.detach(), gradients(model)


# What a step sums over.


@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("how", HOW)
def test_the_mean_over_all_choices_is_the_sum_over_all_subsets(how, n, monkeypatch):
    model, x = drawing(n, how, fusion=(4,)).double(), double(observations(ABC, 5))
    choice = list(model.subsets)
    monkeypatch.setattr(model, "_subsets_of_step", lambda: choice)
    loss, full = loss_and_gradients(model, x)
    assert all(g.abs().sum() > 0 for g in full.values())

    losses, total, count = 0.0, {key: torch.zeros_like(g) for key, g in full.items()}, 0
    for drawn in combinations(model.subsets, n):
        choice[:] = drawn
        one, each = loss_and_gradients(model, x)
        losses, count = losses + one, count + 1
        for key, gradient in each.items():
            total[key] += 0 if gradient is None else gradient
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(losses / count, loss, **close)
    for key, gradient in full.items():
        torch.testing.assert_close(total[key] / count, gradient, **close)


@pytest.mark.parametrize("how", HOW)
def test_weights_apart_give_the_loss_that_they_give_in_one_tensor(how):
    one, other = toy_model("jmvae-kl", ABC, subset_encoder=how).eval(), drawing(2, how).eval()
    copy_apart(one, other)
    x = observations(ABC, 6)
    torch.testing.assert_close(*(seeded(m, x).losses()[MODEL] for m in (one, other)))


def copy_apart(one, other):
    """Gives weights that are apart the values that they have in one tensor of all."""
    theirs = one.encoder
    with torch.no_grad():
        other.decoders.load_state_dict(one.decoders.state_dict())
        ours = other.encoder
        for weights, mine in (
            (theirs.first.bias, ours.first.bias),
            *((theirs.first.weights[n], ours.first.weights[n]) for n in NAMES),
            *((a.weight, b.weight) for a, b in zip(theirs.rest, ours.rest, strict=True)),
            *((a.bias, b.bias) for a, b in zip(theirs.rest, ours.rest, strict=True)),
        ):
            for p, value in zip(mine, weights, strict=True):
                p.copy_(value)
        for n in NAMES:
            nets = list(theirs.encoders[n].parameters())
            if hasattr(ours.encoders[n], "nets"):
                for copy, net in enumerate(ours.encoders[n].nets):
                    for p, wide in zip(net.parameters(), nets, strict=True):
                        # A wide linear layer holds (in, out).
                        p.copy_(wide[copy].mT if p.dim() == 2 else wide[copy])
            else:
                for p, value in zip(ours.encoders[n].parameters(), nets, strict=True):
                    p.copy_(value)


def test_every_choice_is_as_likely_and_has_no_subset_twice():
    model = drawing(2)
    torch.manual_seed(0)
    draws = [tuple(model._subsets_of_step()) for _ in range(3000)]
    counts = Counter(draws)
    assert set(counts) == set(combinations(model.subsets, 2))
    # Of 15 choices each a share of 1/15: 200 ± 14.
    assert max(abs(count - 200) for count in counts.values()) < 5 * 14


def test_the_choice_follows_torchs_random_state():
    model = drawing(2)

    def drawn(seed):
        torch.manual_seed(seed)
        return [model._subsets_of_step() for _ in range(5)]

    assert drawn(0) == drawn(0) != drawn(1)
    torch.manual_seed(0)
    model._subsets_of_step()
    state = torch.get_rng_state()
    following = model._subsets_of_step()
    torch.set_rng_state(state)
    assert model._subsets_of_step() == following


@pytest.mark.parametrize("how", HOW)
def test_validation_counts_all_subsets(how):
    model, x = drawing(2, how).eval(), observations(ABC, 6)
    objective = {term.name: term for term in model.objective(x)}
    state = torch.get_rng_state()
    with torch.no_grad():
        each = subset_divergences(model, x, 6)
    torch.set_rng_state(state)
    assert list(each) == proper(NAMES)
    assert objective["subsets"].mean.item() == pytest.approx(sum(each.values()), rel=1e-5)
    assert model._subsets_of_step() == model.subsets


# What a step leaves alone.


@pytest.mark.parametrize("how", HOW)
def test_a_step_leaves_all_of_what_it_did_not_draw_as_it_was(how, monkeypatch):
    state = training(
        "jmvae-kl",
        ABC,
        {"subset_encoder": how, "subsets_per_step": 2, "fusion": [4]},
        weight_decay=0.1,
        gradient_clip=1.0,
    )
    model, draws = state.model, []
    drawn = model._subsets_of_step
    monkeypatch.setattr(model, "_subsets_of_step", lambda: draws.append(drawn()) or draws[-1])
    names = {id(p): n for n, p in model.named_parameters()}
    torch.manual_seed(1)
    seen = Counter()
    for x in batches(ABC, 64).epoch(0, 0):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        moments_before = {
            names[id(p)]: {key: value.clone() for key, value in values.items()}
            for p, values in state.optimisers[MODEL].state.items()
        }
        state.step(x, 1.0)
        ran = [*model._encoded(draws[-1]), model.names]
        used = {n for n in before if uses(model.encoder, n, ran)}
        changed = {*differing(before, dict(model.named_parameters()))}
        assert changed == used
        seen.update(used)
        for p, values in state.optimisers[MODEL].state.items():
            n = names[id(p)]
            if n not in used:
                assert differing(moments_before[n], values) == []
    # All are drawn at times, the joint encoder's always, and momentum had been there to move them.
    assert {*seen} == {*names.values()}
    assert max(seen.values()) == len(draws) == 8
    assert how == "product" or min(seen.values()) < 8


def uses(encoder, parameter, ran):
    """Whether a parameter takes part where some subsets are encoded."""
    part, _, rest = parameter.partition(".")
    if part != "encoder":
        return True
    words = rest.split(".")
    if words[0] == "encoders":
        n, kind, copy = words[1:4]  # of a trunk, the layer
        return kind == "net" or encoder.subsets[encoder.members[n][int(copy)]] in ran
    if words[:2] == ["first", "weights"]:
        n, copy = words[2:]
        return encoder.subsets[encoder.members[n][int(copy)]] in ran
    return encoder.subsets[int(words[-1])] in ran


@pytest.mark.parametrize("how", HOW)
def test_a_training_that_was_cut_ends_as_one_that_was_not(how, tmp_path):
    settings = {"subset_encoder": how, "subsets_per_step": 2}

    def fresh():
        return training("jmvae-kl", ABC, settings, epochs=2)

    data, validation = batches(ABC, 40), batches(ABC, 16, seed=1)
    whole = fresh()
    torch.manual_seed(0)
    epochs = [item for item in fit(whole, data, validation) if isinstance(item, Epoch)]

    cut = fresh()
    torch.manual_seed(0)
    going = fit(cut, data, validation)
    for _ in range(3):
        next(going)
    run_folder.save_checkpoint(tmp_path, cut)
    going.close()
    torch.manual_seed(77)
    again = fresh()
    run_folder.resume(tmp_path, again, len(data))
    resumed = [item for item in fit(again, data, validation) if isinstance(item, Epoch)]
    assert differing(whole.model.state_dict(), again.model.state_dict()) == []
    assert [e.train for e in resumed] == [e.train for e in epochs]
    assert [e.validation for e in resumed] == [e.validation for e in epochs]
    assert {"subsets", "loss"} < {*epochs[0].train}


# What q(z | x_S) is.


def test_a_product_is_the_prior_and_one_expert_of_each_member():
    model = toy_model("jmvae-kl", ABC, subset_encoder="product").double()
    x = double(observations(ABC, 5))
    experts = {n: moments(model.encoder(x, (n,))[0]) for n in NAMES}
    term = {t.name: t.value for t in seeded(model, x)}
    q = model.posterior(x)
    for subset in proper(NAMES):
        precision = 1 + sum(1 / experts[n][1] for n in subset)
        mean = sum(experts[n][0] / experts[n][1] for n in subset) / precision
        found = model.posterior(x.select(subset))
        torch.testing.assert_close(found.mean, mean)
        torch.testing.assert_close(found.variance, 1 / precision)
        divergence = kl(q.mean, q.variance, mean, 1 / precision)
        torch.testing.assert_close(term[f"subset/{name(subset)}"], divergence)
    # The joint posterior is none: an encoder of its own.
    torch.testing.assert_close((q.mean, q.variance), moments(model.encoder(x, NAMES)[0]))


def test_experts_are_only_of_what_is_in_a_subset():
    model = toy_model("jmvae-kl", ABC, subset_encoder="product", subsets=["colour", "colour+point"])
    assert model.encoder.subsets == (("colour",), ("point",), NAMES)
    x = observations(ABC, 2)
    assert model.posterior(x.select(["colour", "point"])) is not None
    assert model.posterior(x.select(["point"])) is None  # its KL is no part of the objective
    assert [copies for copies, _ in model.encoder_nets()] == [2, 2, 1]


@pytest.mark.parametrize("n", [None, 6])
def test_without_a_gradient_of_subsets_shared_nets_learn_as_if_there_were_none(n):
    x = double(observations(ABC, 5))
    for subset_gradient in (False, True):
        settings = {"subset_encoder": "shared", "subset_gradient": subset_gradient}
        model = toy_model("jmvae-kl", ABC, **settings, subsets_per_step=n).double()
        found = []
        for alpha in (0.0, 1.0):
            model.alpha = alpha
            found.append(loss_and_gradients(model, x)[1])
        without, beside = found
        for key, gradient in without.items():
            if key.startswith(("decoders.", "encoder.encoders.")):
                same = torch.allclose(beside[key], gradient, rtol=1e-9, atol=1e-12)
                assert same != (subset_gradient and key.startswith("encoder.")), key


# How many there are.


@pytest.mark.parametrize("K", [2, 3, 5])
@pytest.mark.parametrize("per_step", [None, 2])
def test_parameters_are_those_of_the_formula(K, per_step):
    modalities = {f"m{k}": Numbers(size=2, widths=(3,)) for k in range(K)}
    M, F, P = 2 * 3 + 3, 3, 2 * 4
    members = 2 ** (K - 1) * K  # of all subsets together

    def posterior(how):
        settings = {"subset_encoder": how, "subsets_per_step": per_step}
        model = made("jmvae-kl", modalities, latent=4, **settings)
        nets = sum(copies for copies, _ in model.encoder_nets())
        return nets, sum(p.numel() for p in model.encoder.parameters())

    projections = members * F * P + (2**K - 1) * P
    assert posterior("separate") == (members, members * M + projections)
    assert posterior("shared") == (K, K * M + projections)
    assert posterior("product") == (2 * K, 2 * K * (M + F * P) + (K + 1) * P)


@pytest.mark.parametrize("n", [None, 3])
@pytest.mark.parametrize("how", HOW)
def test_a_model_of_eight_modalities_steps_on_the_meta_device(how, n):
    modalities = {f"m{k}": Numbers() for k in range(8)}
    with torch.device("meta"):
        model = made("jmvae-kl", modalities, latent=4, subset_encoder=how, subsets_per_step=n)
    assert len(model.subsets) == 254
    assert training_memory(model, modalities, 10).step > 0
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_a_step_encodes_no_more_than_it_drew(monkeypatch):
    modalities = {f"m{k}": Numbers() for k in range(8)}
    model = made("jmvae-kl", modalities, latent=4, subsets_per_step=3)
    ran = Counter()
    for copies in model.encoder.encoders.children():
        for net in copies.nets:
            net.register_forward_hook(lambda *_: ran.update(["net"]))
    torch.manual_seed(0)
    drawn = model._subsets_of_step()
    torch.manual_seed(0)
    model.objective(observations(modalities, 4))
    assert ran["net"] == sum(len(s) for s in drawn) + 8


# What stays as it was.


def test_without_the_new_settings_objective_and_weights_are_what_they_were():
    """The objective as it was written before there was a choice, to the last bit."""
    torch.manual_seed(0)
    model = made("jmvae-kl", ABC, latent=3, fusion=(7,))
    torch.manual_seed(0)
    decoders = ByModality({n: m.decoder(3) for n, m in ABC.items()})
    encoder = SubsetEncoder(ABC, [*proper(NAMES), NAMES], 6, (7,))
    plain = {
        **{f"decoders.{n}": p for n, p in decoders.named_parameters()},
        **{f"encoder.{n}": p for n, p in encoder.named_parameters()},
    }
    assert differing(dict(model.named_parameters()), plain) == []

    x = observations(ABC, 5)
    found = seeded(model, x)
    torch.manual_seed(3)
    h = encoder(x)
    q = gaussian(h[-1])
    z = q.rsample()
    expected = [term.value for term in evidence_bound(model, x, q, z)]
    expected += [*torch.distributions.kl_divergence(q, gaussian(h[:-1]))]
    for term, value in zip(found, expected, strict=True):
        assert torch.equal(term.value, value)


# Settings.


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ConfigError, match=r'subset_posterior = "flow": .*product'):
        toy_model("jmvae-kl", ABC, subset_encoder="product", subset_posterior="flow")
    with pytest.raises(ConfigError, match=r"subsets_per_step = 7: there are only 6 subsets"):
        drawing(7)
    with pytest.raises(ConfigError, match=r"subsets_per_step = 1: there are only 0 subsets"):
        drawing(1, subsets="none")
    with pytest.raises(ConfigError, match=r"model\.subsets_per_step"):
        drawing(0)
    with pytest.raises(ConfigError, match=r"model\.subset_encoder"):
        drawing(1, "trunk")


def test_variants_are_settings_that_fit_any_number_of_modalities():
    for settings in JMVAEKL.variants.values():
        for K in (2, 3):
            made("jmvae-kl", toy_modalities(K), latent=2, **settings)
