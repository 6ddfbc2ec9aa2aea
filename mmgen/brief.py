"""One readable line for any object: what ``repr`` shows in a notebook, a log or a traceback."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import PurePath
from typing import Any

LONGEST = 200
"""Letters of the line."""

FEW = 3
"""How many of a list's values are shown; the rest is counted."""


class OneLine:
    """An object whose ``repr`` is its fields in one line: of tensors the shape, of lists a few.

    For dataclasses (with ``repr=False``) and pydantic models, whose defaults are left out.
    """

    def __repr__(self) -> str:
        return line(type(self).__name__, dict(_shown(self)))

    def __str__(self) -> str:
        return repr(self)


def line(name: str, values: Mapping[str, Any]) -> str:
    """Writes a name and values in one line of at most :data:`LONGEST` letters.

    Examples:
        >>> line("Words", {"words": ["a", "b", "c", "d"], "count": 4})
        "Words(words=['a', 'b', 'c', … 4], count=4)"
    """
    told = ", ".join(f"{key}={short(value)}" for key, value in values.items())
    room = LONGEST - len(name) - 2
    return f"{name}({cut(told, room)})"


def cut(words: str, most: int = LONGEST) -> str:
    """Leaves out the end of words that have more than ``most`` letters.

    Examples:
        >>> cut("from the first to the last", 15)
        'from the first…'
    """
    return words if len(words) <= most else f"{words[: most - 1]}…"


def short(value: Any) -> str:
    """Writes a value in few words; an object as its class's name alone."""
    told = type(value).__name__
    if isinstance(value, str | PurePath):
        told = repr(cut(str(value), 60))
    elif isinstance(value, float):
        told = f"{value:.6g}"
    elif isinstance(value, int) and value.bit_length() > 64:
        told = f"int of {value.bit_length():,} bits"
    elif value is None or isinstance(value, int) or told in {"device", "dtype"}:
        told = str(value)
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        told = f"{told} {tuple(value.shape)}"
    elif isinstance(value, Mapping):
        told = _several("{", value, "}")
    elif isinstance(value, list | tuple | Set):
        told = _several("[", value, "]")
    elif isinstance(value, type):
        told = value.__name__
    return told


def _several(opening: str, values: Any, closing: str) -> str:
    told = [short(value) for value in islice(values, FEW)]
    more = [f"… {len(values):,}"] * (len(values) > FEW)
    return f"{opening}{', '.join([*told, *more])}{closing}"


def _shown(of: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(of):
        yield from ((f.name, getattr(of, f.name)) for f in fields(of) if f.repr)
        return
    for name, field in type(of).model_fields.items():
        if field.is_required() or getattr(of, name) != field.get_default():
            yield name, getattr(of, name)
