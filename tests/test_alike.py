"""What z is drawn from given values that many rows have: fitted to the posteriors of those rows."""

import json
import math

import pytest
import torch
from conftest import ROOT, copied, small
from torch.distributions import Normal
from toys import made, observations, toy_modalities

from mmgen.batch import Batch
from mmgen.errors import RunError
from mmgen.evaluation.measure import Request, measure_likelihoods
from mmgen.experiment import Experiment
from mmgen.files.reading import Reader
from mmgen.files.tensors import open_tensors, write_tensors
from mmgen.gallery.about import about
from mmgen.inference import aggregate
from mmgen.inference.aggregate import Draws, fit_posteriors, fit_prior
from mmgen.inference.sample import infer, sample_latent
from mmgen.latent import aggregate as aggregates
from mmgen.latent.aggregate import FittedMixture
from mmgen.latent.alike import Alike, FittedPosterior
from mmgen.latent.base import sample
from mmgen.latent.gaussian import DiagonalGaussian
from mmgen.nets.by_modality import ByModality
from mmgen.registry import loading as registry
from mmgen.rows.noise import shared_noise
from mmgen.run import load
from mmgen.training import session

MODALITIES = toy_modalities(2)
MODES = torch.tensor([[[-2.0, 0.0], [2.0, 0.0]], [[0.0, 3.0], [0.0, 3.0]]])
"""Where z of class 0 are, one half here and one half there; and of class 1, all in one place."""


class Known:
    """A joint model whose posteriors are known: of a class z lie at one of two places, or at one.

    Observations are a class, and the number of a place; its own encoder of a class has the mean and
    the variance that z of the class have, as one Gaussian of independent dimensions can.
    """

    NOISE = 0.2

    def __init__(self):
        self.names, self.directions = ("class", "place"), None
        self.like = torch.zeros(())
        self.fitted_posteriors = ByModality({})

    def blank(self, names):
        return Batch({n: torch.zeros(1, 1) for n in names})

    def flattened(self, x):
        return torch.cat([x[n] for n in self.names if n in x], 1)

    def posterior(self, x):
        if "class" not in x:
            return None
        modes = MODES[x["class"].squeeze(1).long()]
        noise = torch.full((len(modes), 2), self.NOISE)
        if "place" in x:
            place = x["place"].squeeze(1).long() % 2
            return DiagonalGaussian(modes[torch.arange(len(modes)), place], noise)
        spread = modes.var(1, correction=0)
        return DiagonalGaussian(modes.mean(1), (spread + noise.square()).sqrt(), "q(z | class)")

    @staticmethod
    def rows(count, seed=0, present=None):
        torch.manual_seed(seed)
        tensors = {
            "class": torch.randint(2, (count, 1)).float(),
            # Of places there are so many that none is that of many rows.
            "place": torch.randint(10 * count, (count, 1)).float(),
        }
        return Batch(tensors, present)


@pytest.fixture(scope="module")
def draws():
    return Draws(Known(), [Known.rows(1000, seed) for seed in range(4)])


# What is fitted.


def test_of_a_class_in_two_places_a_mixture_is_fitted_and_of_one_in_one_place_the_encoder_kept(
    draws,
):
    assert draws.common() == ["class"]
    fitted = fit_posteriors(Known(), draws)
    assert [*fitted] == ["class"]
    assert fitted["class"].values.tolist() == [[0.0]]
    q = fitted["class"](torch.tensor([[0.0], [1.0]]), Known().posterior(Known.rows(2)))
    z = q.rsample((4000,))[:, 0]
    for place in MODES[0]:
        near = (z - place).norm(dim=1) < 5 * Known.NOISE
        assert near.float().mean().item() == pytest.approx(0.5, abs=0.06)
    truth = torch.stack([DiagonalGaussian(m, torch.full((2,), 0.2)).log_prob(z) for m in MODES[0]])
    log_p = truth.logsumexp(0) - math.log(2)
    found = q.log_prob(torch.stack([z, z], 1))[:, 0]
    assert (found - log_p).mean().item() == pytest.approx(0, abs=0.05)  # KL(q ‖ truth)


