"""The checks of models: first-party ones pass; each is proved on a model that breaks just it."""

import math
import random
import re
from typing import ClassVar

import pytest
import torch
from pydantic import ConfigDict, field_serializer
from torch import nn
from torch.distributions import Normal

from mmgen.batch import Batch
from mmgen.errors import PluginError
from mmgen.hooks import hookimpl
from mmgen.inference.bound import evidence_bound
from mmgen.latent.gaussian import DiagonalGaussian, gaussian, standard_normal
from mmgen.model import Directions, Model, ModelSettings, ParameterGroup, log_likelihoods
from mmgen.models import CMMA, CVAE, JMVAE, JMVAEKL, Hierarchical
from mmgen.nets.by_modality import ByModality
from mmgen.nets.dry_run import features
from mmgen.objective import Objective, Term, prior_kl, reconstruction
from mmgen.registry.loading import load
from mmgen.testing import (
    CHECKS,
    MODEL_CHECKS,
    Setup,
    check_plugin,
    parametrize_with_checks,
    run_checks,
)
from mmgen.testing.model import evidence, toys
from mmgen_experts import MMVAE, MVAE, MVTCAE, MoPoE


@parametrize_with_checks(JMVAE, JMVAEKL, Hierarchical, CVAE, CMMA)
def test_first_party_models_keep_the_contract(model, check):
    check(model)


@pytest.mark.ci
@parametrize_with_checks(
    Setup(JMVAEKL, {"subsets": "none"}),
    Setup(JMVAEKL, {"subsets": "single", "fusion": (7,)}),
    Setup(JMVAEKL, {"subset_posterior": "flow", "flow_widths": (9,)}),
    Setup(JMVAEKL, {"subset_posterior": "full"}),
    Setup(JMVAEKL, {"subset_posterior": "mixture", "fusion": (7,)}),
    Setup(JMVAEKL, {"subset_posterior": "mixture", "mixture_covariance": "low-rank"}),
    Setup(JMVAEKL, {"subset_gradient": False}),
    Setup(Hierarchical, {"layers": 1}),
    Setup(Hierarchical, {"layers": 3, "widths": (9,)}),
    Setup(Hierarchical, {"bottom_up": "mean", "layers": 3, "widths": (9,)}),
    Setup(Hierarchical, {"bottom_up": "sample", "widths": (9,)}),
    Setup(Hierarchical, {"bottom_up": "sample", "layers": 3, "widths": (9,)}),
)
def test_first_party_models_keep_the_contract_with_other_settings(model, check):
    check(model)


@pytest.mark.ci
@parametrize_with_checks(MVAE, MMVAE, MoPoE, MVTCAE, Setup(MMVAE, {"gradient": "iwae"}))
def test_models_of_experts_keep_the_contract(model, check):
    check(model)


class Plain(Model):
    """One encoder for all modalities: what the broken ones are made of."""

    kind: ClassVar[str] = "plain"
    api_version: ClassVar[int] = 1

    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        self.encoders = self.nets({n: m.encoder() for n, m in modalities.items()})
        sizes = [features(self.encoders[n], m.shape) for n, m in modalities.items()]
        self.head = nn.Linear(sum(sizes), 2 * self.latent)

    def nets(self, nets):
        return ByModality(nets)

    def encode(self, x):
        h = torch.cat([self.encoders[n](x[n]) for n in self.names], dim=-1)
        return gaussian(self.head(h), "q(z | x)")

    def prior(self, given):
        return standard_normal(self.latent, like=self.like)

    def posterior(self, x):
        return self.encode(x) if {*x} == {*self.names} else None

    def terms(self, x):
        q = self.encode(x)
        return evidence_bound(self, x, q, q.rsample())

    def objective(self, x):
        return Objective(self.terms(x))


class Conditioned(Plain):
    """The first modality from the others; decoders read z alone."""

    kind: ClassVar[str] = "conditioned"

    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        first, *rest = self.names
        self.targets, self.directions = (first,), Directions(tuple(rest), (first,))
        self.decoders = ByModality({first: modalities[first].decoder(self.latent)})


class Changing(Plain):
    """Its terms go through a function of the subclass."""

    def objective(self, x):
        return Objective(self.changed(term, x) for term in self.terms(x))


