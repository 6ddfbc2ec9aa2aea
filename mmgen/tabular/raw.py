"""Reads a CSV file row by row as it is: the bytes of every cell, and the words that they mean.

:mod:`mmgen.data.tables.table` reads whole tables to learn from, and says the same of quotes, blanks
and delimiters. Here a table may be of any length, and what nobody changes goes out as it came in:
quotes, blanks, the encoding, the ends of lines.
"""

import codecs
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from mmgen.brief import OneLine
from mmgen.data.tables.table import DELIMITERS, MOST_COLUMNS
from mmgen.errors import DataError, WriteError, listed
from mmgen.files.reading import Reader

_FILES = Reader(DataError)

MOST_LINE = 2**24
"""The most bytes of a row."""

MOST_CELL = 131_072
"""The most bytes of a cell, as of Python's own reader: more is a quote that is never closed."""

HEAD = 2**16
"""Of so many bytes it is told how lines end."""

MARKS = {
    "utf-8": (codecs.BOM_UTF8, "utf-8"),
    "utf-32-le": (codecs.BOM_UTF32_LE, "utf-32-le"),
    "utf-32-be": (codecs.BOM_UTF32_BE, "utf-32-be"),
    "utf-16-le": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "utf-16-be": (codecs.BOM_UTF16_BE, "utf-16-be"),
}
"""Marks at the start of a file, by what is written after them."""


@dataclass(frozen=True, repr=False)
class Record(OneLine):
    """One row of the file.

    Attributes:
        line: The number of its first line.
        fields: Its cells as they stand in the file; none of an empty line.
        end: How the row ends: a line break, or nothing.
        problem: Why it cannot be used, if so.
    """

    line: int
    fields: tuple[bytes, ...]
    end: bytes
    problem: str = ""

    @property
    def place(self) -> str:
        """``"line 17"``."""
        return f"line {self.line}"


