"""A critic beside any model: who learns from what, and that nothing of the model itself changes."""

import pytest
import torch
import torch.nn.functional as F
import toys
from torch import nn
from toys import batches, differing, gradients, observations, toy_modalities, toy_model, training

from mmgen import build
from mmgen.adversarial import ACCURACY, CRITIC, GENERATOR, Adversarial, critic, with_critic
from mmgen.cli import epochs
from mmgen.errors import ConfigError
from mmgen.gallery import diagnostics
from mmgen.gallery.curves import curves
from mmgen.inference.terms import terms
from mmgen.objective import MODEL
from mmgen.registry.loading import Registry
from mmgen.testing import parametrize_with_checks
from mmgen.training import nonfinite
from mmgen.training.loop import Epoch, NotFiniteError, Step, evaluate, fit
from mmgen.training.memory import nets, training_memory
from mmgen_experts import mmgen_models as experts
from mmgen_image import Image

GAME = {"modality": "picture", "channels": (4,), "widths": (6,)}
EVERY = Registry((), models={cls.kind: cls for cls in [*toys.REGISTRY.models.values(), *experts()]})


def judged(kind="jmvae-kl", count=3, **game):
    settings = {"adversarial": {**GAME, **game}}
    if kind in toys.ONE_WAY:
        settings["targets"] = ["picture"]
    return toy_model(kind, toy_modalities(count), **settings)


def objective(model, x):
    torch.manual_seed(3)
    return model(x)


@parametrize_with_checks(
    *(with_critic(cls) for cls in toys.REGISTRY.models.values()),
)
def test_models_with_a_critic_keep_the_contract(model, check):
    check(model)


@pytest.mark.parametrize("kind", EVERY.models)
def test_any_model_keeps_its_own_terms_and_gradients(kind, monkeypatch):
    monkeypatch.setattr(toys, "REGISTRY", EVERY)
    modalities = toy_modalities(3)
    one_way = {"targets": ["picture"]} if kind in toys.ONE_WAY else {}
    plain = toy_model(kind, modalities, **one_way).double()
    model = toy_model(kind, modalities, adversarial=GAME, **one_way).double()
    assert isinstance(model, type(plain))
    own = plain.state_dict()
    assert differing(own, {k: v for k, v in model.state_dict().items() if k in own}) == []
    x = observations(modalities, 6).select(plain.names)
    x = type(x)({n: v.double() for n, v in x.items()})
    before, after = objective(plain, x), objective(model, x)
    for term, same in zip(before, after, strict=False):
        assert term.name == same.name
        torch.testing.assert_close(term.value, same.value)
    torch.testing.assert_close(after.bound(), before.bound())
    before.losses()[MODEL].backward()
    groups = model.parameter_groups()
    after.losses()[MODEL].backward(inputs=list(groups[MODEL].parameters))
    expected, found = gradients(plain), gradients(model)
    generator = {id(p) for p in groups[GENERATOR].parameters}
    for name, p in model.named_parameters():
        if id(p) in generator or name.startswith("critic."):
            assert found[name] is None
        else:
            torch.testing.assert_close(found[name], expected[name])


def test_groups_share_the_parameters_out():
    model = judged()
    groups = model.parameter_groups()
    assert list(groups) == [MODEL, GENERATOR, CRITIC]
    found = [id(p) for group in groups.values() for p in group.parameters]
    assert sorted(found) == sorted(map(id, model.parameters()))
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)].split(".")[0] for p in groups[CRITIC].parameters} == {"critic"}
    decoder = {names[id(p)] for p in groups[GENERATOR].parameters}
    assert all(name.startswith("decoders.picture.") for name in decoder)
    assert groups[GENERATOR].optimiser == {"lr": 1e-4, "betas": (0.5, 0.999)}
    losses = objective(model, observations(toy_modalities(3), 5)).losses()
    assert list(losses) == [MODEL, GENERATOR, CRITIC]


