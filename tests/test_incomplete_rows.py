"""Training on rows that lack modalities: bounds, gradients, states, and what is refused."""

import itertools

import pytest
import torch
from by_hand import raw
from torch import Tensor
from toys import (
    CPU,
    Numbers,
    Word,
    differing,
    gradients,
    observations,
    stored,
    toy_modalities,
    toy_model,
    training,
)
from truth import SKEW, A, B, Linear, built, exact, linear_joint, set_decoders

import mmgen_experts
from mmgen.batch import Batch, hidden
from mmgen.data.batches import Batches
from mmgen.data.store import Split
from mmgen.errors import ConfigError
from mmgen.evaluation.coherence.scores import scores
from mmgen.evaluation.directions import Direction
from mmgen.evaluation.likelihood.estimates import SamplingBudget, rows_note
from mmgen.evaluation.likelihood.estimators import likelihoods
from mmgen.inference.aggregate import Draws, fit_prior
from mmgen.latent.correlated import FullGaussian
from mmgen.objective import MODEL, Objective
from mmgen.training.loop import Epoch, evaluate, fit

EXPERTS = {cls.kind: cls for cls in mmgen_experts.mmgen_models()}

NAMES = ("a", "b", "c")
PATTERNS = [S for size in (1, 2, 3) for S in itertools.combinations(NAMES, size)]


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def with_holes(x: Batch, has: dict[str, Tensor]) -> Batch:
    return Batch({n: hidden(v, has.get(n)) for n, v in x.items()}, has)


def of_patterns(x: Batch, patterns) -> Batch:
    """Gives row i what is in the i-th pattern, from the first again when all were given."""
    each = [patterns[i % len(patterns)] for i in range(x.rows)]
    return with_holes(x, {n: torch.tensor([n in S for S in each]) for n in x})


def rows_of(x: Batch, S) -> Tensor:
    """The rows that have exactly S."""
    return torch.stack([has if n in S else ~has for n, has in x.present.items()]).all(0)


def total(objective: Objective) -> Tensor:
    """The bound of each row."""
    terms = [t for t in objective if t.bound]
    zero = torch.zeros(())
    each = [t.value if t.present is None else torch.where(t.present, t.value, zero) for t in terms]
    return -sum(t.weight * value for t, value in zip(terms, each, strict=True))


def drawn(q, p, z):
    return q.log_prob(z) - p.log_prob(z)


# The bound, against the truth.


def linear_full() -> tuple:
    """JMVAE-kl with full posteriors that are exact for proper subsets, whose truth is skewed."""
    torch.manual_seed(7)
    used = {n: A[n] @ SKEW for n in NAMES}
    linear = Linear(used, torch.zeros(2), torch.eye(2), B)
    model = built("jmvae-kl", NAMES, subsets="all", subset_posterior="full")
    encoder = model.encoder
    with torch.no_grad():
        set_decoders(model, used)
        for number, S in enumerate(model.subsets):
            weight, bias, covariance = exact(linear, S)
            q = FullGaussian.of_covariance(bias, covariance)
            start = 0
            for n in S:
                part = encoder.first.weights[n][encoder.members[n].index(number)]
                part.zero_()
                part[:, :2] = weight.T[start : start + len(part)]
                start += len(part)
            own = [bias, raw(q.innovation**2), q.coupling[1, :1] * 2**0.5]
            encoder.first.bias[number].copy_(torch.cat(own))
    return model, linear.sample(60, NAMES), linear


@pytest.mark.parametrize("family", ["gaussian", "full"])
def test_of_an_exact_posterior_the_bound_is_the_likelihood_of_what_a_row_has(
    double, monkeypatch, family
):
    if family == "full":
        model, x, linear = linear_full()
        patterns = PATTERNS[:-1]
    else:
        toy = linear_joint("abc")
        model, x, linear, patterns = toy.model, toy.x, toy.linear, PATTERNS
    monkeypatch.setattr("mmgen.inference.bound.divergence", drawn)  # exact for each z then
    model.alpha = 0.0
    holes = of_patterns(x, patterns)
    found = total(model(holes))
    for S in patterns:
        rows = rows_of(holes, S)
        assert rows.sum() >= 8
        torch.testing.assert_close(found[rows], linear.log_p(x, S)[rows])


