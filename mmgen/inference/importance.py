"""Importance-sampled likelihoods: log p(z) − log q(z), written once for all models.

References:
    Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.model import Model


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


def importance_sample(model: Model, x: Batch, given: Iterable[str], samples: int) -> Weighted:
    """Draws z to estimate likelihoods with, from q(z|x_S), or q(z|x) where S has no encoder.

    Args:
        model: In eval mode.
        x: Observations ``(B, *shape)`` of all modalities.
        given: The subset S.
        samples: How many z per row.
    """
    q = model.posterior(x.select(given)) or model.posterior(x.select(model.names))
    assert q is not None
    z = q.rsample((samples,))
    p = model.prior(x.select(model.directions.given if model.directions else ()))
    return Weighted(z, p.log_prob(z) - q.log_prob(z))
