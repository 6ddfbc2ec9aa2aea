"""What z is drawn from given nothing: fitted to posteriors, stored, drawn from, and no prior."""

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import ROOT, copied, small
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from toys import JOINT, made, observations, toy_modalities

from mmgen.batch import Batch
from mmgen.errors import RunError
from mmgen.experiment import Experiment
from mmgen.files.reading import Reader
from mmgen.files.tensors import open_tensors, write_tensors
from mmgen.gallery import groups
from mmgen.inference.aggregate import Draws, fit_prior
from mmgen.inference.importance import importance_sample, proposer
from mmgen.inference.iterative import iterate
from mmgen.inference.sample import sample_latent, source
from mmgen.latent.aggregate import FittedMixture
from mmgen.latent.base import sample
from mmgen.latent.em import best_mixture, fit_mixture
from mmgen.run import load
from mmgen.training import session
from mmgen.training.loop import Epoch

# EM.

WEIGHTS = torch.tensor([0.5, 0.3, 0.2])
MEANS = torch.tensor([[0.0, 0.0], [3.0, 1.0], [-2.0, 3.0]])
FACTORS = torch.tensor(
    [[[0.8, 0.0], [0.6, 0.4]], [[0.3, 0.0], [-0.2, 0.5]], [[0.5, 0.0], [0.0, 0.5]]]
)
TRUE = MixtureSameFamily(Categorical(WEIGHTS), MultivariateNormal(MEANS, scale_tril=FACTORS))


def points(count, seed=0):
    torch.manual_seed(seed)
    return TRUE.sample((count,))


def test_em_finds_the_mixture_that_points_were_drawn_from():
    q = fit_mixture(points(6000), 3)
    order = (torch.cdist(MEANS, q.components.mean)).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(q.log_weights.exp()[order], WEIGHTS, atol=0.03, rtol=0)
    torch.testing.assert_close(q.components.mean[order], MEANS, atol=0.08, rtol=0)
    covariances = q.components[order].covariance
    torch.testing.assert_close(covariances, FACTORS @ FACTORS.mT, atol=0.06, rtol=0)
    new = points(3000, seed=1)
    assert (TRUE.log_prob(new) - q.log_prob(new)).mean().abs() < 0.02


def test_one_component_is_the_moments_of_the_points():
    z = points(500)
    q = fit_mixture(z, 1)
    torch.testing.assert_close(q.mean, z.mean(0))
    expected = z.T.cov(correction=0) + 1e-3 * torch.eye(2)
    torch.testing.assert_close(q.components[0].covariance, expected)


def test_held_out_points_choose_how_many_components():
    assert len(best_mixture(points(4000), (1, 3)).log_weights) == 3
    torch.manual_seed(0)
    assert len(best_mixture(torch.randn(600, 4), (1, 25)).log_weights) == 1
    assert len(best_mixture(points(50), (1, 3)).log_weights) == 1  # too few for three


@pytest.mark.parametrize(
    "z", [torch.zeros(50, 3), torch.zeros(2, 3), torch.zeros(50, 0), torch.ones(1, 2)]
)
def test_points_that_say_nothing_do_not_break_it(z):
    q = best_mixture(z, (1, 2))
    assert q.rsample((3,)).isfinite().all()
    assert q.log_prob(z).isfinite().all()


def test_more_components_than_places_are_left_without_points():
    z = torch.tensor([[0.0], [5.0]]).repeat(50, 1)
    q = fit_mixture(z, 4)
    assert q.log_prob(z).isfinite().all()
    torch.testing.assert_close(q.mean, torch.tensor([2.5]))


# What is fitted.


def ring(count=3000, unused=3):
    """Posteriors on a circle in the first two dimensions, and dimensions that say nothing."""
    torch.manual_seed(0)
    angle = 2 * math.pi * torch.rand(count)
    means = torch.zeros(count, 2 + unused)
    means[:, :2] = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)
    deviation = torch.ones_like(means)
    deviation[:, :2] = 0.1
    return means + deviation * torch.randn_like(means), means


