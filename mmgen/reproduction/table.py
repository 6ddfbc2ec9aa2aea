"""Table 1: conditional log-likelihoods of all models, the paper's rows beside the measured ones."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.brief import OneLine
from mmgen.files.atomic import write
from mmgen.reproduction.measured import likelihoods, not_measured
from mmgen.reproduction.mnist import CELLS, PAPER, Planned

if TYPE_CHECKING:
    from rich.table import Table


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


def lines(found: Sequence[Cell]) -> list[tuple[str, ...]]:
    """Returns the table as words: a line a model, and below it the paper's."""
    result: list[tuple[str, ...]] = []
    for row in dict.fromkeys(cell.row for cell in found):
        each = [value(found, row, quantity) for quantity in HEADINGS]
        result.append((row, *(f"{number(c.nats)} ± {_error(c.standard_error)}" for c in each)))
        if row in PAPER:
            result.append((PAPERS, *map(number, PAPER[row])))
    return result


PAPERS = "paper"
"""What stands before the paper's numbers."""


def number(nats: float) -> str:
    """Writes a number with as many digits as the paper does."""
    size = abs(nats)
    digits = 1 if size >= 100 else 2 if size >= 10 else 3 if size >= 1 else 4
    return f"{nats:.{digits}f}".replace("-", "−")


def _error(nats: float) -> str:
    return f"{nats:.0f}" if nats >= 10 else f"{nats:.2g}"


def terminal(found: Sequence[Cell]) -> "Table":
    """Returns the table for the terminal: standard errors are in the files."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="Table 1", caption=SHORT, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for position, heading in enumerate(["", *HEADINGS]):
        table.add_column(heading, justify="right" if position else "left", no_wrap=True)
    for row, *numbers in lines(found):
        papers = row == PAPERS
        means = [number.split(" ±")[0] for number in numbers]
        table.add_row(f"  {row}" if papers else row, *means, style="dim" if papers else "bold")
    return table


SHORT = "nats, means over test rows of the mean of 10 logs"
CAPTION = f"{SHORT}; ±: standard error over rows"


def markdown(found: Sequence[Cell]) -> str:
    """Returns one of GitHub's tables."""
    head = ["", *(f"{heading}".replace("|", "\\|") for heading in HEADINGS)]
    body = [[f"*{row}*" if row == PAPERS else f"**{row}**", *n] for row, *n in lines(found)]
    rows = [head, ["---", *["---:"] * len(HEADINGS)], *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def latex(found: Sequence[Cell]) -> str:
    """Returns a ``tabular`` with the rules of the package booktabs."""
    head, *body = (
        " & ".join([row, *(f"${_mathematics(cell)}$" for cell in cells)]) + r" \\"
        for row, *cells in [("", *HEADINGS), *lines(found)]
    )
    columns = "l" + "r" * len(HEADINGS)
    top = [f"% Table 1; {CAPTION}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head]
    return "\n".join([*top, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _mathematics(words: str) -> str:
    for sign, command in (("log", r"\log"), ("|", r"\mid "), ("−", "-"), ("±", r"\pm")):
        words = words.replace(sign, command)
    return words


def comma_separated(found: Sequence[Cell]) -> str:
    """Returns one line a cell, with all digits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [*Cell.__dataclass_fields__], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(cell) for cell in found)
    return out.getvalue()


def save(found: Sequence[Cell], folder: Path) -> None:
    """Writes ``table-1`` as Markdown, CSV, JSON and LaTeX.

    Raises:
        WriteError: If a file cannot be written.
    """
    write(folder / "table-1.md", markdown(found))
    write(folder / "table-1.tex", latex(found))
    write(folder / "table-1.csv", comma_separated(found))
    text = json.dumps({"unit": "nats", "cells": [asdict(cell) for cell in found]}, indent=2)
    write(folder / "table-1.json", text + "\n")
