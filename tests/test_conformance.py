"""The conformance checks: each is proved on a modality that breaks just what it is for."""

import re
from collections.abc import Iterator
from typing import ClassVar
from unittest import SkipTest

import pytest
import torch
from pydantic import ConfigDict, PrivateAttr
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Cauchy,
    Distribution,
    Exponential,
    Independent,
    Normal,
    Uniform,
)

from mmgen.errors import PluginError
from mmgen.hooks import hookimpl
from mmgen.modality import Modality
from mmgen.nets.blocks import Likelihood
from mmgen.testing import CHECKS, CheckResult, check_plugin, parametrize_with_checks, run_checks


class Tone(Modality):
    """Three numbers with Gaussian noise: what the broken ones are made of."""

    kind: ClassVar[str] = "tone"
    api_version: ClassVar[int] = 1
    size: int = 3

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    def encoder(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.size, 8), nn.ReLU(), nn.Linear(8, 4))

    def decoder(self, in_features: int) -> nn.Module:
        return Likelihood(nn.Linear(in_features, self.size), self.family)

    def family(self, out: Tensor) -> Distribution:
        return Independent(Normal(out, 1.0, validate_args=False), 1, validate_args=False)


class Switches(Tone):
    """Three binary values."""

    def observe(self, stored, generator=None):
        return (stored > 0).to(torch.get_default_dtype())

    def family(self, out):
        return Independent(Bernoulli(logits=out, validate_args=False), 1, validate_args=False)