def test_dimensions_that_say_nothing_stay_standard_normal_and_the_others_follow_the_posteriors():
    prior = FittedMixture.of_draws(*ring())
    assert prior.active.tolist() == [0, 1]
    q = prior()
    assert (q.symbol, q.batch_shape, q.event_shape) == ("q(z)", (), (5,))
    z = q.rsample((20_000,))
    radius = z[:, :2].norm(dim=1)
    assert radius.mean().item() == pytest.approx(1.4, abs=0.03)
    assert radius.std().item() < 0.25  # of N(0, I): 0.65
    assert z[:, 2:].mean(0).abs().max() < 0.03
    assert (z[:, 2:].std(0) - 1).abs().max() < 0.03


def test_a_dimension_is_active_too_if_its_posteriors_all_say_the_same():
    z, means = ring()
    z[:, 3] = 2 + z[:, 3] / 2
    means[:, 3] = 2
    assert FittedMixture.of_draws(z, means).active.tolist() == [0, 1, 3]


def test_its_density_is_that_of_its_draws_and_the_temperature_narrows_all_dimensions():
    q = FittedMixture.of_draws(*ring(unused=1))()
    for p in (q, q.tempered(0.5)):
        z = p.rsample((20_000,))
        narrow = p.tempered(0.8)
        ratio = (narrow.log_prob(z) - p.log_prob(z)).exp()
        assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(len(z))
    cold = sample(q, 0.1, (5000,))
    assert cold[:, 2].std().item() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(sample(q, 0.0, (2,)), q.mean.expand(2, 3))


def test_where_no_dimension_is_active_it_is_the_prior():
    torch.manual_seed(0)
    z = torch.randn(5000, 2)
    q = FittedMixture.of_draws(z, torch.zeros(5000, 2))()
    expected = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z)
    torch.testing.assert_close(q.log_prob(z), expected)
    assert q.rsample((4, 3)).shape == (4, 3, 2)


def test_layers_of_latents_are_fitted_together():
    z, means = ring(unused=4)
    q = FittedMixture.of_draws(z.unflatten(1, (2, 3)), means.unflatten(1, (2, 3)))()
    drawn = q.rsample((7,))
    assert drawn.shape == (7, 2, 3)
    assert q.log_prob(drawn).shape == (7,)
    assert q.mean.shape == (2, 3)


# Models.

MODALITIES = toy_modalities(3)


def fitted(kind, **settings):
    """A model whose fitted prior is far from where its prior is."""
    torch.manual_seed(0)
    model = made(kind, MODALITIES, latent=3, **settings).eval()
    event = model.prior(Batch({})).event_shape
    z = 50 + torch.randn(200, *event)
    model.fitted_prior = FittedMixture.of_draws(z, z)
    return model


@pytest.mark.parametrize("kind", JOINT)
def test_every_joint_model_can_have_one(kind):
    torch.manual_seed(0)
    model = made(kind, MODALITIES, latent=3).eval()
    assert sample_latent(model, Batch({}), 4).shape[:1] == (4,)
    model.fitted_prior = fit_prior(Draws(model, [observations(MODALITIES, 60)]))
    drawn = sample_latent(model, Batch({}), 4)
    assert drawn.shape == (4, *model.prior(Batch({})).event_shape)
    assert source(model, ()) == "q(z)"


@pytest.mark.parametrize("kind", JOINT)
@torch.no_grad()
def test_it_is_drawn_from_given_nothing(kind):
    model = fitted(kind)
    assert (sample_latent(model, Batch({}), 20) > 30).all()
    assert (sample_latent(model, Batch({}), 1, temperature=0.0) > 30).all()
    given = observations(MODALITIES, 2).select(["point"])
    model.modalities = dict(MODALITIES)
    seen = []
    decode = model.decode
    model.decode = lambda z, *rest, **more: seen.append(z) or decode(z, *rest, **more)
    list(iterate(model, given, 3, iterations=1, start="prior"))
    assert (seen[0] > 30).all()
    assert (sample_latent(model, given, 2) < 30).all()


