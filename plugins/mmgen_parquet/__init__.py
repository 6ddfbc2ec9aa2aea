"""The source ``parquet``: Parquet files, with the types that Hugging Face ``datasets`` writes."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from mmgen.brief import OneLine
from mmgen.data.cells import as_name
from mmgen.errors import DataError, MmgenError, listed
from mmgen.files.reading import Reader, open_regular
from mmgen.hooks import hookimpl
from mmgen.source import Held, Record, Records, Source

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

T = TypeVar("T")

ROWS, BYTES = 256, 2**26
"""The most rows that are read at a time, and about how many bytes."""

MOST_FILES, MOST_ROWS = 100_000, 10**9

LONGEST = 10_000
"""The most numbers of a list that is a vector."""

SHORT, UNPACKED = 2**12, 2**30
"""The bytes of a text, on average, that is short; and the most that values unpack to at once."""

BUFFER = 2**20
"""The bytes of a column that are read from a file at once."""

Share = Annotated[float, Field(ge=0, lt=1)]


class Parquet(Source):
    """Read Parquet files, as those of Hugging Face: columns of any type become modalities."""

    kind: ClassVar[str] = "parquet"
    api_version: ClassVar[int] = 1
    files: tuple[Path, ...] = Field(
        min_length=1, description="Parquet files, or folders that hold them."
    )
    config: Path | None = Field(
        None,
        description="A TOML file that says which columns make which modality, as it is printed.",
    )
    validation: Share | None = Field(
        None,
        description="Share of the rows to hold out for validation, from 0 to 1; by default as the "
        "files are called (train-00000-of-00001.parquet), or else 0.1.",
    )
    test: Share | None = Field(
        None, description="Share of the rows to hold out for tests, from 0 to 1; likewise."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Fixes all that is random: same seed, same numbers."
    )
    split_column: str | None = Field(
        None, description="The column that says of each row: train, validation or test."
    )
    skip_bad: bool = Field(
        False, description="Leave out rows that cannot be used, instead of stopping."
    )

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if self.split_column is not None and (self.validation, self.test) != (None, None):
            raise ValueError(
                f"the column {self.split_column!r} says which rows are held out: leave out "
                "--validation and --test"
            )
        if (self.validation or 0) + (self.test or 0) >= 1:
            raise ValueError("--validation and --test are shares of the rows, less than 1 together")
        return self

    def read(self) -> Records:
        """Returns the rows of all files, in the order of their splits and names."""
        from mmgen.data.tables.columns import read_wanted

        wanted = {} if self.config is None else read_wanted(self.config)
        files = _files(self.files)
        by_name = self.split_column is None and (self.validation, self.test) == (None, None)
        named = _by_split(files) if by_name else {}
        tables = _Tables([path for paths in named.values() for path in paths] if named else files)
        splits, start = {}, 0
        for split, paths in named.items():
            stop = start + sum(tables.rows[path] for path in paths)
            splits[split], start = range(start, stop), stop
        one = self.files[0].resolve().name
        return Records(
            name=one if len(self.files) == 1 else f"{one} and {len(self.files) - 1:,} more",
            headings={name: column.settled for name, column in tables.columns.items()},
            files=[name for name, column in tables.columns.items() if column.file],
            count=sum(tables.rows.values()),
            read=tables.read,
            different=tables.different,
            splits=splits,
            wanted=wanted,
            validation=0.1 if self.validation is None else self.validation,
            test=0.1 if self.test is None else self.test,
            seed=self.seed,
            split_column=self.split_column,
            skip_bad=self.skip_bad,
        )


def _files(paths: Sequence[Path]) -> list[Path]:
    """Returns the files, and those that folders hold, by name; hidden ones are passed over."""
    found: dict[Path, None] = {}
    for path in paths:
        within = [path]
        if path.is_dir():
            within = sorted(
                each
                for each in path.rglob("*.parquet")
                if not any(part.startswith(".") for part in each.relative_to(path).parts)
            )
            if not within:
                raise DataError(f"{path} holds no file *.parquet")
        found |= dict.fromkeys(within)
    if len(found) > MOST_FILES:
        raise DataError(
            f"there are {len(found):,} files, more than the {MOST_FILES:,} of one data set"
        )
    return [*found]


def _by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Returns the files of each split by their names, or by their folders'; none if one lacks it.

    Where all files are of one split, their names say nothing about what to hold out.
    """
    from mmgen.data.tables.tree import SPLIT_WORDS

    splits: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for path in files:
        words = (re.split(r"[-_.]", name)[0].lower() for name in (path.name, path.parent.name))
        split = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)
        if split is None:
            return {}
        splits[split].append(path)
    named = {split: paths for split, paths in splits.items() if paths}
    return named if len(named) > 1 else {}