class Apply(nn.Module):
    """A layer that is any function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@parametrize_with_checks(Tone(), Switches(), Tone(size=1))
def test_healthy_modalities_pass(modality, check):
    check(modality)


# Each broken modality, the check that is to catch it, and a word of what the check must say.
BROKEN: list[tuple[type[Modality], str, str]] = []


def caught_by(check: str, words: str):
    def record(cls):
        BROKEN.append((cls, check, words))
        return cls

    return record


@caught_by("configuration", "fields that JSON can hold")
class Forgetful(Tone):
    def configuration(self):
        return {"kind": self.kind, "size": 4}


@caught_by("configuration", "leave it as it is")
class Renamed(Tone):
    def configuration(self):
        return {**super().configuration(), "kind": "other"}


@caught_by("configuration", 'keep extra="forbid"')
class Lenient(Tone):
    model_config = ConfigDict(extra="ignore")


@caught_by("example", "give one for each")
class Stingy(Tone):
    def example(self, classes, generator):
        return super().example(classes[:1], generator)


@caught_by("example", "draw all with generator")
class Moody(Tone):
    def example(self, classes, generator):
        return torch.randn(len(classes), self.size)


@caught_by("parse", "parse() refuses")
class Mute(Tone):
    def choices(self):
        return ["high", "low"]


@caught_by("parse", "store both in one form")
class TwoForms(Tone):
    def choices(self):
        return ["high"]

    def parse(self, cell):
        if cell != "high":
            raise ValueError("only high")
        return torch.ones(3, dtype=torch.uint8)


@caught_by("parse", "raised KeyError; raise ValueError")
class WrongError(Tone):
    def parse(self, cell):
        return {"high": torch.ones(3)}[cell]


@caught_by("parse", "without a message")
class Silent(Tone):
    def parse(self, cell):
        raise ValueError


@caught_by("shapes", "make the two agree")
class WrongShape(Tone):
    def observe(self, stored, generator=None):
        return stored.unsqueeze(1)


@caught_by("shapes", "make the two agree")
class WrongDtype(Tone):
    def observe(self, stored, generator=None):
        return stored.double()


@caught_by("shapes", "flattened")
class Unflattened(Tone):
    def encoder(self):
        return Apply(lambda x: x.unsqueeze(1))


@caught_by("shapes", "give a torch Distribution")
class Deterministic(Tone):
    def decoder(self, in_features):
        return nn.Linear(in_features, self.size)


@caught_by("shapes", "torch.distributions.Independent")
class NotIndependent(Tone):
    def family(self, out):
        return Normal(out, 1.0)


@caught_by("shapes", "add up the event's dimensions")
class UnsummedLikelihood(Tone):
    def family(self, out):
        class Unsummed(Independent):
            def log_prob(self, value):
                return self.base_dist.log_prob(value)

        return Unsummed(Normal(out, 1.0), 1)


@caught_by("shapes", "the likelihood's mean is")
class Meaning(Tone):
    def family(self, out):
        class Averaged(Independent):
            mean = property(lambda self: self.base_dist.mean.mean(1))

        return Averaged(Normal(out, 1.0), 1)


@caught_by("shapes", "vary with the batch size")
class Growing(Tone):
    def encoder(self):
        return Apply(lambda x: x.repeat(1, len(x)))


@caught_by("finite", "guard logarithms")
class Infinite(Tone):
    def encoder(self):
        return nn.Sequential(nn.Linear(self.size, 8), Apply(torch.log))


@caught_by("finite", "observe() gave")
class Unguarded(Tone):
    def observe(self, stored, generator=None):
        return stored / (stored - stored)


@caught_by("support", "leaves the likelihood's support")
class Unscaled(Switches):
    def observe(self, stored, generator=None):
        return 2 * super().observe(stored) - 1


@caught_by("support", "leaves the likelihood's support")
class GreyBernoulli(Switches):
    def observe(self, stored, generator=None):
        return stored.sigmoid()


@caught_by("support", "if they are logits, say so")
class LogitsAsProbabilities(Switches):
    def family(self, out):
        class Lenient(Bernoulli):
            def sample(self, sample_shape=()):
                return (self.probs > 0.5).to(self.probs).expand(*sample_shape, *self.probs.shape)

        return Independent(Lenient(probs=out, validate_args=False), 1, validate_args=False)


@caught_by("support", "sample() leaves the likelihood's support")
class SampleOutside(Switches):
    def family(self, out):
        class Signed(Bernoulli):
            def sample(self, sample_shape=()):
                return 2 * super().sample(sample_shape) - 1

        return Independent(Signed(logits=out, validate_args=False), 1, validate_args=False)


@caught_by("normalised", "correct log_prob")
class CrossEntropyTwice(Switches):
    def family(self, out):
        class Twice(Bernoulli):
            def log_prob(self, value):
                return 2 * super().log_prob(value)

        return Independent(Twice(logits=out, validate_args=False), 1, validate_args=False)


@caught_by("normalised", "correct log_prob")
class SquaredError(Tone):
    size: int = 1

    def family(self, out):
        class Squares(Normal):
            def log_prob(self, value):
                return -((value - self.loc) ** 2) / 2

        return Independent(Squares(out, 1.0, validate_args=False), 1, validate_args=False)


@caught_by("gradients", "encoder's parameter 0.weight gets no gradient")
class Detached(Tone):
    def encoder(self):
        return nn.Sequential(nn.Linear(self.size, 8), Apply(lambda h: h.detach()), nn.Linear(8, 4))


@caught_by("gradients", "decoder's parameter net.0.weight gets no gradient")
class Rounded(Tone):
    def decoder(self, in_features):
        net = nn.Sequential(nn.Linear(in_features, 8), Apply(torch.round), nn.Linear(8, self.size))
        return Likelihood(net, self.family)


@caught_by("gradients", "unused.weight gets no gradient")
class Unused(Tone):
    def decoder(self, in_features):
        decoder = super().decoder(in_features)
        decoder.unused = nn.Linear(2, 2)
        return decoder


@caught_by("gradients", "is not finite")
class Rooted(Tone):
    def encoder(self):
        return nn.Sequential(nn.Linear(self.size, 8), Apply(lambda h: h + (h - h).sqrt()))


@caught_by("rows", "a row of the encoder changes")
class Centred(Tone):
    def encoder(self):
        return nn.Sequential(nn.Linear(self.size, 8), Apply(lambda h: h - h.mean(0)))


@caught_by("rows", "a row of the decoder changes")
class BatchStatistics(Tone):
    def decoder(self, in_features):
        norm = nn.BatchNorm1d(self.size, track_running_stats=False)
        return Likelihood(nn.Sequential(nn.Linear(in_features, self.size), norm), self.family)


SHARED = nn.Linear(3, 4)


@caught_by("builds", "share a tensor")
class Shared(Tone):
    def encoder(self):
        return nn.Sequential(SHARED)


@caught_by("builds", "share a tensor")
class SharedBuffer(Tone):
    _table: Tensor = PrivateAttr(default_factory=lambda: torch.ones(3))

    def decoder(self, in_features):
        decoder = super().decoder(in_features)
        decoder.register_buffer("table", self._table)
        return decoder


@caught_by("builds", "seed nothing")
class SameStart(Tone):
    def encoder(self):
        net = super().encoder()
        for parameter in net.parameters():
            nn.init.constant_(parameter, 0.1)
        return net


@caught_by("state", "register_buffer")
class HiddenTensor(Tone):
    def encoder(self):
        projection = torch.randn(self.size, 4)
        return Apply(lambda x: x @ projection)


@caught_by("replicated", "compute something else")
class Patched(Tone):
    def encoder(self):
        layer = nn.Linear(self.size, 4)
        layer.forward = lambda x: x @ layer.weight.mT
        return layer


@caught_by("replicated", "get other gradients")
class Hooked(Tone):
    def encoder(self):
        layer = nn.Linear(self.size, 4)
        layer.weight.register_hook(lambda gradient: 2 * gradient)
        return layer


@caught_by("dtypes", "the encoder does not run in float64")
class FloatConstant(Tone):
    def encoder(self):
        return Apply(lambda x: x @ torch.ones(self.size, 4))


@caught_by("dtypes", "the decoder turns float64 into torch.float32")
class Casting(Tone):
    def family(self, out):
        return super().family(out.float())


@caught_by("devices", "make tensors with device=x.device")
class HostConstant(Tone):
    def encoder(self):
        return Apply(lambda x: x @ torch.ones(self.size, 4, dtype=x.dtype))


@caught_by("devices", "it does not run on another device")
class Synchronising(Tone):
    def family(self, out):
        return super().family(out if out.sum().item() else -out)


@caught_by("devices", "observe() left the device")
class BackHome(Tone):
    def observe(self, stored, generator=None):
        return torch.zeros(stored.shape)


@caught_by("devices", "it does not run on another device")
class Validating(Tone):
    def family(self, out):
        return Independent(Normal(out, 1.0, validate_args=True), 1)


@caught_by("globals", "leave global settings")
class DoublesEverything(Tone):
    def encoder(self):
        torch.set_default_dtype(torch.float64)
        return super().encoder()


@caught_by("globals", "torch's gradient mode was True, and is False")
class StopsGradients(Tone):
    def observe(self, stored, generator=None):
        torch.set_grad_enabled(False)
        return stored


@caught_by("globals", "torch's seed")
class Seeding(Tone):
    def decoder(self, in_features):
        torch.manual_seed(3)
        return super().decoder(in_features)


@caught_by("globals", "torch's default device")
class Moving(Tone):
    def decoder(self, in_features):
        torch.set_default_device("meta")
        return super().decoder(in_features)


@caught_by("globals", "two results for one generator")
class OwnNoise(Tone):
    def observe(self, stored, generator=None):
        return stored + torch.randn_like(stored)


@caught_by("globals", "uses torch's global random numbers")
class Wasteful(Tone):
    def observe(self, stored, generator=None):
        torch.rand(1)
        return stored


@caught_by("globals", "work on a copy")
class InPlace(Tone):
    def observe(self, stored, generator=None):
        return stored.mul_(2)


@caught_by("render", "give (3, 3, H, W), or None")
class Grey(Tone):
    def render(self, x):
        return x.view(len(x), 1, 1, -1)


@caught_by("render", "clamp it")
class Glaring(Tone):
    def render(self, x):
        return x.view(len(x), 1, 1, -1).expand(-1, 3, -1, -1)


@caught_by("describe", "one text a row")
class Taciturn(Tone):
    def describe(self, x):
        return ["three numbers"]


@caught_by("describe", "one text a row")
class Numeric(Tone):
    def describe(self, x):
        return [row.mean() for row in x]


@pytest.fixture(autouse=True)
def _settings_stay() -> Iterator[None]:
    yield
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.is_grad_enabled()


def names(results: list[CheckResult]) -> list[str]:
    return [result.name for result in results if not result.passed]


@pytest.mark.parametrize(
    ("cls", "check", "words"), BROKEN, ids=lambda v: getattr(v, "__name__", "")
)
def test_a_broken_modality_is_caught_with_a_message_that_helps(cls, check, words):
    [function] = [each for each in CHECKS if each.__name__ == f"check_{check}"]
    with pytest.raises(AssertionError, match=re.escape(words)):
        function(cls())


def test_every_check_is_proved_to_catch_something():
    assert {f"check_{check}" for _, check, _ in BROKEN} == {check.__name__ for check in CHECKS}


def test_results_for_the_command_line_hold_every_check_and_raise_nothing():
    results = run_checks(Detached())
    assert [f"check_{result.name}" for result in results] == [c.__name__ for c in CHECKS]
    assert "gradients" in names(results)

    class Crashing(Tone):
        def encoder(self):
            raise LookupError("no such net")

    crashed = {result.name: result for result in run_checks(Crashing())}
    assert crashed["shapes"] == CheckResult("shapes", False, "raised LookupError: no such net")
    assert crashed["normalised"].passed
    assert names(run_checks(Tone())) == []


def test_a_check_that_does_not_apply_passes_and_says_why():
    by_name = {result.name: result for result in run_checks(Tone())}
    assert by_name["normalised"].passed
    assert by_name["normalised"].message.startswith("does not apply: ")


def test_checks_leave_the_caller_s_random_numbers_alone_and_repeat_themselves():
    before = torch.get_rng_state()
    first = run_checks(Seeding())
    assert torch.equal(before, torch.get_rng_state())
    assert run_checks(Seeding()) == first


class Wide(Tone):
    """Densities that are hard to integrate: heavy tails, half a line, an interval."""

    family_name: str = "cauchy"
    size: int = 1

    def family(self, out):
        families = {
            "cauchy": lambda: Cauchy(out, 0.1 * torch.ones_like(out)),
            "exponential": lambda: Exponential(out.exp()),
            "uniform": lambda: Uniform(out, out + 2),
        }
        return Independent(families[self.family_name](), 1)


@pytest.mark.parametrize("family_name", ["cauchy", "exponential", "uniform"])
def test_hard_densities_are_found_to_be_normalised(family_name):
    [check] = [each for each in CHECKS if each.__name__ == "check_normalised"]
    check(Wide(family_name=family_name))


def test_large_spaces_are_skipped():
    [check] = [each for each in CHECKS if each.__name__ == "check_normalised"]
    check(Switches(size=12))
    with pytest.raises(SkipTest, match=re.escape("2^13")):
        check(Switches(size=13))


class Needy(Tone):
    """A kind whose settings have no defaults, nor examples."""

    kind: ClassVar[str] = "needy"
    pitch: int


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    return [Tone, Needy]


def test_a_plugin_is_checked_by_kind_by_module_and_by_file():
    assert list(check_plugin("mmgen_label")) == ["label"]
    by_file = check_plugin(__file__)
    assert list(by_file) == ["needy", "tone"]
    assert names(by_file["tone"]) == []
    assert by_file == check_plugin(__file__, [__file__])
    assert list(check_plugin("tone", [__file__])) == ["tone"]
    [needy] = by_file["needy"]
    assert not needy.passed
    assert "give fields without a default examples" in needy.message
    assert "needy.pitch: missing" in needy.message


@pytest.mark.parametrize("kind", ["image", "label", "attributes", "vector"])
def test_first_party_kinds_pass_as_the_command_line_builds_them(kind):
    results = check_plugin(kind, [f"mmgen_{kind}"])[kind]
    assert len(results) == len(CHECKS)
    assert names(results) == []


def test_a_plugin_that_is_not_there_is_named_with_its_cause(tmp_path):
    with pytest.raises(PluginError, match="broken plugin no_such: ModuleNotFoundError"):
        check_plugin("no_such")
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        check_plugin(str(tmp_path / "bad.py"))