def test_the_losses_are_the_equations():
    """−λ log p(x|z) + softplus(−D(G)) and softplus(−D(x)) + softplus(D(G)), over both fakes."""
    modalities = toy_modalities(3)
    model = judged("jmvae", likelihood_weight=0.25).double()
    x = observations(modalities, 7)
    x = type(x)({n: v.double() for n, v in x.items()})
    found = objective(model, x)

    torch.manual_seed(3)  # the same draws: first z given x, then z of the prior
    z = model.posterior(x).rsample()
    imagined = model.decode(model.prior(x).sample((7,)))["picture"].mean
    p = model.decode(z)["picture"]
    real, *fake = (model.critic(v) for v in (x["picture"], p.mean, imagined))
    log_p = p.log_prob(x["picture"])
    generator = -0.25 * log_p + sum(F.softplus(-d) for d in fake) / 2
    critics = F.softplus(-real) + sum(F.softplus(d) for d in fake) / 2
    losses = found.losses()
    torch.testing.assert_close(losses[GENERATOR], generator.mean(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(losses[CRITIC], critics.mean(), rtol=1e-6, atol=1e-6)
    right = ((real > 0).double() + sum((d < 0).double() for d in fake) / 2) / 2
    torch.testing.assert_close(found.means()["adversarial/accuracy"], right.mean())


def test_where_fakes_are_drawn_is_a_setting():
    seen = []
    model = judged("hierarchical", sample_z="uniform")
    model.decoders["picture"].register_forward_pre_hook(lambda _, h: seen.append(*h))
    objective(model, observations(toy_modalities(3), 50))
    assert len(seen) == 2
    assert seen[1].abs().max() <= 1 < seen[0].abs().max()


def test_running_statistics_are_those_of_the_reconstructions():
    image = Image(height=8, width=8, net="convolution", convolution_channels=(3, 4),
                  likelihood="gaussian", batch_norm=True)  # fmt: skip
    modalities = {"picture": image, **toy_modalities(1)}
    x = observations(modalities, 9)
    states = []
    for game in (None, GAME):
        model = toy_model("jmvae", modalities, adversarial=game).train()
        objective(model, x)
        states.append({n: b for n, b in model.named_buffers() if "running" in n})
        momenta = {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
        assert momenta == {0.1}
    assert len(states[0]) > 2
    assert differing(*states) == []


def test_training_moves_every_group_and_goes_on_bit_for_bit():
    modalities = toy_modalities(3)
    split = batches(modalities, 24)
    settings = {"adversarial": GAME}
    whole = training("jmvae-kl", modalities, settings, epochs=2)
    first = {n: p.clone() for n, p in whole.model.named_parameters()}
    assert all(isinstance(item, Step | Epoch) for item in fit(whole, split, split))
    assert {n for n, p in whole.model.named_parameters() if torch.equal(first[n], p)} == set()
    measured = evaluate(whole, split)
    told = terms(whole.model)
    assert {*told} == {*measured} - {"loss", "loss/generator", "loss/critic"}
    bound = sum(t.weight * measured[n] for n, t in told.items() if t.bound)
    assert measured["loss"] == pytest.approx(bound, rel=1e-5)
    assert 0 <= measured["adversarial/accuracy"] <= 1


def test_a_critic_that_breaks_is_found():
    modalities = toy_modalities(3)
    state = training("jmvae", modalities, {"adversarial": GAME})
    with torch.no_grad():
        state.model.critic[0].weight[0, 0, 0, 0] = float("nan")
    split = batches(modalities, 16)
    broken = {n: v.clone() for n, v in state.model.state_dict().items()}
    with pytest.raises(NotFiniteError, match="adversarial/"):
        list(fit(state, split))
    again = training("jmvae", modalities, {"adversarial": GAME})
    again.model.load_state_dict(broken)
    finding = nonfinite.locate(again, split)
    assert finding.what == "the output of the net critic.0"


def test_the_plan_knows_the_critic():
    modalities = toy_modalities(3)
    registry = toys.REGISTRY
    sizes = []
    for game in ({}, {"adversarial": GAME}):
        model = build.sketch(toys.experiment("jmvae", modalities, game), modalities, registry)
        sizes.append(training_memory(model, modalities, 8).step)
        listed = {net.name: net.parameters for net in nets(model)}
    assert sizes[1] > 1.2 * sizes[0]
    assert listed["critic"] == sum(p.numel() for p in model.critic.parameters())


def test_the_paper_s_critic():
    net = critic((3, 64, 64), (64, 128, 256, 256), (1024,))
    assert [p.shape[0] for n, p in net.named_parameters() if n.endswith("weight")] == [
        64, 128, 256, 256, 1024, 1,
    ]  # fmt: skip
    assert net(torch.zeros(5, 3, 64, 64)).shape == (5,)
    assert {m.negative_slope for m in net if isinstance(m, nn.LeakyReLU)} == {0.01}
    # Of what is no picture, linear layers; of a small one, as many convolutions as fit.
    assert critic((9,), (64,), (5,))(torch.zeros(2, 9)).shape == (2,)
    assert critic((1, 6, 3), (8, 8, 8), ())(torch.zeros(2, 1, 6, 3)).shape == (2,)


def test_what_is_not_generated_cannot_be_judged():
    modalities = toy_modalities(3)
    with pytest.raises(ConfigError, match=r"colour, point, picture, not 'pictur'; did you mean"):
        toy_model("jmvae", modalities, adversarial={"modality": "pictur"})
    with pytest.raises(ConfigError, match="generates point, not 'picture'"):
        toy_model("cvae", modalities, targets=["point"], adversarial=GAME)


def test_who_wins_is_told_in_the_progress_and_in_the_report():
    model = judged()
    told = terms(model)
    values = dict.fromkeys(told, 1.0) | {"loss": 5.0, ACCURACY: 0.93}
    epoch = Epoch(1, 1.0, values, {}, 1.0, 100.0, best=False)
    assert "  accuracy 93%  " in epochs.line(epoch, 9, told).plain
    # What trains others is no part of the subsets' KL, of which there are six.
    assert epochs._short(values, told)["subsets"] == "6.00"
    metrics = [{"epoch": n, "beta": 1.0, "train": values, "validation": {}} for n in range(1, 4)]
    assert diagnostics.of_training(metrics, told, 3, "run") == []
    won = [{**m, "train": {**values, ACCURACY: 0.99}} for m in metrics]
    (found,) = diagnostics.of_training(won, told, 3, "run")
    assert found.title == "The critic wins"
    assert "at least 99% of cases" in found.text
    drawn = curves(metrics, told)
    (panel,) = [p for p in drawn.panels if p.title == "how often the critic is right"]
    assert panel.summary == "how often the critic is right over the epochs; at the end train 0.93"


def test_the_report_s_words():
    model = judged()
    assert isinstance(model, Adversarial)
    assert model.equation[-1].startswith("and a critic D")
    assert model.about().endswith("A critic judges each picture that is generated.")
