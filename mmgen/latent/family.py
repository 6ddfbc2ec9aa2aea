"""Which family of distributions the parameters of a posterior mean: what returns one of them.

A family has the number of its parameters per posterior, and maps parameters ``(..., P)`` to a
distribution of batch shape ``(...)``. Of each Gaussian, the first 2Z parameters are those of a
diagonal one; what couples its dimensions comes after them, and is nothing where it is zero.

References:
    C. M. Bishop, "Mixture Density Networks", Aston University NCRG/94/004, 1994; P. M. Williams,
    "Using Neural Networks to Model Conditional Multivariate Densities", Neural Computation 8(4),
    1996 (full covariances read off a net).
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from mmgen.latent.base import Latent
from mmgen.latent.correlated import FullGaussian, LowRankGaussian
from mmgen.latent.gaussian import DiagonalGaussian, Gaussian, gaussian
from mmgen.latent.mixture import Mixture


class Family(Protocol):
    """What an encoder's parameters are turned into.

    Attributes:
        size: P, how many parameters a distribution has.
    """

    size: int

    def __call__(self, parameters: Tensor, symbol: str) -> Latent:
        """Maps parameters ``(..., P)`` to a distribution of batch shape ``(...)``."""


class GaussianFamily(Protocol):
    """A family of Gaussians, which may be the components of a mixture.

    Attributes:
        size: P, how many parameters a distribution has.
    """

    size: int

    def __call__(self, parameters: Tensor, symbol: str) -> Gaussian:
        """Maps parameters ``(..., P)`` to a Gaussian of batch shape ``(...)``."""


class Gaussians:
    """Diagonal Gaussians: mean, and softplus to the variance.

    Args:
        latent: Z, the size of z.
    """

    def __init__(self, latent: int) -> None:
        self.size = 2 * latent

    def __call__(self, parameters: Tensor, symbol: str) -> DiagonalGaussian:
        """Maps parameters ``(..., 2Z)`` to a Gaussian of batch shape ``(...)``."""
        return gaussian(parameters, symbol)


class FullGaussians:
    """Gaussians of any covariance: Z means, Z innovations, Z(Z − 1)/2 couplings.

    Couplings are divided by √Z: what Z of them add to a dimension is then of the size of one, so
    that with a net's first weights the covariance is nearly diagonal, whatever Z is.

    Args:
        latent: Z, the size of z.

    Examples:
        >>> family = FullGaussians(3)
        >>> family.size, family(torch.zeros(5, family.size), "q(z)").batch_shape
        (9, torch.Size([5]))
    """

    def __init__(self, latent: int) -> None:
        self.latent = latent
        self.size = latent + latent * (latent + 1) // 2

    def __call__(self, parameters: Tensor, symbol: str) -> FullGaussian:
        """Maps parameters ``(..., P)`` to a Gaussian of batch shape ``(...)``."""
        Z = self.latent
        own = gaussian(parameters[..., : 2 * Z])
        below = parameters[..., 2 * Z :].to(own.loc.dtype) / math.sqrt(Z)
        row, column = torch.tril_indices(Z, Z, -1, device=below.device)
        coupling = below.new_zeros(*below.shape[:-1], Z * Z).index_copy(-1, Z * row + column, below)
        one = torch.eye(Z, dtype=below.dtype, device=below.device)
        return FullGaussian(own.loc, own.scale, coupling.unflatten(-1, (Z, Z)) + one, symbol)


class LowRankGaussians:
    """Gaussians of independent dimensions and R shared directions: Z means, Z variances, Z R more.

    Args:
        latent: Z, the size of z.
        rank: R.
    """

    def __init__(self, latent: int, rank: int) -> None:
        self.latent, self.rank = latent, rank
        self.size = (2 + rank) * latent

    def __call__(self, parameters: Tensor, symbol: str) -> LowRankGaussian:
        """Maps parameters ``(..., P)`` to a Gaussian of batch shape ``(...)``."""
        own = gaussian(parameters[..., : 2 * self.latent])
        more = parameters[..., 2 * self.latent :].to(own.loc.dtype) / math.sqrt(self.latent)
        directions = more.unflatten(-1, (self.latent, self.rank))
        return LowRankGaussian(own.loc, own.scale, directions, symbol)


class Mixtures:
    """Mixtures of C Gaussians of a family: C logits of their weights, then their parameters.

    Args:
        components: The family of each.
        count: C.
    """

    def __init__(self, components: GaussianFamily, count: int) -> None:
        self.components, self.count = components, count
        self.size = count * (1 + components.size)

    def __call__(self, parameters: Tensor, symbol: str) -> Mixture:
        """Maps parameters ``(..., P)`` to a mixture of batch shape ``(...)``."""
        full = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        logits, own = full[..., : self.count], full[..., self.count :]
        each = own.unflatten(-1, (self.count, self.components.size)).movedim(-2, 0)
        log_weights = logits.log_softmax(-1).movedim(-1, 0)
        return Mixture(self.components(each, symbol), symbol, log_weights=log_weights)
