"""Divergences between distributions of z, in nats: closed where they are, by draws elsewhere."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from mmgen.batch import Batch
from mmgen.latent.base import Latent
from mmgen.model import Model
from mmgen.subsets import Subset, proper


def divergence(q: Latent, p: Latent, z: Tensor) -> Tensor:
    """Returns KL(q ‖ p) in nats: in closed form, or log q(z) − log p(z) where there is none.

    Args:
        q: What z was drawn from.
        p: Another distribution of z.
        z: One draw for each of the batch, ``(*batch, *event)``: read only without a closed form.
    """
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return q.log_prob(z) - p.log_prob(z)


@torch.no_grad()
def subset_divergences(
    model: Model, x: Batch, rows: int, subsets: Iterable[Subset] | None = None
) -> dict[Subset, float]:
    """Returns the mean KL(q(z|x) ‖ q(z|x_S)) in nats for each proper subset S with an encoder.

    Small values say that S alone leads to the z that all modalities together lead to. Empty if
    the model encodes nothing but all of them. In closed form; by one z per row, drawn from torch's
    random state, where there is none.

    Args:
        model: In eval mode.
        x: Observations ``(N, *shape)`` of all modalities.
        rows: How many rows are encoded at a time.
        subsets: Which are asked for; all proper ones if left out.
    """
    asked = proper(model.names) if subsets is None else subsets
    subsets = [s for s in asked if model.posterior(model.blank(s)) is not None]
    totals = [torch.zeros((), device=model.like.device) for _ in subsets]
    for start in range(0, x.rows if subsets else 0, rows):
        part = x.slice(start, start + rows)
        q = model.posterior(part.select(model.names))
        assert q is not None
        z = q.sample()
        for i, subset in enumerate(subsets):
            q_subset = model.posterior(part.select(subset))
            assert q_subset is not None
            totals[i] = totals[i] + divergence(q, q_subset, z).sum()
    return {s: float(total) / x.rows for s, total in zip(subsets, totals, strict=True)}
