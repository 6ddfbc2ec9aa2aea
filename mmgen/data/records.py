"""Makes modalities of a source's records, and reads them chunk by chunk as rows of a table."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine, cut
from mmgen.console import stderr
from mmgen.data.tables.columns import Source as Columns
from mmgen.data.tables.columns import as_toml, build, sources, unused
from mmgen.data.tables.importing import RowReader, Values, first_of, says_splits
from mmgen.data.tables.table import MOST_COLUMNS, BadRow, Row, Table
from mmgen.data.tables.tree import SPLIT_WORDS
from mmgen.data.tables.votes import blaming
from mmgen.errors import ConfigError, DataError, listed, nearest
from mmgen.experiment import NAME
from mmgen.modality import Modality
from mmgen.registry.loading import Registry
from mmgen.seeding import generator
from mmgen.source import Content, Held, Record, Records

SEEN, SEEN_FILES = 5_000, 16
"""The first rows by which kinds are guessed, and how many of them with the files in their cells."""

MOST_DIFFERENT = 10_000
"""The most different texts of a column that are looked for beyond those rows: its classes."""

LETTERS = 1_000
"""The most characters of a cell by which kinds are guessed."""

MOST_BAD = 1_000
"""The rows that cannot be used after which nothing more is read."""

SPLITS = ("train", "validation", "test")

_NUMBER = re.compile(r"\d+")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


def content_of(records: Records, registry: Registry) -> Content:
    """Returns the data set that kinds make of records; rows are read when they are asked for.

    Which columns make which modality is printed as TOML to standard error, as ``mmgen data table``
    does.

    Raises:
        ConfigError: If what the user wants cannot be.
        DataError: If there is no row to train on, or there are fewer than two modalities; later,
            with the chunks, if a row cannot be used.
        PluginError: If a kind is unknown, or the plugin of one that is wanted fails.
    """
    if len(records.headings) > MOST_COLUMNS:
        raise DataError(
            f"{records.name} has {len(records.headings):,} columns; {MOST_COLUMNS:,} are the most"
        )
    if records.split_column is not None and records.split_column not in records.headings:
        known = listed(records.headings)
        near = nearest(records.split_column, records.headings)
        raise ConfigError(
            f"--split-column {records.split_column}: no column{near}; there are {known}"
        )
    with TemporaryDirectory() as folder:
        table = _seen(records, Path(folder))
        found = _assigned(table, records, registry)
        reserved = [records.split_column] if records.split_column else []
        stderr.print(as_toml(found, unused(table, found, reserved)) + "\n")
        if not reserved and not records.splits:
            for heading in says_splits(table):
                stderr.print(f"{heading} seems to name splits: --split-column {heading}")
    reading = _Reading(records, found, build(found, registry), registry)
    return Content(
        about=reading.about,
        modalities={name: each.to_config() for name, each in reading.modalities.items()},
        splits=reading.splits(),
        rows=records.count,
    )


def _seen(records: Records, folder: Path) -> Table:
    """Returns the rows by which kinds are guessed: the first, and texts that come later only.

    Of columns of files, some that are spread over all rows.
    """
    headings = tuple(records.headings)
    texts = [heading for heading in headings if heading not in records.files]
    first = _picked(records, texts, np.arange(min(SEEN, records.count))) if texts else ()
    rows = [{h: _text(cell)[:LETTERS] for h, cell in record.cells.items()} for record in first]
    later = []
    for heading in texts:
        known = {row[heading] for row in rows}
        settled = bool(records.headings[heading])
        words = None if settled else records.different(heading, MOST_DIFFERENT)
        later.append([word[:LETTERS] for word in words or () if word not in known])
    rows += [dict(zip(texts, each, strict=True)) for each in zip_longest(*later, fillvalue="")]
    if records.files:
        spread = np.linspace(0, records.count - 1, min(SEEN_FILES, records.count)).astype(int)
        for number, record in enumerate(_picked(records, records.files, spread)):
            rows[number:] = rows[number:] or [{}]
            rows[number] |= _laid(record, folder, number)
    cells = (tuple(row.get(heading, "") for heading in headings) for row in rows)
    return Table(Path(records.name), folder, headings, tuple(Row("", each) for each in cells))


def _picked(
    records: Records, headings: Sequence[str], rows: NDArray[np.integer[Any]]
) -> Iterator[Record]:
    chosen = np.zeros(records.count, np.bool_)
    chosen[rows] = True
    for chunk in records.read(headings, chosen):
        yield from chunk


def _text(cell: str | Held | None) -> str:
    """Returns a cell as a table has it: what is not there is empty."""
    return cell if isinstance(cell, str) else ""


def _laid(record: Record, folder: Path, number: int) -> dict[str, str]:
    """Returns a row's cells as a table has them, with its files laid down in a folder.

    They are read as a table's are: by the kind, within the limits of
    :mod:`mmgen.data.raster`. Of the names that they bring, only the suffixes are kept.
    """
    cells = {}
    for column, (heading, cell) in enumerate(record.cells.items()):
        cells[heading] = _text(cell)
        if isinstance(cell, Held):
            suffix = _SUFFIX.fullmatch(Path(cell.name).suffix)
            cells[heading] = f"{number}-{column}{suffix[0] if suffix else ''}"
            (folder / cells[heading]).write_bytes(cell.content)
    return cells


def _assigned(table: Table, records: Records, registry: Registry) -> dict[str, Columns]:
    """Assigns columns to modalities: as the user wants, as their types say, as kinds score them."""
    settled: dict[str, dict[str, Any]] = {}
    for heading, configuration in records.headings.items():
        if configuration and heading != records.split_column:
            settled[_name(heading, settled)] = {"columns": [heading], **configuration}
    reserved = [records.split_column] if records.split_column else []
    if records.wanted:
        wanted = {n: _settled(n, given, settled, registry) for n, given in records.wanted.items()}
        found = sources(table, registry, wanted, reserved)
        for name, source in found.items():
            _check_files(name, source, records)
        return found
    by_type = [heading for heading, configuration in records.headings.items() if configuration]
    found = sources(table, registry, settled) if settled else {}
    for name, source in sources(table, registry, {}, [*reserved, *by_type]).items():
        # A column of words that look like names of files opens none of them.
        if source.cls.cells_are_paths == ({*source.columns} <= {*records.files}):
            found[_name(name, found)] = source
    order = list(records.headings)
    return dict(sorted(found.items(), key=lambda each: order.index(each[1].columns[0])))


def _name(heading: str, taken: Mapping[str, object]) -> str:
    """Returns a heading as the name of a modality that there is none of yet."""
    word = re.sub(r"[^A-Za-z0-9_-]+", "_", heading).strip("_")
    name = free = word if NAME.fullmatch(word) else "column"
    number = 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _settled(
    name: str,
    given: Mapping[str, Any],
    settled: Mapping[str, Mapping[str, Any]],
    registry: Registry,
) -> dict[str, Any]:
    """Returns what the user wants of a modality, with what the type of its column says."""
    columns = given.get("columns", [name])
    for each in settled.values():
        if columns in (each["columns"], each["columns"][0]):
            kind = str(given.get("kind", each["kind"]))
            known = {"columns", *registry.get(kind).model_fields}
            fields = {key: value for key, value in each.items() if key in known}
            return {"kind": kind, **fields, **given}
    return dict(given)


def _check_files(name: str, source: Columns, records: Records) -> None:
    held = [column in records.files for column in source.columns]
    if source.cls.cells_are_paths and not all(held):
        raise ConfigError(
            f"modalities.{name}: kind {source.cls.kind!r} reads files, and "
            f"{listed(source.columns)} holds none: names of files elsewhere are not opened"
        )
    if any(held) and not source.cls.cells_are_paths:
        raise ConfigError(
            f"modalities.{name}: {listed(source.columns)} holds files, which kind "
            f"{source.cls.kind!r} does not read"
        )


def _padded(number: re.Match[str]) -> str:
    return number[0].zfill(20)


@dataclass
class _Reading(OneLine):
    """The rows of records on their way to stored values; those that cannot be used are counted.

    Attributes:
        records: What they are read from.
        found: The columns of each modality.
        modalities: By name.
        registry: Tells which plugin a kind is from.
        bad: Rows that cannot be used, the first of them.
        problems: How many there are of each sort.
        seen: The modalities of which a row had a value.
    """

    records: Records
    found: Mapping[str, Columns]
    modalities: Mapping[str, Modality]
    registry: Registry
    bad: list[BadRow] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)

    def splits(self) -> dict[str, Iterator[Batch]]:
        """Returns for each split that has rows its chunks of stored values."""
        of = self._split_of_each()
        there = [number for number in range(len(SPLITS)) if (of == number).any()]
        if 0 not in there:
            raise DataError(f"{self.records.name}: no row to train on{self._told()}")
        return {SPLITS[n]: self._chunks(of == n, SPLITS[n], last=n == there[-1]) for n in there}

    def _split_of_each(self) -> NDArray[np.int8]:
        """Returns the number of each row's split, or -1."""
        of = np.full(self.records.count, -1, np.int8)
        if self.records.split_column is not None:
            row = 0
            for chunk in self.records.read([self.records.split_column], np.ones(len(of), np.bool_)):
                for record in chunk:
                    of[row] = self._said(record, self.records.split_column)
                    row += 1
        elif self.records.splits:
            for split, rows in self.records.splits.items():
                of[rows.start : rows.stop] = SPLITS.index(split)
        else:  # as of a table
            order = torch.randperm(len(of), generator=generator(self.records.seed, "splits"))
            shares = (self.records.validation, self.records.test)
            validation, test = (round(len(of) * share) for share in shares)
            train = max(1, len(of) - validation - test)
            of[order.numpy()] = 2
            of[order[: train + validation].numpy()] = 1
            of[order[:train].numpy()] = 0
        return of

    def _said(self, record: Record, heading: str) -> int:
        word = _text(record.cells[heading])
        if word.lower() in SPLIT_WORDS:
            return SPLITS.index(SPLIT_WORDS[word.lower()])
        if not word:
            self._leave_out(BadRow(record.place, heading, "the cell is empty", "empty cell"))
        else:
            cause = cut(f"it must be train, validation or test, not {word!r}")
            self._leave_out(BadRow(record.place, heading, cause, "no such split"))
        return -1

    def _chunks(self, chosen: NDArray[np.bool_], split: str, *, last: bool) -> Iterator[Batch]:
        columns = [column for source in self.found.values() for column in source.columns]
        used = False
        for chunk in self.records.read(list(dict.fromkeys(columns)), chosen):
            values: dict[str, list[Tensor | None]] = {name: [] for name in self.modalities}
            for row in self._values(chunk):
                for name, value in row.items():
                    values[name].append(value)
            if next(iter(values.values())):
                used = True
                lacking = {
                    name: [v is not None for v in several] for name, several in values.items()
                }
                self.seen |= {name for name, has in lacking.items() if any(has)}
                masks = {
                    name: torch.tensor(has, device="cpu")
                    for name, has in lacking.items()
                    if not all(has)
                }
                stored = {name: self._stacked(name, several) for name, several in values.items()}
                yield Batch(stored, masks or None)
        if self.bad and not self.records.skip_bad and (last or not used):
            raise self._refused(all_seen=last)
        if not used:
            raise DataError(f"{self.records.name}: no row of {split} can be used{self._told()}")
        if last and (unseen := [name for name in self.modalities if name not in self.seen]):
            of = listed(self.found[unseen[0]].columns)
            raise DataError(f"{self.records.name}: no row has a value of {unseen[0]!r}, of {of}")

    def _values(self, chunk: Sequence[Record]) -> Iterator[Values]:
        """Yields the stored values of the rows that can be used."""
        with TemporaryDirectory() as folder:
            laid = [_laid(record, Path(folder), n) for n, record in enumerate(chunk)]
            rows = [
                Row(each.place, (*cells.values(),)) for each, cells in zip(chunk, laid, strict=True)
            ]
            table = Table(Path(self.records.name), Path(folder), (*laid[0],), (*rows,))
            reader = RowReader(table, self.found, self.modalities, self.registry, None)
            for read in reader.rows(int):
                if isinstance(read, BadRow):
                    self._leave_out(read)
                else:
                    yield read[1]

    def _stacked(self, name: str, values: list[Tensor | None]) -> Tensor:
        """Returns values as they are stored, zeros where there are none."""
        modality = self.modalities[name]
        with blaming(type(modality), self.registry, "store all rows in one form"):
            there = next((value for value in values if value is not None), None)
            if there is None:  # an example is of the form that any value is stored in
                numbers = torch.zeros(1, dtype=torch.int64, device="cpu")
                there = modality.example(numbers, generator("form", name))[0]
            blank = torch.zeros_like(there)
            return torch.stack([blank if value is None else value for value in values])

    def _leave_out(self, row: BadRow) -> None:
        self.problems[row.problem] += 1
        self.bad += [row] * (len(self.bad) < MOST_BAD)
        if len(self.bad) == MOST_BAD and not self.records.skip_bad:
            raise self._refused(all_seen=False)

    def _refused(self, *, all_seen: bool) -> DataError:
        at_least = "at least " * (not all_seen)
        return DataError(
            f"{self.records.name}: {at_least}{len(self.bad):,} of {self.records.count:,} rows "
            f"cannot be used{self._told()}\nFix them, or leave them out with --skip-bad"
        )

    def _told(self) -> str:
        in_order = sorted(self.bad, key=lambda row: _NUMBER.sub(_padded, row.place))
        return f":\n{first_of(in_order)}" if self.bad else ""

    def about(self) -> str:
        """Says where the rows are from, and which were left out."""
        if not self.bad:
            return f"The rows of {self.records.name}."
        counts = ", ".join(f"{what} ×{n:,}" for what, n in self.problems.most_common())
        return (
            f"The rows of {self.records.name}, without {self.problems.total():,} that could not be "
            f"used ({counts}), such as {self.bad[0]}."
        )
