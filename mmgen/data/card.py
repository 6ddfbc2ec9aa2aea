"""The card of a data set: a Markdown page on what it holds and how it was made."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmgen.data.split import Split
from mmgen.data.store import SHEET
from mmgen.data.tables.importing import counted
from mmgen.data.tables.table import BadRow
from mmgen.modality import Modality
from mmgen.tables import Table

MOST = 100
"""The most values of one modality that are counted in a table."""

EXAMPLES = 8
"""The number of rows that are described in words where no modality is a picture."""


def card(
    name: str,
    about: str,
    modalities: Mapping[str, Modality],
    splits: Mapping[str, Split],
    *,
    command: str = "",
    bad: Sequence[BadRow] = (),
    sheet: bool = False,
) -> str:
    """Returns the text of the card.

    Args:
        name: The data set's name.
        about: One or two sentences.
        modalities: The modalities, by name.
        splits: The rows, which are read block by block.
        command: The command that made it.
        bad: The rows that were left out; all are listed.
        sheet: Whether :data:`~mmgen.data.store.SHEET` lies beside the card, which then shows it.

    Returns:
        Markdown. Everything in it that is not mmgen's own wording is escaped.
    """
    counts = {split: rows.count for split, rows in splits.items()}
    rows = [[split, f"{count:,}"] for split, count in counts.items()]
    parts = [f"# {_plain(name)}", _plain(about)]
    if sheet:
        parts.append(f"![Examples]({SHEET})")
    parts.append(_table(["split", "rows"], [*rows, ["all", f"{sum(counts.values()):,}"]]))
    parts += _missing(modalities, splits)
    for key, modality in modalities.items():
        having = {split: rows.having([key]) for split, rows in splits.items()}
        some = next((rows for rows in having.values() if rows.count), None)
        if some is None:
            parts += [f"## {_plain(key)}", "no row has it"]
            continue
        stored = some.take(torch.zeros(1, dtype=torch.int64), [key])[key]
        parts += [f"## {_plain(key)}", _settings(modality, stored)]
        parts += _statistics(modality, key, stored, having)
    if modalities and not sheet:
        parts += ["## Examples", _examples(modalities, next(iter(splits.values())))]
    if bad:
        total = sum(counts.values()) + len(bad)
        parts += [
            "## Rows left out",
            f"{len(bad):,} of {total:,} rows could not be used: {_plain(counted(bad))}.",
            "\n".join(f"- {_plain(str(row))}" for row in bad),
        ]
    if command:
        parts += ["## How it was made", f"```sh\n{command.replace('```', '')}\n```"]
    return "\n\n".join(parts) + "\n"


def _missing(modalities: Mapping[str, Modality], splits: Mapping[str, Split]) -> list[str]:
    """Counts what rows lack, by modality and by pattern; empty if they lack nothing."""
    total = sum(rows.count for rows in splits.values())
    lacking = {
        n: [int((~rows.present[n]).sum()) if n in rows.present else 0 for rows in splits.values()]
        for n in modalities
    }
    found = {n: counts for n, counts in lacking.items() if any(counts)}
    if not found:
        return []
    by_modality = [
        [_plain(n), *(f"{count:,}" for count in counts), _share(sum(counts), total)]
        for n, counts in found.items()
    ]
    patterns = [rows.patterns(modalities) for rows in splits.values()]
    each = sorted(
        {*(S for counts in patterns for S in counts)}, key=lambda S: -sum(c[S] for c in patterns)
    )
    by_pattern = [
        [
            " + ".join(S) or "nothing",
            *(f"{c[S]:,}" for c in patterns),
            _share(sum(c[S] for c in patterns), total),
        ]
        for S in each[:MOST]
    ]
    more = [f"and {len(each) - MOST:,} more"] if len(each) > MOST else []
    return [
        "## Missing values",
        _table(["rows without", *splits, "share"], by_modality),
        _table(["rows that have", *splits, "share"], by_pattern),
        *more,
    ]


def _settings(modality: Modality, stored: Tensor) -> str:
    """Describes the kind, how a value is stored, and settings other than the kind's defaults."""
    form = "×".join(map(str, stored.shape[1:])) or "one number"
    words = [f"kind **{_plain(modality.kind)}**", f"{form}, {str(stored.dtype).split('.')[-1]}"]
    for key, field in type(modality).model_fields.items():
        value = getattr(modality, key)
        counted_below = isinstance(value, tuple) and list(value) == modality.choices()
        if not counted_below and (field.is_required() or value != field.default):
            words.append(f"{_plain(key)} {_plain(_short(value))}")
    return "; ".join(words)


