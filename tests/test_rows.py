"""Rows in bulk from Python: against the exact posteriors and conditionals of linear models."""

import math

import pytest
import torch
import truth
from torch.distributions import MultivariateNormal
from toys import CPU, JOINT, KINDS, ONE_WAY, PLUGIN, observations, toy_modalities, write_run

import mmgen
from mmgen.batch import Batch
from mmgen.errors import GenerationError
from mmgen.rows import inference
from mmgen.rows.gathered import Drawn, Gathered
from mmgen.rows.noise import shared_noise
from mmgen.run import Run

MODALITIES = toy_modalities(3)
WAY = {"targets": ("point", "picture"), "given": ("colour",)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for kind in KINDS:
        write_run(folder / kind, kind, MODALITIES, WAY if kind in ONE_WAY else {})
    return {k: mmgen.load(folder / k, device="cpu", plugin_modules=[PLUGIN]) for k in KINDS}


@pytest.fixture(params=KINDS)
def run(request, runs):
    return runs[request.param]


@pytest.fixture(params=JOINT)
def joint(request, runs):
    return runs[request.param]


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def linear(double):
    """A run whose posteriors are exact, and the truth."""
    toy = truth.linear_joint("abc", rows=40)
    return Run(None, None, toy.model.modalities, toy.model, CPU), toy


def with_holes(x, seed=0):
    """Every row lacks what a coin says, but for one modality at least; as columns of tensors."""
    g = torch.Generator().manual_seed(seed)
    holes = {}
    there = torch.rand(x.rows, len(x), generator=g) < 0.6
    there[torch.arange(x.rows), torch.randint(len(x), (x.rows,), generator=g)] = True
    for k, n in enumerate(x):
        holes[n] = x[n].clone()
        holes[n][~there[:, k]] = math.nan
    return holes, there


def test_rows_are_encoded_by_what_each_has(linear):
    run, toy = linear
    columns, there = with_holes(toy.x)
    q = run.encode(columns)
    assert q.batch_shape == (40,)
    assert len({tuple(row) for row in there.tolist()}) > 4
    for row in range(40):
        S = tuple(n for n, has in zip("abc", there[row], strict=True) if has)
        one = {n: toy.x[n][row : row + 1] for n in S}
        mean, covariance = toy.linear.posterior(one, S)
        torch.testing.assert_close(q.mean[row], mean[0])
        # the floor of variances is 1e-6
        torch.testing.assert_close(q.variance[row], covariance.diagonal(), atol=3e-6, rtol=0)
        z = torch.randn(2)
        own = MultivariateNormal(mean[0], covariance).log_prob(z)
        found = q.log_prob(z.expand(40, 2))[row]
        torch.testing.assert_close(found, own, atol=1e-3, rtol=1e-4)


def exact_conditional(toy, target, given, x):
    """Mean and deviation of p(x_target | x_given), exactly."""
    mean, covariance = toy.linear.posterior(x, given)
    W, b = toy.linear.stacked([target])
    variance = (W @ covariance @ W.T).diagonal() + truth.NOISE**2
    return mean @ W.T + b, variance.sqrt()


def test_what_is_predicted_is_the_conditional_mean(linear):
    run, toy = linear
    columns, there = with_holes(toy.x)
    samples = 400
    told = run.predict(columns, "b", samples=samples)["b"]
    plain = run.predict(columns, "b", samples=2)["b"]
    for row in range(40):
        S = tuple(n for n, has in zip("abc", there[row], strict=True) if has and n != "b")
        one = {n: toy.x[n][row : row + 1] for n in S}
        if S:
            mean, deviation = exact_conditional(toy, "b", S, one)
        else:
            W, b = toy.linear.stacked(["b"])
            mean = b.unsqueeze(0)
            deviation = ((W @ W.T).diagonal() + truth.NOISE**2).sqrt()
        # half of the draws mirror the others: in a linear model the mean is exact
        torch.testing.assert_close(told.mean[row], mean[0], atol=1e-9, rtol=0)
        torch.testing.assert_close(plain.mean[row], mean[0], atol=1e-9, rtol=0)
        error = 3 * deviation / math.sqrt(samples)  # of a standard deviation, and a bit
        assert ((told.deviation[row] - deviation).abs() < error).all()


def test_samples_have_the_conditional_mean_and_deviation(linear):
    run, toy = linear
    draws = run.sample({"a": toy.x["a"]}, "c", 2000, seed=3)["c"]
    assert draws.shape == (2000, 40, 4)
    mean, deviation = exact_conditional(toy, "c", ("a",), toy.x)
    z = (draws.mean(0) - mean) / (deviation / math.sqrt(2000))
    assert z.abs().max() < 4.5  # of 160 standard normals
    assert abs(z.mean()) < 0.3  # noise is not shared between rows
    ratio = draws.std(0) / deviation
    assert (ratio - 1).abs().max() < 4.5 / math.sqrt(4000)
    again = run.sample({"a": toy.x["a"]}, "c", 2000, seed=3)["c"]
    assert torch.equal(draws, again)


def test_log_p_is_that_of_what_each_row_has(linear):
    run, toy = linear
    columns, there = with_holes(toy.x)
    found = run.log_prob(columns, samples=3)
    for row in range(40):
        S = tuple(n for n, has in zip("abc", there[row], strict=True) if has)
        exact = toy.linear.log_p({n: toy.x[n][row : row + 1] for n in S}, S)[0]
        # with exact posteriors every weight is p(x)
        torch.testing.assert_close(found[row], exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["jmvae", "hierarchical"])
def test_log_p_without_an_encoder_of_its_own_is_found_by_the_prior(double, kind):
    if kind == "jmvae":
        toy = truth.linear_joint("ab", rows=12)
        toy.model.subsets = []  # no encoder but the joint one
    else:
        toy = truth.linear_hierarchy(slope=0.7, wide=2.0, rows=12)
    run = Run(None, None, toy.model.modalities, toy.model, CPU)
    found = run.log_prob({"a": toy.x["a"]}, samples=4000)
    exact = toy.linear.log_p(toy.x, ("a",))
    assert (found - exact).abs().max() < 0.25
    assert (found - exact).abs().mean() < 0.08


def columns_of(x):
    columns, _ = with_holes(x, seed=1)
    return columns


def test_permuted_rows_are_permuted_results_whatever_the_chunk(run):
    x = observations(MODALITIES, 23)
    one_way = run.experiment.model.kind in ONE_WAY
    columns = {"colour": x["colour"]} if one_way else columns_of(x)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(2))
    shuffled = {n: value[order] for n, value in columns.items()}
    targets = ["point", "picture"] if one_way else ["picture"]
    T = {} if one_way else {"iterations": 2}
    q, other = run.encode(columns, **T), run.encode(shuffled, chunk=4, **T)
    torch.testing.assert_close(q.mean[order], other.mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(q.stddev[order], other.stddev, atol=1e-5, rtol=1e-4)
    p = run.predict(columns, targets, **T)
    other = run.predict(shuffled, targets, chunk=5, **T)
    for n in targets:
        torch.testing.assert_close(p[n].mean[order], other[n].mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(p[n].deviation[order], other[n].deviation, atol=1e-5, rtol=1e-4)
    columns = dict(x) if one_way else columns
    shuffled = {n: value[order] for n, value in columns.items()}
    log_p = run.log_prob(columns, samples=10, **T)
    other = run.log_prob(shuffled, samples=10, chunk=7, **T)
    assert log_p.isfinite().all()
    torch.testing.assert_close(log_p[order], other, atol=1e-3, rtol=1e-4)


def test_a_row_that_has_nothing_is_of_the_prior(joint):
    q = joint.encode({"colour": [None, "red"], "point": [None, None]}, iterations=2)
    prior = joint.model.prior(Batch({}))
    torch.testing.assert_close(q.mean[0], prior.mean)
    assert not torch.allclose(q.mean[1], prior.mean)
    assert joint.predict({"colour": [None, "red"]}, "point")["point"].mean.isfinite().all()
    assert joint.log_prob({"colour": [None, "red"]}, iterations=2)[0] == 0


def test_raw_cells_tensors_and_splits_are_the_same_rows(runs):
    run = runs["jmvae-kl"]
    words = ["red", None, "blue", "green"]
    points = ["1,2,3", "0,0,1", None, None]
    raw = run.encode({"colour": words, "point": points})
    nan = torch.full((2, 3), math.nan)
    point = torch.cat([torch.tensor([[1.0, 2, 3], [0, 0, 1]]), nan])
    tensors = run.encode({"colour": words, "point": point})
    torch.testing.assert_close(raw.mean, tensors.mean)
    numbers = run.encode({"colour": words, "point": point.numpy()})
    torch.testing.assert_close(raw.mean, numbers.mean)


def test_iterative_sampling_is_known_by_draws(runs):
    run = runs["jmvae"]
    q = run.encode({"colour": ["red", "green"], "point": ["1,2,3", None]}, iterations=3)
    assert isinstance(q, Gathered)
    assert all(isinstance(part, Drawn) for _, part in q.parts)
    assert q.sample((5,)).shape == (5, 2, 3)
    with pytest.raises(NotImplementedError, match="draws alone"):
        q.log_prob(torch.zeros(2, 3))
    assert "T = 3 from colour" in {part.symbol for _, part in q.parts}


def test_one_way_models_say_what_they_lack(runs):
    run = runs["cmma"]
    with pytest.raises(GenerationError, match="a row has point: it lacks colour"):
        run.encode({"point": ["1,2,3"]})
    with pytest.raises(GenerationError, match="needs all of"):
        run.log_prob({"colour": ["red"]})


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"color": ["red"]}, "no modality 'color'; did you mean 'colour'"),
        ({"colour": ["red", "rosy"]}, "colour, row 1: there is no word 'rosy'"),
        ({"colour": "red"}, "rows are a list with a value for each"),
        ({"colour": ["red"], "point": [None, None]}, "colour has 1, point has 2"),
        (7, "rows are a mapping of columns"),
        ({"point": torch.zeros(2, 5)}, r"observations have the shape \(rows, 3\), not \(2, 5\)"),
        ({"point": torch.full((1, 3), math.inf)}, "not finite"),
    ],
)
def test_rows_that_cannot_be_read_are_told(runs, rows, words):
    with pytest.raises(GenerationError, match=words):
        runs["jmvae-kl"].encode(rows)


