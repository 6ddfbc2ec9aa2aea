"""Rows of cells as observations: what each has, and what it lacks."""

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine, cut
from mmgen.data.tables.table import BadRow
from mmgen.data.tables.votes import blaming
from mmgen.errors import listed
from mmgen.modality import Modality
from mmgen.registry.loading import Registry
from mmgen.rows.reading import Observer
from mmgen.tabular.columns import Assigned

KEPT = 10_000
"""Of so many different cells it is remembered what is stored of them."""


@dataclass(frozen=True, repr=False)
class CellReader(OneLine):
    """Reads the cells of a modality.

    Attributes:
        name: The modality's name.
        modality: The modality.
        assigned: Its columns.
        registry: Tells which plugin a kind is from.
        folder: That file names are relative to.
        missing: Words that say that there is no value, beside an empty cell.
    """

    name: str
    modality: Modality
    assigned: Assigned
    registry: Registry
    folder: Path
    missing: Collection[str] = ()
    _known: dict[tuple[str, ...], Tensor | None] = field(default_factory=dict)

    def lacks(self, cells: Sequence[str]) -> list[int]:
        """Returns which of the modality's cells hold no value, by their number among them."""
        return [i for i, cell in enumerate(cells) if not cell or cell in self.missing]

    def read(self, place: str, cells: tuple[str, ...]) -> Tensor | BadRow | None:
        """Reads a row's cells: a stored value, ``None`` if one is missing, or why it is refused.

        An empty cell is a value where the kind reads it as one, as a list of words that is empty.
        """
        if cells not in self._known:
            read = self._read(place, cells)
            if isinstance(read, BadRow) or self.modality.cells_are_paths:
                return read
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[cells] = read
        return self._known[cells]

    def _read(self, place: str, cells: tuple[str, ...]) -> Tensor | BadRow | None:
        lacks, own = self.lacks(cells), self.assigned.own
        words = any(cells[i] for i in lacks)  # that say so; an empty cell may be an empty list
        if words or any(own[i] for i in lacks) or self._some_are_elsewhere:
            return None
        names = [name or heading for name, heading in zip(own, self.assigned.headings, strict=True)]
        named = dict(zip(names, cells, strict=True))
        if self.modality.cells_are_paths and not lacks:
            for heading, cell in named.items():
                # Not Path.is_file, which raises where a name is too long.
                if not os.path.isfile(self.folder / cell):  # noqa: PTH113
                    return BadRow(place, heading, cut(f"there is no file {cell!r}"), "no such file")
            named = {heading: str(self.folder / cell) for heading, cell in named.items()}
        with blaming(type(self.modality), self.registry, f"read {place} ({self.name})"):
            try:
                stored = self.modality.parse(self.modality.join_cells(named))
            except ValueError as error:
                return None if lacks else self._refused(place, named, error)
            if not isinstance(stored, Tensor):
                raise TypeError(f"parse() gave {type(stored).__name__}; give a tensor")
        return stored

    @property
    def _some_are_elsewhere(self) -> bool:
        """Whether the table lacks some of the modality's columns, so that it has no whole value."""
        own = self.assigned.own
        return "" not in own and not {*self.modality.column_names()} <= {*own}

    def _refused(self, place: str, named: Mapping[str, str], error: ValueError) -> BadRow:
        cause = " ".join(str(error).split()).replace(f"{self.folder}{os.sep}", "")
        column = next(iter(named)) if len(named) == 1 else self.name
        return BadRow(place, column, cut(cause), f"unreadable {self.modality.kind}")


@dataclass(frozen=True, repr=False)
class Chunk(OneLine):
    """Rows that were read.

    Attributes:
        x: Observations, with masks where rows lack some; of every modality of the table.
        rows: How many.
        bad: Those that cannot be used, by number; they count as lacking everything.
    """

    x: Batch
    rows: int
    bad: Mapping[int, BadRow]


def read_cells(
    readers: Sequence[CellReader],
    rows: Sequence[tuple[str, Sequence[str]]],
    like: Tensor,
    seed: int = 0,
) -> Chunk:
    """Reads rows of cells.

    Args:
        readers: Of each modality of the table.
        rows: Of each the place, and all cells of the table.
        like: A tensor of the nets' device and dtype.
        seed: Of what is drawn when values are observed.
    """
    bad: dict[int, BadRow] = {}
    tensors, masks = {}, {}
    for reader in readers:
        read = _column(reader, rows)
        bad = {n: value for n, value in read.items() if isinstance(value, BadRow)} | bad
        stored = {n: value for n, value in read.items() if isinstance(value, Tensor)}
        x = like.new_zeros(len(rows), *reader.modality.shape)
        known = torch.zeros(len(rows), dtype=torch.bool, device=like.device)
        if stored:
            numbers = torch.tensor([*stored], device=like.device)
            observer = Observer(reader.name, reader.modality, like, seed)
            x.index_copy_(0, numbers, observer(torch.stack([*stored.values()])))
            known[numbers] = True
        tensors[reader.name], masks[reader.name] = x, known
    if bad:
        unusable = torch.tensor([*bad], device=like.device)
        for name, known in masks.items():
            known[unusable] = False
            tensors[name][unusable] = 0
    return Chunk(Batch(tensors, masks), len(rows), bad)


def _column(
    reader: CellReader, rows: Sequence[tuple[str, Sequence[str]]]
) -> dict[int, Tensor | BadRow | None]:
    """Reads a modality's cells of each row, by its number; files side by side."""
    columns = reader.assigned.columns
    places = [place for place, _ in rows]
    own = [tuple(cells[c] for c in columns) for _, cells in rows]
    if not reader.modality.cells_are_paths:
        return dict(enumerate(map(reader.read, places, own)))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(enumerate(pool.map(reader.read, places, own)))


def told(found: Mapping[str, Assigned], modalities: Mapping[str, Modality]) -> str:
    """Says which columns are whose, in a line."""
    parts = [f"{name} of {listed(each.headings)}" for name, each in found.items()]
    absent = [name for name in modalities if name not in found]
    return "; ".join([*parts, *([f"not in the table: {listed(absent)}"] if absent else [])])
