"""The conformance checks: each is proved on a modality that breaks just what it is for."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

import pytest
import torch
from pydantic import ConfigDict, PrivateAttr
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    ContinuousBernoulli,
    Dirichlet,
    Distribution,
    Exponential,
    Gamma,
    Independent,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Poisson,
    StudentT,
    TransformedDistribution,
    Uniform,
    VonMises,
)
from torch.distributions.transforms import AffineTransform
from torch.nn.functional import one_hot, softplus

from mmgen.errors import PluginError
from mmgen.hooks import hookimpl
from mmgen.modality import Modality
from mmgen.nets.blocks import Likelihood
from mmgen.prediction import Told
from mmgen.testing import (
    CHECKS,
    CheckResult,
    check_plugin,
    parametrize_with_checks,
    run_checks,
    tools,
)


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
    def to_config(self):
        return {"kind": self.kind, "size": 4}


@caught_by("configuration", "leave it as it is")
class Renamed(Tone):
    def to_config(self):
        return {**super().to_config(), "kind": "other"}


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


@caught_by("confidence", "are probabilities handed over as logits")
class ProbabilitiesAsLogits(Switches):
    def family(self, out):
        return super().family(out.sigmoid())


@caught_by("confidence", "are probabilities handed over as logits")
class SharesAsLogits(Tone):
    size: int = 2

    def observe(self, stored, generator=None):
        return one_hot(stored.argmax(-1), self.size).to(torch.get_default_dtype())

    def family(self, out):
        return OneHotCategorical(logits=out.softmax(-1), validate_args=False)


@caught_by("confidence", "are probabilities handed over as logits")
class GreyAsLogits(Tone):
    def observe(self, stored, generator=None):
        return stored.sigmoid()

    def family(self, out):
        each = ContinuousBernoulli(logits=out.sigmoid(), validate_args=False)
        return Independent(each, 1, validate_args=False)


@caught_by("confidence", "is a net's output squashed")
class Squashed(Tone):
    def observe(self, stored, generator=None):
        return 5 * stored

    def family(self, out):
        each = Normal(out.sigmoid(), 0.1, validate_args=False)
        return Independent(each, 1, validate_args=False)


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


@caught_by("devices", "Normal validates its values")
class Validating(Tone):
    def family(self, out):
        return Independent(Normal(out, 1.0, validate_args=True), 1)


@caught_by("globals", "leave global settings")
class DoublesEverything(Tone):
    def encoder(self):
        torch.set_default_dtype(torch.float64)
        return super().encoder()


@caught_by("globals", "change torch's gradient mode;")
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


@caught_by("tell", "tell each of them, or '' if there are none")
class TellsOfNoColumn(Tone):
    def column_names(self):
        return ("pitch",)


@caught_by("tell", "give a Told with one each")
class TellsOne(Tone):
    def tell(self, mean, deviation):
        return {"": Told(["high"])}


@caught_by("tell", "probabilities are from 0 to 1")
class SurerThanSure(Tone):
    def tell(self, mean, deviation):
        return {"": Told(["high"] * len(mean), confidence=[101.0] * len(mean))}


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
    assert not crashed["shapes"].passed
    assert crashed["shapes"].message.startswith(
        f"raised LookupError: no such net ({__file__}, line"
    )
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


def classes(x: Tensor) -> Tensor:
    return one_hot(x.argmax(-1), x.shape[-1]).to(x.dtype)


def counts(x: Tensor) -> Tensor:
    return (3 + 2 * x).clamp(min=0).round()


def grey(x: Tensor) -> Tensor:
    return x.sigmoid().clamp(0.01, 0.99)


def plus(x: Tensor) -> Tensor:
    return softplus(x) + 1e-3


OFF = {"validate_args": False}


def flat(out: Tensor) -> Distribution:
    return Categorical(logits=torch.zeros_like(out).unsqueeze(-1).expand(*out.shape, 2), **OFF)


# torch's own, as an author uses them: what is observed, and the family of a, b from the net.
TORCHS = {
    "one-hot": (classes, lambda a, b: OneHotCategorical(logits=a, **OFF)),
    "one-hot of probabilities": (classes, lambda a, b: OneHotCategorical(a.softmax(-1), **OFF)),
    "dirichlet": (lambda x: x.softmax(-1), lambda a, b: Dirichlet(plus(a), **OFF)),
    "whole normal": (
        lambda x: x,
        lambda a, b: MultivariateNormal(
            a, scale_tril=torch.eye(3).to(a).expand(len(a), 3, 3), **OFF
        ),
    ),
}
EACH = {
    "bernoulli": (lambda x: (x > 0).to(x.dtype), lambda a, b: Bernoulli(logits=a, **OFF)),
    "beta": (grey, lambda a, b: Beta(plus(a), plus(b), **OFF)),
    "binomial": (counts, lambda a, b: Binomial(20, logits=a, **OFF)),
    "continuous bernoulli": (grey, lambda a, b: ContinuousBernoulli(logits=a, **OFF)),
    "gamma": (torch.exp, lambda a, b: Gamma(plus(a), plus(b), **OFF)),
    "laplace": (lambda x: x, lambda a, b: Laplace(a, plus(b), **OFF)),
    "log-normal": (torch.exp, lambda a, b: LogNormal(a, torch.ones_like(a), **OFF)),
    "mixture": (
        lambda x: x,
        lambda a, b: MixtureSameFamily(
            flat(a), Normal(torch.stack([a, b], -1), torch.ones_like(a)[..., None], **OFF), **OFF
        ),
    ),
    "mixture of poissons": (
        counts,
        lambda a, b: MixtureSameFamily(
            flat(a), Poisson(plus(torch.stack([a, b], -1)), **OFF), **OFF
        ),
    ),
    "normal": (lambda x: x, lambda a, b: Normal(a, plus(b), **OFF)),
    "normal far away": (lambda x: 170 + 9 * x, lambda a, b: Normal(a, torch.ones_like(a), **OFF)),
    "poisson": (counts, lambda a, b: Poisson(plus(a), **OFF)),
    "student": (lambda x: x, lambda a, b: StudentT(5 + 0 * a, a, torch.ones_like(a), **OFF)),
    "transformed": (
        lambda x: x,
        lambda a, b: Shifted(Normal(a, plus(b), **OFF), AffineTransform(1.0, 2.0), **OFF),
    ),
    "circle": (lambda x: x.clamp(-3, 3), lambda a, b: VonMises(a, torch.ones_like(a), **OFF)),
}


class Shifted(TransformedDistribution):
    """A transformed distribution has no mean of its own."""

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean * 2 + 1


class Torchs(Tone):
    """A modality whose likelihood is one of torch's own."""

    name: str

    def observe(self, stored, generator=None):
        return {**TORCHS, **EACH}[self.name][0](super().observe(stored))

    def decoder(self, in_features):
        return Likelihood(nn.Linear(in_features, 2 * self.size), self.family)

    def family(self, out):
        a, b = out.chunk(2, -1)
        if self.name in TORCHS:
            return TORCHS[self.name][1](a, b + 0 * a)
        return Independent(EACH[self.name][1](a, b), 1, validate_args=False)


