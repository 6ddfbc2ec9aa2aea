"""Likelihoods as tables: in the terminal, Markdown, CSV, JSON and LaTeX.

Monte Carlo (eq. 11) and importance-sampled (IWAE) estimates are different numbers: they stand in
tables, or columns, apart.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.brief import OneLine
from mmgen.evaluation.likelihood.estimates import Estimate, SamplingBudget
from mmgen.tables import Table, comma_separated, save

COLUMNS = (
    *("likelihood", "targets", "given", "estimator", "z_from", "samples", "rows"),
    *("mean_of_logs", "log_mean_exp", "standard_error", "ess_mean", "ess_least"),
)
FORMATS = (".md", ".csv", ".json", ".tex")


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
        notes: What the user should know of the data, and of estimates that few z decide.
    """

    run: str
    model: str
    data: str
    split: str
    rows: int
    budget: SamplingBudget
    estimates: Sequence[Estimate]
    notes: tuple[str, ...] = ()

    def tables(self) -> list[Table]:
        """Returns a table per sort of number; one that has no rows is left out."""
        means = [e for e in self.estimates if e.estimator != "importance"]
        weighed = [e for e in self.estimates if e.estimator == "importance"]
        rows = f"{self.rows:,} rows of {self.split}"
        tables = [
            Table(
                ("likelihood", "z from", "Monte Carlo", "±"),
                "wwrr",
                [(e.quantity, e.z, *_nats(e)) for e in means],
                f"Monte Carlo (eq. 11), {self.budget.samples:,} z per row",
                f"nats; {rows}; ±: standard error over rows",
            ),
            Table(
                ("likelihood", "z from", "IWAE", "±", "ESS", "least"),
                "wwrrrr",
                [(e.quantity, e.z, *_nats(e), *_sizes(e)) for e in weighed],
                f"Importance-sampled (IWAE), {self.budget.importance:,} z per row of each q",
                f"nats; {rows}; ±: standard error over rows; ESS: effective sample size",
            ),
        ]
        return [table for table in tables if table.rows]

    def markdown(self) -> str:
        """Returns GitHub's tables, each below its title, and the notes."""
        tables = [
            f"**{t.title}** ({self.model}; {t.caption})\n\n{t.markdown()}" for t in self.tables()
        ]
        notes = "".join(f"- {note}\n" for note in self.notes)
        return "\n".join([*tables, *([notes] if notes else [])])

    def latex(self) -> str:
        """Returns a ``tabular`` per table, and the notes as comments."""
        tables = [t.latex(f"{t.title} ({self.model}; {t.caption})") for t in self.tables()]
        return "\n".join(tables) + "".join(f"% {note}\n" for note in self.notes)

    def csv(self) -> str:
        """Returns one line per estimate, with a column for each of the two sorts of number."""
        records = [self._record(estimate) for estimate in self.estimates]
        for record in records:
            record |= {side: "+".join(record[side]) for side in ("targets", "given")}
        return comma_separated(COLUMNS, records)

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
            "notes": list(self.notes),
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
            "rows": len(e.values),
            "mean_of_logs": None if weighed else _finite(e.nats),
            "log_mean_exp": _finite(e.nats) if weighed else None,
            "standard_error": _finite(e.standard_error),
            "ess_mean": None if size is None else _finite(size.mean().item()),
            "ess_least": None if size is None else _finite(size.min().item()),
        }

    def save(self, path: Path) -> Path:
        """Writes the tables in the format of the file's suffix, one of :data:`FORMATS`.

        Raises:
            ConfigError: If it is another one.
            WriteError: If the file cannot be written.
        """
        texts = (self.markdown, self.csv, self.json, self.latex)
        return save(path, dict(zip(FORMATS, texts, strict=True)))


def _nats(e: Estimate) -> tuple[str, str]:
    error = e.standard_error
    return f"{e.nats:.2f}", f"{error:.2f}" if math.isfinite(error) else "–"


def _sizes(e: Estimate) -> tuple[str, str]:
    assert e.ess is not None
    return f"{e.ess.mean():.1f}", f"{e.ess.min():.1f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