@torch.no_grad()
def test_likelihoods_and_the_bound_keep_the_prior():
    model, x = fitted("jmvae-kl"), observations(MODALITIES, 4)
    plain = made("jmvae-kl", MODALITIES, latent=3).eval()
    plain.load_state_dict(model.state_dict())
    found = []
    for each in (model, plain):
        torch.manual_seed(1)
        terms = [term.value for term in each(x)]
        weights = importance_sample(each, x, ["point"], 5).log_weight
        z = proposer(each, x, ()).rsample((5,))
        found.append([*terms, weights, z])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_only_so_many_rows_are_read():
    torch.manual_seed(0)
    model = made("jmvae", MODALITIES, latent=3).eval()
    read = []

    def batches():
        for number in range(10):
            read.append(number)
            yield observations(MODALITIES, 8, seed=number)

    assert len(Draws(model, batches(), rows=20).z) == 24
    assert read == [0, 1, 2]


def test_its_tensors_follow_the_model_and_are_none_of_its_weights():
    model = fitted("jmvae")
    assert not [name for name in model.state_dict() if "prior" in name]
    assert not [name for name, _ in model.named_parameters() if "prior" in name]
    assert model.to("meta").fitted_prior.means.is_meta
    assert model.fitted_prior().rsample((4,)).is_meta


# Runs.


@pytest.fixture(scope="module")
def prepare(small_glyphs):
    def prepared(epochs=2, prior="fitted", kind="jmvae-kl"):
        words = [*small(small_glyphs, epochs), f"model.kind={kind}", "train.batch_size=50"]
        words += [f"model.sampling_prior={prior}", "train.warmup_epochs=1"]
        return session.prepare(Experiment.read(ROOT / "examples" / "glyphs.toml", words))

    return prepared


@pytest.fixture(scope="module")
def run(prepare, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "run"
    prepared = prepare()
    session.start(prepared, out)
    for item in session.train(prepared, out):
        if isinstance(item, Epoch):
            assert not has_prior(out)  # before the end
    return out


def has_prior(run):
    with open_tensors(run / "best.safetensors", Reader(RunError)) as tensors:
        return any(name.startswith("prior/") for name in tensors)


def test_a_training_ends_with_one_beside_the_best_weights(run):
    assert has_prior(run)
    assert load(run, device="cpu").model.fitted_prior is not None
    assert load(run, device="cpu", weights="last").model.fitted_prior is None


def test_the_best_weights_stay_as_they_were_and_so_does_the_checkpoint(run, prepare, tmp_path):
    plain = prepare(prior="prior")
    session.start(plain, tmp_path / "plain")
    list(session.train(plain, tmp_path / "plain"))
    assert not has_prior(tmp_path / "plain")
    last = "last.safetensors"
    assert (tmp_path / "plain" / last).read_bytes() == (run / last).read_bytes()
    one, other = (load(path, device="cpu").model for path in (run, tmp_path / "plain"))
    for name, weight in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight), name


def test_it_is_generated_from_and_shown_given_nothing(run):
    loaded = load(run, device="cpu")
    drawn = loaded.generate({}, samples=8, seed=3)
    torch.manual_seed(3)
    assert torch.equal(drawn.z, loaded.model.fitted_prior().rsample((8,)))
    assert "fitted to the posteriors of training rows, q(z)" in groups.from_prior(loaded, 3).note


def test_an_interrupted_run_has_none_and_one_that_is_resumed_ends_with_the_same(
    run, prepare, tmp_path
):
    cut = prepare()
    session.start(cut, tmp_path / "cut")
    for item in session.train(cut, tmp_path / "cut"):
        if isinstance(item, Epoch):
            break
    assert load(tmp_path / "cut", device="cpu").model.fitted_prior is None
    again = prepare()
    assert session.resume(again, tmp_path / "cut")
    list(session.train(again, tmp_path / "cut"))
    best = "best.safetensors"
    assert (tmp_path / "cut" / best).read_bytes() == (run / best).read_bytes()


