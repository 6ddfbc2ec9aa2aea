import math
from dataclasses import replace

import pytest
import torch
from torch import _dynamo as dynamo
from torch import nn
from torch.distributions import Distribution
from toys import (
    KINDS,
    REGISTRY,
    batches,
    differing,
    experiment,
    observations,
    on_gpu,
    toy_modalities,
    training,
)

from mmgen import build
from mmgen.batch import Batch
from mmgen.errors import ConfigError, RunError
from mmgen.model import ParameterGroup
from mmgen.objective import MODEL, Objective, Term, prior_kl
from mmgen.seeding import random_state
from mmgen.settings import TrainConfig
from mmgen.training.loop import Epoch, Step, Training, adam, evaluate, fit

CPU = torch.device("cpu")


class Fake(nn.Module):
    """A model of one weight whose terms say which rows it saw."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def parameter_groups(self):
        return {MODEL: ParameterGroup([*self.parameters()])}

    def forward(self, x):
        return Objective([*self.terms(x)])

    def terms(self, x):
        yield Term("mean", x["point"] + 0 * self.weight)
        yield Term("training", torch.full((x.rows,), float(self.training)), weight=0)
        # Of which the loss tells β.
        yield Term("warm", torch.zeros(x.rows) + 1, warmed_up=True)


class Given:
    """Batches of given values, in their order."""

    def __init__(self, *values):
        self.values = [torch.tensor(v) for v in values]

    def __len__(self):
        return len(self.values)

    def epoch(self, seed, epoch, start=0):
        for value in self.values[start:]:
            yield Batch({"point": value})


def betas(state):
    """Notes the weight of the warm-up at every step."""
    noted, step = [], state.step

    def watched(x, progress, *share):
        terms = step(x, progress, *share)
        noted.append((terms["loss"] - terms["mean"]).item())
        return terms

    state.step = watched
    return noted


def config(**settings):
    return TrainConfig(**{"epochs": 2, "device": "cpu", **settings})


def weights(state):
    return {n: t.clone() for n, t in state.model.state_dict().items()}


# What fit yields.


def test_fit_yields_a_step_after_each_batch_and_an_epoch_after_the_last():
    state = Training(Fake(), config(), CPU)
    items = list(fit(state, Given([1.0], [2.0], [3.0])))
    kinds = [type(item) for item in items]
    assert kinds == [Step, Step, Epoch, Step, Step, Epoch]
    assert items[0] == Step(epoch=1, batch=1, batches=3)
    assert items[4] == Step(epoch=2, batch=2, batches=3)
    assert [item.epoch for item in items if isinstance(item, Epoch)] == [1, 2]
    assert (state.epoch, state.batch, state.rows, state.sums) == (2, 0, 0, None)


def test_means_are_over_observations_however_uneven_the_last_batch_is():
    state = Training(Fake(), config(epochs=1), CPU)
    *_, epoch = fit(state, Given([1.0, 1.0, 1.0, 1.0], [6.0]), Given([2.0, 4.0], [9.0]))
    assert epoch.train["mean"] == pytest.approx(2.0)  # 10 / 5, not (1 + 6) / 2
    assert epoch.train["loss"] == pytest.approx(2.0 + 1.0)
    assert epoch.validation["mean"] == pytest.approx(5.0)  # 15 / 3, not (3 + 9) / 2


def test_weights_learn_in_train_mode_and_are_validated_in_eval_mode():
    state = Training(Fake(), config(), CPU)
    for item in fit(state, Given([1.0], [2.0]), Given([1.0])):
        if isinstance(item, Epoch):
            assert item.train["training"] == 1
            assert item.validation["training"] == 0


def test_warmup_raises_beta_linearly_over_its_epochs_and_then_leaves_it_at_one():
    state = Training(Fake(), config(epochs=4, warmup_epochs=2), CPU)
    noted = betas(state)
    epochs = [e for e in fit(state, Given([1.0], [2.0]), Given([1.0])) if isinstance(e, Epoch)]
    # Two steps an epoch; in validation β is 1 from the start.
    assert noted == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    assert [e.beta for e in epochs] == pytest.approx([0.5, 1, 1, 1])
    assert [e.validation["loss"] for e in epochs] == pytest.approx([2, 2, 2, 2])


def test_without_warmup_beta_is_one():
    state = Training(Fake(), config(warmup_epochs=0), CPU)
    noted = betas(state)
    list(fit(state, Given([1.0])))
    assert noted == [1, 1]


class Losing(Fake):
    """Loses what it is told to, at each validation, or at each step if there is none."""

    def __init__(self, *losses, always=False):
        super().__init__()
        self.losses, self.always = iter(losses), always

    def terms(self, x):
        told = self.always or not self.training
        loss = torch.tensor([next(self.losses)]) if told else x["point"]
        yield Term("told", loss + 0 * self.weight)


def test_best_says_whether_the_validation_loss_is_the_lowest_so_far():
    state = Training(Losing(3.0, 2.0, 2.0, 2.5, 1.0), config(epochs=5), CPU)
    # The training loss is always the same: the validation's decides.
    epochs = [e for e in fit(state, Given([1.0]), Given([1.0])) if isinstance(e, Epoch)]
    assert [e.best for e in epochs] == [True, True, False, False, True]


def test_without_a_validation_split_the_last_epoch_is_the_best():
    state = Training(Losing(3.0, 2.0, 4.0, always=True), config(epochs=3), CPU)
    epochs = [e for e in fit(state, Given([1.0])) if isinstance(e, Epoch)]
    assert [e.best for e in epochs] == [True, True, True]
    assert epochs[0].validation == {}


def test_one_validation_that_is_not_a_number_does_not_end_the_search_for_the_best():
    state = Training(Losing(3.0, math.nan, 2.0, 1.0), config(epochs=4), CPU)
    epochs = [e for e in fit(state, Given([1.0]), Given([1.0])) if isinstance(e, Epoch)]
    assert [e.best for e in epochs] == [True, False, True, True]


def test_the_best_is_chosen_by_the_bound_alone():
    """An adversary's loss, which rises as the model gets better, has no say."""

    class Played(Losing):
        def terms(self, x):
            (told,) = super().terms(x)
            yield told
            yield Term("adversarial", 100 * (5 - told.value), bound=False)

    state = Training(Played(3.0, 2.0, 2.5), config(epochs=3), CPU)
    epochs = [e for e in fit(state, Given([1.0]), Given([1.0])) if isinstance(e, Epoch)]
    assert [e.best for e in epochs] == [True, True, False]
    assert [e.validation["loss"] for e in epochs] == [3, 2, 2.5]


