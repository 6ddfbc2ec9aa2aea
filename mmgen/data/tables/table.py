"""Reads a CSV file as headings and rows of text, each with its place in the file."""

import codecs
import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from itertools import dropwhile
from pathlib import Path

from mmgen.brief import OneLine
from mmgen.data.cells import number
from mmgen.errors import DataError, listed
from mmgen.files.reading import Reader

DELIMITERS = ",;\t|"
"""The characters that may separate cells if the user names none."""

MOST = 256 * 2**20
"""The most bytes of a table: its rows take some ten times as much memory."""

_FILES = Reader(DataError)

MOST_COLUMNS = 10_000
"""The most columns of a table: every kind scores each of them."""


@dataclass(frozen=True, repr=False)
class BadRow(OneLine):
    """A row that cannot be used.

    Attributes:
        place: ``"line 17"``, or the file's name.
        column: The heading, or ``""`` if it concerns the whole row.
        cause: The fault, in words.
        problem: The sort of fault, by which bad rows are counted: ``"empty cell"``.
    """

    place: str
    column: str
    cause: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.column + ': ' if self.column else ''}{self.cause}"


@dataclass(frozen=True, repr=False)
class Row(OneLine):
    """One row: its place, and its cells in the order of the headings, stripped of blanks."""

    place: str
    cells: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Table(OneLine):
    """A table, in memory.

    Attributes:
        path: The file or folder it was read from.
        folder: The folder that its file names are relative to.
        headings: The columns' names, in order; one without a name is ``""``.
        rows: Those with as many cells as there are headings.
        bad: The others.
        missing: Words of cells that say that a value is missing, as an empty cell does.
    """

    path: Path
    folder: Path
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    bad: tuple[BadRow, ...] = field(default=())
    missing: frozenset[str] = frozenset()

    def column(self, heading: str) -> list[str]:
        """Returns the cells under a heading that hold a value: not empty, and no missing one."""
        position, without = self._positions[heading], self.missing | {""}
        return [cell for row in self.rows if (cell := row.cells[position]) not in without]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {heading: position for position, heading in enumerate(self.headings)}

    @property
    def named(self) -> list[str]:
        """The headings that are not empty."""
        return [heading for heading in self.headings if heading]


def read_table(
    path: Path,
    delimiter: str | None = None,
    encoding: str = "utf-8-sig",
    missing: Iterable[str] = (),
) -> Table:
    r"""Reads a CSV file with headings in its first line.

    Columns without a heading, such as a row number, are left out. Empty lines are skipped. File
    names in the table are relative to its folder.

    Args:
        path: The file; cells may be quoted and hold line breaks.
        delimiter: The character between cells; a tab may be written ``\t`` or ``tab``. By default
            the one between the headings: comma, semicolon, tab or bar.
        encoding: The encoding of the text.
        missing: Words of cells that say that a value is missing: ``NA``.

    Raises:
        DataError: If it is no file, no text, empty, has no usable headings, or a quote that never
            ends. Rows with too few or too many cells are no error; they are in :attr:`Table.bad`.
    """
    text = _text(path, encoding)
    separator = _delimiter(path, text, delimiter)
    records = dropwhile(lambda record: _blank(record[1]), _records(path, text, separator))
    line, first = next(records, (0, []))
    if not first:
        raise DataError(f"{path} is empty: its first line must name the columns")
    if isinstance(first, str):
        raise DataError(f"{path}, line {line:,}: {first}")
    named = [heading for heading in first if heading]
    if len(named) > MOST_COLUMNS:
        raise DataError(
            f"{path} has {len(named):,} columns; {MOST_COLUMNS:,} are the most. Is {separator!r} "
            "what separates them?"
        )
    if twice := sorted(heading for heading, count in Counter(named).items() if count > 1):
        raise DataError(
            f"{path}: the heading {listed(map(repr, twice))} occurs twice; "
            "give each column a name of its own"
        )
    if all(number(heading) is not None for heading in named):
        raise DataError(
            f"{path}, line {line}: no column has a heading in words; "
            "the first line must name the columns"
        )
    rows: list[Row] = []
    bad: list[BadRow] = []
    for line, cells in records:
        place = f"line {line}"
        if isinstance(cells, str):
            bad.append(BadRow(place, "", cells, "wrong quotes"))
        elif cells == first:
            bad.append(BadRow(place, "", "it repeats the headings", "headings again"))
        elif len(cells) == len(first):
            rows.append(Row(place, tuple(cells)))
        elif not _blank(cells):
            cause = f"it has {len(cells)} cells, but there are {len(first)} headings"
            bad.append(BadRow(place, "", cause, "too few or too many cells"))
    if data := [h for i, h in enumerate(first) if h and any(row.cells[i] == h for row in rows)]:
        raise DataError(
            f"{path}, line {line}: {data[0]!r} is a value of its column, not a heading; "
            "the first line must name the columns"
        )
    if not rows and not bad:
        raise DataError(f"{path} has headings, but no rows below them")
    return Table(path, path.parent, tuple(first), tuple(rows), tuple(bad), frozenset(missing))