@pytest.mark.parametrize("skew", [False, True])
def test_the_bound_is_below_the_likelihood_by_the_kl_to_the_true_posterior(double, skew):
    toy = linear_joint("abc", skew=skew, wide=1.6)
    toy.model.alpha = 0.0
    holes = of_patterns(toy.x, PATTERNS)
    many = Batch(
        {n: v.repeat(400, 1) for n, v in holes.items()},
        {n: has.repeat(400) for n, has in holes.present.items()},
    )
    torch.manual_seed(0)
    found = total(toy.model(many)).view(400, -1)
    q = toy.model.posterior(holes)
    for S in PATTERNS:
        rows = rows_of(holes, S)
        mean, covariance = toy.linear.posterior(toy.x, S)
        p = FullGaussian.of_covariance(mean, covariance.expand(len(mean), 2, 2))
        gap = torch.distributions.kl_divergence(q, p)[rows]
        expected = toy.linear.log_p(toy.x, S)[rows] - gap
        error = found[:, rows].std(0) / 20
        assert (gap > 0.03).all()
        assert ((found[:, rows].mean(0) - expected).abs() < 4 * error + 1e-9).all()


def test_the_subsets_of_a_row_are_those_of_what_it_has(double):
    toy = linear_joint("abc", wide=1.3)
    holes = of_patterns(toy.x, PATTERNS)
    terms = {t.about: t for t in toy.model(holes) if t.name.startswith("subset/")}
    assert {*terms} == {*PATTERNS[:-1]}
    for P in PATTERNS:
        rows = rows_of(holes, P)
        q = toy.model.posterior(toy.x.select(P))
        for T, term in terms.items():
            proper = {*T} < {*P}
            assert (term.present[rows] == proper).all()
            if proper:
                closed = torch.distributions.kl_divergence(q, toy.model.posterior(toy.x.select(T)))
                torch.testing.assert_close(term.value[rows], closed[rows])


# What is absent.

CASES = {
    "jmvae-kl": {},
    "full": {"subset_posterior": "full"},
    "shared": {"subset_encoder": "shared"},
    "shared full": {"subset_encoder": "shared", "subset_posterior": "full"},
    "product": {"subset_encoder": "product"},
    "fixed": {"subset_gradient": False},
    "critic": {"adversarial": {"modality": "point"}},
}
KINDS = {**{case: ("jmvae-kl", s) for case, s in CASES.items()}, **{k: (k, {}) for k in EXPERTS}}


def model_of(case: str, modalities):
    kind, settings = KINDS[case]
    if kind == "jmvae-kl":
        return toy_model(kind, modalities, **settings)
    torch.manual_seed(1)
    return EXPERTS[kind](modalities, EXPERTS[kind].Settings(latent=3))


def toy_rows(modalities, rows: int) -> Batch:
    patterns = [S for k in (1, 2, 3) for S in itertools.combinations(modalities, k)]
    return of_patterns(observations(modalities, rows), patterns)


