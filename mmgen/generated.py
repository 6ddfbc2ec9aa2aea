"""What was generated: a distribution for each target, and the z that they follow from."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from mmgen.brief import LONGEST, cut


class Generated(Mapping[str, Distribution]):
    """p(x_k | z) by target, and :attr:`z`.

    Attributes:
        z: What the decoders read: ``(samples, Z)``, or ``(samples, rows, Z)`` if several rows were
            given. The distributions have the batch shape ``(samples,)`` or ``(samples, rows)``.
    """

    def __init__(self, distributions: Mapping[str, Distribution], z: Tensor) -> None:
        self._distributions = dict(distributions)
        self.z = z

    def __getitem__(self, name: str) -> Distribution:
        return self._distributions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._distributions)

    def __len__(self) -> int:
        return len(self._distributions)

    def __repr__(self) -> str:
        shapes = {n: (*p.batch_shape, *p.event_shape) for n, p in self.items()}
        told = ", ".join(f"{n} {shape}" for n, shape in shapes.items())
        return f"Generated({cut(told, LONGEST - 60)}{', ' if told else ''}z {tuple(self.z.shape)})"


class Rows(Distribution):
    """A distribution of batch shape ``(samples · rows,)``, seen as ``(samples, rows)``.

    Decoders take one batch dimension; what is asked for several rows has two.

    Examples:
        >>> from torch.distributions import Normal
        >>> p = Rows(Normal(torch.zeros(6), 1.0), 2, 3)
        >>> p.mean.shape, p.sample((5,)).shape, p.log_prob(torch.zeros(3)).shape
        (torch.Size([2, 3]), torch.Size([5, 2, 3]), torch.Size([2, 3]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, flat: Distribution, samples: int, rows: int) -> None:
        self.flat = flat
        super().__init__(torch.Size((samples, rows)), flat.event_shape, validate_args=False)

    def _unflattened(self, values: Tensor, at: int = 0) -> Tensor:
        unflattened: Tensor = values.unflatten(at, self.batch_shape)
        return unflattened

    @property
    def support(self) -> Any:
        """What values can be."""
        return self.flat.support

    @property
    def mean(self) -> Tensor:
        """The means, ``(samples, rows, *shape)``."""
        return self._unflattened(self.flat.mean)

    @property
    def mode(self) -> Tensor:
        """The modes, ``(samples, rows, *shape)``."""
        return self._unflattened(self.flat.mode)

    @property
    def variance(self) -> Tensor:
        """The variances, ``(samples, rows, *shape)``."""
        return self._unflattened(self.flat.variance)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws values ``(*sample_shape, samples, rows, *shape)``."""
        shape = torch.Size(sample_shape)
        return self._unflattened(self.flat.sample(shape), len(shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws values that gradients flow through."""
        shape = torch.Size(sample_shape)
        return self._unflattened(self.flat.rsample(shape), len(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(value | z) in nats, ``(..., samples, rows)``."""
        least = (*self.batch_shape, *self.event_shape)
        whole = value.expand(torch.broadcast_shapes(value.shape, least))
        at = whole.dim() - len(least)
        return self._unflattened(self.flat.log_prob(whole.flatten(at, at + 1)), at)

    def entropy(self) -> Tensor:
        """Returns the entropies in nats, ``(samples, rows)``."""
        return self._unflattened(self.flat.entropy())

    def __repr__(self) -> str:
        family = type(self.flat).__name__
        return f"Rows({family}, {tuple(self.batch_shape)}, {tuple(self.event_shape)})"
