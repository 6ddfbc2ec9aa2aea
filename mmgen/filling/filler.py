"""Fills the empty cells of tables with what they most probably hold, and says how sure that is.

Each row is read as what it has, x_S; z is inferred from that; and each empty cell gets the most
probable value of p(x_k | x_S), z averaged over, or a draw of it. A modality of several columns of
which one is empty counts as absent, and only its empty cells are filled.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.cells import SEPARATOR, as_name, switch
from mmgen.data.tables.table import BadRow
from mmgen.errors import GenerationError
from mmgen.prediction import Told, Value
from mmgen.rows import inference
from mmgen.run import Run
from mmgen.seeding import random_state
from mmgen.tabular.cells import CellReader, read_cells

CHUNK = 1000
"""Rows that are read and filled at a time."""

Cell = tuple[int, int]
"""A row of a chunk, and a column of the table."""


@dataclass(frozen=True, repr=False)
class Filling(OneLine):
    """How to fill.

    Attributes:
        samples: How many z of each row predictions are averaged over; 0 takes the mean of z; if
            left out, see :func:`mmgen.rows.inference.moments`.
        imputations: How many draws of each row there are, instead of what is most probable.
        iterations: T of iterative sampling, see :func:`mmgen.rows.inference.encode`.
        seed: Of all that is drawn.
    """

    samples: int | None = None
    imputations: int | None = None
    iterations: int | None = None
    seed: int = 0


@dataclass(frozen=True, repr=False)
class Filled(OneLine):
    """What empty cells of a chunk get: values, and how sure they are.

    Attributes:
        values: In words or numbers, by cell; pictures as ``(3, H, W)`` in [0, 1].
        sure: The probability of a value, or the deviation of a measurement, by cell.
    """

    values: dict[Cell, "Value | Tensor"] = field(default_factory=dict)
    sure: dict[Cell, float] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Writing(OneLine):
    """How a column writes its values.

    Attributes:
        on: The word for an attribute that is on.
        off: The word for one that is off.
        separator: What joins the words of a list.
    """

    on: str = "1"
    off: str = "0"
    separator: str = "|"

    @classmethod
    def as_in(cls, cells: Iterable[str]) -> "Writing":
        """Returns how some cells are written: yes and no, 1 and 0, ``bold|italic``."""
        words = {switch(cell): cell for cell in cells if switch(cell) is not None}
        signs = Counter(sign for cell in cells for sign in SEPARATOR.findall(cell))
        common = next((sign for sign, _ in signs.most_common(1)), "|")
        return cls(words.get(True, "1"), words.get(False, "0"), common)

    def words(self, value: Value) -> str:
        """Writes a value."""
        if isinstance(value, bool):
            return self.on if value else self.off
        return f"{value:.7g}" if isinstance(value, float) else value


class Filler:
    """Fills chunks of rows.

    Args:
        run: The trained run.
        readers: Of the modalities that the table has columns of.
        cells: Some cells that are not empty, by heading: how values are written.
        how: How to fill.

    Attributes:
        sure: What says how sure each column's values are, by position: ``"confidence"`` or
            ``"deviation"``; columns without are left out.
        pictures: The columns of pictures.
        filled: How many cells were filled, by heading.
        left: How many rows lacked what the model needs to fill anything.
    """

    def __init__(
        self,
        run: Run,
        readers: Sequence[CellReader],
        cells: Mapping[str, Sequence[str]],
        how: Filling,
    ) -> None:
        self.run, self.readers, self.how = run, list(readers), how
        self.sure: dict[int, str] = {}
        self.pictures: set[int] = set()
        self.filled: Counter[str] = Counter()
        self.left = 0
        self._headings = {
            column: heading
            for each in (reader.assigned for reader in readers)
            for column, heading in zip(each.columns, each.headings, strict=True)
        }
        self._writing = {c: Writing.as_in(cells.get(h, ())) for c, h in self._headings.items()}
        for reader in readers:
            blank = run.model.like.new_zeros(1, *reader.modality.shape)
            if reader.modality.render(blank) is not None:
                self.pictures |= {*reader.assigned.columns}
                continue
            for column, told in self._columns(reader, blank, blank + 1).items():
                if how.imputations is None and told.confidence is not None:
                    self.sure[column] = "confidence"
                elif how.imputations is None and told.deviation is not None:
                    self.sure[column] = "deviation"

    def fill(
        self, rows: Sequence[tuple[str, Sequence[str]]], number: int
    ) -> tuple[list[Filled], dict[int, BadRow]]:
        """Fills a chunk of rows.

        Args:
            rows: Of each the place, and all cells of the table in words.
            number: Of the chunk, which draws follow.

        Returns:
            What cells get, for each imputation; and the rows that cannot be used, by number.
        """
        how, model = self.how, self.run.model
        chunk = read_cells(self.readers, rows, model.like, how.seed)
        filled = [Filled() for _ in range(how.imputations or 1)]
        draws = how.imputations is not None
        # Draws are of each row's own noise; what is expected has the same noise in every row.
        noise = random_state(self.run.device, (how.seed + number) % 2**63)
        with noise if draws else nullcontext():
            for numbers, had in inference.groups(chunk.x, chunk.rows):
                at = [row for row in numbers.tolist() if row not in chunk.bad]
                lacking = [r for r in self.readers if r.name not in had and r.name in model.targets]
                if not at or not lacking:
                    continue
                targets = [reader.name for reader in lacking]
                try:
                    known = self._known(had, len(at), targets)
                except GenerationError:  # of a model of one direction
                    self.left += len(at)
                    continue
                for fill, values in zip(filled, known, strict=True):
                    for reader in lacking:
                        self._tell(reader, rows, at, *values[reader.name], fill)
        self.filled.update(self._headings[column] for _, column in filled[0].values)
        return filled, dict(chunk.bad)

    def words(self, cell: Cell, value: Value) -> str:
        """Writes a value as its column does."""
        return self._writing[cell[1]].words(value)

    def _known(
        self, had: Batch, rows: int, targets: Sequence[str]
    ) -> list[dict[str, tuple[Tensor, Tensor]]]:
        """Returns mean and deviation of each target, or draws and zeros for each imputation."""
        model, how = self.run.model, self.how
        if how.imputations is None:
            return [
                inference.moments(
                    model,
                    had,
                    rows,
                    targets,
                    samples=how.samples,
                    iterations=how.iterations,
                    seed=how.seed,
                )
            ]
        drawn = inference.draw(
            model, had, rows, targets, how.imputations, iterations=how.iterations
        )
        return [
            {n: (x[i], torch.zeros_like(x[i])) for n, x in drawn.items()}
            for i in range(how.imputations)
        ]

    def _tell(
        self,
        reader: CellReader,
        rows: Sequence[tuple[str, Sequence[str]]],
        at: Sequence[int],
        mean: Tensor,
        deviation: Tensor,
        fill: Filled,
    ) -> None:
        """Notes what the empty cells of a modality get."""
        columns = reader.assigned.columns
        empty = [reader.lacks([rows[row][1][c] for c in columns]) for row in at]
        if columns[0] in self.pictures:
            pictures = reader.modality.render(mean)
            assert pictures is not None
            for n, (row, lacks) in enumerate(zip(at, empty, strict=True)):
                if lacks:
                    fill.values[row, columns[0]] = pictures[n]
            return
        for column, told in self._columns(reader, mean, deviation).items():
            place = columns.index(column)
            sure = told.confidence if told.confidence is not None else told.deviation
            for n, (row, lacks) in enumerate(zip(at, empty, strict=True)):
                if place in lacks:
                    fill.values[row, column] = told.values[n]
                    if sure is not None and column in self.sure:
                        fill.sure[row, column] = sure[n]

    def _columns(self, reader: CellReader, mean: Tensor, deviation: Tensor) -> dict[int, Told]:
        """Returns what a modality says of its values, by the columns of the table."""
        told, assigned = reader.modality.tell(mean, deviation), reader.assigned
        own = [name for name in assigned.own if name]
        found = {}
        for column, name in zip(assigned.columns, assigned.own, strict=True):
            if name or not reader.modality.column_names():
                found[column] = told[name]
            else:
                rest = {as_name(n): each for n, each in told.items() if n not in own}
                found[column] = self._listed(column, rest)
        return found

    def _listed(self, column: int, told: Mapping[str, Told]) -> Told:
        """Joins what is on to a list, as sure as the least sure word in it or not in it."""
        separator, plain = self._writing[column].separator, Writing()
        rows = [*zip(*(each.values for each in told.values()), strict=True)]
        if all(isinstance(value, bool) for row in rows for value in row):
            on = [[name for name, on in zip(told, row, strict=True) if on] for row in rows]
            values = [separator.join(words) or "none" for words in on]
        else:  # measurements, as the kind reads them
            values = [",".join(map(plain.words, row)) for row in rows]
        sure = [each.confidence for each in told.values() if each.confidence is not None]
        least = [min(row) for row in zip(*sure, strict=True)] if len(sure) == len(told) else None
        return Told(values, confidence=least)


def sure_headings(filler: Filler, headings: Sequence[str]) -> dict[int, str]:
    """Names the columns that say how sure values are, by the position of the values' own."""
    taken, named = {*headings}, {}
    for column, what in sorted(filler.sure.items()):
        name = f"{headings[column]}_{what}"
        for number in range(2, len(headings) + 3):
            if name not in taken:
                break
            name = f"{headings[column]}_{what}-{number}"
        taken.add(name)
        named[column] = name
    return named


def picture_name(heading: str, place: str, imputation: int | None) -> str:
    """Returns the name of a picture's file: of the column, the line, and the imputation."""
    plain = re.sub(r"[^\w-]+", "_", heading).strip("_") or "picture"
    line = place.rpartition(" ")[2]
    return f"{plain}-{line}{'' if imputation is None else f'-{imputation}'}.png"


def save_picture(path: Path, picture: Tensor) -> None:
    """Writes a picture ``(3, H, W)`` in [0, 1] as a PNG; a grey one as such."""
    from PIL import Image

    pixels = (255 * picture.detach().cpu().float()).round().to(torch.uint8)
    grey = bool((pixels == pixels[:1]).all())
    shown = pixels[0] if grey else pixels.permute(1, 2, 0)
    Image.fromarray(shown.contiguous().numpy()).save(path, format="PNG")