@pytest.mark.parametrize("case", KINDS)
def test_nothing_that_is_absent_moves_anything(case):
    modalities = toy_modalities(3)
    x = toy_rows(modalities, 14)
    model = model_of(case, modalities).train()

    def found(batch: Batch):
        model.zero_grad(set_to_none=True)
        torch.manual_seed(3)
        losses = model(batch).losses()
        torch.stack([*losses.values()]).sum().backward()
        return losses[MODEL], gradients(model)

    loss, moved = found(x)
    assert loss.isfinite()
    assert any(g is not None and g.any() for g in moved.values())
    # Other values where nothing is: the same loss and gradients, bit for bit.
    changed = Batch({n: v + hidden(v * 0 + 0.7, ~x.present[n]) for n, v in x.items()}, x.present)
    again, same = found(changed)
    assert torch.equal(loss, again)
    assert not differing(
        {n: g for n, g in moved.items() if g is not None},
        {n: g for n, g in same.items() if g is not None},
    )
    seen = Batch({n: v.clone().requires_grad_() for n, v in changed.items()}, x.present)
    found(seen)
    for n, v in seen.items():
        if v.grad is not None:
            assert not v.grad[~x.present[n]].any(), n


@pytest.mark.parametrize("case", KINDS)
def test_the_posterior_of_a_row_is_that_of_what_it_has(case):
    modalities = toy_modalities(3)
    complete = observations(modalities, 14)
    x = toy_rows(modalities, 14)
    nothing = Batch(x.tensors, {n: has & (torch.arange(14) < 13) for n, has in x.present.items()})
    model = model_of(case, modalities).eval()
    torch.manual_seed(0)
    z = torch.randn(6, 1, 3)
    for subset in [tuple(modalities), ("colour", "picture"), ("point",)]:
        found = model.posterior(nothing.select(subset)).log_prob(z.expand(6, 14, 3))
        for i in range(14):
            known = [n for n in subset if nothing.present[n][i]]
            if not known and case == "mopoe":
                continue  # there the prior is an expert beside itself; no such row is trained on
            row = complete.slice(i, i + 1)
            expected = model.posterior(row.select(known)) if known else model.prior(row.select([]))
            torch.testing.assert_close(
                found[:, i], expected.log_prob(z).reshape(6), atol=1e-4, rtol=1e-4
            )


@pytest.mark.parametrize("case", ["jmvae-kl", "full", "shared", "product"])
def test_masks_of_rows_that_lack_nothing_change_no_number(case):
    modalities = toy_modalities(3)
    x = observations(modalities, 9)
    model = model_of(case, modalities)
    every = Batch(x.tensors, {"point": torch.ones(9, dtype=torch.bool)})
    found = []
    for batch in (x, every):
        torch.manual_seed(5)
        found.append(model(batch).means())
    assert [*found[0]] == [*found[1]]
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", KINDS)
def test_a_step_waits_for_no_device(case):
    modalities = toy_modalities(3)
    x = toy_rows(modalities, 7)
    model = model_of(case, modalities).to("meta").train()
    meta = Batch(
        {n: v.to("meta") for n, v in x.items()}, {n: has.to("meta") for n, has in x.present.items()}
    )
    losses = model(meta).losses()  # to read a value there is an error
    torch.stack([*losses.values()]).sum().backward()


def test_batch_normalisation_sees_no_zeros_of_rows_that_lack_a_modality():
    class Normed(Numbers):
        kind = "normed"

        def encoder(self):
            return torch.nn.Sequential(torch.nn.Linear(self.size, 4), torch.nn.BatchNorm1d(4))

    modalities = {"colour": Word(), "point": Normed()}
    x = observations(modalities, 8)
    has = torch.tensor([True, False] * 4)
    holes = with_holes(x, {"point": has})
    model = toy_model("jmvae-kl", modalities).train()
    model(holes)
    found = {n: b.clone() for n, b in model.encoder.named_buffers() if "running" in n}
    model = toy_model("jmvae-kl", modalities).train()
    twice = x["point"][has].repeat_interleave(2, 0)  # each present row stands in for one
    model(Batch({"colour": x["colour"], "point": twice}))
    expected = {n: b for n, b in model.encoder.named_buffers() if "running" in n}
    assert found
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


# Training.