def test_a_training_that_is_done_yields_nothing():
    state = Training(Fake(), config(), CPU)
    state.epoch = 2
    assert list(fit(state, Given([1.0]))) == []


def test_a_term_that_is_not_finite_ends_the_training_and_is_named():
    class Broken(Fake):
        def terms(self, x):
            yield prior_kl(torch.tensor([math.inf]), "")
            yield Term("reconstruction/a", torch.ones(1) + 0 * self.weight)

    with pytest.raises(RunError, match=r"epoch 1: kl/prior is no longer a finite number"):
        list(fit(Training(Broken(), config(), CPU), Given([1.0])))


# Steps.


def test_the_step_descends_the_gradient_of_the_loss():
    class Square(Fake):
        def terms(self, x):
            yield Term("square", ((self.weight - 3) ** 2).expand(1))

    state = Training(Square(), config(learning_rate=0.1), CPU)
    for _ in range(100):
        state.step(Batch({}), 1.0)
    assert state.model.weight.item() == pytest.approx(3, abs=0.05)


def test_gradients_are_clipped_together():
    class Steep(Fake):
        def __init__(self):
            nn.Module.__init__(self)
            self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

        def terms(self, x):
            yield Term("steep", (300 * self.a + 400 * self.b).expand(1))

    clipped = Training(Steep(), config(gradient_clip=5.0), CPU)
    clipped.step(Batch({}), 1.0)
    assert (clipped.model.a.grad.item(), clipped.model.b.grad.item()) == pytest.approx((3, 4))
    free = Training(Steep(), config(), CPU)
    free.step(Batch({}), 1.0)
    assert (free.model.a.grad.item(), free.model.b.grad.item()) == (300, 400)


