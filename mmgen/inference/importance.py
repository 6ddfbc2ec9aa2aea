"""Importance-sampled likelihoods: draws of z and their weights, written once for all models.

What is drawn from and what it is weighed by may be two things: z of several distributions q_1 ..
q_C, as many of each, are together draws of their mixture, and w = p(z) / (1/C Σ_c q_c(z)) is
bounded wherever one of them is p(z) itself.

References:
    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016;
    E. Veach, L. J. Guibas, "Optimally Combining Sampling Techniques for Monte Carlo Rendering",
    SIGGRAPH 1995 (the balance heuristic);
    A. Owen, Y. Zhou, "Safe and Effective Importance Sampling", JASA 95(449), 2000.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.latent.base import Latent
from mmgen.model import Model
from mmgen.subsets import Subset, ordered

Pool = tuple[Subset, ...]
"""Distributions that propose z in equal shares: q(z|x_S) as S, and p(z), or p(z|x_C) of a
conditional model, as the empty subset."""


@dataclass(frozen=True, eq=False, repr=False)
class Weighted(OneLine):
    """Draws of z with their importance weights.

    Attributes:
        z: ``(samples, B, *event)``.
        log_weight: log p(z) − log q(z), ``(samples, B)``, in nats; p is the prior, conditional if
            the model's is.
    """

    z: Tensor
    log_weight: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Proposed(OneLine):
    """Draws of z of one distribution, and their densities under several.

    Attributes:
        z: ``(samples, B, *event)``.
        log_p: log p(z), ``(samples, B)``, in nats; conditional if the model's prior is.
        log_q: log q_c(z) of each distribution of some pools, ``(samples, B)``.
    """

    z: Tensor
    log_p: Tensor
    log_q: Mapping[Subset, Tensor]

    def log_weight(self, pool: Pool) -> Tensor:
        """Returns log p(z) − log 1/C Σ_c q_c(z), the weights in a pool ``(samples, B)``."""
        each = torch.stack([self.log_q[subset] for subset in pool])
        return self.log_p - (each.logsumexp(0) - math.log(len(pool)))


def proposers(model: Model, subset: Iterable[str]) -> Pool:
    """Returns what proposes z for p(x_U): q(z|x_U), or q(z|x) and the prior without an encoder.

    q(z|x) knows more than x_U and is narrower than p(z|x_U): by itself it would leave out what has
    most of the weight. With as many draws of the prior, no weight p(z)/q(z) is above 2.
    """
    U = ordered(model.names, subset)
    has_encoder = model.posterior(model.blank(U)) is not None
    return (U,) if has_encoder else (model.names, ())


def proposer(model: Model, x: Batch, subset: Subset) -> Latent:
    """Returns the distribution that a :data:`Pool` calls by a subset.

    Args:
        model: In eval mode.
        x: Observations ``(B, *shape)`` of all modalities.
        subset: S, which has an encoder; or the empty one.
    """
    if not subset:
        return model.prior(x.select(model.directions.given if model.directions else ()))
    q = model.posterior(x.select(subset))
    assert q is not None
    return q


def propose(
    model: Model, x: Batch, source: Subset, samples: int, others: Iterable[Subset] = ()
) -> Proposed:
    """Draws z from one distribution, and measures their densities under it and others.

    Args:
        model: In eval mode.
        x: Observations ``(B, *shape)`` of all modalities.
        source: What is drawn from, see :data:`Pool`.
        samples: How many z per row.
        others: What else is asked for densities.
    """
    prior = proposer(model, x, ())
    q = {s: proposer(model, x, s) if s else prior for s in dict.fromkeys([source, *others])}
    # A prior that is the same for all rows is drawn for each of them.
    rows = () if q[source].batch_shape else (x.rows,)
    z = q[source].rsample(torch.Size((samples, *rows)))
    return Proposed(z, prior.log_prob(z), {s: each.log_prob(z) for s, each in q.items()})


def importance_sample(model: Model, x: Batch, given: Iterable[str], samples: int) -> Weighted:
    """Draws z to estimate likelihoods with, from q(z|x_S), or q(z|x) where S has no encoder.

    Args:
        model: In eval mode.
        x: Observations ``(B, *shape)`` of all modalities.
        given: The subset S.
        samples: How many z per row.
    """
    source, *_ = proposers(model, given)
    drawn = propose(model, x, source, samples)
    return Weighted(drawn.z, drawn.log_weight((source,)))
