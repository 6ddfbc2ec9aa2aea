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


def named(cell: str, names: Sequence[str]) -> list[bool | None]:
    """Reads names that are on, joined by commas, and such as are unknown, with ``?`` before them.

    Raises:
        ValueError: If a name is unknown.

    Examples:
        >>> named("bold, ?wide", ["bold", "italic", "wide"])
        [True, False, None]
    """
    read = {word.strip() for word in cell.split(",")} - {"", "none"}
    unknown = {word[1:].strip() for word in read if word.startswith("?") and word not in names}
    on = {word for word in read if word in names or not word.startswith("?")}
    for word in sorted(on | unknown):
        check_name(word, names)
    return [True if name in on else None if name in unknown else False for name in names]


def states(value: Any, names: Sequence[str]) -> list[bool | None] | None:
    """Reads which attributes are on from a collection.

    Args:
        value: A dictionary such as ``{"bold": True}``, where what is not named is off, and what is
            ``None`` unknown; a list or set of the names that are on; or a list or array with 0 or 1
            for each name.
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
        own = {name: value.get(name, False) for name in names}
        return [None if state is None else _state(name, state) for name, state in own.items()]
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


def join_known(row: Mapping[str, str | None], names: Sequence[str]) -> str | None:
    """Joins by commas what is on in a row, and with ``?`` before it what is unknown.

    Under an attribute's name, an empty cell is unknown. A list of words that is empty says that
    none of them is on; one that is missing (``None``) says nothing of any.

    Returns:
        ``None`` if nothing is known.

    Raises:
        ValueError: If a cell under an attribute's name is not 0/1.

    Examples:
        >>> join_known({"bold": "1", "large": "", "tags": "wide"}, ["bold", "large", "wide"])
        'bold,wide,?large'
        >>> join_known({"bold": "", "tags": None}, ["bold", "wide"])
    """
    own = {as_name(heading) for heading in row}
    said = {heading: cell for heading, cell in row.items() if cell or as_name(heading) not in names}
    known = {heading: cell for heading, cell in said.items() if cell is not None}
    unknown = [n for n in names if n in own and not any(n == as_name(h) for h in known)]
    if len(known) < len(said):  # a list of words is missing
        unknown += [name for name in names if name not in own]
    if len(unknown) == len(names):
        return None
    on = join_on(known, names)
    return ",".join([*filter(None, [on]), *(f"?{name}" for name in unknown)])
