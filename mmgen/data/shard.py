"""Reads one file of a data set: checks its header when opened, reads its rows on demand.

Rows are read through a descriptor, never through a memory map: a mapped file that another process
truncates ends this one (SIGBUS), where a read raises an error. Whole columns are read about as
fast as from a map; scattered rows cost a system call each, but only in splits too large for memory.
"""

import os
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Protocol
from weakref import finalize

import torch
from torch import Tensor

from mmgen.errors import DataError
from mmgen.files.reading import Reader
from mmgen.files.tensors import header_length, parse_header

_FILES = Reader(DataError, "write the data set again")

BLOCK = 1 << 20
"""The bytes that are read at a time: they stay in the processor's cache until they are used."""

KEPT = 4 << 20
"""The most bytes of a column that stays in memory once a row of it was asked for."""


class Column(Protocol):
    """The stored values of one modality in one shard, ``(rows, ...)``: a tensor, or in a file."""

    @property
    def shape(self) -> torch.Size:
        """``(rows, ...)``."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of an element."""

    @property
    def nbytes(self) -> int:
        """The size of all rows."""

    def __len__(self) -> int:
        """The number of rows."""

    def index_select(self, dim: int, index: Tensor, /) -> Tensor:
        """Returns the rows ``index``, for ``dim`` 0."""

    def narrow(self, dim: int, start: int, length: int, /) -> Tensor:
        """Returns ``length`` rows from ``start``, for ``dim`` 0."""


