"""What filling CSV and Parquet files share: the request, pictures, rows that are refused."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mmgen.brief import OneLine
from mmgen.data.folder import appearing
from mmgen.data.tables.importing import first_of
from mmgen.data.tables.table import BadRow
from mmgen.errors import DataError, WriteError
from mmgen.files.atomic import write
from mmgen.files.holding import make
from mmgen.filling.filler import Filled, Filler, Filling, picture_name, save_picture
from mmgen.registry.loading import Registry
from mmgen.run import Run
from mmgen.tabular.cells import CellReader, told
from mmgen.tabular.columns import Assigned, assign

SAMPLE = 1000
"""Rows that are looked at to find which columns are whose."""

IMPUTATION = "imputation"
"""The column with the number of a row's imputation, or ``imputation-2`` if that is taken."""


@dataclass(frozen=True, repr=False)
class Request(OneLine):
    """What is to be filled, and how.

    Attributes:
        table: The file.
        out: The file to write.
        how: How to fill.
        columns: ``columns`` by modality, where they are said; see
            :func:`mmgen.tabular.columns.assign`.
        missing: Words that count as empty.
        delimiter: Of a CSV file; found out if left out.
        encoding: Of a CSV file.
        skip_bad: Whether rows that cannot be used are copied as they are.
        say: Is told which columns are whose.
        done: Is told how many bytes or rows were read, and of how many.
    """

    table: Path
    out: Path
    how: Filling = field(default_factory=Filling)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: Sequence[str] = ()
    delimiter: str | None = None
    encoding: str = "utf-8"
    skip_bad: bool = False
    say: Callable[[str], object] = field(default=lambda _: None)
    done: Callable[[int, int], object] = field(default=lambda _done, _all: None)

    @property
    def pictures(self) -> Path:
        """The folder for pictures, beside the output."""
        return self.out.with_name(f"{self.out.stem}_pictures")


@dataclass(repr=False)
class Report(OneLine):
    """What was done.

    Attributes:
        rows: How many rows there were.
        filled: How many cells were filled, by heading.
        bad: The rows that could not be used.
        left: How many rows lacked what the model needs.
        pictures: The folder of pictures, if there are any.
    """

    rows: int = 0
    filled: dict[str, int] = field(default_factory=dict)
    bad: list[BadRow] = field(default_factory=list)
    left: int = 0
    pictures: Path | None = None


def fill_to(
    run: Run,
    registry: Registry,
    request: Request,
    headings: Sequence[str],
    sample: Sequence[Sequence[str]],
    parts: Callable[[Filler, "Pictures", Report], Iterable[bytes]],
) -> Report:
    """Finds which columns are whose, says so, and writes a table and its pictures, or neither.

    Args:
        run: The trained run.
        registry: The plugins.
        request: What is to be filled.
        headings: Of the table.
        sample: Some rows' cells in words.
        parts: The output's bytes in order; puts what it counts into the report.

    Raises:
        DataError: If rows cannot be used.
        WriteError: If the output cannot be written.
    """
    readers, cells = readers_of(
        run, registry, request.table, headings, sample, request.columns, request.missing
    )
    request.say(told({reader.name: reader.assigned for reader in readers}, run.modalities))
    filler = Filler(run, readers, cells, request.how)
    pictures = Pictures(request.pictures if filler.pictures else None)
    report = Report()
    make(request.out.parent)
    with pictures.writing():
        write(request.out, parts(filler, pictures, report))
    report.filled, report.left = dict(filler.filled), filler.left
    report.pictures = pictures.folder if pictures.count else None
    return report


def readers_of(
    run: Run,
    registry: Registry,
    table: Path,
    headings: Sequence[str],
    sample: Sequence[Sequence[str]],
    columns: dict[str, dict[str, Any]],
    missing: Sequence[str],
) -> tuple[list[CellReader], dict[str, list[str]]]:
    """Returns what reads each modality's cells, and cells of the sample that are not empty."""
    cells = {
        heading: [row[i] for row in sample if row[i] and row[i] not in missing]
        for i, heading in enumerate(headings)
        if heading
    }
    found: dict[str, Assigned] = assign(headings, cells, run.modalities, columns)
    words = frozenset(missing)
    readers = [
        CellReader(name, run.modalities[name], assigned, registry, table.parent, words)
        for name, assigned in found.items()
    ]
    return readers, cells


class Pictures:
    """Writes the pictures that cells get into a folder that is whole or not there.

    Args:
        folder: Where they are to be; ``None`` if no column has pictures.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.count = folder, 0
        self._at: Path | None = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Has the folder appear at the end, if the block ends well and there are pictures.

        Raises:
            WriteError: If something is there already.
        """
        if self.folder is None:
            yield
            return
        if self.folder.exists() and not self._replaceable(self.folder):
            raise WriteError(
                f"{self.folder}: is there, and not of pictures that a table was "
                "filled with; name another --out"
            )
        with suppress(_NoneError), appearing(self.folder) as self._at:
            yield
            if not self.count:
                raise _NoneError

    def add(self, heading: str, place: str, imputation: int | None, picture: Tensor) -> str:
        """Writes a picture, and returns its name, relative to the table."""
        assert self._at is not None
        assert self.folder is not None
        name = picture_name(heading, place, imputation)
        save_picture(self._at / name, picture)
        self.count += 1
        return f"{self.folder.name}/{name}"

    @staticmethod
    def _replaceable(folder: Path) -> bool:
        return folder.is_dir() and all(each.suffix == ".png" for each in folder.iterdir())


class _NoneError(Exception):
    """There was no picture to write, so that the folder is not needed."""


def values_in_words(
    filler: Filler,
    filled: Filled,
    pictures: Pictures,
    headings: Sequence[str],
    places: Sequence[str],
    imputation: int | None,
) -> dict[tuple[int, int], str]:
    """Returns what cells get in words: pictures by the names of their files."""
    words = {}
    for (row, column), value in filled.values.items():
        if isinstance(value, Tensor):
            words[row, column] = pictures.add(headings[column], places[row], imputation, value)
        else:
            words[row, column] = filler.words((row, column), value)
    return words


def free_heading(name: str, headings: Sequence[str]) -> str:
    """Returns a heading that no column has: the name, or with a number behind it."""
    number, free = 2, name
    while free in headings:
        number, free = number + 1, f"{name}-{number}"
    return free


def refuse(request: Request, bad: Sequence[BadRow], rows: int) -> None:
    """Raises if rows cannot be used, unless they are to be copied as they are.

    Raises:
        DataError: Lists them.
    """
    if bad and not request.skip_bad:
        raise DataError(
            f"{request.table}: {len(bad):,} of {rows:,} rows cannot be used:\n{first_of(bad)}\n"
            "Fix them, or have them copied as they are with --skip-bad"
        )
