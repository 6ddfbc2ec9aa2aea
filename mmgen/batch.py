"""A batch: observations by modality name, and which rows have them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.brief import OneLine


@dataclass(frozen=True, eq=False, repr=False)
class Batch(Mapping[str, Tensor], OneLine):
    """Observations of B rows, each tensor ``(B, *shape)``, read like a dictionary by name.

    Attributes:
        tensors: By modality name.
        present: Which rows have a value, a mask ``(B,)`` by modality name; a modality without a
            mask is there in every row. Rows without a value hold zeros: a NaN would pass through
            nets and densities into every gradient, masked or not.

    Examples:
        >>> import torch
        >>> x = Batch({"label": torch.zeros(5, 3), "image": torch.zeros(5, 1, 8, 8)})
        >>> x.rows, list(x), list(x.select(["label"]))
        (5, ['label', 'image'], ['label'])
    """

    tensors: Mapping[str, Tensor]
    present: Mapping[str, Tensor] | None = None

    @classmethod
    def of(cls, x: Mapping[str, Tensor]) -> "Batch":
        """Returns a batch of tensors by name; a batch as it is."""
        return x if isinstance(x, Batch) else cls(x)

    @property
    def rows(self) -> int:
        """B; 0 of a batch that holds nothing."""
        return next((len(value) for value in self.tensors.values()), 0)

    def select(self, names: Iterable[str]) -> "Batch":
        """Returns the part of some modalities, in the order of the batch."""
        wanted = {*names}
        tensors = {n: value for n, value in self.tensors.items() if n in wanted}
        masks = self.present and {n: mask for n, mask in self.present.items() if n in wanted}
        return Batch(tensors, masks or None)

    def having(self, names: Iterable[str]) -> Tensor | None:
        """Returns which rows have all of some modalities, ``(B,)``; ``None`` if all rows have."""
        present = self.present or {}
        masks = [present[n] for n in dict.fromkeys(names) if n in present]
        return torch.stack(masks).all(0) if masks else None

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def slice(self, start: int, end: int) -> "Batch":
        """Returns rows ``start`` to ``end``."""
        masks = self.present and {n: mask[start:end] for n, mask in self.present.items()}
        return Batch({n: value[start:end] for n, value in self.tensors.items()}, masks or None)

    def stood_in(self) -> "Batch":
        """Returns the same with other rows' values in the place of those that are absent.

        For nets that look at all rows at once, as batch normalisation does, and would see zeros: it
        sees the rows that have a value, one after the other and again from the first. Where no row
        of the batch has one, zeros stay. No device is waited for.

        Examples:
            >>> has = torch.tensor([False, True, False, True, False])
            >>> x = Batch({"a": torch.tensor([0, 7, 0, 8, 0])}, {"a": has})
            >>> x.stood_in()["a"].tolist()
            [7, 7, 8, 8, 7]
        """
        tensors = {**self.tensors}
        for n, has in (self.present or {}).items():
            order = has.long().argsort(descending=True, stable=True)  # those that have one first
            place = (~has).long().cumsum(0) - 1
            other = tensors[n][order[place % has.sum().clamp_min(1)]]
            own = has.view(-1, *[1] * (tensors[n].dim() - 1))
            tensors[n] = torch.where(own, tensors[n], other)
        return Batch(tensors, self.present)


def hidden(values: Tensor, present: Tensor | None) -> Tensor:
    """Returns values ``(B, ...)`` with zeros in the rows that have none."""
    if present is None:
        return values
    return torch.where(present.view(-1, *[1] * (values.dim() - 1)), values, 0)
