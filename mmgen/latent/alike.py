"""q(z | x_S) of rows that many rows are like in x_S, such as those of a class.

What an encoder of S is trained to be is the mean of the posteriors of all rows with that x_S
(eq. 10). Where training has many of them, a mixture of Gaussians can be fitted to it afterwards, as
it is given nothing, where all rows are alike. What is fitted serves to draw z; likelihoods are
those of the encoder.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmgen.latent.aggregate import Aggregate, FittedMixture
from mmgen.latent.base import Latent

MOST_VALUES = 256
"""Of one subset in a file, and of all together where they are fitted: each is compared with every
row that is drawn for."""


class Alike(Latent):
    """What z of each row is drawn from: a mixture of its value's own, or the encoder's.

    Args:
        q: The encoder's, of batch shape ``(B,)``.
        own: Of batch shape ``()``, by value.
        which: The number of each row's value, ``(B,)``; −1 where it has none.
    """

    def __init__(self, q: Latent, own: Sequence[Aggregate], which: Tensor) -> None:
        self.q, self.own, self.which = q, own, which
        # One wait for the device, whatever is drawn then.
        numbers = [number for number in which.unique().tolist() if number >= 0]
        self._rows = [(own[n], (which == n).nonzero().squeeze(1)) for n in numbers]
        super().__init__(q.batch_shape, q.event_shape, q.symbol)

    @property
    def mean(self) -> Tensor:
        """``(B, *event)``."""
        return self._replaced(self.q.mean, lambda p, rows: p.mean.expand(len(rows), *p.event_shape))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, B, *event)``."""
        z, at = self.q.rsample(sample_shape), len(sample_shape)
        # Noise of all rows, so that that of a row is the same whatever the others are.
        noise = torch.randn_like(z)
        place = torch.rand_like(z.flatten(at + 1)[..., 0])

        def moved(p: Aggregate, rows: Tensor) -> Tensor:
            return p.of_noise(place.index_select(at, rows), noise.index_select(at, rows))

        return self._replaced(z, moved, at)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log density of z ``(..., B, *event)``, in nats."""
        at = value.dim() - 1 - len(self.event_shape)
        out = self.q.log_prob(value)
        return self._replaced(out, lambda p, rows: p.log_prob(value.index_select(at, rows)), at)

    def tempered(self, temperature: float) -> Self:
        """Returns the same of distributions that are tempered."""
        own = [p.tempered(temperature) for p in self.own]
        return type(self)(self.q.tempered(temperature), own, self.which)

    def _replaced(
        self, values: Tensor, of: Callable[[Aggregate, Tensor], Tensor], at: int = 0
    ) -> Tensor:
        """Returns values of the encoder's, with those of rows that have their own put in."""
        for p, rows in self._rows:
            values = values.index_copy(at, rows, of(p, rows).to(values.dtype))
        return values


class FittedPosterior(nn.Module):
    """Holds, of one subset S, values of x_S and what was fitted to the posteriors of their rows.

    Args:
        values: x_S, its modalities' numbers one after the other, ``(V, D)``; no two are the same.
        mixtures: One for each value.
    """

    VALUES = "values"

    def __init__(self, values: Tensor, mixtures: Sequence[FittedMixture]) -> None:
        super().__init__()
        self.register_buffer(self.VALUES, values, persistent=False)
        self.mixtures = nn.ModuleList(mixtures)

    def forward(self, x: Tensor, q: Latent) -> Latent:
        """Returns what z of rows ``(B, D)`` is drawn from; the encoder's ``q`` if none is alike."""
        which = torch.full((len(x),), -1, device=x.device)
        for number, value in enumerate(self.get_buffer(self.VALUES)):
            which.masked_fill_((x == value).all(1), number)
        if not bool((which >= 0).any()):
            return q
        return Alike(q, [mixture() for mixture in self.mixtures], which)

    def tensors(self) -> dict[str, Tensor]:
        """Returns what it is made of, by name: ``"values"``, ``"0/means"``."""
        tensors = {self.VALUES: self.get_buffer(self.VALUES)}
        for number, mixture in enumerate(self.mixtures):
            assert isinstance(mixture, FittedMixture)
            tensors |= {f"{number}/{n}": t for n, t in mixture.tensors().items()}
        return tensors

    @classmethod
    def stored(cls, event_shape: Sequence[int], width: int, tensors: Mapping[str, Tensor]) -> Self:
        """Makes it of tensors that anyone may have written.

        Args:
            event_shape: Of z.
            width: D.
            tensors: By name.

        Raises:
            ValueError: If they are no such distributions of z.
        """
        values = tensors.get(cls.VALUES)
        if values is None or values.dim() != 2 or values.shape[1] != width:
            raise ValueError(f"{cls.VALUES!r} are not {width} numbers each")
        count = len(values)
        if not 0 < count <= MOST_VALUES or not values.is_floating_point():
            raise ValueError(f"{cls.VALUES!r} has the shape {tuple(values.shape)}, {values.dtype}")
        names = {f"{v}/{n}" for v in range(count) for n in FittedMixture.TENSORS}
        if names | {cls.VALUES} != {*tensors}:
            raise ValueError(f"there are not {count} mixtures of {count} values")
        if not values.isfinite().all():
            raise ValueError(f"{cls.VALUES!r} is not finite")
        each = [{n: tensors[f"{v}/{n}"] for n in FittedMixture.TENSORS} for v in range(count)]
        return cls(values, [FittedMixture.stored(event_shape, parts) for parts in each])
