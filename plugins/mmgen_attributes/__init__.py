"""The kind ``attributes``: named attributes that are on or off, independent given z."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from mmgen.errors import listed
from mmgen.hooks import hookimpl
from mmgen.modality import Modality, Widths, Words
from mmgen.nets.blocks import Likelihood, bernoulli, gaussian, mlp
from mmgen.prediction import Told
from mmgen_attributes.columns import (
    column_score,
    infer_names,
    join_known,
    join_on,
    named,
    states,
)
from mmgen_attributes.unknown import UNKNOWN, PartlyKnown


class Attributes(Modality):
    """``names`` on or off, stored as uint8 ``(A,)``; observed as 0 and 1, or ±1 if gaussian.

    Of a row, some may be unknown: stored as 2, observed half-way between off and on, and no part of
    its likelihood.
    """

    kind: ClassVar[str] = "attributes"
    api_version: ClassVar[int] = 1
    multi_column: ClassVar[bool] = True
    stored_with: ClassVar[tuple[str, ...]] = ("names",)
    names: Words = Field(min_length=1, examples=[("bold", "italic")], description="words")
    likelihood: Literal["bernoulli", "gaussian"] = Field("bernoulli", description="p(x | z)")
    standard_deviation: PositiveFloat = Field(1.0, description="gaussian: around tanh(net(z))")
    encoder_widths: Widths = Field((512, 512), description="hidden layers")
    decoder_widths: Widths = Field((512, 512), description="hidden layers")
    batch_norm: bool = Field(
        False, description="batch normalisation before every ReLU but each net's first"
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """``(A,)``."""
        return (len(self.names),)

    def encoder(self) -> nn.Module:
        """Builds an MLP ``(B, A) -> (B, features)``."""
        return mlp(len(self.names), self.encoder_widths, batch_norm=self.batch_norm)

    def decoder(self, in_features: int) -> nn.Module:
        """Builds an MLP ``(B, in_features)`` to a distribution of attributes ``(A,)``."""
        net = mlp(in_features, self.decoder_widths, len(self.names), batch_norm=self.batch_norm)
        return Likelihood(net, self._each)

    def _each(self, out: Tensor) -> Distribution:
        gaussians = self.likelihood == "gaussian"
        p = gaussian(out.tanh(), self.standard_deviation) if gaussians else bernoulli(out)
        assert isinstance(p, Independent)
        return PartlyKnown(p.base_dist, self._between)

    @property
    def _between(self) -> float:
        """What an unknown attribute is observed as."""
        return 0.0 if self.likelihood == "gaussian" else 0.5

    def parse(self, cell: str) -> Tensor:
        """Reads the names that are on, joined by commas; ``""`` or ``"none"`` turns all off.

        ``?`` before a name says that it is unknown whether it is on.
        """
        return _stored(named(cell, self.names))

    def accept(self, value: Any) -> Tensor:
        """Takes also a dictionary ``{"bold": True}``, a list of what is on, or 0/1 for each name.

        What a dictionary does not name is off; what is ``None`` there is unknown.
        """
        on = states(value, self.names)
        return super().accept(value) if on is None else _stored(on)

    def observe(self, stored: Tensor, generator: Any = None) -> Tensor:  # noqa: ARG002
        """Turns ``(B, A)`` into 0 and 1, or -1 and 1 if gaussian; what is unknown is between."""
        x = stored.to(torch.get_default_dtype())
        x = torch.where(stored == UNKNOWN, 0.5, x)
        return 2 * x - 1 if self.likelihood == "gaussian" else x

    def known(self, x: Tensor) -> Tensor:
        """Tells which attributes of observations ``(n, A)`` are known."""
        return x != self._between

    def describe(self, x: Tensor) -> list[str]:
        """Lists what is on: ``"bold, italic"``, or ``"bold 93 %"`` of probabilities from 50 %.

        What is unknown is at 50 %.
        """
        return [listed(self._words(row)) for row in self._probability(x).tolist()]

    def _probability(self, mean: Tensor) -> Tensor:
        """Returns how probable it is that each is on."""
        return ((mean + 1) / 2 if self.likelihood == "gaussian" else mean).clamp(0, 1)

    def column_names(self) -> tuple[str, ...]:
        """Returns the names."""
        return self.names

    def tell(self, mean: Tensor, deviation: Tensor) -> dict[str, Told]:  # noqa: ARG002
        """Says of each attribute whether it is on, and how probable that is."""
        p = self._probability(mean)
        on, sure = (p >= 0.5).T.tolist(), p.maximum(1 - p).T.tolist()
        each = zip(self.names, on, sure, strict=True)
        return {name: Told(states, confidence=c) for name, states, c in each}

    def _words(self, row: list[float]) -> list[str]:
        likely = [(name, p) for name, p in zip(self.names, row, strict=True) if p >= 0.5]
        return [name if set(row) <= {0, 1} else f"{name} {100 * p:.0f} %" for name, p in likely]

    def choices(self) -> list[str]:
        """Lists each attribute alone."""
        return list(self.names)

    def switches(self) -> dict[str, tuple[float, float]]:
        """Names the attributes, each with 0 and 1, or -1 and 1 if gaussian."""
        off = -1.0 if self.likelihood == "gaussian" else 0.0
        return dict.fromkeys(self.names, (off, 1.0))

    def example(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Makes attributes ``(B, A)`` that depend on the class, with noise."""
        return (super().example(classes, generator) > 0).to(torch.uint8)

    def recommended(self) -> dict[str, Any]:
        """Weighs their few nats more, which a picture's hundreds would drown."""
        return {"likelihood_weight": 10.0}

    @classmethod
    def match_score(cls, cells: Sequence[str]) -> float:
        """Scores 0/1 high, and lists of words that come again and again."""
        return column_score(cells)

    @classmethod
    def infer_settings(cls, columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Names the attributes: a heading over 0/1, the words of a column that lists what is on."""
        return {"names": infer_names(columns)}

    def join_cells(self, row: Mapping[str, str]) -> str:
        """Joins what is on in a row; what is not 0/1 under an attribute's name is a ValueError."""
        return join_on(row, self.names)

    def join_known(self, row: Mapping[str, str | None]) -> str | None:
        """Joins what is on and what is unknown in a row; an empty list of words is none on."""
        return join_known(row, self.names)


def _stored(states: Sequence[bool | None]) -> Tensor:
    return torch.tensor([UNKNOWN if on is None else on for on in states], dtype=torch.uint8)


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    """Provides the kind ``attributes``."""
    return [Attributes]