def with_value(term, value, weight=None):
    weight = term.weight if weight is None else weight
    return Term(term.name, value, weight, term.warmed_up, term.about, term.trains, term.bound)


@parametrize_with_checks(Plain, Conditioned)
def test_healthy_models_pass(model, check):
    check(model)


# Each broken model, the check that is to catch it, and a word of what the check must say.
BROKEN: list[tuple[type[Model], str, str]] = []


def caught_by(check: str, words: str):
    def record(cls):
        BROKEN.append((cls, check, words))
        return cls

    return record


@caught_by("settings", "unknown: missing")
class Unset(Plain):
    class Settings(ModelSettings):
        """Attributes:
        latent: Z.
        unknown: Nobody says what it is.
        """

        unknown: int


@caught_by("settings", "does not explain mystery")
class Unexplained(Plain):
    class Settings(ModelSettings):
        mystery: int = 3


@caught_by("settings", 'keep extra="forbid"')
class Lenient(Plain):
    class Settings(ModelSettings):
        model_config = ConfigDict(extra="ignore")


@caught_by("settings", "fields that JSON can hold")
class Lossy(Plain):
    class Settings(ModelSettings):
        """Attributes:
        weights: Two numbers.
        """

        weights: tuple[int, ...] = (1, 2)

        @field_serializer("weights")
        def _first_alone(self, weights):
            return weights[:1]


@caught_by("description", "give a tuple of texts")
class OneText(Plain):
    equation = "log p(x | z)"


@caught_by("description", "correct the formula")
class Miscounted(Plain):
    @classmethod
    def encoder_count(cls, settings, modalities):
        return 2 * modalities


@caught_by("description", "no docstring")
class Untold(Plain):
    pass


@caught_by("directions", "set self.directions")
class Undirected(Conditioned):
    """A model that forgets to say that it is conditional."""

    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        self.directions = None


@caught_by("directions", "share no modality")
class ToItself(Conditioned):
    """A model that generates what it is given."""

    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        self.directions = Directions(self.names, self.targets)


@caught_by("directions", "generates() does not follow directions")
class Overstated(Conditioned):
    """A model that says it can do all."""

    def generates(self, given, targets):
        return True


@caught_by("prior", "give a mmgen.latent.base.Latent")
class TorchPrior(Plain):
    def prior(self, given):
        return Normal(torch.zeros(self.latent), 1.0)


@caught_by("prior", "not () and (Z,)")
class OneRow(Plain):
    def prior(self, given):
        return standard_normal(1, self.latent, like=self.like)


@caught_by("prior", "write how it is called")
class Nameless(Plain):
    def prior(self, given):
        return super().prior(given).named("")


@caught_by("posterior", "must encode all of them")
class Blind(Plain):
    def posterior(self, x):
        return None


@caught_by("posterior", "raised KeyError; return None")
class Demanding(Plain):
    def posterior(self, x):
        return self.encode(x)


@caught_by("posterior", "not (1,) and (Z,)")
class Averaged(Plain):
    def encode(self, x):
        q = super().encode(x)
        return DiagonalGaussian(q.loc.mean(0), q.scale.mean(0), q.symbol)


@caught_by("posterior", "distributions of the same z")
class TwoLayers(Plain):
    def prior(self, given):
        return standard_normal(2 * self.latent, like=self.like)


@caught_by("posterior", "go through self.names")
class AsItComes(Plain):
    def encode(self, x):
        h = torch.cat([self.encoders[n](x[n]) * (i + 1) for i, n in enumerate(x)], dim=-1)
        return gaussian(self.head(h), "q(z | x)")


@caught_by("posterior", "posterior() of nothing gave a distribution")
class Anyway(Plain):
    def posterior(self, x):
        return super().posterior(x) if x else self.prior(x)


@caught_by("decode", "flatten all batch dimensions")
class Mixed(Plain):
    def decode(self, z, given=None, names=None):
        if z.dim() > 2:
            z = z.flatten(0, -2).flip(0).reshape(z.shape)
        return super().decode(z, given, names)


@caught_by("decode", "see mmgen.nets.unflattened")
class FlatOnly(Plain):
    def decode(self, z, given=None, names=None):
        return super().decode(z.flatten(0, -2), given, names)