@dataclass(frozen=True, repr=False)
class _Column(OneLine):
    """A column: what its values are as cells, and which modality it is by its type alone."""

    type: str
    cell: Callable[[Any], str | Held | None]
    file: bool = False
    classes: bool = False
    settled: Mapping[str, Any] = field(default_factory=dict)


class _Tables:
    """Several Parquet files as one table.

    Args:
        files: In order; the first one's columns are those of all.

    Attributes:
        columns: By heading, those that some kind could read.
        rows: How many rows each file has.

    Raises:
        DataError: If one cannot be read, has other columns, or there are no rows.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.rows: dict[Path, int] = {}
        self.columns: dict[str, _Column] = {}
        for path in files:
            with _opened(path) as file:
                schema = file.schema_arrow
                self.rows[path] = file.metadata.num_rows
                if path == files[0]:
                    self._set_columns(path, file)
            types = {each.name: str(_plain(each.type)) for each in schema}
            for name, column in self.columns.items():
                if types.get(name) != column.type:
                    raise DataError(
                        f"{path}: column {name!r} is {types.get(name, 'not there')}, "
                        f"but {column.type} in {files[0]}"
                    )
        if not 0 < sum(self.rows.values()) <= MOST_ROWS or min(self.rows.values()) < 0:
            told = sum(self.rows.values())
            raise DataError(
                f"{files[0]}: there are {told or 'no'} rows; {MOST_ROWS:,} are the most"
            )

    def _set_columns(self, path: Path, file: "pq.ParquetFile") -> None:
        schema = file.schema_arrow
        if twice := {name for name in schema.names if schema.names.count(name) > 1}:
            raise DataError(f"{path}: the columns {listed(sorted(twice))} occur twice")
        features = _features(path, schema.metadata or {})
        for each in schema:
            first = _first_list(path, file, each)
            if column := _column(each.name, each.type, features.get(each.name), first):
                self.columns[each.name] = column

    def read(self, headings: Sequence[str], chosen: "NDArray[np.bool_]") -> Iterator[list[Record]]:
        """Yields the chosen rows of all files, row group by row group."""
        start = 0
        for path, count in self.rows.items():
            part = chosen[start : start + count]
            start += count
            if part.any():
                yield from self._rows(path, headings, part)

    def _rows(
        self, path: Path, headings: Sequence[str], chosen: "NDArray[np.bool_]"
    ) -> Iterator[list[Record]]:
        where = f"{path.name}, " * (len(self.rows) > 1)
        records, held = [], 0
        for start, batch in _batches(path, headings, chosen):
            for row in chosen[start : start + batch.num_rows].nonzero()[0].tolist():
                cells = {}
                for heading, values in zip(headings, batch.columns, strict=True):
                    cells[heading] = cell = self.columns[heading].cell(values[row].as_py())
                    held += len(cell.content) if isinstance(cell, Held) else len(cell or "")
                records.append(Record(f"{where}row {start + row + 1}", cells))
                if held >= BYTES or len(records) == ROWS:
                    yield records
                    records, held = [], 0
        if records:
            yield records

    def different(self, heading: str, most: int) -> list[str] | None:
        """Returns the different texts of a column of classes, in the order of their first rows."""
        import numpy as np

        column = self.columns[heading]
        found: dict[str, None] = {}
        for path, count in self.rows.items() if column.classes else ():
            for _, batch in _batches(path, [heading], np.ones(count, np.bool_)):
                values = batch.column(0)
                flat = values if hasattr(values, "offsets") else values.unique()
                cells = (column.cell(value) for value in flat.to_pylist())
                found |= dict.fromkeys(cell for cell in cells if isinstance(cell, str))
                if len(found) > most:
                    return None
        return [*found]


def _batches(
    path: Path, headings: Sequence[str], chosen: "NDArray[np.bool_]"
) -> "Iterator[tuple[int, pa.RecordBatch]]":
    """Yields batches of a file with a chosen row in them, and the number of each's first row."""
    with _opened(path) as file:
        start = 0
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            stop = start + group.num_rows
            if chosen[start:stop].any():
                batches = file.iter_batches(
                    batch_size=_at_once(group),
                    row_groups=[number],
                    columns=[*headings],
                    use_threads=False,
                )
                first = start
                while (batch := _read(path, partial(next, batches, None))) is not None:
                    if chosen[first : first + batch.num_rows].any():
                        yield first, batch.select([*headings])
                    first += batch.num_rows
                if first != stop:
                    raise DataError(f"{path}: row group {number} lacks rows; fetch the file again")
            start = stop


