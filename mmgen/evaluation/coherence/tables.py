"""Coherence as tables: in the terminal, Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.console import styled
from mmgen.evaluation.coherence.coherence import Coherence, Row
from mmgen.evaluation.likelihood.tables import checked_format
from mmgen.files.atomic import deliver

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = (
    *("given", "generated", "compared", "measure"),
    *("mean z", "±", "sampled z", "±", "constant", "ceiling"),
)
FORMATS = (".md", ".csv", ".json")

WORDS = 4
"""The first columns are words, and stand left."""

NOTE = (
    "per cent; seen: by a classifier; mean z: z at the posterior's mean; ±: standard error over "
    "rows; constant: the best constant answer; ceiling: the classifier on real observations"
)


def coherence_table(found: Coherence, about: str = "") -> "Table":
    """Returns a table for the terminal, one section a set of given modalities.

    Args:
        found: See :func:`mmgen.evaluation.coherence.coherence.coherence`.
        about: Of which run and rows, for the title.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=f"Is what was generated recognised? {about}".strip(),
        caption=_caption(found),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    # A direction has a line of its own: names are long, and a terminal is 80 letters wide.
    table.add_column("given → generated")
    for heading in HEADINGS[WORDS:]:
        table.add_column(heading, justify="right", no_wrap=True)
    before = None
    for given, target, about_what, measure, *numbers in _lines(found):
        if (given, target) != before:
            if before is not None:
                table.add_section()
            table.add_row(styled((f"{given} → {target}", "bold")))
        before = (given, target)
        table.add_row(f"  {about_what}, {measure}", *numbers)
    return table


def coherence_markdown(found: Coherence, about: str = "") -> str:
    """Returns one of GitHub's tables below its title, and the notes."""
    lines = [HEADINGS, ["---" if n < WORDS else "---:" for n in range(len(HEADINGS))]]
    lines += [[cell.replace("|", "\\|") for cell in line] for line in _lines(found)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    title = f"**Is what was generated recognised?** {about}".strip()
    notes = "".join(f"\n- {note}" for note in found.notes)
    return f"{title} ({_caption(found)})\n\n{table}\n{notes}".rstrip("\n") + "\n"


def coherence_csv(found: Coherence) -> str:
    """Returns one line a measurement, with all digits; what does not apply is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**asdict(row), "given": "+".join(row.given)} for row in found.rows)
    return out.getvalue()


def coherence_json(found: Coherence, head: dict[str, Any] | None = None) -> str:
    """Returns everything; ``head`` says what it was measured of."""
    return json.dumps({**(head or {}), **asdict(found)}, indent=2) + "\n"


def save_coherence(found: Coherence, path: Path, about: str = "") -> Path:
    """Writes the table in the format of the file's suffix: ``.md``, ``.csv`` or ``.json``.

    Raises:
        ConfigError: If it is another one.
        WriteError: If the file cannot be written.
    """
    suffix = checked_format(path, FORMATS)
    if suffix == ".md":
        deliver(path, coherence_markdown(found, about))
    elif suffix == ".csv":
        deliver(path, coherence_csv(found))
    else:
        deliver(path, coherence_json(found, {"about": about} if about else None))
    return path


def _caption(found: Coherence) -> str:
    count = found.rows[0].rows if found.rows else 0
    return f"{count:,} rows, {found.samples:,} samples of z each; {NOTE}"


def _lines(found: Coherence) -> Iterator[tuple[str, ...]]:
    """Yields a line of cells a measurement, z at its mean and sampled side by side."""
    sampled = {_key(row): row for row in found.rows if row.z == "sampled"}
    for row in found.rows:
        if row.z != "mean":
            continue
        other = sampled.get(_key(row))
        yield (
            " + ".join(row.given),
            row.target,
            row.about if row.about == row.target else f"{row.about}, seen",
            row.measure,
            *_numbers(row),
            *(("–", "–") if other is None else _numbers(other)),
            f"{100 * row.baseline:.1f}",
            "–" if row.ceiling is None else f"{100 * row.ceiling:.1f}",
        )


def _key(row: Row) -> tuple[object, ...]:
    return row.given, row.target, row.about, row.measure


def _numbers(row: Row) -> tuple[str, str]:
    return f"{100 * row.value:.1f}", f"{100 * row.error:.1f}"
