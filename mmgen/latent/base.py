"""What a distribution of z can do beside what any torch distribution can."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


class Latent(Distribution):
    """A distribution of z: it can be tempered, and knows its symbol.

    Drawn with the reparameterisation trick. Its event shape is ``(Z,)``, or ``(L, Z)`` where there
    are L layers of latents, of which decoders read the first. Values are never validated: that
    would read them, a synchronisation of the device in every step.

    Attributes:
        symbol: How the distribution is written: ``"q(z | label)"``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True
    symbol: str

    def __init__(self, batch_shape: Sequence[int], event_shape: Sequence[int], symbol: str) -> None:
        self.symbol = symbol
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The mean, or the centre of a distribution whose mean has no closed form."""

    @abstractmethod
    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, *batch, *event)``."""

    @abstractmethod
    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log density of z ``(..., *event)``, in nats."""

    @abstractmethod
    def tempered(self, temperature: float) -> Self:
        """Returns the same with its noise u ~ N(0, I) multiplied by τ > 0."""

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z as :meth:`rsample` does, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def __repr__(self) -> str:
        batch, event = tuple(self.batch_shape), tuple(self.event_shape)
        return f"{type(self).__name__}({self.symbol}, batch {batch}, event {event})"


def sample(q: Latent, temperature: float = 1.0, samples: Sequence[int] = ()) -> Tensor:
    """Draws z ``(*samples, *batch, *event)``, its noise u ~ N(0, I) multiplied by a temperature.

    Below 1, z come nearer to the mean (of a flow: to its centre), which 0 gives itself: they differ
    less from each other, and more of them look like what was given.

    Args:
        q: What to draw from.
        temperature: τ ≥ 0.
        samples: How many per row.

    References:
        D. P. Kingma, P. Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions",
        NeurIPS 2018, section 6.
    """
    if temperature == 0:
        mean = q.mean  # once: that of a flow or a chain takes its nets
        return mean.expand(*samples, *mean.shape)
    return (q if temperature == 1 else q.tempered(temperature)).rsample(torch.Size(samples))


def symbol(letter: str, names: Iterable[str] = ()) -> str:
    """Writes a distribution of z: ``"q(z | label, image)"``, or ``"p(z)"`` given nothing.

    Examples:
        >>> symbol("q", ["label", "image"]), symbol("p")
        ('q(z | label, image)', 'p(z)')
    """
    given = ", ".join(names)
    return f"{letter}(z | {given})" if given else f"{letter}(z)"
