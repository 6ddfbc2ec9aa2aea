"""likelihood_weight: what training looks at more; all that is reported stays what is true."""

import pytest
import torch
from conftest import small
from toys import CPU, FIVE, Numbers, Word, batches, observations, toy_modalities

from mmgen import build
from mmgen.batch import Batch
from mmgen.errors import ConfigError
from mmgen.evaluation.directions import Direction
from mmgen.evaluation.likelihood.estimates import SamplingBudget
from mmgen.evaluation.likelihood.estimators import likelihoods
from mmgen.model import Model, ModelSettings, log_likelihoods
from mmgen.objective import MODEL, Objective, Term
from mmgen.run import load
from mmgen.seeding import random_state
from mmgen.settings import TrainConfig
from mmgen.training.loop import Epoch, Training, fit

REGISTRY = build.registry()
KINDS = tuple(REGISTRY.models)
NAMES = ("colour", "point", "picture")


def weighted(weights):
    changed = {n: FIVE[n].model_copy(update={"likelihood_weight": w}) for n, w in weights.items()}
    return {**toy_modalities(3), **changed}


def built(kind, weights=None, **settings):
    modalities = weighted(weights or {})
    cls = REGISTRY.model(kind)
    own = {"latent": 3, **cls.example_settings(NAMES), **settings}
    torch.manual_seed(0)
    return cls(modalities, cls.Settings(**own))


def asked(model, training=True):
    with random_state(CPU, 3):
        return model.train(training)(observations(toy_modalities(3), 12))


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_and_all_its_terms_stay_what_they_are(kind):
    weights = {"colour": 10.0, "picture": 0.25}
    plain, heavy = (asked(built(kind, w), training=False) for w in ({}, weights))
    assert heavy.bound().item() == pytest.approx(plain.bound().item(), rel=1e-6)
    told = {t.name: t.mean.item() for t in heavy if t.bound}
    assert told == pytest.approx({t.name: t.mean.item() for t in plain if t.bound})
    assert heavy.losses()[MODEL].item() != pytest.approx(plain.losses()[MODEL].item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["jmvae", "jmvae-kl", "hierarchical", "mvae", "mopoe", "mvtcae"])
def test_a_loss_has_the_log_likelihoods_with_their_weights(kind):
    weights = {"colour": 10.0, "picture": 0.25}
    objective = asked(built(kind, weights), training=False)
    plain = asked(built(kind), training=False)
    more = sum(
        (weights[t.about[0]] - 1) * t.weight * t.mean.item()
        for t in plain
        if t.weight < 0 and len(t.about) == 1 and t.about[0] in weights
    )
    expected = plain.losses()[MODEL].item() + more
    assert objective.losses()[MODEL].item() == pytest.approx(expected, rel=1e-5)


def test_a_gradient_has_the_weight_and_a_weight_of_0_leaves_none():
    def gradients(weight):
        model = built("jmvae", {"colour": weight})
        asked(model).losses()[MODEL].backward()
        return {n: p.grad for n, p in model.named_parameters()}

    one, ten, none = map(gradients, (1.0, 10.0, 0.0))
    for name in one:
        if name.startswith("decoders.colour"):
            torch.testing.assert_close(ten[name], 10 * one[name])
            assert not none[name].any()
        elif name.startswith("decoders."):
            assert ten[name].equal(one[name])
    assert any(not ten[n].equal(one[n]) for n in one if n.startswith("encoder"))


def test_a_random_subset_of_mvae_is_weighed_within():
    """In training, one bound more than in validation: of two modalities of the three."""
    weights = {"colour": 10.0, "picture": 0.25}
    plain, heavy = (asked(built("mvae", w)) for w in ({}, weights))
    (term,) = (t for t in plain if t.name == "random/1")
    (weighed,) = (t for t in heavy if t.name == "random/1")
    assert term.about == weighed.about  # the same draw
    model = built("mvae", dict.fromkeys(NAMES, 7.0))
    alike = next(t for t in asked(model) if t.name == "random/1")
    torch.testing.assert_close(alike.value, 7 * term.value)
    assert alike.emphasis == 1
    assert not torch.allclose(weighed.value, term.value)


def test_mmvae_trains_the_weighted_bound_and_reports_the_true_one():
    weights = {"colour": 10.0}
    plain, heavy = (built("mmvae", w, samples=1) for w in ({}, weights))
    before, after = asked(plain), asked(heavy)
    # For K = 1 there is no logarithm of a mean: the log-likelihood counts ten times.
    (colour,) = (t for t in before if t.name == "reconstruction/colour")
    expected = before.losses()[MODEL].item() - 9 * colour.mean.item()
    assert after.losses()[MODEL].item() == pytest.approx(expected, rel=1e-5)
    assert after.bound().item() == pytest.approx(before.bound().item(), rel=1e-6)
    after.losses()[MODEL].backward()
    before.losses()[MODEL].backward()
    grads = [dict(m.named_parameters()) for m in (plain, heavy)]
    for name in (n for n in grads[0] if n.startswith("decoders.colour")):
        torch.testing.assert_close(grads[1][name].grad, 10 * grads[0][name].grad)


