"""The kind ``label``: one of n named classes, as a one-hot vector."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmgen.data.cells import in_order
from mmgen.hooks import hookimpl
from mmgen.modality import Modality, Widths, Words
from mmgen.nets.blocks import Likelihood, mlp, one_hot
from mmgen.prediction import Told
from mmgen_label.classes import class_number, column_score


class Label(Modality):
    """One of n classes, stored as its number; p(x | z) = Π_i π_i^x_i, π = softmax(net(z))."""

    kind: ClassVar[str] = "label"
    api_version: ClassVar[int] = 1
    stored_with: ClassVar[tuple[str, ...]] = ("classes",)
    classes: Words = Field(min_length=2, examples=[("no", "yes")], description="names")
    encoder_widths: Widths = Field((512, 512), description="hidden layers")
    decoder_widths: Widths = Field((512, 512), description="hidden layers")

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n,)``."""
        return (len(self.classes),)

    def encoder(self) -> nn.Module:
        """Builds an MLP ``(B, n) -> (B, features)``."""
        return mlp(len(self.classes), self.encoder_widths)

    def decoder(self, in_features: int) -> nn.Module:
        """Builds an MLP ``(B, in_features)`` to a one-hot categorical distribution."""
        return Likelihood(mlp(in_features, self.decoder_widths, len(self.classes)), one_hot)

    def parse(self, cell: str) -> Tensor:
        """Reads a class's name as its number ``()``; another word is a ``ValueError``."""
        return torch.tensor(class_number(cell, self.classes))

    def accept(self, value: Any) -> Tensor:
        """Takes also a whole number, such as 7; a tensor is a class's number, from 0."""
        if not isinstance(value, Tensor):
            return torch.tensor(class_number(value, self.classes))
        stored = super().accept(value)
        if 0 <= stored < len(self.classes):
            return stored
        raise ValueError(f"class number {stored} is not from 0 to {len(self.classes) - 1}")

    def observe(self, stored: Tensor, generator: Any = None) -> Tensor:  # noqa: ARG002
        """Turns class numbers ``(B,)`` into one-hot rows ``(B, n)``."""
        # Not nn.functional.one_hot, which waits for the device to check its input.
        numbers = torch.arange(len(self.classes), device=stored.device)
        return (stored.unsqueeze(1) == numbers).to(torch.get_default_dtype())

    def describe(self, x: Tensor) -> list[str]:
        """Names the likeliest class of each row: ``"7"``, or ``"7 (98 %)"`` of probabilities."""
        best = zip(*(each.tolist() for each in x.max(1)), strict=True)
        return [self.classes[i] + (f" ({100 * p:.0f} %)" if p != 1 else "") for p, i in best]

    def tell(self, mean: Tensor, deviation: Tensor) -> dict[str, Told]:  # noqa: ARG002
        """Names the likeliest class of each row, and its probability."""
        confidence, numbers = mean.clamp(0, 1).max(1)
        names = [self.classes[number] for number in numbers.tolist()]
        return {"": Told(names, confidence=confidence.tolist())}

    def choices(self) -> list[str]:
        """Lists the classes."""
        return list(self.classes)

    def example(self, classes: Tensor, generator: Any) -> Tensor:  # noqa: ARG002
        """Makes the class numbers themselves ``(B,)``, modulo n."""
        return classes % len(self.classes)

    def recommended(self) -> dict[str, Any]:
        """Weighs its few nats more, which a picture's hundreds would drown."""
        return {"likelihood_weight": 10.0}

    @classmethod
    def match_score(cls, cells: Sequence[str]) -> float:
        """Scores few different words high, and up to twenty different whole numbers."""
        return column_score(cells)

    @classmethod
    def infer_settings(cls, columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Names the classes: the different words, in order, without those that hold a comma."""
        found = (word.strip() for cells in columns.values() for word in cells)
        return {"classes": in_order(word for word in found if word and "," not in word)}


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    """Provides the kind ``label``."""
    return [Label]
