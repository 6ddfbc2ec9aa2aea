"""A distribution of a flat batch, seen with several batch dimensions."""

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


class Unflattened(Distribution):
    """A distribution of batch shape ``(N,)``, seen as one of batch shape ``(S, .., B)``.

    Decoders take one batch dimension; z may have several.

    Args:
        flat: The distribution, of batch shape ``(N,)``.
        batch_shape: ``(S, .., B)``, whose product is N.

    Examples:
        >>> from torch.distributions import Normal
        >>> p = Unflattened(Normal(torch.zeros(6), 1.0), (2, 3))
        >>> p.mean.shape, p.sample((5,)).shape, p.log_prob(torch.zeros(3)).shape
        (torch.Size([2, 3]), torch.Size([5, 2, 3]), torch.Size([2, 3]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, flat: Distribution, batch_shape: Sequence[int]) -> None:
        self.flat = flat
        super().__init__(torch.Size(batch_shape), flat.event_shape, validate_args=False)

    def _unflattened(self, values: Tensor, at: int = 0) -> Tensor:
        return values.unflatten(at, self.batch_shape)  # type: ignore[no-any-return]

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether gradients flow through what :meth:`rsample` draws."""
        return self.flat.has_rsample

    @property
    def support(self) -> Any:
        """What values can be."""
        return self.flat.support

    @property
    def mean(self) -> Tensor:
        """The means, ``(*batch, *shape)``."""
        return self._unflattened(self.flat.mean)

    @property
    def mode(self) -> Tensor:
        """The modes, ``(*batch, *shape)``."""
        return self._unflattened(self.flat.mode)

    @property
    def variance(self) -> Tensor:
        """The variances, ``(*batch, *shape)``."""
        return self._unflattened(self.flat.variance)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws values ``(*sample_shape, *batch, *shape)``."""
        shape = torch.Size(sample_shape)
        return self._unflattened(self.flat.sample(shape), len(shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws values that gradients flow through."""
        shape = torch.Size(sample_shape)
        return self._unflattened(self.flat.rsample(shape), len(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log density of values in nats, ``(..., *batch)``."""
        least = (*self.batch_shape, *self.event_shape)
        whole = value.expand(torch.broadcast_shapes(value.shape, least))
        at = whole.dim() - len(least)
        flat = whole.flatten(at, at + len(self.batch_shape) - 1)
        return self._unflattened(self.flat.log_prob(flat), at)

    def entropy(self) -> Tensor:
        """Returns the entropies in nats, ``(*batch)``."""
        return self._unflattened(self.flat.entropy())

    def __repr__(self) -> str:
        family = type(self.flat).__name__
        return f"Unflattened({family}, {tuple(self.batch_shape)}, {tuple(self.event_shape)})"


def flat(p: Distribution) -> Distribution:
    """Returns the distribution with one batch dimension that another shows with several."""
    return p.flat if isinstance(p, Unflattened) else p


def unflattened(p: Distribution, batch_shape: Sequence[int]) -> Distribution:
    """Returns ``p``, of batch shape ``(N,)``, with another batch shape of the same product."""
    assert prod(batch_shape) == prod(p.batch_shape)
    return p if tuple(batch_shape) == tuple(p.batch_shape) else Unflattened(p, batch_shape)
