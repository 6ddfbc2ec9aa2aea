"""What plugins ask of a table's cells: numbers, on or off, words joined by a separator."""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mmgen.errors import listed, nearest
from mmgen.modality import Modality, Words

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


def switches(cells: Sequence[str]) -> bool:
    """Tells whether cells are on or off, but for one in ten that may be wrong."""
    return sum(switch(cell) is not None for cell in cells) > 0.9 * len(cells)


def words(cell: str) -> list[str]:
    """Splits a cell at the separators | ; and comma, and leaves out blanks.

    Examples:
        >>> words("bold| italic")
        ['bold', 'italic']
    """
    return [word.strip() for word in SEPARATOR.split(cell) if word.strip()]


def in_order(several: Iterable[str]) -> list[str]:
    """Returns different words sorted, numbers by their size and before the rest.

    Examples:
        >>> in_order(["10", "9", "none", "10"])
        ['9', '10', 'none']
    """

    def place(word: str) -> tuple[float, str]:
        value = number(word)
        return (float("inf") if value is None else value, word)

    return sorted(set(several), key=place)


def suits_classes(cells: Sequence[str]) -> float:
    """Tells how sure it is that cells are one of few classes: words that come again and again.

    Numbers are classes if they are whole and at most twenty different ones; measured values are
    none, however few.
    """
    usable = [word for cell in cells if (word := cell.strip()) and "," not in word]
    different = set(usable)
    if len(usable) <= 0.9 * len(cells) or not 2 <= len(different) <= min(1000, len(usable) / 2):
        return 0.0
    values = [value for word in different if (value := number(word)) is not None]
    if 2 * len(values) > len(different) and (
        len(values) > 20 or not all(value.is_integer() for value in values)
    ):
        return 0.0
    return 0.8 * (1 - len(different) / len(usable))


class AttributeColumns(Modality):
    """A kind whose values are attributes, on or off: what tables need to know of it.

    Its columns are 0 and 1 under an attribute's name, or list what is on: ``bold|italic``.
    """

    multi_column: ClassVar[bool] = True
    stored_with: ClassVar[tuple[str, ...]] = ("names",)
    names: Words = Field(min_length=1, examples=[("bold", "italic")], description="words")

    def accept(self, value: Any) -> Tensor:
        """Takes also a dictionary ``{"bold": True}``, a list of what is on, or 0/1 for each name.

        What a dictionary does not name is off.
        """
        if isinstance(value, Mapping):
            for name in value:
                self._check_name(name)
            states = [_state(name, value.get(name, False)) for name in self.names]
            return torch.tensor(states, dtype=torch.uint8)
        several = value.tolist() if isinstance(value, np.ndarray | Tensor) else value
        if not isinstance(several, list | tuple | set | frozenset):
            return super().accept(several)
        if all(isinstance(name, str) for name in several):
            for name in several:
                self._check_name(name)
            return torch.tensor([name in several for name in self.names], dtype=torch.uint8)
        if len(several) != len(self.names) or isinstance(several, set | frozenset):
            raise ValueError(f"it has {len(several)} of the {len(self.names)} 0/1 of its names")
        states = [_state(name, each) for name, each in zip(self.names, several, strict=True)]
        return torch.tensor(states, dtype=torch.uint8)

    def _check_name(self, name: Any) -> None:
        if name not in self.names:
            close = nearest(name, self.names) if isinstance(name, str) else ""
            raise ValueError(f"no attribute {name!r}{close}: {listed(self.names)}")

    @classmethod
    def match_score(cls, cells: Sequence[str]) -> float:
        """Is sure of 0/1, and of lists of words that come again and again."""
        if not cells:
            return 0.0
        if switches(cells):
            return 0.9
        several = [words(cell) for cell in cells]
        different = {word for each in several for word in each}
        lists = sum(len(each) > 1 for each in several) >= 0.1 * len(cells)
        numbers = sum(number(word) is not None for word in different)
        again = len(different) <= min(200, sum(map(len, several)) / 2)
        return 0.85 if lists and again and 2 * numbers <= len(different) else 0.0

    @classmethod
    def infer_settings(cls, columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Names attributes: a heading over 0/1, the words of a column that lists what is on."""
        names: list[str] = []
        for heading, cells in columns.items():
            if switches(cells):
                names.append(_typed(heading))
            else:
                names += in_order(word for cell in cells for word in words(cell) if word != "none")
        return {"names": list(dict.fromkeys(names))}

    def join_cells(self, row: Mapping[str, str]) -> str:
        """Joins what is on in a row; what is not 0/1 under an attribute's name is a ValueError."""
        on: list[str] = []
        for heading, cell in row.items():
            if _typed(heading) not in self.names:
                on += words(cell)
                continue
            state = switch(cell)
            if state is None:
                raise ValueError(f"{cell!r} under {heading} is not 0/1 (true/false, yes/no, 1/-1)")
            on += [_typed(heading)] * state
        return ",".join(on)


def _state(name: str, value: Any) -> bool:
    state = switch(
        f"{value:g}"
        if isinstance(value, float)
        else str(int(value) if isinstance(value, Integral) else value)
    )
    if state is None:
        raise ValueError(f"{name} is on or off: True, False, 1, 0, not {value!r}")
    return state


def class_number(value: Any, classes: Sequence[str]) -> int:
    """Returns the number of a class that is given by its name, as text or a whole number.

    Where no class is called by a number, a whole number is the class's number, from 0.

    Raises:
        ValueError: If there is no such class.

    Examples:
        >>> class_number(7, ["3", "7"]), class_number(1, ["no", "yes"])
        (1, 1)
    """
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    whole = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    if not whole and not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} is no class: {listed(classes)}")
    name = str(value).strip()
    if name in classes:
        return list(classes).index(name)
    if whole and 0 <= value < len(classes) and all(number(each) is None for each in classes):
        return int(value)
    raise ValueError(f"no class {name!r}{nearest(name, classes)}: {listed(classes)}")


def _typed(heading: str) -> str:
    """Returns a heading as a name that can be listed with others: without commas."""
    return " ".join(heading.replace(",", " ").split())
