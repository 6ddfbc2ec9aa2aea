"""Coherence as tables: in the terminal, Markdown, CSV and JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mmgen.evaluation.coherence.coherence import Coherence, Row
from mmgen.tables import Table, comma_separated, save

NUMBERS = ("mean z", "±", "sampled z", "±", "constant", "ceiling")
FORMATS = (".md", ".csv", ".json")

NOTE = (
    "per cent; seen: by a classifier; mean z: z at the posterior's mean; ±: standard error over "
    "rows; constant: the best constant answer; ceiling: the classifier on real observations; "
    "nothing: what all show is the same"
)


def coherence_table(found: Coherence, about: str = "") -> Table:
    """Returns the table for the terminal, one section per direction.

    Args:
        found: See :func:`mmgen.evaluation.coherence.coherence.coherence`.
        about: Of which run and rows, for the title.
    """
    # A direction has a line of its own: names are long, and a terminal is 80 letters wide.
    rows: list[tuple[str, ...]] = []
    directions: dict[str, int] = {}
    for given, target, about_what, measure, *numbers in _lines(found):
        if (direction := f"{given} → {target}") not in directions:
            directions[direction] = len(rows)
            rows.append((direction,))
        rows.append((f"  {about_what}, {measure}", *numbers))
    return Table(
        ("given → generated", *NUMBERS),
        "w" + "r" * len(NUMBERS),
        rows,
        f"Is what was generated recognised? {about}".strip(),
        _caption(found),
        sections=set(directions.values()) - {0},
        styles=dict.fromkeys(directions.values(), "bold"),
    )


def coherence_markdown(found: Coherence, about: str = "") -> str:
    """Returns one of GitHub's tables below its title, and the notes."""
    words = ("given", "generated", "compared", "measure")
    table = Table((*words, *NUMBERS), "llll" + "r" * len(NUMBERS), [*_lines(found)])
    title = f"**Is what was generated recognised?** {about}".strip()
    notes = "".join(f"\n- {note}" for note in found.notes)
    return f"{title} ({_caption(found)})\n\n{table.markdown()}{notes}".rstrip("\n") + "\n"


def coherence_csv(found: Coherence) -> str:
    """Returns one line per measurement, with all digits; what does not apply is empty."""
    records = ({**asdict(row), "given": "+".join(row.given)} for row in found.rows)
    return comma_separated([field.name for field in fields(Row)], records)


def coherence_json(found: Coherence, head: dict[str, Any] | None = None) -> str:
    """Returns everything; ``head`` says what it was measured of."""
    return json.dumps({**(head or {}), **asdict(found)}, indent=2) + "\n"


def save_coherence(found: Coherence, path: Path, about: str = "") -> Path:
    """Writes the table in the format of the file's suffix: ``.md``, ``.csv`` or ``.json``.

    Raises:
        ConfigError: If it is another one.
        WriteError: If the file cannot be written.
    """
    texts = (
        lambda: coherence_markdown(found, about),
        lambda: coherence_csv(found),
        lambda: coherence_json(found, {"about": about} if about else None),
    )
    return save(path, dict(zip(FORMATS, texts, strict=True)))


def _caption(found: Coherence) -> str:
    counts = [row.rows for row in found.rows] or [0]
    least, most = min(counts), max(counts)
    count = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"{count} rows, {found.samples:,} samples of z each; {NOTE}"


def _lines(found: Coherence) -> Iterator[tuple[str, ...]]:
    """Yields a line of cells a measurement, z at its mean and sampled side by side."""
    measured: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in found.rows:
        measured.setdefault((row.given, row.target, row.about, row.measure), {})[row.z] = row
    for each in measured.values():
        row = next(iter(each.values()))
        yield (
            " + ".join(row.given) or "nothing",
            row.target.replace("+", " + "),
            row.about if row.about == row.target else f"{row.about}, seen",
            row.measure,
            *_numbers(each.get("mean")),
            *_numbers(each.get("sampled")),
            _per_cent(row.baseline),
            _per_cent(row.ceiling),
        )


def _numbers(row: Row | None) -> tuple[str, str]:
    return ("–", "–") if row is None else (_per_cent(row.value), _per_cent(row.error))


def _per_cent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