@caught_by("decode", "give those that are asked for")
class Generous(Plain):
    def decode(self, z, given=None, names=None):
        return super().decode(z, given)


@caught_by("generation", "make them agree")
class Disagreeing(Plain):
    def encode_each(self, x):
        return {n: self.encoders[n](x[n]) for n in x}

    def join(self, encoded):
        return gaussian(2 * self.head(torch.cat([*encoded.values()], -1)), "q(z | x)")


@caught_by("generation", "all distributions of z are of one shape")
class Narrower(Plain):
    def imputed_posterior(self, x):
        q = self.encode(x)
        return DiagonalGaussian(q.loc[:, :2], q.scale[:, :2], q.symbol)


class Fevered(DiagonalGaussian):
    def tempered(self, temperature):
        return self


@caught_by("temperature", "multiplies all noise")
class Hot(Plain):
    def prior(self, given):
        p = super().prior(given)
        return Fevered(p.loc, p.scale, p.symbol)


@caught_by("temperature", "the mean is (), not the shape of z")
class Meaning(Plain):
    def encode(self, x):
        class Total(DiagonalGaussian):
            mean = property(lambda self: self.loc.sum())

        q = super().encode(x)
        return Total(q.loc, q.scale, q.symbol)


class Unnormalised(DiagonalGaussian):
    def log_prob(self, value):
        return super().log_prob(value) + self.scale.log().sum(-1)


@caught_by("densities", "make log_prob(), rsample() and tempered() fit")
class NoDensity(Plain):
    def encode(self, x):
        q = super().encode(x)
        return Unnormalised(q.loc, q.scale, q.symbol)


@caught_by("densities", "posterior() of word, point: the density")
class WidelyDrawn(Plain):
    def encode(self, x):
        class Wide(DiagonalGaussian):
            def rsample(self, sample_shape=()):
                return DiagonalGaussian(self.loc, self.scale**2 / 2).rsample(sample_shape)

        q = super().encode(x)
        return Wide(q.loc, q.scale, q.symbol)


@caught_by("objective", "give a number per row, (B,)")
class Scalar(Changing):
    def changed(self, term, x):
        return with_value(term, term.value.mean())


@caught_by("objective", "the same terms in the same order")
class Fickle(Plain):
    def objective(self, x):
        return Objective(self.terms(x)[: 1 + x.rows % 2])


@caught_by("objective", "give a finite number, not a tensor")
class TensorWeight(Changing):
    def changed(self, term, x):
        return with_value(term, term.value, torch.tensor(term.weight))


@caught_by("objective", "parameter_groups() has model")
class Stranger(Changing):
    def changed(self, term, x):
        return Term(term.name, term.value, term.weight, trains=("critic",))


@caught_by("objective", "are no modalities")
class Rumour(Changing):
    def changed(self, term, x):
        return Term(term.name, term.value, term.weight, about=("sound",))


@caught_by("finite", "guard logarithms, divisions")
class Infinite(Changing):
    def changed(self, term, x):
        return with_value(term, 1 / (term.value - term.value) if term.warmed_up else term.value)


@caught_by("finite", "of rows 10 times as far is not finite")
class Explosive(Plain):
    def encode(self, x):
        q = super().encode(x)
        return DiagonalGaussian(q.loc, (10 * q.loc.square()).exp(), q.symbol)


@caught_by("finite", "has a gradient of")
class Rooted(Changing):
    def changed(self, term, x):
        return with_value(term, term.value + (term.value - term.value).sqrt())


@caught_by("gradients", "draws without gradients: rsample()")
class Unreparameterised(Plain):
    def terms(self, x):
        q = self.encode(x)
        decoded = log_likelihoods(self, x, q.sample())
        return [reconstruction(n, log_p) for n, log_p in decoded.items()]


@caught_by("gradients", "unused.weight'] gets no gradient")
class Unused(Plain):
    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        self.unused = nn.Linear(2, 2)


@caught_by("gradients", "is in 0 of the groups decoders")
class Ungrouped(Plain):
    def parameter_groups(self):
        return {"decoders": ParameterGroup(list(self.decoders.parameters()))}

    def objective(self, x):
        return Objective(
            Term(t.name, t.value, t.weight, t.warmed_up, t.about, ("decoders",))
            for t in self.terms(x)
        )


