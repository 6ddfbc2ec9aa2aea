"""The kind ``attributes``: named binary attributes, each on or off."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from mmgen.errors import listed, nearest
from mmgen.hooks import hookimpl
from mmgen.modality import Modality
from mmgen.nets.blocks import Likelihood, mlp


class Attributes(Modality):
    """A attributes, stored as uint8 ``(A,)``: bernoulli sees 0 and 1, gaussian -1 and 1."""

    kind: ClassVar[str] = "attributes"
    api_version: ClassVar[int] = 1
    names: tuple[str, ...] = Field(min_length=1, description="different words without commas")
    likelihood: Literal["bernoulli", "gaussian"] = Field("bernoulli", description="p(x | z)")
    standard_deviation: PositiveFloat = Field(1.0, description="of gaussian, around tanh(net(z))")
    encoder_widths: tuple[PositiveInt, ...] = Field((512, 512), description="hidden layers")
    decoder_widths: tuple[PositiveInt, ...] = Field((512, 512), description="hidden layers")

    @field_validator("names")
    @classmethod
    def _differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        words = {name for name in names if name and name == name.strip() and "," not in name}
        if len(words - {"none"}) < len(names):
            raise ValueError("names must be different words, without commas, and none of them none")
        return names

    @property
    def shape(self) -> tuple[int, ...]:
        """``(A,)``."""
        return (len(self.names),)

    def encoder(self) -> nn.Module:
        """Builds an MLP ``(B, A) -> (B, features)``."""
        return mlp(len(self.names), self.encoder_widths)

    def decoder(self, in_features: int) -> nn.Module:
        """Builds an MLP ``(B, in_features)`` to independent attributes."""
        return Likelihood(mlp(in_features, self.decoder_widths, len(self.names)), self._family)

    def _family(self, out: Tensor) -> Distribution:
        each: Distribution = Bernoulli(logits=out, validate_args=False)
        if self.likelihood == "gaussian":
            deviation = torch.full_like(out, self.standard_deviation)
            each = Normal(out.tanh(), deviation, validate_args=False)
        return Independent(each, 1, validate_args=False)

    def parse(self, cell: str) -> Tensor:
        """Reads the names that are on, by commas; ``""`` and ``"none"`` turn all off."""
        on = {name.strip() for name in cell.split(",")} - {"", "none"}
        for word in sorted(on - set(self.names)):
            known = f"{nearest(word, self.names)}: {listed(self.names)}"
            raise ValueError(f"no attribute {word!r}{known}")
        return torch.tensor([name in on for name in self.names], dtype=torch.uint8)

    def observe(self, stored: Tensor, generator: Any = None) -> Tensor:  # noqa: ARG002
        """Turns ``(B, A)`` into 0 and 1, or -1 and 1 of ``gaussian``."""
        x = stored.to(torch.get_default_dtype())
        return 2 * x - 1 if self.likelihood == "gaussian" else x

    def describe(self, x: Tensor) -> list[str]:
        """Lists what is on: ``"bold, italic"``, or ``"bold 93 %"`` of probabilities from 50 %."""
        rows = ((x + 1) / 2 if self.likelihood == "gaussian" else x).clamp(0, 1).tolist()
        return [listed(self._words(row)) for row in rows]

    def _words(self, row: list[float]) -> list[str]:
        percent = "" if set(row) <= {0, 1} else " {:.0%}"
        return [name + percent.format(p) for name, p in zip(self.names, row, strict=True) if p >= 0.5]

    def choices(self) -> list[str]:
        """Lists each attribute alone."""
        return list(self.names)

    def example(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Spells the class's number in binary, each attribute flipped in one case of twenty."""
        bits = (classes.unsqueeze(1) >> torch.arange(len(self.names)) % 8) & 1
        flips = torch.rand(bits.shape, generator=generator) < 0.05
        return (bits ^ flips).to(torch.uint8)


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    """Provides the kind ``attributes``."""
    return [Attributes]