class CsvFile:
    """An opened table, its first line read.

    Args:
        path: The file.
        delimiter: What separates cells; by default found out of the headings.
        encoding: Of the text; a mark at the start is heeded, and kept.

    Attributes:
        headings: The columns' names, in order; one without a name is ``""``.
        head: The bytes before the first row: mark, empty lines, headings with what ends them.
        size: Of the file, in bytes.

    Raises:
        DataError: If it is no file, no text, empty, or its headings cannot be used.
    """

    def __init__(self, path: Path, file: Any, delimiter: str | None, encoding: str) -> None:
        self.path, self._file = path, file
        self.size = os.fstat(file.fileno()).st_size
        self.mark, self.encoding = _encoding(file, encoding)
        self._foreign = self.encoding.startswith(("utf-16", "utf-32"))
        self._decoding = "utf-8" if self._foreign else self.encoding
        if self._foreign:
            self._text = TextIOWrapper(file, self.encoding, newline="\n")
        start = file.tell()
        self._cr = not self._foreign and _ends_in_returns(file.read(HEAD))
        file.seek(start)
        self._lines = self._numbered()
        self._asked = delimiter
        self.delimiter = b","
        self.blank_lines: list[Record] = []
        self.first = self._first()
        self.headings = tuple(self.text(field) for field in self.first.fields)
        self._check_headings()
        self.newline = self.first.end or b"\n"

    @property
    def read(self) -> int:
        """How many bytes were read."""
        return int(self._file.tell())

    def text(self, field: bytes) -> str:
        """Returns what a cell says: without quotes, and blanks around it.

        Raises:
            DataError: If it is no text in the file's encoding.
        """
        words = field.decode(self._decoding).strip()
        if words.startswith('"') and field.lstrip(b" ").startswith(b'"'):
            words = words[1:-1].replace('""', '"').strip()
        return words

    def field(self, words: str) -> bytes:
        """Writes a cell, in quotes where it needs them.

        Raises:
            DataError: If the file's encoding has no such letters.
        """
        if any(sign in words for sign in ('"', "\r", "\n", self.delimiter.decode())) or (
            words != words.strip()
        ):
            words = '"' + words.replace('"', '""') + '"'
        try:
            words.encode(self.encoding)
            return words.encode(self._decoding)
        except UnicodeEncodeError:
            raise WriteError(
                f"{self.path}: {words!r} cannot be written in {self.encoding}; save the table as "
                "UTF-8, and name its encoding: --encoding utf-8"
            ) from None

    def row(self, fields: tuple[bytes, ...] | list[bytes], end: bytes) -> bytes:
        """Writes a row as the file has it."""
        content = self.delimiter.join(fields) + end
        return content.decode("utf-8").encode(self.encoding) if self._foreign else content

    def records(self) -> Iterator[Record]:
        """Yields the rows below the headings; empty lines have no fields.

        Raises:
            DataError: If a line is no text, is too long, or a quote never ends.
        """
        count = len(self.headings)
        for record in self._records():
            if not record.fields or record.problem:
                yield record
            elif len(record.fields) != count:
                problem = f"it has {len(record.fields)} cells, but there are {count} headings"
                yield Record(record.line, record.fields, record.end, problem)
            elif record.fields == self.first.fields:
                yield Record(record.line, record.fields, record.end, "it repeats the headings")
            else:
                yield record

    def _numbered(self) -> Iterator[tuple[int, bytes]]:
        """Yields lines with what ends them, and their numbers."""
        number = 0
        while True:
            number += 1
            try:
                line = self._line()
            except UnicodeError as error:
                raise self._no_text(number, error) from None
            if not line:
                return
            if len(line) > MOST_LINE:
                raise DataError(f"{self.path}, line {number:,}: has more than {MOST_LINE:,} bytes")
            if b"\0" in line:
                raise DataError(f"{self.path} is not text: it holds zero bytes. Is it a CSV file?")
            yield number, line

    def _line(self) -> bytes:
        if self._foreign:
            return self._text.readline(MOST_LINE + 1).encode("utf-8")
        if not self._cr:
            line: bytes = self._file.readline(MOST_LINE + 1)
            return line
        letters = bytearray()
        while (byte := self._file.read(1)) and len(letters) <= MOST_LINE:  # Mac OS 9 is long ago
            letters += byte
            if byte == b"\r":
                break
        return bytes(letters)

    def _no_text(self, line: int, error: UnicodeError) -> DataError:
        return DataError(
            f"{self.path}, line {line:,}: is not text in {self.encoding} ({error}). If it is a CSV "
            "file, name its encoding: --encoding cp932 (Japanese), cp1252 or utf-16"
        )

    def _first(self) -> Record:
        for number, line in self._lines:
            content, end = _cut(line)
            if not content.strip():
                self.blank_lines.append(Record(number, (), line))
                continue
            self._decoded(number, content)
            self.delimiter = self._delimiter(content)
            blanks = b"" if self.delimiter == b" " else b" *"
            quoted, plain = rb'"[^"]*(?:""[^"]*)*"', b"[^" + re.escape(self.delimiter) + b"]*"
            self._field = re.compile(b"(" + blanks + quoted + b")|(" + plain + b")")
            return self._whole(number, content, end)
        raise DataError(f"{self.path} is empty: its first line must name the columns")

    def _records(self) -> Iterator[Record]:
        for number, line in self._lines:
            content, end = _cut(line)
            if not content.strip(b" "):
                yield Record(number, (), line)
                continue
            yield self._whole(number, content, end)

    def _whole(self, number: int, content: bytes, end: bytes) -> Record:
        """Returns the row that begins with a line; in quotes it may go on in those below."""
        fields = self._fields(content)
        while fields is None:
            follows = next(self._lines, None)
            if follows is None or len(content) > MOST_CELL:
                cause = (
                    'a quote (") opens here that is never closed; one in a cell is written ""'
                    if follows is None
                    else 'a cell is very long: most often, a quote (") opens that is never closed'
                )
                raise DataError(f"{self.path}, line {number:,}: {cause}")
            more, after = _cut(follows[1])
            content, end = content + end + more, after
            if b'"' in more:
                fields = self._fields(content)
        self._decoded(number, content)
        if isinstance(fields, str):
            return Record(number, (content,), end, fields)
        if any(b"\r" in field and not field.lstrip(b" ").startswith(b'"') for field in fields):
            return Record(number, tuple(fields), end, "a carriage return stands in a cell")
        return Record(number, tuple(fields), end)

    def _fields(self, content: bytes) -> list[bytes] | str | None:
        """Cuts a row into cells; ``None`` if a quote is open, or the fault in words."""
        if b'"' not in content:
            return content.split(self.delimiter)
        fields, at, size = [], 0, len(content)
        while True:
            found = self._field.match(content, at)
            assert found is not None
            quoted, plain = found.groups()
            if quoted is None and plain.lstrip(b" ").startswith(b'"'):
                return None
            fields.append(quoted if quoted is not None else plain)
            at = found.end()
            if at == size:
                return fields
            if content[at : at + 1] != self.delimiter:
                return 'something follows a closing quote; a quote in a cell is written ""'
            at += 1

    def _decoded(self, line: int, content: bytes) -> None:
        try:
            content.decode(self._decoding)
        except UnicodeError as error:
            raise self._no_text(line, error) from None

    def _delimiter(self, content: bytes) -> bytes:
        """Returns the delimiter that was asked for, or the one that gives the most headings."""
        if self._asked is not None:
            delimiter = {"\\t": "\t", "tab": "\t"}.get(self._asked, self._asked)
            if len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii():
                raise DataError(
                    f"--delimiter {self._asked!r}: it must be one character, such as ; or tab"
                )
        elif self.path.suffix.lower() == ".tsv":
            delimiter = "\t"
        else:
            outside = re.sub(rb'"[^"]*"', b"", content)
            delimiter = max(DELIMITERS, key=lambda each: outside.count(each.encode()))
        if delimiter.isalnum() or (delimiter == "|" and not self._foreign and self._two_bytes):
            raise DataError(
                f"--delimiter {delimiter!r}: cannot be told from a part of a letter in "
                f"{self.encoding}; save the table as UTF-8"
            )
        return delimiter.encode()

    @property
    def _two_bytes(self) -> bool:
        """Whether a letter may have several bytes of which the last may be an ASCII one's."""
        return self.encoding != "utf-8" and len(codecs.encode("あ", self.encoding, "replace")) > 1

    def _check_headings(self) -> None:
        if self.first.problem:
            raise DataError(f"{self.path}, line {self.first.line:,}: {self.first.problem}")
        named = [heading for heading in self.headings if heading]
        if len(named) > MOST_COLUMNS:
            raise DataError(
                f"{self.path} has {len(named):,} columns; {MOST_COLUMNS:,} are the most"
            )
        if twice := sorted(heading for heading, count in Counter(named).items() if count > 1):
            raise DataError(
                f"{self.path}: the heading {listed(map(repr, twice))} occurs twice; "
                "give each column a name of its own"
            )


