"""Functions that read the cells of a table: numbers, on or off, lists of words, headings.

The reader of tables and the plugins share them; any author of a plugin may use them.
"""

import re
from collections.abc import Iterable, Sequence
from math import isfinite

ON = frozenset({"1", "true", "yes"})
OFF = frozenset({"0", "-1", "false", "no"})

SEPARATOR = re.compile(r"[|;,]")
"""What joins several words in one cell: ``bold|italic``."""


def number(cell: str) -> float | None:
    """Reads a finite number, or returns ``None``.

    Examples:
        >>> number(" 1.5 "), number("nan"), number("one")
        (1.5, None, None)
    """
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if isfinite(value) and "_" not in cell else None


def switch(cell: str) -> bool | None:
    """Reads 1, true, yes as on; 0, -1, false, no as off; anything else is ``None``.

    Examples:
        >>> switch("Yes"), switch("-1"), switch("maybe")
        (True, False, None)
    """
    word = cell.strip().lower()
    return True if word in ON else False if word in OFF else None


def are_switches(cells: Sequence[str]) -> bool:
    """Returns whether more than nine cells in ten are on or off.

    Examples:
        >>> are_switches(["0", "1", "yes"]), are_switches(["0", "1", "2"])
        (True, False)
    """
    return sum(switch(cell) is not None for cell in cells) > 0.9 * len(cells)


def words(cell: str) -> list[str]:
    """Splits a cell at the separators | ; and comma, and leaves out blanks.

    Examples:
        >>> words("bold| italic")
        ['bold', 'italic']
    """
    return [word.strip() for word in SEPARATOR.split(cell) if word.strip()]


def in_order(several: Iterable[str]) -> list[str]:
    """Returns the different words sorted: numbers first, by their size, then the rest.

    Examples:
        >>> in_order(["10", "9", "none", "10"])
        ['9', '10', 'none']
    """

    def place(word: str) -> tuple[float, str]:
        value = number(word)
        return (float("inf") if value is None else value, word)

    return sorted(set(several), key=place)


def as_name(heading: str) -> str:
    """Returns a heading as a name that can stand in a list that commas separate.

    Examples:
        >>> as_name("height,  in m")
        'height in m'
    """
    return " ".join(heading.replace(",", " ").split())
