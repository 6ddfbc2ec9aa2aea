"""Gaussians of z: what they share, and those whose dimensions are independent."""

import math
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions.kl import register_kl

from mmgen.latent.base import Latent

VARIANCE_FLOOR = 1e-6
"""Added to every variance: a collapsed one would make densities infinite."""


class Gaussian(Latent):
    """N(loc, Σ), of batch shape ``(...)`` and event shape ``(Z,)``: Σ is the subclass's matter.

    Attributes:
        loc: The mean, ``(..., Z)``.
    """

    loc: Tensor

    @property
    def mean(self) -> Tensor:
        """``(..., Z)``."""
        return self.loc

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """The diagonal of Σ, ``(..., Z)``."""

    @property
    def stddev(self) -> Tensor:
        """The standard deviation of each dimension by itself, ``(..., Z)``."""
        return self.variance.sqrt()

    @abstractmethod
    def __getitem__(self, index: Any) -> Self:
        """Returns a part of the batch: ``q[-1]`` of batch shape (S, B) has the shape (B,)."""

    @abstractmethod
    def detach(self) -> Self:
        """Returns the same distribution, through which no gradient flows."""

    @abstractmethod
    def pick(self, chosen: Tensor) -> Tensor:
        """Draws z of chosen ones among C Gaussians.

        Args:
            chosen: Numbers along the first dimension of the batch ``(C, *batch)``, of the shape
                ``(*samples, *batch)``.

        Returns:
            z ``(*samples, *batch, Z)``.
        """


class DiagonalGaussian(Gaussian):
    """N(mean, diag(standard_deviation²)), of batch shape ``(...)`` and event shape ``(Z,)``.

    Args:
        mean: ``(..., Z)``.
        standard_deviation: ``(..., Z)``, positive.
        symbol: See :class:`Latent`.
    """

    def __init__(self, mean: Tensor, standard_deviation: Tensor, symbol: str = "q(z)") -> None:
        self.loc, self.scale = mean, standard_deviation
        super().__init__(mean.shape[:-1], mean.shape[-1:], symbol)

    @property
    def stddev(self) -> Tensor:
        """``(..., Z)``."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """``(..., Z)``."""
        return self.scale**2

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z = mean + standard deviation · u."""
        u = self.loc.new_empty(*sample_shape, *self.loc.shape).normal_()
        return self.loc + u * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """Σ_d log N(z_d; mean_d, standard_deviation_d²), ``(...)``."""
        squared = (value - self.loc) ** 2 / (2 * self.scale**2)
        return (-squared - self.scale.log() - math.log(math.sqrt(2 * math.pi))).sum(-1)

    def tempered(self, temperature: float) -> Self:
        """Returns N(mean, τ² · variance)."""
        return type(self)(self.loc, temperature * self.scale, self.symbol)

    def __getitem__(self, index: Any) -> Self:
        """Returns a part of the batch: ``q[-1]`` of batch shape (S, B) has the shape (B,)."""
        return type(self)(self.loc[index], self.scale[index], self.symbol)

    def pick(self, chosen: Tensor) -> Tensor:
        """Draws z of chosen ones: see :meth:`Gaussian.pick`."""
        last = len(self.batch_shape) - 2
        rows = [
            torch.arange(size, device=chosen.device).reshape(-1, *[1] * (last - dim))
            for dim, size in enumerate(self.batch_shape[1:])
        ]
        return self[chosen, *rows].rsample()

    def named(self, symbol: str) -> Self:
        """Returns the same distribution under another symbol."""
        return type(self)(self.loc, self.scale, symbol)

    def detach(self) -> Self:
        """Returns the same distribution, through which no gradient flows."""
        return type(self)(self.loc.detach(), self.scale.detach(), self.symbol)


@register_kl(DiagonalGaussian, DiagonalGaussian)  # type: ignore[untyped-decorator]
def _kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    ratio = (q.scale / p.scale).pow(2)
    shift = ((q.loc - p.loc) / p.scale).pow(2)
    return (0.5 * (ratio + shift - 1 - ratio.log())).sum(-1)


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Leaves autocast: matrix products of densities and divergences need full precision."""
    available = torch.amp.is_autocast_available(device.type)  # not on the meta device
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def gaussian(parameters: Tensor, symbol: str = "q(z)") -> DiagonalGaussian:
    """Reads a diagonal Gaussian off ``(..., 2Z)``: mean, and softplus to the variance.

    Returns:
        A distribution of batch shape ``(...)`` and event shape ``(Z,)``.
    """
    # Out of autocast: densities and divergences need full precision.
    full = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
    mean, raw = full.chunk(2, dim=-1)
    return DiagonalGaussian(mean, (F.softplus(raw) + VARIANCE_FLOOR).sqrt(), symbol)


def standard_normal(*shape: int, like: Tensor) -> DiagonalGaussian:
    """Returns N(0, I) of batch and event shape together, on the device of ``like``.

    It is of the dtype of ``like``, but at least of single precision, as all densities are.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    zeros = torch.zeros(shape, dtype=dtype, device=like.device)
    return DiagonalGaussian(zeros, torch.ones_like(zeros), "N(0, I)")


class GaussianHead(nn.Module):
    """Features ``(..., F)`` to a diagonal Gaussian over ``(Z,)``."""

    def __init__(self, in_features: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 2 * latent)

    def forward(self, h: Tensor, symbol: str = "q(z)") -> DiagonalGaussian:
        """Maps features ``(..., F)`` to a Gaussian of batch shape ``(...)``."""
        return gaussian(self.linear(h), symbol)
