"""Attributes as people have them: dictionaries and lists in a program, columns of a table."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from mmgen.data.cells import are_switches, as_name, in_order, number, switch, words
from mmgen.errors import listed, nearest


def check_name(name: Any, names: Sequence[str]) -> None:
    """Raises a ``ValueError`` that lists the names, the nearest first, if this is none of them."""
    if name not in names:
        close = nearest(name, names) if isinstance(name, str) else ""
        raise ValueError(f"no attribute {name!r}{close}: {listed(names)}")


def states(value: Any, names: Sequence[str]) -> list[bool] | None:
    """Reads which attributes are on from a collection.

    Args:
        value: A dictionary such as ``{"bold": True}``, where what is not named is off; a list or
            set of the names that are on; or a list or array with 0 or 1 for each name.
        names: The A attributes.

    Returns:
        A states, in the order of the names; ``None`` if the value is no collection.

    Raises:
        ValueError: If a name is unknown, a state is not on or off, or their number is not A.

    Examples:
        >>> states({"bold": 1}, ["bold", "italic"]), states([0, 1], ["bold", "italic"])
        ([True, False], [False, True])
    """
    if isinstance(value, Mapping):
        for name in value:
            check_name(name, names)
        return [_state(name, value.get(name, False)) for name in names]
    several = value.tolist() if isinstance(value, np.ndarray | Tensor) else value
    if not isinstance(several, list | tuple | set | frozenset):
        return None
    if all(isinstance(name, str) for name in several):
        for name in several:
            check_name(name, names)
        return [name in several for name in names]
    if len(several) != len(names) or isinstance(several, set | frozenset):
        raise ValueError(f"it has {len(several)} of the {len(names)} 0/1 of its names")
    return [_state(name, each) for name, each in zip(names, several, strict=True)]


def _state(name: str, value: Any) -> bool:
    state = switch(
        f"{value:g}"
        if isinstance(value, float)
        else str(int(value) if isinstance(value, Integral) else value)
    )
    if state is None:
        raise ValueError(f"{name} is on or off: True, False, 1, 0, not {value!r}")
    return state


def column_score(cells: Sequence[str]) -> float:
    """Returns 0.9 for a column of 0/1, 0.85 for lists of words that come again, else 0."""
    if not cells:
        return 0.0
    if are_switches(cells):
        return 0.9
    several = [words(cell) for cell in cells]
    different = {word for each in several for word in each}
    lists = sum(len(each) > 1 for each in several) >= 0.1 * len(cells)
    numbers = sum(number(word) is not None for word in different)
    again = len(different) <= min(200, sum(map(len, several)) / 2)
    return 0.85 if lists and again and 2 * numbers <= len(different) else 0.0


def infer_names(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the names of attributes: headings over 0/1, and the words of columns of lists."""
    names: list[str] = []
    for heading, cells in columns.items():
        if are_switches(cells):
            names.append(as_name(heading))
        else:
            names += in_order(word for cell in cells for word in words(cell) if word != "none")
    return list(dict.fromkeys(names))


def join_on(row: Mapping[str, str], names: Sequence[str]) -> str:
    """Joins by commas what is on in a row, by heading.

    Raises:
        ValueError: If a cell under an attribute's name is not 0/1.

    Examples:
        >>> join_on({"bold": "1", "large": "no", "tags": "wide"}, ["bold", "large", "wide"])
        'bold,wide'
    """
    on: list[str] = []
    for heading, cell in row.items():
        name = as_name(heading)
        if name not in names:
            on += words(cell)
            continue
        state = switch(cell)
        if state is None:
            raise ValueError(f"{cell!r} under {heading} is not 0/1 (true/false, yes/no, 1/-1)")
        on += [name] * state
    return ",".join(on)
