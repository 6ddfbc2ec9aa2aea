"""Likelihood estimates against models whose likelihoods are known; see truth.py."""

import math
from dataclasses import replace

import pytest
import torch
import truth
from by_hand import raw, set_encoder
from torch.distributions import kl_divergence
from toys import (
    KINDS,
    ONE_WAY,
    Grid,
    OneDevice,
    Word,
    on_gpu,
    stored,
    toy_modalities,
    toy_model,
)

from mmgen.batch import Batch
from mmgen.data.store import Split
from mmgen.evaluation.directions import Direction, all_directions
from mmgen.evaluation.likelihood import decoding, estimators, weighing
from mmgen.evaluation.likelihood.decoding import have_probabilities, log_likelihoods
from mmgen.evaluation.likelihood.estimates import Estimate, SamplingBudget, notes_of
from mmgen.evaluation.likelihood.estimators import likelihoods
from mmgen.evaluation.likelihood.weighing import Ratio, weigh
from mmgen.inference import sample as sampling
from mmgen.inference.importance import Proposed, importance_sample, propose
from mmgen.inference.iterative import iterate
from mmgen.seeding import generator


@pytest.fixture(autouse=True)
def double():
    """The truth is compared to many digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


EXACT = {
    "jmvae-kl of 2": lambda: truth.linear_joint("ab"),
    "jmvae-kl of 3": lambda: truth.linear_joint("abc"),
    "cvae": lambda: truth.linear_conditional("cvae"),
    "cmma": lambda: truth.linear_conditional("cmma"),
}

ROUGH = {
    "jmvae-kl of 2": lambda: truth.linear_joint("ab", skew=True, wide=1.4),
    "jmvae-kl of 3": lambda: truth.linear_joint("abc", skew=True, wide=1.4),
    "hierarchical": lambda: truth.linear_hierarchy(slope=0.9, wide=8),
    "cvae": lambda: truth.linear_conditional("cvae", wide=8),
    "cmma": lambda: truth.linear_conditional("cmma", wide=8),
    **{f"words of {kind}": lambda kind=kind: truth.words(kind) for kind in KINDS},
}


def estimates(toy, budget, directions=None):
    return likelihoods(
        toy.model,
        toy.split,
        all_directions(toy.model) if directions is None else directions,
        budget,
    )


def close(values, expected, errors=3.0):
    """Tells whether a mean over rows is within so many standard errors of the truth."""
    difference = values - expected
    return difference.mean().abs() < errors * difference.std() / math.sqrt(len(difference)) + 1e-9


def together(names):
    """Of one set of targets and given, in the order of the joint likelihood."""
    return {(e.targets, e.given): e for e in names if e.estimator == "importance"}


# The truth itself.


@pytest.mark.parametrize("kind", KINDS)
def test_the_probabilities_of_all_observations_sum_to_one(kind):
    toy = truth.words(kind)
    joint = ("colour", "side", "size")
    if kind in ONE_WAY:
        log_p = toy.log_p(("colour", "size"), ("side",))
        for side in (0, 1):
            assert log_p[toy.x["side"] == side].exp().sum().item() == pytest.approx(1, abs=1e-9)
        return
    assert toy.log_p(joint, ()).exp().sum().item() == pytest.approx(1, abs=1e-9)
    one_a_colour = toy.log_p(("colour",), ())[::4]
    assert one_a_colour.exp().sum().item() == pytest.approx(1, abs=1e-9)


# Importance sampling.


@pytest.mark.parametrize("name", EXACT)
def test_with_the_exact_posterior_every_weight_is_the_likelihood(name):
    toy = EXACT[name]()
    found = estimates(toy, SamplingBudget(samples=0, importance=7))
    directions = all_directions(toy.model)
    marginals = {s for p in directions for s in (p.given, p.both(toy.model.names))}
    assert len(found) == len(directions) + (0 if toy.model.directions else len(marginals))
    # Of one direction, the posterior is that given all targets: exact for all of them together.
    for e in found[: len(marginals)] if toy.model.directions is None else found[-1:]:
        assert (e.values - toy.log_p(e.targets, e.given)).abs().max() < 1e-9, e.quantity
        assert (e.ess - 7).abs().max() < 1e-8, e.quantity
        assert (e.ess_half.log() - math.log(12) / 2).abs().max() < 1e-8  # of 3 and of 4


@torch.no_grad()
def test_a_joint_likelihood_and_a_marginal_with_an_encoder_are_means_of_one_posteriors_weights():
    """To the last bit: other estimates take z of these posteriors too, and change nothing."""
    toy = truth.words("jmvae-kl")
    found = together(estimates(toy, SamplingBudget(samples=0, importance=150, seed=3)))
    x = Batch({n: toy.model.modalities[n].observe(stored) for n, stored in toy.x.items()})
    for names in (toy.model.names, ("side", "size"), ("colour",)):
        torch.manual_seed(generator("likelihood", 3, "proposal", *names, 0).initial_seed())
        sums = []
        for samples in (100, 50):
            drawn = importance_sample(toy.model, x, names, samples)
            log_p_x = log_likelihoods(toy.model, x, drawn.z, names, 1000)
            log_w = drawn.log_weight + torch.stack([*log_p_x.values()]).sum(0)
            sums.append(log_w.logsumexp(0))
        expected = torch.stack(sums).logsumexp(0) - math.log(150)
        assert torch.equal(found[names, ()].values, expected)


def test_layers_that_are_independent_given_x_have_constant_weights():
    toy = truth.linear_hierarchy(slope=0.0)
    joint = estimates(toy, SamplingBudget(samples=0, importance=7))[0]
    assert joint.quantity == "log p(a, b)"
    assert (joint.values - toy.log_p(("a", "b"), ())).abs().max() < 1e-9
    assert (joint.ess - 7).abs().max() < 1e-8


@pytest.mark.parametrize("name", ROUGH)
def test_estimates_by_another_posterior_are_within_three_standard_errors(name):
    toy = ROUGH[name]()
    found = estimates(toy, SamplingBudget(samples=0, importance=2000, chunk=4000))
    for e in found:
        expected = toy.log_p(e.targets, e.given)
        assert (e.values - expected).std() > 1e-5, f"{e.quantity}: the posterior is exact"
        assert (e.values - expected).abs().mean() < 0.1, e.quantity
        assert close(e.values, expected, 3.5 if len(found) > 20 else 3), e.quantity
        assert 1 <= e.ess.min() < e.ess.max() < e.samples


@pytest.mark.parametrize("name", ["jmvae-kl of 2", "hierarchical", "cmma", "words of jmvae-kl"])
def test_more_samples_are_closer_and_from_below(name):
    toy = ROUGH[name]()
    T, S = (("a", "b"), ("c",)) if name == "cmma" else (toy.model.names, ())
    expected = toy.log_p(T, S)
    below, wrong = [], []
    for samples in (1, 10, 100):
        draws = []
        for seed in range(10):
            found = estimates(toy, SamplingBudget(samples=0, importance=samples, seed=seed))
            draws.append(together(found)[T, S].values - expected)
        gaps = torch.stack(draws)
        below.append(gaps.mean().item())
        wrong.append(gaps.square().mean().sqrt().item())
    # The bias of a logarithm falls as 1/N, the error of a mean as 1/√N.
    assert below[0] < 2 * below[1] < 0
    assert wrong[0] > 1.8 * wrong[1] > 1.8 * 1.8 * wrong[2]


def test_one_sample_is_the_bound():
    """E[log w] = log p(x) − KL(q(z|x) ‖ p(z|x)), known in closed form."""
    toy = truth.linear_joint("ab", skew=True, wide=1.4)
    with torch.no_grad():
        q = toy.model.posterior(toy.x)
    mean, covariance = toy.linear.posterior(toy.x, ("a", "b"))
    exact = torch.distributions.MultivariateNormal(mean, covariance)
    spread = torch.distributions.MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    divergence = kl_divergence(spread, exact)
    assert divergence.min() > 0.1
    draws = [
        estimates(toy, SamplingBudget(samples=0, importance=1, seed=seed))[0].values
        for seed in range(40)
    ]
    expected = toy.log_p(("a", "b"), ()) - divergence
    error = torch.stack(draws).mean(0) - expected
    assert error.mean().abs() < 3 * torch.stack(draws).std() / math.sqrt(40 * len(error))
    assert error.mean().abs() < 0.25 * divergence.mean()


@pytest.mark.parametrize("name", ["jmvae-kl", "jmvae", "hierarchical", "cvae", "cmma"])
@pytest.mark.parametrize("samples", [1, 4, 50])
def test_log_p_of_a_discrete_target_is_never_above_0(name, samples):
    toy = truth.words(name)
    with torch.no_grad():
        for n, parameter in toy.model.named_parameters():
            if n.startswith("decoders."):
                parameter.mul_(3)  # nearly certain: close to 0
            elif "posteriors" in n or "encoder" in n:
                parameter.mul_(0.5)  # and posteriors that are far from the truth
    budget = SamplingBudget(samples=0, importance=samples)
    directions = all_directions(toy.model)
    if toy.model.directions is None:
        directions += [Direction(("colour", "size"), ("side",))]
    found = together(estimates(toy, budget, directions))
    for direction in directions:
        values = found[direction.targets, direction.given].values
        assert values.max() <= 0, direction
        assert values.min() < 0, direction


def test_the_probabilities_of_all_values_add_up_to_one_where_z_are_the_same():
    """With z that do not know x_T, one weighted mean of p(x_T|z) is that of all of its values."""
    toy = truth.words("jmvae-kl")
    ratio = Ratio(("colour", "side"), ("side",), (("side",),))
    rows = toy.model.modalities["side"].observe(torch.zeros(3, dtype=torch.uint8))
    colours = toy.model.modalities["colour"].observe(torch.arange(3))
    x = Batch({"colour": colours, "side": rows, "size": rows})
    z = propose(toy.model, x.slice(0, 1), ("side",), 20)
    same = Proposed(
        z.z.expand(-1, 3, -1),
        z.log_p.expand(-1, 3),
        {subset: log_q.expand(-1, 3) for subset, log_q in z.log_q.items()},
    )
    log_p_x = log_likelihoods(toy.model, x, same.z, ("colour", "side"), 100)
    pieces = weighing.sums_of(ratio, same, log_p_x)
    total = weighing.estimated(ratio, [pieces], 20)[0].exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["jmvae-kl", "jmvae", "cmma"])
def test_a_discrete_target_agrees_with_the_sum_over_a_grid_of_z(name):
    """By few z of many seeds, so that the mean of the estimates has little noise."""
    toy = truth.words(name)
    T, S = (("colour", "size"), ("side",)) if name == "cmma" else (("colour",), ("side", "size"))
    expected = toy.log_p(T, S).detach()
    noise, noise_of_difference = [], []
    for seed in range(15):
        budget = SamplingBudget(samples=0, importance=40, seed=seed)
        found = together(estimates(toy, budget, [Direction(T, S)]))
        noise.append(found[T, S].values - expected)
        if name == "jmvae-kl":
            difference = found[toy.model.names, ()].values - found[S, ()].values
            noise_of_difference.append(difference - expected)
    wrong = torch.stack(noise)
    error = wrong.std() / math.sqrt(wrong.numel())
    assert wrong.mean().abs() < 3.5 * error + 0.5 * wrong.var()  # a logarithm's bias, as 1/N
    if noise_of_difference:
        assert wrong.std() < 0.6 * torch.stack(noise_of_difference).std()


def test_without_an_encoder_the_prior_keeps_weights_bounded():
    """q(z|x) is exact and narrower than p(z|x_b): by itself it puts log p(x_b) far too low."""
    toy = truth.linear_hierarchy(slope=0.9)  # of two layers: a chain of them is drawn as well
    joint = truth.linear_joint("abc")
    model = truth.built("jmvae", "abc")
    model.load_state_dict({**model.state_dict(), **decoders_of(joint.model)})
    weight, bias, covariance = truth.exact(joint.linear, joint.model.names)
    set_encoder(model.encoder, joint.model.names, weight, bias, covariance.diagonal())
    for toy in (replace(joint, model=model), truth.linear_hierarchy(slope=0.9)):
        names, expected = toy.model.names, toy.log_p(("b",), ())
        alone, defended = (
            weighed(toy, Ratio(("b",), None, pool), 1000) for pool in ((names,), (names, ()))
        )
        assert (alone[0] - expected).mean() < -0.1
        assert alone[1].min() < 4
        assert close(defended[0], expected)
        assert (defended[0] - expected).abs().mean() < 0.1
        assert defended[1].min() > 10
        drawn = propose(toy.model, toy.x, names, 50, [()])
        assert drawn.log_weight((names, ())).max() <= math.log(2) + 1e-9
        (e,) = [e for e in estimates(toy, SamplingBudget(0, 50)) if e.quantity == "log p(b)"]
        assert (e.z, e.samples) == (f"q(z | x) and {toy.model.prior(toy.x).symbol}", 100)


def decoders_of(model):
    return {n: w for n, w in model.state_dict().items() if n.startswith("decoders.")}


@torch.no_grad()
def weighed(toy, ratio, samples):
    """Estimate and effective sample size of each row."""
    torch.manual_seed(5)
    sums = [
        piece
        for source in ratio.pool
        for piece in weigh(toy.model, toy.x, source, [ratio], [samples], 10**5)[ratio]
    ]
    return weighing.estimated(ratio, sums, samples)


@pytest.mark.parametrize("name", ["jmvae-kl", "hierarchical", "cvae", "cmma"])
def test_a_modality_says_itself_that_its_values_have_probabilities(name):
    model = toy_model(name, toy_modalities(3))  # a word, numbers, a picture of 0 and 1
    targets = model.directions.targets if model.directions else model.names
    discrete = {n: have_probabilities(model, [n]) for n in targets}
    assert discrete == {n: n != "point" for n in targets}
    assert have_probabilities(model, targets) == ("point" not in targets)


def test_a_likelihood_that_does_not_say_what_its_values_are_has_a_density():
    class Silent(torch.distributions.Distribution):
        pass

    assert not decoding._is_discrete(Silent(validate_args=False))


def test_each_estimate_names_the_posterior_that_it_was_drawn_from():
    found = together(estimates(truth.linear_joint("abc"), SamplingBudget(samples=0, importance=2)))
    assert found[("a", "b", "c"), ()].z == "q(z | x)"
    assert found[("b",), ()].z == "q(z | b)"
    assert found[("a",), ("b",)].z == "q(z | a, b) and q(z | b)"
    assert [found[T, S].samples for T, S in ((("b",), ()), (("a",), ("b",)))] == [2, 4]
    found = together(
        estimates(truth.linear_hierarchy(slope=1.0), SamplingBudget(samples=0, importance=2))
    )
    assert found.pop((("a", "b"), ())).z == "q(z | x)"
    assert {(e.z, e.samples) for e in found.values()} == {("q(z | x) and p(z)", 4)}
    found = together(
        estimates(truth.linear_conditional("cvae"), SamplingBudget(samples=0, importance=2))
    )
    assert found.pop((("a", "b"), ("c",))).z == "q(z | x)"  # all targets together
    assert {e.z for e in found.values()} == {"q(z | x) and N(0, I)"}
    (found, *_) = estimates(truth.words("cmma"), SamplingBudget(samples=0, importance=2))
    assert found.z == "q(z | x) and p(z | side)"


# The effective sample size.


def of_sizes(ess, ess_half):
    ess, ess_half = torch.as_tensor(ess), torch.as_tensor(ess_half)
    return Estimate(("a",), ("b",), "importance", "q", 100, torch.zeros(len(ess)), ess, ess_half)


@pytest.mark.parametrize(
    ("power", "told"),
    [
        (1.0, "about --importance 290 would do"),  # 100 · 10 / √(2.5 · 5) = 282.8
        (0.5, "about --importance 800 would do"),
        (0.05, "hardly grows with the number of z: a few of them decide"),
        (0.0, "hardly grows with the number of z: a few of them decide"),
    ],
)
def test_a_small_effective_sample_size_is_told_once_with_how_many_z_would_do(power, told):
    ess = torch.tensor([2.5, 5.0, 20.0, 100.0])
    (note,) = notes_of([of_sizes(ess, ess / 2**power), of_sizes(4 * ess, 2 * ess)], 100)
    assert note.startswith("log p(a | b): the effective sample size is below 10 in 2 of 4 rows")
    assert "(least 2.5)" in note
    assert note.endswith(told)


def test_of_a_single_z_its_number_is_what_ten_need():
    (note,) = notes_of([of_sizes([1.0, 1.0], [torch.nan, torch.nan])], 1)
    assert note.endswith("about --importance 10 would do")


@pytest.mark.parametrize(("spread", "samples"), [(1.0, 10), (2.0, 100), (3.0, 400)])
def test_so_many_z_do(spread, samples):
    """Log-normal weights, from nearly even ones to heavy tails."""
    torch.manual_seed(4)

    def drawn(samples):
        log_w = spread * torch.randn(samples, 200)
        ratio = Ratio(("a",), None, (("a",),))
        pieces = weighing._moments(log_w).unsqueeze(1)
        _, *sizes = weighing.estimated(ratio, [pieces], samples)
        return of_sizes(*sizes)

    few = drawn(samples)
    assert few.few.float().mean() > 0.3
    assert few.times > 1.5
    more = drawn(round(few.times * samples)).ess.log().mean().exp()
    assert 10 < more < 30  # the rows that had less are no worse than the others


# Means of logs.


def test_means_of_logs_are_those_of_each_subsets_own_posterior():
    toy = truth.linear_joint("abc", skew=True, wide=1.4)
    found = estimates(toy, SamplingBudget(samples=300, importance=0))
    assert len(found) == 2 * len(all_directions(toy.model))
    for e in found:
        seen = e.given if e.estimator == "single" else tuple(sorted({*e.given, *e.targets}))
        q = toy.model.posterior(toy.x.select(seen))
        expected = toy.linear.mean_of_logs(toy.x, e.targets, q.mean, toy.variances[seen].diag())
        assert close(e.values, expected, 3.5), e.quantity
        assert e.z == f"q(z | {'x' if seen == toy.model.names else ', '.join(seen)})"


@pytest.mark.parametrize("kind", ONE_WAY)
def test_of_one_direction_single_is_from_the_prior_and_multiple_from_the_posterior(kind):
    toy = truth.linear_conditional(kind)
    found = estimates(toy, SamplingBudget(samples=400, importance=0))
    assert [e.quantity for e in found] == [
        "log p(a | c)",
        "log p(b | c)",
        "log p(a, b | c)",
        "log p(a, b | c, a, b)",
    ]
    posterior, covariance = toy.linear.posterior(toy.x, ("a", "b"))
    for e in found:
        mean, spread = toy.linear.mean, toy.linear.covariance
        if e.estimator == "multiple":
            mean, spread = posterior, covariance
        expected = toy.linear.mean_of_logs(toy.x, e.targets, mean, spread)
        assert close(e.values, expected), e.quantity
        prior = "p(z | c)" if kind == "cmma" else "N(0, I)"
        assert e.z == (prior if e.estimator == "single" else "q(z | x)")


def test_a_mean_of_logs_is_below_the_truth_where_z_is_from_the_exact_posterior():
    """Jensen: E_p(z|x_S)[log p(x_T|z)] ≤ log E_p(z|x_S)[p(x_T|z)] = log p(x_T|x_S)."""
    for toy in (truth.linear_joint("abc"), truth.linear_conditional("cmma")):
        for e in estimates(toy, SamplingBudget(samples=200, importance=0)):
            if e.estimator == "single":
                assert e.nats < toy.log_p(e.targets, e.given).mean() - 0.1, e.quantity


def test_given_the_target_itself_the_mean_of_logs_is_no_bound():
    toy = truth.linear_joint("abc")
    for e in estimates(toy, SamplingBudget(samples=50, importance=0)):
        if e.estimator == "multiple":
            assert e.nats > toy.log_p(e.targets, e.given).mean() + 0.1, e.quantity


def test_iterative_sampling_with_the_exact_joint_posterior_comes_to_the_exact_one_of_a_subset():
    toy = truth.linear_joint("abc")
    directions = [
        Direction(("b",), ("a",)),
        Direction(("c",), ("a", "b")),
        Direction(("a", "b"), ("c",)),
    ]
    few, many = (
        estimates(toy, SamplingBudget(samples=100, importance=0, iterations=T), directions)
        for T in (1, 40)
    )
    for start, end in zip(few, many, strict=True):
        if end.estimator == "multiple":
            continue
        mean, covariance = toy.linear.posterior(toy.x, end.given)
        expected = toy.linear.mean_of_logs(toy.x, end.targets, mean, covariance)
        assert close(end.values, expected), end.quantity
        wrong = [(values - expected).abs().mean() for values in (start.values, end.values)]
        assert wrong[0] > 1.5 * wrong[1], end.quantity
        assert end.z == f"T = 40 from {', '.join(end.given)}"


def test_a_hierarchy_comes_down_from_its_top_layer():
    """Equation A.2: z_2 ~ q(z_2|x), then z_1 ~ p(z_1|z_2), not q(z_1|x)."""
    toy = truth.linear_hierarchy(slope=0.9)
    found = estimates(toy, SamplingBudget(samples=400, importance=0, iterations=1))
    direct, top = toy.model.posterior(toy.x).layers
    down = toy.model.priors[0](top.mean)
    spread = 0.9**2 * top.variance[0] + down.variance[0]
    multiple = [e for e in found if e.estimator == "multiple"]
    assert [e.quantity for e in multiple] == ["log p(a | b, a)", "log p(b | a, b)"]
    for e in multiple:
        expected = toy.linear.mean_of_logs(toy.x, e.targets, down.mean, spread.diag())
        assert close(e.values, expected), e.quantity
        other = toy.linear.mean_of_logs(toy.x, e.targets, direct.mean, direct.variance[0].diag())
        assert not close(e.values, other, 5), e.quantity
        assert e.z == "q(z2 | x), down to z1"


def test_a_subset_without_an_encoder_iterates_fifty_times(monkeypatch):
    asked = []

    def counted(*args, iterations, **options):
        asked.append(iterations)
        return iterate(*args, iterations=iterations, **options)

    monkeypatch.setattr(sampling, "iterate", counted)
    found = estimates(truth.words("jmvae"), SamplingBudget(samples=2, importance=0))
    assert set(asked) == {50}
    assert found[0].z == "T = 50 from side"
    asked.clear()
    estimates(truth.linear_joint("abc"), SamplingBudget(samples=2, importance=0))
    assert asked == []


# What must not matter, and what must.


@pytest.mark.parametrize("chunk", [1, 7, 45, 100_000])
def test_the_chunk_size_changes_nothing(chunk, monkeypatch):
    monkeypatch.setattr(estimators, "ROWS", 40)  # 60 rows: a whole block and a part
    for toy in (truth.linear_joint("ab", wide=2), truth.linear_conditional("cvae")):
        budget = SamplingBudget(samples=4, importance=5)
        usual, other = estimates(toy, budget), estimates(toy, replace(budget, chunk=chunk))
        for a, b in zip(usual, other, strict=True):
            assert a.quantity == b.quantity
            assert (a.values - b.values).abs().max() < 1e-9


@pytest.mark.parametrize("chunk", [1, 7, 30, 90, 10_000])
def test_no_more_latents_than_the_chunk_size_are_decoded_at_a_time(chunk, monkeypatch):
    toy = truth.linear_joint("ab", rows=20)
    sizes = []
    decode = toy.model.decode

    def counted(z, *rest):
        sizes.append(z.shape[:-1].numel())
        return decode(z, *rest)

    monkeypatch.setattr(toy.model, "decode", counted)
    estimates(toy, SamplingBudget(samples=12, importance=20, chunk=chunk))
    assert max(sizes) <= chunk
    # Each z once: 12 a subset of those given, 20 a posterior; and twice one a direction, to ask
    # whether its target is discrete.
    assert sum(sizes) == 20 * (12 + 20) * 3 + 2 * 2


def test_each_row_meets_its_own_observation_whatever_the_chunks():
    toy = truth.linear_joint("abc")
    z = torch.randn(5, 60, 2)
    expected = {
        n: torch.stack([toy.model.decode(one)[n].log_prob(toy.x[n]) for one in z]) for n in "abc"
    }
    for chunk in (1, 59, 60, 61, 130, 300, 1000):
        found = log_likelihoods(toy.model, toy.x, z, ["c", "a"], chunk)
        assert list(found) == ["a", "c"]
        for n, values in found.items():
            assert (values - expected[n]).abs().max() < 1e-10


def test_the_order_of_rows_does_not_matter():
    toy = truth.linear_joint("abc")
    order = torch.randperm(60)
    shuffled = Split(({n: x[order] for n, x in toy.x.items()},))
    budget = SamplingBudget(samples=0, importance=3)
    here = estimates(toy, budget)
    there = likelihoods(toy.model, shuffled, all_directions(toy.model), budget)
    for a, b in zip(here, there, strict=True):
        if not a.given:  # with exact posteriors without noise
            assert (a.values[order] - b.values).abs().max() < 1e-9


def test_the_seed_decides_all_and_the_callers_random_state_is_untouched():
    toy = truth.words("hierarchical")
    budget = SamplingBudget(samples=3, importance=3, seed=5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = estimates(toy, budget)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = estimates(toy, budget)
    third = estimates(toy, replace(budget, seed=6))
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.equal(a.values, b.values)
        assert not torch.equal(a.values, c.values)


@pytest.mark.parametrize("name", ["jmvae-kl", "jmvae"])
def test_a_number_does_not_depend_on_what_else_was_asked_for(name):
    toy = truth.words(name)
    direction = Direction(("colour",), ("side", "size"))
    everything = {
        (e.quantity, e.estimator): e.values for e in estimates(toy, SamplingBudget(importance=9))
    }
    for e in estimates(toy, SamplingBudget(importance=9), [direction]):
        assert torch.allclose(everything[e.quantity, e.estimator], e.values, atol=1e-12)


def test_what_is_drawn_to_be_observed_is_the_same_in_all_estimates():
    """A decoder that does not look at z: log p(x) needs no z, so only x could make a difference."""
    modalities = {"picture": Grid(), "colour": Word()}
    model = toy_model("jmvae-kl", modalities).double().eval()
    with torch.no_grad():
        model.decoders["picture"].net[0].weight.zero_()
        model.encoder.first.bias.zero_()
        for n in modalities:
            model.encoder.first.weights[n].zero_()
        for layer in model.encoder.rest:  # q(z|x_S) = N(0, I): constant weights
            layer.weight.zero_()
            layer.bias[..., :3] = 0
            layer.bias[..., 3:] = raw(torch.ones(3))
    found = likelihoods(
        model,
        Split((stored(modalities, 120),)),
        all_directions(model),
        SamplingBudget(samples=4, importance=4),
    )
    pictures = [e.values for e in found if e.targets == ("picture",)]
    assert len(pictures) == 4  # single, multiple, marginal, conditional
    colour = together(found)[("colour",), ()]
    assert colour.z == "q(z | colour)"
    assert pictures[0].std() > 0.2
    for values in pictures[:3]:
        assert (values - pictures[0]).abs().max() < 1e-9
    again = likelihoods(
        model,
        Split((stored(modalities, 120),)),
        all_directions(model),
        SamplingBudget(samples=4, seed=1),
    )
    assert (again[0].values - pictures[0]).abs().max() > 0.1


def test_the_standard_error_is_that_of_a_mean_over_rows():
    toy = truth.linear_joint("ab")
    joint = together(estimates(toy, SamplingBudget(samples=0, importance=1)))[("a", "b"), ()]
    values = toy.log_p(("a", "b"), ())
    assert joint.nats == pytest.approx(values.mean().item())
    assert joint.standard_error == pytest.approx(values.std().item() / math.sqrt(60))
    one = replace(joint, values=values[:1])
    assert math.isnan(one.standard_error)


def test_progress_is_told_once_a_block(monkeypatch):
    monkeypatch.setattr(estimators, "ROWS", 25)
    toy, told = truth.linear_joint("ab"), []
    likelihoods(toy.model, toy.split, all_directions(toy.model), SamplingBudget(1, 1), told.append)
    assert told == [25, 50, 60]


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_on_the_models_device(kind):
    torch.set_default_dtype(torch.float32)
    modalities = {"picture": Grid(), "colour": Word()}
    meta = torch.device("meta")
    model = toy_model(kind, modalities).eval().to(meta)
    x = Batch({n: torch.empty(5, *m.shape, device=meta) for n, m in modalities.items()})
    with torch.no_grad(), OneDevice(meta):
        for given, wanted in estimators._sources(model, all_directions(model)).items():
            budget = SamplingBudget(samples=3, iterations=2 if kind == "hierarchical" else None)
            means = estimators._monte_carlo(model, x, given, wanted, budget)
            assert {value.device for value in means.values()} == {meta}
        ratios = estimators._ratios(model, all_directions(model)).values()
        for source, asked in weighing.by_source(ratios).items():
            for ratio, pieces in weigh(model, x, source, asked, [3], 100).items():
                found = weighing.estimated(ratio, pieces, 3)
                assert (found.shape, found.device) == ((3, 5), meta)


@on_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_estimates_agree_on_a_gpu(kind):
    toy = truth.words(kind)
    budget = SamplingBudget(samples=300, importance=3000)
    here = estimates(toy, budget)
    there = likelihoods(toy.model.cuda(), toy.split, all_directions(toy.model), budget)
    for a, b in zip(here, there, strict=True):
        assert b.values.device.type == "cpu"
        assert (a.values - b.values).abs().max() < 0.3


def test_the_prior_as_a_posterior_weighs_by_the_likelihood_alone():
    toy = truth.linear_joint("ab")
    nothing = Batch({})
    assert toy.model.prior(nothing).log_prob(torch.zeros(2)).item() == pytest.approx(
        -math.log(2 * math.pi)
    )
    zero, one = torch.zeros(2), torch.ones(2)
    set_encoder(toy.model.encoder, ("a", "b"), torch.zeros(2, 5), zero, one)
    drawn = importance_sample(toy.model, toy.x, ("a", "b"), 4)
    assert drawn.log_weight.abs().max() < 1e-9


@pytest.mark.parametrize("wide", [1.5, 4.0])
@torch.no_grad()
def test_importance_weights_against_the_exact_marginal_average_to_one(wide):
    """E_q[p(x, z) / (q(z) p(x))] = 1, whatever q, so long as it is wider than p(z|x)."""
    toys = [
        (truth.linear_joint("abc", skew=True, wide=wide), ("a", "b", "c"), ()),
        (truth.linear_joint("abc", skew=True, wide=wide), ("b", "c"), ()),
        (truth.linear_hierarchy(slope=0.9, wide=wide), ("a", "b"), ()),
        *((truth.linear_conditional(kind, wide=wide), ("a", "b"), ("c",)) for kind in ONE_WAY),
    ]
    for toy, T, S in toys:
        torch.manual_seed(0)
        x = toy.x.slice(0, 20)
        drawn = importance_sample(toy.model, x, [*S, *T], 20_000)
        log_p = sum(log_likelihoods(toy.model, x, drawn.z, T, 10**6).values())
        weights = (drawn.log_weight + log_p - toy.log_p(T, S)[:20]).exp()
        error = weights.std(0) / math.sqrt(len(weights))
        assert error.max() < 0.05
        assert ((weights.mean(0) - 1).abs() < 4.5 * error).all()
