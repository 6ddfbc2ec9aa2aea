"""Mixtures: z is where one of several components says.

References:
    C. M. Bishop, "Mixture Density Networks", Aston University NCRG/94/004, 1994;
    Y. Shi, N. Siddharth, B. Paige, P. Torr, "Variational Mixture-of-Experts Autoencoders for
    Multi-Modal Deep Generative Models", NeurIPS 2019.
"""

import math
from typing import Any, Self

import torch
from torch import Tensor

from mmgen.latent.base import Latent
from mmgen.latent.gaussian import Gaussian


class Mixture(Latent):
    """Σ_c w_c q_c(z): a mixture of C components, of their batch shape without the first.

    Uniform, w_c = 1/C, unless weights are given.

    Args:
        components: q_1 .. q_C, of batch shape ``(C, *batch)``.
        symbol: See :class:`Latent`.
        usable: The components that some of the batch are a mixture of, a mask ``(C, *batch)``; all
            of them without it, and where it has none. With weights, all are.
        log_weights: log w_c, ``(C, *batch)``, of weights that sum to one.
    """

    def __init__(
        self,
        components: Gaussian,
        symbol: str = "q(z)",
        usable: Tensor | None = None,
        log_weights: Tensor | None = None,
    ) -> None:
        assert usable is None or log_weights is None, "one of them says what counts for how much"
        self.components, self.log_weights = components, log_weights
        self.usable = None if usable is None else usable | ~usable.any(0)
        super().__init__(components.batch_shape[1:], components.event_shape, symbol)

    @property
    def mean(self) -> Tensor:
        """``(..., Z)``."""
        return self.average(self.components.mean)

    @property
    def variance(self) -> Tensor:
        """``(..., Z)``: that of the components, and that of their means."""
        q = self.components
        return self.average(q.variance + (q.mean - self.mean) ** 2)

    @property
    def stddev(self) -> Tensor:
        """``(..., Z)``."""
        return self.variance.sqrt()

    def average(self, values: Tensor) -> Tensor:
        """Returns the mean over the components of values ``(C, *batch, ...)``: E_c[value_c]."""
        if self.log_weights is not None:
            w = self.log_weights.exp()
            return (w.reshape(*w.shape, *[1] * (values.dim() - w.dim())) * values).sum(0)
        if self.usable is None:
            return values.mean(0)
        usable = self.usable.reshape(*self.usable.shape, *[1] * (values.dim() - self.usable.dim()))
        return torch.where(usable, values, 0).sum(0) / usable.sum(0)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, ..., Z)``, each from a component that is drawn for it."""
        return self.components.pick(self.choose(sample_shape))

    def choose(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws the numbers of components ``(*sample_shape, ...)``."""
        shape, loc = (*sample_shape, *self.batch_shape), self.components.loc
        if self.log_weights is not None:
            log_w = self.log_weights.movedim(0, -1).expand(*shape, len(loc))
            # The first to arrive of independent exponentials at these rates (Gumbel's trick).
            return (log_w - torch.empty_like(log_w).exponential_().log()).argmax(-1)
        if self.usable is None:
            return torch.randint(len(loc), shape, device=loc.device)
        among = self.usable.movedim(0, -1).expand(*shape, len(loc))
        # The largest of independent numbers: which it is, no step has to wait for.
        return torch.where(among, torch.rand(among.shape, device=loc.device), -1).argmax(-1)

    def stratified(self, samples: int) -> Tensor:
        """Draws as many z from each component, ``(samples, C, ..., Z)``: their mean varies less.

        An expectation over z is the mean over samples, and :meth:`average` over components.
        """
        return self.components.rsample(torch.Size([samples]))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log Σ_c w_c q_c(z) of z ``(..., Z)``, in nats."""
        z = value.expand(torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape))
        at = -1 - len(self.batch_shape)  # where the components' dimension is put
        each = self.components.log_prob(z.unsqueeze(at - 1))
        if self.log_weights is not None:
            return (each + self.log_weights).logsumexp(at)
        if self.usable is None:
            return each.logsumexp(at) - math.log(each.shape[at])
        log_p = torch.where(self.usable, each, -torch.inf).logsumexp(at)
        return log_p - self.usable.sum(0).log()

    def tempered(self, temperature: float) -> Self:
        """Returns the mixture of the components tempered: which one is drawn is as before."""
        components = self.components.tempered(temperature)
        return type(self)(components, self.symbol, self.usable, self.log_weights)

    def detach(self) -> Self:
        """Returns the same distribution, through which no gradient flows."""
        log_weights = None if self.log_weights is None else self.log_weights.detach()
        return type(self)(self.components.detach(), self.symbol, self.usable, log_weights)