def test_given_nothing_the_mixture_of_what_was_fitted_to_classes_is_tried_too(monkeypatch, draws):
    of_all = draws.mixture(torch.arange(len(draws.z)), (1,))
    monkeypatch.setattr(FittedMixture, "COUNTS", (1,))  # so that one of all rows is no match
    prior = fit_prior(draws)
    held = draws.z[: draws.held_out]
    assert prior().log_prob(held).mean() > of_all().log_prob(held).mean() + 1
    places, counts = prior().rsample((3000,)).round().unique(dim=0, return_counts=True)
    most = {tuple(p) for p, c in zip(places.tolist(), counts.tolist(), strict=True) if c > 100}
    assert most == {(-2.0, 0.0), (2.0, 0.0), (0.0, 3.0)}


def test_rows_of_no_class_have_a_part_of_their_own():
    rows = Known.rows(2000)
    rare = (rows["place"] % 20 == 0).squeeze(1)
    x = Batch({**rows.tensors, "class": torch.where(rare.unsqueeze(1), rows["place"], 0)})
    model = Known()
    posterior = model.posterior
    model.posterior = lambda each: posterior(
        Batch({**each.tensors, "class": each["class"].clamp(max=1)}) if "class" in each else each
    )
    prior = fit_prior(Draws(model, [x]))
    z = prior().rsample((4000,))
    share = (z[:, 1] > 1.5).float().mean().item()
    assert share == pytest.approx(rare.float().mean().item(), abs=0.03)


def test_a_row_that_has_nothing_beside_says_nothing():
    half = torch.arange(1000) % 2 == 0
    x = Known.rows(1000, present={"place": half})
    model = Known()
    rows = Draws(model, [x]).fitted(("class",))
    assert torch.cat([members for members, _ in rows]).sort().values.equal(half.nonzero()[:, 0])


def test_a_row_that_lacks_the_class_is_none_of_its_rows():
    has = torch.arange(1000) % 4 != 0
    x = Known.rows(1000, present={"class": has})
    rows = Draws(Known(), [x]).fitted(("class",))
    assert torch.cat([members for members, _ in rows]).sort().values.equal(has.nonzero()[:, 0])


def test_few_rows_of_a_class_have_none_fitted():
    few = Draws(Known(), [Known.rows(2 * aggregate.LEAST - 40)])
    assert few.common() == []
    assert [*fit_posteriors(Known(), few)] == []


def test_values_are_no_more_than_are_compared_with(monkeypatch):
    monkeypatch.setattr(aggregate, "MOST_VALUES", 1)
    assert len(Draws(Known(), [Known.rows(1000)]).fitted(("class",))) == 1


def test_no_more_subsets_are_asked_than_there_is_time_for(monkeypatch, draws):
    monkeypatch.setattr(aggregate, "MOST_SUBSETS", 0)
    assert [*fit_posteriors(Known(), draws)] == []


# What is drawn from.


@pytest.fixture
def alike():
    torch.manual_seed(0)
    twice = 2.0 * (torch.rand(900, 1) < 0.3)  # two places, and a dimension that says nothing
    parts = []
    for place, count in (([5.0, 0.0, 0.0], 2), ([0.0, -4.0, 0.0], 3)):
        z = torch.randn(900, 3) * torch.tensor([0.2, 0.3, 1.0]) + torch.tensor(place)
        z[:, :1] += twice
        parts.append(FittedMixture.of_draws(z, 0 * z, (count,)))
    assert not all(2 in part.active for part in parts)
    fitted = FittedPosterior(torch.tensor([[0.0], [1.0]]), parts)
    q = DiagonalGaussian(torch.randn(4, 3), 0.5 + torch.rand(4, 3), "q(z | class)")
    drawn = fitted(torch.tensor([[1.0], [7.0], [0.0], [1.0]]), q)
    assert drawn.which.tolist() == [1, -1, 0, 1]
    return drawn


def test_rows_with_a_value_of_their_own_are_drawn_from_it_and_others_from_the_encoder(alike):
    z = alike.rsample((20_000,))
    assert z.shape == (20_000, 4, 3)
    torch.testing.assert_close(z.mean(0), alike.mean, atol=0.03, rtol=0)
    own = {row: alike.own[value] for row, value in ((0, 1), (2, 0), (3, 1))}
    found = alike.log_prob(z[:50])
    for row in range(4):
        if row in own:
            torch.testing.assert_close(found[:, row], own[row].log_prob(z[:50, row]))
            torch.testing.assert_close(alike.mean[row], own[row].mean)
            drawn = own[row].rsample((20_000,))
            torch.testing.assert_close(z[:, row].T.cov(), drawn.T.cov(), atol=0.05, rtol=0.05)
        else:
            torch.testing.assert_close(found[:, row], alike.q.log_prob(z[:50])[:, row])
    assert alike.symbol == "q(z | class)"
    torch.testing.assert_close(z[:, 1].var(0), alike.q.variance[1], atol=0.05, rtol=0.05)