def _short(value: Any) -> str:
    if isinstance(value, tuple | list):
        shown = ", ".join(_short(each) for each in value[:12])
        return f"{shown}, … ({len(value)})" if len(value) > 12 else shown
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _statistics(
    modality: Modality, name: str, stored: Tensor, splits: Mapping[str, Split]
) -> list[str]:
    """Counts the rows that show each choice, or lists the ranges of few numbers, or is empty."""
    choices = modality.choices()
    if choices:
        shown = choices[:MOST]
        counts = {split: _counts(modality, shown, rows, name) for split, rows in splits.items()}
        total = sum(rows.count for rows in splits.values())
        unknown = _unknown(modality, len(choices), splits, name)[: len(shown)]
        rows = [
            [choice, *(f"{n:,}" for n in each), _share(sum(each), total - lost)]
            + ([f"{lost:,}"] if any(unknown) else [])
            for choice, lost, *each in zip(shown, unknown, *counts.values(), strict=True)
        ]
        more = [f"and {len(choices) - MOST:,} more"] if len(choices) > MOST else []
        last = ["share", "unknown"] if any(unknown) else ["share"]
        return [_table(["value", *splits, *last], rows), *more]
    numbers = stored[0].numel()
    if not numbers or numbers > MOST or stored.ndim > 2:
        return []
    names = _names(modality, numbers)
    rows = [
        [word, *(f"{value:.4g}" for value in column)]
        for word, column in zip(names, _ranges(name, splits).tolist(), strict=True)
    ]
    return [_table(["value", "least", "mean", "standard deviation", "most"], rows)]


def _counts(modality: Modality, choices: Sequence[str], rows: Split, name: str) -> list[int]:
    """Counts the rows of a split that show each choice."""
    counts = [0] * len(choices)
    for _, block in rows.blocks(name):
        counts = [n + _showing(modality, c, block) for n, c in zip(counts, choices, strict=True)]
    return counts


def _unknown(modality: Modality, choices: int, splits: Mapping[str, Split], name: str) -> list[int]:
    """Counts the rows in which it is unknown whether they show each choice."""
    counts = torch.zeros(choices, dtype=torch.int64)
    for rows in splits.values() if type(modality).known is not Modality.known else ():
        for _, block in rows.blocks(name):
            known = modality.known(modality.observe(block.clone()))
            if known is not None and known[0].numel() == choices:
                counts += (~known).reshape(len(known), -1).sum(0)
    return counts.tolist()


def _ranges(name: str, splits: Mapping[str, Split]) -> Tensor:
    """Returns least, mean, standard deviation and most of each of C numbers, ``(C, 4)``."""

    def blocks() -> Iterator[Tensor]:
        for rows in splits.values():
            for _, block in rows.blocks(name):
                yield block.reshape(len(block), -1).double()

    count = sum(rows.count for rows in splits.values())
    least = torch.stack([block.amin(0) for block in blocks()]).amin(0)
    most = torch.stack([block.amax(0) for block in blocks()]).amax(0)
    mean = torch.stack([block.sum(0) for block in blocks()]).sum(0) / count
    squares = torch.stack([(block - mean).square().sum(0) for block in blocks()]).sum(0)
    return torch.stack([least, mean, (squares / count).sqrt(), most], 1)


def _showing(modality: Modality, choice: str, stored: Tensor) -> int:
    """Counts the rows that show a choice: those that agree with it wherever it is not zero."""
    value = modality.parse(choice)
    if value.ndim == 0:
        return int((stored == value).sum())
    on = value != 0
    return int((stored[:, on] == value[on]).all(1).sum())


def _names(modality: Modality, numbers: int) -> list[str]:
    """Returns the one field that names as many values as there are, or their numbers."""
    for key in type(modality).model_fields:
        field = getattr(modality, key)
        if isinstance(field, tuple) and len(field) == numbers and isinstance(field[0], str):
            return [str(name) for name in field]
    return [str(number + 1) for number in range(numbers)]


def _share(part: int, total: int) -> str:
    return f"{100 * part / total:.1f} %" if total else "–"


def _examples(modalities: Mapping[str, Modality], split: Split) -> str:
    values = split.take(torch.arange(min(EXAMPLES, split.count)), modalities)
    has = values.present or {}
    described = [told(m, m.observe(values[name]), has.get(name)) for name, m in modalities.items()]
    return _table([*modalities], [*zip(*described, strict=True)], others="l")


def told(modality: Modality, x: Tensor, present: Tensor | None) -> list[str]:
    """Describes observations ``(n, *shape)``, with a dash for those that are absent."""
    words = modality.describe(x)
    if present is None:
        return words
    return [word if has else "–" for word, has in zip(words, present.tolist(), strict=True)]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], others: str = "r") -> str:
    """Writes a table whose columns but the first are all of words (``l``) or of numbers."""
    align = "l" + others * (len(headings) - 1)
    return Table(headings, align, rows).markdown(_plain).rstrip("\n")


def _plain(words: str) -> str:
    """Escapes characters with a meaning in Markdown and HTML; ``_`` has none within a word."""
    words = re.sub(r"([\\`*\[\]<>#|~&])", r"\\\1", " ".join(words.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", words)