class Lumped(Model):
    """All log-likelihoods are one term, which no weight of one modality can reach."""

    kind = "lumped"
    api_version = 1

    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        self.shift = torch.nn.Parameter(torch.zeros(settings.latent))

    def prior(self, given):
        raise NotImplementedError

    def posterior(self, x):
        return None

    def objective(self, x):
        z = self.shift.expand(x.rows, -1)
        total = torch.stack(list(log_likelihoods(self, x, z).values())).sum(0)
        return Objective([Term("all", total, -1.0, about=self.names)])


def test_a_model_that_could_not_heed_a_weight_says_so():
    x = observations(toy_modalities(3), 4)
    assert len(Lumped(toy_modalities(3), ModelSettings(latent=2))(x)) == 1
    model = Lumped(weighted({"point": 2.0}), ModelSettings(latent=2))
    with pytest.raises(ConfigError, match=r"modalities.point.likelihood_weight = 2: .* a lumped"):
        model(x)


def test_the_best_epoch_is_that_of_the_true_bound():
    """Training with weights, the validation loss is that of the same weights without."""
    model = built("jmvae", {"colour": 50.0})
    training = Training(model, TrainConfig(epochs=3, batch_size=8, device="cpu"), CPU)
    data = batches(model.modalities, 24), batches(model.modalities, 16, seed=1)
    epochs = [item for item in fit(training, *data) if isinstance(item, Epoch)]
    last = epochs[-1].validation
    parts = [-last[f"reconstruction/{n}"] for n in NAMES]
    assert last["loss"] == pytest.approx(sum(parts) + last["kl/prior"], rel=1e-5)
    assert training.best == min(e.validation["loss"] for e in epochs)


def test_likelihoods_are_those_of_weight_1():
    estimates = []
    for weights in ({}, {"colour": 10.0}):
        model = built("jmvae-kl", weights).eval()
        rows = batches(model.modalities, 8).split
        budget = SamplingBudget(samples=3, importance=5)
        estimates.append(likelihoods(model, rows, [Direction(("colour",), ("point",))], budget))
    first, second = ([e.values for e in each] for each in estimates)
    assert len(first) == len(second) > 1
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))


def test_a_label_is_learned_that_a_loud_neighbour_drowns():
    """30 numbers that share a factor, a label, a z of one number: the weight decides for which."""
    loud = Numbers(size=30, widths=(), deviation=1.0)
    gains = []
    for weight in (1.0, 100.0):
        modalities = {"loud": loud, "label": Word(likelihood_weight=weight)}
        cls = REGISTRY.model("jmvae")
        torch.manual_seed(1)
        model = cls(modalities, cls.Settings(latent=1))
        config = TrainConfig(learning_rate=0.02, warmup_epochs=0, device="cpu")
        training = Training(model, config, CPU)
        factor = torch.randn(60, 1, generator=torch.Generator().manual_seed(2))
        label = modalities["label"].observe(torch.arange(60) % 3)
        x = Batch({"loud": factor.expand(60, 30), "label": label})
        for _ in range(250):
            training.step(x, 1.0)
        with random_state(CPU, 0), torch.no_grad():
            z = model.posterior(x).rsample((50,))
            gains.append(log_likelihoods(model, x, z)["label"].mean().item())
    assert gains[0] < -1.0  # about −log 3: the label is not in z
    assert gains[1] > -0.2


# As a setting.


def test_every_kind_has_it_and_init_explains_it(mmgen, small_glyphs, tmp_path):
    file = tmp_path / "new.toml"
    assert mmgen("init", small_glyphs, "--out", file)[0] == 0
    assert file.read_text().count("likelihood_weight = 1") == 3  # or 10, where a kind recommends it
    assert file.read_text().count("# of log p(x | z) in training; all that is reported") == 3


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e31", "much"])
def test_a_weight_is_a_number_from_0(mmgen, small_glyphs, tmp_path, value):
    words = [*small(small_glyphs, 1), f"modalities.label.likelihood_weight={value}"]
    code, _, err = mmgen("train", "examples/glyphs.toml", *words, "--out", tmp_path / "run")
    assert code == 2
    assert "modalities.label.likelihood_weight: Input should be" in " ".join(err.split())
    assert not (tmp_path / "run").exists()


def test_a_weight_is_kept_with_the_run_and_cannot_change_later(mmgen, small_glyphs, tmp_path):
    run = tmp_path / "run"
    words = [*small(small_glyphs, 1), "modalities.label.likelihood_weight=10"]
    train = ("train", "examples/glyphs.toml", *words, "--out", run, "--no-figures")
    assert mmgen(*train)[0] == 0
    assert load(run, device="cpu").modalities["label"].likelihood_weight == 10
    more = ("--resume", "train.epochs=2", "modalities.label.likelihood_weight=3", "--no-figures")
    code, _, err = mmgen("train", run, *more)
    assert code == 2
    assert "other settings of modalities.label.likelihood_weight" in " ".join(err.split())