def test_it_can_be_tempered(alike):
    torch.testing.assert_close(sample(alike, 0.0), alike.mean)
    cold = alike.tempered(0.5).rsample((20_000,))
    for row, q in ((0, alike.own[1].tempered(0.5)), (1, alike.q.tempered(0.5))):
        variance = q.rsample((20_000,)).var(0) if row == 0 else q.variance[row]
        torch.testing.assert_close(cold[:, row].var(0), variance, atol=0.03, rtol=0.06)


def test_components_are_drawn_as_often_as_they_weigh_and_where_they_are(alike, monkeypatch):
    monkeypatch.setattr(aggregates, "GATHERED", 9999)  # in several parts
    p = alike.own[1]
    torch.manual_seed(1)
    z = p.of_noise(torch.rand(20_000, 1), torch.randn(20_000, 1, 3))
    nearest = (p.mixture.components.log_prob(z[..., p.active]) + p.mixture.log_weights).argmax(-1)
    shares = nearest.bincount(minlength=3) / len(z)
    torch.testing.assert_close(shares, p.mixture.log_weights.exp(), atol=0.03, rtol=0)
    own = p.rsample((20_000,))
    torch.testing.assert_close(z[:, 0].T.cov(), own.T.cov(), atol=0.03, rtol=0.05)
    assert p.log_prob(z[:, 0]).mean().item() == pytest.approx(
        p.log_prob(own).mean().item(), abs=0.05
    )


def test_what_a_row_is_drawn_depends_on_no_other_row():
    torch.manual_seed(0)
    posterior = FittedPosterior(
        torch.tensor([[1.0, 0.0]]), [FittedMixture.of_draws(torch.randn(99, 3), torch.ones(99, 3))]
    )
    x, q = torch.eye(2)[[0, 1, 0]], DiagonalGaussian(torch.zeros(3, 3), torch.ones(3, 3))
    with shared_noise(torch.device("cpu"), 3, 6, 0):
        together = posterior(x, q).rsample((6,))
    for row in range(3):
        with shared_noise(torch.device("cpu"), 1, 6, 0):
            alone = posterior(x[row : row + 1], q[[row]]).rsample((6,))
        torch.testing.assert_close(alone[:, 0], together[:, row])


def test_parts_make_one_mixture():
    torch.manual_seed(0)
    first = FittedMixture.of_draws(2 + torch.randn(500, 4), 3 * torch.randn(500, 4), (2,))
    z = torch.randn(500, 4) * torch.tensor([1, 1, 3, 1])
    second = FittedMixture.of_draws(z, torch.zeros(500, 4), (3,))
    assert len(second.active) < 4
    q = FittedMixture.of_parts([(0.3, first), (0.7, second)])
    log_p = torch.stack([math.log(0.3) + first().log_prob(z), math.log(0.7) + second().log_prob(z)])
    torch.testing.assert_close(q().log_prob(z), log_p.logsumexp(0), atol=1e-4, rtol=1e-4)
    FittedMixture.stored((4,), q.tensors())


def test_its_density_is_that_of_the_mixture_and_of_what_is_beside_it(alike, monkeypatch):
    monkeypatch.setattr(aggregates, "AT_ONCE", {"cpu": 40})  # in several parts
    for p in (*alike.own, alike.own[0].tempered(0.5)):
        z = 2 * torch.randn(7, 5, 3)
        beside = [d for d in range(3) if d not in p.active]
        rest = Normal(0.0, p.temperature).log_prob(z[..., beside]).sum(-1)
        expected = p.mixture.log_prob(z[..., p.active]) + rest
        torch.testing.assert_close(p.log_prob(z), expected, atol=1e-3, rtol=1e-5)