@contextmanager
def _opened(path: Path) -> "Iterator[pq.ParquetFile]":
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MmgenError(
            'reading Parquet files needs pyarrow: pip install "mmgen-vae[parquet]"'
        ) from None
    try:
        descriptor = open_regular(path)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    with os.fdopen(descriptor, "rb") as opened:
        metadata = _read(path, lambda: pq.read_metadata(opened))
        texts = _short_texts(metadata)
        with _read(
            path,
            lambda: pq.ParquetFile(
                opened, metadata=metadata, read_dictionary=texts, buffer_size=BUFFER
            ),
        ) as file:
            yield file


def _short_texts(metadata: "pq.FileMetaData") -> list[str]:
    """Returns the columns of short texts, to be read as dictionaries, as most are stored.

    A dictionary holds a value once however many rows have it; unpacked, a file of kilobytes could
    fill the memory. Of long values it would be the larger burden: see :func:`_at_once`.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    found = []
    for number in range(metadata.num_columns):
        chunks = [group.column(number) for group in groups]
        size = sum(chunk.total_uncompressed_size for chunk in chunks)
        column = metadata.schema.column(number)
        if column.physical_type == "BYTE_ARRAY" and size <= SHORT * metadata.num_rows:
            found.append(column.path)
    return found


def _at_once(group: "pq.RowGroupMetaData") -> int:
    """Returns how many rows of a row group to read at a time, so that they take little memory.

    Each of them might have a dictionary's longest value, which may be all of it.
    """
    chunks = [group.column(number) for number in range(group.num_columns)]
    packed = [
        chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.has_dictionary_page
        and chunk.physical_type == "BYTE_ARRAY"
        and chunk.total_uncompressed_size > SHORT * group.num_rows
    ]
    row = max(1, group.total_byte_size // max(1, group.num_rows))
    return int(max(1, min(ROWS, BYTES // row, UNPACKED // max([1, *packed]))))


def _read(path: Path, call: Callable[[], T]) -> T:
    """Calls what reads a file.

    Raises:
        DataError: Whatever it raises: damaged files make it raise what it meets.
    """
    try:
        return call()
    except Exception as error:
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: is no Parquet file that can be read: {cause}") from None


def _features(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Returns what Hugging Face notes of each column; nothing if it notes nothing."""
    text = metadata.get(b"huggingface", b"{}").decode("utf-8", "replace")
    told = Reader(DataError).json_object(text, f"{path}, its metadata huggingface")
    info = told.get("info")
    features = info.get("features") if isinstance(info, dict) else None
    return features if isinstance(features, dict) else {}


def _classes(feature: Any) -> tuple[str, ...]:
    """Returns the names of a ``ClassLabel``, without commas, or none."""
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return ()
    names = feature.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    plain = tuple(as_name(name) for name in names)
    return plain if all(plain) and len({*plain}) == len(names) >= 2 else ()


def _element(feature: Any) -> Any:
    """Returns the feature of a list's elements."""
    if isinstance(feature, list):
        return feature[0] if feature else None
    return feature.get("feature") if isinstance(feature, dict) else None


