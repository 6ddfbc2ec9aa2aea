"""A split of a data set, whose rows stay in their files until they are asked for."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.data.shard import Column, blocks, copy


@dataclass(frozen=True, eq=False, repr=False)
class Split(OneLine):
    """Rows of stored values, in one or several shards; rows are read when they are asked for.

    Attributes:
        shards: For each shard, one column of stored values ``(rows, ...)`` per modality.
    """

    shards: tuple[Mapping[str, Column], ...]

    @property
    def count(self) -> int:
        """The number of observations."""
        return sum(_rows(shard) for shard in self.shards)

    @property
    def names(self) -> list[str]:
        """The names of the modalities."""
        return list(self.shards[0])

    def nbytes(self, names: Iterable[str] | None = None) -> int:
        """Returns the size of these modalities (all by default) in bytes."""
        chosen = self.names if names is None else list(names)
        return sum(shard[name].nbytes for shard in self.shards for name in chosen)

    def take(self, indices: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Copies the rows ``indices`` ``(B,)`` into memory: ``(B, ...)`` per modality.

        Raises:
            DataError: If a file is not what it was when it was opened, or cannot be read.
            IndexError: If an index is not in ``[0, count)``.
        """
        chosen = self.names if names is None else list(names)
        if len(self.shards) == 1:
            return {name: self.shards[0][name].index_select(0, indices) for name in chosen}
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < self.count:
            raise IndexError(f"row out of range: this split has {self.count} rows")
        rows = {name: _empty(self.shards[0][name], len(indices)) for name in chosen}
        start = 0
        for shard in self.shards:
            stop = start + _rows(shard)
            here = ((indices >= start) & (indices < stop)).nonzero().squeeze(1)
            for name in chosen if len(here) else ():
                rows[name][here] = shard[name].index_select(0, indices[here] - start)
            start = stop
        return rows

    def spread(self, count: int, names: Iterable[str] | None = None) -> "Split":
        """Returns ``count`` of the rows, evenly spread: a split may be sorted by class."""
        if count >= self.count:
            return self
        return Split((self.take(torch.arange(count, device="cpu") * self.count // count, names),))

    def load(
        self, names: Iterable[str] | None = None, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Copies whole modalities (all by default) to ``device``: ``(count, ...)`` each.

        Raises:
            DataError: If a file is not what it was when it was opened, or cannot be read.
        """
        loaded = {}
        for name in self.names if names is None else names:
            whole = _empty(self.shards[0][name], self.count, device)
            parts = whole.split([_rows(shard) for shard in self.shards])
            for part, shard in zip(parts, self.shards, strict=True):
                copy(shard[name], part)
            loaded[name] = whole
        return loaded

    def blocks(
        self, name: str, rows: int | None = None, every: int = 1
    ) -> Iterator[tuple[int, Tensor]]:
        """Yields the stored values of a modality in order, block by block.

        Args:
            name: The modality.
            rows: The most rows in a block; by default as many as a mebibyte holds.
            every: 1 yields each block, 2 every second one, and so on.

        Yields:
            The number of a block's first row in the split, and its values ``(n, ...)``.

        Raises:
            DataError: If a file is not what it was when it was opened, or cannot be read.
        """
        before = 0
        for shard in self.shards:
            for start, block in blocks(shard[name], rows, every):
                yield before + start, block
            before += len(shard[name])


def _rows(shard: Mapping[str, Column]) -> int:
    return len(next(iter(shard.values())))


def _empty(like: Column, rows: int, device: torch.device | str = "cpu") -> Tensor:
    return torch.empty((rows, *like.shape[1:]), dtype=like.dtype, device=device)