def _blank(cells: list[str] | str) -> bool:
    """Returns whether a line is empty; one of empty cells is a row, if there are several."""
    return cells in ([], [""])


def _text(path: Path, encoding: str) -> str:
    if os.path.isdir(path):  # noqa: PTH112 - of a name that cannot be, it is no error
        raise DataError(f"{path} is no file; for a folder of pictures, see `mmgen data folder`")
    try:
        codecs.lookup(encoding)
    except (LookupError, ValueError):  # a ValueError if no encoding can be called so
        raise DataError(
            f"--encoding {encoding}: unknown; try utf-8, cp932 (Japanese), cp1252 or utf-16"
        ) from None
    try:
        text = _FILES.content(path, MOST).decode(encoding)
    except (UnicodeError, LookupError) as error:  # LookupError: a codec that is not for text
        raise DataError(
            f"{path} is not text in {encoding.removesuffix('-sig')} ({error}). If it is a CSV "
            "file, name its encoding: --encoding cp932 (Japanese), cp1252 or utf-16"
        ) from None
    if "\0" in text:
        raise DataError(f"{path} is not text: it holds zero bytes. Is it a CSV file?")
    return text


def _delimiter(path: Path, text: str, asked: str | None) -> str:
    """Returns the delimiter that was asked for, or the one that gives the most headings.

    csv.Sniffer guesses from the cells, where it takes the bars of ``bold|italic`` or the letters
    of a short column for it.
    """
    if asked is not None:
        delimiter = {"\\t": "\t", "tab": "\t"}.get(asked, asked)
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise DataError(f"--delimiter {asked!r}: it must be one character, such as ; or tab")
        return delimiter
    if path.suffix.lower() == ".tsv":
        return "\t"
    head = text.lstrip("\r\n")[:10_000].splitlines()[:1]
    counts = {d: len(next(csv.reader(head, delimiter=d), [])) for d in DELIMITERS}
    return max(DELIMITERS, key=lambda delimiter: counts[delimiter])


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yields per row the number of its first line, and its cells or the fault in its quotes.

    A quoted cell can span several lines.

    Raises:
        DataError: If a quote never ends.
    """
    lines, blank = StringIO(text, newline=""), delimiter == " "
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=not blank, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "expected after" in str(error):
                yield line, 'something follows a closing quote; a quote in a cell is written ""'
                continue
            if "end of data" in str(error):
                cause = 'a quote (") opens here that is never closed; one in a cell is written ""'
            elif "field larger" in str(error):
                cause = 'a cell is very long: most often, a quote (") opens that is never closed'
            else:
                cause = str(error)
            raise DataError(f"{path}, line {line}: {cause}") from None
        yield line, [cell.strip() for cell in cells]
