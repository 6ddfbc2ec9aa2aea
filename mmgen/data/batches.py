"""Batches of a split on the device, gathered in one operation per modality, shuffled by epoch."""

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import line
from mmgen.data.store import Split
from mmgen.errors import DataError, listed, nearest
from mmgen.memory import free_memory
from mmgen.modality import Modality
from mmgen.seeding import generator

RESIDENT_SHARE = 1 / 3
"""The share of the device's free memory up to which values stay on it: the rest is for the nets,
their gradients, and the other splits."""


class Batches:
    """The observations of a split, batch by batch.

    Args:
        split: The stored values.
        modalities: The modalities to observe, by name: all of the split's, or some.
        device: Where batches are made.
        batch_size: Rows in a batch; the last one of an epoch may have fewer.
        resident: Whether the stored values live on the device. If not, each batch is read from the
            files and moved. ``None`` decides by the device's free memory.

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
        if resident is None:
            resident = fits_on_device(split, modalities, device)
        self._stored = split.load(modalities, device) if resident else None

    def __repr__(self) -> str:
        fields = {"rows": self.count, "batch_size": self.batch_size, "device": self.device}
        return line("Batches", fields | {"modalities": list(self.modalities)})

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return math.ceil(self.count / self.batch_size)

    @property
    def resident(self) -> bool:
        """Whether the stored values live on the device."""
        return self._stored is not None

    def epoch(self, seed: int | None, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of one epoch: ``(B, *shape)`` per modality, on the device.

        The order depends on ``seed`` and ``epoch`` alone, so an interrupted epoch resumes exactly
        where it stopped. :meth:`Modality.observe` draws from the global generator.

        Args:
            seed: The seed of the order; ``None`` keeps the stored order.
            epoch: The epoch's number, from 0.
            start: The batch to begin at; ``len(self)`` yields nothing.
        """
        order = self.order(seed, epoch)
        if self.resident:
            order = order.to(self.device)
        for first in range(start * self.batch_size, self.count, self.batch_size):
            stored = self._rows(order[first : first + self.batch_size])
            yield Batch({n: m.observe(stored[n]) for n, m in self.modalities.items()})

    def order(self, seed: int | None, epoch: int) -> Tensor:
        """Returns the rows of the split in the order of an epoch, ``(count,)``, on the CPU."""
        if seed is None:
            return torch.arange(self.count, device="cpu")
        stream = generator("order", seed, epoch)
        return torch.randperm(self.count, generator=stream, device="cpu")

    def _rows(self, indices: Tensor) -> dict[str, Tensor]:
        if self._stored is not None:
            return {name: values.index_select(0, indices) for name, values in self._stored.items()}
        rows = self.split.take(indices, self.modalities)
        if self.device.type != "cuda":
            return {name: values.to(self.device) for name, values in rows.items()}
        # From pinned memory the copy runs beside the step before it.
        pinned = {name: values.pin_memory() for name, values in rows.items()}
        return {name: values.to(self.device, non_blocking=True) for name, values in pinned.items()}


def fits_on_device(split: Split, names: Iterable[str], device: torch.device) -> bool:
    """Returns whether the stored values of these modalities are to live on the device."""
    return split.nbytes(names) <= RESIDENT_SHARE * free_memory(device)