@pytest.mark.parametrize("size", [3, 1])
@pytest.mark.parametrize("name", [*TORCHS, *EACH])
def test_no_alarm_at_what_torch_brings(name, size):
    if name in TORCHS and size == 1:
        pytest.skip("one class is no choice")
    left = {"gradients"}  # of b, which some of these do not use
    found = [r for r in run_checks(Torchs(name=name, size=size)) if r.name not in left]
    assert [(r.name, r.message) for r in found if not r.passed] == []


class Confident(Tone):
    """All that is told of a wrong likelihood, with many numbers in it."""

    size: int = 500

    def observe(self, stored, generator=None):
        return stored * float("nan")

    def family(self, out):
        return Independent(Normal(out, out, validate_args=True), 1)

    def describe(self, x):
        return [str(x.tolist()), x]


def test_no_message_is_long_or_shows_a_tensor(mmgen, tmp_path):
    results = run_checks(Confident())
    assert len(names(results)) > 5
    for result in results:
        assert len(result.message) < 600, result
        assert "\n" not in result.message
        assert "tensor([" not in result.message
    text = Path(__file__).read_text()
    (tmp_path / "wrong.py").write_text(text.replace("return [Tone, Needy]", "return [Confident]"))
    code, out, _ = mmgen("-p", tmp_path / "wrong.py", "plugins", "check", "tone")
    assert code == 2
    assert max(map(len, out.splitlines())) <= 100
    assert len(out.splitlines()) < 10 * len(CHECKS)


class Hostile(Tone):
    """Code that leaves, loops, prints and changes the process."""

    def encoder(self):
        raise SystemExit(0)

    def render(self, x):
        while True:
            with suppress(Exception):
                time.sleep(0.01)

    def describe(self, x):
        print("words of the plugin")
        os.chdir("/")
        raise KeyboardInterrupt

    def parse(self, cell):
        class SpeechlessError(Exception):
            def __str__(self):
                raise RuntimeError

        raise SpeechlessError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the alarm
def test_a_check_that_leaves_loops_or_raises_anything_is_a_failed_check(monkeypatch, capsys):
    monkeypatch.setattr(tools, "LIMIT", 0.3)
    before = Path.cwd()
    results = {result.name: result for result in run_checks(Hostile())}
    assert Path.cwd() == before
    assert results["shapes"].message.startswith("raised SystemExit: 0 (")
    assert results["render"].message.startswith("raised TooLongError: no end after 0.3 s (")
    assert results["describe"].message.startswith("raised KeyboardInterrupt")
    assert "raise ValueError" in results["parse"].message
    assert results["support"].passed
    assert capsys.readouterr().out == ""


class Needy(Tone):
    """A kind whose settings have no defaults, nor examples."""

    kind: ClassVar[str] = "needy"
    pitch: int


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    return [Tone, Needy]


def test_a_plugin_is_checked_by_kind_by_module_and_by_file():
    assert list(check_plugin("mmgen_label")) == ["modality label"]
    by_file = check_plugin(__file__)
    assert list(by_file) == ["modality needy", "modality tone"]
    assert names(by_file["modality tone"]) == []
    assert by_file == check_plugin(__file__, [__file__])
    assert list(check_plugin("tone", [__file__])) == ["modality tone"]
    [needy] = by_file["modality needy"]
    assert not needy.passed
    assert "give fields without a default examples" in needy.message
    assert "needy.pitch: missing" in needy.message


@pytest.mark.parametrize("kind", ["image", "label", "attributes", "vector"])
def test_first_party_kinds_pass_as_the_command_line_builds_them(kind):
    results = check_plugin(kind, [f"mmgen_{kind}"])[f"modality {kind}"]
    assert len(results) == len(CHECKS)
    assert names(results) == []


def test_a_plugin_that_is_not_there_is_named_with_its_cause(tmp_path):
    with pytest.raises(PluginError, match="broken plugin no_such: ModuleNotFoundError"):
        check_plugin("no_such")
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        check_plugin(str(tmp_path / "bad.py"))
