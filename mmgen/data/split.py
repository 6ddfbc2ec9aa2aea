"""A split of a data set, whose rows stay in their files until they are asked for."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.shard import Chosen, Column, blocks, copy
from mmgen.subsets import Subset


@dataclass(frozen=True, eq=False, repr=False)
class Split(OneLine):
    """Rows of stored values, in one or several shards; rows are read when they are asked for.

    Attributes:
        shards: For each shard, one column of stored values ``(rows, ...)`` per modality.
        masks: For each shard, which rows have a value, a column of ``bool`` ``(rows,)`` for each
            modality that some of them lack; none if no row lacks any. Rows in memory, as a
            :class:`mmgen.batch.Batch`, say so themselves.
    """

    shards: tuple[Mapping[str, Column], ...]
    masks: tuple[Mapping[str, Column], ...] = ()

    def __post_init__(self) -> None:
        if not self.masks:
            said = [shard.present if isinstance(shard, Batch) else None for shard in self.shards]
            if any(said):
                object.__setattr__(self, "masks", tuple(present or {} for present in said))

    @cached_property
    def present(self) -> dict[str, Tensor]:
        """Which rows have a value, ``(count,)`` on the CPU, of each modality that some rows lack.

        Raises:
            DataError: If a file is not what it was when it was opened, or cannot be read.
        """
        lacking = {name for masks in self.masks for name in masks}

        def parts(name: str) -> Iterator[Tensor]:
            for shard, masks in zip(self.shards, self.masks, strict=True):
                if name not in masks:
                    yield torch.ones(_rows(shard), dtype=torch.bool, device="cpu")
                    continue
                # As bytes, since a file may hold others than 0 and 1.
                yield masks[name].narrow(0, 0, _rows(shard)).cpu().view(torch.uint8) != 0

        return {n: torch.cat([*parts(n)]) for n in self.names if n in lacking}

    def patterns(self, names: Iterable[str]) -> "Counter[Subset]":
        """Counts the rows that have exactly these of some modalities, by which those are."""
        chosen = tuple(names)
        lacking = [n for n in chosen if n in self.present]
        if not lacking:
            return Counter({chosen: self.count})
        has = torch.stack([self.present[n] for n in lacking], 1)
        kinds, counts = has.unique(dim=0, return_counts=True)
        found: Counter[Subset] = Counter()
        for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
            absent = {n for n, here in zip(lacking, kind, strict=True) if not here}
            found[tuple(n for n in chosen if n not in absent)] = count
        return found

    def having(self, names: Iterable[str]) -> "Split":
        """Returns the rows that have all of some modalities; itself if all rows have."""
        masks = [self.present[n] for n in dict.fromkeys(names) if n in self.present]
        return self.where(torch.stack(masks).all(0)) if masks else self

    def having_any(self, names: Iterable[str]) -> "Split":
        """Returns the rows that have at least one of some modalities; itself if all rows have."""
        chosen = list(names)
        if any(n not in self.present for n in chosen):
            return self
        return self.where(torch.stack([self.present[n] for n in chosen]).any(0))

    def where(self, has: Tensor) -> "Split":
        """Returns the rows of a mask ``(count,)`` on the CPU; itself if they are all."""
        if has.all():
            return self
        shards: list[Mapping[str, Column]] = []
        masks: list[Mapping[str, Column]] = []
        start = 0
        for number, shard in enumerate(self.shards):
            own = slice(start, start + _rows(shard))
            here = has[own].nonzero().squeeze(1)
            known = {n: each[own][here] for n, each in self.present.items()}
            start += _rows(shard)
            last = number == len(self.shards) - 1
            if len(here) or (last and not shards):
                shards.append({n: Chosen(column, here) for n, column in shard.items()})
                masks.append({n: each for n, each in known.items() if not each.all()})
        return Split(tuple(shards), tuple(masks))

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

    def take(self, indices: Tensor, names: Iterable[str] | None = None) -> Batch:
        """Copies the rows ``indices`` ``(B,)`` into memory: stored values ``(B, ...)`` by modality.

        Raises:
            DataError: If a file is not what it was when it was opened, or cannot be read.
            IndexError: If an index is not in ``[0, count)``.
        """
        chosen = self.names if names is None else list(names)
        present = {n: has[indices] for n, has in self.present.items() if n in chosen} or None
        if len(self.shards) == 1:
            shard = self.shards[0]
            return Batch({name: shard[name].index_select(0, indices) for name in chosen}, present)
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
        return Batch(rows, present)

    def spread(self, count: int, names: Iterable[str] | None = None) -> "Split":
        """Returns ``count`` of the rows, evenly spread: a split may be sorted by class."""
        if count >= self.count:
            return self
        return Split((self.take(torch.arange(count, device="cpu") * self.count // count, names),))

    def load(self, names: Iterable[str] | None = None, device: torch.device | str = "cpu") -> Batch:
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
        present = {n: has.to(device) for n, has in self.present.items() if n in loaded}
        return Batch(loaded, present or None)

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
