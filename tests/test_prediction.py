"""What z of a subset says of a class is trained for itself: ``model.prediction``."""

import pytest
import torch
from toys import FIVE, Word, observations, toy_model

from mmgen.batch import Batch
from mmgen.objective import MODEL


class Colour(Word):
    """One of a few words, each of which may be asked for."""

    def choices(self):
        return [*self.words]


ABC = {"colour": Colour(), "point": FIVE["point"], "picture": FIVE["picture"]}
WITHOUT = (("point",), ("picture",), ("point", "picture"))
"""The subsets that colour is told from."""


def alike(row, rows):
    """The same row, many times."""
    return Batch({n: values[:1].expand(rows, *values.shape[1:]) for n, values in row.items()})


def told(model, x):
    [term] = [term for term in model.objective(x) if term.name == "prediction/colour"]
    return term


@torch.no_grad()
@pytest.mark.parametrize("how", ["separate", "shared", "product"])
def test_it_is_the_mean_over_subsets_of_the_expected_log_likelihood(how):
    torch.manual_seed(0)
    model = toy_model("jmvae-kl", ABC, subset_encoder=how, prediction=0.3).eval()
    x = alike(observations(ABC, 1), 20_000)
    term = told(model, x)
    assert (term.weight, term.bound, term.likelihood_of) == (-0.3, False, "colour")
    each = []
    for S in WITHOUT:
        z = model.posterior(x.select(S)).sample()
        each.append(model.decode(z, names=["colour"])["colour"].log_prob(x["colour"]))
    expected = torch.stack(each).mean(0)
    error = (term.value.var() + expected.var()).sqrt() / len(expected) ** 0.5
    assert abs(term.value.mean() - expected.mean()) < 4 * error
    assert error < 0.05


@torch.no_grad()
def test_of_a_few_subsets_a_step_its_mean_is_that_of_all():
    torch.manual_seed(0)
    x = alike(observations(ABC, 1), 500)
    means = []
    for n in (None, 1):
        torch.manual_seed(1)
        model = toy_model("jmvae-kl", ABC, prediction=1.0, subsets_per_step=n).train()
        means.append(torch.stack([told(model, x).value.mean() for _ in range(300 if n else 20)]))
    every, drawn = means
    error = (every.var() / len(every) + drawn.var() / len(drawn)).sqrt()
    assert abs(every.mean() - drawn.mean()) < 4 * error
    assert error < 0.2
    assert drawn.std() > 5 * every.std()  # of one subset at a time it varies


@torch.no_grad()
def test_of_rows_that_lack_modalities_it_is_of_the_subsets_that_they_have():
    torch.manual_seed(0)
    model = toy_model("jmvae-kl", ABC, prediction=1.0).eval()
    x = alike(observations(ABC, 1), 20_000)
    no = torch.zeros(x.rows, dtype=torch.bool)
    blank = torch.zeros_like(x["picture"])
    term = told(model, Batch({**x.tensors, "picture": blank}, {"picture": no}))
    assert bool(term.present.all())
    z = model.posterior(x.select(["point"])).sample()
    expected = model.decode(z, names=["colour"])["colour"].log_prob(x["colour"]) / len(WITHOUT)
    error = (term.value.var() + expected.var()).sqrt() / len(expected) ** 0.5
    assert abs(term.value.mean() - expected.mean()) < 4 * error
    blank = torch.zeros_like(x["colour"])
    untold = told(model, Batch({**x.tensors, "colour": blank}, {"colour": no}))
    assert not bool(untold.present.any())


def test_it_trains_what_reads_the_subset_and_what_decodes_but_not_the_bound():
    x = observations(ABC, 6)
    model = toy_model("jmvae-kl", ABC, prediction=1.0, alpha=0.0)
    objective = model.objective(x)
    others = {term.name for term in objective if not term.name.startswith("prediction/")}
    plain = toy_model("jmvae-kl", ABC, alpha=0.0).objective(x)
    assert {term.name for term in plain} == others
    term = told(model, x)
    read = [p for n, p in model.named_parameters() if n.startswith("encoder.")]
    gradients = torch.autograd.grad(term.mean, read, allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)
    means = objective.means()
    without = {n: means[n] if n in others else means[n] + 1 for n in means}
    assert torch.equal(objective.bound(means), objective.bound(without))
    assert not torch.equal(objective.losses(means)[MODEL], objective.losses(without)[MODEL])
