"""The kind ``vector``: continuous measurements, whose variance given z is learned."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, FiniteFloat, model_validator
from torch import Tensor, nn

from mmgen.data.cells import as_name
from mmgen.hooks import hookimpl
from mmgen.modality import Modality, Widths, Words
from mmgen.nets.blocks import Likelihood, gaussian_with_variance, mlp
from mmgen.prediction import Told
from mmgen_vector import units


class Vector(Modality):
    """C measurements, stored as float32 ``(C,)`` in units of their own, observed standardised."""

    kind: ClassVar[str] = "vector"
    api_version: ClassVar[int] = 1
    multi_column: ClassVar[bool] = True
    stored_with: ClassVar[tuple[str, ...]] = ("names",)
    names: Words = Field(min_length=1, examples=[("height", "weight")], description="columns")
    mean: tuple[FiniteFloat, ...] = Field((), description="measured if left out")
    standard_deviation: tuple[units.Deviation, ...] = Field((), description="measured if left out")
    encoder_widths: Widths = Field((512, 512), description="hidden layers")
    decoder_widths: Widths = Field((512, 512), description="hidden layers")

    @model_validator(mode="after")
    def _one_per_column(self) -> Self:
        if {len(self.mean), len(self.standard_deviation)} <= {0, len(self.names)}:
            return self
        raise ValueError("mean and standard_deviation need one number for each of names, or none")

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C,)``."""
        return (len(self.names),)

    def encoder(self) -> nn.Module:
        """Builds an MLP ``(B, C) -> (B, features)``."""
        return mlp(len(self.names), self.encoder_widths)

    def decoder(self, in_features: int) -> nn.Module:
        """Builds an MLP ``(B, in_features)`` to a mean and a variance for each column."""
        net = mlp(in_features, self.decoder_widths, 2 * len(self.names))
        return Likelihood(net, gaussian_with_variance)

    def parse(self, cell: str) -> Tensor:
        """Reads C numbers joined by commas, in their own units."""
        return units.read_numbers(cell, self.names)

    def accept(self, value: Any) -> Tensor:
        """Takes also a dictionary, ``{"height": 1.72, "weight": 64}``."""
        return super().accept(units.unnamed(value, self.names))

    def fit(self, stored: Tensor) -> Self:
        """Returns a copy with the mean and deviation of each column of ``(N, C)``, if not set."""
        mean, deviation = units.measure(stored, self.mean, self.standard_deviation)
        return self.model_copy(update={"mean": mean, "standard_deviation": deviation})

    def observe(self, stored: Tensor, generator: Any = None) -> Tensor:  # noqa: ARG002
        """Standardises ``(B, C)``."""
        return units.standardise(stored, self.mean, self.standard_deviation)

    def describe(self, x: Tensor) -> list[str]:
        """Describes each value in its own unit: ``"height 1.72, weight 64"``."""
        return units.describe(x, self.names, self.mean, self.standard_deviation)

    def column_names(self) -> tuple[str, ...]:
        """Returns the names."""
        return self.names

    def tell(self, mean: Tensor, deviation: Tensor) -> dict[str, Told]:
        """Says the mean of each measurement and the deviation around it, in its own unit."""
        values = units.in_own_units(mean, self.mean, self.standard_deviation).T.tolist()
        around = units.in_own_units(deviation, (), self.standard_deviation).T.tolist()
        each = zip(self.names, values, around, strict=True)
        return {name: Told(own, deviation=sd) for name, own, sd in each}

    @classmethod
    def match_score(cls, cells: Sequence[str]) -> float:
        """Scores numbers high, and few different whole ones low."""
        return units.column_score(cells)

    @classmethod
    def infer_settings(cls, columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Names the columns by their headings."""
        return {"names": [as_name(heading) for heading in columns]}


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    """Provides the kind ``vector``."""
    return [Vector]
