"""Several layers of latents: independent of each other, or each given the one above or below.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equations 7–9.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from mmgen.latent.base import Latent
from mmgen.latent.gaussian import DiagonalGaussian

Down = Callable[[Tensor], DiagonalGaussian]
"""p(z_l | z_{l+1}) of z_{l+1} ``(..., Z)``."""

Up = Callable[[Tensor], DiagonalGaussian]
"""q(z_l | z_{l−1}) of z_{l−1} ``(..., Z)``."""


class Layers(Latent):
    """Π_l q(z_l), of event shape ``(L, Z)``: layers that are independent of each other.

    Args:
        layers: q(z_1) .. q(z_L), of one batch shape.
        symbol: See :class:`Latent`.
    """

    def __init__(self, layers: Sequence[DiagonalGaussian], symbol: str) -> None:
        self.layers = tuple(layers)
        first = self.layers[0]
        super().__init__(first.batch_shape, (len(self.layers), *first.event_shape), symbol)

    @property
    def mean(self) -> Tensor:
        """``(..., L, Z)``."""
        return torch.stack([q.mean for q in self.layers], dim=-2)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, ..., L, Z)``, z_1 first."""
        return torch.stack([q.rsample(sample_shape) for q in self.layers], dim=-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns Σ_l log q(z_l), ``(...)``."""
        each = zip(self.layers, value.unbind(-2), strict=True)
        return torch.stack([q.log_prob(z) for q, z in each]).sum(0)

    def given(self, z: Tensor) -> list[Latent]:  # noqa: ARG002
        """Returns q(z_1) .. q(z_L), whatever z is."""
        return [*self.layers]

    @property
    def highest(self) -> Latent:
        """q(z_L)."""
        return self.layers[-1]

    def tempered(self, temperature: float) -> Self:
        """Returns the layers, each tempered."""
        return type(self)([q.tempered(temperature) for q in self.layers], self.symbol)


class Chain(Latent):
    """p(z_L) Π_l p(z_l | z_{l+1}), of event shape ``(L, Z)``: drawn from the top downwards.

    Args:
        top: p(z_L).
        downwards: p(z_l | z_{l+1}) for l = 1 .. L − 1.
        symbol: See :class:`Latent`.
        temperature: τ of every layer.
    """

    def __init__(
        self,
        top: Latent,
        downwards: Sequence[Down],
        symbol: str,
        temperature: float = 1.0,
    ) -> None:
        self.top, self.downwards, self.temperature = top, tuple(downwards), temperature
        super().__init__(top.batch_shape, (1 + len(self.downwards), *top.event_shape), symbol)

    @property
    def mean(self) -> Tensor:
        """Every layer at its mean given that of the layer above: the centre, ``(..., L, Z)``."""
        return self._descend(self.top.mean, lambda p: p.mean)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, ..., L, Z)``, z_L first."""
        top = self.top.tempered(self.temperature) if self.temperature != 1 else self.top
        return self._descend(top.rsample(sample_shape), self._drawn)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z_L) + Σ_l log p(z_l | z_{l+1}), ``(...)``."""
        each = zip(self.given(value), value.unbind(-2), strict=True)
        return torch.stack([p.log_prob(z) for p, z in each]).sum(0)

    def given(self, z: Tensor) -> list[Latent]:
        """Returns p(z_1 | z_2) .. p(z_{L−1} | z_L), p(z_L) for z ``(..., L, Z)``."""
        above = z.unbind(-2)[1:]
        layers: list[Latent] = [p(z) for p, z in zip(self.downwards, above, strict=True)]
        tempered = self.temperature != 1
        return [p.tempered(self.temperature) if tempered else p for p in [*layers, self.top]]

    def tempered(self, temperature: float) -> Self:
        """Returns the chain, every layer tempered."""
        both = temperature * self.temperature
        return type(self)(self.top, self.downwards, self.symbol, both)

    def _drawn(self, p: DiagonalGaussian) -> Tensor:
        return (p.tempered(self.temperature) if self.temperature != 1 else p).rsample()

    def _descend(self, z: Tensor, choose: Callable[[DiagonalGaussian], Tensor]) -> Tensor:
        layers = [z]
        for down in reversed(self.downwards):
            layers.insert(0, choose(down(layers[0])))
        return torch.stack(layers, dim=-2)


class Ascent(Latent):
    """q(z_1) Π_l q(z_l | z_{l−1}), of event shape ``(L, Z)``: drawn from the lowest upwards.

    Args:
        lowest: q(z_1).
        upwards: q(z_l | z_{l−1}) for l = 2 .. L.
        symbol: See :class:`Latent`.
        temperature: τ of every layer.
    """

    def __init__(
        self,
        lowest: DiagonalGaussian,
        upwards: Sequence[Up],
        symbol: str,
        temperature: float = 1.0,
    ) -> None:
        self.lowest, self.upwards, self.temperature = lowest, tuple(upwards), temperature
        self._turned = Chain(lowest, self.upwards[::-1], symbol, temperature)  # z_L first
        super().__init__(self._turned.batch_shape, self._turned.event_shape, symbol)

    @property
    def mean(self) -> Tensor:
        """Every layer at its mean given that of the layer below: the centre, ``(..., L, Z)``."""
        return self._turned.mean.flip(-2)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z ``(*sample_shape, ..., L, Z)``, z_1 first."""
        return self._turned.rsample(sample_shape).flip(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log q(z_1) + Σ_l log q(z_l | z_{l−1}), ``(...)``."""
        return self._turned.log_prob(value.flip(-2))

    def given(self, z: Tensor) -> list[Latent]:
        """Returns q(z_1), q(z_2 | z_1) .. q(z_L | z_{L−1}) for z ``(..., L, Z)``."""
        return self._turned.given(z.flip(-2))[::-1]

    @property
    def highest(self) -> Latent:
        """q(z_L), the layers below drawn anew for each z_L."""
        return Highest(self) if self.upwards else self.lowest

    def tempered(self, temperature: float) -> Self:
        """Returns the same, every layer tempered."""
        both = temperature * self.temperature
        return type(self)(self.lowest, self.upwards, self.symbol, both)


class Highest(Latent):
    """z_L of an :class:`Ascent`, of event shape ``(Z,)``: can be drawn from, but has no density."""

    def __init__(self, ascent: Ascent) -> None:
        self.ascent = ascent
        super().__init__(ascent.batch_shape, ascent.event_shape[-1:], ascent.symbol)

    @property
    def mean(self) -> Tensor:
        """The centre, ``(..., Z)``."""
        return self.ascent.mean[..., -1, :]

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws z_L ``(*sample_shape, ..., Z)``."""
        return self.ascent.rsample(sample_shape)[..., -1, :]

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises NotImplementedError: the layers below would have to be integrated out."""
        raise NotImplementedError("z_L of layers that are drawn one by one has no closed density")

    def tempered(self, temperature: float) -> Self:
        """Returns the same, every layer tempered."""
        return type(self)(self.ascent.tempered(temperature))
