"""Which family of distributions the parameters of a posterior mean: nets that return one.

A family has the number of its ``parameters`` per posterior, and maps parameters ``(..., P)`` to a
distribution of batch shape ``(...)``.
"""

from typing import Protocol

from torch import Tensor

from mmgen.latent.base import Latent
from mmgen.latent.gaussian import DiagonalGaussian, gaussian


class Family(Protocol):
    """What an encoder's parameters are turned into.

    Attributes:
        size: P, how many parameters a distribution has.
    """

    size: int

    def __call__(self, parameters: Tensor, symbol: str) -> Latent:
        """Maps parameters ``(..., P)`` to a distribution of batch shape ``(...)``."""


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