def split_of(modalities, rows: int) -> Split:
    patterns = [S for k in (1, 2) for S in itertools.combinations(modalities, k)]
    values = stored(modalities, rows)
    each = [patterns[i % len(patterns)] for i in range(rows)]
    present = {n: torch.tensor([n in S for S in each]) for n in modalities}
    return Split((Batch({n: hidden(v, present[n]) for n, v in values.items()}, present),))


@pytest.mark.parametrize("settings", [{}, {"subset_posterior": "full"}], ids=["gaussian", "full"])
def test_a_training_on_holes_goes_on_bit_for_bit(settings):
    modalities = toy_modalities(3)
    split = split_of(modalities, 44)

    def data():
        return Batches(split, modalities, device=CPU, batch_size=8)

    def state(epochs):
        made_ = training("jmvae-kl", modalities, settings, epochs=epochs, learning_rate=0.01)
        torch.manual_seed(0)
        return made_

    whole = state(3)
    epochs = [e for e in fit(whole, data(), data()) if isinstance(e, Epoch)]
    stopped = state(3)
    for number, _ in enumerate(fit(stopped, data(), data()), start=1):
        if number == 9:  # in the second epoch
            break
    kept = {n: v.clone() for n, v in stopped.model.state_dict().items()}
    moments = {n: o.state_dict() for n, o in stopped.optimisers.items()}
    random_state = torch.get_rng_state()
    resumed = state(3)
    resumed.model.load_state_dict(kept)
    for n, o in resumed.optimisers.items():
        o.load_state_dict(moments[n])
    resumed.epoch, resumed.batch, resumed.rows = stopped.epoch, stopped.batch, stopped.rows
    resumed.sums, resumed.terms, resumed.best = stopped.sums, stopped.terms, stopped.best
    torch.set_rng_state(random_state)
    rest = [e for e in fit(resumed, data(), data()) if isinstance(e, Epoch)]
    assert not differing(whole.model.state_dict(), resumed.model.state_dict())
    assert [(e.train, e.validation) for e in rest] == [(e.train, e.validation) for e in epochs[1:]]
    assert not any(name.startswith("present/") for name in epochs[0].train)
    assert epochs[-1].validation["loss"] < epochs[0].validation["loss"]


def test_an_epochs_means_are_over_the_rows_that_have_a_term():
    modalities = toy_modalities(2)
    has = torch.zeros(20, dtype=torch.bool)
    has[[1, 2, 17]] = True  # none in the second batch of 8
    split = Split((Batch(stored(modalities, 20), {"point": has}),))
    state = training("jmvae-kl", modalities)
    state.model.eval()
    data = Batches(split, modalities, device=CPU, batch_size=8)
    found = evaluate(state, data)
    torch.manual_seed(state.config.seed)
    with torch.no_grad():
        objectives = [state.model(x) for x in data.epoch(None, 0)]
    (name,) = [t.name for t in objectives[0] if t.name == "reconstruction/point"]
    values = torch.cat([t.value for o in objectives for t in o if t.name == name])
    assert found[name] == pytest.approx(values[has].mean().item(), rel=1e-5)
    loss = torch.cat([-total(o) for o in objectives]).mean()
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_a_term_that_no_row_has_is_not_told():
    modalities = toy_modalities(2)
    split = Split((Batch(stored(modalities, 12), {"point": torch.zeros(12, dtype=torch.bool)}),))
    data = Batches(split, modalities, device=CPU, batch_size=8)
    found = evaluate(training("jmvae-kl", modalities), data)
    assert "reconstruction/colour" in found
    assert "reconstruction/point" not in found


def test_a_fitted_prior_is_fitted_to_posteriors_of_what_rows_have():
    modalities = toy_modalities(3)
    model = toy_model("jmvae-kl", modalities).eval()
    data = Batches(split_of(modalities, 60), modalities, device=CPU, batch_size=20)
    fitted = fit_prior(Draws(model, data.epoch(0, 0)))
    assert fitted().sample((5,)).isfinite().all()


# What cannot be.