@contextmanager
def opened(path: Path, delimiter: str | None = None, encoding: str = "utf-8") -> Iterator[CsvFile]:
    """Opens a CSV file.

    Raises:
        DataError: As :class:`CsvFile`.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, and no table")
    with _FILES.opened(path) as file:
        yield CsvFile(path, file, delimiter, encoding)


def _encoding(file: Any, asked: str) -> tuple[bytes, str]:
    """Returns the mark at the start of a file, which is then read, and its encoding."""
    try:
        name = codecs.lookup(asked).name
        "".encode(name)  # LookupError: a codec that is not for text
    except (LookupError, ValueError):  # a ValueError if no encoding can be called so
        raise DataError(
            f"--encoding {asked}: unknown; try utf-8, cp932 (Japanese), cp1252 or utf-16"
        ) from None
    name = name.removesuffix("-sig")
    head = file.read(4)
    for written, (mark, encoding) in MARKS.items():
        if head.startswith(mark) and (written.startswith(name) or name == "utf-8"):
            file.seek(len(mark))
            return mark, encoding
    file.seek(0)
    if name in ("utf-16", "utf-32"):
        name += "-le"
    keeps = all(sign.encode(name, "replace") == sign.encode() for sign in ',;\t|"\r\n ')
    if not (keeps or name.startswith(("utf-16", "utf-32"))) or name.startswith(
        ("iso2022", "hz", "utf-7", "punycode", "idna", "unicode", "raw")
    ):
        raise DataError(
            f"--encoding {asked}: a table in it could not be kept byte for byte; save it as UTF-8"
        )
    return b"", name


def _ends_in_returns(head: bytes) -> bool:
    return b"\n" not in head and b"\r" in head


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """Returns a line's content, and what ends it."""
    ends = (b"\r\n", b"\n", b"\r", b"")
    end = next(end for end in ends if line.endswith(end))
    return line[: len(line) - len(end)], end
