"""The kind ``counts``: whole numbers from 0 on, such as molecules, visits or words.

scVI's decoder takes the total of the very row that it is to explain (the library size), and shares
it out by a softmax. Here a decoder has z alone, or it could not generate: so z carries the total,
as all else, and the net gives the logarithms of rates, as a regression of counts does (Townes et
al. 2019). Encoders see log(1 + x), as scVI's do, totals and all.

References:
    R. Lopez et al., "Deep generative modeling for single-cell transcriptomics", Nature Methods 15,
    2018: scVI, https://doi.org/10.1038/s41592-018-0229-2
    F. W. Townes et al., "Feature selection and dimension reduction for single-cell RNA-seq based on
    a multinomial model", Genome Biology 20, 2019, https://doi.org/10.1186/s13059-019-1861-6
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, FiniteFloat, model_validator
from torch import Tensor, nn

from mmgen.data.cells import as_name, number
from mmgen.errors import listed
from mmgen.hooks import hookimpl
from mmgen.modality import Modality, Widths, Words
from mmgen.nets.blocks import Log1p, mlp
from mmgen_counts.likelihood import Decoder

LARGEST = 2**24
"""The largest count: float32 holds all whole numbers up to it."""

STORED = {2**8 - 1: torch.uint8, 2**15 - 1: torch.int16, LARGEST: torch.int32}
"""How counts up to so many are stored."""

TOLD = 8
"""The counts that are told of a row that has more of them: the largest."""


class Counts(Modality):
    """C counts, stored as whole numbers ``(C,)``, observed as they are."""

    kind: ClassVar[str] = "counts"
    api_version: ClassVar[int] = 1
    multi_column: ClassVar[bool] = True
    stored_with: ClassVar[tuple[str, ...]] = ("names", "largest")
    names: Words = Field(min_length=1, examples=[("visits", "purchases")], description="columns")
    largest: int = Field(
        2**15 - 1, ge=1, le=LARGEST, description="the largest count: up to 255 takes one byte each"
    )
    likelihood: Literal["negative-binomial", "zero-inflated", "poisson"] = Field(
        "negative-binomial",
        description="p(count | z): of a dispersion that is learned for each column, with more "
        "zeros than that, or with the least, whose variance is the mean",
    )
    mean: tuple[FiniteFloat, ...] = Field((), description="measured if left out")
    encoder_widths: Widths = Field((512, 512), description="hidden layers")
    decoder_widths: Widths = Field((512, 512), description="hidden layers")

    @model_validator(mode="after")
    def _one_per_column(self) -> Self:
        if len(self.mean) in (0, len(self.names)) and all(mean > 0 for mean in self.mean):
            return self
        raise ValueError("mean needs a positive number for each of names, or none")

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C,)``."""
        return (len(self.names),)

    def encoder(self) -> nn.Module:
        """Builds an MLP of log(1 + x), ``(B, C) -> (B, features)``."""
        return nn.Sequential(Log1p(), *mlp(len(self.names), self.encoder_widths))

    def decoder(self, in_features: int) -> nn.Module:
        """Builds an MLP ``(B, in_features)`` to rates around the means."""
        inflated = self.likelihood == "zero-inflated"
        net = mlp(in_features, self.decoder_widths, (1 + inflated) * len(self.names))
        mean = torch.tensor(self.mean or [1.0] * len(self.names))
        return Decoder(net, mean, dispersed=self.likelihood != "poisson", inflated=inflated)

    def parse(self, cell: str) -> Tensor:
        """Reads C whole numbers from 0 on, joined by commas."""
        words = [word.strip() for word in cell.split(",")]
        if len(words) != len(self.names):
            raise ValueError(
                f"{cell!r} has {len(words)} of the {len(self.names)} counts that are needed: "
                f"{listed(self.names)}, joined by commas"
            )
        return self.stored([self._count(*each) for each in zip(words, self.names, strict=True)])

    def accept(self, value: Any) -> Tensor:
        """Takes also a dictionary, ``{"visits": 3}``: what it does not name is 0."""
        if isinstance(value, Mapping):
            if unknown := {*value} - {*self.names}:
                raise ValueError(f"no count {listed(map(repr, unknown))}: {listed(self.names)}")
            value = [value.get(name, 0) for name in self.names]
        if not isinstance(value, Tensor):
            return super().accept(value)
        return self.parse(",".join(map(str, super().accept(value).tolist())))

    def _count(self, word: str, name: str) -> int:
        value = number(word)
        if value is None or not value.is_integer() or not 0 <= value <= self.largest:
            raise ValueError(
                f"{word!r} is no whole number from 0 to {self.largest:,}, so it cannot count the "
                f"{name}" + f"; set largest, up to {LARGEST:,}" * ((value or 0) > self.largest)
            )
        return int(value)

    def stored(self, counts: Any) -> Tensor:
        """Returns counts ``(..., C)`` in as few bytes as the largest takes."""
        dtype = next(dtype for most, dtype in STORED.items() if self.largest <= most)
        return torch.as_tensor(counts).to(dtype)

    def fit(self, stored: Tensor) -> Self:
        """Returns a copy with the mean of each column of ``(N, C)``, if not set.

        One that only counts 0 has half a count in all, as if it had been about to come.
        """
        total = stored.sum(0, dtype=torch.float64).clamp(min=0.5)
        mean = tuple((total / max(1, len(stored))).tolist())
        return self.model_copy(update={"mean": self.mean or mean})

    def describe(self, x: Tensor) -> list[str]:
        """Tells the counts, ``"visits 3, purchases 0"``; of many, the total and the largest."""
        return [self._told(row) for row in x.double().cpu()]

    def _told(self, row: Tensor) -> str:
        if len(self.names) <= TOLD:
            return ", ".join(f"{n} {_short(v)}" for n, v in zip(self.names, row, strict=True))
        values, places = row.topk(TOLD)
        most = [f"{self.names[i]} {_short(v)}" for v, i in zip(values, places, strict=True)]
        return f"{_short(row.sum())} in all: {', '.join(most)}, …"

    def example(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Makes counts ``(B, C)`` around rates that depend on the class."""
        rate = super().example(classes, generator).exp()
        return self.stored(torch.poisson(rate, generator=generator).clamp(max=self.largest))

    @classmethod
    def match_score(cls, cells: Sequence[str]) -> float:
        """Scores whole numbers from 0 on that are often 0 and vary more than Poisson's."""
        values = [value for cell in cells if (value := number(cell)) is not None]
        if len(values) < len(cells) or len({*values}) <= 20 or not values:
            return 0.0
        x = torch.tensor(values, dtype=torch.float64)
        whole = bool((x == x.round()).all()) and bool((x >= 0).all()) and x.max() <= LARGEST
        return 0.85 if whole and (x == 0).double().mean() >= 0.1 and x.var() > x.mean() else 0.0

    @classmethod
    def infer_settings(cls, columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Names the columns by their headings; measures the largest count, for how it is stored."""
        cells = (cell for several in columns.values() for cell in several)
        read = (number(word) for cell in cells for word in cell.split(","))
        most = max((value for value in read if value is not None), default=0)
        fits = [each for each in STORED if most <= each] or [LARGEST]
        return {"names": [as_name(heading) for heading in columns], "largest": fits[0]}


def _short(value: Tensor) -> str:
    return f"{value:.0f}" if value == value.round() else f"{value:.3g}"


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    """Provides the kind ``counts``."""
    return [Counts]