def _column(name: str, kind: "pa.DataType", feature: Any, length: int) -> _Column | None:
    """Returns how a column is read; ``None`` of types that no kind could read.

    Args:
        name: The heading.
        kind: Its type.
        feature: What Hugging Face notes of it.
        length: Of lists, the first one's.
    """
    from pyarrow import types

    plain = _plain(kind)
    if types.is_struct(plain):
        inside = {each.name: _plain(each.type) for each in plain}
        picture = "bytes" in inside and types.is_binary(inside["bytes"])
        return _Column(str(plain), _held, file=True) if picture else None
    if types.is_binary(plain) or types.is_fixed_size_binary(plain):
        return _Column(str(plain), lambda value: _held({"bytes": value}), file=True)
    if types.is_list(plain) or types.is_large_list(plain) or types.is_fixed_size_list(plain):
        return _list(name, plain, _element(feature), length)
    if names := _classes(feature) if types.is_integer(plain) else ():
        return _Column(str(plain), _class_of(names), settled={"kind": "label", "classes": [*names]})
    measured = types.is_floating(plain) or types.is_decimal(plain) or types.is_boolean(plain)
    return _Column(str(plain), _text, classes=not measured) if _is_plain(plain) else None


def _list(name: str, plain: "pa.DataType", feature: Any, length: int) -> _Column | None:
    """Returns how a column of lists is read: of classes, of words, of numbers."""
    from pyarrow import types

    kind, inner = str(plain), _plain(plain.value_type)
    if names := _classes(feature) if types.is_integer(inner) else ():
        settled = {"kind": "attributes", "names": [*names]}
        return _Column(kind, _joined("|", _class_of(names)), settled=settled)
    if types.is_string(inner):
        return _Column(kind, _joined("|", _text), classes=True)
    if _is_plain(inner) and 0 < length <= LONGEST:
        settled = {"kind": "vector", "names": [f"{as_name(name)} {n}" for n in range(length)]}
        return _Column(kind, _joined(",", _text), settled=settled)
    return None


def _plain(kind: "pa.DataType") -> "pa.DataType":
    """Returns a type without what it is only stored as: dictionaries, and large or viewed texts."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    return kind


def _is_plain(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(
        types.is_string(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
    )


def _text(value: Any) -> str | None:
    """Returns a value as it would stand in a CSV file."""
    if value is None or isinstance(value, str):
        return None if value is None else value.strip()
    return str(int(value)) if isinstance(value, bool) else str(value)


def _held(value: Mapping[str, Any] | None) -> Held | None:
    """Returns the file of a picture's cell, ``{bytes, path}``; a path alone is not opened."""
    content = None if value is None else value["bytes"]
    return None if content is None else Held(str((value or {}).get("path") or ""), content)


def _class_of(names: Sequence[str]) -> Callable[[Any], str | None]:
    def name(value: int | None) -> str | None:
        if value is None or value == -1:  # how datasets marks a row without a class
            return None
        return names[value] if 0 <= value < len(names) else f"number {value}"

    return name


def _joined(
    separator: str, cell: Callable[[Any], str | None]
) -> Callable[[Sequence[Any] | None], str | None]:
    def joined(values: Sequence[Any] | None) -> str | None:
        if values is None:
            return None
        return separator.join((cell(value) or "").replace(separator, " ") for value in values)

    return joined


def _first_list(path: Path, file: "pq.ParquetFile", column: "pa.Field") -> int:
    """Returns the length of the first list of a column that is there; 0 if it has no lists."""
    from pyarrow import types

    if types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    lists = types.is_list(column.type) or types.is_large_list(column.type)
    if not lists or not file.num_row_groups:
        return 0
    batches = file.iter_batches(
        batch_size=ROWS, row_groups=[0], columns=[column.name], use_threads=False
    )
    first = _read(path, lambda: next(batches, None))
    lengths = [] if first is None else first.column(0).value_lengths().drop_null().to_pylist()
    return int(lengths[0]) if lengths else 0


@hookimpl
def mmgen_sources() -> list[type[Source]]:
    """Provides ``parquet``."""
    return [Parquet]
