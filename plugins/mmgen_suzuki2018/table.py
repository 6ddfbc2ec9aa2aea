"""Table 1: conditional log-likelihoods of all models, the paper's rows beside the measured ones."""

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
from mmgen_suzuki2018.mnist import CELLS, PAPER, Planned


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


def cells(measured: Mapping[str, Path], runs: Iterable[Planned]) -> list[Cell]:
    """Collects the table from what ``mmgen evaluate`` wrote.

    Args:
        measured: The JSON of each run, by its name.
        runs: Of the experiment.

    Returns:
        Row by row, in the paper's order of models; each in the order of columns.

    Raises:
        RunError: If a file is damaged.
    """
    found = []
    for planned in runs:
        if not planned.row:
            continue
        for record in likelihoods(measured[planned.name]):
            for column, (quantity, targets, given, estimator) in enumerate(CELLS):
                key = (record.targets, record.given, record.estimator)
                if key != ([*targets], [*given], estimator):
                    continue
                paper = PAPER[planned.row][column] if planned.row in PAPER else None
                nats, error, z = record.mean_of_logs, record.standard_error, record.z_from
                if nats is None or error is None:
                    raise not_measured(planned.row, quantity)
                cell = Cell(planned.row, quantity, nats, error, z, planned.name, record.rows, paper)
                found.append((column, cell))
    # The paper's rows in its order, then what goes beyond it.
    rows = list(dict.fromkeys([*PAPER, *(cell.row for _, cell in found)]))
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


HEADINGS = tuple(quantity for quantity, *_ in CELLS)


def table(found: Sequence[Cell], *, files: bool) -> Table:
    """Returns the table: a line per model, and below it the paper's.

    Args:
        found: See :func:`cells`.
        files: Whether it is for files, which hold standard errors too; the terminal does not.
    """
    rows: list[tuple[str, ...]] = []
    papers = set()
    for row in dict.fromkeys(cell.row for cell in found):
        each = [value(found, row, quantity) for quantity in HEADINGS]
        errors = [f" ± {number(c.standard_error, 2)}" if files else "" for c in each]
        rows.append((row, *(nats(c.nats) + e for c, e in zip(each, errors, strict=True))))
        if row in PAPER:
            papers.add(len(rows))
            rows.append((PAPERS if files else f"  {PAPERS}", *map(nats, PAPER[row])))
    return Table(
        ("", *HEADINGS),
        "l" + "r" * len(HEADINGS),
        rows,
        "Table 1",
        f"{SHORT}; ±: standard error over rows" if files else SHORT,
        styles={n: "dim" if n in papers else "bold" for n in range(len(rows))},
    )


SHORT = "nats, means over test rows of the mean of 10 logs"
PAPERS = "paper"
"""What stands before the paper's numbers."""


def nats(value: float) -> str:
    """Writes a number with as many digits as the paper does: trailing zeros are kept."""
    return number(value, decimals=4, trim=False)


def _mathematics(words: str) -> str:
    for sign, command in (("log", r"\log"), ("|", r"\mid "), ("−", "-"), ("±", r"\pm")):
        words = words.replace(sign, command)
    return re.sub(r"(?<=\d),(?=\d)", "{,}", f"${words}$")  # thousands, not a list


def save(found: Sequence[Cell], folder: Path) -> None:
    """Writes ``table-1`` as Markdown, CSV, JSON and LaTeX; CSV and JSON have all digits.

    Raises:
        WriteError: If a file cannot be written.
    """
    readable, records = table(found, files=True), [asdict(cell) for cell in found]
    write(folder / "table-1.md", readable.markdown())
    about = f"{readable.title}; {readable.caption}"
    write(folder / "table-1.tex", readable.latex(about, _mathematics))
    write(folder / "table-1.csv", comma_separated([*Cell.__dataclass_fields__], records))
    text = json.dumps({"unit": "nats", "cells": records}, indent=2)
    write(folder / "table-1.json", text + "\n")
