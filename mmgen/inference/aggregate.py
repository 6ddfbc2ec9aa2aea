"""Fits what z is drawn from given nothing to the aggregate posterior of a trained model."""

from collections.abc import Iterable

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.latent.aggregate import FittedPrior
from mmgen.model import Model

ROWS = 20_000
"""The most rows that it is fitted to."""


@torch.no_grad()
def fit_prior(model: Model, batches: Iterable[Batch], rows: int = ROWS) -> FittedPrior:
    """Draws a z ~ q(z | x_n) for each of some rows, and fits a mixture of Gaussians to them.

    Args:
        model: A joint model, in eval mode.
        batches: Observations of all modalities, in random order.
        rows: How many are read at most, to whole batches.

    Returns:
        What is to be the model's :attr:`mmgen.model.Model.fitted_prior`.
    """
    assert model.directions is None, "a model of one direction is always given something"
    draws: list[Tensor] = []
    means: list[Tensor] = []
    for x in batches:
        q = model.posterior(x.select(model.names))
        assert q is not None, "every model encodes all of its modalities"
        draws.append(q.sample())
        means.append(q.mean)
        if sum(map(len, draws)) >= rows:
            break
    return FittedPrior.of_draws(torch.cat(draws), torch.cat(means))
