"""Toy modalities that models are checked with: numbers and words, small and quick."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from mmgen.batch import Batch
from mmgen.modality import Modality
from mmgen.nets.blocks import Likelihood, gaussian, mlp, one_hot


class Numbers(Modality):
    """A vector of numbers around what a net puts out; a linear one if it has no widths."""

    kind: ClassVar[str] = "toy-numbers"
    api_version: ClassVar[int] = 1
    size: PositiveInt = 2
    widths: tuple[PositiveInt, ...] = (6,)
    noise: PositiveFloat = 0.7

    @property
    def shape(self) -> tuple[int, ...]:
        """``(size,)``."""
        return (self.size,)

    def encoder(self) -> nn.Module:
        """Builds ``(B, size) -> (B, features)``, the values themselves without widths."""
        return mlp(self.size, self.widths)

    def decoder(self, in_features: int) -> nn.Module:
        """Builds p(x | z), a Gaussian."""
        net = mlp(in_features, self.widths, self.size)
        return Likelihood(net, lambda mean: gaussian(mean, self.noise))


class Word(Modality):
    """One of three words, stored as its number."""

    kind: ClassVar[str] = "toy-word"
    api_version: ClassVar[int] = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """``(3,)``."""
        return (3,)

    def encoder(self) -> nn.Module:
        """Builds ``(B, 3) -> (B, features)``."""
        return mlp(3, [5])

    def decoder(self, in_features: int) -> nn.Module:
        """Builds p(x | z), a categorical distribution."""
        return Likelihood(mlp(in_features, [5], 3), one_hot)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Observes numbers of words as one-hot rows."""
        return F.one_hot(stored.long(), 3).to(torch.get_default_dtype())

    def example(self, classes: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Makes the word of each class."""
        return classes % 3


def mixed(modalities: int) -> dict[str, Modality]:
    """Returns 2 or 3 modalities, all of different shapes, two of them of one kind if they are 3."""
    every = {"word": Word(), "point": Numbers(), "triple": Numbers(size=3)}
    return dict(list(every.items())[:modalities])


def linear() -> dict[str, Modality]:
    """Returns modalities whose encoders hand on x, and whose decoders are linear in z."""
    return {"pair": Numbers(size=2, widths=()), "one": Numbers(size=1, widths=())}


def observed(modalities: Mapping[str, Modality], rows: int) -> Batch:
    """Makes observations ``(rows, *shape)``, each row of another class, the same each time."""
    generator = torch.Generator().manual_seed(0)
    made = {n: m.example(torch.arange(rows), generator) for n, m in modalities.items()}
    return Batch({n: m.observe(made[n], generator) for n, m in modalities.items()})


def factored(modalities: Mapping[str, Modality], rows: int) -> Batch:
    """Makes rows of numbers that share one factor, N(0, 1), with the toys' noise."""
    factor = torch.randn(rows, 1)
    return Batch({n: factor + 0.7 * torch.randn(rows, *m.shape) for n, m in modalities.items()})
