"""Subset posteriors that are no Gaussians: one conditional normalising flow for all subsets.

The true posterior of a class is not a Gaussian: z of a class lies where the joint posteriors of its
members lie, in lumps and bows that a diagonal Gaussian covers only by covering what is between.

References:
    G. Papamakarios, T. Pavlakou, I. Murray, "Masked Autoregressive Flow for Density Estimation",
    NeurIPS 2017; L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", ICLR
    2017; the library zuko.
"""

from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from mmgen.errors import ConfigError
from mmgen.latent.base import Latent
from mmgen.latent.gaussian import DiagonalGaussian, full_precision, gaussian
from mmgen.memory import check_fits


class ConditionalFlow(nn.Module):
    """q(z|x_S) = f(u; h_S), u ~ N(0, I), laid over the Gaussian that h_S would be without it.

    z = mean(h_S) + deviation(h_S) · f^-1(u; h_S), with the parameters h_S of the subset encoder as
    the context of the flow f. All subsets share it, so that its size does not grow with K.

    Args:
        latent: Z, the size of z.
        transforms: How many autoregressive transformations.
        widths: Widths of the net in each of them.

    Raises:
        ConfigError: If zuko is not installed.
    """

    def __init__(self, latent: int, transforms: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.size = 2 * latent
        validates = Distribution._validate_args  # noqa: SLF001
        try:
            from zuko.flows import MAF
        except ImportError:
            raise ConfigError(
                'model.subset_posterior = "flow" needs zuko: pip install "mmgen-vae[flow]"'
            ) from None
        finally:  # zuko turns it off when it is imported, for all that the process computes
            Distribution.set_default_validate_args(validates)
        widths_of_each = [3 * latent, *widths, 2 * latent]
        weights = sum(before * after for before, after in pairwise(widths_of_each))
        check_fits(  # even of a sketch, see below
            f"model.subset_posterior: a flow of {transforms:,} transformations",
            transforms * weights * 5,  # float32, and a mask of one byte each
            "smaller model.flow_widths, fewer model.flow_transforms",
        )
        # Masks are computed from values, which the meta device does not have.
        device = torch.get_default_device()
        with torch.device("cpu"):
            flow = MAF(latent, 2 * latent, transforms, passes=2, hidden_features=tuple(widths))
        # Without its base distribution, which would validate values: that waits for the device.
        self.transform = flow.transform.to(device)

    def forward(self, parameters: Tensor, symbol: str = "q(z)") -> "FlowPosterior":
        """Maps parameters ``(..., 2Z)`` to a posterior of batch shape ``(...)``."""
        return FlowPosterior(self.transform, parameters, symbol)


class FlowPosterior(Latent):
    """A flow over a Gaussian, both given by parameters ``(..., 2Z)``: batch ``(...)``, event Z."""

    def __init__(self, transform: nn.Module, parameters: Tensor, symbol: str = "q(z)") -> None:
        self.temperature = 1.0
        base = gaussian(parameters)
        self.loc, self.scale = base.loc, base.scale
        with full_precision(self.loc.device):
            self.transform = transform(parameters.to(self.loc.dtype))  # standardised z -> u
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], symbol)

    @property
    def mean(self) -> Tensor:
        """Where the flow puts u = 0, ``(..., Z)``: its centre, which need not be its mean."""
        return self._of(torch.zeros_like(self.loc))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, ..., Z)``."""
        u = torch.randn_like(self.loc.expand(*sample_shape, *self.loc.shape))
        return self._of(self.temperature * u)

    def tempered(self, temperature: float) -> Self:
        """Returns the same flow over u ~ N(0, τ²I), τ > 0."""
        other = copy(self)
        other.temperature = temperature * self.temperature
        return other

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log q(z|x_S) of z ``(..., Z)``, in nats."""
        with full_precision(self.loc.device):
            u, log_slope = self.transform.call_and_ladj((value - self.loc) / self.scale)
        base = DiagonalGaussian(torch.zeros_like(u), torch.full_like(u, self.temperature))
        density: Tensor = base.log_prob(u) + log_slope
        return density - self.scale.log().sum(-1)

    def _of(self, u: Tensor) -> Tensor:
        with full_precision(self.loc.device):
            standardised: Tensor = self.transform.inv(u)
        return self.loc + self.scale * standardised
