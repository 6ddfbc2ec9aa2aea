"""Checks of a model's objective: its terms, their gradients, and what they depend on."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.errors import listed
from mmgen.latent.base import Latent
from mmgen.model import Model
from mmgen.objective import Objective
from mmgen.testing.model.setup import Setup, joint_posterior, known
from mmgen.testing.model.still import StillNoise
from mmgen.testing.tools import require, seeded

TRIES = 8
"""The objectives in which a parameter may get its gradient: which part is computed may be drawn."""

FAR = 10
"""By how much rows are multiplied to be unlike any that was seen."""


@seeded
def check_objective(setup: Setup) -> None:
    """The objective is terms with a value per row, the same ones for every batch."""
    for model, x in setup.cases(rows=7):
        for mode in (True, False):
            model.train(mode)
            names = set()
            for rows in (1, 2, 7):
                objective = model(x.slice(0, rows))
                _check_terms(model, objective, rows)
                names.add(tuple(term.name for term in objective))
            require(
                len(names) == 1,
                f"the objective has other terms for other batches: {sorted(names)}; sums over an "
                "epoch need the same terms in the same order each time",
            )


def _check_terms(model: Model, objective: object, rows: int) -> None:
    require(
        isinstance(objective, Objective) and len(objective) > 0,
        f"objective() gave {type(objective).__name__}; give an mmgen.objective.Objective of terms",
    )
    assert isinstance(objective, Objective)
    groups = model.parameter_groups()
    for term in objective:
        value, told = term.value, f"the term {term.name!r}"
        require(
            isinstance(value, Tensor)
            and tuple(value.shape) == (rows,)
            and value.is_floating_point(),
            f"{told} has value {_shape(value)} for {rows} rows; give a number per row, (B,)",
        )
        require(
            isinstance(term.weight, int | float) and abs(term.weight) < float("inf"),
            f"{told} has weight {type(term.weight).__name__}; give a finite number, not a tensor, "
            "and multiply by tensors in the value",
        )
        strangers = [g for g in term.trains if g not in groups]
        require(
            not strangers,
            f"{told} trains {listed(strangers)}, but parameter_groups() has {listed(groups)}",
        )
        unknown = [n for n in term.about if n not in model.names]
        require(not unknown, f"{told} is about {listed(unknown)}, which are no modalities")
        mask = term.present
        require(
            mask is None or (tuple(mask.shape) == (rows,) and mask.dtype == torch.bool),
            f"{told} has a mask present that is no (B,) of booleans",
        )


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


@seeded
def check_finite(setup: Setup) -> None:
    """Terms and gradients are finite, of rows far from all others too."""
    for model, x in setup.cases():
        model.train()
        for told, batch in (("", x), (f" of rows {FAR} times as far", _far(x))):
            for _ in range(3):
                objective = model(batch)
                for term in objective:
                    require(
                        term.value.isfinite().all(),
                        f"the term {term.name!r}{told} is not finite; guard logarithms, divisions "
                        "and variances near zero",
                    )
                for group, gradients in _gradients(model, objective).items():
                    wrong = [n for n, g in gradients.items() if not g.isfinite().all()]
                    require(
                        not wrong,
                        f"the loss of {group!r}{told} has a gradient of {wrong[:1]} that is not "
                        "finite; guard logarithms, roots and divisions",
                    )


def _far(x: Batch) -> Batch:
    """Moves rows of real numbers away; words stay."""
    real = {n: not bool(((v == 0) | (v == 1)).all()) for n, v in x.items()}
    return Batch({n: FAR * v if real[n] else v for n, v in x.items()})


@seeded
def check_gradients(setup: Setup) -> None:
    """Every parameter is in one group, and gets a gradient from the loss of that group."""
    for model, x in setup.cases():
        model.train()
        with torch.no_grad():  # a last layer may start at zero, and block gradients
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        groups = model.parameter_groups()
        members = [id(p) for group in groups.values() for p in group.parameters]
        left = {n: p for n, p in model.named_parameters() if p.requires_grad}
        for name, parameter in left.items():
            count = members.count(id(parameter))
            require(
                count == 1,
                f"the parameter {name} is in {count} of the groups {listed(groups)}; put each in "
                "one, or call requires_grad_(False) on what is not trained",
            )
        for _ in range(TRIES):
            for gradients in _gradients(model, model(x)).values():
                reached = {n for n, gradient in gradients.items() if gradient.any()}
                left = {n: p for n, p in left.items() if n not in reached}
        trained = {group for term in model(x) for group in term.trains}
        idle = [group for group in groups if group not in trained]
        require(not idle, f"no term trains the group {listed(idle)}; name it in Term(trains=...)")
        require(
            not left,
            f"the parameter {[*left][:1]} gets no gradient from the loss of its group; use it "
            "without detach(), no_grad() or sample(), which draws without gradients: rsample(); "
            "or remove it",
        )


def _gradients(model: Model, objective: Objective) -> dict[str, dict[str, Tensor]]:
    """Returns the gradient of each group's loss for its parameters, by name; absent if none."""
    names = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, dict[str, Tensor]] = {}
    for group, loss in objective.losses().items():
        own = [p for p in model.parameter_groups()[group].parameters if p.requires_grad]
        if not loss.requires_grad or not own:
            found[group] = {}
            continue
        gradients = torch.autograd.grad(loss, own, retain_graph=True, allow_unused=True)
        pairs = zip(own, gradients, strict=True)
        found[group] = {names[id(p)]: g for p, g in pairs if g is not None}
    return found