@caught_by("gradients", "is in 2 of the groups model, critic")
class Shared(Plain):
    def parameter_groups(self):
        every = super().parameter_groups()
        return {**every, "critic": every["model"]}


@caught_by("gradients", "no term trains the group critic")
class Idle(Plain):
    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        self.critic = nn.Linear(2, 2)

    def parameter_groups(self):
        critic = list(self.critic.parameters())
        rest = [p for p in self.parameters() if all(p is not other for other in critic)]
        return {"model": ParameterGroup(rest), "critic": ParameterGroup(critic)}


@caught_by("rows", "a mean over the batch")
class Expanded(Changing):
    def changed(self, term, x):
        return with_value(term, term.value.mean().expand(x.rows))


@caught_by("rows", "do not follow their rows")
class Shifted(Changing):
    def changed(self, term, x):
        return with_value(term, term.value * torch.arange(x.rows))


@caught_by("rows", "normalise over the row")
class Normalised(Plain):
    def encode(self, x):
        q = super().encode(x)
        return DiagonalGaussian(q.loc - q.loc.mean(0), q.scale, q.symbol)


@caught_by("repeatable", "draw all noise from torch")
class PythonNoise(Changing):
    def changed(self, term, x):
        return with_value(term, term.value + random.random())


@caught_by("repeatable", "different first weights")
class Restless(Plain):
    number = 0

    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        Restless.number += 1
        with torch.no_grad():
            self.head.bias.fill_(self.number)


@caught_by("state", "count nothing in plain attributes")
class Counting(Changing):
    steps = 0

    def changed(self, term, x):
        self.steps += 1
        return with_value(term, term.value * min(1, self.steps / 100))


@caught_by("state", "count nothing in plain attributes")
class Annealed(Changing):
    weight = 1.0

    def changed(self, term, x):
        self.weight *= 0.99
        return with_value(term, term.value, self.weight * term.weight)


@caught_by("state", "register_buffer")
class HiddenTensor(Plain):
    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        self.shift = torch.randn(self.latent)

    def encode(self, x):
        q = super().encode(x)
        return DiagonalGaussian(q.loc + self.shift.to(q.loc), q.scale, q.symbol)


@caught_by("names", "not in a ModuleDict")
class Dictionary(Plain):
    def nets(self, nets):
        return nn.ModuleDict(nets)


@caught_by("names", "not in a ModuleDict")
class Attributes(Plain):
    def nets(self, nets):
        for n, net in nets.items():
            setattr(self, n, net)
        return {n: getattr(self, n) for n in nets}


@caught_by("dtypes", "it does not run in float64")
class SinglePrecision(Plain):
    def encode(self, x):
        q = super().encode(x)
        mixing = torch.eye(self.latent, device=q.loc.device)
        return DiagonalGaussian(q.loc @ mixing, q.scale, q.symbol)


@caught_by("dtypes", "in float64 the term")
class Casting(Changing):
    def changed(self, term, x):
        return with_value(term, term.value.float())


@caught_by("dtypes", "leave it for densities")
class HalfPrecision(Plain):
    def encode(self, x):
        h = torch.cat([self.encoders[n](x[n]) for n in self.names], dim=-1)
        mean, raw = self.head(h).chunk(2, -1)
        return DiagonalGaussian(mean, raw.exp(), "q(z | x)")

    def terms(self, x):
        q = self.encode(x)
        kl = 0.5 * (q.loc**2 + q.scale**2 - 1 - 2 * q.scale.log()).sum(-1).to(q.loc.dtype)
        return [*evidence_bound(self, x, q, q.rsample())[:-1], prior_kl(kl, "KL")]


@caught_by("devices", "make tensors with device=self.like.device")
class AtHome(Changing):
    def changed(self, term, x):
        return with_value(term, term.value + torch.zeros(x.rows))


@caught_by("devices", "it does not run on another device")
class Synchronising(Changing):
    def changed(self, term, x):
        return with_value(term, term.value if term.value.mean().item() < 1e9 else 0 * term.value)


