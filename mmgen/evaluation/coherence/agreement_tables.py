"""Agreement as tables: in the terminal, Markdown, CSV and JSON."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mmgen.evaluation.coherence.agreement import Agreement, Finding, Question
from mmgen.evaluation.coherence.tables import FORMATS
from mmgen.subsets import name
from mmgen.tables import Table, comma_separated, save

TITLES: dict[Question, str] = {
    "one to one": "given one, another is of the row's class",
    "one to many, agree": "given one, all others are of one class",
    "one to many, right": "given one, all others are of the row's class",
    "n given": "given some, the others are of the row's class",
    "from nothing": "from nothing, all are of one class",
    "Fréchet": "Fréchet distance from real rows",
}
"""What is asked, in words."""

NUMBERS = ("value", "±", "constant", "real")

NOTE = (
    "per cent, but for the Fréchet distance; ±: standard error over rows; constant: the best "
    "constant answer; real: the same of real rows"
)


def agreement_table(found: Agreement, about: str = "") -> Table:
    """Returns the table for the terminal, a section per question; of classes, the means alone.

    Args:
        found: See :func:`mmgen.evaluation.coherence.agreement.agreement`.
        about: Of which run and rows, for the title.
    """
    rows: list[tuple[str, ...]] = []
    titles: dict[str, int] = {}
    for finding in found.findings:
        if finding.about and not _is_mean_or_joint(finding):
            continue
        if (title := TITLES[finding.question]) not in titles:
            titles[title] = len(rows)
            rows.append((title,))
        rows.append((f"  {_what(finding)}", *_numbers(finding)))
    return Table(
        (found.judge, *NUMBERS),
        "w" + "r" * len(NUMBERS),
        rows,
        f"Is all of one {found.judge}? {about}".strip(),
        _caption(found),
        sections=set(titles.values()) - {0},
        styles=dict.fromkeys(titles.values(), "bold"),
    )


def agreement_markdown(found: Agreement, about: str = "") -> str:
    """Returns one of GitHub's tables below its title, and the notes."""
    words = ("question", "given", "generated", found.judge)
    rows = [
        (
            finding.question,
            name(finding.given) or _number(finding),
            name(finding.targets),
            finding.about,
            *_numbers(finding),
        )
        for finding in found.findings
    ]
    table = Table((*words, *NUMBERS), "llll" + "r" * len(NUMBERS), rows)
    title = f"**Is all of one {found.judge}?** {about}".strip()
    notes = "".join(f"\n- {note}" for note in found.notes)
    return f"{title} ({_caption(found)})\n\n{table.markdown()}{notes}".rstrip("\n") + "\n"


def agreement_csv(found: Agreement) -> str:
    """Returns one line per finding, with all digits; what does not apply is empty."""
    return comma_separated([field.name for field in fields(Finding)], _records(found))


def agreement_json(found: Agreement, head: dict[str, Any] | None = None) -> str:
    """Returns everything; ``head`` says what it was measured of."""
    content = {**(head or {}), **asdict(found), "findings": list(_records(found, joined=False))}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def save_agreement(found: Agreement, path: Path, about: str = "") -> Path:
    """Writes the table in the format of the file's suffix: ``.md``, ``.csv`` or ``.json``.

    Raises:
        ConfigError: If it is another one.
        WriteError: If the file cannot be written.
    """
    texts = (
        lambda: agreement_markdown(found, about),
        lambda: agreement_csv(found),
        lambda: agreement_json(found, {"about": about} if about else None),
    )
    return save(path, dict(zip(FORMATS, texts, strict=True)))


def _records(found: Agreement, *, joined: bool = True) -> Iterator[dict[str, object]]:
    for finding in found.findings:
        record = asdict(finding)
        if not math.isfinite(finding.error):
            record["error"] = None
        if joined:
            record |= {"given": name(finding.given), "targets": name(finding.targets)}
        yield record


def _is_mean_or_joint(finding: Finding) -> bool:
    mean = finding.question == "one to one" and not finding.targets
    return mean or finding.question == "from nothing"


def _what(finding: Finding) -> str:
    """Says in few words what was generated from what, or of which class it is."""
    if finding.about:
        return f"  {finding.about}"
    if not finding.given and not finding.targets:
        return f"{_number(finding)}, mean"
    if finding.question in ("one to one", "Fréchet"):
        return f"{' + '.join(finding.given) or 'nothing'} → {' + '.join(finding.targets)}"
    return " + ".join(finding.given) or "all"


def _number(finding: Finding) -> str:
    return f"{finding.number} given"


def _caption(found: Agreement) -> str:
    return f"{found.rows:,} rows, {found.samples:,} samples of z each; {NOTE}"


def _numbers(finding: Finding) -> tuple[str, ...]:
    distance = finding.question == "Fréchet"
    numbers = (finding.value, finding.error, finding.baseline, finding.ceiling)
    return tuple(_written(number, distance) for number in numbers)


def _written(value: float | None, distance: bool) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.2f}" if distance else f"{100 * value:.1f}"
