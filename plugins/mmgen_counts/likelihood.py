"""Distributions of counts: negative binomial, with more zeros if need be, and Poisson.

The density is Poisson's and what dispersion adds to it, in terms that stay small: float32 is off
by some 1e-7 nats times the count. The usual differences of log Γ lose whole nats, at large counts
and at dispersions so large that the distribution is Poisson's.

References:
    C. Loader, "Fast and accurate computation of binomial probabilities", 2000: the saddle point.
    R. Lopez, J. Regier, M. B. Cole, M. I. Jordan, N. Yosef, "Deep generative modeling for
    single-cell transcriptomics", Nature Methods 15, 2018: scVI, whose likelihood this is.
"""

from math import log, pi
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Gamma, Independent, constraints

BOUND = 10.0
"""How far logarithms of rates are from those measured, and of dispersions from 0, at most."""

_HALF_LOG_2PI = 0.5 * log(2 * pi)


def remainder(a: Tensor) -> Tensor:
    """Returns log Γ(a) − [(a − ½) log a − a + ½ log 2π], Stirling's error, for a > 0.

    Examples:
        >>> remainder(torch.tensor([1.0, 100.0]))  # 1 − ½ log 2π, and nearly 1/1200
        tensor([0.0811, 0.0008])
    """
    near, far = a.clamp(max=8), 1 / a.clamp(min=8)
    square = far * far
    direct = torch.lgamma(near) - (near - 0.5) * near.log() + near - _HALF_LOG_2PI
    series = far * (1 / 12 - square * (1 / 360 - square / 1260))
    return torch.where(a < 8, direct, series)


def poisson_log_prob(x: Tensor, rate: Tensor) -> Tensor:
    """Returns log(μ^x e^−μ / x!) of counts ``x`` and rates μ > 0, elementwise."""
    n = x.clamp(min=1)  # 0! is 1!
    return x * (rate / n).log() + n - rate - 0.5 * n.log() - _HALF_LOG_2PI - remainder(n)


class Counts(Distribution):
    """Counts, one by one, of mean μ and variance μ + μ²/θ; θ = ∞ is Poisson's.

    p(x) = Γ(x + θ) / (Γ(θ) x!) · (θ / (θ + μ))^θ · (μ / (θ + μ))^x.

    Args:
        rate: The means μ ``(*batch)``, positive.
        dispersion: θ, positive, of a shape that broadcasts with the means; ``None``: infinite.

    Examples:
        >>> p = Counts(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 1e9]))
        >>> p.log_prob(torch.zeros(2)).exp()  # θ / (θ + μ), and e^−μ
        tensor([0.3333, 0.1353])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"rate": constraints.positive}
    support = constraints.nonnegative_integer

    def __init__(self, rate: Tensor, dispersion: Tensor | None = None) -> None:
        self.rate, self.dispersion = rate, dispersion
        super().__init__(rate.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p of counts ``(..., *batch)``, in nats, elementwise."""
        poisson, theta = poisson_log_prob(value, self.rate), self.dispersion
        if theta is None:
            return poisson
        apart = value - self.rate
        least = torch.finfo(apart.dtype).eps - 1  # of (θ − (μ + θ)) / (μ + θ), for θ ≪ μ
        change = (apart / (self.rate + theta)).clamp(min=least).log1p()
        more = (value + theta) * change - apart - 0.5 * (value / theta).log1p()
        return poisson + more + remainder(value + theta) - remainder(theta)

    @property
    def mean(self) -> Tensor:
        """μ."""
        return self.rate

    @property
    def variance(self) -> Tensor:
        """μ + μ²/θ."""
        return self.rate if self.dispersion is None else self.rate + self.rate**2 / self.dispersion

    @property
    def mode(self) -> Tensor:
        """The most probable count, the larger of two: ⌊μ (θ − 1)/θ⌋, but not below 0."""
        less = 1.0 if self.dispersion is None else 1 - 1 / self.dispersion
        return (self.rate * less).floor().clamp(min=0)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws counts: Poisson's, whose rates are gamma distributed."""
        with torch.no_grad():
            rate = self.rate.expand(self._extended_shape(sample_shape))
            if self.dispersion is not None:
                theta = self.dispersion.expand_as(rate)
                rate = Gamma(theta, theta / rate, validate_args=False).sample()
            return torch.poisson(rate)


class ZeroInflated(Distribution):
    """0 with probability π, else a count of another distribution.

    Args:
        base: The other distribution, elementwise.
        logits: Of π, ``(*batch)``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, base: Counts, logits: Tensor) -> None:
        self.base, self.logits = base, logits
        super().__init__(base.batch_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p of counts ``(..., *batch)``, in nats, elementwise."""
        counted = F.logsigmoid(-self.logits) + self.base.log_prob(value)
        return torch.where(value == 0, F.logsigmoid(self.logits).logaddexp(counted), counted)

    @property
    def _counted(self) -> Tensor:
        return (-self.logits).sigmoid()

    @property
    def mean(self) -> Tensor:
        """(1 − π) μ."""
        return self._counted * self.base.mean

    @property
    def variance(self) -> Tensor:
        """(1 − π) (σ² + π μ²)."""
        square = self.base.mean**2
        return self._counted * (self.base.variance + self.logits.sigmoid() * square)

    @property
    def mode(self) -> Tensor:
        """The most probable count: 0, or the other distribution's."""
        mode = self.base.mode
        return mode.where(self.log_prob(mode) > self.log_prob(torch.zeros_like(mode)), 0)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws counts."""
        with torch.no_grad():
            drawn = self.base.sample(sample_shape)
            return drawn.where(torch.rand_like(drawn) < self._counted, 0)


class Decoder(nn.Module):
    """p(x | z) of C counts: log μ = log m + net(z), and a dispersion for each that is learned.

    Args:
        net: ``(B, in_features) -> (B, C)``, or ``(B, 2·C)`` if ``inflated``: logits of π too.
        mean: The C means m around which rates begin.
        dispersed: Whether counts are dispersed; else they are Poisson's.
        inflated: Whether there are more zeros.
    """

    def __init__(self, net: nn.Module, mean: Tensor, *, dispersed: bool, inflated: bool) -> None:
        super().__init__()
        self.net, self.inflated = net, inflated
        self.log_mean: Tensor
        self.register_buffer("log_mean", mean.log(), persistent=False)
        self.dispersion = nn.Parameter(torch.zeros_like(mean)) if dispersed else None

    def forward(self, h: Tensor) -> Distribution:
        """Maps ``(B, in_features)`` to a distribution of event shape ``(C,)``."""
        out = self.net(h).to(h.dtype)
        change, *logits = out.chunk(2, dim=1) if self.inflated else (out,)
        theta = None if self.dispersion is None else _bounded(self.dispersion).exp()
        counts = Counts((self.log_mean + _bounded(change)).exp(), theta)
        p = ZeroInflated(counts, logits[0]) if self.inflated else counts
        return Independent(p, 1, validate_args=False)


def _bounded(x: Tensor) -> Tensor:
    """Returns x, but smoothly within ±:data:`BOUND`: exponentials stay finite."""
    return BOUND * (x / BOUND).tanh()