@pytest.mark.parametrize(
    ("settings", "patterns", "message"),
    [
        (
            {"subsets": "single"},
            [("colour",), ("colour", "point")],
            r"have only colour\+point, for",
        ),
        ({"subsets": "none"}, [("colour",)], "have only colour, for which there is no encoder"),
        (
            {"subset_posterior": "mixture"},
            [("colour",)],
            'subset_posterior = "mixture": where rows',
        ),
        ({"subsets_per_step": 2}, [("colour",)], "model.subsets_per_step = 2: where rows lack"),
        (
            {"subset_encoder": "shared", "subset_gradient": False},
            [("colour",)],
            "model.subset_gradient = false",
        ),
    ],
    ids=["no encoder", "no encoders", "mixture", "drawn", "fixed trunks"],
)
def test_rows_that_cannot_be_trained_on_are_refused_with_a_reason(settings, patterns, message):
    model = toy_model("jmvae-kl", toy_modalities(3), **settings)
    with pytest.raises(ConfigError, match=message):
        model.check_patterns(patterns)


def test_subsets_without_an_encoder_may_be_absent_from_the_rows():
    model = toy_model("jmvae-kl", toy_modalities(3), subsets="single")
    model.check_patterns([("colour",), ("point",), tuple(model.names)])
    x = of_patterns(observations(model.modalities, 8), [("colour",), ("point",), model.names])
    assert total(model(x)).isfinite().all()


# Measured on the rows that have what it takes.


def test_likelihoods_are_of_the_rows_that_have_what_they_are_about(double):
    toy = linear_joint("abc")
    holes = of_patterns(toy.x, PATTERNS)
    directions = [Direction(("a",), ("b",)), Direction(("c",), ("a", "b"))]
    budget = SamplingBudget(samples=3, importance=20)
    found = likelihoods(toy.model, Split((holes,)), directions, budget)
    complete = likelihoods(toy.model, Split((Batch(toy.x.tensors),)), directions, budget)
    assert len(found) == len(complete)
    for e, whole in zip(found, complete, strict=True):
        rows = holes.having({*e.targets, *e.given})
        assert 0 < len(e.values) == int(rows.sum()) < 60
        # The same draws, and of exact posteriors the same numbers as the truth.
        torch.testing.assert_close(e.values, whole.values[rows])
        if e.estimator == "importance" and not e.given:  # of a ratio, some of z are another's
            expected = toy.log_p(e.targets, e.given)[rows]
            torch.testing.assert_close(e.values, expected)


def test_what_no_row_has_is_left_out_of_likelihoods(double):
    toy = linear_joint("abc")
    holes = of_patterns(toy.x, [("a",), ("b", "c")])
    directions = [Direction(("a",), ("b",)), Direction(("c",), ("b",))]
    found = likelihoods(toy.model, Split((holes,)), directions, SamplingBudget(3, 5))
    assert {(e.targets, e.given) for e in found} >= {(("c",), ("b",)), (("b",), ())}
    assert not any({*e.targets, *e.given} > {"a"} for e in found)
    assert [note.split(",")[0] for note in rows_note(found, 60)] == ["of 30 of 60 rows"]


def test_attributes_that_are_unknown_are_not_compared():
    torch.manual_seed(0)
    truth, seen = torch.rand(40, 1) > 0.5, torch.rand(3, 40, 1) > 0.4
    known = torch.rand(40, 1) > 0.3
    rows = known[:, 0]
    found = scores(truth, seen, known=known)
    expected = scores(truth[rows], seen[:, rows])
    assert [s.measure for s in found] == ["accuracy", "F1"]
    for one, other in zip(found, expected, strict=True):
        assert one.value == pytest.approx(other.value)
        assert one.baseline == pytest.approx(other.baseline)
    assert found[0].error == pytest.approx(expected[0].error)
    # What stands where nothing is known does not matter.
    assert scores(truth ^ ~known, seen, known=known) == found