def test_each_number_of_a_gradient_is_clipped_after_the_norm_of_all():
    class Steep(Fake):
        def __init__(self):
            nn.Module.__init__(self)
            self.a, self.b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(()))
            self.unused = nn.Parameter(torch.zeros(()))

        def terms(self, x):
            yield Term("steep", (self.a @ torch.tensor([3.0, -300.0]) + 400 * self.b).expand(1))

    def clipped(**settings):
        state = Training(Steep(), config(**settings), CPU)
        state.step(Batch({}), 1.0)
        assert state.model.unused.grad is None
        return [*state.model.a.grad.tolist(), state.model.b.grad.item()]

    norm = (3**2 + 300**2 + 400**2) ** 0.5
    after_norm = 5 / norm * 3  # in the other order it would be 1
    assert clipped(gradient_clip_value=1.0) == [1, -1, 1]
    both = clipped(gradient_clip=5.0, gradient_clip_value=1.0)
    assert both == pytest.approx([after_norm, -1, 1], rel=1e-4)
    assert clipped(gradient_clip_value=350.0) == [3, -300, 350]


class Duel(Fake):
    """Two groups of parameters whose losses both read both, as in an adversarial game."""

    def __init__(self, **optimiser):
        nn.Module.__init__(self)
        self.x, self.y = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(5.0))
        self.unused = nn.Parameter(torch.tensor(1.0))
        self.optimiser = optimiser

    def parameter_groups(self):
        second = ParameterGroup([self.y, self.unused], self.optimiser)
        return {"first": ParameterGroup([self.x]), "second": second}

    def terms(self, x):
        product = (self.x * self.y).expand(1)
        yield Term("theirs", product, trains=("first",))
        yield Term("ours", product, weight=-3, trains=("second",), bound=False)


def test_each_group_gets_the_gradient_of_its_own_loss_at_the_same_weights():
    state = Training(Duel(), config(learning_rate=0.5), CPU)
    terms = state.step(Batch({}), 1.0)
    model = state.model
    assert model.x.grad.item() == 5  # d(xy)/dx, without −3y of the other's loss
    assert model.y.grad.item() == -6  # d(−3xy)/dy at the old x
    assert model.unused.grad is None
    # Adam's first step has the learning rate's size: one goes down, the other up.
    assert (model.x.item(), model.y.item()) == pytest.approx((1.5, 5.5))
    values = {n: value.item() for n, value in terms.items()}
    assert values == {"theirs": 10, "ours": 10, "loss/first": 10, "loss/second": -30, "loss": 10}
    state.step(Batch({}), 1.0)
    assert model.x.grad.item() == 5.5  # not added to the last


def test_each_groups_gradient_is_clipped_by_its_own_norm():
    state = Training(Duel(), config(gradient_clip=1.0), CPU)
    state.step(Batch({}), 1.0)
    assert (state.model.x.grad.item(), state.model.y.grad.item()) == pytest.approx((1, -1))


def test_a_group_has_an_optimiser_of_its_own():
    state = Training(Duel(lr=0.1, betas=(0.5, 0.9)), config(learning_rate=0.5, epochs=2), CPU)
    state.step(Batch({}), 1.0)
    assert (state.model.x.item(), state.model.y.item()) == pytest.approx((1.5, 5.1))
    assert state.optimisers["second"].param_groups[0]["betas"] == (0.5, 0.9)
    # A schedule lowers each from its own.
    cosine = config(learning_rate=0.5, epochs=2, schedule="cosine")
    state = Training(Duel(lr=0.1), cosine, CPU)
    state.step(Batch({}), 1.0)
    rates = [state.optimisers[n].param_groups[0]["lr"] for n in ("first", "second")]
    assert rates == pytest.approx([0.25, 0.05])


