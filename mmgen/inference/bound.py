"""The evidence lower bound, as the terms that most objectives begin with."""

from torch import Tensor

from mmgen.batch import Batch
from mmgen.inference.divergence import divergence
from mmgen.latent.base import Latent
from mmgen.model import Model, log_likelihoods
from mmgen.objective import Term, prior_kl, reconstruction


def evidence_bound(model: Model, x: Batch, q: Latent, z: Tensor) -> list[Term]:
    """Returns the terms of Σ_k log p(x_k | z) − β KL(q(z | x) ‖ p(z)), with p(z | x_C) if given.

    Args:
        model: Its decoders and its prior are used.
        x: Observations ``(B, *shape)`` of all modalities.
        q: q(z | x).
        z: One draw from it per row, ``(B, *event)``.
    """
    masks = x.present or {}
    decoded = log_likelihoods(model, x, z)
    terms = [reconstruction(n, log_p, masks.get(n)) for n, log_p in decoded.items()]
    p = model.prior(x.select(model.directions.given if model.directions else ()))
    return [*terms, prior_kl(divergence(q, p, z), f"KL to {p.symbol}")]
