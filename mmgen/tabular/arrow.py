"""Reads a Parquet file chunk by chunk: cells in words, as a CSV file would have them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmgen.errors import DataError
from mmgen.files.reading import Reader

_FILES = Reader(DataError)

CHUNK = 1000
"""Rows that are read at a time."""


class ArrowFile:
    """An opened Parquet file.

    Attributes:
        headings: The columns' names, in order.
        schema: Of the columns.
        size: How many rows there are.
        read: How many were read.

    Raises:
        DataError: If it is no Parquet file.
    """

    def __init__(self, path: Path, file: Any) -> None:
        import pyarrow.parquet as pq
        from pyarrow import ArrowException

        self.path, self._faults = path, (ArrowException, OSError)
        try:
            self._file = pq.ParquetFile(file)
            self.schema = self._file.schema_arrow
        except self._faults as error:
            raise self._damaged(error) from None
        self.headings = tuple(self.schema.names)
        if len({*self.headings}) < len(self.headings):
            raise DataError(f"{path}: two columns have one name; give each a name of its own")
        self.size, self.read = self._file.metadata.num_rows, 0

    def batches(self) -> Iterator[Any]:
        """Yields record batches of at most :data:`CHUNK` rows.

        Raises:
            DataError: If the file is damaged.
        """
        try:
            for batch in self._file.iter_batches(CHUNK):
                yield batch
                self.read += batch.num_rows
        except self._faults as error:
            raise self._damaged(error) from None

    def words(self, batch: Any) -> list[tuple[str, list[str]]]:
        """Returns the place of each row of a batch, and its cells in words."""
        columns = [[word_of(value) for value in column.to_pylist()] for column in batch.columns]
        rows = zip(*columns, strict=True) if columns else ()
        return [(f"row {self.read + n}", list(cells)) for n, cells in enumerate(rows, start=1)]

    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """Yields the place of each row, and its cells in words."""
        for batch in self.batches():
            yield from self.words(batch)

    def _damaged(self, error: Exception) -> DataError:
        cause = " ".join(str(error).split())[:200]
        return DataError(f"{self.path}: is damaged, or no Parquet file ({cause})")


@contextmanager
def opened(path: Path) -> Iterator[ArrowFile]:
    """Opens a Parquet file.

    Raises:
        DataError: If it cannot be read.
    """
    with _FILES.opened(path) as file:
        yield ArrowFile(path, file)


def word_of(value: Any) -> str:
    """Writes a cell as a CSV file would have it; nothing, if there is none.

    Examples:
        >>> [word_of(v) for v in (None, float("nan"), 7.0, 1.5, True, " a", ["bold", "wide"])]
        ['', '', '7', '1.5', '1', 'a', 'bold|wide']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list):
        return "|".join(word_of(each) for each in value)
    return str(value).strip()
