"""Reads a table's rows as stored values, reports those that cannot be used, makes splits."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine, cut
from mmgen.data.tables.columns import Source, build
from mmgen.data.tables.table import BadRow, Row, Table
from mmgen.data.tables.tree import SPLIT_WORDS
from mmgen.data.tables.votes import blaming
from mmgen.data.tables.waiting import Waiting
from mmgen.errors import ConfigError, DataError, listed
from mmgen.modality import Modality
from mmgen.registry.loading import Registry
from mmgen.seeding import generator

SHOWN = 20
"""The most bad rows that a message lists."""

CHUNK = 256
"""The rows that are read at a time: few, so that Ctrl-C does not wait long."""


@dataclass(frozen=True, repr=False)
class Splitting(OneLine):
    """How rows are divided into splits.

    Attributes:
        validation: The share of the rows that are held out for validation.
        test: The share of the rows that are held out for testing.
        seed: The seed of which rows these are.
        column: The heading of a column with the names of splits, instead of shares.
    """

    validation: float = 0.1
    test: float = 0.1
    seed: int = 0
    column: str | None = None


@dataclass(frozen=True, repr=False)
class Imported(OneLine):
    """The contents of a data set, read from a table.

    Attributes:
        modalities: The modalities by name, not fitted yet.
        splits: Of each split, chunks of stored values ``(n, ...)`` by modality, read when they are
            asked for, and which rows have them.
        bad: The rows that were left out, in the order of the table.
    """

    modalities: dict[str, Modality]
    splits: dict[str, Iterator[Batch]]
    bad: list[BadRow]


@contextmanager
def import_table(
    table: Table,
    found: Mapping[str, Source],
    registry: Registry,
    splitting: Splitting,
    *,
    folder: Path,
    skip_bad: bool = False,
    advance: Callable[[int], object] = int,
) -> Iterator[Imported]:
    """Reads every row of a table; its values wait in files without a name, not in memory.

    The splits can be read within the ``with`` block.

    Args:
        table: The table.
        found: The columns of each modality.
        registry: The registry that builds the modalities.
        splitting: How rows are divided.
        folder: Where the files are, on a disk that has room for all values.
        skip_bad: Leave out the rows that cannot be used.
        advance: Called with the number of rows that were read since the last call.

    Raises:
        ConfigError: If a modality's settings or the shares of the splits are wrong.
        DataError: If a row cannot be used and ``skip_bad`` is false, if none is left, or none to
            train on. The message lists rows, each with its column and cause.
        PluginError: If a plugin fails otherwise than by refusing a value.
        OSError: If the disk is full, or fails.
    """
    modalities = build(found, registry)
    _check(splitting, table)
    reader = RowReader(table, found, modalities, registry, splitting.column)
    with Waiting(folder, modalities, registry) as waiting:
        splits_of, bad = [], list(table.bad)
        for read in reader.rows(advance):
            if isinstance(read, BadRow):
                bad.append(read)
            else:
                splits_of.append(read[0])
                waiting.add(read[1])
        bad.sort(key=_place)
        if bad and not skip_bad:
            raise DataError(
                f"{table.path}: {len(bad):,} of {len(table.rows) + len(table.bad):,} rows cannot "
                f"be used:\n{first_of(bad)}\nFix them, or leave them out with --skip-bad"
            )
        if not splits_of:
            raise DataError(f"{table.path}: none of its rows can be used:\n{first_of(bad)}")
        for name in (n for n in modalities if n not in waiting.known):
            columns = listed(found[name].columns)
            raise DataError(f"{table.path}: no row has a value of {name!r}, of {columns}")
        chosen = _chosen(splits_of, splitting)
        if "train" not in chosen:
            raise DataError(f"{table.path}: no row to train on; the splits are {listed(chosen)}")
        splits = {split: waiting.chunks(rows) for split, rows in chosen.items()}
        yield Imported(modalities, splits, bad)


def says_splits(table: Table) -> list[str]:
    """Returns the columns that hold only names of splits, ``train`` among them."""
    words = {heading: {cell.lower() for cell in table.column(heading)} for heading in table.named}
    return [h for h, said in words.items() if "train" in said and said <= SPLIT_WORDS.keys()]


def first_of(bad: Sequence[BadRow]) -> str:
    """Lists the first bad rows, a line each, and counts all by problem if there are more."""
    lines = [f"  {row}" for row in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  and {len(bad) - SHOWN:,} more; in all: {counted(bad)}")
    return "\n".join(lines)


def counted(bad: Sequence[BadRow]) -> str:
    """Counts bad rows by problem: ``"empty cell ×3, no such file ×1"``."""
    return ", ".join(f"{what} ×{n:,}" for what, n in Counter(b.problem for b in bad).most_common())


Values = dict[str, Tensor | None]
"""Of a row, the stored value of each modality; ``None`` where it has none."""


@dataclass(frozen=True, repr=False)
class RowReader(OneLine):
    """Reads rows of a table as stored values.

    Attributes:
        table: The table.
        found: The columns of each modality.
        modalities: By name.
        registry: Tells which plugin a kind is from.
        split_column: The column that says of which split a row is, if there is one.
    """

    table: Table
    found: Mapping[str, Source]
    modalities: Mapping[str, Modality]
    registry: Registry
    split_column: str | None

    def rows(self, advance: Callable[[int], object]) -> Iterator[tuple[str, Values] | BadRow]:
        """Yields per row, in order, its split and values, or a record of why it cannot be used."""
        files = any(source.cls.cells_are_paths for source in self.found.values())
        workers = min(8, os.cpu_count() or 1) if files else 1
        with ThreadPoolExecutor(workers) as pool:
            for start in range(0, len(self.table.rows), CHUNK):
                chunk = self.table.rows[start : start + CHUNK]
                yield from pool.map(self.row, chunk) if files else map(self.row, chunk)
                advance(len(chunk))

    def row(self, row: Row) -> tuple[str, Values] | BadRow:
        """Reads one row: its split, and a stored value for each modality, ``None`` if missing."""
        cells = dict(zip(self.table.headings, row.cells, strict=True))
        split = ""
        if self.split_column is not None:
            word = cells[self.split_column]
            if not word:
                return BadRow(row.place, self.split_column, "the cell is empty", "empty cell")
            if word.lower() not in SPLIT_WORDS:
                cause = cut(f"it must be train, validation or test, not {word!r}")
                return BadRow(row.place, self.split_column, cause, "no such split")
            split = SPLIT_WORDS[word.lower()]
        values: dict[str, Tensor | None] = {}
        missing = self.table.missing
        for name, source in self.found.items():
            own = {c: None if cells[c] in missing else cells[c] for c in source.columns}
            read = self._value(row.place, name, own)
            if isinstance(read, BadRow):
                return read
            values[name] = read
        if all(value is None for value in values.values()):
            return BadRow(row.place, "", "all of its cells are empty", "empty row")
        return split, values

    def _value(self, place: str, name: str, cells: dict[str, str | None]) -> Tensor | BadRow | None:
        modality = self.modalities[name]
        if modality.cells_are_paths:
            for column, cell in cells.items():
                # Not Path.is_file, which raises where a name is too long.
                if cell and not os.path.isfile(self.table.folder / cell):  # noqa: PTH113
                    other = os.path.exists(self.table.folder / cell)  # noqa: PTH110
                    cause = f"there is no file {cell!r}{', but a folder or a pipe' * other}"
                    return BadRow(place, column, cut(cause), "no such file")
            cells = {
                c: str(self.table.folder / cell) if cell else cell for c, cell in cells.items()
            }
        with blaming(type(modality), self.registry, f"read {place} ({name})"):
            try:
                joined = modality.join_known(cells)
                if joined is None:
                    return None
                value = modality.parse(joined)
            except ValueError as error:
                return self._refused(place, name, cells, error)
            if not isinstance(value, Tensor):
                raise TypeError(f"parse() gave {type(value).__name__}; give a tensor")
        return value

    def _refused(
        self, place: str, name: str, cells: Mapping[str, str | None], error: ValueError
    ) -> BadRow:
        cause = " ".join(str(error).split())
        if empty := [column for column, cell in cells.items() if not cell]:
            return BadRow(place, listed(empty), cut(cause), "empty cell")
        if self.table.folder.name:
            cause = cause.replace(f"{self.table.folder}{os.sep}", "")
        column = next(iter(cells)) if len(cells) == 1 else name
        return BadRow(place, column, cut(cause), f"unreadable {self.modalities[name].kind}")


def _check(splitting: Splitting, table: Table) -> None:
    if splitting.column is not None and splitting.column not in table.named:
        raise ConfigError(f"--split-column {splitting.column}: the table has {listed(table.named)}")
    held_out = (splitting.validation, splitting.test)
    if not all(0 <= share < 1 for share in held_out) or sum(held_out) >= 1:
        raise ConfigError(
            f"--validation {splitting.validation} --test {splitting.test}: shares of the rows, "
            "from 0 to less than 1 together"
        )
    if splitting.seed < 0:
        raise ConfigError(f"--seed {splitting.seed}: it must not be negative")


def _chosen(splits_of: Sequence[str], splitting: Splitting) -> dict[str, list[int]]:
    """Returns the numbers of each split's rows; splits without rows are left out."""
    if splitting.column is not None:
        chosen = {
            split: [row for row, own in enumerate(splits_of) if own == split]
            for split in ("train", "validation", "test")
        }
        return {split: rows for split, rows in chosen.items() if rows}
    count = len(splits_of)
    order = torch.randperm(count, generator=generator(splitting.seed, "splits")).tolist()
    validation, test = round(count * splitting.validation), round(count * splitting.test)
    # One row is left to train on, however few there are.
    train = max(1, count - validation - test)
    ends = {"train": (0, train), "validation": (train, train + validation)}
    ends["test"] = (train + validation, count)
    return {split: sorted(order[a:b]) for split, (a, b) in ends.items() if order[a:b]}


def _place(bad: BadRow) -> tuple[int, str]:
    line = re.fullmatch(r"line (\d+)", bad.place)
    return (int(line[1]) if line else 0), bad.place
