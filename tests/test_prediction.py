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


def telling(**settings):
    """A model whose z says which colour it is, and is drawn nearly without noise."""
    torch.manual_seed(0)
    model = toy_model("jmvae-kl", ABC, latent=3, **settings).double().eval()
    last = [m for m in model.decoders["colour"].modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(20)
    return model


def told(model, x):
    """The term, and the z that it was computed of, ``(S, B, Z)``."""
    seen, decode = [], model.decode

    def spy(z, given=None, names=None):
        if names == ["colour"]:
            seen.append(z.detach())
        return decode(z, given, names)

    model.decode = spy
    [term] = [term for term in model.objective(x) if term.name == "prediction/colour"]
    model.decode = decode
    return term, seen[0] if seen else None


def by_hand(model, z, colour, keep, known):
    """Σ_S w_S log p(colour | z_S) / 3, of rows to keep; w_S by those whose neighbour's is known."""
    value = torch.zeros(len(colour), dtype=torch.float64)
    weights = []
    for each in z:
        probabilities = model.decode(each, None, ["colour"])["colour"].mean
        p = (probabilities * colour).sum(-1)
        other = (probabilities * colour.roll(1, 0)).sum(-1)
        both = keep & known.roll(1, 0)
        weights.append(float((p - other)[both].mean().clamp(0, 1)) ** 2)
        value += torch.where(keep, weights[-1] * p.log(), 0)
    return value / len(WITHOUT), weights


@torch.no_grad()
def rows(count, model=None):
    """Rows; with a model, of colours that it tells from points and pictures."""
    x = {n: values.double() for n, values in observations(ABC, count).items()}
    if model is not None:
        z = model.posterior(Batch(x).select(("point", "picture"))).mean
        said = model.decode(z, None, ["colour"])["colour"].mean
        likely = said[:, 0] - said[:, 1]
        x["colour"] = torch.eye(3, dtype=torch.float64)[(likely < likely.median()).long()]
    return Batch(x)


@torch.no_grad()
@pytest.mark.parametrize("how", ["separate", "shared", "product"])
def test_it_is_the_weighted_log_likelihood_of_draws_from_what_subsets_say(how):
    model = telling(subset_encoder=how, prediction=0.3)
    x = rows(400, model)
    term, z = told(model, x)
    assert (term.weight, term.bound, term.likelihood_of) == (-0.3, False, "colour")
    value, weights = by_hand(model, z, x["colour"], *[torch.ones(400, dtype=torch.bool)] * 2)
    assert torch.allclose(term.value, value, atol=1e-9)
    assert any(0 < w < 1 for w in weights)
    for drawn, S in zip(z, WITHOUT, strict=True):
        q = model.posterior(x.select(S))
        u = (drawn - q.mean) / q.stddev
        assert abs(u.mean()) < 4 / u.numel() ** 0.5
        assert abs(u.var() - 1) < 0.2


@torch.no_grad()
def test_what_a_subset_does_not_tell_is_not_asked_of_it():
    model = telling(prediction=1.0)
    x = rows(2)
    alike = Batch({n: values[:1].expand(300, *values.shape[1:]) for n, values in x.items()})
    colour = torch.eye(3, dtype=torch.float64)[torch.arange(300) % 3]
    same, _ = told(model, alike)
    assert same.value.abs().max() == 0  # another row's is as probable
    term, _ = told(model, Batch({**alike, "colour": colour}))
    assert term.value.abs().mean() < 0.1  # of no row more than of another but by chance


@torch.no_grad()
def test_of_a_few_subsets_a_step_its_mean_is_that_of_all():
    means = []
    for n in (None, 1):
        model = telling(prediction=1.0, subsets_per_step=n)
        x = rows(200, model.eval())
        model.train()
        means.append(torch.stack([told(model, x)[0].value.mean() for _ in range(300 if n else 20)]))
    every, drawn = means
    error = (every.var() / len(every) + drawn.var() / len(drawn)).sqrt()
    assert abs(every.mean() - drawn.mean()) < 4 * error
    assert drawn.std() > 2 * every.std()  # of one subset at a time it varies
    assert abs(every.mean()) > error


@torch.no_grad()
def test_of_rows_that_lack_modalities_it_is_of_the_subsets_that_they_have():
    model = telling(prediction=1.0)
    x = rows(200, model)
    has = torch.arange(200) % 3 > 0
    lacking = torch.where(has[:, None, None, None], x["picture"], 0)
    term, z = told(model, Batch({**x.tensors, "picture": lacking}, {"picture": has}))
    assert bool(term.present.all())
    every = torch.ones_like(has)
    alone, _ = by_hand(model, z[:1], x["colour"], every, every)
    pictures, weights = by_hand(model, z[1:], x["colour"], has, every)
    assert torch.allclose(term.value, alone + pictures, atol=1e-9)
    assert max(weights) > 0
    lacking = torch.where(has[:, None], x["colour"], 0)
    untold, z = told(model, Batch({**x.tensors, "colour": lacking}, {"colour": has}))
    assert torch.equal(untold.present, has)
    value, _ = by_hand(model, z, lacking, has, has)
    assert torch.allclose(untold.value[has], value[has], atol=1e-9)


def test_what_no_subset_lacks_is_predicted_of_none():
    model = telling(prediction=1.0, subsets=["colour", "colour+point"])
    assert not any(term.name.startswith("prediction/") for term in model.objective(rows(4)))
    assert model.objective(rows(4)).losses()[MODEL].isfinite()
    model = telling(prediction=1.0, subsets=["colour", "point"])
    assert told(model, rows(4))[1].shape[0] == 1


def test_it_trains_what_reads_the_subset_and_what_decodes_but_not_the_bound():
    x = rows(60)
    model = telling(prediction=1.0, alpha=0.0)
    objective = model.objective(x)
    others = {term.name for term in objective if not term.name.startswith("prediction/")}
    assert {term.name for term in telling(alpha=0.0).objective(x)} == others
    [term] = [term for term in objective if term.name == "prediction/colour"]
    read = [p for n, p in model.named_parameters() if n.startswith(("encoder.", "decoders.colour"))]
    gradients = torch.autograd.grad(term.mean, read, allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)
    parts = objective.parts()
    without = {n: parts[n] if n in others else parts[n] + 1 for n in parts}
    assert torch.equal(objective.bound(parts), objective.bound(without))
    assert not torch.equal(objective.losses(parts)[MODEL], objective.losses(without)[MODEL])