def test_no_rows_are_no_results(runs):
    run = runs["jmvae-kl"]
    assert run.encode({"colour": []}).mean.shape == (0, 3)
    assert run.predict({"colour": []}, "point")["point"].mean.shape == (0, 3)
    assert run.log_prob({"colour": []}).shape == (0,)
    assert run.sample({"colour": []}, "point", 4)["point"].shape == (4, 0, 3)


def test_noise_is_shared_and_mirrored():
    with shared_noise(CPU, 5, 6, 0):
        z = torch.empty(6, 5, 3).normal_()
        flat = torch.rand(30, 2)
        each = torch.rand_like(torch.zeros(5, 2))
        alone = torch.rand(7)
    assert torch.equal(z, z[:, :1].expand_as(z))
    assert torch.equal(z[:3], -z[3:])
    assert len(z[:3, 0].unique(dim=0)) == 3
    flat = flat.view(6, 5, 2)
    assert torch.equal(flat, flat[:, :1].expand_as(flat))
    assert torch.allclose(flat[:3] + flat[3:], torch.ones(3, 5, 2))
    assert torch.equal(each, each[:1].expand_as(each))
    assert len(alone.unique()) == 7


def test_two_rows_at_a_time_are_never_taken_for_samples():
    torch.manual_seed(0)
    model = truth.built("jmvae-kl", "ab", subsets="all").float()
    x = Batch({"a": torch.randn(inference.SAMPLES, 3)})
    both = inference.moments(model, x, inference.SAMPLES, ["b"])["b"][0]
    for row in range(inference.SAMPLES):
        one = inference.moments(model, x.slice(row, row + 1), 1, ["b"])["b"][0]
        torch.testing.assert_close(both[row : row + 1], one, atol=1e-5, rtol=1e-4)