def test_the_optimiser_is_adam_with_the_experiments_settings():
    settings = config(learning_rate=0.2, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.1)
    optimiser = adam(ParameterGroup([nn.Parameter(torch.ones(()))]), settings)
    assert type(optimiser) is torch.optim.Adam
    (group,) = optimiser.param_groups
    found = [group[n] for n in ("lr", "betas", "eps", "weight_decay")]
    assert found == [0.2, (0.5, 0.6), 1e-3, 0.1]


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_keeps_weights_losses_and_terms_in_float32(kind):
    modalities = toy_modalities(3)
    x = observations(modalities, 8)
    terms = {}
    for precision in ("float32", "bfloat16"):
        state = training(kind, modalities, precision=precision)
        torch.manual_seed(0)
        terms[precision] = state.step(x, 1.0)
        assert {t.dtype for t in terms[precision].values()} == {torch.float32}
        assert {p.dtype for p in state.model.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in state.model.parameters()} == {torch.float32}
    full, half = terms["float32"]["loss"].item(), terms["bfloat16"]["loss"].item()
    assert half != full
    assert half == pytest.approx(full, rel=0.05)


def test_a_compiled_objective_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda f: asked.append(f) or f)
    modalities = toy_modalities(2)
    state = training("jmvae", modalities, compile=True)
    state.step(observations(modalities, 4), 1.0)
    assert asked == [state.model]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls(kind):
    modalities = toy_modalities(3)
    state = training(kind, modalities, epochs=25, batch_size=16, learning_rate=1e-2)
    epochs = [e for e in fit(state, batches(modalities, 32, 16)) if isinstance(e, Epoch)]
    assert epochs[-1].train["loss"] < 0.85 * epochs[0].train["loss"]


# Reproducibility.


@pytest.mark.parametrize("kind", KINDS)
def test_two_trainings_of_one_seed_are_equal_bit_for_bit(kind):
    modalities = toy_modalities(3)

    def trained(seed):
        state = training(kind, modalities, seed=seed)
        metrics = [e for e in fit(state, batches(modalities, 20)) if isinstance(e, Epoch)]
        return weights(state), metrics[-1].train

    first, second, other = trained(0), trained(0), trained(1)
    assert differing(first[0], second[0]) == []
    assert first[1] == second[1]
    assert len(differing(first[0], other[0])) > 0


def test_validation_leaves_the_trainings_random_state_alone():
    modalities = toy_modalities(3)

    def trained(validation):
        state = training("jmvae-kl", modalities)
        list(fit(state, batches(modalities, 20), validation))
        return weights(state)

    without = trained(None)
    assert differing(without, trained(batches(modalities, 12, seed=1))) == []


def test_validation_has_the_same_noise_at_every_call():
    modalities = toy_modalities(3)  # the grid is drawn anew at each look
    state = training("jmvae-kl", modalities)
    data = batches(modalities, 12)
    torch.manual_seed(1)
    first = evaluate(state, data)
    torch.manual_seed(2)
    assert evaluate(state, data) == first
    other = Training(state.model, state.config.model_copy(update={"seed": 5}), CPU)
    assert evaluate(other, data) != first


def test_validation_weighs_the_prior_by_one_and_leaves_no_gradient():
    modalities = toy_modalities(3)
    state = training("jmvae", modalities)
    terms = evaluate(state, batches(modalities, 12))
    expected = terms["kl/prior"] - sum(terms[f"reconstruction/{n}"] for n in modalities)
    assert list(terms) == [*(f"reconstruction/{n}" for n in modalities), "kl/prior", "loss"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)
    assert all(p.grad is None for p in state.model.parameters())


def test_a_seeded_random_state_is_put_back_even_after_an_error():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with random_state(CPU, 3):
        drawn = torch.rand(3)
    with random_state(CPU, 3):
        assert torch.equal(torch.rand(3), drawn)
    with pytest.raises(ZeroDivisionError), random_state(CPU, 3):
        _ = torch.rand(3).sum().item() / 0
    assert torch.equal(torch.get_rng_state(), before)


def test_each_epoch_has_an_order_of_its_own():
    modalities = toy_modalities(2)
    seen = []
    state = training("jmvae", modalities)
    step = state.step
    state.step = lambda x, *how: seen.append(x["point"]) or step(x, *how)
    list(fit(state, batches(modalities, 24, 8)))
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(0).values, second.sort(0).values)


