"""Distributions of z, each of some rows, as one of all of them."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from mmgen.latent.base import Latent, sample
from mmgen.rows.noise import shared_noise

DRAWS = 256
"""Of z, from which the deviation is estimated of a distribution that has none in closed form."""

Part = tuple[Tensor, Latent]
"""Numbers of rows ``(n,)``, and their distribution, of batch shape ``(n,)``; ``()`` stands for the
same one for each of them."""


class Gathered(Latent):
    """q(z | x_S) of rows whose S differ, of batch shape ``(rows,)``, in the order of the rows.

    Args:
        parts: Which rows each distribution is of; together each row once.
        event_shape: Of z.
        device: Where results are.
        dtype: Of z.

    Attributes:
        parts: As above.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        event_shape: Sequence[int],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.parts, self._device, self._dtype = tuple(parts), device, dtype
        rows = sum(len(numbers) for numbers, _ in parts)
        super().__init__((rows,), event_shape, "q(z | what each row has)")

    @property
    def mean(self) -> Tensor:
        """``(rows, *event)``; of flows and chains the centre."""
        return self._rows(lambda q, n: _for_each(q.mean, q, n))

    @property
    def stddev(self) -> Tensor:
        """The standard deviation of each number of z, ``(rows, *event)``.

        By :data:`DRAWS` draws, the same noise for every row, where it has no closed form.
        """
        return self._rows(lambda q, n: _for_each(deviation(q), q, n))

    @property
    def variance(self) -> Tensor:
        """``(rows, *event)``."""
        return self.stddev**2

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, rows, *event)``."""
        shape = tuple(sample_shape)

        def draw(q: Latent, rows: int) -> Tensor:
            return q.rsample(torch.Size(shape if q.batch_shape else (*shape, rows)))

        return self._rows(draw, shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log q(z | x_S) of z ``(..., rows, *event)``, in nats."""
        at = value.dim() - len(self.event_shape) - 1
        lead = tuple(value.shape[:at])
        out = value.new_empty(*lead, *self.batch_shape)
        for numbers, q in self.parts:
            out[..., numbers] = q.log_prob(value.index_select(at, numbers))
        return out

    def tempered(self, temperature: float) -> Self:
        """Returns the same of distributions that are tempered."""
        parts = [(numbers, q.tempered(temperature)) for numbers, q in self.parts]
        return type(self)(parts, self.event_shape, device=self._device, dtype=self._dtype)

    def _rows(self, of: Callable[[Latent, int], Tensor], lead: tuple[int, ...] = ()) -> Tensor:
        shape = (*lead, *self.batch_shape, *self.event_shape)
        out = torch.empty(shape, dtype=self._dtype, device=self._device)
        at = len(lead)
        for numbers, q in self.parts:
            out.index_copy_(at, numbers, of(q, len(numbers)).to(out))
        return out


class Drawn(Latent):
    """What is known by draws alone, as those of iterative sampling: it has no density.

    Args:
        z: Draws ``(samples, rows, *event)``, all as likely.
        symbol: See :class:`Latent`.
    """

    def __init__(self, z: Tensor, symbol: str) -> None:
        self.z = z
        super().__init__(z.shape[1:2], z.shape[2:], symbol)

    @property
    def mean(self) -> Tensor:
        """Of the draws, ``(rows, *event)``."""
        return self.z.mean(0)

    @property
    def stddev(self) -> Tensor:
        """Of the draws, ``(rows, *event)``."""
        return self.z.std(0)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Takes some of the draws, each row its own: ``(*sample_shape, rows, *event)``."""
        shape = (*sample_shape, *self.batch_shape)
        chosen = torch.randint(len(self.z), shape, device=self.z.device)
        rows = torch.arange(self.z.shape[1], device=self.z.device).expand(shape)
        return self.z[chosen, rows]

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises NotImplementedError: there is no density."""
        raise NotImplementedError(f"{self.symbol} is known by draws alone, and has no density")

    def tempered(self, temperature: float) -> Self:
        """Returns draws drawn towards their mean."""
        return type(self)(self.mean + temperature * (self.z - self.mean), self.symbol)


def deviation(q: Latent) -> Tensor:
    """Returns the standard deviation of each number of z, ``(*batch, *event)``; maybe by draws."""
    try:
        return q.stddev
    except NotImplementedError:
        device = q.mean.device
        with shared_noise(device, max(1, q.batch_shape.numel()), DRAWS, 0):
            return sample(q, samples=(DRAWS,)).std(0)


def _for_each(values: Tensor, q: Latent, rows: int) -> Tensor:
    return values if q.batch_shape else values.expand(rows, *values.shape)
