"""Classes as people have them: words and whole numbers in a program, a column of a table."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from mmgen.data.cells import number
from mmgen.errors import listed, nearest


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


def column_score(cells: Sequence[str]) -> float:
    """Returns a score, at most 0.8, for a column of few words that come again and again.

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
