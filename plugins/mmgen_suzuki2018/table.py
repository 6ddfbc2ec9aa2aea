"""Tables 1 and 2: conditional log-likelihoods of all models, the paper's beside the measured."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmgen.brief import OneLine
from mmgen.files.atomic import write
from mmgen.formatting import number
from mmgen.tables import Table, comma_separated
from mmgen_suzuki2018.measured import likelihoods, not_measured
from mmgen_suzuki2018.study import SAMPLES, Planned, Study


@dataclass(frozen=True, repr=False)
class Cell(OneLine):
    """One number of the table.

    Attributes:
        row: The model.
        quantity: The likelihood.
        nats: What was measured: the mean over test rows of eq. 11, A.1 or A.2.
        standard_error: Over rows.
        z_from: What z was drawn from.
        run: The run that it was measured of.
        rows: How many test rows.
        paper: The paper's number; ``None`` if it has none.
    """

    row: str
    quantity: str
    nats: float
    standard_error: float
    z_from: str
    run: str
    rows: int
    paper: float | None


def cells(study: Study, measured: Mapping[str, Path], planned: Iterable[Planned]) -> list[Cell]:
    """Collects the table from what ``mmgen evaluate`` wrote.

    Args:
        study: The experiment.
        measured: The JSON of each run, by its name.
        planned: What of the experiment was measured.

    Returns:
        Row by row, in the paper's order of models; each in the order of columns.

    Raises:
        RunError: If a file is damaged.
    """
    found = []
    for each in planned:
        if not each.row:
            continue
        missing = {quantity for quantity, targets, *_ in study.columns if each.generates(targets)}
        for record in likelihoods(measured[each.name]):
            for column, (quantity, targets, given, estimator) in enumerate(study.columns):
                key = (record.targets, record.given, record.estimator)
                if key != ([*targets], [*given], estimator):
                    continue
                paper = study.paper[each.row][column] if each.row in study.paper else None
                nats, error, z = record.mean_of_logs, record.standard_error, record.z_from
                if nats is None or error is None:
                    raise not_measured(each.row, quantity)
                cell = Cell(each.row, quantity, nats, error, z, each.name, record.rows, paper)
                found.append((column, cell))
                missing.discard(quantity)
        if missing:
            raise not_measured(each.row, min(missing))
    # The paper's rows in its order, then what goes beyond it.
    rows = list(dict.fromkeys([*study.paper, *(cell.row for _, cell in found)]))
    found.sort(key=lambda item: (rows.index(item[1].row), item[0]))
    return [cell for _, cell in found]


def value(found: Sequence[Cell], row: str, quantity: str) -> Cell:
    """Returns one cell.

    Raises:
        RunError: If it was not measured.
    """
    for cell in found:
        if (cell.row, cell.quantity) == (row, quantity):
            return cell
    raise not_measured(row, quantity)


Floor = tuple[str, Sequence[float | None]]
"""What stands before a line of numbers to hold the table against, and these by column."""


def table(
    study: Study, found: Sequence[Cell], *, files: bool, floors: Sequence[Floor] = ()
) -> Table:
    """Returns the table: a line per model, and below it the paper's.

    Args:
        study: The experiment.
        found: See :func:`cells`.
        files: Whether it is for files, which hold standard errors too; the terminal does not.
        floors: What can be had without a model, at the end.
    """
    headings = [heading for heading, *_ in study.columns]
    rows: list[tuple[str, ...]] = []
    papers = set()
    for row in dict.fromkeys(cell.row for cell in found):
        each = {cell.quantity: cell for cell in found if cell.row == row}
        # Of a model of one direction, the other one may not be there.
        rows.append((row, *(_entry(each[h], files) if h in each else "–" for h in headings)))
        if row in study.paper:
            papers.add(len(rows))
            rows.append((PAPERS if files else f"  {PAPERS}", *map(nats, study.paper[row])))
    for words, numbers in floors:
        papers.add(len(rows))
        rows.append((words, *("–" if n is None else nats(n) for n in numbers)))
    return Table(
        ("", *headings),
        "l" + "r" * len(headings),
        rows,
        f"Table {study.table}",
        f"{SHORT}; ±: standard error over rows" if files else SHORT,
        styles={n: "dim" if n in papers else "bold" for n in range(len(rows))},
    )


def _entry(cell: Cell, files: bool) -> str:
    error = f" ± {number(cell.standard_error, 2)}" if files else ""
    return nats(cell.nats) + error


SHORT = f"nats, means over test rows of the mean of {SAMPLES} logs"
PAPERS = "paper"
"""What stands before the paper's numbers."""


def nats(value: float) -> str:
    """Writes a number with as many digits as the paper does: trailing zeros are kept."""
    return number(value, decimals=4, trim=False)


def _mathematics(words: str) -> str:
    for sign, command in (("log", r"\log"), ("|", r"\mid "), ("−", "-"), ("±", r"\pm")):
        words = words.replace(sign, command)
    return re.sub(r"(?<=\d),(?=\d)", "{,}", f"${words}$")  # thousands, not a list


def save(study: Study, found: Sequence[Cell], folder: Path, floors: Sequence[Floor] = ()) -> None:
    """Writes ``table-N`` as Markdown, CSV, JSON and LaTeX; CSV and JSON have all digits.

    Raises:
        WriteError: If a file cannot be written.
    """
    readable = table(study, found, files=True, floors=floors)
    records, file = [asdict(cell) for cell in found], folder / f"table-{study.table}"
    write(file.with_suffix(".md"), readable.markdown())
    about = f"{readable.title}; {readable.caption}"
    write(file.with_suffix(".tex"), readable.latex(about, _mathematics))
    write(file.with_suffix(".csv"), comma_separated([*Cell.__dataclass_fields__], records))
    content: dict[str, object] = {"unit": "nats", "cells": records}
    if floors:
        content["floors"] = [{"of": words, "nats": [*numbers]} for words, numbers in floors]
    write(file.with_suffix(".json"), json.dumps(content, indent=2) + "\n")