def test_where_no_dimension_is_active_it_is_standard_normal():
    torch.manual_seed(0)
    p = FittedMixture.of_draws(torch.randn(20_000, 3), torch.zeros(20_000, 3), (1,))()
    assert len(p.active) == 0
    z = torch.randn(4, 3)
    torch.testing.assert_close(p.log_prob(z), Normal(0.0, 1.0).log_prob(z).sum(-1))
    assert torch.equal(p.of_noise(torch.rand(4), z), z)


# A model.


@torch.no_grad()
def drawn_far_away():
    """A model that for the first observation of "colour" draws z far from its encoder's."""
    torch.manual_seed(0)
    model = made("jmvae-kl", MODALITIES, latent=3, sampling_posterior="fitted").eval()
    x = observations(MODALITIES, 4)
    z = 50 + torch.randn(200, 3)
    far = FittedPosterior(
        model.flattened(x.select(["colour"]))[:1], [FittedMixture.of_draws(z, z, (1,))]
    )
    model.fitted_posteriors = ByModality({"colour": far})
    return model, x


@torch.no_grad()
def test_it_is_drawn_from_where_the_value_is_the_same():
    model, x = drawn_far_away()
    colour = x.select(["colour"])
    same = (model.flattened(colour) == model.flattened(colour)[:1]).all(1)
    assert ((sample_latent(model, colour, 9) > 30).all(-1).all(0) == same).all()
    assert ((sample_latent(model, colour, 1, temperature=0.0) > 30).all(-1)[0] == same).all()
    assert (sample_latent(model, x, 9) < 30).all()
    assert (sample_latent(model, x.select(["point"]), 9) < 30).all()
    assert (sample_latent(model, colour, 9, fitted=False) < 30).all()
    masked = Batch(colour.tensors, {"colour": torch.ones(4, dtype=torch.bool)})
    assert not isinstance(infer(model, masked), Alike)
    assert not isinstance(infer(model, Batch({"colour": colour["colour"][~same]})), Alike)


@torch.no_grad()
def test_what_a_model_is_trained_by_and_measured_by_stays_the_encoders():
    model, x = drawn_far_away()
    plain = made("jmvae-kl", MODALITIES, latent=3).eval()
    plain.load_state_dict(model.state_dict())  # of which what is fitted is no part
    values = []
    for each in (model, plain):
        torch.manual_seed(1)
        values.append([term.value for term in each(x)] + [each.posterior(x.select(["colour"])).loc])
    for one, other in zip(*values, strict=True):
        assert torch.equal(one, other)
    assert not [name for name, _ in model.named_parameters() if "fitted" in name]
    assert model.to("meta").fitted_posteriors["colour"].values.is_meta


# Runs.


def prepared(data, **settings):
    words = [*small(data), "train.batch_size=50", "train.warmup_epochs=1"]
    words += [f'model.{key}="{value}"' for key, value in settings.items()]
    return session.prepare(Experiment.read(ROOT / "examples" / "glyphs.toml", words))