def test_time_and_speed_are_measured():
    state = Training(Fake(), config(epochs=1), CPU)
    (epoch,) = fit(state, Given([1.0, 2.0]))
    assert epoch.seconds > 0
    assert epoch.examples_per_second >= 2 / epoch.seconds
    assert replace(epoch, seconds=0.0).train == epoch.train


# Devices.


def test_auto_takes_the_accelerator_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert build.device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert build.device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert build.device("auto") == torch.device("cuda:3")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x"])
def test_a_device_that_is_not_there_is_an_error(name):
    with pytest.raises(ConfigError, match=r"train\.device"):
        build.device(name, "train.device")


@on_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_trains_on_the_gpu(kind, precision):
    modalities, device = toy_modalities(3), build.device("cuda")
    state = training(
        kind, modalities, device=device, epochs=20, batch_size=16, precision=precision,
        learning_rate=1e-2,
    )  # fmt: skip
    train = batches(modalities, 32, 16, device=device)
    validation = batches(modalities, 12, 16, seed=1, device=device)
    epochs = [e for e in fit(state, train, validation) if isinstance(e, Epoch)]
    assert epochs[-1].train["loss"] < 0.9 * epochs[0].train["loss"]
    assert {p.device.type for p in state.model.parameters()} == {"cuda"}


@on_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_never_waits_for_the_gpu(kind):
    modalities, device = toy_modalities(3), build.device("cuda")
    state = training(kind, modalities, device=device)
    x = Batch({n: t.to(device) for n, t in observations(modalities, 8).items()})
    state.step(x, 0.5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        terms = state.step(x, 0.5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert terms["loss"].isfinite()


@on_gpu
def test_validation_on_the_gpu_leaves_the_random_state_alone():
    modalities, device = toy_modalities(3), build.device("cuda")
    state = training("jmvae-kl", modalities, device=device)
    data = batches(modalities, 12, device=device)
    before = torch.cuda.get_rng_state(device)
    assert evaluate(state, data) == evaluate(state, data)
    assert torch.equal(torch.cuda.get_rng_state(device), before)


def test_the_resolved_namedfixes_the_warmup():
    modalities = toy_modalities(2)
    named = experiment("jmvae", modalities, epochs=40)
    settings = build.model_settings(named, REGISTRY)
    resolved = build.resolved(named, modalities, settings)
    assert resolved.train.warmup_epochs == 4
    longer = resolved.train.model_copy(update={"epochs": 80})
    assert longer.warmup == 4


def test_the_cosine_schedule_lowers_the_step_size_to_zero():
    state = Training(Fake(), config(epochs=4, learning_rate=0.2, schedule="cosine"), CPU)
    group = state.optimisers["model"].param_groups[0]
    rates = [group["lr"] for _ in fit(state, Given([1.0], [2.0]))]
    expected = [0.1 * (1 + math.cos(math.pi * step / 8)) for step in range(1, 9)]
    assert rates == pytest.approx(expected)
    constant = Training(Fake(), config(epochs=4, learning_rate=0.2), CPU)
    assert constant.learning_rate(3.9) == 0.2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_step_is_the_plain_one(kind, monkeypatch):
    # torch turns it off when it compiles.
    monkeypatch.setattr(Distribution, "_validate_args", Distribution._validate_args)
    dynamo.reset()
    dynamo.utils.counters.clear()
    modalities = toy_modalities(3)
    x, found = observations(modalities, 8), {}
    # Noise is drawn as torch draws it, not by the compiler's own generator.
    with torch._inductor.config.patch(fallback_random=True):
        for compiled in (False, True):
            state = training(kind, modalities, compile=compiled)
            torch.manual_seed(0)
            terms = state.step(x, 0.5)
            found[compiled] = (terms, weights(state))
    torch.testing.assert_close(found[True], found[False], rtol=1e-5, atol=1e-5)
    # All of the objective is one graph.
    assert not dynamo.utils.counters["graph_break"]
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 1
