"""The card of a data set: a Markdown page on what it holds and how it was made."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmgen.data.store import SHEET
from mmgen.data.tables.importing import counted
from mmgen.data.tables.table import BadRow
from mmgen.modality import Modality
from mmgen.tables import Table

MOST = 100
"""The most values of one modality that are counted in a table."""

EXAMPLES = 8
"""The number of rows that are described in words where no modality is a picture."""

Splits = Mapping[str, Mapping[str, Tensor]]


def card(
    name: str,
    about: str,
    modalities: Mapping[str, Modality],
    splits: Splits,
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
        splits: Stored values ``(count, ...)`` by split and modality.
        command: The command that made it.
        bad: The rows that were left out; all are listed.
        sheet: Whether :data:`~mmgen.data.store.SHEET` lies beside the card, which then shows it.

    Returns:
        Markdown. Everything in it that is not mmgen's own wording is escaped.
    """
    counts = {split: len(next(iter(values.values()))) for split, values in splits.items()}
    rows = [[split, f"{count:,}"] for split, count in counts.items()]
    parts = [f"# {_plain(name)}", _plain(about)]
    if sheet:
        parts.append(f"![Examples]({SHEET})")
    parts.append(_table(["split", "rows"], [*rows, ["all", f"{sum(counts.values()):,}"]]))
    for key, modality in modalities.items():
        own = {split: values[key] for split, values in splits.items()}
        parts += [f"## {_plain(key)}", _settings(modality, own), *_statistics(modality, own)]
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


def _settings(modality: Modality, own: Mapping[str, Tensor]) -> str:
    """Describes the kind, how a value is stored, and settings other than the kind's defaults."""
    stored = next(iter(own.values()))
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


def _statistics(modality: Modality, own: Mapping[str, Tensor]) -> list[str]:
    """Counts the rows that show each choice, or lists the ranges of few numbers, or is empty."""
    choices = modality.choices()
    stored = next(iter(own.values()))
    if choices:
        counts = {c: {s: _showing(modality, c, v) for s, v in own.items()} for c in choices[:MOST]}
        total = sum(map(len, own.values()))
        rows = [
            [choice, *(f"{n:,}" for n in each.values()), _share(sum(each.values()), total)]
            for choice, each in counts.items()
        ]
        more = [f"and {len(choices) - MOST:,} more"] if len(choices) > MOST else []
        return [_table(["value", *own, "share"], rows), *more]
    numbers = stored[0].numel()
    if not numbers or numbers > MOST or stored.ndim > 2:
        return []
    flat = torch.cat([values.reshape(len(values), -1).double() for values in own.values()])
    names = _names(modality, numbers)
    rows = [
        [name, *(f"{value:.4g}" for value in (c.min(), c.mean(), c.std(correction=0), c.max()))]
        for name, c in zip(names, flat.unbind(1), strict=True)
    ]
    return [_table(["value", "least", "mean", "standard deviation", "most"], rows)]


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
    return f"{100 * part / total:.1f} %"


def _examples(modalities: Mapping[str, Modality], values: Mapping[str, Tensor]) -> str:
    described = [m.describe(m.observe(values[name][:EXAMPLES])) for name, m in modalities.items()]
    return _table([*modalities], [*zip(*described, strict=True)], others="l")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], others: str = "r") -> str:
    """Writes a table whose columns but the first are all of words (``l``) or of numbers."""
    align = "l" + others * (len(headings) - 1)
    return Table(headings, align, rows).markdown(_plain).rstrip("\n")


def _plain(words: str) -> str:
    """Escapes characters with a meaning in Markdown and HTML; ``_`` has none within a word."""
    words = re.sub(r"([\\`*\[\]<>#|~&])", r"\\\1", " ".join(words.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", words)
