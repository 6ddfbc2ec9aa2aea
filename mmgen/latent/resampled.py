"""Draws of one distribution of z, moved to where another says that z are.

q(z | x_S) is one Gaussian, and covers places between those where posteriors of rows are. What it
says of z beside p(z) is q(z | x_S) / p(z); with q(z), which was fitted to posteriors, in the place
of p(z), z given x_S is q(z) q(z | x_S) / p(z), up to a factor.

References:
    D. B. Rubin, "Using the SIR algorithm to simulate posterior distributions", Bayesian
    Statistics 3, 1988 (sampling, importance resampling).
"""

from typing import Any, Self

import torch
from torch import Tensor

from mmgen.latent.base import Latent

CANDIDATES = 32
"""Draws of which one is chosen."""


class Resampled(Latent):
    """q(z) r(z) / p(z) up to a factor, by draws: of several of q, one is chosen by r / p.

    The more candidates, the nearer; with one it is q.

    Args:
        q: Of batch shape ``(B,)``.
        r: Where z are, of batch shape ``()``.
        p: What r takes the place of, of batch shape ``()``.
    """

    def __init__(self, q: Latent, r: Latent, p: Latent) -> None:
        self.q, self.r, self.p = q, r, p
        super().__init__(q.batch_shape, q.event_shape, q.symbol)

    @property
    def mean(self) -> Tensor:
        """That of q, ``(B, *event)``: the centre."""
        return self.q.mean

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, B, *event)``."""
        chosen = self.q.rsample(sample_shape)
        best = self._score(chosen)
        for _ in range(CANDIDATES - 1):  # one after the other: it takes memory for two
            z = self.q.rsample(sample_shape)
            score = self._score(z)
            better = (score > best).view(*score.shape, *[1] * len(self.event_shape))
            chosen, best = torch.where(better, z, chosen), torch.maximum(score, best)
        return chosen

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises NotImplementedError: the factor is not known."""
        raise NotImplementedError(f"{self.symbol} is known by draws alone, and has no density")

    def tempered(self, temperature: float) -> Self:
        """Returns the same with candidates that are tempered."""
        return type(self)(self.q.tempered(temperature), self.r, self.p)

    def _score(self, z: Tensor) -> Tensor:
        """Returns log r(z) / p(z) and Gumbel noise: the largest is chosen with its probability."""
        log_w = self.r.log_prob(z) - self.p.log_prob(z)
        return log_w - torch.empty_like(log_w).exponential_().log()