@pytest.fixture(scope="module")
def few():
    """Lets few rows be enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregate, "LEAST", 8)
        yield


@pytest.fixture(scope="module")
def run(few, small_glyphs, tmp_path_factory):
    out = tmp_path_factory.mktemp("alike") / "run"
    ready = prepared(small_glyphs, sampling_posterior="fitted", sampling_prior="fitted")
    session.start(ready, out)
    list(session.train(ready, out))
    return out


def test_a_training_ends_with_them_beside_the_best_weights(run):
    model = load(run, device="cpu").model
    assert [*model.fitted_posteriors]
    assert {*model.fitted_posteriors} <= {"label", "attributes", "label+attributes"}
    assert not [*load(run, device="cpu", weights="last").model.fitted_posteriors]


def test_rows_are_drawn_from_them_and_likelihoods_are_not(run):
    request = Request(split="train", samples=2, importance=0)  # those that it was fitted to
    with_them, without = load(run, device="cpu"), load(run, device="cpu")
    fitted = with_them.model.fitted_posteriors
    without.model.fitted_posteriors = ByModality({})
    name = next(iter(fitted))
    x = observed(with_them, fitted[name].values[0], name.split("+"))
    drawn = [sample_latent(each.model, x, 5) for each in (with_them, without)]
    assert not torch.equal(*drawn)
    found = [measure_likelihoods(each, request) for each in (with_them, without)]
    assert str(found[0].markdown()) == str(found[1].markdown())


def test_the_report_says_so(run):
    loaded = load(run, device="cpu")
    facts = about(loaded, registry.load(), {}).facts
    assert facts["z given a part"] == "one of 32 draws, chosen by where q(z) has z"
    for subset, fitted in loaded.model.fitted_posteriors.items():
        names = subset.replace("+", ", ")
        count = len(fitted.values)
        assert facts[f"z given {names}"].startswith(f"of {count} value" if count > 1 else "of one")
        assert (
            f"fitted to the posteriors of training rows, q(z | {names})"
            in facts[f"z given {names}"]
        )


def observed(run, numbers, names):
    sizes = [math.prod(run.modalities[n].shape) for n in names]
    parts = zip(names, numbers.split(sizes), strict=True)
    return Batch({n: each.reshape(1, *run.modalities[n].shape) for n, each in parts})


def test_a_trained_run_gets_them_by_its_setting(run, small_glyphs, mmgen, tmp_path):
    ready = prepared(small_glyphs, sampling_prior="fitted")
    session.start(ready, tmp_path / "run")
    list(session.train(ready, tmp_path / "run"))
    assert not [*load(tmp_path / "run", device="cpu").model.fitted_posteriors]
    words = ("--resume", "model.sampling_posterior=fitted", "--no-figures")
    code, _, err = mmgen("train", tmp_path / "run", *words)
    assert code == 0, err
    best = "best.safetensors"
    assert (tmp_path / "run" / best).read_bytes() == (run / best).read_bytes()


def test_a_model_of_which_none_is_fitted_is_not_fitted_again(small_glyphs, tmp_path, monkeypatch):
    ready = prepared(small_glyphs, sampling_posterior="fitted")
    session.start(ready, tmp_path / "run")
    monkeypatch.setattr(aggregate, "LEAST", 10**6)
    list(session.train(ready, tmp_path / "run"))
    monkeypatch.setattr(session, "Draws", None)
    assert not session.resume(prepared(small_glyphs, sampling_posterior="fitted"), tmp_path / "run")


def damaged(run, tmp_path, change):
    out = copied(run, tmp_path / "run")
    with open_tensors(out / "best.safetensors", Reader(RunError)) as tensors:
        every, header = {n: tensors[n] for n in tensors}, json.dumps(tensors.header)
    prefix = "posteriors/"
    own = {n.removeprefix(prefix): t for n, t in every.items() if n.startswith(prefix)}
    rest = {n: t for n, t in every.items() if not n.startswith(prefix)}
    own = {f"{prefix}{n}": t for n, t in change(own).items() if t is not None}
    write_tensors(out / "best.safetensors", {**rest, **own}, {"mmgen": header})
    return out


WRONG = {
    "no members": (lambda t: t | {"members": None}, "mixtures of no subset"),
    "members of other modalities": (
        lambda t: t | {"members": torch.ones(1, 7)},
        "not subsets of 3 modalities",
    ),
    "more members than there is": (
        lambda t: t | {"members": torch.ones(10**6, 3)},
        "not subsets of 3 modalities",
    ),
    "an empty subset": (lambda t: t | {"members": 0 * t["members"]}, "that have encoders"),
    "one subset less": (lambda t: t | {"members": t["members"][:0]}, "mixtures of no subset"),
    "values of another size": (
        lambda t: t | {"0/values": torch.zeros(1, 99)},
        "'values' are not .* numbers each",
    ),
    "no values": (lambda t: t | {"0/values": None}, "'values' are not"),
    "whole values": (lambda t: t | {"0/values": t["0/values"].long()}, "has the shape"),
    "too many values": (lambda t: t | {"0/values": t["0/values"].repeat(999, 1)}, "has the shape"),
    "values without a mixture": (
        lambda t: t | {"0/values": t["0/values"].repeat(2, 1)},
        "there are not",
    ),
    "values that are no numbers": (
        lambda t: t | {"0/values": t["0/values"] * math.nan},
        "'values' is not finite",
    ),
    "a mixture that is none": (
        lambda t: t | {"0/0/log_weights": t["0/0/log_weights"] + 1},
        "do not sum to one",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_damaged_ones_are_told_before_anything_is_drawn(wrong, run, tmp_path):
    change, message = WRONG[wrong]
    with pytest.raises(RunError, match=f"what z is drawn from is damaged: .*{message}"):
        load(damaged(run, tmp_path, change), device="cpu")