def test_a_run_that_was_stopped_while_it_was_fitted_is_completed(run, prepare, tmp_path):
    out = copied(run, tmp_path / "run")
    whole = (out / "best.safetensors").read_bytes()
    with open_tensors(out / "best.safetensors", Reader(RunError)) as tensors:
        weights = {n: tensors[n] for n in tensors if n.startswith("model/")}
        header = json.dumps(tensors.header)
    write_tensors(out / "best.safetensors", weights, {"mmgen": header})
    assert not has_prior(out)
    assert not session.resume(prepare(), out)
    assert has_prior(out)
    assert (out / "best.safetensors").read_bytes() == whole


def test_a_trained_run_gets_one_by_its_setting_and_loses_it_by_that(run, mmgen, tmp_path):
    out = copied(run, tmp_path / "run")
    for prior, has in (("prior", False), ("fitted", True)):
        words = (f"model.sampling_prior={prior}", "--no-figures")
        code, _, err = mmgen("train", out, "--resume", *words)
        assert code == 0, err
        assert f'"sampling_prior": "{prior}"' in (out / "experiment.json").read_text()
        assert f'sampling_prior = "{prior}"' in (out / "config.toml").read_text()
        assert (load(out, device="cpu").model.fitted_prior is not None) == has


def test_more_epochs_fit_it_anew(run, prepare, tmp_path):
    out = copied(run, tmp_path / "run")
    before = load(out, device="cpu").model.fitted_prior
    more = prepare(epochs=3)
    assert session.resume(more, out)
    list(session.train(more, out))
    after = load(out, device="cpu").model.fitted_prior
    assert after is not None
    assert not torch.equal(after.means, before.means)


def test_old_runs_have_none_and_can_be_given_one(mmgen, tmp_path):
    old = Path(__file__).parent / "old_runs" / "jmvae-kl"
    out = copied(old, tmp_path / "run")
    assert load(out, device="cpu").model.fitted_prior is None
    code, _, err = mmgen("train", out, "--resume", "model.sampling_prior=fitted", "--no-figures")
    assert code == 0, err
    assert load(out, device="cpu").model.fitted_prior is not None


def damaged(run, tmp_path, **other):
    out = copied(run, tmp_path / "run")
    with open_tensors(out / "best.safetensors", Reader(RunError)) as tensors:
        every = {n: tensors[n] for n in tensors} | {f"prior/{n}": t for n, t in other.items()}
        header = json.dumps(tensors.header)
    every = {n: t for n, t in every.items() if t is not None}
    write_tensors(out / "best.safetensors", every, {"mmgen": header})
    return out


WRONG = {
    "a missing tensor": ({"means": None}, "a fitted prior has"),
    "another shape": ({"means": torch.zeros(1, 1)}, "'means' has the shape"),
    "another type": ({"active": torch.zeros(3)}, "'active' has the shape"),
    "another dimension": ({"active": torch.tensor([10**6])}, "has the shape"),
    "no numbers": ({"log_weights": torch.tensor([math.nan])}, "'log_weights'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_damaged_one_is_told_before_anything_is_drawn(wrong, run, tmp_path):
    other, message = WRONG[wrong]
    with pytest.raises(RunError, match=f"what z is drawn from is damaged: .*{message}"):
        load(damaged(run, tmp_path, **other), device="cpu")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("active", lambda t: t.flip(0), "no dimensions of 3"),
        ("active", lambda t: t + 1, "no dimensions of 3"),
        ("innovations", lambda t: -t, "not above 0"),
        ("log_weights", lambda t: t + 1, "do not sum to one"),
        ("couplings", lambda t: t.mT + 1, "not lower unitriangular"),
    ],
)
def test_values_are_checked_too(name, change, message):
    torch.manual_seed(0)
    z = torch.randn(200, 3)
    tensors = FittedMixture.of_draws(3 * z, 3 * z).tensors()
    FittedMixture.stored((3,), tensors)
    with pytest.raises(ValueError, match=message):
        FittedMixture.stored((3,), tensors | {name: change(tensors[name])})
