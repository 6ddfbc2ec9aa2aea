"""Likelihoods as tables: in the terminal, Markdown, CSV, JSON and LaTeX.

Means of logs and log-mean-exp are different numbers: they stand in tables, or columns, apart.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.brief import OneLine
from mmgen.errors import ConfigError, listed
from mmgen.evaluation.likelihood.estimates import Estimate, SamplingBudget
from mmgen.files.atomic import check_writable, deliver

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, repr=False)
class Evaluation(OneLine):
    """The likelihoods of a run on one split.

    Attributes:
        run: The run folder.
        model: The model's kind.
        data: The data set.
        split: Which rows of it.
        rows: How many.
        budget: How much was drawn.
        estimates: What came out, see :func:`mmgen.evaluation.likelihood.estimators.likelihoods`.
    """

    run: str
    model: str
    data: str
    split: str
    rows: int
    budget: SamplingBudget
    estimates: Sequence[Estimate]

    def terminal(self) -> "list[Table]":
        """Returns a table a sort of number."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        tables = []
        for sheet in self.sheets():
            table = Table(
                title=sheet.title,
                caption=sheet.note,
                box=SIMPLE_HEAD,
                padding=(0, 1, 0, 0),
                pad_edge=False,
            )
            for heading in sheet.headings:
                # Words may wrap in a narrow terminal; a number is never cut.
                words = heading in TEXT
                table.add_column(heading, justify="left" if words else "right", no_wrap=not words)
            for row in sheet.rows:
                table.add_row(*row)
            tables.append(table)
        return tables

    def sheets(self) -> "list[Sheet]":
        """Returns the tables as words; one that has no rows is left out."""
        means = [e for e in self.estimates if e.estimator != "importance"]
        weighed = [e for e in self.estimates if e.estimator == "importance"]
        rows = f"{self.rows:,} rows of {self.split}"
        sheets = [
            Sheet(
                f"Means of log p(target | z), {self.budget.samples:,} z a row",
                f"nats; {rows}; ±: standard error over rows",
                ("likelihood", "z from", "mean of logs", "±"),
                [(e.quantity, e.z, *_nats(e)) for e in means],
            ),
            Sheet(
                f"Importance-sampled likelihoods, {self.budget.importance:,} z a row",
                f"nats; {rows}; ±: standard error over rows; ESS: effective sample size",
                ("likelihood", "z from", "log-mean-exp", "±", "ESS", "least"),
                [(e.quantity, e.z, *_nats(e), *_sizes(e)) for e in weighed],
            ),
        ]
        return [sheet for sheet in sheets if sheet.rows]

    def markdown(self) -> str:
        """Returns GitHub's tables, each below its title."""
        parts = []
        for sheet in self.sheets():
            lines = [sheet.headings, ["---" if h in TEXT else "---:" for h in sheet.headings]]
            lines += [[cell.replace("|", "\\|") for cell in row] for row in sheet.rows]
            table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
            parts.append(f"**{sheet.title}** ({self.model}; {sheet.note})\n\n{table}\n")
        return "\n".join(parts)

    def latex(self) -> str:
        """Returns a ``tabular`` a table, with the rules of the package booktabs."""
        parts = []
        for sheet in self.sheets():
            columns = "".join("l" if heading in TEXT else "r" for heading in sheet.headings)
            head, *body = (
                " & ".join(map(_escaped, row)) + r" \\" for row in [sheet.headings, *sheet.rows]
            )
            lines = [
                f"% {sheet.title} ({self.model}; {sheet.note})".replace("\n", " "),
                rf"\begin{{tabular}}{{{columns}}}",
                *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
                r"\end{tabular}",
            ]
            parts.append("\n".join(lines) + "\n")
        return "\n".join(parts)

    def csv(self) -> str:
        """Returns one line an estimate, with a column for each of the two sorts of number."""
        out = io.StringIO()
        records = [self._record(estimate) for estimate in self.estimates]
        for record in records:
            record["targets"] = "+".join(record["targets"])
            record["given"] = "+".join(record["given"])
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return out.getvalue()

    def json(self) -> str:
        """Returns everything; numbers that are not finite are null."""
        head = {
            "run": self.run,
            "model": self.model,
            "data": self.data,
            "split": self.split,
            "rows": self.rows,
            "iterations": self.budget.iterations,
            "temperature": self.budget.temperature,
            "seed": self.budget.seed,
        }
        records = [self._record(estimate) for estimate in self.estimates]
        return json.dumps({**head, "unit": "nats", "likelihoods": records}, indent=2) + "\n"

    def _record(self, e: Estimate) -> dict[str, Any]:
        weighed = e.estimator == "importance"
        size = e.ess
        return {
            "likelihood": e.quantity,
            "targets": list(e.targets),
            "given": list(e.given),
            "estimator": e.estimator,
            "z_from": e.z,
            "samples": e.samples,
            "rows": self.rows,
            "mean_of_logs": None if weighed else _finite(e.nats),
            "log_mean_exp": _finite(e.nats) if weighed else None,
            "standard_error": _finite(e.standard_error),
            "ess_mean": None if size is None else _finite(size.mean().item()),
            "ess_least": None if size is None else _finite(size.min().item()),
        }

    def save(self, path: Path) -> Path:
        """Writes the tables in the format of the file's suffix.

        Raises:
            ConfigError: If it is none of ``FORMATS``.
            WriteError: If the file cannot be written.
        """
        text = FORMATS[checked_format(path)](self)
        deliver(path, text)
        return path


@dataclass(frozen=True, repr=False)
class Sheet(OneLine):
    """A table in words.

    Attributes:
        title: What the numbers are.
        note: Units and rows.
        headings: Of the columns.
        rows: As many cells each.
    """

    title: str
    note: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


TEXT = ("likelihood", "z from")
"""Columns of words, which stand left."""

COLUMNS = (
    *("likelihood", "targets", "given", "estimator", "z_from", "samples", "rows"),
    *("mean_of_logs", "log_mean_exp", "standard_error", "ess_mean", "ess_least"),
)

FORMATS: dict[str, Callable[[Evaluation], str]] = {
    ".md": Evaluation.markdown,
    ".csv": Evaluation.csv,
    ".json": Evaluation.json,
    ".tex": Evaluation.latex,
}


def checked_format(path: Path, formats: Iterable[str] = FORMATS) -> str:
    """Returns the suffix of a file of tables, which can be written.

    Raises:
        ConfigError: If no format has that suffix.
        WriteError: If it cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in formats:
        raise ConfigError(f"--out {path}: tables are written as {listed(formats)}")
    check_writable(path)
    return suffix


def _nats(e: Estimate) -> tuple[str, str]:
    error = e.standard_error
    return f"{e.nats:.2f}", f"{error:.2f}" if math.isfinite(error) else "–"


def _sizes(e: Estimate) -> tuple[str, str]:
    assert e.ess is not None
    return f"{e.ess.mean():.1f}", f"{e.ess.min():.1f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _escaped(cell: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"$\mid$",
        "±": r"$\pm$",
        "–": "--",
        "log p(": r"$\log p$(",
    }
    escaped = "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in cell)
    return escaped.replace("log p(", special["log p("])