@caught_by("devices", "prior() left the device")
class HomePrior(Plain):
    def prior(self, given):
        return DiagonalGaussian(torch.zeros(self.latent), torch.ones(self.latent), "p(z)")

    def terms(self, x):
        q = self.encode(x)
        decoded = log_likelihoods(self, x, q.rsample())
        return [reconstruction(n, log_p) for n, log_p in decoded.items()]


@caught_by("globals", "torch's seed")
class Seeding(Plain):
    def objective(self, x):
        torch.manual_seed(3)
        return super().objective(x)


@caught_by("globals", "torch's default dtype")
class DoublesEverything(Plain):
    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        torch.set_default_dtype(torch.float64)


@caught_by("globals", "work on a copy")
class InPlace(Plain):
    def objective(self, x):
        for value in x.values():
            value.mul_(2)
        return super().objective(x)


ONCE = nn.Linear(3, 3)


@caught_by("globals", "not once for all")
class OnceForAll(Plain):
    def __init__(self, modalities, settings):
        super().__init__(modalities, settings)
        self.once = ONCE


@caught_by("pickle", "write no get_extra_state()")
class ExtraState(Plain):
    def get_extra_state(self):
        return {"steps": 3}

    def set_extra_state(self, state):
        pass


@caught_by("incomplete_rows", "give it a mask")
class Careless(Plain):
    """Says that rows may lack modalities, and counts them all the same."""

    incomplete_rows = True

    def terms(self, x):
        return super().terms(Batch(x.tensors))


@caught_by("incomplete_rows", "depends on what stands where nothing is")
class ReadsWhatIsAbsent(Plain):
    """Masks its likelihoods, but encodes zeros as if they were values."""

    incomplete_rows = True


@caught_by("learns", "of a log-likelihood the weight is −1")
class WrongWay(Changing):
    def changed(self, term, x):
        return with_value(term, term.value, -term.weight)


@caught_by("learns", "of a log-likelihood the weight is −1")
class WrongWayFromOthers(Conditioned):
    def objective(self, x):
        return Objective(with_value(term, term.value, -term.weight) for term in self.terms(x))


@caught_by("evidence", "bound=False")
class HalfKL(Changing):
    def changed(self, term, x):
        return with_value(term, term.value / 2 if term.warmed_up else term.value)


@caught_by("evidence", "bound=False")
class MeanOfValues(Changing):
    """Averages over the numbers of a modality instead of summing, as a mean squared error does."""

    def changed(self, term, x):
        size = x[term.about[0]][0].numel() if term.about else 1
        return with_value(term, term.value / size)


@caught_by("evidence", "importance weights average")
class AnotherPosterior(Plain):
    """Hands out a posterior that it did not train."""

    def posterior(self, x):
        q = super().posterior(x)
        return q and DiagonalGaussian(q.loc + 3, 0.3 * q.scale, q.symbol)


@caught_by("evidence", "importance weights average")
class Improper(Plain):
    """Its prior's density does not integrate to 1, by a constant that ratios do not show."""

    def prior(self, given):
        class Improperly(DiagonalGaussian):
            def log_prob(self, value):
                return super().log_prob(value) + math.log(2)

        p = super().prior(given)
        return Improperly(p.loc, p.scale, p.symbol)


@pytest.mark.parametrize(
    ("cls", "check", "words"), BROKEN, ids=lambda v: getattr(v, "__name__", "")
)
def test_a_broken_model_is_caught_with_a_message_that_helps(cls, check, words):
    [function] = [each for each in MODEL_CHECKS if each.__name__ == f"check_{check}"]
    before = torch.get_default_dtype()
    try:
        with pytest.raises(AssertionError, match=re.escape(words)) as caught:
            function(Setup(cls))
    finally:
        torch.set_default_dtype(before)
    message = str(caught.value)
    assert len(message) < 500
    assert "tensor([" not in message


def test_every_check_is_proved_to_catch_something():
    assert {f"check_{check}" for _, check, _ in BROKEN} == {c.__name__ for c in MODEL_CHECKS}


@pytest.fixture
def hurried(monkeypatch):
    """Trains for fewer steps."""
    monkeypatch.setattr(evidence, "STEPS", 3)
    monkeypatch.setattr(evidence, "FEW", 3)
    monkeypatch.setattr(evidence, "DRAWS", 50)


