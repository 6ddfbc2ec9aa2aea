"""q(z | x_S) of rows that many rows are like in x_S, such as those of a class.

What an encoder of S is trained to be is the mean of the posteriors of all rows with that x_S
(eq. 10). Where training has many of them, a mixture of Gaussians can be fitted to it afterwards, as
it is given nothing, where all rows are alike. What is fitted serves to draw z; likelihoods are
those of the encoder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmgen.latent.aggregate import Aggregate, FittedMixture
from mmgen.latent.base import Latent
from mmgen.latent.correlated import FullGaussian

MOST_VALUES = 256
"""Of one subset: each is compared with every row that is drawn for."""


class Alike(Latent):
    """What z of each row is drawn from: a mixture of its value's own, or the encoder's.

    Args:
        q: The encoder's, of batch shape ``(B,)``.
        fitted: The mixtures.
        which: The number of each row's value among theirs, ``(B,)``; −1 where it has none.
        temperature: τ of the mixtures.
    """

    def __init__(
        self, q: Latent, fitted: "FittedPosterior", which: Tensor, temperature: float = 1.0
    ) -> None:
        self.q, self.fitted, self.which, self.temperature = q, fitted, which, temperature
        self._rows = (which >= 0).nonzero().squeeze(1)
        super().__init__(q.batch_shape, q.event_shape, q.symbol)

    @property
    def mean(self) -> Tensor:
        """``(B, *event)``."""
        return self._replaced(self.q.mean, lambda p: p.mean)

    @property
    def variance(self) -> Tensor:
        """``(B, *event)``."""
        return self._replaced(self.q.variance, lambda p: p.variance)

    @property
    def stddev(self) -> Tensor:
        """``(B, *event)``."""
        return self.variance.sqrt()

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, B, *event)``."""
        z, at = self.q.rsample(sample_shape), len(sample_shape)
        # Noise of all rows, so that that of a row is the same whatever the others are.
        noise = torch.randn_like(z)
        place = torch.rand_like(z.flatten(at + 1)[..., 0])
        drawn = self.fitted.moved(
            self.which[self._rows],
            place.index_select(at, self._rows),
            noise.index_select(at, self._rows).flatten(at + 1),
            self.temperature,
        )
        own = drawn.reshape(*drawn.shape[:-1], *self.event_shape)
        return z.index_copy(at, self._rows, own.to(z.dtype))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log density of z ``(..., B, *event)``, in nats."""
        at = value.dim() - 1 - len(self.event_shape)
        out = self.q.log_prob(value)
        for number, p in self._own():
            rows = (self.which == number).nonzero().squeeze(1)
            out = out.index_copy(at, rows, p.log_prob(value.index_select(at, rows)).to(out.dtype))
        return out

    def tempered(self, temperature: float) -> Self:
        """Returns the same of distributions that are tempered."""
        both = temperature * self.temperature
        return type(self)(self.q.tempered(temperature), self.fitted, self.which, both)

    def _own(self) -> Iterator[tuple[int, Aggregate]]:
        """Yields the numbers of values that rows have, and their distributions."""
        for number in self.which[self._rows].unique().tolist():
            yield number, self.fitted.of_value(number).tempered(self.temperature)

    def _replaced(self, values: Tensor, of: Callable[[Aggregate], Tensor]) -> Tensor:
        """Returns values ``(B, *event)``, with those of rows that have a mixture put in."""
        for number, p in self._own():
            values = torch.where(
                _over(self.which == number, values), of(p).to(values.dtype), values
            )
        return values


def _over(mask: Tensor, values: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (values.dim() - 1))


class FittedPosterior(nn.Module):
    """Holds, of one subset S, values of x_S and what was fitted to the posteriors of their rows.

    Args:
        values: x_S, its modalities' numbers one after the other, ``(V, D)``; no two are the same.
        mixtures: One for each value.
    """

    VALUES = "values"

    DRAWN = 10_000
    """How many z are drawn at a time: a matrix is gathered for each."""

    def __init__(self, values: Tensor, mixtures: Sequence[FittedMixture]) -> None:
        super().__init__()
        self.mixtures = nn.ModuleList(mixtures)
        every = FittedMixture.of_parts([(1.0, mixture) for mixture in mixtures])().mixture
        components = every.components
        assert isinstance(components, FullGaussian)
        counts = torch.tensor([len(mixture.tensors()["means"]) for mixture in mixtures])
        # Of each value, where in [0, 1] one component ends and the next begins; 2 is beyond all.
        ends = values.new_full((len(counts), int(counts.max())), 2.0)
        for number, mixture in enumerate(mixtures):
            shares = mixture.tensors()["log_weights"].exp()
            ends[number, : len(shares) - 1] = shares.cumsum(0)[:-1]
        active = torch.cat([mixture.tensors()["active"] for mixture in mixtures]).unique()
        buffers = {
            self.VALUES: values,
            "active": active,
            "means": components.loc,
            "factors": components.factor,
            "ends": ends,
            "first": (counts.cumsum(0) - counts).to(values.device),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, x: Tensor, q: Latent) -> Latent:
        """Returns what z of rows ``(B, D)`` is drawn from; the encoder's ``q`` if none is alike."""
        which = torch.full((len(x),), -1, device=x.device)
        for number, value in enumerate(self.get_buffer(self.VALUES)):
            which.masked_fill_((x == value).all(1), number)
        return Alike(q, self, which) if bool((which >= 0).any()) else q

    def of_value(self, number: int) -> Aggregate:
        """Returns what was fitted to the rows of one value."""
        mixture: Aggregate = self.mixtures[number]()
        return mixture

    def moved(self, which: Tensor, place: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """Returns the z ``(..., n, Z)``, flattened, that noise leads to.

        Args:
            which: The number of each row's value, ``(n,)``.
            place: Uniform in [0, 1], by which a component is chosen, ``(..., n)``.
            noise: u ~ N(0, I), ``(..., n, Z)``.
            temperature: τ.
        """
        active, means, factors, ends, first = map(
            self.get_buffer, ("active", "means", "factors", "ends", "first")
        )
        chosen = first[which] + (place.unsqueeze(-1) > ends[which]).sum(-1)
        own = noise.index_select(-1, active).flatten(0, -2)
        drawn = [
            means[c] + temperature * (factors[c] @ u.unsqueeze(-1)).squeeze(-1)
            for c, u in zip(chosen.flatten().split(self.DRAWN), own.split(self.DRAWN), strict=True)
        ]
        values = torch.cat(drawn).reshape(*noise.shape[:-1], len(active))
        return (temperature * noise).index_copy(-1, active, values)

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
