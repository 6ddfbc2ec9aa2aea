"""Checks of a model that says that it trains on rows which lack modalities."""

from itertools import combinations

import torch

from mmgen.batch import Batch, hidden
from mmgen.errors import ConfigError
from mmgen.model import Model
from mmgen.objective import Objective
from mmgen.testing.model.setup import Setup, joint_posterior
from mmgen.testing.model.still import StillNoise
from mmgen.testing.tools import require, seeded

ELSE = 0.7
"""What is put where nothing is, to see whether it is looked at."""


@seeded
def check_incomplete_rows(setup: Setup) -> None:
    """If it says so, it trains on rows that lack modalities, and what they lack moves nothing."""
    if not setup.cls.incomplete_rows:
        return
    for model, x in setup.cases(rows=7):
        names = model.names
        patterns = [S for k in range(1, len(names)) for S in combinations(names, k)]
        try:
            model.check_patterns(patterns)
        except ConfigError:
            continue  # with these settings it does not
        each = [(names, *patterns)[row % (1 + len(patterns))] for row in range(x.rows)]
        present = {n: torch.tensor([n in S for S in each]) for n in names}
        holes = Batch({n: hidden(v, present[n]) for n, v in x.items()}, present)
        _check_terms(model.train(), holes)
        _check_posterior(model.eval(), x, holes)


def _check_terms(model: Model, x: Batch) -> None:
    present = x.present or {}
    other = Batch({n: v + hidden(v * 0 + ELSE, ~present[n]) for n, v in x.items()}, present)

    def asked(batch: Batch) -> Objective:
        torch.manual_seed(3)
        objective: Objective = model(batch)
        return objective

    objective, again = asked(x), asked(other)
    for term, changed in zip(objective, again, strict=True):
        told = f"the term {term.name!r} of rows that lack modalities"
        has = torch.ones(x.rows, dtype=torch.bool) if term.present is None else term.present
        if (n := term.likelihood_of) is not None:
            require(
                not (has & ~present[n]).any(),
                f"{told} counts rows without {n!r}; give it a mask: Term(present=x.present[name])",
            )
        require(
            term.value[has].isfinite().all(),
            f"{told} is not finite where they have it; what is absent is zeros there",
        )
        require(
            torch.equal(term.value[has], changed.value[has]),
            f"{told} depends on what stands where nothing is; choose by masks with torch.where, "
            "and have nets that look at all rows read x.stood_in()",
        )
    values = [v.clone().requires_grad_() for v in x.values()]
    losses = asked(Batch(dict(zip(x, values, strict=True)), present)).losses()
    total = torch.stack([*losses.values()]).sum()
    gradients = torch.autograd.grad(total, values, allow_unused=True)
    for n, gradient in zip(x, gradients, strict=True):
        require(
            gradient is None or not gradient[~present[n]].any(),
            f"the loss has a gradient for values of {n!r} in rows that lack it; mask its terms",
        )


@torch.no_grad()
def _check_posterior(model: Model, x: Batch, holes: Batch) -> None:
    with StillNoise():  # type: ignore[no-untyped-call]
        found = joint_posterior(model, holes).mean
        for row in range(x.rows):
            known = [n for n, has in (holes.present or {}).items() if has[row]]
            alone = model.posterior(x.slice(row, row + 1).select(known))
            require(
                alone is not None
                and torch.allclose(alone.mean[0], found[row], rtol=1e-4, atol=1e-5),
                "posterior() of a batch with masks is not, of each row, that of what the row has",
            )