# What can be few things.


@pytest.fixture(scope="module")
def glyphs(trained):
    return mmgen.load(trained, device="cpu")


def decoded(run, monkeypatch):
    """Counts the z that are decoded."""
    counts, decode = [], run.model.decode

    def counted(z, *rest, **more):
        counts.append(z.shape[:-1].numel())
        return decode(z, *rest, **more)

    monkeypatch.setattr(run.model, "decode", counted)
    return counts


def test_given_a_class_rows_share_many_draws(glyphs, monkeypatch):
    counts = decoded(glyphs, monkeypatch)
    many = glyphs.predict({"label": ["A", "B", "A"] * 30}, "attributes")["attributes"]
    assert sum(counts) == 2 * inference.OF_FEW
    counts.clear()
    alone = glyphs.predict({"label": ["B"]}, "attributes")["attributes"]
    assert sum(counts) == inference.OF_FEW
    torch.testing.assert_close(alone.mean[0], many.mean[1], atol=1e-5, rtol=1e-4)
    assert torch.equal(many.mean[0], many.mean[89 - 2])
    assert not torch.equal(many.mean[0], many.mean[1])


def test_given_a_picture_or_a_number_of_draws_each_row_has_its_own(glyphs, monkeypatch):
    counts = decoded(glyphs, monkeypatch)
    pictures = glyphs.model.blank(["image"])["image"].repeat(2, *[1] * 3)
    x = Batch({"image": pictures})
    inference.moments(glyphs.model, x, 2, ["label"])
    assert sum(counts) == 2 * inference.SAMPLES
    counts.clear()
    x = Batch({"label": glyphs.model.blank(["label"])["label"].repeat(2, 1)})
    inference.moments(glyphs.model, x, 2, ["image"], samples=7)
    assert sum(counts) == 7  # they are alike


def test_what_can_be_many_things_is_not_few(glyphs, monkeypatch):
    model = glyphs.model
    assert inference._possible(model, []) == 1
    assert inference._possible(model, ["label"]) == len(glyphs.modalities["label"].choices())
    attributes = len(glyphs.modalities["attributes"].switches())
    both = inference._possible(model, ["label", "attributes"])
    assert both == len(glyphs.modalities["label"].choices()) * 2**attributes
    assert inference._possible(model, ["image", "label"]) == math.inf
    monkeypatch.setattr(inference, "FEW", 1)
    counts = decoded(glyphs, monkeypatch)
    glyphs.predict({"label": ["A", "A"]}, "attributes")
    assert sum(counts) == 2 * inference.SAMPLES
