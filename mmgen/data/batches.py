"""Batches of a split on the device, gathered in one operation per modality, shuffled by epoch."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mmgen.batch import Batch, hidden
from mmgen.brief import line
from mmgen.data.store import Split
from mmgen.errors import DataError, listed, nearest
from mmgen.memory import free_memory
from mmgen.modality import Modality
from mmgen.seeding import generator

RESIDENT_SHARE = 1 / 3
"""The share of the device's free memory up to which values stay on it: the rest is for the nets,
their gradients, and the other splits."""


@dataclass(frozen=True)
class Part:
    """Which of several processes computes, and so which rows of each batch are its own.

    Attributes:
        rank: The number of the process, from 0.
        ranks: How many there are.
        beside: How many of them take memory of the same device.
    """

    rank: int = 0
    ranks: int = 1
    beside: int = 1

    def of(self, rows: int) -> range:
        """Returns which of so many rows are its own; they differ by one at most between ranks.

        Examples:
            >>> [Part(rank, 3).of(8) for rank in range(3)]
            [range(0, 2), range(2, 5), range(5, 8)]
        """
        return range(rows * self.rank // self.ranks, rows * (self.rank + 1) // self.ranks)


WHOLE = Part()
"""Of one process all rows are its own."""


class Batches:
    """The observations of a split, batch by batch.

    Args:
        split: The stored values.
        modalities: The modalities to observe, by name: all of the split's, or some.
        device: Where batches are made.
        batch_size: Rows in a batch; the last one of an epoch may have fewer.
        resident: Whether the stored values live on the device. If not, each batch is read from the
            files and moved. ``None`` decides by the device's free memory.
        part: Which rows of each batch are read, where several processes share them.

    Raises:
        DataError: If the split lacks a modality, or a file changes while it is read.
    """

    def __init__(
        self,
        split: Split,
        modalities: Mapping[str, Modality],
        *,
        device: torch.device,
        batch_size: int,
        resident: bool | None = None,
        part: Part = WHOLE,
    ) -> None:
        for name in modalities:
            if name not in split.names:
                raise DataError(
                    f"the data set has no modality {name!r}{nearest(name, split.names)}; "
                    f"it has {listed(split.names)}"
                )
        self.split = split
        self.modalities = dict(modalities)
        self.device = device
        self.batch_size = batch_size
        self.count = split.count
        self.part = part
        if resident is None:
            resident = fits_on_device(split, modalities, device, part)
        self._stored = split.load(modalities, device) if resident else None

    def __repr__(self) -> str:
        fields = {"rows": self.count, "batch_size": self.batch_size, "device": self.device}
        return line("Batches", fields | {"modalities": list(self.modalities)})

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return math.ceil(self.count / self.batch_size)

    def whole(self) -> Self:
        """Returns the same batches with the rows of all processes."""
        whole = copy.copy(self)
        whole.part = WHOLE
        return whole

    def rows(self, number: int) -> tuple[int, int]:
        """Returns how many rows of a batch are this process's own, and how many it has in all."""
        rows = min(self.batch_size, self.count - number * self.batch_size)
        return len(self.part.of(rows)), rows

    @property
    def resident(self) -> bool:
        """Whether the stored values live on the device."""
        return self._stored is not None

    def epoch(self, seed: int | None, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of one epoch: ``(B, *shape)`` per modality, on the device.

        Where rows of the split lack modalities, every batch says which of its rows do, and holds
        zeros there.

        The order depends on ``seed`` and ``epoch`` alone, so an interrupted epoch resumes exactly
        where it stopped. :meth:`Modality.observe` draws from the global generator. Of a batch with
        fewer rows than processes, one that has none of its own reads the first, to take part with
        something: see :meth:`rows`.

        Args:
            seed: The seed of the order; ``None`` keeps the stored order.
            epoch: The epoch's number, from 0.
            start: The batch to begin at; ``len(self)`` yields nothing.
        """
        order = self.order(seed, epoch)
        if self.resident:
            order = order.to(self.device)
        for first in range(start * self.batch_size, self.count, self.batch_size):
            batch = order[first : first + self.batch_size]
            own = self.part.of(len(batch)) or range(1)
            stored = self._rows(batch[own.start : own.stop])
            has = stored.present or {}
            seen = {n: hidden(m.observe(stored[n]), has.get(n)) for n, m in self.modalities.items()}
            yield Batch(seen, stored.present)

    def order(self, seed: int | None, epoch: int) -> Tensor:
        """Returns the rows of the split in the order of an epoch, ``(count,)``, on the CPU."""
        if seed is None:
            return torch.arange(self.count, device="cpu")
        stream = generator("order", seed, epoch)
        return torch.randperm(self.count, generator=stream, device="cpu")

    def _rows(self, indices: Tensor) -> Batch:
        if self._stored is not None:
            return _each(self._stored, lambda values: values.index_select(0, indices))
        rows = self.split.take(indices, self.modalities)
        if self.device.type != "cuda":
            return _each(rows, lambda values: values.to(self.device))
        # From pinned memory the copy runs beside the step before it.
        pinned = _each(rows, lambda values: values.pin_memory())
        return _each(pinned, lambda values: values.to(self.device, non_blocking=True))


def _each(rows: Batch, changed: Callable[[Tensor], Tensor]) -> Batch:
    """Returns values and masks, each changed."""
    present = rows.present and {n: changed(has) for n, has in rows.present.items()}
    return Batch({n: changed(values) for n, values in rows.items()}, present)


def fits_on_device(
    split: Split, names: Iterable[str], device: torch.device, part: Part = WHOLE
) -> bool:
    """Returns whether the stored values of these modalities are to live on the device.

    Each process that takes memory there would hold them.
    """
    return split.nbytes(names) * part.beside <= RESIDENT_SHARE * free_memory(device)