@seeded
def check_rows(setup: Setup) -> None:
    """In eval mode a row's z and value are its own: they follow it to another place."""
    for model, x in setup.cases(rows=6):
        with torch.no_grad(), StillNoise():  # type: ignore[no-untyped-call]
            _check_posterior_rows(model, x)
            _check_term_rows(model, x)


def _check_posterior_rows(model: Model, x: Batch) -> None:
    asked: dict[str, Callable[[Batch], Latent]] = {
        "posterior()": lambda part: joint_posterior(model, part),
        "prior()": lambda part: model.prior(known(model, part)),
    }
    for what, q in asked.items():
        if not q(x).batch_shape:  # one for all rows
            continue
        alone = torch.cat([q(x.slice(row, row + 1)).mean for row in range(x.rows)])
        require(
            torch.allclose(alone, q(x).mean, rtol=1e-4, atol=1e-5),
            f"{what} of a row changes with the rest of its batch, even after eval(); normalise "
            "over the row, or with running statistics",
        )


def _check_term_rows(model: Model, x: Batch) -> None:
    """Checks that values follow their rows, and that none is a mean over the batch.

    A term may read other rows, as estimates of a density over the batch do; its values must still
    be those of their own rows.
    """
    order = [2, 0, 1, 5, 3, 4]
    moved = Batch({n: v[order] for n, v in x.items()})
    first = Batch({n: torch.cat([v[:1], v[:1], v[4:], v[4:]]) for n, v in x.items()})
    for here, there, other in zip(model(x), model(moved), model(first), strict=True):
        require(
            torch.allclose(here.value[order], there.value, rtol=1e-4, atol=1e-5),
            f"the values of the term {here.name!r} do not follow their rows when rows change "
            "places; a value may depend on other rows, but must belong to its own: look at what "
            "is reshaped, and by which dimension",
        )
        same = bool((here.value == here.value[0]).all())
        require(
            not same or torch.allclose(here.value[0], other.value[0], rtol=1e-4, atol=1e-5),
            f"the term {here.name!r} has one value for all rows, which changes with them: a mean "
            "over the batch; give each row its own, (B,)",
        )


@seeded
def check_repeatable(setup: Setup) -> None:
    """The same seed gives the same first weights, and the same objective."""
    for model, x in setup.cases():
        twin = setup.build(model.modalities) if model.directions is None else None
        if twin is not None:
            pairs = zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
            require(
                all(torch.equal(one, other) for one, other in pairs),
                "two builds with the same seed have different first weights; draw them from "
                "torch's global random numbers",
            )
        values = []
        for number in (1, 2):
            with _python_seed(number):
                torch.manual_seed(5)
                values.append([term.weight * term.value for term in model(x)])
        require(
            all(torch.equal(one, other) for one, other in zip(*values, strict=True)),
            "objective() in eval mode gives other values for the same seed; draw all noise from "
            "torch, and change nothing in the model",
        )


@contextmanager
def _python_seed(number: int) -> Iterator[None]:
    """Runs with another state of Python's random numbers, and puts it back."""
    before = random.getstate()
    random.seed(number)
    try:
        yield
    finally:
        random.setstate(before)