class FileColumn:
    """A column whose rows are read from a file when they are asked for.

    Args:
        file: The opened file.
        start: The offset of the first row in bytes.
        shape: ``(rows, ...)``.
        dtype: The dtype of an element.
    """

    def __init__(self, file: "_File", start: int, shape: torch.Size, dtype: torch.dtype) -> None:
        self.shape, self.dtype = shape, dtype
        self.nbytes = prod(shape) * dtype.itemsize
        self._file, self._start = file, start
        self._row = self.nbytes // max(1, len(self))
        self._kept: Tensor | None = None

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    def narrow(self, dim: int, start: int, length: int, /) -> Tensor:
        """Reads ``length`` rows from ``start``; ``dim`` is 0.

        Raises:
            DataError: If the file is not what it was when it was opened, or cannot be read.
            IndexError: If there are no such rows.
        """
        return self._read(dim, [(start, length)])

    def index_select(self, dim: int, index: Tensor, /) -> Tensor:
        """Reads the rows ``index`` ``(B,)``; ``dim`` is 0.

        Raises:
            DataError: If the file is not what it was when it was opened, or cannot be read.
            IndexError: If there are no such rows.
        """
        if self._kept is None and self.nbytes <= KEPT:
            self._kept = self.narrow(0, 0, len(self))
        if self._kept is not None:
            return self._kept.index_select(dim, index)
        return self._read(dim, _runs(index))

    def read_into(self, rows: Tensor) -> None:
        """Reads all rows into a contiguous tensor on the CPU.

        Raises:
            DataError: If the file is not what it was when it was opened, or cannot be read.
        """
        self._fill(rows, [(0, len(self))])

    def _read(self, dim: int, runs: list[tuple[int, int]]) -> Tensor:
        if dim != 0:
            raise IndexError(f"rows are dimension 0, not {dim}")
        for start, count in runs:
            if not 0 <= start <= len(self) - count:
                raise IndexError(f"row out of range: there are {len(self)}")
        total = sum(count for _, count in runs)
        rows = torch.empty((total, *self.shape[1:]), dtype=self.dtype, device="cpu")
        self._fill(rows, runs)
        return rows

    def _fill(self, rows: Tensor, runs: list[tuple[int, int]]) -> None:
        into = memoryview(rows.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        start, row = self._start, self._row
        self._file.read([(start + first * row, count * row) for first, count in runs], into)


class Chosen:
    """Some rows of a column, read from it when they are asked for.

    Args:
        column: The column.
        rows: Which of its rows, ``(n,)`` on the CPU.
    """

    def __init__(self, column: Column, rows: Tensor) -> None:
        self.shape, self.dtype = torch.Size((len(rows), *column.shape[1:])), column.dtype
        self.nbytes = prod(self.shape) * self.dtype.itemsize
        self._column, self._rows = column, rows

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def narrow(self, dim: int, start: int, length: int, /) -> Tensor:
        """Reads ``length`` rows from ``start``; ``dim`` is 0."""
        return self._column.index_select(dim, self._rows.narrow(0, start, length))

    def index_select(self, dim: int, index: Tensor, /) -> Tensor:
        """Reads the rows ``index`` ``(B,)``; ``dim`` is 0."""
        return self._column.index_select(dim, self._rows.index_select(0, index))


class _File:
    """An opened file, which must stay as it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = _FILES.descriptor(path)
        finalize(self, os.close, self.descriptor)
        state = os.fstat(self.descriptor)
        self.size, self._changed = state.st_size, state.st_mtime_ns

    def read(self, places: list[tuple[int, int]], into: memoryview) -> None:
        """Reads ``(start, bytes)`` one after the other into memory.

        Raises:
            DataError: If the file is not what it was when it was opened, or cannot be read.
        """
        at, descriptor, preadv = 0, self.descriptor, os.preadv
        try:
            for start, length in places:
                stop = at + length
                while at < stop:  # one read may not be enough for gigabytes
                    read = preadv(descriptor, (into[at:stop],), start + length - (stop - at))
                    if not read:
                        raise self._no_longer()
                    at += read
            state = os.fstat(self.descriptor)
        except OSError as error:
            cause = error.strerror or str(error)
            raise DataError(f"{self.path} cannot be read: {cause}") from error
        if (state.st_size, state.st_mtime_ns) != (self.size, self._changed):
            raise self._no_longer()

    def _no_longer(self) -> DataError:
        return DataError(
            f"{self.path} was changed or cut short while it was read; write the data set again"
        )


def copy(column: Column, into: Tensor) -> None:
    """Copies all rows of a column into a contiguous tensor, on any device.

    Raises:
        DataError: If the column's file is not what it was when it was opened, or cannot be read.
    """
    if isinstance(column, FileColumn) and into.device.type == "cpu":
        column.read_into(into)
        return
    for start, block in blocks(column):
        into[start : start + len(block)].copy_(block)


def blocks(column: Column, rows: int | None = None, every: int = 1) -> Iterator[tuple[int, Tensor]]:
    """Yields a column block by block, each with the number of its first row.

    Args:
        column: The column.
        rows: The most rows in a block; by default as many as :data:`BLOCK` bytes hold.
        every: 1 yields each block, 2 every second one, and so on.

    Raises:
        DataError: If the column's file is not what it was when it was opened, or cannot be read.
    """
    step = rows or max(1, BLOCK * len(column) // max(1, column.nbytes))
    for start in range(0, len(column), step * every):
        yield start, column.narrow(0, start, min(step, len(column) - start))


def _runs(index: Tensor) -> list[tuple[int, int]]:
    """Joins rows that follow each other, so that each run is read at once: ``(start, count)``.

    Examples:
        >>> _runs(torch.tensor([4, 5, 6, 0, 9, 8]))
        [(4, 3), (0, 1), (9, 1), (8, 1)]
    """
    runs: list[tuple[int, int]] = []
    first = count = 0
    for row in index.tolist():  # cheaper than torch's operations for what a batch has
        if count and row == first + count:
            count += 1
            continue
        if count:
            runs.append((first, count))
        first, count = row, 1
    return [*runs, (first, count)] if count else []


def open_shard(path: Path) -> dict[str, FileColumn]:
    """Opens a file of rows; none of them is read.

    Returns:
        The columns by name.

    Raises:
        DataError: If it is missing, cannot be read, or its header is not what the format allows.
    """
    file = _File(path)
    try:
        return _columns(file)
    except ValueError as error:
        cause = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is damaged ({cause}); write the data set again") from error


def _columns(file: _File) -> dict[str, FileColumn]:
    """Reads the header and checks it against the file's size.

    Raises:
        ValueError: If they do not agree.
    """
    length = header_length(_bytes(file, 0, min(8, file.size)), file.size)
    stored, _ = parse_header(_bytes(file, 8, length), file.size)
    if flat := [name for name, each in stored.items() if not each.shape]:
        raise ValueError(f"{flat[0][:80]!r} has no rows")
    return {n: FileColumn(file, each.start, each.shape, each.dtype) for n, each in stored.items()}


def _bytes(file: _File, start: int, length: int) -> bytes:
    content = bytearray(length)
    file.read([(start, length)], memoryview(content))
    return bytes(content)