@pytest.mark.usefixtures("hurried")
def test_checks_leave_the_caller_s_random_numbers_alone_and_repeat_themselves():
    before = torch.get_rng_state(), random.getstate()
    first = run_checks(Expanded)
    assert (torch.equal(before[0], torch.get_rng_state()), random.getstate()) == (True, before[1])
    assert run_checks(Expanded) == first
    assert [result.name for result in first if not result.passed][:1] == ["description"]


class Crashing(Plain):
    """Its code raises."""

    def prior(self, given):
        raise LookupError("no such net")


@pytest.mark.usefixtures("hurried")
def test_results_for_the_command_line_hold_every_check_and_raise_nothing():
    results = {result.name: result for result in run_checks(Crashing)}
    assert [f"check_{name}" for name in results] == [check.__name__ for check in MODEL_CHECKS]
    assert results["prior"].message.startswith(f"raised LookupError: no such net ({__file__}, line")
    assert results["settings"].passed


SAVED = """
import pickle
from test_model_conformance import Plain, hookimpl

class Saved(Plain):
    kind = "saved"
    api_version = 1

@hookimpl
def mmgen_models():
    return [Saved]
"""


def test_pickle_is_found_in_the_source_of_a_plugin(tmp_path):
    (tmp_path / "saved.py").write_text(SAVED)
    cls = load([str(tmp_path / "saved.py")]).model("saved")
    [check] = [each for each in MODEL_CHECKS if each.__name__ == "check_pickle"]
    with pytest.raises(AssertionError, match="its module uses pickle; files of pickles run code"):
        check(Setup(cls))


@pytest.mark.usefixtures("hurried")
def test_a_plugin_s_modalities_and_models_are_checked_by_kind_and_by_file():
    by_file = check_plugin(__file__)
    assert list(by_file) == ["modality toy-word", "model plain"]
    assert [len(results) for results in by_file.values()] == [len(CHECKS), len(MODEL_CHECKS)]
    assert [r for r in by_file["model plain"] if not r.passed] == []
    assert list(check_plugin("plain", [__file__])) == ["model plain"]


@pytest.mark.ci
@pytest.mark.usefixtures("hurried")
def test_an_installed_plugin_is_checked_by_its_name():
    kinds = ("cmma", "cvae", "hierarchical", "jmvae", "jmvae-kl")
    assert [*check_plugin("models")] == [f"model {kind}" for kind in kinds]


@pytest.mark.usefixtures("hurried")
def test_the_command_line_says_what_is_broken_and_which_file_tells_how_to_fix_it(mmgen, tmp_path):
    (tmp_path / "saved.py").write_text(SAVED)
    code, out, err = mmgen("plugins", "check", tmp_path / "saved.py")
    assert code == 2
    assert out.startswith("model saved\n  ok     settings\n")
    assert "  failed pickle\n         its module uses pickle; files of pickles run code" in out
    assert err.splitlines()[-1] == (
        "the contract is broken: see above, and mmgen/model.py for the recipe"
    )


def test_a_kind_that_is_not_there_is_looked_for_among_both():
    with pytest.raises(PluginError, match="modality or model kind 'jmva'") as caught:
        check_plugin("jmva")
    assert "cmma, cvae, hierarchical, jmvae" in str(caught.value)


def test_log_p_x_by_draws_of_the_prior_is_that_in_closed_form():
    """Of a linear model: x ~ N(b, A Aᵀ + noise²)."""
    model = Setup(Plain).build(toys.linear(), latent=1).double()
    torch.manual_seed(2)
    x = Batch({n: v.double() for n, v in toys.factored(toys.linear(), 20).items()})
    with torch.no_grad():
        means = [model.decode(torch.tensor([[z]]).double()) for z in (0.0, 1.0)]
        b, at_one = (torch.cat([p.mean[0] for p in each.values()]) for each in means)
        A = (at_one - b).unsqueeze(1)
        p = torch.distributions.MultivariateNormal(b, A @ A.T + 0.49 * torch.eye(3).double())
        closed = float(p.log_prob(torch.cat([*x.values()], 1)).mean())
        drawn, error = evidence._exact(model, x)
    assert error < 0.05
    assert drawn == pytest.approx(closed, abs=3 * error)


@hookimpl
def mmgen_models():
    return [Plain]


@hookimpl
def mmgen_modalities():
    return [toys.Word]
